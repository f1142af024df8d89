"""Pictures of what-ifs: a tornado, a comparison, a search. All times are simulated."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from npu_sim.show.figure import (
    BLUE,
    GREY,
    ORANGE,
    figure,
    in_title,
    in_unit,
    save,
    show_unit,
)  # fmt: skip
from npu_sim.whatif.compare import Comparison
from npu_sim.whatif.metrics import evaluate_changed
from npu_sim.whatif.scenario import Scenario
from npu_sim.whatif.sensitivity import Swing
from npu_sim.whatif.solve import Answer

__all__ = ["picture_title", "plot_comparison", "plot_solution", "plot_tornado"]


def picture_title(scenario: Scenario, fidelity: str) -> str:
    """What every picture of a what-if says: model, chip, fidelity."""
    model, chip = in_title(scenario.description.name), in_title(scenario.npu.name)
    # in two lines where one would be wider than the smallest picture
    broken = "\n" if len(model) + len(chip) > 50 else " "
    return f"{model} on{broken}{chip}, simulated ({fidelity})"


def plot_tornado(
    base: float, swings: Sequence[Swing], metric: str, out: Path, title: str = ""
) -> None:
    """Draw how far each field moves a metric, the largest on top.

    Args:
        base: the metric unchanged.
        swings: from `sensitivity`.
        metric: its name.
        out: the picture.
        title: above it: model, chip, fidelity.
    """
    drawing, axes = figure(8.0, 0.6 + 0.34 * len(swings))
    for at, swing in enumerate(reversed(swings)):
        for value, colour in ((swing.low, BLUE), (swing.high, ORANGE)):
            if value is not None:
                axes.barh(at, value - base, left=base, color=colour, height=0.6)
    axes.axvline(base, color=GREY, linewidth=1)
    axes.set_yticks(range(len(swings)), [swing.path for swing in reversed(swings)], fontsize=8)
    show_unit(axes.xaxis, metric)
    axes.set(xlabel=f"{metric}, simulated; blue: smaller value of the field, ochre: larger")
    drawing.suptitle(title, fontsize=10)
    save(drawing, out)


def plot_comparison(found: Comparison, names: tuple[str, str], out: Path, title: str = "") -> None:
    """Draw the cost of each cause in each phase, A beside B.

    Args:
        found: from `compare`.
        names: of A and B.
        out: the picture.
        title: above it.
    """
    drawing, axes = figure(8.0, 4.0)
    costs = {key: pair for key, pair in found.costs.items() if max(pair) > 0}
    at = np.arange(len(costs))
    for side, (name, colour) in enumerate(zip(names, (BLUE, ORANGE), strict=True)):
        heights = [pair[side] for pair in costs.values()]
        axes.bar(at + (side - 0.5) * 0.4, heights, 0.38, color=colour, label=in_title(name))
    labels = [f"{phase}\n{cause}" for phase, cause in costs]
    axes.set_xticks(at, labels, fontsize=8)
    axes.set(ylabel="time, simulated (roofline)")
    show_unit(axes.yaxis, "time_ms")
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False)
    save(drawing, out)


def plot_solution(
    scenario: Scenario, answer: Answer, out: Path, fidelity: str = "roofline", title: str = ""
) -> None:
    """Draw the metric over the searched field, with the target.

    Args:
        scenario: the base.
        answer: from `solve`.
        out: the picture.
        fidelity: of the search.
        title: above it: model, chip, fidelity.
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
    target = in_unit(answer.metric, answer.target)
    axes.axhline(answer.target, color=ORANGE, linestyle="--", label=f"target {target}")
    axes.axvline(answer.now, color=GREY, label=f"now {in_unit(answer.path, answer.now)}")
    axes.set(xlabel=answer.path, ylabel=f"{answer.metric}, simulated ({fidelity})", xscale="log")
    show_unit(axes.xaxis, answer.path)
    show_unit(axes.yaxis, answer.metric)
    axes.xaxis.set_minor_formatter("")
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False)
    save(drawing, out)
