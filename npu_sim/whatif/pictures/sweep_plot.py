"""The picture of a sweep: each point is drawn, none is averaged. All times are simulated."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mu_ref.border.files import is_stream
from mu_ref.border.reading import read_csv
from mu_ref.border.text import mathless, short
from mu_ref.errors import check_choice
from npu_sim.errors import SweepError
from npu_sim.show.figure import LINES, figure, in_title, in_unit, save, show_unit
from npu_sim.whatif.metrics import METRICS
from npu_sim.whatif.varied.axes import Axis
from npu_sim.whatif.varied.sweep_toml import SweepSpec

__all__ = ["Look", "check_sweep_plot", "plot_sweep"]

MAX_PANELS = 12


class Look(NamedTuple):
    """What a picture of a sweep shows where."""

    x: str  # field along the axis; numbers
    colour: str | None  # a line for each of its values
    panels: tuple[str, ...]  # a panel for each combination of theirs
    metric: str
    drawn: tuple[str, ...]  # fields that each point draws anew: points, not lines


def check_sweep_plot(
    spec: SweepSpec,
    table: Path,
    x: str | None = None,
    colour: str | None = None,
    panels: str | None = None,
    metric: str = "latency_ms",
) -> Look:
    """Choose what the picture of a sweep shows where; refuse, before it runs, one without.

    Args:
        spec: the sweep.
        table: its CSV.
        x: field along the axis, or its last word; by default the first that has numbers.
        colour: field with a line for each value; by default the next one.
        panels: field with a panel for each value; by default all others.
        metric: what is drawn.

    Returns:
        The choice; every varied field has its place, so that no two machines are one point.

    Raises:
        SweepError: no field is a number, one is not varied, or there would be too many panels.
    """
    if is_stream(table):
        raise SweepError(f"--plot must come with a file as --out, got {table}")
    check_choice("--y", metric, METRICS, SweepError)
    axes = {axis.path: axis for axis in (*spec.grid, *spec.random)}
    wanted = {"--x": x, "--colour": colour, "--panels": panels}
    chosen = {option: _varied(option, name, axes) for option, name in wanted.items() if name}
    if len(set(chosen.values())) < len(chosen):
        raise SweepError("--x, --colour and --panels must be different fields, got one twice")
    numbers = [path for path in axes if _has_numbers(axes[path])]
    free = [path for path in numbers if path not in chosen.values()]
    along = chosen.get("--x") or (free[0] if free else next(iter(axes)))
    if along not in numbers:
        raise SweepError(
            f"--plot must have numbers along its axis, got {along}; vary a number first"
        )
    grid = [axis.path for axis in spec.grid]
    rest = [path for path in grid if path not in {along, *chosen.values()}]
    lines = chosen.get("--colour") or (rest.pop(0) if rest else None)
    cut = (*([chosen["--panels"]] if panels else []), *rest)
    n_panels = prod(len(axes[path].values) for path in cut)
    if n_panels > MAX_PANELS or not {lines, *cut} - {None} <= set(grid):
        raise SweepError(
            f"--plot must make at most {MAX_PANELS} panels, of fields under [vary], got {n_panels} "
            f"of {', '.join(cut) or lines}; vary fewer values, or choose another --x or --colour"
        )
    drawn = tuple(axis.path for axis in spec.random)
    return Look(along, lines, cut, metric, drawn)


def _varied(option: str, name: str, axes: Mapping[str, Axis]) -> str:
    """The varied field that a user means: its path, or the last words of it."""
    close = [path for path in axes if path == name or path.endswith(f".{name}")]
    if len(close) != 1:
        raise SweepError(
            f"{option} must be a field that the sweep varies ({', '.join(axes)}), got {short(name)}"
        )
    return close[0]


def _has_numbers(axis: Axis) -> bool:
    return not any(isinstance(value, str | bool) for value in axis.values)


def plot_sweep(table: Path, look: Look, out: Path, title: str = "") -> None:
    """Draw a metric of every point of a sweep; nothing is averaged.

    Args:
        table: the CSV of a sweep.
        look: what is shown where, from `check_sweep_plot`.
        out: the picture.
        title: above it: model, chip, fidelity.

    Raises:
        SweepError: no point could be simulated.
    """
    _, read = read_csv(table, "the table of a sweep", SweepError)
    rows = [row for _, row in read if row[look.metric] and _is_number(row[look.x])]
    if not rows:
        raise SweepError(f"{table} must have a point that could be simulated, all have reasons")
    cells = list(dict.fromkeys(tuple(row[path] for path in look.panels) for row in rows))
    columns = 2 if len(cells) == 4 else min(3, len(cells))
    n_rows = -(-len(cells) // columns)
    drawing, made = figure(
        7.0 if columns == 1 else 4.2 * columns, 4.4 if n_rows == 1 else 3.2 * n_rows + 0.6,
        columns, n_rows, share=True,
    )  # fmt: skip
    panels = list(np.ravel(made))
    names = list(dict.fromkeys(row[look.colour] for row in rows)) if look.colour else [""]
    shown = names
    if len(names) > len(LINES):
        ends = np.linspace(0, len(names) - 1, len(LINES))
        shown = [names[i] for i in ends.round().astype(int)]
    for panel, cell in zip(panels, cells, strict=False):
        mine = [row for row in rows if tuple(row[path] for path in look.panels) == cell]
        _draw(panel, look, mine, shown)
        _frame(panel, look, [float(row[look.x]) for row in rows], 4 if columns > 1 else 8)
        said = "\n".join(
            f"{mathless(_short(path))} = {_valued(path, value)}"
            for path, value in zip(look.panels, cell, strict=True)
        )
        panel.set_title(said, fontsize=8, loc="left")
    panels[0].set_ylim(bottom=0)  # all share it
    for panel in panels[len(cells) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(cells) - columns) : len(cells)]:
        panel.tick_params(labelbottom=True)  # also where nothing is below
    drawing.supxlabel(look.x, fontsize=10)
    drawing.supylabel(f"{look.metric}, simulated", fontsize=10)
    drawing.suptitle(title, fontsize=10)
    if look.colour is not None:
        some = "" if len(shown) == len(names) else f"\n{len(shown)} of {len(names)} values"
        handles, labels = _legend(panels[: len(cells)])
        drawing.legend(handles, labels, title=f"{_short(look.colour)}{some}", frameon=False,
                       fontsize=8, title_fontsize=8, loc="outside right center")  # fmt: skip
    save(drawing, out)


def _draw(panel: Any, look: Look, rows: Sequence[Mapping[str, str]], shown: Sequence[str]) -> None:
    """Draw the points of one panel, a line for each value of the colour."""
    for name, colour in zip(shown, LINES, strict=False):
        points = sorted(
            (float(row[look.x]), float(row[look.metric]))
            for row in rows if look.colour is None or row[look.colour] == name
        )  # fmt: skip
        if points:
            style = {"linestyle": "none"} if look.drawn else {}
            label = None if look.colour is None else _valued(look.colour, name)
            panel.plot(*zip(*points, strict=True), marker=".", color=colour, label=label, **style)


def _legend(panels: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Each line once, whichever panels have it."""
    found: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _frame(panel: Any, look: Look, values: Sequence[float], most: int) -> None:
    """Scale and ticks: units, and the varied values themselves where they are few."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(values), max(values)
    if low > 0 and high >= 10 * low:
        panel.set_xscale("log")
    ticks = sorted(set(values))
    wide = panel.get_xscale() == "log"
    gaps = np.diff(np.log(ticks) if wide else ticks)
    if 1 < len(ticks) <= most and gaps.min() > gaps.sum() / most / 1.5:
        panel.set_xticks(ticks)
        panel.set_xticks([], minor=True)
    elif not wide:
        panel.xaxis.set_major_locator(MaxNLocator(most))
    show_unit(panel.xaxis, look.x)
    show_unit(panel.yaxis, look.metric)
    if wide:
        panel.xaxis.set_minor_formatter("")
    panel.tick_params(labelsize=8)


def _short(path: str) -> str:
    """The last word of a path: titles and legends have little room."""
    return path.rpartition(".")[2]


def _valued(path: str, text: str) -> str:
    """A value with its unit and prefix, or as it stands in the table."""
    return in_unit(path, float(text)) if _is_number(text) else in_title(text, 30)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
