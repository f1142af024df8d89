"""Run another project's checkpoint on token ids from a file: the oracle for its ports."""

from pathlib import Path

import numpy as np

from mu_ref.errors import InputError
from mu_ref.executors import float_executor
from mu_ref.files import written_whole
from mu_ref.generate import stream
from mu_ref.model import mu
from mu_ref.model.decoder import decode
from mu_ref.readers import read_checkpoint

__all__ = ["forward_file", "read_arrays", "write_arrays"]


def forward_file(
    folder: Path, inputs: Path, out: Path, dtype: type, max_new_tokens: int
) -> dict[str, tuple[int, ...]]:
    """Write `encoder_output`, `logits` and `greedy_ids` for given token ids.

    Args:
        folder: holds `config.json` and `model.safetensors` of a family that `readers/` knows.
        inputs: npz with `encoder_input_ids` [batch, n_src], `decoder_input_ids` [batch, n_tgt] and,
            if present, `encoder_attention_mask` [batch, n_src]; without it pad ids are masked.
        out: npz to write; appears whole or not at all.
        dtype: np.float64 or np.float32.
        max_new_tokens: greedy tokens; eos does not stop them, so that the length is as asked.

    Returns:
        {name: shape} of what was written; greedy_ids is [batch, 1 + max_new_tokens], start token
        included.

    Raises:
        InputError: an array is missing, not of integers, of another shape, or out of range.
    """
    model, weights = read_checkpoint(folder)
    arrays = read_arrays(inputs)
    source = _token_ids(arrays, "encoder_input_ids", model.encoder_vocab_size, inputs)
    target = _token_ids(arrays, "decoder_input_ids", model.vocab_size, inputs)
    if len(source) != len(target):
        raise InputError(
            f"{inputs}: encoder and decoder ids must have the same number of rows, "
            f"got {len(source)} and {len(target)}"
        )
    mask = arrays.get("encoder_attention_mask", source != model.pad_id)
    valid = mask.astype(bool)
    if mask.shape != source.shape or mask.dtype.kind not in "biu":
        raise InputError(
            f"{inputs}: encoder_attention_mask must be integers of the shape of "
            f"encoder_input_ids, {source.shape}, got {mask.dtype} {mask.shape}"
        )
    if not valid.any(axis=1).all():
        raise InputError(f"{inputs}: every row must hold a token that is not masked; one does not")
    ops = float_executor(weights, dtype=dtype)
    memory = mu.remember(ops, model, source, valid)
    hidden = decode(ops, model, target, mu.decoder_valid(model, target), memory)
    start = np.full((len(source), 1), model.bos_id)
    steps = stream(
        ops, model, memory, start, np.ones(start.shape, bool), max_new_tokens, stop_at_eos=False
    )
    results = {
        "encoder_output": memory.hidden,
        "logits": mu.logits(ops, model, hidden),
        "greedy_ids": np.concatenate([start, *(step.tokens[:, None] for step in steps)], axis=1),
    }
    write_arrays(out, results)
    return {name: array.shape for name, array in results.items()}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read an npz file; InputError if it is not there or not one."""
    if not path.is_file():
        raise InputError(f"{path} must be an npz file; there is no such file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zipfile, struct and ValueError, by what is broken
        raise InputError(
            f"{path} must be a whole npz file, got something else ({error})"
        ) from error


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an npz file that appears whole or not at all."""
    with written_whole(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _token_ids(arrays: dict[str, np.ndarray], name: str, vocab_size: int, path: Path) -> np.ndarray:
    if name not in arrays:
        raise InputError(f"{path} must hold {name}; it holds {sorted(arrays)}")
    ids = arrays[name]
    if ids.ndim != 2 or ids.dtype.kind not in "iu" or 0 in ids.shape:
        raise InputError(
            f"{path}: {name} must be integers [batch, n_tok], got {ids.dtype} {ids.shape}"
        )
    if ids.min() < 0 or ids.max() >= vocab_size:
        raise InputError(
            f"{path}: {name} must lie in [0, {vocab_size}), got {ids.min()} to {ids.max()}"
        )
    return ids.astype(np.int64)
