"""Verification: one decoder pass over a tree of drafts, then how far the model agrees.

Chapter: `docs/15_drafting.md`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.generate import Guide, Sampling, decode_step, sample
from mu_ref.model import mu
from mu_ref.model.cache import Cache, Memory, Placement
from mu_ref.ops import Ops, Value
from mu_ref.redrafter.beams import Beams
from mu_ref.redrafter.tree import Tree, unpack

__all__ = ["Accepted", "Rule", "accept", "draft_limit", "exact_rule", "first_longest", "verify"]

Rule = Callable[[Beams, Tree, Value], "Accepted"]
"""(beams, their tree, logits of its nodes [batch, n_packed, vocab_size]) -> what is kept."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What is kept of the drafts, and what the model writes after it."""

    n_accepted: np.ndarray  # [batch] int, drafted tokens kept
    best_beam: np.ndarray  # [batch] int, the beam they come from
    next_token: np.ndarray  # [batch] int


def draft_limit(stack: StackConfig, cache: Cache, seen: np.ndarray) -> float:
    """Say how many tokens may be verified together.

    With NTK scaling the turning speed depends on the length once it passes `rope_base_len`, and
    tokens of one pass would need different speeds. From there on the answer is 1: the decoder
    computes the prefix again for each token, as it does without drafts.

    Args:
        stack: the decoder.
        cache: of the decoder.
        seen: [batch] int, slots of each row as plain decoding would count them.

    Returns:
        Number of tokens; infinity without NTK scaling.
    """
    if stack.rope_ntk_factor <= 1:
        return np.inf
    lengths = seen if stack.rope_length == "padded" else cache.valid.sum(axis=1)
    return max(1, stack.rope_base_len - int(lengths.max()))


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
    real = mu.decoder_valid(model, beams) & alive[:, None, None]  # [batch, beam_width, n]
    n_valid = cache.valid.sum(axis=1)
    # Places are those of plain decoding: a token stands behind its ancestors, whatever its slot.
    if model.stacks["decoder"].rope_length == "padded":
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
        The source's rule for sampling is that of `apple.py`, which is not exact.
    """
    agrees = beams[:, :, 1:] == written[:, :, :-1]
    return first_longest(agrees, written)


def exact_rule(
    ops: Ops, sampling: Sampling, rng: np.random.Generator | None, guide: Guide | None = None
) -> Rule:
    """Return the rule that keeps what the model would have written itself, greedily or sampled.

    Args:
        ops: the executor.
        sampling: how the model writes.
        rng: needed unless greedy.
        guide: masks the logits; the rule then follows one text, step by step, from its start.

    Returns:
        `accept`, of one choice for each node.
    """
    if guide is not None:
        return _guided_rule(ops, sampling, rng, guide)

    def rule(beams: Beams, tree: Tree, scores: Value) -> Accepted:
        written = sample(ops, scores, sampling, rng)  # [batch, n_packed], once for each node
        return accept(beams.tokens, unpack(written, tree))

    return rule


def _guided_rule(
    ops: Ops, sampling: Sampling, rng: np.random.Generator | None, guide: Guide
) -> Rule:
    before: list[np.ndarray] = []  # the states [batch] before the beams' first token

    def rule(beams: Beams, tree: Tree, scores: Value) -> Accepted:
        batch, width, n = beams.tokens.shape
        state = before.pop() if before else guide.start(batch)
        states = np.zeros((batch, width, n), np.int64)  # after each token
        for beam in range(width):
            reached = state
            for k in range(n):
                reached = guide.follow(reached, beams.tokens[:, beam, k])
                states[:, beam, k] = reached
        # a padding node belongs to another row, whose states say nothing here
        packed = np.where(tree.valid, tree.packed(states), guide.start(batch)[:, None])
        allowed = guide.allowed(packed)
        accepted = accept(beams.tokens, unpack(sample(ops, scores, sampling, rng, allowed), tree))
        # the next beams begin with the token written after the path that is kept
        before.append(states[np.arange(batch), accepted.best_beam, accepted.n_accepted])
        return accepted

    return rule


def first_longest(agrees: np.ndarray, written: np.ndarray) -> Accepted:
    """Take the first beam of which most is kept.

    Args:
        agrees: [batch, beam_width, n - 1] bool, may each drafted token be kept?
        written: [batch, beam_width, n] int, the token to write where a beam is left.

    Returns:
        How far, on which beam, and what is written there.
    """
    lengths = np.logical_and.accumulate(agrees, axis=2).sum(axis=2)  # [batch, beam_width]
    best = np.argmax(lengths, axis=1)  # the first of equals
    rows = np.arange(len(lengths))
    n = lengths[rows, best]
    return Accepted(n, best, written[rows, best, n])
