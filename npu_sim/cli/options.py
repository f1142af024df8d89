"""Options that several commands of `npu-sim` share, and how their texts are read."""

import sys
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mu_ref.border.text import printable, short
from mu_ref.command_line import plain_console
from npu_sim.errors import WorkloadError
from npu_sim.hardware.units import with_unit
from npu_sim.show.tables import print_table
from npu_sim.units import format_exact

__all__ = ["PlotOption", "cycle_budgets", "print_rows", "wide_console"]


WIDE = 160  # columns, where nobody looks at a screen

OF_FIELD = ("low_value", "high_value", "A", "B")  # columns that hold values of a field
MOST_DIGITS = 18  # of cycles, which are counted in 64 bits

PlotOption = Annotated[
    Path | None, typer.Option("--plot", help="Also draw a picture: .png, .svg or .pdf.")
]


def cycle_budgets(texts: list[str]) -> dict[str, int]:
    """Read budgets such as "encode=9000000".

    Args:
        texts: from the command line.

    Returns:
        {phase: cycles}.

    Raises:
        WorkloadError: not of that form, or a phase stands twice.
    """
    budgets = {}
    for text in texts:
        phase, _, cycles = text.partition("=")
        if not phase or not (cycles.isascii() and cycles.isdigit()) or len(cycles) > MOST_DIGITS:
            raise WorkloadError(
                f"a phase budget must have the form PHASE=CYCLES, with at most {MOST_DIGITS} "
                f"digits, got {short(text)}; for example decode=200000000"
            )
        if phase in budgets:
            raise WorkloadError(f"a phase must have one budget, got two of {short(phase)}")
        budgets[phase] = int(cycles)
    return budgets


def wide_console() -> Console:
    """Return a console that does not cut tables to 80 columns where nobody looks at a screen."""
    console = plain_console()
    if not sys.stdout.isatty():
        console.width = WIDE
    return console


def print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    """Print a table of numbers and texts."""
    console = wide_console()
    console.print(printable(title), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        path = str(row.get("field", ""))
        table.add_row(*(_shown(v, path if name in OF_FIELD else "") for name, v in row.items()))
    print_table(console, table)


def _shown(value: Any, path: str) -> str:
    """A value of an NPU with its unit, a number with its digits and a decimal prefix, or a text."""
    if path.startswith("npu.") and not isinstance(value, str | None):
        return with_unit(path, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return printable(str(value))
    if abs(value) < 1e6 or not isfinite(value):
        return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
    sign = "-" if value < 0 else ""
    few = float(f"{value:.4g}") if isinstance(value, float) else value
    return sign + format_exact(abs(few))
