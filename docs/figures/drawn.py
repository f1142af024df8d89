"""What a figure shows, as numbers and texts; they travel in the picture itself.

A picture's bytes depend on the versions of Matplotlib and its fonts, the numbers do not. So a
picture is compared by its size and by these.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import Collection, PathCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text

from mu_ref.border.files import write_picture

__all__ = ["DPI", "differences", "drawn", "read", "size", "write"]

DPI = 150
SAMPLE = 24  # numbers kept of a long list, beside its length and mean


def drawn(figure: Figure) -> dict[str, Any]:
    """Return what a figure shows.

    Args:
        figure: drawn.

    Returns:
        {"size": pixels, "axes": a list of {"texts", "lines", "points", "shapes", "images"}}; long
        lists of numbers are [how many, mean, some of them].
    """
    return {"size": list(size(figure)), "axes": [_axes(axes) for axes in figure.axes]}


def size(figure: Figure) -> tuple[int, int]:
    """Width and height of its picture in pixels."""
    width, height = (round(float(inches) * DPI) for inches in figure.get_size_inches())
    return width, height


def _axes(axes: Any) -> dict[str, Any]:
    kept = [child for child in axes.get_children() if child.get_visible()]
    texts = [t.get_text() for t in kept if isinstance(t, Text) and t.get_text()]
    if axes.get_legend():
        texts += [t.get_text() for t in axes.get_legend().get_texts()]
    outlines = [p for p in kept if isinstance(p, Patch) and p is not axes.patch and _has_outline(p)]
    return {
        "texts": [*texts, axes.get_xlabel(), axes.get_ylabel()],
        "lines": [_short(line.get_xydata()) for line in kept if isinstance(line, Line2D)],
        "points": [_short(c.get_offsets()) for c in kept if isinstance(c, PathCollection)],
        "shapes": [*map(_short, _outlines(outlines)), *(
            _short(np.concatenate([p.vertices for p in c.get_paths()]))
            for c in kept
            if isinstance(c, Collection) and not isinstance(c, PathCollection) and c.get_paths()
        )],
        "images": [_short(i.get_array()) for i in kept if isinstance(i, AxesImage)],
    }  # fmt: skip


def _has_outline(patch: Patch) -> bool:
    return isinstance(patch, Rectangle) or type(patch).__name__ in ("Circle", "Wedge", "Polygon")


def _outlines(patches: list[Patch]) -> Iterator[Any]:
    """All rectangles of an axes are one list; other outlines stand alone."""
    boxes = [p.get_bbox().bounds for p in patches if isinstance(p, Rectangle)]
    if boxes:
        yield boxes
    for patch in patches:
        if not isinstance(patch, Rectangle):
            yield patch.get_path().transformed(patch.get_patch_transform()).vertices


def _short(numbers: Any) -> list[Any]:
    flat = np.ma.filled(np.ma.asarray(numbers, np.float64), np.nan).ravel()
    if not len(flat):
        return [0]
    some = np.unique(np.linspace(0, len(flat) - 1, min(SAMPLE, len(flat))).round().astype(int))
    return [len(flat), _number(float(np.nanmean(flat))), *(_number(float(x)) for x in flat[some])]


def _number(x: float) -> float | None:
    return float(f"{x:.5g}") if np.isfinite(x) else None


def differences(there: Any, now: Any, place: str = "") -> list[str]:
    """Compare what two figures show.

    Args:
        there: what a picture carries.
        now: from `drawn`.
        place: within them.

    Returns:
        A line for each difference; numbers may differ by a thousandth, since a last digit of a
        float is another one on another machine.
    """
    if isinstance(now, dict) and isinstance(there, dict):
        return [d for key in now for d in differences(there.get(key), now[key], f"{place}.{key}")]
    if isinstance(now, list) and isinstance(there, list) and len(now) == len(there):
        pairs = enumerate(zip(there, now, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{place}[{i}]")]
    numbers = isinstance(now, float | int) and isinstance(there, float | int)
    if numbers and abs(there - now) <= 1e-3 * max(abs(there), abs(now)) + 1e-9:
        return []
    return [] if there == now else [f"{place}: {there!r} is now {now!r}"]


def write(figure: Figure, path: Path) -> None:
    """Write a picture with what it shows.

    Args:
        figure: drawn.
        path: of the .png.
    """
    text = json.dumps(drawn(figure), separators=(",", ":"), ensure_ascii=True)
    write_picture(path, figure, DPI, {"Description": text, "Software": None})


def read(path: Path) -> tuple[dict[str, Any], tuple[int, int]]:
    """Return what a picture carries, and its size in pixels."""
    from PIL import Image

    with Image.open(path) as image:
        return json.loads(image.info["Description"]), image.size
