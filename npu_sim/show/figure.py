"""What all pictures share: size, colours, and a file that appears whole or not at all."""

from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.files import write_picture
from mu_ref.border.text import mathless

__all__ = ["PALETTE", "figure", "in_title", "in_unit", "save", "show_unit"]

# Any two are told apart by everybody: at least 16 apart (CIE76 and CIEDE2000), as trichromats see
# them and as protanopes, deuteranopes and tritanopes do (Machado 2009); `test_colours.py`.
GREY, BLUE, GREEN, YELLOW, SKY, RED, PURPLE, SAND, DARK, PALE = PALETTE = (
    "#8d939b", "#1854ff", "#358b64", "#c58d1f", "#9ec7f0",
    "#bf2b1e", "#55288d", "#f7cd8a", "#1f3c42", "#d8d6d1",
)  # fmt: skip
ORANGE = YELLOW
LINES = (
    BLUE,
    YELLOW,
    RED,
    GREEN,
    PURPLE,
    SKY,
    DARK,
    GREY,
    SAND,
)  # in the order in which to use them

# the end of a name: unit, and what of it one is
UNITS = (
    ("bytes_per_s", "B/s", 1.0), ("tok_per_s", "tok/s", 1.0), ("elements_per_s", "/s", 1.0),
    ("_hz", "Hz", 1.0), ("bytes", "B", 1.0), ("_ms", "s", 1e-3), ("_us", "s", 1e-6),
    ("_bits", "bits", 1.0),
)  # fmt: skip


def in_unit(name: str, value: float) -> str:
    """Write a value with its unit and a decimal prefix: 40 GB/s, 1.5 ms.

    Args:
        name: of what it is; its end says the unit.
        value: the number.

    Returns:
        The text.
    """
    from matplotlib.ticker import EngFormatter

    unit, scale = next(((u, s) for end, u, s in UNITS if name.endswith(end)), ("", 1.0))
    if unit == "bits" or (not unit and abs(value) < 10_000):
        return f"{value:g} {unit}".strip()
    return str(EngFormatter(unit)(value * scale)).strip()


def show_unit(axis: Any, name: str) -> None:
    """Write the ticks of an axis as `in_unit` does.

    Args:
        axis: of Matplotlib.
        name: of what is drawn along it.
    """
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: in_unit(name, value)))


def in_title(name: str, most: int = 40) -> str:
    """Return a name as it stands in a title: no formula, and not wider than the picture."""
    return mathless(name if len(name) <= most else f"{name[: most - 3]}...")


def figure(
    width: float = 7.0, height: float = 4.0, columns: int = 1, rows: int = 1, *, share: bool = False
) -> tuple[Any, Any]:
    """Return a figure and its axes, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(rows, columns, sharex=share, sharey=share)
    for axis in np.ravel(axes):
        axis.spines[["top", "right"]].set_visible(False)
    return drawing, axes


def save(drawing: Any, path: Path | None) -> Any:
    """Write a figure in the format of its ending, if a path is given, and return the figure."""
    if path is not None:
        write_picture(path, drawing, dpi=130)
    return drawing
