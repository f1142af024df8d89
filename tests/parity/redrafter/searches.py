"""Goldens of the drafter and its beam search."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.model.encoder import embed
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.traced import Traced, TracedOps
from mu_ref.redrafter.beams import DEAD, Search, draft, log_softmax, select, warp
from mu_ref.redrafter.config import DrafterConfig
from mu_ref.redrafter.drafter import advance, scores
from mu_ref.weights import Weights

from .comparison import Comparison, Golden, read, read_beside
from .models import drafter_of, model_of

CASE = re.compile(r"B(\d+)_W(\d+)_L(\d+)")
KINDS = {"float32": np.float32, "float64": np.float64}
ALLOWED = {"float32": 2e-5, "float64": 1e-9}


def of_weights(golden: Golden) -> tuple[ModelConfig, DrafterConfig, Weights]:
    drafter, weights = drafter_of(golden)
    weights["embedding.weight"] = golden["llm_token_embedding"]
    return model_of(drafter.d_model, drafter.vocab_size), drafter, weights


def steps(
    model: ModelConfig, drafter: DrafterConfig, weights: Weights, hidden: np.ndarray,
    tokens: np.ndarray, width: int, draft_len: int, dtype: Any,
) -> Iterator[dict[str, np.ndarray]]:  # fmt: skip
    """Run the search as Apple does, all rows from the start, and show its inner values."""
    head_input: list[np.ndarray] = []

    def watch(site: str, op: str, inputs: tuple[Traced, ...], value: Any) -> None:
        del op, value
        if site == "drafter.head":
            head_input.append(inputs[0].value)

    inner = ReferenceOps(weights, dtype)
    ops = TracedOps(inner, watch)
    beams = np.repeat(tokens[:, None, None], width, axis=1)
    h = Traced(np.repeat(hidden[:, None].astype(dtype), width, axis=1), "model")
    log_p = np.full((len(tokens), width), DEAD, dtype)
    log_p[:, 0] = 0
    state = None
    for _ in range(draft_len):
        state = advance(ops, drafter, embed(ops, model, beams[:, :, -1], "decoder"), state)
        z = scores(ops, drafter, h, state).value
        warped = warp(z - z.max(axis=-1, keepdims=True))
        total = (log_p[:, :, None] + log_softmax(warped)).reshape(len(tokens), -1)
        source, token, log_p = select(log_p, warped, width)
        yield {
            "head_input_context_concat_state": np.concatenate([h.value, state.value], axis=-1),
            "vocab_head_input_after_resblocks": head_input[-1],
            "raw_logits": z,
            "warped_logits": warped,
            "beam_scores_all_candidates": total,
            "topk_flat_index": source * drafter.vocab_size + token,
            "topk_source_beam": source,
            "topk_token": token,
            "log_p_beam_after_step": log_p,
        }
        rows = source[:, :, None]
        beams = np.concatenate([np.take_along_axis(beams, rows, 1), token[:, :, None]], axis=2)
        state = Traced(np.take_along_axis(state.value, rows, 1), state.site)


def check_weights(path: Path, found: Comparison) -> None:
    """The weights themselves: every name is known and the shapes belong together."""
    _, drafter, weights = of_weights(read(path))
    found.exact(
        "embedding", weights["embedding.weight"].shape, (drafter.vocab_size, drafter.d_model)
    )


def check_grid(path: Path, found: Comparison) -> None:
    golden = read(path)
    model, drafter, weights = of_weights(
        read_beside(path, path.name.replace("__grid__", "__weights__"))
    )
    executors = {kind: ReferenceOps(weights, dtype) for kind, dtype in KINDS.items()}
    for name in golden.prefixes():
        case = golden.under(name)
        _, width, n = (int(x) for x in CASE.fullmatch(name).groups())  # type: ignore[union-attr]
        search = Search(beam_width=width, draft_len=n - 1, warp=True, keep_log_probs=True)
        hidden, tokens = case["input_llm_last_hidden_state"][:, None], case["input_init_token"]
        for kind, ops in executors.items():
            ours = draft(ops, model, drafter, hidden.astype(KINDS[kind]), tokens, search)
            ending = "" if kind == "float32" else "_float64_run"
            found.exact(f"{name} beams ({kind})", ours.tokens, case["output_beams"])
            found.close(
                f"{name} scores ({kind})",
                ours.log_p, case[f"observed_final_log_p_beam{ending}"], ALLOWED[kind],
            )  # fmt: skip
            if kind == "float32":
                found.close(f"{name} log probs", ours.log_probs, case["output_log_probs"], 2e-5)


def check_steps(path: Path, found: Comparison) -> None:
    golden = read(path)
    model, drafter, weights = of_weights(
        read_beside(path, path.name.replace("__step_by_step__", "__weights__"))
    )
    for name in golden.prefixes():
        case = golden.under(name)
        _, width, n = (int(x) for x in CASE.fullmatch(name).groups())  # type: ignore[union-attr]
        hidden, tokens = case["input_llm_last_hidden_state"], case["input_init_token"]
        for kind, dtype in KINDS.items():
            run = case.under(f"{kind}_run")
            shown = steps(model, drafter, weights, hidden, tokens, width, n - 1, dtype)
            for t, ours in enumerate(shown, 1):
                theirs = run.under(f"step{t}")
                for key, values in ours.items():
                    label = f"{name} {kind} step {t} {key}"
                    if key.startswith("topk"):
                        found.exact(label, values, theirs[key])
                    else:
                        found.close(label, values, theirs[key], ALLOWED[kind])


def check_edges(path: Path, found: Comparison) -> None:
    golden = read(path)
    for name in golden.prefixes():
        case = golden.under(name)
        if name == "maintain_logits":
            z = case["input"]
            found.exact(name, z - z.max(axis=-1, keepdims=True), case["output"])
        elif name.startswith("warp_logits"):
            (output,) = (key for key in golden.arrays if key.startswith(f"{name}__output"))
            found.exact(name, warp(case["input"]), golden.arrays[output])
        else:
            _check_undefined_order(path, name, case, found)


def _check_undefined_order(path: Path, name: str, case: Golden, found: Comparison) -> None:
    """Ties and dead beams: which beam is chosen is undefined, the sorted scores are not."""
    source = case
    if "uses_weights_of_model_A_rnn" in case:
        source = read_beside(path, "beam_search__weights__A_rnn.npz")
    model, drafter, weights = of_weights(source)
    hidden, tokens = case["input_llm_last_hidden_state"], case["input_init_token"]
    shape = case["output_beams_TIE_ORDER_UNDEFINED"].shape
    search = Search(beam_width=shape[1], draft_len=shape[2] - 1, warp=True)
    ours = draft(ReferenceOps(weights), model, drafter, hidden[:, None], tokens, search)
    shown = steps(model, drafter, weights, hidden, tokens, shape[1], shape[2] - 1, np.float32)
    for t, step in enumerate(shown, 1):
        theirs = case[f"step{t}__log_p_beam_after_step"]
        found.close(
            f"{name} step {t}", np.sort(step["log_p_beam_after_step"]), np.sort(theirs), 2e-5
        )
    found.close(f"{name} scores", np.sort(ours.log_p), np.sort(theirs), 2e-5)
    found.exact(f"{name} shape", ours.tokens.shape, shape)
