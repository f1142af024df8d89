"""Drawings of a tree of drafts, as text and as a picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mu_ref.border.files import write_picture
from mu_ref.border.text import mathless, printable
from mu_ref.redrafter.tree import Tree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_tree", "tree_text"]

Name = Callable[[int], str]

GREEN, GREY, BLUE = "#2a7f3f", "#8a8a8a", "#2b5c9e"


def tree_text(
    tree: Tree, beams: np.ndarray, kept: Sequence[int] = (), name: Name = str, row: int = 0
) -> str:
    """Draw the tree of one row, a node a line, children below and to the right.

    Args:
        tree: of the beams.
        beams: [batch, beam_width, n] int.
        kept: nodes of the accepted path, marked with a star.
        name: turns a token into text.
        row: of the batch.

    Returns:
        Lines of "number  tree  token".
    """
    parents = _parents(tree, row)
    tokens = tree.packed(beams)[row]
    children = _children(parents)
    lines: list[str] = []

    def add(node: int, indent: str, branch: str) -> None:
        star = " *" if node in kept else ""
        lines.append(f"{node:>3}  {indent}{branch}{printable(name(int(tokens[node])))}{star}")
        below = children.get(node, [])
        # below a last child there is nothing left to connect, so its line ends
        deeper = indent + {"├─ ": "│  ", "└─ ": "   ", "": ""}[branch]
        for child in below:
            add(child, deeper, "└─ " if child == below[-1] else "├─ ")

    for root in children[-1]:
        add(root, "", "")
    return "\n".join(lines)


def plot_tree(
    tree: Tree,
    beams: np.ndarray,
    kept: Sequence[int],
    path: Path | None,
    name: Name = str,
    title: str = "",
    row: int = 0,
) -> "Figure":
    """Draw the tree of one row beside its attention mask, the accepted path in green.

    Args:
        tree: of the beams.
        beams: [batch, beam_width, n] int.
        kept: nodes of the accepted path.
        path: .png, .svg or .pdf to write; None writes nothing.
        name: turns a token into text.
        title: above the tree.
        row: of the batch.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    parents, tokens = _parents(tree, row), tree.packed(beams)[row]
    depths, heights = tree.depths[row], _heights(parents)
    figure = Figure(figsize=(8, 1.6 + 0.13 * len(parents)), layout="constrained")
    axes, mask = figure.subplots(1, 2, width_ratios=[2, 1])
    for node, parent in enumerate(parents):
        color = GREEN if node in kept else GREY
        if parent >= 0:
            axes.plot(
                [depths[parent], depths[node]], [heights[parent], heights[node]],
                color=color, lw=2 if node in kept else 1, zorder=1,
            )  # fmt: skip
        axes.text(
            depths[node], heights[node], f"{node}: {mathless(name(int(tokens[node])))}",
            ha="center", va="center", fontsize=8, zorder=2,
            bbox={"boxstyle": "round", "fc": "white", "ec": color, "lw": 2 if node in kept else 1},
        )  # fmt: skip
    axes.set_xlim(-0.5, depths[: len(parents)].max() + 0.5)
    axes.set_ylim(min(heights) - 0.6, max(heights) + 0.6)
    axes.invert_yaxis()  # the likeliest beam on top, as in the text
    axes.set_axis_off()
    axes.set_title(mathless(title) or "tree of drafts; accepted path thick", fontsize=10)
    n = len(parents)
    mask.imshow(tree.sees[row, :n, :n], cmap="Greys", vmin=0, vmax=1.4)
    some = range(0, n, 1 if n < 10 else 5)
    mask.set_xticks(some, some, fontsize=8)
    mask.set_yticks(some, some, fontsize=8)
    mask.set_title("who (row) sees whom", fontsize=10)
    if path is not None:
        write_picture(path, figure, 150)
    return figure


def _parents(tree: Tree, row: int) -> list[int]:
    """For each node the deepest other node that it sees; -1 for a root."""
    n = int(tree.n_nodes[row])
    depths, sees = tree.depths[row], tree.sees[row, :n, :n]
    # What a node sees beside itself are its ancestors.
    above = [
        [other for other in range(n) if other != node and sees[node, other]] for node in range(n)
    ]
    return [max(nodes, key=lambda other: depths[other]) if nodes else -1 for nodes in above]


def _children(parents: Sequence[int]) -> dict[int, list[int]]:
    """For each node that has any, and for -1, the nodes right below it."""
    return {p: [c for c, parent in enumerate(parents) if parent == p] for p in parents}


def _heights(parents: Sequence[int]) -> list[float]:
    """Leaves stand one below the other, a parent in the middle of its children."""
    children = _children(parents)
    heights = [0.0] * len(parents)
    n_leaves = 0

    def place(node: int) -> None:
        nonlocal n_leaves
        below = children.get(node, [])
        for child in below:
            place(child)
        if below:
            heights[node] = (heights[below[0]] + heights[below[-1]]) / 2
        else:
            heights[node] = n_leaves  # a leaf takes the next line
            n_leaves += 1

    for root in children[-1]:
        place(root)
    return heights
