"""Pictures of one run: engines over time, and operations on the roofline."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npu_sim.hardware.chip import Npu
from npu_sim.show.figure import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    PALE,
    PURPLE,
    RED,
    SAND,
    SKY,
    YELLOW,
    in_title,
    save,
    show_unit,
)  # fmt: skip
from npu_sim.show.sram import sram_bytes
from npu_sim.tile.simulate import CallRun, TileRun, call_tasks
from npu_sim.tile.tasks import ENGINES, PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "draw_gantt", "middle_layer", "shown_tasks"]


# those of one engine, which stand in one row, are different greys as well
COLOURS = {
    "start": GREY, "weights": BLUE, "cache": YELLOW, "activation": SKY, "beside": DARK,
    "product": RED, "unpack": PURPLE, "elements": SAND, "write": GREEN, "give way": PALE,
}  # fmt: skip


def draw_gantt(run: TileRun, path: Path | None, call_number: int | None = None) -> "Figure":
    """Draw the engines over one call, and below it the same for one layer.

    Args:
        run: from `simulate_tiles`.
        path: of the picture; its ending says the format; None writes nothing.
        call_number: which graph call; by default the last.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    call = run.calls[-1 if call_number is None else call_number]
    tasks = call_tasks(call, run.npu)
    begin, end, layer = middle_layer(call)
    figure = Figure(figsize=(8, 7), layout="constrained")
    whole, zoom, memory = figure.subplots(3, 1, height_ratios=[3, 3, 1.4])
    model, phase = run.table.program.model, call.table.call.phase
    _engines(whole, tasks, run.npu, 0, call.cycles)
    where = f"{in_title(model)} on {in_title(run.npu.name)}"
    whole.set_title(f"{where}, one {phase} call, simulated (tile)", loc="left")
    _engines(zoom, tasks, run.npu, begin, end)
    zoom.set_title(f"{layer} of the same call", loc="left")
    _memory(memory, call, tasks, run, begin, end)
    _legend(figure, tasks)
    return save(figure, path)


def middle_layer(call: CallRun) -> tuple[int, int, str]:
    """Return begin, end and name of a layer in the middle of a call, or the whole call."""
    sites = [op.site.split(".") for op in call.table.ops]
    layers = list(dict.fromkeys(f"{s[0]}.{s[1]}" for s in sites if len(s) > 3))
    if not layers:
        return 0, call.cycles, "all operations"
    name = layers[len(layers) // 2]
    rows = [i for i, s in enumerate(sites) if ".".join(s[:2]) == name]
    return int(call.times[rows[0]].begin), int(call.times[rows[-1]].end), name


def _engines(axes: "Axes", tasks: np.ndarray, npu: Npu, begin: int, end: int) -> None:
    us = 1e6 / npu.clock_hz
    for engine in range(len(ENGINES)):
        for part, name in enumerate(PARTS):
            shown = shown_tasks(tasks, engine, part, begin, end)
            if not len(shown):
                continue
            bars = shown * us
            axes.broken_barh(
                [(float(x), float(w)) for x, w in bars], (engine - 0.4, 0.8),
                facecolors=COLOURS[name], edgecolors=COLOURS[name], linewidth=0.4,
            )  # fmt: skip
    axes.set_yticks(range(len(ENGINES)), [name.replace("_", " ") for name in ENGINES])
    axes.invert_yaxis()
    axes.set_xlim(0, (end - begin) * us)
    show_unit(axes.xaxis, "time_us")


def shown_tasks(tasks: np.ndarray, engine: int, part: int, begin: int, end: int) -> np.ndarray:
    """Return where the tasks of one kind lie between two cycles.

    Args:
        tasks: of a call.
        engine: index into `ENGINES`.
        part: index into `PARTS`.
        begin: first cycle shown.
        end: cycle behind the last.

    Returns:
        [n, 2] int64: cycles from `begin` to where a task starts, and how many it takes.
    """
    shown = np.flatnonzero(
        (tasks["engine"] == engine)
        & (tasks["part"] == part)
        & (tasks["end"] > max(begin, 0)) & (tasks["start"] < end)
        & (tasks["end"] > tasks["start"])
    )  # fmt: skip
    left = np.maximum(tasks["start"][shown], begin)
    return np.stack([left - begin, np.minimum(tasks["end"][shown], end) - left], axis=1)


def _memory(
    axes: "Axes", call: CallRun, tasks: np.ndarray, run: TileRun, begin: int, end: int
) -> None:
    us = 1e6 / run.npu.clock_hz
    points = sram_bytes(call, tasks)
    at = np.array([(t - begin) * us for t, _ in points])
    used = np.array([(n + sum(run.pins)) / 2**20 for _, n in points])
    axes.fill_between(at, used, step="post", color=SKY)
    limit = run.npu.sram.capacity_bytes / 2**20
    axes.axhline(limit, color="black", linewidth=0.8, linestyle="--")
    axes.set_xlim(0, (end - begin) * us)
    axes.set_ylim(0, 1.1 * limit)
    axes.set_ylabel("SRAM, MiB")
    axes.set_title("SRAM in use, and its capacity (dashed)", loc="left")
    show_unit(axes.xaxis, "time_us")


def _legend(figure: Any, tasks: np.ndarray) -> None:
    from matplotlib.patches import Patch

    present = np.unique(tasks[["engine", "part"]][tasks["end"] > tasks["start"]])
    patches = [
        Patch(color=COLOURS[PARTS[p]], label=f"{ENGINES[e].replace('_', ' ')}: {PARTS[p]}")
        for e, p in present.tolist()
    ]
    figure.legend(handles=patches, loc="outside lower center", frameon=False, ncols=4)
