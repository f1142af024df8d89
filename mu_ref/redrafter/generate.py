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
from mu_ref.generate import GREEDY, Sampling, decode_step, sample
from mu_ref.model import mu
from mu_ref.model.cache import Cache, Memory
from mu_ref.ops import Ops, Value
from mu_ref.redrafter.beams import Beams, Drafts, log_softmax, warp
from mu_ref.redrafter.steps import SpeculativeStep, Statistics
from mu_ref.redrafter.tree import Tree, pack, unpack
from mu_ref.redrafter.verify import Accepted, accept, accept_apple, draft_limit, verify

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
        apple_rule: sample as Apple's code does, which is NOT lossless; needs a temperature, and
            drafts with log-probabilities.
        statistics: counts along, if given.

    Yields:
        Steps; the first one is the model's own first token, without drafts.

    Raises:
        InputError: an empty prompt, sampling without a generator, or Apple's rule without what it
            needs.
    """
    if apple_rule and (sampling.temperature == 0 or rng is None):
        raise InputError("Apple's rule must sample; give a temperature above 0 and a generator")
    if apple_rule and sampling != Sampling(temperature=sampling.temperature):
        raise InputError("Apple's rule must sample from all tokens; give no top_k and no top_p")
    if not np.all(prompt_valid.any(axis=1)):
        raise InputError("every prompt must hold at least one token; one is empty")
    if max_new_tokens < 1:
        return
    run = _Run(
        ops, model, drafts, memory, max_new_tokens, sampling, rng, stop_at_eos, with_logits,
        apple_rule,
    )  # fmt: skip
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
    apple_rule: bool
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
        hidden = decode_step(self.ops, self.model, prompt, valid, self.memory, self.cache)
        last = n_prompt - 1 - np.argmax(valid[:, ::-1], axis=1)  # last real token of a row
        self.seen = np.full(batch, n_prompt)
        self.written, self.ended = np.zeros(batch, np.int64), np.zeros(batch, bool)
        self.hidden = self.ops.take_tokens(hidden, last[:, None], "decoder.last_token")
        scores = mu.logits(self.ops, self.model, self.hidden)  # [batch, 1, vocab_size]
        tokens = sample(self.ops, scores, self.sampling, self.rng)
        return self._write(tokens, np.ones(batch, np.int64), scores, None)

    def advance(self, statistics: Statistics | None) -> SpeculativeStep:
        """Draft, verify, keep."""
        started = time.perf_counter()
        alive = ~self.ended & (self.written < self.limit)
        longest = int((self.limit - self.written)[alive].max()) - 1
        room = draft_limit(self.cache, self.seen, self.model.stacks["decoder"]) - 1
        longest = int(min(longest, room))
        proposed = Beams(self.token[:, None, None])
        if longest > 0:
            proposed = self.drafts(self.hidden, self.token, longest)
        beams = proposed.tokens
        drafted = time.perf_counter()
        tree = self._pack(beams)
        n_past = self.cache.tokens.shape[1]
        hidden = verify(
            self.ops, self.model, self.memory, self.cache, beams, tree, self.seen, alive
        )
        scores = mu.logits(self.ops, self.model, hidden)  # [batch, n_packed, vocab_size]
        rows = np.arange(len(beams))
        found = self._accept(proposed, tree, scores)
        n_new = np.where(alive, found.n_accepted + 1, 0)
        path = tree.unpacker[rows, found.best_beam, : max(1, n_new.max())]  # [batch, n]
        kept = np.arange(path.shape[1]) < n_new[:, None]
        self.cache.keep(self.ops, n_past, n_past + path, kept)
        at = path[rows, found.n_accepted * alive][:, None]
        self.hidden = self.ops.take_tokens(hidden, at, "decoder.last_token")
        self.seen = self.seen + n_new
        tokens = np.concatenate([beams[rows, found.best_beam, 1:], beams[:, 0, :1]], axis=1)
        tokens[rows, found.n_accepted] = found.next_token
        step = self._write(tokens[:, : path.shape[1]], n_new, scores, path)
        if statistics is not None:
            finished = time.perf_counter()
            statistics.count(step, found.n_accepted, beams[0].size, tree)
            statistics.draft_s += drafted - started
            statistics.verify_s += finished - drafted
        return step

    def _accept(self, beams: Beams, tree: Tree, scores: Value) -> Accepted:
        if not self.apple_rule or beams.tokens.shape[2] == 1:
            written = sample(self.ops, scores, self.sampling, self.rng)  # [batch, n_packed]
            return accept(beams.tokens, unpack(written, tree))
        if beams.log_probs is None or self.rng is None:
            raise InputError("Apple's rule must be given drafts with log-probabilities")
        logits = warp(unpack(self.ops.read(scores), tree)) / self.sampling.temperature
        uniform = self.rng.random(beams.log_probs.shape[:3])
        return accept_apple(beams.tokens, log_softmax(logits), beams.log_probs, uniform, self.rng)

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
