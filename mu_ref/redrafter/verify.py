"""Verification: one decoder pass over a tree of drafts, then how far the model agrees.

Chapter: `docs/06_redrafter.md`.
"""

from dataclasses import dataclass

import numpy as np

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.generate import decode_step
from mu_ref.model import mu
from mu_ref.model.cache import Cache, Memory, Placement
from mu_ref.ops import Ops, Value
from mu_ref.redrafter.tree import Tree

__all__ = ["Accepted", "accept", "accept_apple", "draft_limit", "verify"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What is kept of the drafts, and what the model writes after it."""

    n_accepted: np.ndarray  # [batch] int, drafted tokens kept
    best_beam: np.ndarray  # [batch] int, the beam they come from
    next_token: np.ndarray  # [batch] int


def draft_limit(cache: Cache, seen: np.ndarray, config: StackConfig) -> float:
    """Say how many tokens may be verified together.

    With NTK scaling the turning speed depends on the length once it passes `rope_base_len`, and
    tokens of one pass would need different speeds. From there on the answer is 1: the decoder
    computes the prefix again for each token, as it does without drafts.

    Args:
        cache: of the decoder.
        seen: [batch] int, slots of each row as plain decoding would count them.
        config: of the decoder.

    Returns:
        Number of tokens; infinity without NTK scaling.
    """
    if config.rope_ntk_factor <= 1:
        return np.inf
    lengths = seen if config.rope_length == "padded" else cache.valid.sum(axis=1)
    return max(1, config.rope_base_len - int(lengths.max()))


def verify(
    ops: Ops,
    model: ModelConfig,
    memory: Memory | None,
    cache: Cache,
    beams: np.ndarray,
    tree: Tree,
    seen: np.ndarray,
    alive: np.ndarray,
) -> Value:
    """Compute the hidden states of all nodes in one pass; the cache grows by all of them.

    Args:
        ops: the executor.
        model: the configuration.
        memory: from `mu.remember`, or None for a decoder-only model.
        cache: everything before the first token of the beams.
        beams: [batch, beam_width, n] int.
        tree: of the beams.
        seen: [batch] int, slots of each row as plain decoding would count them.
        alive: [batch] bool, False for rows that have ended.

    Returns:
        [batch, n_packed, d_model].
    """
    config = model.stacks["decoder"]
    real = mu.decoder_valid(model, beams) & alive[:, None, None]  # [batch, beam_width, n]
    n_valid = cache.valid.sum(axis=1)
    if config.rope_length == "padded":
        places = np.broadcast_to(seen[:, None, None] + np.arange(beams.shape[2]), beams.shape)
        lengths = seen + beams.shape[2]
    else:
        places = np.maximum(n_valid[:, None, None] + np.cumsum(real, axis=2) - 1, 0)
        lengths = n_valid + real.sum(axis=2).max(axis=1)
    placement = Placement(tree.packed(places), lengths, tree.sees)
    valid = tree.packed(real) & tree.valid
    return decode_step(ops, model, tree.packed(beams), valid, memory, cache, placement)


def accept(beams: np.ndarray, written: np.ndarray) -> Accepted:
    r"""Follow the model through the tree: keep the longest beginning that it would write itself.

    $$n_w = \max \{ n : b_{w,k+1} = y_{w,k} \ \text{for all} \ k < n \}$$                (6.5)

    With y the model's argmax this is greedy decoding; with y drawn from the model's distribution,
    once for each node of the tree, it is sampling. Both are exact, whatever was drafted: a node is
    left only along a token that the model wrote there.

    Args:
        beams: [batch, beam_width, n] int; column 0 is known to be right.
        written: [batch, beam_width, n] int, y: what the model writes after each token; equal for
            beams that share the node.

    Returns:
        The first beam that agrees longest.

    Source:
        apple/ml-recurrent-drafter at bd8586b, `modeling_recurrent_drafting.py`, greedy.

    Differs from the source:
        The source's rule for sampling is `accept_apple`, which is not exact.
    """
    agrees = beams[:, :, 1:] == written[:, :, :-1]
    return _first_longest(agrees, written)


def accept_apple(
    beams: np.ndarray,
    log_p: np.ndarray,
    log_q: np.ndarray,
    uniform: np.ndarray,
    rng: np.random.Generator,
) -> Accepted:
    r"""Apple's rule for sampling, for comparison: NOT lossless.

    A drafted token x is kept where $u < p(x) / q(x)$. That is exact for drafts drawn from q, but
    these are the best of a beam search, and the longest of several trials is taken.

    Args:
        beams: [batch, beam_width, n] int.
        log_p: [batch, beam_width, n, vocab_size], the model's log-probabilities.
        log_q: [batch, beam_width, n - 1, vocab_size], the drafter's.
        uniform: [batch, beam_width, n - 1], u.
        rng: draws the next token.

    Returns:
        The first beam that keeps most, and a next token drawn from `residual`.

    Source:
        apple/ml-recurrent-drafter at bd8586b, `modeling_recurrent_drafting.py`; the rule is
        Chen et al. 2023, arXiv:2302.01318.
    """
    drafted = beams[:, :, 1:, None]
    ratio = np.take_along_axis(log_p[:, :, :-1], drafted, 3) - np.take_along_axis(log_q, drafted, 3)
    keeps = uniform < np.exp(np.minimum(ratio[..., 0], 0))
    found = _first_longest(keeps, beams)
    weights = residual(log_p, log_q, found)
    total = np.cumsum(weights, axis=-1)
    drawn = rng.random((len(beams), 1)) * total[:, -1:]
    return Accepted(found.n_accepted, found.best_beam, (total <= drawn).sum(axis=-1))


def residual(log_p: np.ndarray, log_q: np.ndarray, accepted: Accepted) -> np.ndarray:
    """Apple's weights of the next token: max(p - q, 0) where a draft was refused, else p.

    Args:
        log_p: [batch, beam_width, n, vocab_size].
        log_q: [batch, beam_width, n - 1, vocab_size].
        accepted: how far, on which beam.

    Returns:
        [batch, vocab_size], not normalized; p where p - q leaves nothing.
    """
    rows, n = np.arange(len(log_p)), log_q.shape[2]
    at = accepted.n_accepted
    p = np.exp(log_p[rows, accepted.best_beam, at])
    q = np.exp(log_q[rows, accepted.best_beam, np.minimum(at, n - 1)])
    rest = np.where((at == n)[:, None], p, np.maximum(p - q, 0))
    return np.where(rest.sum(axis=-1, keepdims=True) > 0, rest, p)


def _first_longest(agrees: np.ndarray, written: np.ndarray) -> Accepted:
    lengths = np.logical_and.accumulate(agrees, axis=2).sum(axis=2)  # [batch, beam_width]
    best = np.argmax(lengths, axis=1)
    rows = np.arange(len(lengths))
    n = lengths[rows, best]
    return Accepted(n, best, written[rows, best, n])
