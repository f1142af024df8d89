"""Apple's rule for sampling, beside the exact one of `verify.py` for comparison: NOT lossless.

A drafted token x is kept where $u < p(x) / q(x)$. That is exact for drafts drawn from q, but these
are the best of a beam search, and the longest of several trials is taken. Nothing else in this room
needs it. Chapter: `docs/15_drafting.md`.
"""

import numpy as np

from mu_ref.errors import InputError
from mu_ref.generate import Sampling
from mu_ref.ops import Ops, Value
from mu_ref.redrafter.beams import Beams, log_softmax, warp
from mu_ref.redrafter.tree import Tree, unpack
from mu_ref.redrafter.verify import Accepted, Rule, exact_rule, first_longest

__all__ = ["accept_apple", "apples_rule", "residual"]


def apples_rule(ops: Ops, sampling: Sampling, rng: np.random.Generator | None) -> Rule:
    """Return the rule for `generate.speculate`.

    Args:
        ops: the executor.
        sampling: a temperature above 0 and nothing else.
        rng: draws u and the next tokens.

    Returns:
        A rule whose drafts must come with log-probabilities; else it raises an InputError.

    Raises:
        InputError: greedy, without a generator, or with top_k or top_p.
    """
    if sampling.temperature == 0 or rng is None:
        raise InputError("Apple's rule must sample; give a temperature above 0 and a generator")
    if sampling != Sampling(temperature=sampling.temperature):
        raise InputError("Apple's rule must sample from all tokens; give no top_k and no top_p")
    without_drafts = exact_rule(ops, sampling, rng)

    def rule(beams: Beams, tree: Tree, scores: Value) -> Accepted:
        if beams.tokens.shape[2] == 1:
            return without_drafts(beams, tree, scores)
        if beams.log_probs is None:
            raise InputError("Apple's rule must be given drafts with log-probabilities")
        logits = warp(unpack(ops.read(scores), tree)) / sampling.temperature
        uniform = rng.random(beams.log_probs.shape[:3])
        return accept_apple(beams.tokens, log_softmax(logits), beams.log_probs, uniform, rng)

    return rule


def accept_apple(
    beams: np.ndarray,
    log_p: np.ndarray,
    log_q: np.ndarray,
    uniform: np.ndarray,
    rng: np.random.Generator,
) -> Accepted:
    r"""Keep drafted tokens where u < p / q, and draw the next token from what is left of p.

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
    keeps = uniform < np.exp(np.minimum(ratio[..., 0], 0))  # [batch, beam_width, n - 1]
    found = first_longest(keeps, beams)
    weights = residual(log_p, log_q, found)  # [batch, vocab_size]
    total = np.cumsum(weights, axis=-1)
    drawn = rng.random((len(beams), 1)) * total[:, -1:]
    return Accepted(found.n_accepted, found.best_beam, (total <= drawn).sum(axis=-1))


def residual(log_p: np.ndarray, log_q: np.ndarray, accepted: Accepted) -> np.ndarray:
    """Weights of the next token: max(p - q, 0) where a draft was refused, else p.

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
    # Behind a beam that was kept whole there is no q; the value read in its place is not used.
    q = np.exp(log_q[rows, accepted.best_beam, np.minimum(at, n - 1)])
    rest = np.where((at == n)[:, None], p, np.maximum(p - q, 0))
    return np.where(rest.sum(axis=-1, keepdims=True) > 0, rest, p)
