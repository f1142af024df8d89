"""The Settings agent: a query in plain English in, one call of the Settings grammar out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import track

from mu_ref.border.arrays import check_tokens
from mu_ref.config import ModelConfig
from mu_ref.errors import CallError, InputError
from mu_ref.executors import load_model
from mu_ref.generate import Guide, encode_step, stream
from mu_ref.model import mu
from mu_ref.model.cache import Memory
from mu_ref.ops import Ops
from mu_ref.settings.calls import Call, parse_call
from mu_ref.settings.catalog import Catalog, load_catalog
from mu_ref.settings.evaluate import Evaluation, evaluate
from mu_ref.settings.queries.labelled import LabelledQuery, query_tokens
from mu_ref.tokenizer import Tokenizer
from mu_ref.training.datasets import pad

if TYPE_CHECKING:
    from mu_ref.redrafter.beams import Search
    from mu_ref.redrafter.config import DrafterConfig
    from mu_ref.redrafter.steps import Statistics

__all__ = ["Agent", "Answer", "answer_all", "load_agent", "score", "unread"]


MAX_NEW_TOKENS = 32  # the longest call has 17 tokens

NONE = Call(verb="none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the agent says to one query."""

    query: str
    text: str  # what the model wrote
    call: Call  # none() if the model's text is not a valid call
    complaint: str | None  # why it is none(), if the model did not choose that
    n_input: int  # encoder tokens
    n_output: int  # decoder steps, the one that wrote eos included
    tokens: tuple[int, ...]  # what the steps wrote
    encode_s: float  # seconds until the memory stood, for the whole batch
    decode_s: float  # seconds of all decoder steps, for the whole batch


@dataclass(frozen=True, slots=True)
class Agent:
    """A model, its tokenizer and the catalog; `ask` is the whole interface."""

    model: ModelConfig
    ops: Ops
    tokenizer: Tokenizer
    catalog: Catalog
    drafter: "DrafterConfig | None" = None  # if there is one, its weights are the executor's too
    search: "Search | None" = None  # how to draft; None decodes token by token

    def ask(self, queries: Sequence[str]) -> list[Answer]:
        """Answer a batch of queries, greedily.

        Args:
            queries: any texts; one without a letter or digit is answered `none()` unread.

        Returns:
            One answer per query, in order.

        Raises:
            InputError: a query is longer than the model was made for.
        """
        readable = [any(c.isalnum() for c in query) for query in queries]
        asked = [query for query, is_readable in zip(queries, readable, strict=True) if is_readable]
        answers = iter(self._answer(asked) if asked else [])
        return [
            next(answers) if is_readable else unread(query)
            for query, is_readable in zip(queries, readable, strict=True)
        ]

    def _answer(self, queries: Sequence[str]) -> list[Answer]:
        rows = [self.source_tokens(query) for query in queries]
        source, valid = pad(rows, self.model.source_pad)
        started = time.perf_counter()
        memory = encode_step(self.ops, self.model, source, valid)
        encoded = time.perf_counter()
        texts = self.write(memory, len(rows))
        decoded = time.perf_counter()
        answers = []
        for i, query in enumerate(queries):
            text = self.tokenizer.decode([t for t in texts[i] if t not in self.model.eos_ids])
            call, complaint = self._parse(text)
            answers.append(
                Answer(
                    query=query,
                    text=text,
                    call=call,
                    complaint=complaint,
                    n_input=len(rows[i]),
                    n_output=len(texts[i]),
                    tokens=tuple(texts[i]),
                    encode_s=encoded - started,
                    decode_s=decoded - encoded,
                )
            )
        return answers

    def remember(self, query: str | Sequence[int]) -> Memory:
        """Read one query, as a text or as its token ids: what the decoder needs of it."""
        source = self._source(self.source_tokens(query) if isinstance(query, str) else query)
        return encode_step(self.ops, self.model, source, np.ones(source.shape, bool))

    def _source(self, tokens: Sequence[int]) -> np.ndarray:
        source = np.array([tokens])
        check_tokens("a query", source, self.model.encoder_vocab_size)
        if source.shape[1] > self.model.max_len:
            raise InputError(
                f"a query must be at most {self.model.max_len} tokens long, got {source.shape[1]}"
            )
        return source

    def write(
        self,
        memory: Memory,
        n_rows: int,
        statistics: "Statistics | None" = None,
        guide: Guide | None = None,
        seen: list[list[np.ndarray]] | None = None,
    ) -> list[list[int]]:
        """Decode greedily, with drafts if there are any; the tokens are the same.

        Args:
            memory: of the queries.
            n_rows: how many.
            statistics: of drafting, to count along.
            guide: masks the logits.
            seen: of each row a list, which gets the logits [vocab_size] of its tokens.

        Returns:
            The tokens of each row, eos included.
        """
        given = (memory, *mu.start(self.model, n_rows), MAX_NEW_TOKENS)
        return self._decoded(given, statistics, guide, seen)

    def write_ids(
        self, tokens: Sequence[int], max_new_tokens: int, statistics: "Statistics | None" = None
    ) -> list[int]:
        """Go on from token ids, greedily: those of an encoder, or a prompt of a decoder alone.

        Args:
            tokens: what is read.
            max_new_tokens: at most.
            statistics: of drafting, to count along.

        Returns:
            The tokens that were written, the end token included.

        Raises:
            InputError: an id is out of range, or there are more than the model was made for.
        """
        if self.model.encoder is None:
            memory, prompt = None, self._source(tokens)
            valid = np.ones(prompt.shape, bool)
        else:
            memory, (prompt, valid) = self.remember(tokens), mu.start(self.model, 1)
        return self._decoded((memory, prompt, valid, max_new_tokens), statistics)[0]

    def _decoded(
        self,
        given: tuple[Memory | None, np.ndarray, np.ndarray, int],
        statistics: "Statistics | None",
        guide: Guide | None = None,
        seen: list[list[np.ndarray]] | None = None,
    ) -> list[list[int]]:
        """Decode from (memory, prompt, which of it is read, at most so many tokens)."""
        n_rows = len(given[1])
        texts: list[list[int]] = [[] for _ in range(n_rows)]
        if self.drafter is None or self.search is None:
            ended = np.zeros(n_rows, bool)
            for step in stream(self.ops, self.model, *given, guide=guide):
                for row in np.flatnonzero(~ended):
                    texts[row].append(int(step.tokens[row]))
                    if seen is not None:
                        seen[row].append(step.logits[row])
                ended = step.ended
            return texts
        from mu_ref.redrafter.beams import proposer
        from mu_ref.redrafter.generate import speculate

        drafts = proposer(self.ops, self.model, self.drafter, self.search)
        for part in speculate(
            self.ops, self.model, drafts, *given,
            guide=guide, statistics=statistics, with_logits=seen is not None,
        ):  # fmt: skip
            for i, n in enumerate(part.n_tokens.tolist()):
                texts[i].extend(part.tokens[i, :n].tolist())
                if seen is not None and part.logits is not None:
                    seen[i].extend(part.logits[i, :n])
        return texts

    def source_tokens(self, query: str) -> list[int]:
        """Turn a query into the encoder's input, eos included; too long is an InputError."""
        # no token spells so many characters, and a book would take minutes to cut up
        if len(" ".join(query.split())) > 64 * self.model.max_len:
            raise InputError(
                f"a query must be at most {self.model.max_len} tokens long, got {len(query)} "
                "characters; ask for one thing in a sentence"
            )
        tokens = [*query_tokens(query, self.tokenizer), self.model.end_token]
        if len(tokens) > self.model.max_len:
            raise InputError(
                f"a query must be at most {self.model.max_len} tokens long, got {len(tokens)} "
                f"({len(query)} characters); ask for one thing in a sentence"
            )
        return tokens

    def _parse(self, text: str) -> tuple[Call, str | None]:
        try:
            return parse_call(text, self.catalog), None
        except CallError as error:
            return NONE, f"the model wrote {text!r}, which is no call: {error}"


def unread(query: str) -> Answer:
    """Answer a query without a letter or digit."""
    return Answer(
        query=query,
        text=str(NONE),
        call=NONE,
        complaint="the query has no letter or digit to go by",
        n_input=0,
        n_output=0,
        tokens=(),
        encode_s=0.0,
        decode_s=0.0,
    )


def load_agent(
    weights: Path | None = None,
    scheme: str = "float32",
    executor: str = "reference",
    drafter: Path | None = None,
    search: "Search | None" = None,
    *,
    tokenized: bool = True,
) -> Agent:
    """Load the agent that ships with the package, or one with other weights.

        >>> import mu_ref
        >>> agent = mu_ref.load_agent(scheme="w8a16")
        >>> [str(answer.call) for answer in agent.ask(["turn on bluetooth", "tell me a joke"])]
        ['set(bluetooth, on)', 'none()']

    Args:
        weights: a file written by `mu-ref train` or `mu-ref quantize`; the shipped mu-nano of the
            scheme by default.
        scheme: one of `SCHEMES`; must be that of the file.
        executor: one of `EXECUTORS`: NumPy, or compiled kernels that give the same answers.
        drafter: a file written by `mu-ref train-drafter` or `mu-ref quantize-drafter`, of the
            scheme too, in floats for w4a16; or the folder of one that Apple's code has saved.
        search: how the drafter drafts; without one it is loaded and not used.
        tokenized: False for a model with another tokenizer, or a decoder alone, which reads and
            writes token ids only.

    Returns:
        The agent.

    Raises:
        WeightsError: the file is not there, damaged or foreign.
        InputError: the model does not fit the shipped tokenizer, or the file is of another scheme.
    """
    loaded = load_model(weights, scheme, executor, drafter)
    model = loaded.model
    tokenizer = Tokenizer.load()
    reads = model.encoder is not None or not tokenized
    fits = model.vocab_size == tokenizer.vocab_size or not tokenized
    if model.decoder is None or not reads or not fits:
        raise InputError(
            f"{weights} must be an encoder-decoder with the {tokenizer.vocab_size} tokens of the "
            f"shipped tokenizer, got {model.name} with {model.vocab_size}; `mu-ref generate --ids` "
            "reads and writes token ids"
        )
    return Agent(model, loaded.ops, tokenizer, load_catalog(), loaded.drafter, search)


def answer_all(
    agent: Agent, items: Sequence[LabelledQuery], console: Console, batch_size: int = 128
) -> list[Answer]:
    """Answer every query.

    Args:
        agent: who answers.
        items: the queries; their labels are not looked at.
        console: where progress is shown.
        batch_size: queries answered together; those of similar length, to save padding.

    Returns:
        One answer per query, in order.

    Raises:
        InputError: a query is too long.
    """
    order = sorted(range(len(items)), key=lambda i: len(items[i].query))
    answers: dict[int, Answer] = {}
    starts = range(0, len(order), batch_size)
    quiet = not console.is_terminal
    for start in track(starts, "answering", console=console, transient=True, disable=quiet):
        batch = order[start : start + batch_size]
        answers |= dict(zip(batch, agent.ask([items[i].query for i in batch]), strict=True))
    return [answers[i] for i in range(len(items))]


def score(agent: Agent, items: Sequence[LabelledQuery], answers: Sequence[Answer]) -> Evaluation:
    """Score answers against the labels; what the model wrote counts, valid or not."""
    return evaluate([i.call for i in items], [a.text for a in answers], agent.catalog)
