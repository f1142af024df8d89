"""Speculative decoding: draft, pack, verify, keep what the model agrees with, again.

The output is that of `mu_ref/generate`, token for token and logit for logit, whatever the drafter
proposes. Chapter: `docs/15_drafting.md`.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.generate import GREEDY, Guide, Sampling, decode_step, sample
from mu_ref.generate.step import check_step
from mu_ref.model import mu
from mu_ref.model.cache import Cache, Memory
from mu_ref.ops import Ops, Value
from mu_ref.redrafter.apple import apples_rule
from mu_ref.redrafter.beams import Beams, Drafts
from mu_ref.redrafter.chain import Chain
from mu_ref.redrafter.steps import SpeculativeStep, Statistics
from mu_ref.redrafter.tree import Tree, pack
from mu_ref.redrafter.verify import Accepted, draft_limit, exact_rule, verify

__all__ = ["SpeculativeStep", "Statistics", "speculate"]


def speculate(
    ops: Ops,
    model: ModelConfig,
    drafts: Drafts,
    memory: Memory | None,
    prompt: np.ndarray,
    prompt_valid: np.ndarray,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    rng: np.random.Generator | None = None,
    *,
    stop_at_eos: bool = True,
    with_logits: bool = False,
    apple_rule: bool = False,
    guide: Guide | None = None,
    statistics: Statistics | None = None,
) -> Iterator[SpeculativeStep]:
    """Yield what each pass of the model wrote, until every row has ended or reached the limit.

        >>> import mu_ref
        >>> from mu_ref.executors import shipped_drafter
        >>> from mu_ref.redrafter.beams import Search
        >>> agent = mu_ref.load_agent(drafter=shipped_drafter("float32"), search=Search())
        >>> drafted, plain = (a.ask(["dark mode please"])[0] for a in (agent, mu_ref.load_agent()))
        >>> str(drafted.call), drafted.tokens == plain.tokens  # `speculate` wrote the first
        ('set(theme.mode, dark)', True)

    Args:
        ops: the executor.
        model: the configuration.
        drafts: proposes beams; see `beams.proposer`.
        memory: from `mu.remember`, or None for a decoder-only model.
        prompt: [batch, n_prompt] int, padded on the right; [[bos_id]] * batch for Mu.
        prompt_valid: [batch, n_prompt] bool.
        max_new_tokens: limit for each row.
        sampling: greedy by default; with a temperature the tokens have the model's distribution.
        rng: needed unless greedy.
        stop_at_eos: False goes on to the limit whatever comes.
        with_logits: also read the logits.
        apple_rule: sample as Apple's code does, which is NOT lossless; see `apple.apples_rule`.
        guide: masks the logits, so that drafts that it does not allow are not kept.
        statistics: counts along, if given.

    Yields:
        Steps; the first one is the model's own first token, without drafts.

    Raises:
        InputError: an empty prompt, or a rule without what it needs, such as a generator.
    """
    rule = apples_rule(ops, sampling, rng) if apple_rule else exact_rule(ops, sampling, rng, guide)
    if apple_rule and guide is not None:
        raise InputError("Apple's rule must go without a guide: it knows no mask; leave one out")
    if model.unseeing == "zero" and not np.all(prompt_valid.any(axis=1)):
        raise InputError("every prompt must hold at least one token; one is empty")
    if max_new_tokens < 1:
        return
    start = prompt, prompt_valid
    rows, new, scores = _begin(ops, model, memory, *start, max_new_tokens, sampling, rng, guide)
    yield _write(ops, model, rows, new, scores if with_logits else None, stop_at_eos)
    plain = stop_at_eos and guide is None and sampling.temperature == 0 and not apple_rule
    chain = Chain.of(ops, model, drafts, memory, prompt) if plain else None
    while rows.alive.any():
        if chain is not None and not with_logits:
            yield from _ahead(chain, rows, statistics)
            if not rows.alive.any():
                return
        started = time.perf_counter()
        beams = _draft(model, drafts, rows)
        drafted = time.perf_counter()
        tree = _pack(ops, beams.tokens)
        n_past = rows.cache.tokens.shape[1]
        found = None if chain is None else chain.check(rows.cache, beams.tokens)
        hidden, scores = found or _verify(ops, model, memory, rows, beams, tree)
        accepted = rule(beams, tree, scores)
        new = _keep(ops, rows, n_past, beams, tree, hidden, accepted)
        step = _write(ops, model, rows, new, scores if with_logits else None, stop_at_eos)
        if statistics is not None:
            nodes = tree.unpacker[0].size, tree.n_nodes
            times = drafted - started, time.perf_counter() - drafted
            statistics.count(step, accepted.n_accepted, *nodes, times)
        yield step


@dataclass(slots=True)
class _Rows:
    """Where the rows of a batch stand between two passes."""

    cache: Cache
    hidden: Value  # [batch, 1, d_model], of the last token in the cache
    token: np.ndarray  # [batch] int, what the model wrote after it; not yet in the cache
    seen: np.ndarray  # [batch] int, slots of the cache as plain decoding would count them
    left: np.ndarray  # [batch] int, tokens that may still be written
    ended: np.ndarray  # [batch] bool

    @property
    def alive(self) -> np.ndarray:
        """Which rows go on, [batch] bool."""
        return ~self.ended & (self.left > 0)


@dataclass(frozen=True, slots=True)
class _New:
    """What a pass adds to the rows, before it is cut at the end of a text."""

    tokens: np.ndarray  # [batch, n] int
    n_tokens: np.ndarray  # [batch] int, how many of them count; 0 for rows that do not go on
    path: np.ndarray  # [batch, n] int, the node after which each of them was written


def _begin(
    ops: Ops,
    model: ModelConfig,
    memory: Memory | None,
    prompt: np.ndarray,
    valid: np.ndarray,
    limit: int,
    sampling: Sampling,
    rng: np.random.Generator | None,
    guide: Guide | None,
) -> tuple[_Rows, _New, Value]:
    """Read the prompt and write the first token, which needs no draft; its scores come along."""
    batch, n_prompt = prompt.shape
    cache = Cache.empty(batch, model.stacks["decoder"].n_layers)
    if prompt.shape == (1, 1) and valid.all():  # one stretch, which an executor may know
        hidden, scores = check_step(ops, model, prompt, memory, cache)
    else:
        hidden = decode_step(ops, model, prompt, valid, memory, cache)  # [batch, n_prompt, d_model]
        last = n_prompt - 1 - np.argmax(valid[:, ::-1], axis=1)  # last real token of a row
        hidden = ops.take_tokens(hidden, last[:, None], "decoder.last_token")
        scores = mu.logits(ops, model, hidden)  # [batch, 1, vocab_size]
    allowed = None if guide is None else guide.allowed(guide.start(batch)[:, None])
    tokens = sample(ops, scores, sampling, rng, allowed)  # [batch, 1]
    seen, left = np.full(batch, n_prompt), np.full(batch, limit)
    rows = _Rows(cache, hidden, tokens[:, 0], seen, left, np.zeros(batch, bool))
    return rows, _New(tokens, np.ones(batch, np.int64), np.zeros((batch, 1), np.int64)), scores


def _draft(model: ModelConfig, drafts: Drafts, rows: _Rows) -> Beams:
    """Ask for drafts, no longer than they can be of use."""
    # The pass writes a token of the model's own behind the drafted ones, hence one less.
    room = draft_limit(model.stacks["decoder"], rows.cache, rows.seen)
    if model.unseeing == "mean" and not rows.cache.valid.any(axis=1).all():
        room = 1  # a row that sees nothing yet reads all alike, and drafts would be among them
    longest = int(min(rows.left[rows.alive].max(), room)) - 1
    if longest < 1:
        return Beams(rows.token[:, None, None])  # the known token alone: plain decoding
    return drafts(rows.hidden, rows.token, longest)


def _ahead(chain: Chain, rows: _Rows, statistics: Statistics | None) -> Iterator[SpeculativeStep]:
    """Yield the passes that the executor writes by itself, and bring the row behind them."""
    fed = [int(rows.token[0])]
    try:
        for new in chain.passes(rows.cache, rows.hidden, fed[0], int(rows.left[0])):
            written, n = np.array([new.tokens]), len(new.tokens)
            fed += new.tokens
            rows.hidden, rows.token, rows.seen = new.hidden, written[:, -1], rows.seen + n
            added = _New(written, np.array([n]), np.arange(n)[None])
            step = _write(chain.ops, chain.model, rows, added, None, stop_at_eos=True)
            if statistics is not None:
                n_nodes = new.n_drafted + 1
                times = new.draft_s, new.check_s
                statistics.count(step, np.array([n - 1]), n_nodes, np.array([n_nodes]), times)
            yield step
    finally:
        if rows.alive[0]:
            chain.note(rows.cache, fed[:-1])


def _pack(ops: Ops, beams: np.ndarray) -> Tree:
    """Share common beginnings; with the compiled twin of `pack` where the executor is compiled."""
    if not ops.compiled:
        return pack(beams)
    from mu_ref.kernels.drafts.trees import pack as compiled

    return Tree(*compiled(np.ascontiguousarray(beams, np.int64)))


def _verify(
    ops: Ops, model: ModelConfig, memory: Memory | None, rows: _Rows, beams: Beams, tree: Tree
) -> tuple[Value, Value]:
    """Return hidden states and logits of all nodes, [batch, n_packed, ...], from one pass."""
    hidden = verify(ops, model, memory, rows.cache, beams.tokens, tree, rows.seen, rows.alive)
    return hidden, mu.logits(ops, model, hidden)


def _keep(
    ops: Ops,
    rows: _Rows,
    n_past: int,
    beams: Beams,
    tree: Tree,
    hidden: Value,
    accepted: Accepted,
) -> _New:
    """Keep the accepted path and forget all other nodes; the next draft starts at its end."""
    row, drafted = np.arange(len(beams.tokens)), beams.tokens[:, :, 1:]
    # Along a path of n nodes n tokens are written: after each node the next one, which was drafted,
    # and after the last the model's own. A row that has ended stays at the root.
    n = np.where(rows.alive, accepted.n_accepted + 1, 0)  # [batch]
    room = np.zeros((len(row), 1), np.int64)  # for the model's token, if all drafts were right
    tokens = np.concatenate([drafted[row, accepted.best_beam], room], axis=1)
    tokens[row, accepted.n_accepted] = accepted.next_token
    path = tree.unpacker[row, accepted.best_beam, : max(1, n.max())]  # [batch, n]
    rows.cache.keep(ops, n_past, n_past + path, np.arange(path.shape[1]) < n[:, None])
    end = np.maximum(n, 1) - 1  # [batch], place in the path
    rows.hidden = ops.take_tokens(hidden, path[row, end][:, None], "decoder.last_token")
    rows.token = tokens[row, end]
    rows.seen = rows.seen + n
    return _New(tokens[:, : path.shape[1]], n, path)


def _write(
    ops: Ops, model: ModelConfig, rows: _Rows, new: _New, scores: Value | None, stop_at_eos: bool
) -> SpeculativeStep:
    """Put new tokens out, cut at the end of the text and at the limit, with logits if given."""
    n = np.minimum(new.n_tokens, rows.left)  # [batch], tokens that are put out
    if stop_at_eos:
        rows.ended = rows.ended.copy()  # steps before this one hold the other
        for row, tokens in enumerate(new.tokens.tolist()):
            ends = [i for i in range(n[row]) if tokens[i] in model.eos_ids]
            if ends:
                n[row], rows.ended[row] = ends[0] + 1, True
    rows.left = rows.left - n
    width = max(1, int(n.max()))
    tokens = new.tokens[:, :width]
    if n.min() < width:  # rows that wrote less
        tokens = np.where(np.arange(width) < n[:, None], tokens, model.pad_id)
    logits = None
    if scores is not None:
        logits = np.take_along_axis(ops.read(scores), new.path[:, :width, None], axis=1)
    return SpeculativeStep(tokens, n, logits, rows.ended)
