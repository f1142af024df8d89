"""How much faster the Settings agent writes with drafts, measured side by side."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mu_ref.border.files import write_picture
from mu_ref.border.text import mathless
from mu_ref.generate import encode_step
from mu_ref.redrafter.beams import Search
from mu_ref.redrafter.draw import GREY
from mu_ref.redrafter.steps import Statistics
from mu_ref.settings.agent import Agent

__all__ = ["Point", "fastest_line", "plot_sweep", "sweep", "sweep_table"]


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

    @property
    def share(self) -> str:
        """Tokens per step in percent of their cap; a dash if no answer had room for a draft."""
        return f"{100 * self.tokens_per_step / self.cap:.0f}%" if self.cap else "-"

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as values of JSON."""
        return asdict(self) | {"speedup": self.speedup, "request_speedup": self.request_speedup}


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
        writing disturbs its neighbour too. The slowest 2 % of each column are left out, plain
        decoding's as well, so that a pause of the machine does not count as somebody's.
    """
    seen = [Statistics() for _ in searches]
    same, spent, lengths = np.zeros(len(searches), np.int64), [], []
    plain = replace(agent, search=None)
    ways = [replace(agent, search=search) for search in searches]
    for way in (plain, *ways):  # compiled code is loaded, memory allocated
        way.ask(queries[:1])
    quiet = not console.is_terminal
    for query in track(queries, "measuring", console=console, transient=True, disable=quiet):
        source = np.array([agent.source_tokens(query)])
        started = time.perf_counter()
        memory = encode_step(agent.ops, agent.model, source, np.ones(source.shape, bool))
        agent.ops.read(memory.hidden)  # executors that write operations down run them here
        encoded = time.perf_counter()
        (expected,) = plain.write(memory, 1)
        times = [encoded - started, time.perf_counter() - encoded]
        lengths.append(len(expected) - 1)  # the first token comes without a draft
        for i, way in enumerate(ways):
            before = time.perf_counter()
            (written,) = way.write(memory, 1, seen[i])
            times.append(time.perf_counter() - before)
            same[i] += written == expected
        spent.append(times)
    n = len(queries)
    fastest = np.sort(spent, axis=0)[: max(1, n - n // 50)]  # without the slowest 2 %
    encode_ms, plain_ms, *drafted_ms = (1000 * fastest.mean(axis=0)).tolist()
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
            encode_ms=encode_ms,
            plain_ms=plain_ms,
            speculative_ms=drafted_ms[i],
        )
        for i, search in enumerate(searches)
    ]


def sweep_table(points: Sequence[Point], title: str) -> Table:
    """Put points into a table.

    Args:
        points: of a sweep.
        title: above it; the times of plain decoding are added.

    Returns:
        A row for each point: tokens per step, their cap and its share; nodes before and after
        packing; drafting's share of the time; milliseconds for each answer; how many times as fast
        as plain decoding, in writing and with reading; equal answers.
    """
    first = points[0]
    table = Table(
        title=f"{title}\n{first.n_queries} queries, each read in {first.encode_ms:.2f} ms and "
        f"answered without drafts in {first.plain_ms:.2f} ms",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )
    for heading in ("width", "len", "tok/step", "cap", "share", "nodes", "draft", "ms", "faster",
                    "+read", "same"):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    for p in points:
        table.add_row(
            str(p.beam_width), str(p.draft_len), f"{p.tokens_per_step:.2f}", f"{p.cap:.2f}",
            p.share, f"{p.nodes_before:.0f}→{p.nodes_after:.1f}",
            f"{100 * p.draft_share:.0f}%", f"{p.speculative_ms:.2f}", f"{p.speedup:.2f}",
            f"{p.request_speedup:.2f}", "all" if p.same == p.n_queries else str(p.same),
        )  # fmt: skip
    return table


def plot_sweep(points: Sequence[Point], title: str, path: Path) -> None:
    """Draw tokens per step and speed-up over draft length, a line for each beam width.

    Args:
        points: of a sweep.
        title: above the picture.
        path: .png or .svg to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    steps, speed = figure.subplots(1, 2)
    lengths = sorted({p.draft_len for p in points})
    caps = {p.draft_len: p.cap for p in points}
    steps.plot(lengths, [caps[n] for n in lengths], "--", color=GREY, label="if all were right")
    for width in sorted({p.beam_width for p in points}):
        line = sorted((p for p in points if p.beam_width == width), key=lambda p: p.draft_len)
        lens = [p.draft_len for p in line]
        steps.plot(lens, [p.tokens_per_step for p in line], "o-", label=f"beam width {width}")
        speed.plot(lens, [p.speedup for p in line], "o-", label=f"beam width {width}")
    speed.axhline(1, color=GREY, lw=1, ls="--")
    for axes, label in ((steps, "tokens per step"), (speed, "times as fast as plain decoding")):
        axes.set_xlabel("draft length (drafted tokens)")
        axes.set_ylabel(label)
        axes.set_xticks(lengths)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
    figure.suptitle(mathless(title), fontsize=11)
    write_picture(path, figure, 110)


def fastest_line(points: Sequence[Point]) -> str:
    """Say in words which of the points writes fastest."""
    best = max(points, key=lambda point: point.speedup)
    return (
        f"fastest: width {best.beam_width}, length {best.draft_len}: {best.speedup:.2f} times in "
        f"writing, {best.request_speedup:.2f} with reading; {best.tokens_per_step:.2f} tokens per "
        f"step, {best.share.replace('%', ' %')} of the {best.cap:.2f} that these short answers "
        "allow"
    )
