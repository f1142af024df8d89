"""Pictures of what-ifs: a sweep, a tornado, a comparison, a search. All times are simulated."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mu_ref.border.files import is_stream
from mu_ref.border.reading import read_csv
from mu_ref.border.text import mathless
from npu_sim.errors import SweepError
from npu_sim.show.figure import BLUE, GREY, ORANGE, figure, save
from npu_sim.whatif.compare import Comparison
from npu_sim.whatif.metrics import evaluate_changed
from npu_sim.whatif.scenario import Scenario
from npu_sim.whatif.sensitivity import Swing
from npu_sim.whatif.solve import Answer
from npu_sim.whatif.varied.sweep_toml import SweepSpec

__all__ = ["check_sweep_plot", "plot_comparison", "plot_solution", "plot_sweep", "plot_tornado"]


MAX_LINES = 8


def check_sweep_plot(spec: SweepSpec, table: Path) -> None:
    """Refuse, before a sweep runs, one that has no picture.

    Args:
        spec: the sweep.
        table: its CSV.

    Raises:
        SweepError: the first varied field is no number, or the table cannot be read back.
    """
    first = next(iter((*spec.grid, *spec.random)))
    if any(isinstance(value, str | bool) for value in first.values):
        raise SweepError(
            f"--plot must have numbers along its axis, got {first.path}; vary a number first"
        )
    if is_stream(table):
        raise SweepError(f"--plot must come with a file as --out, got {table}")


def plot_sweep(table: Path, paths: Sequence[str], out: Path, metric: str = "latency_ms") -> None:
    """Draw a metric over the first varied field, one line per value of the second.

    Args:
        table: the CSV of a sweep.
        paths: what was varied.
        out: the picture.
        metric: column to draw.

    Raises:
        SweepError: no point could be simulated.
    """
    _, read = read_csv(table, "the table of a sweep", SweepError)
    rows = [row for _, row in read if row[metric]]
    if not rows:
        raise SweepError(f"{table} must have a point that could be simulated, all have reasons")
    drawing, axes = figure()
    second = paths[1] if len(paths) > 1 else None
    lines: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        line = lines.setdefault(row[second] if second else "", {})
        line.setdefault(row[paths[0]], []).append(float(row[metric]))
    shown = list(lines)
    if len(shown) > MAX_LINES:
        shown = [shown[i] for i in np.linspace(0, len(shown) - 1, MAX_LINES).round().astype(int)]
    for name in shown:
        points = sorted((float(x), float(np.median(y))) for x, y in lines[name].items()
                        if _is_number(x))  # fmt: skip
        label = None if second is None else mathless(f"{second} = {name}")
        axes.plot(*zip(*points, strict=True), marker=".", label=label)
    axes.set(xlabel=paths[0], ylabel=f"{metric}, simulated (median of the other fields)")
    values = [float(row[paths[0]]) for row in rows if _is_number(row[paths[0]])]
    if values and min(values) > 0 and max(values) >= 10 * min(values):
        axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    if second is not None:
        axes.legend(frameon=False, fontsize=8)
    save(drawing, out)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def plot_tornado(base: float, swings: Sequence[Swing], metric: str, out: Path) -> None:
    """Draw how far each field moves a metric, the largest on top.

    Args:
        base: the metric unchanged.
        swings: from `sensitivity`.
        metric: its name.
        out: the picture.
    """
    drawing, axes = figure(8.0, 0.6 + 0.34 * len(swings))
    for at, swing in enumerate(reversed(swings)):
        for value, colour in ((swing.low, BLUE), (swing.high, ORANGE)):
            if value is not None:
                axes.barh(at, value - base, left=base, color=colour, height=0.6)
    axes.axvline(base, color=GREY, linewidth=1)
    axes.set_yticks(range(len(swings)), [swing.path for swing in reversed(swings)], fontsize=8)
    axes.set(xlabel=f"{metric}, simulated; blue: smaller value of the field, orange: larger")
    save(drawing, out)


def plot_comparison(found: Comparison, names: tuple[str, str], out: Path) -> None:
    """Draw the cost of each cause in each phase, A beside B.

    Args:
        found: from `compare`.
        names: of A and B.
        out: the picture.
    """
    drawing, axes = figure(8.0, 4.0)
    costs = {key: pair for key, pair in found.costs.items() if max(pair) > 0}
    at = np.arange(len(costs))
    for side, (name, colour) in enumerate(zip(names, (BLUE, ORANGE), strict=True)):
        heights = [pair[side] for pair in costs.values()]
        axes.bar(at + (side - 0.5) * 0.4, heights, 0.38, color=colour, label=mathless(name))
    labels = [f"{phase}\n{cause}" for phase, cause in costs]
    axes.set_xticks(at, labels, fontsize=8)
    axes.set(ylabel="ms, simulated")
    axes.legend(frameon=False)
    save(drawing, out)


def plot_solution(
    scenario: Scenario, answer: Answer, out: Path, fidelity: str = "roofline"
) -> None:
    """Draw the metric over the searched field, with the target.

    Args:
        scenario: the base.
        answer: from `solve`.
        out: the picture.
        fidelity: of the search.
    """
    drawing, axes = figure()
    ends = [value for value in (answer.now, answer.needed) if value]
    values = np.geomspace(min(ends) / 4, max(ends) * 4, 25)
    whole = isinstance(scenario.paths()[answer.path], int)
    points = []
    for value in values:
        at = max(1, round(value)) if whole else float(value)
        points.append((at, evaluate_changed(scenario, {answer.path: at}, answer.metric, fidelity)))
    axes.plot(*zip(*(p for p in points if p[1] is not None), strict=True), color=BLUE)
    axes.axhline(answer.target, color=ORANGE, linestyle="--", label=f"target {answer.target:g}")
    axes.axvline(answer.now, color=GREY, label="now")
    axes.set(xlabel=answer.path, ylabel=f"{answer.metric}, simulated ({fidelity})", xscale="log")
    axes.legend(frameon=False)
    save(drawing, out)
