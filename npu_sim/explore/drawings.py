"""What the pictures of the page are drawn from: numbers and colours, as few as a screen shows.

The same data as the pictures of `npu-sim run` (`npu_sim/show/`). Chapter: `docs/whatif.md`.
"""

from collections import Counter
from typing import Any

import numpy as np

from npu_sim.hardware.chip import Npu
from npu_sim.roofline.formula import LIMITS
from npu_sim.show.figure import LINES
from npu_sim.show.gantt import COLOURS, middle_layer, shown_tasks
from npu_sim.show.pictures import LIMIT_COLOURS, breakdown, products, roofs
from npu_sim.tile.simulate import TileRun, call_tasks
from npu_sim.tile.tasks import ENGINES, PARTS
from npu_sim.units import ms_from_cycles

__all__ = ["draw_all"]

WIDE = 1200  # dots that a time line has: no eye tells nearer bars apart
DIGITS = 3  # of a point on the roofline


def draw_all(run: TileRun) -> dict[str, Any]:
    """Return the data of all pictures of a run.

    Args:
        run: from `simulate_tiles`.

    Returns:
        {picture: what is drawn}, ready for JSON.
    """
    return {"roofline": _roofline(run), "gantt": _gantt(run), "breakdown": _breakdown(run)}


def _roofline(run: TileRun) -> dict[str, Any]:
    peaks = {name: peak for name, peak in roofs(run.npu).items() if peak}
    rate, phases, above = run.npu.memory_bytes_per_s, [], 0
    for number, (phase, (points, nowhere)) in enumerate(products(run).items()):
        above += sum(y > min(2 * x * rate, max(peaks.values())) for x, y in points)
        counted = Counter((_rounded(x), _rounded(y)) for x, y in points)
        phases.append({
            "name": phase, "colour": LINES[number % len(LINES)], "without_traffic": nowhere,
            "points": [[x, y, count] for (x, y), count in counted.items()],
        })  # fmt: skip
    return {"roofs": peaks, "bytes_per_s": rate, "phases": phases, "above": above}


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _gantt(run: TileRun) -> dict[str, Any]:
    call = run.calls[-1]
    tasks = call_tasks(call, run.npu)
    begin, end, layer = middle_layer(call)
    return {
        "phase": call.table.call.phase,
        "engines": [name.replace("_", " ") for name in ENGINES],
        "parts": [{"name": name, "colour": COLOURS[name]} for name in PARTS],
        "spans": [
            {"name": f"the last {call.table.call.phase} call"}
            | _span(tasks, run.npu, 0, call.cycles),
            {"name": f"{layer} of the same call"} | _span(tasks, run.npu, begin, end),
        ],
    }


def _span(tasks: np.ndarray, npu: Npu, begin: int, end: int) -> dict[str, Any]:
    us = 1e6 / npu.clock_hz
    bars = [
        [engine, part, round(left * us, 3), round(width * us, 3)]
        for engine in range(len(ENGINES))
        for part in range(len(PARTS))
        for left, width in _merged(shown_tasks(tasks, engine, part, begin, end), end - begin)
    ]
    return {"us": (end - begin) * us, "bars": bars}


def _merged(bars: np.ndarray, span: int) -> list[tuple[int, int]]:
    """Bars with less than a dot between them as one: (left, width)."""
    bars = bars[np.argsort(bars[:, 0], kind="stable")]
    ends = np.maximum.accumulate(bars[:, 0] + bars[:, 1]) if len(bars) else bars[:, 0]
    first = np.flatnonzero(np.r_[True, bars[1:, 0] - ends[:-1] >= span / WIDE][: len(bars)])
    last = np.r_[first[1:], len(bars)] - 1 if len(first) else first
    left = bars[first, 0]
    return list(zip(left.tolist(), (ends[last] - left).tolist(), strict=True))


def _breakdown(run: TileRun) -> dict[str, Any]:
    kinds = [
        {"name": kind, "ms": [ms_from_cycles(n, run.npu.clock_hz) for n in cycles.tolist()]}
        for kind, cycles in breakdown(run).items()
    ]
    causes = [
        {"name": limit, "colour": colour}
        for limit, colour in zip(LIMITS, LIMIT_COLOURS, strict=True)
    ]
    return {"causes": causes, "kinds": kinds[::-1]}  # the longest first
