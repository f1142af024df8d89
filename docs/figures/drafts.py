"""Drafting: the first tree of the README's query, and what was measured of longer drafts."""

import re
from pathlib import Path

from matplotlib.figure import Figure

from docs.figures.model import QUERY
from mu_ref.executors import shipped_drafter
from mu_ref.redrafter.draw import plot_tree
from mu_ref.settings.agent import load_agent
from mu_ref.settings.drafts import first_tree
from npu_sim.show.figure import BLUE, DARK, GREY, YELLOW, figure

__all__ = ["draft_sweep", "draft_tree"]

HEAD = "| beam width | draft length | tokens per step | cap |"


def draft_tree() -> Figure:
    """Draw the tree, the path that Mu accepted, and who sees whom."""
    from mu_ref.redrafter.beams import Search

    agent = load_agent(drafter=shipped_drafter("float32"), search=Search(beam_width=4, draft_len=6))
    drafted, beams, kept = first_tree(agent, QUERY)

    def named(token: int) -> str:
        return agent.tokenizer.decode([token]).strip() or "end"

    return plot_tree(drafted, beams, kept, None, named)


def draft_sweep() -> Figure:
    """Draw the measured table of the chapter: tokens per step, and how many times as fast."""
    rows = _measured()
    drawing, (steps, speed) = figure(8.0, 3.2, columns=2)
    lengths = sorted({row[1] for row in rows})
    caps = {row[1]: row[3] for row in rows}
    steps.plot(lengths, [caps[n] for n in lengths], "--", color=GREY, label="if all were right")
    looks = {1: (BLUE, "o-"), 2: (YELLOW, "s:"), 4: (DARK, "^-.")}
    for width, (colour, form) in looks.items():
        line = [row for row in rows if row[0] == width]
        for axes, column in ((steps, 2), (speed, -1)):
            axes.plot([row[1] for row in line], [row[column] for row in line], form, color=colour,
                      label=f"beam width {width}")  # fmt: skip
    speed.axhline(1, color=GREY, linewidth=1, linestyle="--")
    for axes, label in ((steps, "tokens per step"), (speed, "times as fast as plain decoding")):
        axes.set(xlabel="draft length (drafted tokens)", ylabel=label)
        axes.set_xticks(lengths)
        axes.set_ylim(0, 1.45 * axes.get_ylim()[1] if axes is speed else None)
        axes.legend(frameon=False, ncols=1 if axes is steps else 2)
    return drawing


def _measured() -> list[tuple[float, ...]]:
    """Rows of the table, wherever its chapter lies: it was measured, and is nowhere else."""
    for page in sorted(Path(__file__).parents[1].glob("*.md")):
        _, head, rest = page.read_text(encoding="utf-8").partition(HEAD)
        if head:
            lines = rest.split("\n\n", 1)[0].splitlines()[2:]
            return [tuple(float(n) for n in re.findall(r"\| ([\d.]+)(?: %)?(?=[ ,])", line))
                    for line in lines]  # fmt: skip
    raise ValueError(f"no page has the table {HEAD}")
