"""Pictures of one run: engines over time, and operations on the roofline."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mu_ref.files import written_whole
from npu_sim.hardware import Npu
from npu_sim.roofline import LIMITS
from npu_sim.tasks import ENGINES, PARTS, TASK
from npu_sim.tile import CallRun, Tasks, TileRun, call_tasks
from npu_sim.tile_phases import row_limits
from npu_sim.timeline import sram_bytes
from npu_sim.units import ms_from_cycles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_breakdown", "draw_gantt", "draw_roofline"]

COLOURS = {
    "start": "#8a8a8a", "weights": "#2f6db3", "cache": "#49a078", "activation": "#c8963e",
    "beside": "#7fa8d6", "product": "#b5413a", "unpack": "#8d5fa8", "elements": "#d98b5f",
    "write": "#3f7f7f", "give way": "#d9d9d9",
}  # fmt: skip
LIMIT_COLOURS = ("#b5413a", "#d98b5f", "#2f6db3", "#8a8a8a")


def draw_gantt(run: TileRun, path: Path, call_number: int | None = None) -> None:
    """Draw the engines over one call, and below it the same for one layer.

    Args:
        run: from `simulate_tiles`.
        path: of the picture; its ending says the format.
        call_number: which graph call; by default the last.
    """
    from matplotlib.figure import Figure

    call = run.calls[-1 if call_number is None else call_number]
    tasks = call_tasks(call, run.npu)
    begin, end, layer = _one_layer(call)
    figure = Figure(figsize=(12, 7.5), layout="constrained")
    whole, zoom, memory = figure.subplots(3, 1, height_ratios=[3, 3, 1.4])
    model, phase = run.table.program.model, call.table.call.phase
    _engines(whole, tasks, run.npu, 0, call.cycles)
    whole.set_title(f"{model} on {run.npu.name}, one {phase} call (simulated)", loc="left")
    _engines(zoom, tasks, run.npu, begin, end)
    zoom.set_title(f"{layer} of the same call", loc="left")
    _memory(memory, call, tasks, run, begin, end)
    _legend(figure, tasks)
    _save(figure, path)


def _one_layer(call: CallRun) -> tuple[int, int, str]:
    """Begin, end and name of a layer in the middle of a call, or the whole call."""
    sites = [op.site.split(".") for op in call.table.ops]
    layers = list(dict.fromkeys(f"{s[0]}.{s[1]}" for s in sites if len(s) > 3))
    if not layers:
        return 0, call.cycles, "all operations"
    name = layers[len(layers) // 2]
    rows = [i for i, s in enumerate(sites) if ".".join(s[:2]) == name]
    return int(call.times[rows[0], 0]), int(call.times[rows[-1], 1]), name


def _engines(axes: "Axes", found: Tasks, npu: Npu, begin: int, end: int) -> None:
    us = 1e6 / npu.clock_hz
    for engine in range(len(ENGINES)):
        for part, name in enumerate(PARTS):
            shown = np.flatnonzero(
                (found.tasks[:, TASK["engine"]] == engine)
                & (found.tasks[:, TASK["part"]] == part)
                & (found.end > max(begin, 0)) & (found.start < end) & (found.end > found.start)
            )  # fmt: skip
            if not len(shown):
                continue
            left = np.maximum(found.start[shown], begin)
            width = np.minimum(found.end[shown], end) - left
            bars = np.stack([(left - begin) * us, width * us], axis=1)
            axes.broken_barh(
                [(float(x), float(w)) for x, w in bars], (engine - 0.4, 0.8),
                facecolors=COLOURS[name], edgecolors=COLOURS[name], linewidth=0.4,
            )  # fmt: skip
    axes.set_yticks(range(len(ENGINES)), [name.replace("_", " ") for name in ENGINES])
    axes.invert_yaxis()
    axes.set_xlim(0, (end - begin) * us)
    axes.set_xlabel("us")


def _memory(axes: "Axes", call: CallRun, tasks: Tasks, run: TileRun, begin: int, end: int) -> None:
    us = 1e6 / run.npu.clock_hz
    points = sram_bytes(call, tasks.tasks, tasks.start, tasks.end)
    at = np.array([(t - begin) * us for t, _ in points])
    used = np.array([(n + sum(run.pins)) / 2**20 for _, n in points])
    axes.fill_between(at, used, step="post", color="#9db8d9")
    limit = run.npu.sram.capacity_bytes / 2**20
    axes.axhline(limit, color="black", linewidth=0.8, linestyle="--")
    axes.set_xlim(0, (end - begin) * us)
    axes.set_ylim(0, 1.1 * limit)
    axes.set_ylabel("SRAM, MiB")
    axes.set_xlabel("us")


def _legend(figure: Any, tasks: Tasks) -> None:
    from matplotlib.patches import Patch

    present = np.unique(tasks.tasks[:, TASK["part"]])
    patches = [Patch(color=COLOURS[PARTS[p]], label=PARTS[p]) for p in present]
    figure.legend(handles=patches, loc="outside right upper", frameon=False)


def draw_roofline(run: TileRun, path: Path) -> None:
    """Draw every operation of a run below the roofs of its chip.

    Args:
        run: from `simulate_tiles`.
        path: of the picture.
    """
    from matplotlib.figure import Figure

    npu = run.npu
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    intensity = np.logspace(-2, 5, 200)
    roofs = {"8 x 8 bits": npu.matrix.w8a8_macs_per_cycle,
             "8 x 16 bits": npu.matrix.w8a16_macs_per_cycle,
             "16 x 16 bits": npu.matrix.w16a16_macs_per_cycle}  # fmt: skip
    for (name, rate), style in zip(roofs.items(), ("-", "--", ":"), strict=True):
        roof = np.minimum(rate * npu.clock_hz, intensity * npu.memory_bytes_per_s)
        axes.loglog(intensity, 2 * roof / 1e12, style, color="black", linewidth=1, label=name)
    for phase, colour in zip(run.table.program.phases, ("#2f6db3", "#b5413a"), strict=False):
        points = [
            (op.macs / moved, 2 * op.macs / ms_from_cycles(int(t[1] - t[0]), npu.clock_hz) / 1e9)
            for call in run.calls if call.table.call.phase == phase
            for op, t in zip(call.table.ops, call.times, strict=True)
            if op.macs and (moved := int(t[7:].sum())) and t[1] > t[0]
        ]  # fmt: skip
        if points:
            x, y = np.array(points).T
            axes.scatter(x, y, s=9, alpha=0.4, color=colour, label=phase, edgecolors="none")
    axes.set_xlabel("MACs per byte of DRAM traffic")
    axes.set_ylabel("10^12 operations per second")
    axes.set_title(
        f"{run.table.program.model} on {npu.name}, each product (simulated);\n"
        "above the slope: weights were read ahead, during earlier operations",
        loc="left", fontsize=10,
    )  # fmt: skip
    axes.legend(frameon=False)
    axes.grid(alpha=0.2)
    _save(figure, path)


def draw_breakdown(run: TileRun, path: Path) -> None:
    """Draw where the time of each kind of operation goes.

    Args:
        run: from `simulate_tiles`.
        path: of the picture.
    """
    from matplotlib.figure import Figure

    found: dict[str, np.ndarray] = {}
    for call in run.calls:
        for op, limits in zip(call.table.ops, row_limits(call), strict=True):
            found[op.kind] = found.get(op.kind, np.zeros(4)) + limits
    found["calls"] = np.array([0, 0, 0, sum(c.overhead_cycles for c in run.calls)])
    names = sorted(found, key=lambda name: found[name].sum())
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(names))
    for i, limit in enumerate(LIMITS):
        width = np.array([1000 * found[name][i] / run.npu.clock_hz for name in names])
        axes.barh(names, width, left=left, color=LIMIT_COLOURS[i], label=limit)
        left += width
    axes.set_xlabel("ms")
    title = f"{run.table.program.model} on {run.npu.name}: what each kind waits for (simulated)"
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(frameon=False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    """Write a picture that appears whole or not at all."""
    with written_whole(path) as part:
        figure.savefig(part, dpi=130, format=path.suffix.removeprefix(".") or "png")
