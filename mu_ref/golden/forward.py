"""Run another project's checkpoint on token ids from a file: the oracle for its ports."""

from pathlib import Path

import numpy as np

from mu_ref.border.arrays import check_tokens, read_npz
from mu_ref.border.files import written_whole
from mu_ref.border.ranges import NEW_TOKENS
from mu_ref.border.text import short
from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.executors import float_executor
from mu_ref.generate import stream
from mu_ref.model import mu
from mu_ref.model.decoder import decode
from mu_ref.readers import read_checkpoint

__all__ = ["forward_file", "write_arrays"]

READ = ("encoder_input_ids", "decoder_input_ids", "encoder_attention_mask")
WRITTEN = ("encoder_output", "logits", "greedy_ids")


def forward_file(
    folder: Path, inputs: Path, out: Path, dtype: type, max_new_tokens: int
) -> dict[str, tuple[int, ...]]:
    """Write `encoder_output`, `logits` and `greedy_ids` for given token ids.

    Args:
        folder: holds `config.json` and `model.safetensors` of a family that `readers/` knows.
        inputs: npz with `encoder_input_ids` [batch, n_src], `decoder_input_ids` [batch, n_tgt] and,
            if present, `encoder_attention_mask` [batch, n_src] of 0 and 1; without it pad ids
            are masked. What `forward_file` writes may stand there too, to compare with.
        out: npz to write; appears whole or not at all.
        dtype: np.float64 or np.float32.
        max_new_tokens: greedy tokens; eos does not stop them, so that the length is as asked.

    Returns:
        {name: shape} of what was written; greedy_ids is [batch, 1 + max_new_tokens], start token
        included.

    Raises:
        InputError: an array is missing, unknown, not of integers, of another shape, or out of
            range; or the weights are so large that a result is no number.
        ConfigError, WeightsError: see `read_checkpoint`.
    """
    NEW_TOKENS.check("max_new_tokens", max_new_tokens)
    model, weights = read_checkpoint(folder)
    source, valid, target = _inputs(inputs, model)
    ops = float_executor(weights, dtype=dtype)
    try:
        # a norm would turn an infinity back into a number, and a wrong one
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            memory = mu.remember(ops, model, source, valid)
            hidden = decode(ops, model, target, mu.decoder_valid(model, target), memory)
            logits = mu.logits(ops, model, hidden)
            start = np.full((len(source), 1), model.bos_id)
            given = (ops, model, memory, start, np.ones(start.shape, bool), max_new_tokens)
            steps = [step.tokens[:, None] for step in stream(*given, stop_at_eos=False)]
    except FloatingPointError as error:
        raise InputError(
            f"{folder} must have weights that {np.dtype(dtype)} can compute with; {error}"
        ) from error
    greedy = np.concatenate([start, *steps], axis=1)
    results = dict(zip(WRITTEN, (memory.hidden, logits, greedy), strict=True))
    write_arrays(out, results)
    return {name: array.shape for name, array in results.items()}


def _inputs(path: Path, model: ModelConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read source ids, which of them count, and target ids."""
    arrays = read_npz(path)
    unknown = sorted(set(arrays) - {*READ, *WRITTEN})
    if unknown:
        raise InputError(f"{path} must hold {', '.join(READ)}, got {short(unknown[:3])} too; "
                         "take out or rename what is not one of them")  # fmt: skip
    for name, vocab_size in ((READ[0], model.encoder_vocab_size), (READ[1], model.vocab_size)):
        if name not in arrays:
            raise InputError(f"{path} must hold {name}; it holds {short(sorted(arrays))}")
        check_tokens(f"{path}: {name}", arrays[name], vocab_size)
    source, target = (arrays[name].astype(np.int64) for name in READ[:2])
    if len(source) != len(target):
        raise InputError(
            f"{path}: encoder and decoder ids must have the same number of rows, "
            f"got {len(source)} and {len(target)}"
        )
    mask = arrays.get(READ[2], source != model.pad_id)
    is_mask = mask.dtype.kind in "biu" and np.isin(mask, (0, 1)).all()
    if mask.shape != source.shape or not is_mask:
        raise InputError(
            f"{path}: {READ[2]} must be 0 and 1 in the shape of {READ[0]}, {source.shape}, got "
            f"{mask.dtype} {mask.shape}"
        )
    valid = mask.astype(bool)
    if not valid.any(axis=1).all():
        raise InputError(f"{path}: every row must hold a token that is not masked; one does not")
    return source, valid, target


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an npz file that appears whole or not at all."""
    with written_whole(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
