"""What a reader can see of a figure: letters at 800 pixels, colours without colour, no overlaps."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from npu_sim.show.figure import PALETTE

__all__ = ["hard_to_read", "lightness", "overlaps"]

WIDTH = 8.0  # inches, shown on 800 pixels
LEAST_POINTS = 7.9  # 11 pixels at 800
COLOURS = (*PALETTE, "#000000")  # `tests/npu_sim/test_colours.py` says who tells them apart
LEAST_STEP = 9.0  # between two greys of a legend, of 100


def lightness(colour: Any) -> float:
    """Return CIE L* of a colour, 0 to 100: what is left of it in greyscale."""
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
    )
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return float(116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y)


def hard_to_read(figure: Figure) -> list[str]:
    """Return what a reader at 800 pixels, or without colours, could not read.

    Args:
        figure: drawn.

    Returns:
        A line for each fault: a width, small letters, a colour of a legend that not everybody tells
        from the others, two entries of a legend that are one grey and one form.
    """
    faults = []
    if abs(figure.get_figwidth() - WIDTH) > 1e-6:
        faults.append(f"is {figure.get_figwidth():g} inches wide, not {WIDTH:g}")
    faults += [
        f"{text.get_text()!r} has {text.get_fontsize():g} points"
        for text in figure.findobj(Text)
        if text.get_visible()
        and text.get_text().strip()
        and float(text.get_fontsize()) < LEAST_POINTS
    ]
    legends = [legend for legend in figure.findobj(Legend) if legend.get_visible()]
    for legend in legends:
        names = [text.get_text() for text in legend.get_texts()]
        looks = [(name, *_look(h)) for name, h in zip(names, legend.legend_handles, strict=True)]
        faults += [f"{a!r} is no colour of the palette" for a, c, _ in looks if c not in COLOURS]
        for (a, colour_a, form_a), (b, colour_b, form_b) in combinations(looks, 2):
            if a.partition(":")[0] != b.partition(":")[0] and ":" in a:
                continue  # "row: what": they stand in rows of their own, which have names
            greys = lightness(colour_a), lightness(colour_b)
            if form_a == form_b and abs(greys[0] - greys[1]) < LEAST_STEP:
                faults.append(f"{a!r} and {b!r} are one grey ({greys[0]:.0f}, {greys[1]:.0f})")
    return faults


def _look(handle: Any) -> tuple[str, tuple[Any, ...]]:
    """The colour of an entry of a legend, and its form."""
    if hasattr(handle, "get_linestyle") and hasattr(handle, "get_marker"):
        return to_hex(handle.get_color()), (handle.get_linestyle(), handle.get_marker())
    colour = handle.get_facecolor()
    colour = colour[0] if getattr(colour, "ndim", 1) > 1 else colour
    paths = handle.get_paths() if hasattr(handle, "get_paths") else ()
    return to_hex(colour[:3]), (handle.get_hatch(), *(len(p.vertices) for p in paths))


def overlaps(figure: Figure) -> list[str]:
    """Return pairs of texts that lie on each other, and texts that leave the picture.

    Args:
        figure: drawn.

    Returns:
        A line for each.
    """
    FigureCanvasAgg(figure).draw()
    hidden = {id(text) for text in _not_drawn(figure)}
    shown = [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible()
        and text.get_text().strip()
        and id(text) not in hidden
        and text.get_rotation() % 90 == 0  # of others the box is not the text
    ]
    faults = [
        f"{a!r} lies on {b!r}"
        for (a, box_a), (b, box_b) in combinations(shown, 2)
        if box_a.shrunk(0.94, 0.8).overlaps(box_b.shrunk(0.94, 0.8))
    ]
    width, height = figure.bbox.size
    faults += [
        f"{name!r} leaves the picture"
        for name, box in shown
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]
    return faults


def _not_drawn(figure: Figure) -> Iterator[Text]:
    """Labels of ticks outside an axis' limits, and of hidden axes: Matplotlib keeps them."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            on_paper = axis.get_transform().transform
            low, high = sorted(on_paper(axis.get_view_interval()))
            slack = 1e-6 * (high - low)
            if not axes.axison:
                yield axis.label
            for tick in (*axis.majorTicks, *axis.minorTicks):
                if not (axes.axison and low - slack <= on_paper(tick.get_loc()) <= high + slack):
                    yield from (tick.label1, tick.label2)
