"""Goldens of whole runs: a LLaMA, its drafter, every step of speculative greedy decoding."""

from pathlib import Path

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.generate import stream
from mu_ref.model import mu
from mu_ref.model.cache import Cache
from mu_ref.model.decoder import decode
from mu_ref.ops.reference import ReferenceOps
from mu_ref.redrafter.beams import Beams, Search, draft, warp
from mu_ref.redrafter.config import DrafterConfig
from mu_ref.redrafter.generate import speculate
from mu_ref.redrafter.tree import pack, unpack
from mu_ref.redrafter.verify import accept, verify
from mu_ref.training.datasets import pad

from .comparison import Comparison, Golden, read, read_beside
from .models import drafter_of, llama_of

CLOSE = 2e-5
Setup = tuple[ModelConfig, DrafterConfig, ReferenceOps]


def check_forward(path: Path, found: Comparison) -> None:
    golden = read(path)
    model, weights = llama_of(read_beside(path, "end_to_end__weights.npz"))
    ops = ReferenceOps(weights)
    ids, positions = (
        golden["input_ids_left_padded_with_0"],
        golden["position_ids_minus_left_padding"],
    )
    left = np.argmax(ids != 0, axis=1)
    tokens, valid = pad([row[n:] for row, n in zip(ids, left, strict=True)], 0)
    cache = Cache.empty(len(tokens), model.stacks["decoder"].n_layers)
    hidden = decode(ops, model, tokens, valid, None, cache)
    scores = mu.logits(ops, model, hidden)
    for row, n in enumerate(left):
        real = slice(0, ids.shape[1] - n)
        found.exact("positions", cache.positions[row, real], positions[row, n:])
        theirs = golden["last_hidden_states_after_final_norm"][row, n:]
        found.close("hidden", hidden[row, real], theirs, CLOSE)
        found.close("logits", scores[row, real], golden["logits"][row, n:], CLOSE)
        held = np.stack([np.stack([x.k[row], x.v[row]]) for x in cache.layers])[..., real, :]
        theirs = golden["kv_cache_layer_kv_batch_head_pos_dim"][:, :, row, :, n:]
        found.close("cache", held, theirs, CLOSE)


def check_weights(path: Path, found: Comparison) -> None:
    """The weights themselves: every name is known and the shapes belong together."""
    golden = read(path)
    model, _ = llama_of(golden)
    for name in golden.prefixes():
        if name.startswith("drafter_"):
            drafter_of(golden.under(name))[0].check_fits(model)
            found.n_arrays += 1


def check_run(path: Path, found: Comparison) -> None:
    golden = read(path)
    source = read_beside(path, "end_to_end__weights.npz")
    model, weights = llama_of(source)
    drafter, own = drafter_of(source.under(f"drafter_{golden['drafter_name']}"))
    setup = (model, drafter, ReferenceOps(weights | own))
    search = Search(
        beam_width=int(golden["beam_width"]),
        draft_len=int(golden["beam_length_including_init_token"]) - 1,
        warp=True,
        keep_log_probs=True,
    )
    pad_token = int(golden["pad_token"])
    ids = golden["prompt_ids"]
    left = np.argmax(ids != pad_token, axis=1)
    prompt, valid = pad([row[n:] for row, n in zip(ids, left, strict=True)], 0)
    _check_steps(golden, setup, search, prompt, valid, found)
    _check_output(golden, setup, search, prompt, valid, found)


def _check_steps(
    golden: Golden, setup: Setup, search: Search, prompt: np.ndarray, valid: np.ndarray,
    found: Comparison,
) -> None:  # fmt: skip
    model, drafter, ops = setup
    cache = Cache.empty(len(prompt), model.stacks["decoder"].n_layers)
    rows, n_steps = np.arange(len(prompt)), int(golden["n_steps"])
    last = valid.sum(axis=1, keepdims=True) - 1
    hidden = ops.take_tokens(decode(ops, model, prompt, valid, None, cache), last, "last")
    token = ops.argmax(mu.logits(ops, model, hidden), "head.argmax")[:, 0]
    found.exact("first token", token, golden["prompt_first_greedy_token"])
    found.close("prompt state", hidden[:, 0], golden["prompt_context_hidden_state"], CLOSE)
    n_tokens = 0
    for t in range(1, n_steps + 1):
        step = golden.under(f"step{t:02d}")
        found.exact(f"{t} token", token, step["init_token"])
        found.close(f"{t} state", hidden[:, 0], step["context_hidden_state"], CLOSE)
        beams = draft(ops, model, drafter, hidden, token, search)
        found.exact(f"{t} beams", beams.tokens, step["beams"])
        if "drafter_log_probs" in step:
            found.close(f"{t} log probs", beams.log_probs, step["drafter_log_probs"], CLOSE)
        tree, n_past = pack(beams.tokens), cache.tokens.shape[1]
        n_context = cache.valid.sum(axis=1)
        _check_tree(t, tree, beams.tokens, n_context, step, found)
        alive = np.ones(len(prompt), bool)
        states = verify(ops, model, None, cache, beams.tokens, tree, n_context, alive)
        scores = mu.logits(ops, model, states)
        written = unpack(ops.argmax(scores, "head.argmax"), tree)
        theirs = step["unpacked_llm_hidden_states"]
        found.close(f"{t} hidden", unpack(states, tree), theirs, CLOSE)
        if "unpacked_llm_warped_logits" in step:
            ours = warp(unpack(scores, tree))
            found.close(f"{t} logits", ours, step["unpacked_llm_warped_logits"], CLOSE)
        found.exact(f"{t} greedy", written, step["llm_greedy_tokens"])
        kept = accept(beams.tokens, written)
        found.exact(f"{t} accepted", kept.n_accepted, step["n_accepted_draft_tokens"])
        found.exact(f"{t} beam", kept.best_beam, step["chosen_beam"])
        found.exact(f"{t} next", kept.next_token, step["next_init_token"])
        path = tree.unpacker[rows, kept.best_beam, : kept.n_accepted.max() + 1]
        stays = np.arange(path.shape[1]) <= kept.n_accepted[:, None]
        cache.keep(ops, n_past, n_past + path, stays)
        hidden = ops.take_tokens(states, path[rows, kept.n_accepted][:, None], "last")
        token = kept.next_token
        found.close(f"{t} next state", hidden[:, 0], step["next_context_hidden_state"], CLOSE)
        for row in rows:
            ours = cache.tokens[row, cache.valid[row]]
            ids = step["input_ids_after"][row]
            found.exact(f"{t} ids", ours, ids[len(ids) - len(ours) :])
        n_tokens += int((kept.n_accepted + 1).sum())
    mean = n_tokens / (n_steps * len(prompt))
    found.close("tokens per step", mean, golden["mean_tokens_per_step"], 1e-12)


def _check_tree(
    t: int, tree: object, beams: np.ndarray, n_context: np.ndarray, step: Golden, found: Comparison
) -> None:
    found.exact(f"{t} packed", tree.packed(beams), step["packed_beams"])  # type: ignore[attr-defined]
    found.exact(f"{t} unpacker", tree.unpacker, step["unpacker"])  # type: ignore[attr-defined]
    found.exact(f"{t} depths", tree.depths, step["position_offsets"])  # type: ignore[attr-defined]
    positions = n_context[:, None] + tree.depths  # type: ignore[attr-defined]
    found.exact(f"{t} positions", positions, step["llm_position_ids"])
    mask = step["attention_mask"]
    n_packed = mask.shape[1]
    found.exact(f"{t} mask", tree.sees, mask[:, :, -n_packed:])  # type: ignore[attr-defined]
    found.exact(f"{t} context", n_context, mask[:, 0, :-n_packed].sum(axis=1))


def _check_output(
    golden: Golden, setup: Setup, search: Search, prompt: np.ndarray, valid: np.ndarray,
    found: Comparison,
) -> None:  # fmt: skip
    """Run `speculate` and plain decoding to the end; rows are compared up to a common length."""
    model, drafter, ops = setup

    def drafts(hidden: np.ndarray, token: np.ndarray, longest: int) -> Beams:
        del longest
        return draft(ops, model, drafter, hidden, token, search)

    limit = int(golden["max_length"])
    steps = list(speculate(ops, model, drafts, None, prompt, valid, limit, stop_at_eos=False))
    plain = list(stream(ops, model, None, prompt, valid, limit, stop_at_eos=False))
    for row in range(len(prompt)):
        start = prompt[row, valid[row]]
        written = np.concatenate([step.tokens[row, : step.n_tokens[row]] for step in steps])
        found.exact("plain", written, [step.tokens[row] for step in plain])
        ours = np.concatenate([start, written])
        for key in ("final_output_ids", "auto_regressive_output_ids"):
            theirs = golden[key][row]
            theirs = theirs[np.argmax(theirs == start[0]) :]
            theirs = theirs[_offset(theirs, start) :]
            n = min(len(ours), len(theirs))
            found.exact(f"{key} row {row}", ours[:n], theirs[:n])


def _offset(theirs: np.ndarray, start: np.ndarray) -> int:
    """Where the prompt begins, behind left padding."""
    places = range(len(theirs) - len(start) + 1)
    return next(i for i in places if np.array_equal(theirs[i : i + len(start)], start))
