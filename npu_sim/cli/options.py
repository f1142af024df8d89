"""Options that several commands of `npu-sim` share, and how their texts are read."""

import sys
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mu_ref.border.ranges import TOKENS
from mu_ref.border.text import printable, short
from mu_ref.command_line import in_range, plain_console
from npu_sim.errors import WorkloadError
from npu_sim.program.precision import Precision
from npu_sim.show.tables import print_table
from npu_sim.units import format_exact

__all__ = [
    "ActivationBitsOption",
    "BatchOption",
    "ContextOption",
    "HeadBitsOption",
    "HfConfigOption",
    "InputOption",
    "KvBitsOption",
    "ModelJsonOption",
    "NpuOption",
    "OutputOption",
    "PlotOption",
    "RuntimeOption",
    "WeightBitsOption",
    "cycle_budgets",
    "npu_files",
    "precision_of",
    "print_rows",
    "wide_console",
]


WIDE = 160  # columns, where nobody looks at a screen

MOST_DIGITS = 18  # of cycles, which are counted in 64 bits

PlotOption = Annotated[
    Path | None, typer.Option("--plot", help="Also draw a picture: .png, .svg or .pdf.")
]

NpuOption = Annotated[
    str, typer.Option("--npu", help="NPU of `npu-sim hardware list`, or FILE.toml.")
]

WeightBitsOption = Annotated[int, typer.Option(help="Width of weights: 4, 8 or 16.")]

ActivationBitsOption = Annotated[int, typer.Option(help="Width of activations: 8 or 16.")]

KvBitsOption = Annotated[int, typer.Option(help="Width of cached keys and values.")]

ModelJsonOption = Annotated[
    str | None, typer.Option(help="FILE#name: a model of a neutral JSON file.")
]

HfConfigOption = Annotated[
    str | None, typer.Option(help="config.json of a Hugging Face model, or its folder.")
]

ContextOption = Annotated[
    int | None,
    in_range(TOKENS, "--context", help="Slots that every call processes; exact by default."),
]

RuntimeOption = Annotated[str, typer.Option(help="Who calls the graphs: native or geniex.")]

InputOption = Annotated[int, in_range(TOKENS, "--input", help="Tokens read.")]

OutputOption = Annotated[int, in_range(TOKENS, "--output", help="Tokens written.")]

BatchOption = Annotated[int, in_range(TOKENS, "--batch", help="Requests computed together.")]

HeadBitsOption = Annotated[
    int | None,
    typer.Option(help="Width of the vocabulary projection; as the weights, at least 8."),
]


def precision_of(
    weight_bits: int, activation_bits: int, kv_bits: int, head_weight_bits: int | None
) -> Precision:
    """Return the widths that the options of a command say."""
    return Precision(
        weight_bits=weight_bits, activation_bits=activation_bits, kv_bits=kv_bits,
        head_weight_bits=head_weight_bits,
    )  # fmt: skip


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


def npu_files(name: str) -> list[Path]:
    """Return the file that an NPU is read from: none for a preset."""
    return [Path(name)] if name.endswith(".toml") else []


def wide_console() -> Console:
    """Return a console that does not cut tables to 80 columns where nobody looks at a screen."""
    console = plain_console()
    if not sys.stdout.isatty():
        console.width = WIDE
    return console


def _shown(value: Any) -> str:
    """A number with its digits and a decimal prefix, or a text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return printable(str(value))
    if abs(value) < 1e6 or not isfinite(value):
        return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
    sign = "-" if value < 0 else ""
    few = float(f"{value:.4g}") if isinstance(value, float) else value
    return sign + format_exact(abs(few))


def print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    """Print a table of numbers and texts."""
    console = wide_console()
    console.print(printable(title), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    print_table(console, table)
