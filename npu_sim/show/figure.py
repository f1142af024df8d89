"""What all pictures share: size, colours, and a file that appears whole or not at all."""

from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.files import write_picture
from mu_ref.border.text import mathless

__all__ = ["figure", "in_title", "save"]


BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#718096"


def in_title(name: str) -> str:
    """Return a name as it stands in a title: no formula, and not wider than the picture."""
    return mathless(name if len(name) <= 40 else f"{name[:37]}...")


def figure(width: float = 7.0, height: float = 4.0, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure and its axes, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(1, columns)
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
    return drawing, axes


def save(drawing: Any, path: Path) -> None:
    """Write a figure in the format of its ending; it appears whole or not at all."""
    write_picture(path, drawing, dpi=130)
