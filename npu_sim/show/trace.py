"""A run as a trace that opens in Perfetto: one thread per engine, counters, site names.

Chrome's trace format: complete events ("X") with a start and a duration in microseconds, counters
("C"), names ("M"). `check_trace` holds a trace to the rules: every event complete, no two
events of one engine at the same time unless one lies inside the other, times that do not go back,
one thread per engine. Chapter: `docs/13_tiles.md`.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.files import write_text
from mu_ref.border.ranges import Range
from mu_ref.border.reading import read_json
from mu_ref.border.text import short
from npu_sim.errors import WorkloadError
from npu_sim.show.sram import sram_bytes
from npu_sim.tile.simulate import CallRun, TileRun, call_tasks
from npu_sim.tile.tasks import ENGINES, PARTS, Engine, Part

__all__ = ["check_trace", "read_trace", "trace_events", "write_trace"]


PID = 1

CALLS_TID = 0  # the thread of whole calls and operations

MOST_EVENTS = 2_000_000

TIME = Range(low=-1e18, high=1e18, whole=False, why="viewers count time in 64 bits")
COUNTED = Range(low=-1e300, high=1e300, whole=False, why="viewers draw it")
THREAD = Range(low=0, high=2**53, why="viewers number threads so far")

_FIELDS = ("op", "cycles", "n_bytes", "part", "start", "end", "row_0", "row_1", "col_0", "col_1")


def write_trace(run: TileRun, path: Path) -> int:
    """Write a run as Chrome trace JSON.

    Args:
        run: from `simulate_tiles`.
        path: of the file; appears whole or not at all.

    Returns:
        Number of events.

    Raises:
        WorkloadError: too many events for a viewer.
    """
    lines = []
    for event in trace_events(run):
        lines.append(json.dumps(event, separators=(",", ":")))
        if len(lines) > MOST_EVENTS:
            raise WorkloadError(
                f"a trace must have at most {MOST_EVENTS:,} events; simulate a shorter request"
            )
    text = '{"displayTimeUnit":"ns","traceEvents":[\n' + ",\n".join(lines) + "\n]}\n"
    write_text(path, text)
    return len(lines)


def trace_events(run: TileRun) -> Iterator[dict[str, Any]]:
    """Yield the events of a run, engine by engine within each call."""
    title = f"{run.table.program.model} on {run.npu.name} (simulated)"
    yield {"ph": "M", "pid": PID, "name": "process_name", "args": {"name": title}}
    for tid, name in enumerate(("calls", *ENGINES)):
        yield {
            "ph": "M", "pid": PID, "tid": tid, "name": "thread_name", "args": {"name": name},
        }  # fmt: skip
        yield {
            "ph": "M", "pid": PID, "tid": tid, "name": "thread_sort_index",
            "args": {"sort_index": tid},
        }  # fmt: skip
    us = 1e6 / run.npu.clock_hz
    origin = 0
    for number, call in enumerate(run.calls):
        begin = origin + call.overhead_cycles
        phase = call.table.call.phase
        yield _event(CALLS_TID, f"{phase} {number}", origin, begin + call.cycles, us, {})
        yield _event(CALLS_TID, "call overhead", origin, begin, us, {})
        for op, times in zip(call.table.ops, call.times, strict=True):
            if times.end > times.begin:
                args = {"kind": op.kind, "macs": op.macs, "dram_bytes": int(times.dram_bytes.sum())}
                yield _event(
                    CALLS_TID, op.site, begin + int(times.begin), begin + int(times.end), us, args
                )
        yield from _task_events(call, run, begin, us)
        origin = begin + call.cycles


def _task_events(call: CallRun, run: TileRun, begin: int, us: float) -> Iterator[dict[str, Any]]:
    tasks = call_tasks(call, run.npu)
    columns = {name: tasks[name].tolist() for name in _FIELDS}
    start, end = columns["start"], columns["end"]
    sites = [op.site for op in call.table.ops]
    for engine, _ in enumerate(ENGINES):
        for t in np.flatnonzero(tasks["engine"] == engine).tolist():
            if end[t] == start[t]:
                continue
            part = PARTS[columns["part"][t]]
            args: dict[str, Any] = {"cycles": columns["cycles"][t]}
            if columns["n_bytes"][t]:
                args["bytes"] = columns["n_bytes"][t]
            if columns["col_1"][t]:
                args["columns"] = f"{columns['col_0'][t]}:{columns['col_1'][t]}"
                args["rows"] = f"{columns['row_0'][t]}:{columns['row_1'][t]}"
            name = f"{sites[columns['op'][t]]} {part}"
            yield _event(1 + engine, name, begin + start[t], begin + end[t], us, args)
    for at, used in sram_bytes(call, tasks):
        yield {
            "ph": "C", "pid": PID, "name": "SRAM", "ts": (begin + at) * us,
            "args": {"bytes": used + sum(run.pins)},
        }  # fmt: skip
    rate = run.npu.memory_bytes_per_s / 1e9
    for name, engine in (("DRAM reads", Engine.DMA_IN), ("DRAM writes", Engine.DMA_OUT)):
        for at, busy in _switches(tasks, engine):
            yield {
                "ph": "C", "pid": PID, "name": name, "ts": (begin + at) * us,
                "args": {"GB/s": rate if busy else 0},
            }  # fmt: skip


def _event(
    tid: int, name: str, start: int, end: int, us: float, args: dict[str, Any]
) -> dict[str, Any]:
    return {
        "ph": "X", "pid": PID, "tid": tid, "name": name, "ts": start * us,
        "dur": (end - start) * us,
        "args": {**args, "start_cycles": start, "end_cycles": end},
    }  # fmt: skip


def _switches(tasks: np.ndarray, engine: Engine) -> list[tuple[int, bool]]:
    """When the DMA starts and stops moving bytes one way; a port that gives way moves none."""
    moves = (tasks["engine"] == engine) & (tasks["part"] != Part.GIVE_WAY)
    moves &= tasks["end"] > tasks["start"]
    times = zip(tasks["start"][moves].tolist(), tasks["end"][moves].tolist(), strict=True)
    switches: list[tuple[int, bool]] = []
    for start, end in times:
        if switches and switches[-1][0] == start:
            switches.pop()
        else:
            switches.append((start, True))
        switches.append((end, False))
    return switches


def read_trace(path: Path) -> list[dict[str, Any]]:
    """Read the events of a trace file.

    Args:
        path: of the file.

    Returns:
        Its events, their fields of the right kinds.

    Raises:
        WorkloadError: no trace; names the event and the field.
    """
    data = read_json(path, "a Chrome trace", WorkloadError)
    events = data.get("traceEvents") if isinstance(data, dict) else data
    if not isinstance(events, list):
        raise WorkloadError(f"{path} must hold a list of events under traceEvents")
    for number, event in enumerate(events):
        _check_event(event, f"{path}: event {number}")
    return events


def _check_event(event: Any, where: str) -> None:
    """Refuse an event whose fields are not of the kinds that viewers expect."""
    if not isinstance(event, dict):
        raise WorkloadError(f"{where} must be a JSON object, got {short(event)}")
    args = event.get("args", {})
    if not isinstance(args, dict):
        raise WorkloadError(f"{where}: args must be a JSON object, got {short(args)}")
    for name in ("ph", "name"):
        if not isinstance(event.get(name, ""), str):
            raise WorkloadError(f"{where}: {name} must be a text, got {short(event[name])}")
    for name in {"X": ("ts", "dur"), "C": ("ts",)}.get(event.get("ph", ""), ()):
        TIME.check(f"{where}: {name}", event.get(name), WorkloadError)
    for name in ("pid", "tid"):
        THREAD.check(f"{where}: {name}", event.get(name, 0), WorkloadError)
    for name in ("start_cycles", "end_cycles"):
        TIME.check(f"{where}: args.{name}", args.get(name, 0), WorkloadError)
    if event.get("ph") == "C":
        for name, value in args.items():
            COUNTED.check(f"{where}: args.{name[:40]}", value, WorkloadError)
    if (event.get("ph"), event.get("name")) == ("M", "thread_name") and not isinstance(
        args.get("name"), str
    ):
        raise WorkloadError(f"{where}: args.name must be a text, got {short(args.get('name'))}")


def check_trace(events: list[dict[str, Any]]) -> list[str]:
    """Hold a trace to the rules that a viewer relies on.

    Args:
        events: of the trace, from `read_trace` or `trace_events`.

    Returns:
        What is wrong, empty if nothing is.
    """
    wrong: list[str] = []
    threads: dict[int, list[tuple[float, float, str]]] = {}
    names: dict[int, str] = {}
    counters: dict[str, float] = {}
    for event in events:
        kind, tid = event.get("ph"), event.get("tid", 0)
        if kind == "M" and event.get("name") == "thread_name":
            names[tid] = event["args"]["name"]
        elif kind == "C":
            wrong += _counted(event, counters)
        elif kind == "X":
            if not event.get("name") or event.get("dur", -1) < 0 or event.get("ts", -1) < 0:
                got = short(event)
                wrong.append(f"an event must have a name, a start and a duration, got {got}")
                continue
            threads.setdefault(tid, []).append(_span(event))
        elif kind != "M":
            wrong.append(f"an event must be X, C or M, got {short(kind)}")
    if len(set(names.values())) != len(names):
        wrong.append("every engine must have one thread")
    for tid, spans in threads.items():
        if tid not in names:
            wrong.append(f"thread {tid} must have a name")
        wrong += _nesting(names.get(tid, str(tid)), spans, flat=tid != CALLS_TID)
    return wrong


def _counted(event: dict[str, Any], counters: dict[str, float]) -> list[str]:
    """What is wrong with a counter; its time is noted."""
    wrong, at, name = [], event["ts"], event.get("name", "")
    if at < counters.get(name, 0):
        wrong.append(f"counter {name} goes back to {at}")
    counters[name] = at
    if any(value < 0 for value in event.get("args", {}).values()):
        wrong.append(f"counter {name} is negative at {at}")
    return wrong


def _span(event: dict[str, Any]) -> tuple[float, float, str]:
    """Start and end in cycles where they are given, else in nanoseconds."""
    ns = round(1000 * event["ts"]), round(1000 * (event["ts"] + event["dur"]))
    args = event.get("args", {})
    start, end = args.get("start_cycles", ns[0]), args.get("end_cycles", ns[1])
    return start, end, event["name"]


def _nesting(name: str, spans: list[tuple[float, float, str]], *, flat: bool) -> list[str]:
    wrong = []
    if flat:
        for (_, end, first), (start, _, second) in pairwise(spans):
            if start < end:
                wrong.append(f"{name}: {second} starts at {start}, before {first} ends at {end}")
        return wrong
    open_spans: list[tuple[float, float, str]] = []
    for span in sorted(spans, key=lambda s: (s[0], -s[1])):
        while open_spans and open_spans[-1][1] <= span[0]:
            open_spans.pop()
        if open_spans and span[1] > open_spans[-1][1]:
            wrong.append(f"{name}: {span[2]} ends after {open_spans[-1][2]}, which it starts in")
        open_spans.append(span)
    return wrong
