"""Pictures of a run: the roofline with every product, and where the time goes."""

from pathlib import Path

import numpy as np

from npu_sim.roofline.formula import LIMITS
from npu_sim.show.figure import BLUE, GREY, LINES, RED, SAND, in_title, save, show_unit
from npu_sim.tile.bottleneck import row_limits
from npu_sim.tile.simulate import TileRun
from npu_sim.units import ms_from_cycles

__all__ = ["draw_breakdown", "draw_roofline"]


LIMIT_COLOURS = (RED, SAND, BLUE, GREY)


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
        if rate:  # a chip without it has no such roof
            roof = np.minimum(rate * npu.clock_hz, intensity * npu.memory_bytes_per_s)
            axes.loglog(intensity, 2 * roof, style, color="black", linewidth=1,
                        label=f"peak of {name}")  # fmt: skip
    above = left_out = 0
    for number, phase in enumerate(run.table.program.phases):
        products = [
            (op.macs, int(t.dram_bytes.sum()), int(t.end - t.begin))
            for call in run.calls if call.table.call.phase == phase
            for op, t in zip(call.table.ops, call.times, strict=True) if op.macs
        ]  # fmt: skip
        points = [
            (macs / moved, 2 * macs / ms_from_cycles(took, npu.clock_hz) * 1000)
            for macs, moved, took in products if moved and took
        ]  # fmt: skip
        left_out += len(products) - len(points)
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
    save(figure, path)


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
    show_unit(axes.xaxis, "time_ms")
    names_of_run = f"{in_title(run.table.program.model)} on {in_title(run.npu.name)}"
    title = f"{names_of_run}: what each kind waits for, simulated (tile)"
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(frameon=False)
    save(figure, path)
