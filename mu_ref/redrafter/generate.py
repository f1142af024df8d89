"""Speculative decoding: draft, verify, keep what the model agrees with, again.

The output is that of `mu_ref/generate.py`, token for token and logit for logit, whatever the
drafter proposes. Chapter: `docs/06_redrafter.md`.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.generate import GREEDY, Sampling, sample
from mu_ref.model import mu
from mu_ref.model.cache import Cache, Memory
from mu_ref.model.decoder import decode
from mu_ref.ops import Ops, Value
from mu_ref.redrafter.beams import Drafts
from mu_ref.redrafter.tree import Tree, pack
from mu_ref.redrafter.verify import accept, draft_limit, verify

__all__ = ["SpeculativeStep", "Statistics", "speculate"]


@dataclass(frozen=True, slots=True)
class SpeculativeStep:
    """What one pass of the model wrote: up to draft_len + 1 tokens in each row."""

    tokens: np.ndarray  # [batch, n] int, pad_id behind a row's own
    n_tokens: np.ndarray  # [batch] int, eos included; 0 for rows that had ended
    logits: np.ndarray | None  # [batch, n, vocab_size], what they were chosen from, if asked for
    ended: np.ndarray  # [batch] bool


@dataclass(slots=True)
class Statistics:
    """Counts over all verifying passes and rows; the first pass, without drafts, is not in them."""

    n_steps: int = 0  # of rows that had not ended
    n_tokens: int = 0  # written by those steps
    accepted: dict[int, int] = field(default_factory=dict)  # {drafted tokens kept: steps}
    nodes_before: int = 0  # tokens of all beams
    nodes_after: int = 0  # after packing
    draft_s: float = 0.0
    verify_s: float = 0.0

    @property
    def mean_accepted(self) -> float:
        """Drafted tokens kept for each step; the step's own token is not among them."""
        kept = sum(n * steps for n, steps in self.accepted.items())
        return kept / self.n_steps if self.n_steps else 0.0

    @property
    def tokens_per_step(self) -> float:
        """Tokens that one verifying pass writes, on average."""
        return self.n_tokens / self.n_steps if self.n_steps else 0.0

    @property
    def draft_share(self) -> float:
        """Share of the time that drafting takes."""
        total = self.draft_s + self.verify_s
        return self.draft_s / total if total else 0.0

    def count(self, step: SpeculativeStep, n_accepted: np.ndarray, beams: int, tree: Tree) -> None:
        """Take in one step.

        Args:
            step: what it wrote.
            n_accepted: [batch] int.
            beams: tokens of all beams of a row.
            tree: what was verified.
        """
        alive = step.n_tokens > 0
        n_rows = int(alive.sum())
        self.n_steps += n_rows
        self.n_tokens += int(step.n_tokens.sum())
        self.nodes_before += n_rows * beams
        self.nodes_after += int(tree.n_nodes[alive].sum())
        for n in n_accepted[alive].tolist():
            self.accepted[n] = self.accepted.get(n, 0) + 1


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
    statistics: Statistics | None = None,
) -> Iterator[SpeculativeStep]:
    """Yield what each pass of the model wrote, until every row has ended or reached the limit.

    Args:
        ops: the executor.
        model: the configuration.
        drafts: proposes beams; `beams.draft` with a drafter, or anything else.
        memory: from `mu.remember`, or None for a decoder-only model.
        prompt: [batch, n_prompt] int, padded on the right; [[bos_id]] * batch for Mu.
        prompt_valid: [batch, n_prompt] bool.
        max_new_tokens: limit for each row.
        sampling: greedy by default; with a temperature the tokens have the model's distribution.
        rng: needed unless greedy.
        stop_at_eos: False goes on to the limit whatever comes.
        with_logits: also read the logits.
        statistics: counts along, if given.

    Yields:
        Steps; the first one is the model's own first token, without drafts.

    Raises:
        InputError: an empty prompt, or sampling without a generator.
    """
    if not np.all(prompt_valid.any(axis=1)):
        raise InputError("every prompt must hold at least one token; one is empty")
    if max_new_tokens < 1:
        return
    run = _Run(ops, model, drafts, memory, max_new_tokens, sampling, rng, stop_at_eos, with_logits)
    yield run.begin(prompt, prompt_valid)
    while not run.done:
        yield run.advance(statistics)


@dataclass(slots=True)
class _Run:
    """What is remembered between steps."""

    ops: Ops
    model: ModelConfig
    drafts: Drafts
    memory: Memory | None
    limit: int
    sampling: Sampling
    rng: np.random.Generator | None
    stop_at_eos: bool
    with_logits: bool
    cache: Cache = field(init=False)
    hidden: Value = field(init=False)  # [batch, 1, d_model], of the last token in the cache
    token: np.ndarray = field(init=False)  # [batch], chosen from it, not yet in the cache
    seen: np.ndarray = field(init=False)  # [batch], slots as plain decoding counts them
    written: np.ndarray = field(init=False)  # [batch], tokens so far
    ended: np.ndarray = field(init=False)  # [batch]

    @property
    def done(self) -> bool:
        """Has every row ended or reached the limit?"""
        return bool(np.all(self.ended | (self.written >= self.limit)))

    def begin(self, prompt: np.ndarray, valid: np.ndarray) -> SpeculativeStep:
        """Read the prompt and write the first token."""
        batch, n_prompt = prompt.shape
        self.cache = Cache.empty(batch, self.model.stacks["decoder"].n_layers)
        hidden = decode(self.ops, prompt, valid, self.model, self.memory, self.cache)
        last = n_prompt - 1 - np.argmax(valid[:, ::-1], axis=1)  # last real token of a row
        self.seen = np.full(batch, n_prompt)
        self.written, self.ended = np.zeros(batch, np.int64), np.zeros(batch, bool)
        self.hidden = self.ops.take_tokens(hidden, last[:, None], "decoder.last_token")
        scores = mu.logits(self.ops, self.hidden, self.model)  # [batch, 1, vocab_size]
        tokens = sample(self.ops, scores, self.sampling, self.rng)
        return self._write(tokens, np.ones(batch, np.int64), scores, None)

    def advance(self, statistics: Statistics | None) -> SpeculativeStep:
        """Draft, verify, keep."""
        started = time.perf_counter()
        alive = ~self.ended & (self.written < self.limit)
        longest = int((self.limit - self.written)[alive].max()) - 1
        room = draft_limit(self.cache, self.seen, self.model.stacks["decoder"]) - 1
        longest = int(min(longest, room))
        if longest > 0:
            beams = self.drafts(self.hidden, self.token, longest)
        else:
            beams = self.token[:, None, None]
        drafted = time.perf_counter()
        tree = self._pack(beams)
        n_past = self.cache.tokens.shape[1]
        hidden = verify(
            self.ops, self.model, self.memory, self.cache, beams, tree, self.seen, alive
        )
        scores = mu.logits(self.ops, hidden, self.model)  # [batch, n_packed, vocab_size]
        chosen = sample(self.ops, scores, self.sampling, self.rng)  # [batch, n_packed]
        rows = np.arange(len(beams))
        found = accept(beams, chosen[rows[:, None, None], tree.unpacker])
        n_new = np.where(alive, found.n_accepted + 1, 0)
        path = tree.unpacker[rows, found.best_beam, : max(1, n_new.max())]  # [batch, n]
        kept = np.arange(path.shape[1]) < n_new[:, None]
        self.cache.keep(self.ops, n_past, n_past + path, kept)
        at = path[rows, found.n_accepted * alive][:, None]
        self.hidden = self.ops.take_tokens(hidden, at, "decoder.last_token")
        self.seen = self.seen + n_new
        step = self._write(np.take_along_axis(chosen, path, axis=1), n_new, scores, path)
        if statistics is not None:
            finished = time.perf_counter()
            statistics.count(step, found.n_accepted, beams[0].size, tree)
            statistics.draft_s += drafted - started
            statistics.verify_s += finished - drafted
        return step

    def _pack(self, beams: np.ndarray) -> Tree:
        if not self.ops.compiled:
            return pack(beams)
        from mu_ref.kernels.trees import pack as compiled_pack

        return Tree(*compiled_pack(np.ascontiguousarray(beams, np.int64)))

    def _write(
        self, tokens: np.ndarray, n_new: np.ndarray, scores: Value, path: np.ndarray | None
    ) -> SpeculativeStep:
        """Cut the new tokens at eos and at the limit, and put them out."""
        order = np.arange(tokens.shape[1])
        self.token = tokens[np.arange(len(tokens)), np.maximum(n_new, 1) - 1]
        n = np.minimum(n_new, self.limit - self.written)
        if self.stop_at_eos:
            is_end = (tokens == self.model.eos_id) & (order < n[:, None])
            ends = is_end.any(axis=1)
            n = np.where(ends, np.argmax(is_end, axis=1) + 1, n)
            self.ended = self.ended | ends
        self.written = self.written + n
        width = max(1, int(n.max()))
        tokens = np.where(order < n[:, None], tokens, self.model.pad_id)[:, :width]
        logits = None
        if self.with_logits:
            logits = self.ops.read(scores)
            if path is not None:
                logits = np.take_along_axis(logits, path[:, :width, None], axis=1)
        return SpeculativeStep(tokens, n, logits, self.ended)
