"""Choose a token from logits: the likeliest or a drawn one, among those that a guide allows."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mu_ref.border.ranges import SIZE, Range, check_fields, check_kinds
from mu_ref.errors import InputError
from mu_ref.ops import Ops

__all__ = ["GREEDY", "Guide", "Sampling", "sample", "token_probabilities"]

SAMPLING_RANGES = {
    "temperature": Range(low=0, high=10**6, whole=False, why="all tokens are as likely by then"),
    "top_k": SIZE,
    "top_p": Range(low=0, above=True, high=1, whole=False),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How to draw a token; temperature 0 is greedy.

    Raises:
        InputError: a value is out of its range.
    """

    temperature: float = 0.0
    top_k: int | None = None  # keep the k likeliest tokens
    top_p: float | None = None  # keep the likeliest tokens that together reach this probability

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_kinds(self, InputError)
        check_fields(self, SAMPLING_RANGES, InputError)


GREEDY = Sampling()


class Guide(Protocol):
    """Says which tokens may follow, row by row: a mask over the logits before one is chosen.

    A state is an integer that stands for what a row has written; the guide alone knows what it
    means. Every state must allow a token, those of rows that went astray or have ended too.
    """

    def start(self, batch: int) -> np.ndarray:
        """Return the states of rows that have written nothing: [batch] int."""

    def allowed(self, states: np.ndarray) -> np.ndarray:
        """Say which tokens may follow: [batch, n] int -> [batch, n, vocab_size] bool."""

    def follow(self, states: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return the states after one more token each: [batch] and [batch] int -> [batch]."""


def sample(
    ops: Ops,
    logits: object,
    sampling: Sampling,
    rng: np.random.Generator | None,
    allowed: np.ndarray | None = None,
) -> np.ndarray:
    """Choose one token for each row of logits.

    Args:
        ops: the executor, which decides ties: lowest index.
        logits: value [..., vocab_size].
        sampling: how.
        rng: needed unless greedy.
        allowed: [..., vocab_size] bool, the tokens to choose from; all without.

    Returns:
        [...] int.

    Raises:
        InputError: sampling without a generator.
    """
    if sampling.temperature == 0:
        if allowed is None:
            return ops.argmax(logits, "head.argmax")
        # an executor reads unequal integers as unequal numbers, so the choice is theirs
        return np.argmax(np.where(allowed, ops.read(logits), -np.inf), axis=-1)
    if rng is None:
        raise InputError("sampling must be given a random generator; pass rng, or temperature 0")
    read = ops.read(logits)
    p = token_probabilities(read if allowed is None else np.where(allowed, read, -np.inf), sampling)
    drawn = rng.random((*p.shape[:-1], 1)) * np.cumsum(p, axis=-1)[..., -1:]
    return (np.cumsum(p, axis=-1) <= drawn).sum(axis=-1)


def token_probabilities(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    r"""Distribution that `sample` draws from.

    $p = \mathrm{softmax}(z / T)$, cut to the top k, then to the smallest set of likeliest tokens
    whose probabilities reach top_p, and scaled back to a sum of 1.

    Args:
        logits: [..., vocab_size].
        sampling: T, top_k and top_p; T > 0.

    Returns:
        [..., vocab_size] float64.
    """
    scores = logits.astype(np.float64) / sampling.temperature
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    order = np.argsort(-p, axis=-1, kind="stable")  # likeliest first, lowest index on ties
    rank = np.argsort(order, axis=-1, kind="stable")
    keep = np.ones(p.shape, bool)
    if sampling.top_k is not None:
        keep = rank < sampling.top_k
    if sampling.top_p is not None:
        kept = np.take_along_axis(np.where(keep, p, 0), order, axis=-1)
        kept /= kept.sum(axis=-1, keepdims=True)
        before = np.cumsum(kept, axis=-1) - kept  # what the likelier tokens reach without it
        keep &= np.take_along_axis(before < sampling.top_p, rank, axis=-1)
    p = np.where(keep, p, 0)
    return p / p.sum(axis=-1, keepdims=True)
