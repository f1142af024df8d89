"""`npu-sim run`: one request of a model on an NPU, and the files that show it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mu_ref.border.files import check_outputs
from mu_ref.border.ranges import TOKENS
from mu_ref.border.text import json_text, printable
from mu_ref.command_line import BUDGET_MISSED, JsonOption, in_range, plain_console
from mu_ref.errors import check_choice
from npu_sim.cli import options
from npu_sim.errors import CapacityError, UnsupportedError, WorkloadError
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.presets import NPUS, npu
from npu_sim.models.find import model_files, named_description
from npu_sim.program.description import Description
from npu_sim.program.program import RUNTIMES, Program
from npu_sim.program.request import described_program
from npu_sim.report.facts import misfit_json, model_facts
from npu_sim.report.fidelity import BUDGET, BUDGET_MS, FIDELITIES, simulate_program
from npu_sim.report.report import Report, tile_run
from npu_sim.show.csv_file import write_csv
from npu_sim.show.tables import phase_table, share_table

__all__ = ["run", "write_files"]


WrittenOption = Annotated[
    int | None, in_range(TOKENS, "--output", help="Tokens written, 32 by default.")
]

CachedBitsOption = Annotated[
    int | None, typer.Option(help="Width of cached keys and values, 16 by default.")
]

BudgetMsOption = Annotated[
    float, in_range(BUDGET, "--budget-ms", help="Latency budget of the request.")
]

BudgetMbOption = Annotated[
    float | None,
    in_range(BUDGET, "--budget-mb", help="Budget of weights and cache in DRAM, 10^6 bytes."),
]

PhaseBudgetOption = Annotated[
    list[str] | None,
    typer.Option("--phase-budget", help="Cycles that a phase may take: encode=9000000."),
]


def run(
    model: Annotated[
        str | None, typer.Argument(help="Model preset, for example mu-330m; or one of the next.")
    ] = None,
    model_json: options.ModelJsonOption = None,
    hf_config: options.HfConfigOption = None,
    npu_name: options.NpuOption = NPUS[0],
    n_input: options.InputOption = 64,
    n_output: WrittenOption = None,
    batch: options.BatchOption = 1,
    context: options.ContextOption = None,
    runtime: options.RuntimeOption = RUNTIMES[0],
    weight_bits: options.WeightBitsOption = 8,
    activation_bits: options.ActivationBitsOption = 16,
    kv_bits: CachedBitsOption = None,
    head_weight_bits: options.HeadBitsOption = None,
    fidelity: Annotated[
        str, typer.Option(help="tile (engines wait for each other) or roofline (a bound).")
    ] = "tile",
    budget_ms: BudgetMsOption = BUDGET_MS,
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
    as_json: JsonOption = False,
) -> None:
    """Simulate one request of a model on an NPU."""
    tables = {"--trace": trace, "--csv": csv}
    pictures = {"--gantt": gantt, "--plot-roofline": plot_roofline,
                "--plot-breakdown": plot_breakdown}  # fmt: skip
    read = [*options.npu_files(npu_name), *model_files(model_json, hf_config)]
    check_outputs(tables, read, pictures=pictures, prints_json=as_json)
    _check_shown(tables | pictures, by, fidelity)
    cycles = options.cycle_budgets(phase_budgets or [])
    precision = options.precision_of(weight_bits, activation_bits, kv_bits or 16, head_weight_bits)
    chip, description = npu(npu_name), named_description(model, model_json, hf_config)
    _check_written(description, n_output, kv_bits)
    program = described_program(
        description, n_input, n_output or 32, precision, batch,
        static_context=context, runtime=runtime,
    )  # fmt: skip
    facts = model_facts(description, precision)
    with _told(program, chip, fidelity, facts, as_json):
        report = simulate_program(
            program, chip, budget_ms, budget_mb=budget_mb, fidelity=fidelity, cycle_budgets=cycles
        )
    write_files(report, trace, gantt, csv, plot_roofline, plot_breakdown)
    if as_json:
        typer.echo(json_text(report.to_json() | facts | _shares(report, by), indent=2))
    else:
        _show(report, by)
    if strict and not report.budgets_met:
        raise typer.Exit(BUDGET_MISSED)


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


def _check_written(description: Description, n_output: int | None, kv_bits: int | None) -> None:
    """Refuse options about tokens that a model does not write."""
    for option, value in (("--output", n_output), ("--kv-bits", kv_bits)):
        if value is not None and description.model.decoder is None:
            raise WorkloadError(
                f"{option} must be left out for {description.name}, which reads and writes no "
                f"tokens, got {value}"
            )


def _shares(report: Report, by: str | None) -> dict[str, Any]:
    if by is None:
        return {}
    from npu_sim.report.shares import shares

    found = shares(tile_run(report, "a division"), by)
    return {"by": by, "shares": [asdict(share) for share in found]}


def _show(report: Report, by: str | None) -> None:
    program = report.program
    divided = None if by is None else share_table(report, by)
    console = plain_console()
    console.print(
        f"{printable(program.model)} on {printable(report.npu.name)}: {program.n_input} tokens in, "
        f"{program.n_output} out, {program.precision.label()}; every time is simulated "
        f"({report.fidelity})\n",
        soft_wrap=True,
    )
    console.print(phase_table(report))
    console.print()
    for name, value in report.summary_rows():
        console.print(f"{name:<20} {value}", soft_wrap=True)
    if divided is not None:
        console.print()
        console.print(divided)


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
