"""Every figure of the pages: one function, and one command that makes its picture.

    python -m docs.figures                    all of them, into docs/figures/
    python -m docs.figures gantt rotation     some of them
    python -m docs.figures --check            compare with the pictures that are there

A picture carries the numbers that it shows (`docs/figures/drawn.py`). `tests/test_figures.py` draws
each figure again and compares them: a picture that no longer shows what the code computes fails.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "FOLDER", "draw", "picture"]

FOLDER = Path(__file__).parent
STYLE: dict[Any, Any] = {
    "font.size": 9.0, "axes.titlesize": 9.5, "axes.labelsize": 9.0, "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "figure.titlesize": 10.5,
    "hatch.linewidth": 0.6, "axes.titlelocation": "left",
}  # fmt: skip

# {name: where its function of that name lives}, in the order of the chapters
FIGURES = {
    "executors": "plans",
    "architecture": "plans",
    "attention": "model",
    "rotation": "model",
    "cache": "model",
    "training": "learning",
    "mu_nano": "learning",
    "ablations": "learning",
    "roofline": "machine",
    "int8_line": "integers",
    "int8_error": "integers",
    "int8_sites": "integers",
    "draft_tree": "drafts",
    "draft_sweep": "drafts",
    "growth": "growth",
    "gantt": "machine",
    "latency": "machine",
    "systolic": "systolic",
    "systolic_use": "systolic",
    "causes": "evidence",
    "validation": "evidence",
    "gemms": "evidence",
}


def draw(name: str) -> "Figure":
    """Draw a figure.

    Args:
        name: one of `FIGURES`.

    Returns:
        It, 8 inches wide: on a page of 800 pixels a point of its text is 1.4 pixels high.
    """
    from matplotlib import rc_context

    function: Callable[[], Figure] = getattr(import_module(f"docs.figures.{FIGURES[name]}"), name)
    with rc_context(STYLE):
        return function()


def picture(name: str) -> Path:
    """Return where the picture of a figure lies."""
    return FOLDER / f"{name}.png"
