"""`npu-sim run`: one request of a model on an NPU, and the files that show it."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mu_ref.command_line import JsonOption
from npu_sim.cli import options
from npu_sim.errors import WorkloadError
from npu_sim.hardware.presets import NPUS, npu
from npu_sim.models.find import named_description
from npu_sim.program.program import RUNTIMES
from npu_sim.program.request import described_program
from npu_sim.report.fidelity import BUDGET_MS, simulate_program
from npu_sim.report.report import Report, tile_run
from npu_sim.show.csv_file import write_csv
from npu_sim.show.tables import phase_table, share_table

__all__ = ["run", "write_files"]


BUDGET_MISSED = 3

PICTURES = (".png", ".svg", ".pdf")


def run(
    model: Annotated[
        str | None, typer.Argument(help="Model preset, for example mu-330m; or one of the next.")
    ] = None,
    model_json: options.ModelJsonOption = None,
    hf_config: options.HfConfigOption = None,
    npu_name: options.NpuOption = NPUS[0],
    n_input: Annotated[int, typer.Option("--input", help="Tokens read.")] = 64,
    n_output: Annotated[int, typer.Option("--output", help="Tokens written.")] = 32,
    batch: Annotated[int, typer.Option(help="Requests computed together.")] = 1,
    context: options.ContextOption = None,
    runtime: options.RuntimeOption = RUNTIMES[0],
    weight_bits: options.WeightBitsOption = 8,
    activation_bits: options.ActivationBitsOption = 16,
    kv_bits: options.KvBitsOption = 16,
    head_weight_bits: options.HeadBitsOption = None,
    fidelity: Annotated[
        str, typer.Option(help="tile (engines wait for each other) or roofline (a bound).")
    ] = "tile",
    budget_ms: Annotated[float, typer.Option(help="Latency budget of the request.")] = BUDGET_MS,
    budget_mb: Annotated[
        float | None, typer.Option(help="Budget of weights and cache in DRAM, 10^6 bytes.")
    ] = None,
    phase_budgets: Annotated[
        list[str] | None,
        typer.Option("--phase-budget", help="Cycles that a phase may take: encode=9000000."),
    ] = None,
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
    precision = options.precision_of(weight_bits, activation_bits, kv_bits, head_weight_bits)
    cycles = options.cycle_budgets(phase_budgets or [])
    program = described_program(
        named_description(model, model_json, hf_config), n_input, n_output, precision, batch,
        static_context=context, runtime=runtime,
    )  # fmt: skip
    report = simulate_program(
        program, npu(npu_name), budget_ms, budget_mb=budget_mb, fidelity=fidelity,
        cycle_budgets=cycles,
    )  # fmt: skip
    write_files(report, trace, gantt, csv, plot_roofline, plot_breakdown)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        _show(report, by)
    if strict and not report.budgets_met:
        raise typer.Exit(BUDGET_MISSED)


def _show(report: Report, by: str | None) -> None:
    program = report.program
    divided = None if by is None else share_table(report, by)
    console = Console(highlight=False)
    console.print(
        f"{program.model} on {report.npu.name}: {program.n_input} tokens in, {program.n_output} "
        f"out, {program.precision.label()}; every time is simulated ({report.fidelity})\n",
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
        WorkloadError: the report is a roofline's, or a picture has an unknown ending.
    """
    for picture in (gantt, roofline, breakdown):
        if picture is not None and picture.suffix not in PICTURES:
            raise WorkloadError(
                f"a picture must end in one of {', '.join(PICTURES)}, got {picture.name}"
            )
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
