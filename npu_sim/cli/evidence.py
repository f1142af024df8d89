"""`npu-sim` commands that set predictions beside measurements: validate, headline."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from mu_ref.border.files import check_outputs
from mu_ref.border.ranges import BEAMS
from mu_ref.border.text import json_text, printable, short
from mu_ref.command_line import JsonOption, plain_console
from npu_sim.cli.options import PlotOption, wide_console
from npu_sim.errors import SweepError
from npu_sim.evidence.cases import check_one_release, read_cases
from npu_sim.models.neutral_json import read_models
from npu_sim.show.tables import print_table

if TYPE_CHECKING:
    from npu_sim.evidence.validate import Validation

__all__ = ["show_headline", "show_validation"]


def show_validation(
    cases: Annotated[Path, typer.Argument(help="CSV of measured calls, see docs/validation.md.")],
    models: Annotated[Path, typer.Option(help="JSON of their models.")],
    npu_name: Annotated[
        str | None, typer.Option("--npu", help="Simulate this NPU instead of each row's own.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write the rows.")] = None,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict measured graph calls (tile fidelity) and show the errors.

    Example: npu-sim validate cases.csv --models models.json
    """
    from npu_sim.evidence.validate import validate, write_rows

    read = read_cases(cases)
    check_one_release(read)
    chips = {case.npu for case in read} if npu_name is None else {npu_name}
    described = [name for name in chips if name.endswith(".toml")]
    check_outputs({"--csv": csv}, [cases, models, *described], pictures={"--plot": plot})
    found = validate(read, read_models(models), npu_name)
    if csv is not None:
        write_rows(found, csv)
    if plot is not None:
        from npu_sim.evidence.plots import plot_validation

        plot_validation(found, plot)
    if as_json:
        typer.echo(json_text(found.to_json(), indent=2))
    else:
        _print_validation(found)


def _print_validation(found: "Validation") -> None:
    console = wide_console()
    table = Table(box=None, pad_edge=False)
    table.add_column("case", no_wrap=True)
    for header in ("npu", "phase", "widths"):
        table.add_column(header)
    for header in ("measured ms", "simulated ms", "80 % of calls", "error", "bare roofline"):
        table.add_column(header, justify="right")
    for row in found.rows:
        table.add_row(
            printable(row.case.name), printable(row.npu), row.case.phase, row.case.label,
            f"{row.measured_ms:.3f}", f"{row.predicted_ms:.3f}",
            "" if row.low_ms is None else f"{row.low_ms:.3f} to {row.high_ms:.3f}",
            f"{row.error:+.1%}", f"{row.roofline_error:+.1%}",
        )  # fmt: skip
    print_table(console, table)
    total = found.to_json()
    console.print(
        f"\nmean absolute error {total['mape']:.1%}, median {total['median_ape']:.1%}, "
        f"largest {total['max_ape']:.1%} over {total['n']} calls; "
        f"bare roofline {total['roofline_mape']:.1%}",
        soft_wrap=True,
    )
    if found.coverage is not None:
        console.print(f"{found.coverage:.0%} of the calls lie where 80 % of such calls should")
    for name, groups in found.groupings().items():
        texts = [
            f"{printable(group)} {e['mape']:.1%} (median {e['median_ape']:.1%}, {e['n']:.0f})"
            for group, e in groups.items()
        ]
        console.print(f"by {name}: {'; '.join(texts)}", soft_wrap=True)


def show_headline(
    tokens: Annotated[
        list[str] | None,
        typer.Option(help="WIDTH=TOKENS per step of a drafter for Mu, as measured; repeatable."),
    ] = None,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set simulated beside published figures of Mu and ReDrafter; none of them is in a fit.

    Example: npu-sim headline --tokens 4=2.7
    """
    from npu_sim.evidence.headline.figures import MEASURED_TOKENS, N_PARTS, headline
    from npu_sim.evidence.headline.tables import print_headline

    given = MEASURED_TOKENS if tokens is None else _tokens(tokens)
    check_outputs({}, pictures={"--plot": plot})
    with Progress(console=plain_console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("headline", total=N_PARTS)
        found = headline(given, lambda: bar.advance(task))
    if plot is not None:
        from npu_sim.evidence.plots import plot_headline

        plot_headline(found, plot)
    if as_json:
        typer.echo(json_text(found.to_json(), indent=2))
    else:
        print_headline(found, wide_console())


def _tokens(texts: list[str]) -> dict[int, float]:
    """Read texts such as "4=2.7": beam width and tokens per step, each width once."""
    from npu_sim.evidence.headline.figures import KEPT

    found: dict[int, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            width, tokens = int(name), float(number)
        except ValueError as error:
            raise SweepError(
                f"--tokens must be WIDTH=TOKENS, such as 4=2.7; got {short(text)}"
            ) from error
        if width in found:
            raise SweepError(f"--tokens must name each width once, got {width} twice")
        BEAMS.check("--tokens: WIDTH", width, SweepError)
        found[width] = KEPT.check(f"--tokens: TOKENS of width {width}", tokens, SweepError)
    return found
