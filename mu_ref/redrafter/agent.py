"""The Settings agent's drafter: training data, quantization, and how much faster it writes."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mu_ref.errors import InputError
from mu_ref.model import mu
from mu_ref.model.decoder import decode
from mu_ref.ops.reference import ReferenceOps
from mu_ref.quantize.store import load_integers
from mu_ref.redrafter.beams import Search
from mu_ref.redrafter.generate import Statistics
from mu_ref.redrafter.quantize import quantize_drafter
from mu_ref.redrafter.store import IntegerDrafter, load_drafter
from mu_ref.redrafter.train import Distilled, distill
from mu_ref.settings.agent import MAX_NEW_TOKENS, Agent
from mu_ref.settings.catalog import DATA
from mu_ref.training.datasets import pad

__all__ = ["Point", "distill_queries", "quantize_agent_drafter", "shipped_drafter", "sweep"]


def shipped_drafter(scheme: str) -> Path:
    """Return the drafter that ships for a scheme; w4a16 has that of float32."""
    integers = scheme in ("w8a16", "w8a8")
    return DATA / (f"mu-nano-drafter-{scheme}.safetensors" if integers
                   else "mu-nano-drafter.safetensors")  # fmt: skip


def distill_queries(
    agent: Agent, queries: Iterable[str], draft_len: int, console: Console, batch_size: int = 128
) -> Distilled:
    """Let the agent answer queries and note its states; see `train.distill`.

    Args:
        agent: on a float executor.
        queries: any that fit the model.
        draft_len: how far ahead to look.
        console: where progress is shown.
        batch_size: queries answered together, of similar length.

    Returns:
        Positions of all answers.
    """
    rows = sorted((agent.source_tokens(query) for query in queries), key=len)
    parts = []
    for first in track(
        range(0, len(rows), batch_size), "answering", console=console, transient=True
    ):
        source, valid = pad(rows[first : first + batch_size], agent.model.pad_id)
        parts.append(distill(agent.ops, agent.model, source, valid, MAX_NEW_TOKENS, draft_len))
    return Distilled(
        np.concatenate([part.hidden for part in parts]),
        np.concatenate([part.following for part in parts]),
        np.concatenate([part.n_targets for part in parts]),
    )


def quantize_agent_drafter(
    agent: Agent, drafter: Path, integers: Path, queries: Sequence[str], draft_len: int
) -> IntegerDrafter:
    """Quantize the agent's drafter for an integer model.

    Args:
        agent: in floats, on the reference executor.
        drafter: float drafter.
        integers: the integer model that it will work with.
        queries: to calibrate on.
        draft_len: drafted tokens to watch.

    Returns:
        The integer drafter.

    Raises:
        InputError: the agent is not in floats on the reference executor.
    """
    if not isinstance(agent.ops, ReferenceOps):
        raise InputError("a drafter must be calibrated in floats on the reference executor")
    config, weights = load_drafter(drafter, agent.model)
    hidden, tokens = [], []
    for query in queries:
        source = np.array([agent.source_tokens(query)])
        memory = mu.remember(agent.ops, agent.model, source, np.ones(source.shape, bool))
        (written,) = agent.write(memory, 1)
        read = np.array([[agent.model.bos_id, *written]])
        valid = np.ones(read.shape, bool)
        hidden.append(decode(agent.ops, read, valid, agent.model, memory)[0])
        tokens.append(read[0])
    made = quantize_drafter(
        agent.model, agent.ops.weights, config, weights, load_integers(integers), hidden, tokens,
        draft_len,
    )  # fmt: skip
    notes = {"drafter file": drafter.name, "calibration": f"{len(queries)} queries"}
    return replace(made, notes=notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What one beam width and draft length gave, against plain decoding of the same queries."""

    beam_width: int
    draft_len: int
    n_queries: int
    same: int  # queries with the same tokens as plain decoding: all, or something is broken
    tokens_per_step: float
    cap: float  # tokens per step if every draft were right: the answers are short
    mean_accepted: float
    accepted: dict[int, int]  # {drafted tokens kept: steps}
    nodes_before: float  # for each step, tokens of all beams
    nodes_after: float  # after packing
    draft_share: float  # of the time
    encode_ms: float  # for each query, as all below
    plain_ms: float  # writing token by token
    speculative_ms: float  # writing with drafts

    @property
    def speedup(self) -> float:
        """Of writing."""
        return self.plain_ms / self.speculative_ms

    @property
    def request_speedup(self) -> float:
        """Of reading and writing together."""
        return (self.encode_ms + self.plain_ms) / (self.encode_ms + self.speculative_ms)

    def to_json(self) -> str:
        """Return the numbers as JSON."""
        return json.dumps(
            asdict(self) | {"speedup": self.speedup, "request_speedup": self.request_speedup}
        )


def sweep(
    agent: Agent, queries: Sequence[str], searches: Sequence[Search], console: Console
) -> list[Point]:
    """Write the answer to each query plainly and with every search, one after the other.

    Args:
        agent: with a drafter.
        queries: to answer, one at a time.
        searches: beam widths and draft lengths to try.
        console: where progress is shown.

    Returns:
        A point for each search. Times are of this machine, side by side: what disturbs one way of
        writing disturbs its neighbour too.
    """
    seen = [Statistics() for _ in searches]
    spent, same = np.zeros(len(searches)), np.zeros(len(searches), np.int64)
    plain_s = encode_s = 0.0
    lengths = []
    plain = replace(agent, search=None)
    ways = [replace(agent, search=search) for search in searches]
    for way in (plain, *ways):  # compiled code is loaded, memory allocated
        way.ask(queries[:1])
    for query in track(queries, "measuring", console=console, transient=True):
        source = np.array([agent.source_tokens(query)])
        started = time.perf_counter()
        memory = mu.remember(agent.ops, agent.model, source, np.ones(source.shape, bool))
        agent.ops.read(memory.hidden)  # executors that write operations down run them here
        encoded = time.perf_counter()
        (expected,) = plain.write(memory, 1)
        encode_s += encoded - started
        plain_s += time.perf_counter() - encoded
        lengths.append(len(expected) - 1)  # the first token comes without a draft
        for i, way in enumerate(ways):
            before = time.perf_counter()
            (written,) = way.write(memory, 1, seen[i])
            spent[i] += time.perf_counter() - before
            same[i] += written == expected
    n = len(queries)
    return [
        Point(
            beam_width=search.beam_width,
            draft_len=search.draft_len,
            n_queries=n,
            same=int(same[i]),
            tokens_per_step=seen[i].tokens_per_step,
            cap=sum(lengths) / max(1, sum(ceil(k / (search.draft_len + 1)) for k in lengths)),
            mean_accepted=seen[i].mean_accepted,
            accepted=dict(sorted(seen[i].accepted.items())),
            nodes_before=seen[i].nodes_before / max(1, seen[i].n_steps),
            nodes_after=seen[i].nodes_after / max(1, seen[i].n_steps),
            draft_share=seen[i].draft_share,
            encode_ms=1000 * encode_s / n,
            plain_ms=1000 * plain_s / n,
            speculative_ms=1000 * spent[i] / n,
        )
        for i, search in enumerate(searches)
    ]
