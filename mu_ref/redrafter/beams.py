"""Beam search with the drafter: the likeliest continuations of one token the model has chosen.

`draft` is the search. `draft_one_beam`, and `draft` with a compiled `select`, find the same beams
faster; `proposer` says which one is used. Choosing beams is bookkeeping on the host, in floats, on
every executor: what is drafted decides how fast the model writes, never what it writes.
Chapter: `docs/15_drafting.md`.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mu_ref.border.ranges import BEAMS, DRAFTED, check_fields
from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.model.encoder import embed
from mu_ref.ops import Ops, Value
from mu_ref.redrafter.config import DrafterConfig
from mu_ref.redrafter.drafter import advance, scores

__all__ = [
    "Beams", "Drafts", "Proposer", "Search", "draft", "draft_one_beam", "log_softmax", "proposer",
    "select", "stretch_of", "warp",
]  # fmt: skip

Drafts = Callable[[Value, np.ndarray, int], "Beams"]
"""(hidden [batch, 1, d_model], tokens [batch], longest draft) -> beams."""

End = int | tuple[int, ...] | None
"""What ends a text: a token, one of several, or nothing."""

Select = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""(log_p [batch, n], logits [batch, n, vocab_size], beam_width) -> source, token, score."""

DEAD = -50000.0  # score of a beam that does not exist yet, and of a masked token
WARP_TOP = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """How to search.

    Raises:
        InputError: a width or length out of range.
    """

    beam_width: int = 4
    draft_len: int = 5  # drafted tokens; Apple's beam length is one more
    warp: bool = False  # mask all but the 50 likeliest tokens, as Apple does
    keep_log_probs: bool = False  # return the distributions too; Apple's sampling rule needs them

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_fields(self, {"beam_width": BEAMS, "draft_len": DRAFTED}, InputError)


@dataclass(frozen=True, slots=True)
class Beams:
    """Drafted sequences, the likeliest first."""

    tokens: np.ndarray  # [batch, beam_width, draft_len + 1] int; the first one is the model's own
    log_p: np.ndarray | None = None  # [batch, beam_width], score of the whole beam, if computed
    log_probs: np.ndarray | None = None  # [batch, beam_width, draft_len, vocab_size], if asked for


def warp(logits: np.ndarray) -> np.ndarray:
    """Mask all but the 50 largest: [..., vocab_size] -> same, -50000 where masked.

    Tokens that tie with the 50th survive.
    """
    k = min(WARP_TOP, logits.shape[-1])
    kth = np.partition(logits, -k, axis=-1)[..., -k, None]
    return np.where(logits < kth, logits.dtype.type(DEAD), logits)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log softmax over the last axis, in the dtype of the logits."""
    z = logits - logits.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def select(
    log_p: np.ndarray, logits: np.ndarray, beam_width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Keep the best continuations of all beams.

    $$S_{wv} = \log p_w + \log q_{wv}$$                                                (6.3)

    with q the softmax of the logits of beam w.

    Args:
        log_p: [batch, n], scores of the beams so far.
        logits: [batch, n, vocab_size], of the next token.
        beam_width: how many pairs (w, v) to keep.

    Returns:
        Source beam w, token v and score, each [batch, beam_width], best first; on ties the lowest
        w * vocab_size + v first.
    """
    batch, _, vocab_size = logits.shape
    total = (log_p[:, :, None] + log_softmax(logits)).reshape(batch, -1)  # [batch, n * vocab_size]
    # A stable sort, because an unstable one may put the higher of two equal indices first.
    best = np.argsort(-total, axis=-1, kind="stable")[:, :beam_width]
    return best // vocab_size, best % vocab_size, np.take_along_axis(total, best, axis=-1)


def draft(
    ops: Ops,
    model: ModelConfig,
    drafter: DrafterConfig,
    hidden: Value,
    tokens: np.ndarray,
    search: Search,
    end: End = None,
    choose: Select = select,
) -> Beams:
    """Draft the likeliest continuations of each row.

    Args:
        ops: the executor; it owns the model's embedding and the drafter's weights.
        model: uses the decoder's embedding.
        drafter: the drafter.
        hidden: [batch, 1, d_model], the model's, of the last token before `tokens`.
        tokens: [batch] int, what the model chose from `hidden`; not drafted, so always right.
        search: how.
        end: token or tokens behind which nothing counts: drafting stops when the best beam of
            every row holds one. None drafts on, as Apple's code does.
        choose: `select`, or its compiled twin.

    Returns:
        The beams.

    Source:
        apple/ml-recurrent-drafter at bd8586b, `beam_search.py`.

    Differs from the source:
        Ties go to the lowest index, where torch.topk leaves the order open. The first step runs
        one row instead of beam_width rows of which all but one are dead, if that is enough.
    """
    beams, log_p = _first_beams(tokens, search, drafter.vocab_size)
    state: Value | None = None
    source: np.ndarray | None = None  # [batch, n], which beams of the last step live on
    kept: list[np.ndarray] = []  # [batch, n, vocab_size] for each drafted token
    for _ in range(search.draft_len):
        hidden = _for_each_beam(ops, hidden, beams.shape[1])
        state = _followed(ops, state, source)
        state, value = _step(ops, model, drafter, hidden, state, beams[:, :, -1])
        logits = ops.read(value)  # [batch, n, vocab_size]
        if search.warp:
            logits = warp(logits - logits.max(axis=-1, keepdims=True))
        source, token, log_p = choose(log_p, logits, search.beam_width)
        beams = np.concatenate([_rows(beams, source), token[:, :, None]], axis=2)
        if search.keep_log_probs:
            kept = [_rows(log_q, source) for log_q in (*kept, log_softmax(logits))]
        if _all_ended(beams, end):
            break
    return Beams(beams, log_p, np.stack(kept, axis=2) if kept else None)


def draft_one_beam(
    ops: Ops,
    model: ModelConfig,
    drafter: DrafterConfig,
    hidden: Value,
    tokens: np.ndarray,
    search: Search,
    end: End = None,
) -> Beams:
    """Twin of `draft` for one beam without options: the likeliest token each time.

    One beam has no rival, and a softmax does not change which token is likeliest, so neither
    probabilities nor scores are computed. Contract: exact in tokens, but where the roundings of
    `select` make a tie of two logits that are not equal.

    Args:
        ops: as for `draft`, like all that follow.
        model: the configuration.
        drafter: the drafter.
        hidden: [batch, 1, d_model].
        tokens: [batch] int.
        search: uses draft_len.
        end: token or tokens behind which nothing counts, or None.

    Returns:
        One beam for each row, without scores.
    """
    beams = tokens[:, None, None]  # [batch, 1, 1]
    state: Value | None = None
    while beams.shape[2] <= search.draft_len and (state is None or not _all_ended(beams, end)):
        last, n_left = beams[:, :, -1], search.draft_len + 1 - beams.shape[2]
        if state is not None and last.size == 1:  # an executor may go on by itself
            ends = set(np.ravel([] if end is None else end).tolist())
            each = [(last,)] * n_left
            what = stretch_of(drafter, model)
            found = ops.greedy(what, (), [hidden, state], each, ends, {1: 0})
            ahead = np.array([[[token for token, _ in found]]], np.int64)
            if ahead.size:
                return Beams(np.concatenate([beams, ahead], axis=2))
        state, value = _step(ops, model, drafter, hidden, state, last)
        token = ops.argmax(value, "drafter.argmax")  # [batch, 1]
        beams = np.concatenate([beams, token[:, :, None]], axis=2)
    return Beams(beams)


@dataclass(frozen=True, slots=True)
class Proposer:
    """The fastest search that does what is asked: a `Drafts`.

    Args:
        ops: the executor.
        model: the configuration.
        drafter: fits the model.
        search: how to search.
        way: `draft`, or a faster twin.
    """

    ops: Ops
    model: ModelConfig
    drafter: DrafterConfig
    search: Search
    way: Callable[..., Beams]

    def __call__(self, hidden: Value, tokens: np.ndarray, longest: int) -> Beams:
        """Draft, no longer than is of use."""
        cut = replace(self.search, draft_len=min(self.search.draft_len, longest))
        given = self.ops, self.model, self.drafter, hidden, tokens, cut
        return self.way(*given, self.model.eos_ids)


def stretch_of(drafter: DrafterConfig, model: ModelConfig) -> Hashable:
    """The name of what is done for each drafted token; see `Ops.repeat`."""
    return "draft", drafter, model


def proposer(ops: Ops, model: ModelConfig, drafter: DrafterConfig, search: Search) -> Proposer:
    """Return what `generate.speculate` asks for drafts: the fastest search that does what is asked.

    Args:
        ops: the executor; it owns the drafter's weights too.
        model: the configuration.
        drafter: must fit the model.
        search: how to search.

    Returns:
        A function of hidden states, tokens and the longest draft that is of use.
    """
    drafter.check_fits(model)
    way: Callable[..., Beams] = draft
    # Apple's options are there to compare with Apple's numbers, so they take the plain way.
    if ops.compiled and not (search.warp or search.keep_log_probs):
        one = search.beam_width == 1
        way = draft_one_beam if one else partial(draft, choose=_compiled_select)
    return Proposer(ops, model, drafter, search, way)


def _first_beams(
    tokens: np.ndarray, search: Search, vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return beams of one token, [batch, n, 1], and their scores, [batch, n].

    One beam suffices, unless it has fewer continuations than beams are wanted. Then there are
    beam_width of them, of which all but the first are dead.
    """
    n_candidates = min(WARP_TOP, vocab_size) if search.warp else vocab_size
    n = 1 if search.beam_width <= n_candidates else search.beam_width
    log_p = np.full((len(tokens), n), DEAD, np.float32)
    log_p[:, 0] = 0
    return np.repeat(tokens[:, None, None], n, axis=1), log_p


def _for_each_beam(ops: Ops, hidden: Value, n: int) -> Value:
    """Copy the model's state: [batch, 1 or n, d_model] -> [batch, n, d_model]."""
    if hidden.shape[1] == n:
        return hidden
    return ops.take_tokens(hidden, np.zeros((hidden.shape[0], n), np.int64), "drafter.hidden")


def _followed(ops: Ops, state: Value | None, source: np.ndarray | None) -> Value | None:
    """Give every beam the state of the beam that it continues: [batch, n, d_model]."""
    if state is None or source is None:
        return state
    n_before, n = state.shape[1], source.shape[1]
    if n_before == n and (source == np.arange(n)).all():
        return state  # every beam continues itself, as one beam always does
    return ops.take_tokens(state, source, "drafter.beams")


def _step(
    ops: Ops,
    model: ModelConfig,
    drafter: DrafterConfig,
    hidden: Value,
    state: Value | None,
    tokens: np.ndarray,
) -> tuple[Value, Value]:
    """Return the state after `tokens` [batch, n], and the scores of the token after them."""

    def compute(tokens: np.ndarray) -> tuple[Value, Value]:
        after = advance(ops, drafter, embed(ops, model, tokens, "decoder"), state)
        return after, scores(ops, drafter, hidden, after)

    # The same operations for every drafted token: an executor may do them again without asking.
    read = [hidden] if state is None else [hidden, state]
    return ops.repeat(stretch_of(drafter, model), (), read, (tokens,), compute)


def _all_ended(beams: np.ndarray, end: End) -> bool:
    """Does the best beam of every row hold the end of its text?"""
    return end is not None and bool(np.isin(beams[:, 0], end).any(axis=1).all())


def _rows(x: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Pick beams: [batch, n, ...], [batch, m] -> [batch, m, ...]."""
    return x[np.arange(len(x))[:, None], source]


def _compiled_select(
    log_p: np.ndarray, logits: np.ndarray, beam_width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from mu_ref.kernels.drafts.trees import select as compiled

    # One dtype for both, since every pair of dtypes would be compiled anew.
    return compiled(log_p.astype(logits.dtype, copy=False), logits, beam_width)
