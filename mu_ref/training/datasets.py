"""From labelled queries to batches of token ids, grouped by length so that little is padding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mu_ref.config import ModelConfig

__all__ = ["Batch", "Example", "batches", "make_batch"]


@dataclass(frozen=True, slots=True)
class Example:
    """One pair of token id lists, without start, end or padding."""

    source: list[int]
    target: list[int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rectangles of token ids; `*_valid` is False at padding."""

    source: np.ndarray  # [batch, n_src] int
    source_valid: np.ndarray  # [batch, n_src] bool
    inputs: np.ndarray  # [batch, n_tgt] int, starts with bos
    labels: np.ndarray  # [batch, n_tgt] int, ends with eos
    counted: np.ndarray  # [batch, n_tgt] bool


def make_batch(examples: Sequence[Example], model: ModelConfig) -> Batch:
    """Pad examples to rectangles; the encoder's input ends with eos so that it is never empty.

    Args:
        examples: at least one.
        model: uses pad_id, bos_id, eos_id.

    Returns:
        The batch.
    """
    source, source_valid = pad([[*e.source, model.end_token] for e in examples], model.source_pad)
    inputs, _ = pad([[model.bos_id, *e.target] for e in examples], model.pad_id)
    labels, counted = pad([[*e.target, model.end_token] for e in examples], model.pad_id)
    return Batch(source, source_valid, inputs, labels, counted)


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Pad lists of ids on the right: -> [batch, longest] int64 and a mask, False at padding."""
    lengths = np.array([len(row) for row in rows])
    valid = np.arange(lengths.max(initial=0)) < lengths[:, None]
    tokens = np.full(valid.shape, pad_id, np.int64)
    tokens[valid] = [token for row in rows for token in row]
    return tokens, valid


def batches(
    examples: Sequence[Example], size: int, model: ModelConfig, rng: np.random.Generator
) -> Iterator[Batch]:
    """Yield all examples in batches of similar length, in random order.

    Args:
        examples: the data of one epoch.
        size: examples per batch; the last few that do not fill one are left for another epoch.
        model: for `make_batch`.
        rng: shuffles.

    Yields:
        Batches.
    """
    shuffled = rng.permutation(len(examples))
    lengths = np.array([len(examples[i].source) * 64 + len(examples[i].target) for i in shuffled])
    order = shuffled[np.argsort(lengths, kind="stable")]
    starts = np.arange(0, len(order) - size + 1, size)
    for start in rng.permutation(starts):
        yield make_batch([examples[i] for i in order[start : start + size]], model)
