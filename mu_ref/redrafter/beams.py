"""Beam search with the drafter: the likeliest continuations of one token the model has chosen.

Choosing beams is bookkeeping on the host, in floats, on every executor: what is drafted decides how
fast the model writes, never what it writes. Chapter: `docs/06_redrafter.md`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.model.encoder import embed
from mu_ref.ops import Ops, Value
from mu_ref.redrafter.config import DrafterConfig
from mu_ref.redrafter.drafter import advance, scores

__all__ = ["Beams", "Drafts", "Search", "draft", "log_softmax", "proposer", "select", "warp"]

Drafts = Callable[[Value, np.ndarray, int], "Beams"]
"""(hidden [batch, 1, d_model], tokens [batch], longest draft) -> beams."""

DEAD = -50000.0  # score of a beam that does not exist yet, and of a masked token
WARP_TOP = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """How to search.

    Raises:
        InputError: a width or length below 1.
    """

    beam_width: int = 4
    draft_len: int = 5  # drafted tokens; Apple's beam length is one more
    warp: bool = False  # mask all but the 50 likeliest tokens, as Apple does
    keep_log_probs: bool = False  # return the distributions too; Apple's sampling rule needs them

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name in ("beam_width", "draft_len"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Beams:
    """Drafted sequences, the likeliest first."""

    tokens: np.ndarray  # [batch, beam_width, draft_len + 1] int; the first one is the model's own
    log_p: np.ndarray | None = None  # [batch, beam_width], score of the whole beam; not of one
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
    log_p: np.ndarray, log_q: np.ndarray, beam_width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Keep the best continuations of all beams.

    $$S_{wv} = \log p_w + \log q_{wv}$$                                                (6.3)

    Args:
        log_p: [batch, n], scores of the beams so far.
        log_q: [batch, n, vocab_size], log-probabilities of the next token.
        beam_width: how many pairs (w, v) to keep.

    Returns:
        Source beam w, token v and score, each [batch, beam_width], best first; on ties the lowest
        w * vocab_size + v first.
    """
    batch, _, vocab_size = log_q.shape
    total = (log_p[:, :, None] + log_q).reshape(batch, -1)
    best = np.argsort(-total, axis=-1, kind="stable")[:, :beam_width]
    return best // vocab_size, best % vocab_size, np.take_along_axis(total, best, axis=-1)


def draft(
    ops: Ops,
    model: ModelConfig,
    config: DrafterConfig,
    hidden: Value,
    tokens: np.ndarray,
    search: Search,
    end: int | None = None,
) -> Beams:
    """Draft the likeliest continuations of each row.

    Args:
        ops: the executor; it owns the model's embedding and the drafter's weights.
        model: uses the decoder's embedding.
        config: of the drafter.
        hidden: [batch, 1, d_model], the model's, of the last token before `tokens`.
        tokens: [batch] int, what the model chose from `hidden`; not drafted, so always right.
        search: how.
        end: token behind which nothing counts: drafting stops when the best beam of every row
            holds it. None drafts on, as Apple's code does.

    Returns:
        The beams.

    Source:
        apple/ml-recurrent-drafter at bd8586b, `beam_search.py`.

    Differs from the source:
        Ties go to the lowest index, where torch.topk leaves the order open. The first step runs
        one row instead of beam_width rows of which all but one are dead, if that is enough.
    """
    batch, width, vocab_size = len(tokens), search.beam_width, config.vocab_size
    n = 1 if width <= (min(WARP_TOP, vocab_size) if search.warp else vocab_size) else width
    beams = np.repeat(tokens[:, None, None], n, axis=1)  # [batch, n, 1]
    state: Value | None = None
    log_p: np.ndarray | None = None
    kept: list[np.ndarray] = []  # [batch, n, vocab_size] for each drafted token
    source: np.ndarray | None = None  # [batch, n], which beams of the last step live on
    hiddens = {n: hidden if n == 1 else _repeated(ops, hidden, n)}
    for _ in range(search.draft_len):
        n = beams.shape[1]
        if n not in hiddens:
            hiddens[n] = _repeated(ops, hidden, n)
        state, value = _step(ops, model, config, hiddens[n], state, beams[:, :, -1], source)
        if width == 1 and ops.compiled and not (search.warp or search.keep_log_probs):
            token = ops.argmax(value, "drafter.argmax")  # [batch, 1], scores decide nothing more
            beams = np.concatenate([beams, token[:, :, None]], axis=2)
            if end is not None and (beams[:, 0] == end).any(axis=1).all():
                break
            continue
        z = ops.read(value)  # [batch, n, vocab_size]
        if log_p is None:
            log_p = np.full((batch, n), DEAD, z.dtype)
            log_p[:, 0] = 0
        if ops.compiled and not (search.warp or search.keep_log_probs):
            source, token, log_p = _compiled_select(log_p, z, width)
        else:
            log_q = log_softmax(warp(z - z.max(axis=-1, keepdims=True)) if search.warp else z)
            source, token, log_p = select(log_p, log_q, width)
            if search.keep_log_probs:
                kept = [_rows(q, source) for q in (*kept, log_q)]
        beams = np.concatenate([_rows(beams, source), token[:, :, None]], axis=2)
        if end is not None and (beams[:, 0] == end).any(axis=1).all():
            break
    return Beams(beams, log_p, np.stack(kept, axis=2) if kept else None)


def proposer(ops: Ops, model: ModelConfig, config: DrafterConfig, search: Search) -> Drafts:
    """Return what `generate.speculate` asks for drafts.

    Args:
        ops: the executor; it owns the drafter's weights too.
        model: the configuration.
        config: of the drafter; must fit the model.
        search: how to search.

    Returns:
        A function of hidden states, tokens and the longest draft that is of use.
    """
    config.check_fits(model)

    def propose(hidden: Value, tokens: np.ndarray, longest: int) -> Beams:
        cut = search
        if longest < search.draft_len:
            cut = replace(search, draft_len=longest)
        return draft(ops, model, config, hidden, tokens, cut, model.eos_id)

    return propose


def _compiled_select(
    log_p: np.ndarray, logits: np.ndarray, beam_width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from mu_ref.kernels.trees import select as compiled

    return compiled(log_p, logits, beam_width)


def _repeated(ops: Ops, hidden: Value, n: int) -> Value:
    """[batch, 1, d] -> [batch, n, d]."""
    return ops.take_tokens(hidden, np.zeros((hidden.shape[0], n), np.int64), "drafter.hidden")


def _step(
    ops: Ops,
    model: ModelConfig,
    config: DrafterConfig,
    hidden: Value,
    state: Value | None,
    tokens: np.ndarray,
    source: np.ndarray | None,
) -> tuple[Value, Value]:
    """Return the state after `tokens` [batch, n], of the beams that live on, and the scores."""
    stays = source is None or (
        state is not None
        and state.shape[1] == source.shape[1]
        and bool((source == np.arange(source.shape[1])).all())
    )

    def compute(tokens: np.ndarray, source: np.ndarray | None = None) -> tuple[Value, Value]:
        before = state
        if source is not None:  # [batch, n of the last step, d] -> [batch, n, d]
            before = ops.take_tokens(before, source, "drafter.beams")
        after = advance(ops, embed(ops, model, tokens, "decoder"), before, config)
        return after, scores(ops, hidden, after, config)

    read = [hidden] if state is None else [hidden, state]
    inputs = (tokens,) if stays else (tokens, source)
    return ops.repeat(("draft", config, model), (), read, inputs, compute)


def _rows(x: np.ndarray, source: np.ndarray) -> np.ndarray:
    return x[np.arange(len(x))[:, None], source]
