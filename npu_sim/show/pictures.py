"""Pictures of a run: the roofline with every product, and where the time goes."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npu_sim.hardware.chip import Npu
from npu_sim.roofline.formula import LIMITS
from npu_sim.show.figure import BLUE, GREY, LINES, PURPLE, SAND, in_title, save, show_unit
from npu_sim.tile.bottleneck import row_limits
from npu_sim.tile.simulate import TileRun
from npu_sim.units import ms_from_cycles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LIMIT_COLOURS", "breakdown", "draw_breakdown", "draw_roofline", "products", "roofs"]


LIMIT_COLOURS = (PURPLE, SAND, BLUE, GREY)


def draw_roofline(run: TileRun, path: Path | None) -> "Figure":
    """Draw every operation of a run below the roofs of its chip.

    Args:
        run: from `simulate_tiles`.
        path: of the picture; None writes nothing.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    npu = run.npu
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    intensity = np.logspace(-2, 5, 200)
    for (name, peak), style in zip(roofs(npu).items(), ("-", "--", ":"), strict=True):
        if peak:  # a chip without it has no such roof
            roof = np.minimum(peak, 2 * intensity * npu.memory_bytes_per_s)
            axes.loglog(intensity, roof, style, color="black", linewidth=1, label=f"peak of {name}")
    above = left_out = 0
    for number, (phase, (points, nowhere)) in enumerate(products(run).items()):
        left_out += nowhere
        if points:
            x, y = np.array(points).T
            above += int((y > 2 * x * npu.memory_bytes_per_s).sum())
            colour = LINES[number % len(LINES)]
            axes.scatter(x, y, s=9, alpha=0.6, color=colour, label=phase, edgecolors="none")
    axes.set_xlabel("MACs per byte of DRAM traffic")
    axes.set_ylabel("operations per second (two per MAC)")
    show_unit(axes.yaxis, "")
    title = f"{in_title(run.table.program.model)} on {in_title(npu.name)}, simulated (tile)"
    notes = ["a point is a product of one call"]
    if above:
        notes.append(f"{above:,} above the slope: weights came during earlier operations")
    if left_out:
        notes.append(f"{left_out:,} without DRAM traffic have no place")
    axes.set_title("\n".join([title, *notes]), loc="left", fontsize=9)
    axes.legend(frameon=False)
    axes.grid(alpha=0.2)
    return save(figure, path)


def roofs(npu: Npu) -> dict[str, float]:
    """Return peak operations per second by the widths of the operands; 0: it has no such engine."""
    rates = {"8 x 8 bits": npu.matrix.w8a8_macs_per_cycle,
             "8 x 16 bits": npu.matrix.w8a16_macs_per_cycle,
             "16 x 16 bits": npu.matrix.w16a16_macs_per_cycle}  # fmt: skip
    return {name: 2 * rate * npu.clock_hz for name, rate in rates.items()}


def products(run: TileRun) -> dict[str, tuple[list[tuple[float, float]], int]]:
    """Return where every product of a run lies on the roofline.

    Args:
        run: from `simulate_tiles`.

    Returns:
        {phase: (points, how many have no place since they move nothing)}; a point is MACs per byte
        of DRAM traffic, and operations per second.
    """
    found = {}
    for phase in run.table.program.phases:
        of_phase = [
            (op.macs, moved, took)
            for call in run.calls if call.table.call.phase == phase
            for op, moved, took in zip(
                call.table.ops, call.times["dram_bytes"].sum(axis=1).tolist(),
                (call.times["end"] - call.times["begin"]).tolist(), strict=True,
            ) if op.macs
        ]  # fmt: skip
        points = [
            (macs / moved, 2 * macs / ms_from_cycles(took, run.npu.clock_hz) * 1000)
            for macs, moved, took in of_phase if moved and took
        ]  # fmt: skip
        found[phase] = points, len(of_phase) - len(points)
    return found


def breakdown(run: TileRun) -> dict[str, np.ndarray]:
    """Return what each kind of operation waits for.

    Args:
        run: from `simulate_tiles`.

    Returns:
        {kind: [4] cycles in the order of `LIMITS`}, the shortest first; "calls": their overheads.
    """
    found: dict[str, np.ndarray] = {}
    for call in run.calls:
        for op, limits in zip(call.table.ops, row_limits(call), strict=True):
            found[op.kind] = found.get(op.kind, np.zeros(4)) + limits
    found["calls"] = np.array([0, 0, 0, sum(c.overhead_cycles for c in run.calls)])
    return dict(sorted(found.items(), key=lambda item: item[1].sum()))


def draw_breakdown(run: TileRun, path: Path | None) -> "Figure":
    """Draw where the time of each kind of operation goes.

    Args:
        run: from `simulate_tiles`.
        path: of the picture; None writes nothing.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    found = breakdown(run)
    names = list(found)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(names))
    for i, limit in enumerate(LIMITS):
        width = np.array([1000 * found[name][i] / run.npu.clock_hz for name in names])
        axes.barh(names, width, left=left, color=LIMIT_COLOURS[i], label=limit)
        left += width
    show_unit(axes.xaxis, "time_ms")
    names_of_run = f"{in_title(run.table.program.model)} on {in_title(run.npu.name)}"
    title = f"{names_of_run}: what each kind waits for, simulated (tile)"
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(frameon=False)
    return save(figure, path)
