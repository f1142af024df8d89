"""`npu-sim run`: one request of a model on an NPU, and the files that show it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mu_ref.border.files import check_outputs
from mu_ref.border.text import json_text, printable
from mu_ref.command_line import BUDGET_MISSED, JsonOption, in_range, plain_console
from mu_ref.errors import check_choice
from npu_sim.cli import options
from npu_sim.cli.question import Asked, ModelArgument, asks, named_files, question
from npu_sim.errors import CapacityError, UnsupportedError, WorkloadError
from npu_sim.hardware.chip import Npu
from npu_sim.program.program import Program
from npu_sim.report.expected import expected_range
from npu_sim.report.facts import misfit_json, model_facts
from npu_sim.report.fidelity import BUDGET, FIDELITIES, simulate_program
from npu_sim.report.report import Report, tile_run
from npu_sim.show.csv_file import write_csv
from npu_sim.show.tables import phase_table, print_table, share_table
from npu_sim.whatif.request import later_tokens, scenario_program

__all__ = ["run", "write_files"]


BudgetMsOption = Annotated[
    float | None,
    in_range(BUDGET, "--budget-ms", help="Latency budget of the request, 500 by default."),
]

BudgetMbOption = Annotated[
    float | None,
    in_range(BUDGET, "--budget-mb", help="Budget of weights and cache in DRAM, 10^6 bytes."),
]

PhaseBudgetOption = Annotated[
    list[str] | None,
    typer.Option("--phase-budget", help="Cycles that a phase may take: encode=9000000."),
]


@asks()
def run(
    model: ModelArgument = None,
    budget_ms: BudgetMsOption = None,
    budget_mb: BudgetMbOption = None,
    phase_budgets: PhaseBudgetOption = None,
    strict: Annotated[bool, typer.Option(help="Exit with 3 if a budget is missed.")] = False,
    trace: Annotated[Path | None, typer.Option(help="Chrome trace to write (Perfetto).")] = None,
    gantt: Annotated[Path | None, typer.Option(help="Picture of the last call to write.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Table of all operations to write.")] = None,
    plot_roofline: Annotated[Path | None, typer.Option(help="Roofline picture to write.")] = None,
    plot_breakdown: Annotated[Path | None, typer.Option(help="Where time goes, to write.")] = None,
    by: Annotated[
        str | None, typer.Option(help="Also list the time of each layer, kind or site.")
    ] = None,
    *,
    asked: Asked,
    as_json: JsonOption = False,
) -> None:
    """Simulate one request of a model on an NPU.

    Example: npu-sim run mu-330m --input 128 --set npu.dma.bytes_per_s="100 GB/s"
    """
    tables = {"--trace": trace, "--csv": csv}
    pictures = {"--gantt": gantt, "--plot-roofline": plot_roofline,
                "--plot-breakdown": plot_breakdown}  # fmt: skip
    check_outputs(tables, named_files(model, asked), pictures=pictures, prints_json=as_json)
    what = question(model, asked)
    check_outputs(tables, what.files, pictures=pictures, prints_json=as_json)
    _check_shown(tables | pictures, by, what.fidelity)
    cycles = options.cycle_budgets(phase_budgets or [])
    scenario = what.scenario
    program, workload = scenario_program(scenario), scenario.workload
    facts = model_facts(scenario.description, scenario.precision, workload.batch)
    with _told(program, scenario.npu, what.fidelity, what.notes() | facts, as_json):
        report = simulate_program(
            program, scenario.npu, workload.budget_ms if budget_ms is None else budget_ms,
            budget_mb=budget_mb, fidelity=what.fidelity, cycle_budgets=cycles,
            n_tokens=1 + later_tokens(scenario),
        )  # fmt: skip
    write_files(report, trace, gantt, csv, plot_roofline, plot_breakdown)
    if as_json:
        data = report.to_json() | what.notes() | facts | _shares(report, by)
        low_ms, high_ms = expected_range(report) or (None, None)
        data |= {"low_ms": low_ms, "high_ms": high_ms}
        typer.echo(json_text(data, indent=2))
    else:
        _show(report, by, what.title)
        typer.echo("{:<20} {}".format("measured calls", _believed(report)))
        if "experts" in facts:
            typer.echo(
                "{:<20} {expected_per_step:.2f} of {stored} are expected to be read in a "
                "decode step, {per_token} for each token".format("experts", **facts["experts"])
            )
    if strict and not report.budgets_met:
        raise typer.Exit(BUDGET_MISSED)


def _believed(report: Report) -> str:
    found = expected_range(report)
    if found is None:
        return "not validated: none was measured on this NPU as it is, or not in this way"
    low, high = found
    return f"{low:.3g} to {high:.3g} ms: 80 % of calls like these"


@contextmanager
def _told(
    program: Program, chip: Npu, fidelity: str, facts: dict[str, Any], as_json: bool
) -> Iterator[None]:
    """Print what can be said of a request without a time where the chip cannot run it."""
    try:
        yield
    except (CapacityError, UnsupportedError) as error:
        if as_json:
            typer.echo(json_text(misfit_json(program, chip, fidelity, error) | facts, indent=2))
        raise


def _check_shown(outputs: dict[str, Path | None], by: str | None, fidelity: str) -> None:
    """Refuse, before the work, what could not be shown after it."""
    check_choice("fidelity", fidelity, FIDELITIES, WorkloadError)
    if by is not None:
        from npu_sim.report.shares import DIVISIONS

        check_choice("by", by, DIVISIONS, WorkloadError)
    asked = [option for option, value in (outputs | {"--by": by}).items() if value is not None]
    if asked and fidelity != "tile":
        raise WorkloadError(
            f"{asked[0]} must be asked of a run at tile fidelity, got {fidelity}; "
            "leave out --fidelity"
        )


def _shares(report: Report, by: str | None) -> dict[str, Any]:
    if by is None:
        return {}
    from npu_sim.report.shares import shares

    found = shares(tile_run(report, "a division"), by)
    return {"by": by, "shares": [asdict(share) for share in found]}


def _show(report: Report, by: str | None, title: str) -> None:
    divided = None if by is None else share_table(report, by)
    console = plain_console()
    console.print(
        f"{printable(title)}; every time is simulated ({report.fidelity})\n",
        soft_wrap=True,
    )
    print_table(console, phase_table(report))
    console.print()
    for name, value in report.summary_rows():
        console.print(f"{name:<20} {value}", soft_wrap=True)
    if divided is not None:
        console.print()
        print_table(console, divided)


def write_files(
    report: Report,
    trace: Path | None,
    gantt: Path | None,
    csv_file: Path | None,
    roofline: Path | None,
    breakdown: Path | None,
) -> None:
    """Write what was asked for.

    Args:
        report: at `tile` fidelity, unless nothing is asked for.
        trace: Chrome trace JSON.
        gantt: picture of the last call.
        csv_file: table of all operations.
        roofline: picture of all products.
        breakdown: picture of where the time goes.

    Raises:
        WorkloadError: the report is a roofline's.
    """
    if trace is not None:
        from npu_sim.show.trace import write_trace

        write_trace(tile_run(report, "a trace"), trace)
    if csv_file is not None:
        write_csv(report, csv_file)
    if gantt is not None or roofline is not None or breakdown is not None:
        from npu_sim.show.gantt import draw_gantt
        from npu_sim.show.pictures import draw_breakdown, draw_roofline

        for draw, path in (
            (draw_gantt, gantt), (draw_roofline, roofline), (draw_breakdown, breakdown),
        ):  # fmt: skip
            if path is not None:
                draw(tile_run(report, "a picture"), path)
