"""`python -m tests.parity.fuzz N [--seed S]`: N random T5Gemma checkpoints against transformers.

Needs the extra `[peers]`. Each checkpoint is written by transformers, in one file or in parts, and
read by both. Compared, in float64: the encoder's output and all logits (1e-9), greedy ids that go
on from the decoder's ids, where the model is run anew for each, and what `generate` writes until
its end tokens. A line for each that differs, and a summary; exit code 1 if one does.

transformers computes some steps in float32 whatever the model; here these casts give float64. It
has the window rule of its version 5; for files of version 4 the rule of 4 is put in its place.
"""

import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import T5GemmaConfig, T5GemmaForConditionalGeneration, masking_utils
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from mu_ref.config import ModelConfig
from mu_ref.executors import float_executor
from mu_ref.generate import generate
from mu_ref.golden.forward import forward_file
from mu_ref.model import mu
from mu_ref.readers import read_checkpoint
from mu_ref.weights import Weights
from tests.parity.random_t5gemma import Arrays, Drawn, draw

TOLERANCE = 1e-9
N_NEW = 5


@contextmanager
def lifted(model: torch.nn.Module) -> Iterator[None]:
    """Let what transformers casts to float32 be float64."""
    before = torch.float, torch.float32, torch.Tensor.float
    torch.float = torch.float32 = torch.float64
    torch.Tensor.float = torch.Tensor.double
    try:
        for module in model.modules():
            if hasattr(module, "inv_freq"):
                plain = module.compute_default_rope_parameters
                make = ROPE_INIT_FUNCTIONS.get(module.rope_type, plain)
                module.inv_freq = make(module.config)[0]
        yield
    finally:
        torch.float, torch.float32, torch.Tensor.float = before


@contextmanager
def window_rule(version: str | None) -> Iterator[None]:
    """Let an encoder's window reach as far as in the version that wrote a checkpoint."""
    before = masking_utils.sliding_window_bidirectional_overlay
    if (version or "5").startswith("4"):
        masking_utils.sliding_window_bidirectional_overlay = lambda window: before(window - 1)
    try:
        yield
    finally:
        masking_utils.sliding_window_bidirectional_overlay = before


def write(drawn: Drawn, folder: Path, seed: int) -> None:
    """Write a checkpoint as transformers does, with the fields as they were drawn."""
    torch.manual_seed(seed)
    fields = json.loads(json.dumps(drawn.fields))  # a copy: transformers moves things about in it
    model = T5GemmaForConditionalGeneration(T5GemmaConfig.from_dict(fields))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.tie_weights()
    model = model.to(getattr(torch, drawn.dtype))
    most = {} if drawn.shard_bytes is None else {"max_shard_size": drawn.shard_bytes}
    model.save_pretrained(folder, **most)
    (folder / "config.json").write_text(json.dumps(drawn.fields))
    generation = folder / "generation_config.json"
    generation.unlink(missing_ok=True)
    if drawn.generation is not None:
        generation.write_text(json.dumps(drawn.generation))
    np.savez(folder / "in.npz", **drawn.inputs)


def theirs(drawn: Drawn, folder: Path) -> dict[str, Any]:
    """Ask transformers."""
    model = T5GemmaForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager"
    ).eval()
    given = {name: torch.tensor(a) for name, a in drawn.inputs.items()}
    mask = given.get("attention_mask", given.get("encoder_attention_mask"))
    source, prompt = given["encoder_input_ids"], given["decoder_input_ids"]
    prompt_mask = given.get("decoder_attention_mask")

    def run(ids: torch.Tensor) -> Any:
        seen = prompt_mask
        if seen is not None:
            more = torch.ones(len(ids), ids.shape[1] - seen.shape[1], dtype=seen.dtype)
            seen = torch.cat([seen, more], dim=1)
        return model(
            input_ids=source, attention_mask=mask, decoder_input_ids=ids,
            decoder_attention_mask=seen,
        )  # fmt: skip

    with torch.no_grad(), lifted(model), window_rule(drawn.fields.get("transformers_version")):
        first = run(prompt)
        ids = prompt
        for _ in range(N_NEW):
            ids = torch.cat([ids, run(ids).logits[:, -1:].argmax(dim=-1)], dim=1)
        more = {} if mask is None else {"attention_mask": mask}
        text = model.generate(source, do_sample=False, max_new_tokens=N_NEW, **more)
    return {
        "encoder_output": first.encoder_last_hidden_state.numpy(), "logits": first.logits.numpy(),
        "greedy_ids": ids.numpy(), "text": text.tolist(),
    }  # fmt: skip


def written(model: ModelConfig, weights: Weights, inputs: Arrays) -> list[list[int]]:
    """What our `generate` writes, start and end tokens left out."""
    source = inputs["encoder_input_ids"]
    mask = inputs.get("attention_mask", inputs.get("encoder_attention_mask"))
    valid, read = mu.source_valid(model, source) if mask is None else (mask > 0, mask > 0)
    ops = float_executor(weights, dtype=np.float64)
    return generate(ops, model, source, valid, N_NEW, source_read=read)


def differences(drawn: Drawn, folder: Path) -> list[str]:
    """What differs between both, in words."""
    expected = theirs(drawn, folder)
    forward_file(folder, folder / "in.npz", folder / "out.npz", np.float64, N_NEW, from_prompt=True)
    with np.load(folder / "out.npz") as file:
        found = dict(file)
    wrong = []
    for name in ("encoder_output", "logits"):
        distance = np.abs(found[name] - expected[name]).max()
        if not distance <= TOLERANCE:
            wrong.append(f"{name} differ by {distance:.1e}")
    ours, other = found["greedy_ids"].tolist(), expected["greedy_ids"].tolist()
    if ours != other:
        wrong.append(f"greedy ids {ours}, transformers {other}")
    model, weights = read_checkpoint(folder)
    texts = written(model, weights, drawn.inputs)
    for text, row in zip(texts, expected["text"], strict=True):
        ends = [i for i, token in enumerate(row) if i and token in model.eos_ids]
        cut = row[1 : ends[0] if ends else None]
        if row[0] != model.bos_id or text != cut:
            wrong.append(f"generate writes {[model.bos_id, *text]}, transformers {row}")
        if ends and set(row[ends[0] + 1 :]) - {model.pad_id}:
            wrong.append(f"transformers fills with {row[ends[0] + 1 :]}, not with {model.pad_id}")
    return wrong


def main(n: int, seed: int) -> int:
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    n_right = 0
    for i in range(n):
        drawn = draw(np.random.default_rng([seed, i]))
        with tempfile.TemporaryDirectory() as folder:
            try:
                write(drawn, Path(folder), seed + i)
                wrong = differences(drawn, Path(folder))
            except Exception as error:
                wrong = [f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"]
        n_right += not wrong
        if wrong:
            print(f"{i} of seed {seed} ({drawn.summary}): {'; '.join(wrong)}", flush=True)
    print(f"{n_right} of {n}, transformers {transformers.__version__}")
    return 0 if n_right == n else 1


if __name__ == "__main__":
    given = sys.argv[1:]
    seed = int(given.pop(given.index("--seed") + 1)) if "--seed" in given else 0
    numbers = [text for text in given if text != "--seed"]
    sys.exit(main(int(numbers[0]) if numbers else 200, seed))
