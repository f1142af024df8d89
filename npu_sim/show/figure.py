"""What all pictures share: size, colours, and a file that appears whole or not at all."""

from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.files import written_whole

__all__ = ["figure", "save"]


BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#718096"


def _save(figure: Any, path: Path) -> None:
    """Write a picture that appears whole or not at all."""
    with written_whole(path) as part:
        figure.savefig(part, dpi=130, format=path.suffix.removeprefix(".") or "png")


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
    _save(drawing, path)
