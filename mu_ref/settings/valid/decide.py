r"""Decide on a valid call: greedy in the trie, or a search that model and scorer judge together.

A candidate c with log-probability $m_c$ of the model and $l_c$ of the linear scorer has the score
$s_c = \alpha m_c + \beta l_c + \gamma_{k(c)}$, with a constant for its kind k: `none()`, a page, or
any other; its probability is the softmax of the scores over the candidates. The greedy call is
right with the probability

$$p = \sigma(a + b\, m + c\, l + d_k)$$

These numbers are fitted on the validation split, and nothing else is; below a threshold, fitted
there too, the greedy call is in doubt. Chapter: `docs/agent.md`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from mu_ref.border.ranges import Range, check_fields
from mu_ref.errors import InputError, check_choice
from mu_ref.generate import encode_step
from mu_ref.model.cache import Memory
from mu_ref.settings.agent import Agent, Answer, unread
from mu_ref.settings.calls import Call
from mu_ref.settings.queries.labelled import LabelledQuery, split_key
from mu_ref.settings.rank import Scorer, call_form, columns_of, load_scorer
from mu_ref.settings.valid.fitted import UNFITTED, Fitted, Judged
from mu_ref.settings.valid.lexical import bare_names
from mu_ref.settings.valid.meant import Meant
from mu_ref.settings.valid.search import Candidate, Passes, log_probabilities, search
from mu_ref.settings.valid.trie import CallGuide, Calls, Trie
from mu_ref.training.datasets import pad

__all__ = ["CANDIDATES", "DECODES", "RANKS", "Decider", "Decision", "Decoding"]

Decode = Literal["auto", "greedy", "search"]
Rank = Literal["model", "linear", "both"]
DECODES, RANKS = get_args(Decode), get_args(Rank)
CANDIDATES = Range(low=1, high=64, why="a query has few likely calls")


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """How to come to a call.

    Raises:
        InputError: a value that there is not.
    """

    decode: str = "auto"
    rank: str = "both"
    candidates: int = 16

    def __post_init__(self) -> None:
        """Check the values."""
        check_choice("--decode", self.decode, DECODES, InputError)
        check_choice("--rank", self.rank, RANKS, InputError)
        check_fields(self, {"candidates": CANDIDATES}, InputError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision(Answer):
    """An answer, and how sure it is."""

    probability: float  # that the call is right
    doubtful: bool  # the greedy call was in doubt, or the best of a search is
    clear: bool = True  # the probability of the call reaches the threshold of doubt
    others: tuple[tuple[Call, float], ...] = ()  # the next best of a search, with probabilities
    n_steps: int = 0  # of greedy decoding
    passes: Passes | None = None  # what the search asked of the decoder, if there was one
    facts: tuple[float, ...] = ()  # of the greedy call, see `fitted.py`


@dataclass(slots=True)
class _Row:
    """One query on its way."""

    query: str
    source: list[int]
    trie: Trie
    tokens: list[int] = field(default_factory=list)  # the greedy ones
    greedy: Decision | None = None


@dataclass(frozen=True)
class Decider:
    """An agent that answers with calls of its catalog only; `decide` is the whole interface."""

    agent: Agent
    decoding: Decoding
    calls: Calls
    scorer: Scorer
    fitted: Fitted

    @classmethod
    def of(
        cls, agent: Agent, decoding: Decoding | None = None, scorer: Scorer | None = None
    ) -> "Decider":
        """Return a decider with a scorer, by default the shipped one and what was fitted for it."""
        scorer = scorer or load_scorer()
        text = scorer.notes.get("fitted")
        fitted = UNFITTED if text is None else Fitted.from_json(text, "the scorer")
        calls = Calls(agent.catalog, agent.tokenizer, agent.model.end_token)
        return cls(agent, decoding or Decoding(), calls, scorer, fitted)

    def decide(self, queries: Sequence[str]) -> list[Decision]:
        """Answer a batch of queries with valid calls.

        Args:
            queries: any texts; one without a letter or digit is answered `none()` unread.

        Returns:
            One decision per query, in order; it does not depend on the batch.

        Raises:
            InputError: a query is longer than the model was made for.
        """
        readable = [any(c.isalnum() for c in query) for query in queries]
        asked = [query for query, is_readable in zip(queries, readable, strict=True) if is_readable]
        found = iter(map(self._opened, self._decide(asked)) if asked else [])
        return [
            next(found) if is_readable else _unread(query)
            for query, is_readable in zip(queries, readable, strict=True)
        ]

    @cached_property
    def names(self) -> dict[str, str]:
        """Bare names, folded, with the ids of their settings."""
        return bare_names(self.agent.catalog)

    @cached_property
    def meant(self) -> Meant:
        """What is left of a query that puts a setting aside; the scorer reads that."""
        return Meant(self.agent.catalog)

    @cached_property
    def pages(self) -> set[str]:
        """Ids of what can only be opened."""
        return {setting.id for setting in self.agent.catalog if setting.kind == "page"}

    def _opened(self, decision: Decision) -> Decision:
        """Let a bare name open, as the rules of labelling say; greedy decoding is left alone."""
        setting_id = self.names.get(split_key(self.meant(decision.query)))
        if setting_id is None or self.decoding.decode == "greedy":
            return decision
        call = Call(verb="open", setting_id=setting_id)
        return replace(
            decision, text=str(call), call=call, complaint=None,
            probability=1.0, doubtful=False, clear=True, others=(),
        )  # fmt: skip

    def judged(self, items: Sequence[LabelledQuery]) -> list[Judged]:
        """Return what `fitted.fit` learns from, of labelled queries: both ways of decoding."""
        found = []
        rows = [_Row(i.query, self.agent.source_tokens(i.query), self.calls.trie(i.query))
                for i in items]  # fmt: skip
        memory = self._remember(rows)
        greedy = self._greedy(rows, memory, 0.0)
        n = self.decoding.candidates
        for item, row, one, candidates in zip(
            items, rows, greedy,
            search(self.agent.ops, self.agent.model, memory, [row.trie for row in rows], n),
            strict=True,
        ):  # fmt: skip
            right = np.array(
                [str(self.calls.call_of(c.tokens)[0]) == item.call for c in candidates]
            )
            facts = self.facts_of(row.query, candidates)
            found.append(Judged(np.array(one.facts), one.text == item.call, facts, right))
        return found

    def _decide(self, queries: Sequence[str]) -> list[Decision]:
        rows = [_Row(q, self.agent.source_tokens(q), self.calls.trie(q)) for q in queries]
        started = time.perf_counter()
        memory = self._remember(rows)
        encode_s = time.perf_counter() - started
        if self.decoding.decode == "search":
            return self._searched(rows, memory, encode_s)
        decisions = self._greedy(rows, memory, encode_s)
        unsure = [i for i, decision in enumerate(decisions) if decision.doubtful]
        if self.decoding.decode == "greedy" or not unsure:
            return decisions
        chosen = [rows[i] for i in unsure]
        if len(chosen) < len(rows):
            memory = self._remember(chosen)  # what a row is does not depend on its neighbours
        for i, found in zip(unsure, self._searched(chosen, memory, encode_s), strict=True):
            before = decisions[i]
            decisions[i] = replace(
                found,
                n_steps=before.n_steps,
                tokens=before.tokens,
                doubtful=True,
                decode_s=before.decode_s + found.decode_s,
            )
        return decisions

    def guide(self, queries: Sequence[str]) -> CallGuide:
        """Return what masks the logits of these queries' answers."""
        tries = [self.calls.trie(query) for query in queries]
        return CallGuide(tries, self.agent.model.vocab_size, self.agent.model.pad_id)

    def _remember(self, rows: list[_Row]) -> Memory:
        source, valid = pad([row.source for row in rows], self.agent.model.source_pad)
        memory = encode_step(self.agent.ops, self.agent.model, source, valid)
        self.agent.ops.read(memory.hidden)  # executors that write operations down run them here
        return memory

    def _greedy(self, rows: list[_Row], memory: Memory, encode_s: float) -> list[Decision]:
        model, started = self.agent.model, time.perf_counter()
        guide = CallGuide([row.trie for row in rows], model.vocab_size, model.pad_id)
        seen: list[list[np.ndarray]] = [[] for _ in rows]
        texts = self.agent.write(memory, len(rows), guide=guide, seen=seen)
        decode_s = time.perf_counter() - started
        decisions = []
        for row, tokens, logits in zip(rows, texts, seen, strict=True):
            call, complaint = self.calls.call_of(tokens)
            facts = self._greedy_facts(row, tokens, logits)
            p = self.fitted.greedy_probability(facts, self.decoding.rank)
            decisions.append(
                Decision(
                    query=row.query,
                    text=str(call),
                    call=call,
                    complaint=complaint,
                    n_input=len(row.source),
                    n_output=len(tokens),
                    n_steps=len(tokens),
                    tokens=tuple(tokens),
                    encode_s=encode_s,
                    decode_s=decode_s,
                    probability=p,
                    doubtful=p < self.fitted.threshold,
                    clear=p >= self.fitted.threshold,
                    facts=tuple(facts.tolist()),
                )
            )
        return decisions

    def _greedy_facts(self, row: _Row, tokens: list[int], logits: list[np.ndarray]) -> np.ndarray:
        """Return what is known of the greedy call, [N_FACTS]."""
        log_p, node = 0.0, 0
        for token, scores in zip(tokens, logits, strict=True):
            allowed = list(row.trie.children[node])
            log_p += float(log_probabilities(scores, allowed)[allowed.index(token)])
            node = row.trie.follow(node, token)
        found: np.ndarray = self.facts_of(row.query, [Candidate(tuple(tokens), log_p)])[0]
        return found

    def _searched(self, rows: list[_Row], memory: Memory, encode_s: float) -> list[Decision]:
        started, passes = time.perf_counter(), Passes()
        found = search(
            self.agent.ops, self.agent.model, memory, [row.trie for row in rows],
            self.decoding.candidates, passes,
        )  # fmt: skip
        decode_s = time.perf_counter() - started
        decisions = []
        for row, candidates in zip(rows, found, strict=True):
            ranked = self._ranked(row.query, candidates)
            best = ranked[0]
            decisions.append(
                Decision(
                    query=row.query,
                    text=str(best.call),
                    call=best.call,
                    complaint=best.complaint,
                    n_input=len(row.source),
                    n_output=len(best.tokens),
                    tokens=best.tokens,
                    encode_s=encode_s,
                    decode_s=decode_s,
                    probability=best.probability,
                    doubtful=best.probability < self.fitted.threshold,
                    clear=best.probability >= self.fitted.threshold,
                    others=tuple((other.call, other.probability) for other in ranked[1:3]),
                    passes=passes,
                )
            )
        return decisions

    def facts_of(self, query: str, candidates: Sequence[Candidate]) -> np.ndarray:
        """Return what is known of candidates, [n, N_FACTS]; see `fitted.py`.

        A call whose number is out of range is judged as what it says, and is none() afterwards.
        """
        texts = [self.calls.text_of(candidate.tokens) for candidate in candidates]
        settings = [columns_of(call_form(text))[1] for text in texts]
        model = [candidate.log_p for candidate in candidates]
        linear = self.scorer.of_calls(self.meant(query), texts)
        nothing = [setting == "none" for setting in settings]
        pages = [setting in self.pages for setting in settings]
        return np.stack([model, linear, nothing, pages], axis=1)

    def _ranked(self, query: str, candidates: Sequence[Candidate]) -> "list[_Ranked]":
        """Return the calls of candidates, the likeliest first; ties in text order."""
        p = self.fitted.probabilities(self.facts_of(query, candidates), self.decoding.rank)
        found: dict[str, _Ranked] = {}
        for candidate, share in sorted(
            zip(candidates, p.tolist(), strict=True), key=lambda pair: -pair[1]
        ):
            call, complaint = self.calls.call_of(candidate.tokens)
            known = _Ranked(call, complaint, 0.0, candidate.tokens)
            before = found.get(str(call), known)
            found[str(call)] = replace(before, probability=before.probability + share)
        return sorted(found.values(), key=lambda one: (-one.probability, str(one.call)))


@dataclass(frozen=True, slots=True)
class _Ranked:
    call: Call
    complaint: str | None
    probability: float
    tokens: tuple[int, ...]


def _unread(query: str) -> Decision:
    answer = unread(query)
    facts = {field.name: getattr(answer, field.name) for field in fields(answer)}
    return Decision(**facts, probability=1.0, doubtful=False)
