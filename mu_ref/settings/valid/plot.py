"""Draw how far the agent's probabilities can be relied on."""

from pathlib import Path

from mu_ref.border.files import write_picture
from mu_ref.settings.valid.score import Doubt

__all__ = ["plot_reliability"]


def plot_reliability(doubt: Doubt, path: Path) -> None:
    """Draw exact match over probability, and how many queries stand behind each point.

    Args:
        doubt: of an evaluation.
        path: .png or .svg to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color="0.6", lw=1, label="perfectly calibrated")
    filled = [one for one in doubt.bins if one[0]]
    axes.plot([p for _, p, _ in filled], [exact for *_, exact in filled], "o-", label="agent")
    for n, p, exact in filled:
        axes.annotate(f"{n}", (p, exact), textcoords="offset points", xytext=(4, -12), fontsize=7)
    axes.set_xlabel("probability that the agent gives its call")
    axes.set_ylabel("share of calls that are right")
    axes.set_title(f"{sum(one[0] for one in filled)} queries, mean distance {doubt.off:.3f}",
                   fontsize=10)  # fmt: skip
    axes.legend(fontsize=8)
    write_picture(path, figure, 110)
