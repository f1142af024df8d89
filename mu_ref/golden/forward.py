"""Run another project's checkpoint on token ids from a file: the oracle for its ports."""

from pathlib import Path

import numpy as np

from mu_ref.border.files import written_whole
from mu_ref.border.ranges import NEW_TOKENS
from mu_ref.errors import InputError
from mu_ref.executors import float_executor
from mu_ref.generate import stream
from mu_ref.model import mu
from mu_ref.model.decoder import decode
from mu_ref.readers import read_checkpoint
from mu_ref.readers.token_file import read_inputs

__all__ = ["forward_file", "write_arrays"]

WRITTEN = ("encoder_output", "logits", "greedy_ids")


def forward_file(
    folder: Path,
    inputs: Path,
    out: Path,
    dtype: type,
    max_new_tokens: int,
    *,
    from_prompt: bool = False,
) -> dict[str, tuple[int, ...]]:
    """Write `encoder_output`, `logits` and `greedy_ids` for given token ids.

    Args:
        folder: a checkpoint of a family that `readers/` knows.
        inputs: npz with `encoder_input_ids` [batch, n_src], `decoder_input_ids` [batch, n_tgt] and,
            if present, masks of 0 and 1 in their shapes: `encoder_attention_mask` (or
            `attention_mask`) and `decoder_attention_mask`. A missing mask means what it means in
            the family's own code; see `docs/checkpoints.md`. What `forward_file` writes may stand
            there too, to compare with.
        out: npz to write; appears whole or not at all.
        dtype: np.float64 or np.float32.
        max_new_tokens: greedy tokens; eos does not stop them, so that the length is as asked.
        from_prompt: greedy tokens go on from `decoder_input_ids` instead of the start token.

    Returns:
        {name: shape} of what was written; greedy_ids is [batch, n + max_new_tokens], the n tokens
        that they go on from included.

    Raises:
        InputError: an array is missing, unknown, not of integers, of another shape, or out of
            range; or the weights are so large that a result is no number.
        ConfigError, WeightsError: see `read_checkpoint`.
    """
    NEW_TOKENS.check("max_new_tokens", max_new_tokens)
    model, weights = read_checkpoint(folder)
    given = read_inputs(inputs, model, WRITTEN)
    start, start_valid = mu.start(model, len(given.source))
    if from_prompt:
        start, start_valid = given.target, given.target_valid
        if not (start_valid[:, -1] | ~start_valid.any(axis=1)).all():
            raise InputError(f"{inputs}: every prompt must end with a token that is not masked, "
                             "since the next one follows it; pad prompts on the left")  # fmt: skip
    ops = float_executor(weights, dtype=dtype)
    try:
        # a norm would turn an infinity back into a number, and a wrong one
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            memory = mu.remember(ops, model, given.source, given.source_valid, given.source_read)
            hidden = decode(ops, model, given.target, given.target_valid, memory)
            logits = mu.logits(ops, model, hidden)
            run = stream(ops, model, memory, start, start_valid, max_new_tokens, stop_at_eos=False)
            steps = [step.tokens[:, None] for step in run]
    except FloatingPointError as error:
        raise InputError(
            f"{folder} must have weights that {np.dtype(dtype)} can compute with; {error}"
        ) from error
    greedy = np.concatenate([start, *steps], axis=1)
    results = dict(zip(WRITTEN, (memory.hidden, logits, greedy), strict=True))
    write_arrays(out, results)
    return {name: array.shape for name, array in results.items()}


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an npz file that appears whole or not at all."""
    with written_whole(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
