"""Pictures of a run: the roofline with every product, and where the time goes."""

from pathlib import Path

import numpy as np

from npu_sim.roofline.formula import LIMITS
from npu_sim.show.figure import in_title, save
from npu_sim.tile.bottleneck import row_limits
from npu_sim.tile.simulate import TileRun
from npu_sim.units import ms_from_cycles

__all__ = ["draw_breakdown", "draw_roofline"]


LIMIT_COLOURS = ("#b5413a", "#d98b5f", "#2f6db3", "#8a8a8a")


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
            (op.macs / moved, 2 * op.macs / ms_from_cycles(took, npu.clock_hz) / 1e9)
            for call in run.calls if call.table.call.phase == phase
            for op, t in zip(call.table.ops, call.times, strict=True)
            if op.macs and (moved := int(t.dram_bytes.sum())) and (took := int(t.end - t.begin))
        ]  # fmt: skip
        if points:
            x, y = np.array(points).T
            axes.scatter(x, y, s=9, alpha=0.4, color=colour, label=phase, edgecolors="none")
    axes.set_xlabel("MACs per byte of DRAM traffic")
    axes.set_ylabel("10^12 operations per second")
    axes.set_title(
        f"{in_title(run.table.program.model)} on {in_title(npu.name)}, each product (simulated);\n"
        "above the slope: weights were read ahead, during earlier operations",
        loc="left", fontsize=10,
    )  # fmt: skip
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
    axes.set_xlabel("ms")
    names_of_run = f"{in_title(run.table.program.model)} on {in_title(run.npu.name)}"
    title = f"{names_of_run}: what each kind waits for (simulated)"
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(frameon=False)
    save(figure, path)
