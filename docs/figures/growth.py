"""How cost grows with what is asked: what `tests/benchmarks/growth.py` measured, and its laws."""

import csv
import re
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from npu_sim.show.figure import BLUE, DARK, GREEN, GREY, ORANGE, figure

__all__ = ["COLUMNS", "FILE", "PAGE", "growth", "law_of", "laws", "series", "with_table"]

FILE = Path(__file__).parent / "growth.csv"
PAGE = Path(__file__).parents[1] / "17_fast.md"
COLUMNS = ("grows", "executor", "n", "timed", "ms")
PANELS = {
    "input": ("input tokens", "encode"), "batch": ("batch", "step"), "layers": ("layers", "step"),
    "width": ("width d_model", "step"), "beams": ("beams", "step"), "points": ("points", "sweep"),
}  # fmt: skip
LOOKS = {"float32": (BLUE, "o-"), "w8a16": (GREEN, "v:"), "w8a8": (ORANGE, "s--"),
         "w4a16": (DARK, "^-."), "npu_sim": (BLUE, "o-")}  # fmt: skip
BLOCK = re.compile(r"(print\(laws\(\)\)\n```\n```text output\n).*?(```\n)", re.S)

Key = tuple[str, str, str]  # what grows, what is timed, who computes


def series() -> dict[Key, tuple[np.ndarray, np.ndarray]]:
    """Return {(what grows, what is timed, executor): (sizes, milliseconds)}, as in the file."""
    found: dict[Key, list[tuple[float, float]]] = {}
    with FILE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = row["grows"], row["timed"], row["executor"]
            found.setdefault(key, []).append((float(row["n"]), float(row["ms"])))
    return {key: (np.array(some)[:, 0], np.array(some)[:, 1]) for key, some in found.items()}


def law_of(n: np.ndarray, ms: np.ndarray) -> tuple[float, np.ndarray]:
    """Fit the growth of a cost.

    Args:
        n: [k] sizes, ascending.
        ms: [k] what was measured.

    Returns:
        The exponent between the last two sizes, and which shares of the last cost do not grow,
        grow as n and grow as n^2: of the sum with no negative part that is nearest, as squares of
        relative errors.
    """
    exponent = np.log(ms[-1] / ms[-2]) / np.log(n[-1] / n[-2])
    powers = np.stack([n**0, n, n**2], axis=1) / ms[:, None]  # relative: each size counts the same
    best, least = np.zeros(3), np.inf
    for size in (1, 2, 3):
        for some in map(list, combinations(range(3), size)):
            parts = np.zeros(3)
            parts[some] = np.linalg.lstsq(powers[:, some], np.ones(len(n)), rcond=None)[0]
            error = float(((powers @ parts - 1) ** 2).sum())
            if parts.min() >= 0 and error < least:
                best, least = parts, error
    shares = best * [1, n[-1], n[-1] ** 2]
    return float(exponent), shares / shares.sum()


def laws() -> str:
    """Return the table of all laws."""
    head = f"{'grows':<7}{'from, to':>14}  {'timed':<12}{'by':<8}{'ms':>8}{'to':>9}"
    lines = [head + f"{'exponent':>9}{'fixed':>6}{'n':>6}{'n^2':>6}"]
    for (grows, timed, executor), (n, ms) in series().items():
        exponent, shares = law_of(n, ms)
        lines.append(
            f"{grows:<7}{f'{n[0]:,.0f}, {n[-1]:,.0f}':>14}  {timed:<12}{executor:<8}"
            f"{_shown(ms[0]):>8}{_shown(ms[-1]):>9}{exponent:>9.2f}"
            + "".join(f"{share:>6.0%}" for share in shares)
        )
    return "\n".join(lines)


def _shown(ms: float) -> str:
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}"


def with_table(page: str) -> str:
    """Return a page with the table as it is now, where it prints it."""
    return BLOCK.sub(lambda found: f"{found[1]}{laws()}\n{found[2]}", page)


def growth() -> Figure:
    """Draw milliseconds of one core against each size, both logarithmic, beside a line as n."""
    known = series()
    drawing, panels = figure(8.0, 5.2, rows=2, columns=3)
    for axes, (grows, (label, timed)) in zip(np.ravel(panels), PANELS.items(), strict=True):
        some = [(k[2], v) for k, v in known.items() if k[:2] == (grows, timed)]
        axes.set(xscale="log", yscale="log", xlabel=label, title=f"{timed}, ms")
        for executor, (n, ms) in some:
            colour, form = LOOKS[executor]
            axes.plot(n, ms, form, color=colour, markersize=4, label=executor)
        n, ms = some[0][1]
        # from above the first curve, so that it hides none
        axes.plot(n, 1.6 * ms[0] * n / n[0], ":", color=GREY, lw=1, label="as n")
        axes.set_xticks(n[:: 1 if len(n) < 6 else 2], minor=False)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_minor_locator(NullLocator())
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
        axes.legend(frameon=False)
    return drawing
