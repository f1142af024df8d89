"""Token ids and masks in an npz file, as `mu-ref forward` and `quantize FOLDER` read them.

A missing mask means what it means in the family's own code: `docs/checkpoints.md`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mu_ref.border.arrays import check_tokens, read_npz
from mu_ref.border.text import short
from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.model import mu

__all__ = ["Inputs", "read_inputs"]

IDS = ("encoder_input_ids", "decoder_input_ids")
ENCODER_MASKS = ("encoder_attention_mask", "attention_mask")  # two names of one mask
DECODER_MASK = "decoder_attention_mask"
READ = (*IDS, *ENCODER_MASKS, DECODER_MASK)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Token ids, and which of them are read; all masks are bool, of the shape of their ids."""

    source: np.ndarray  # [batch, n_src] int
    source_valid: np.ndarray  # by the encoder
    source_read: np.ndarray  # by the decoder
    target: np.ndarray  # [batch, n_tgt] int
    target_valid: np.ndarray


def read_inputs(path: Path, model: ModelConfig, also: Collection[str] = ()) -> Inputs:
    """Read token ids and masks.

    Args:
        path: npz with `encoder_input_ids` and `decoder_input_ids`, and perhaps masks of 0 and 1 in
            their shapes: `encoder_attention_mask` or `attention_mask`, and
            `decoder_attention_mask`.
        model: has both stacks.
        also: names of arrays that may stand there too, unread.

    Returns:
        The ids, and which of them are read.

    Raises:
        InputError: an array is missing, unknown, not of integers, of another shape, or out of
            range.
    """
    if model.encoder is None:
        raise InputError(f"a model that reads {IDS[0]} must have an encoder, {model.name} has "
                         "none; `mu-ref generate --ids` runs a decoder alone")  # fmt: skip
    arrays = read_npz(path)
    unknown = sorted(set(arrays) - {*READ, *also})
    if unknown:
        raise InputError(f"{path} must hold {', '.join(READ)}, got {short(unknown[:3])} too; "
                         "take out or rename what is not one of them")  # fmt: skip
    for name, vocab_size in ((IDS[0], model.encoder_vocab_size), (IDS[1], model.vocab_size)):
        if name not in arrays:
            raise InputError(f"{path} must hold {name}; it holds {short(sorted(arrays))}")
        check_tokens(f"{path}: {name}", arrays[name], vocab_size)
    source, target = (arrays[name].astype(np.int64) for name in IDS)
    if len(source) != len(target):
        raise InputError(
            f"{path}: encoder and decoder ids must have the same number of rows, "
            f"got {len(source)} and {len(target)}"
        )
    masks = [_mask(path, name, arrays[name], IDS[0], source)
             for name in ENCODER_MASKS if name in arrays]  # fmt: skip
    if len(masks) > 1 and not np.array_equal(masks[0], masks[1]):
        raise InputError(
            f"{path}: {' and '.join(ENCODER_MASKS)} are two names of one mask, and must be equal; "
            "they differ; take one out"
        )
    valid, read = (masks[0], masks[0]) if masks else mu.source_valid(model, source)
    if not valid.any(axis=1).all():
        raise InputError(f"{path}: every row must hold a token that is not masked; one does not")
    if DECODER_MASK in arrays:
        of_target = _mask(path, DECODER_MASK, arrays[DECODER_MASK], IDS[1], target)
    else:
        of_target = mu.decoder_valid(model, target)
    return Inputs(source, valid, read, target, of_target)


def _mask(path: Path, name: str, mask: np.ndarray, of: str, ids: np.ndarray) -> np.ndarray:
    """Return a mask as booleans; it must be 0 and 1 in the shape of its ids."""
    is_mask = mask.dtype.kind in "biu" and np.isin(mask, (0, 1)).all()
    if mask.shape != ids.shape or not is_mask:
        raise InputError(
            f"{path}: {name} must be 0 and 1 in the shape of {of}, {ids.shape}, got "
            f"{mask.dtype} {mask.shape}"
        )
    return mask.astype(bool)
