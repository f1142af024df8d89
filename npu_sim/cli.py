"""`npu-sim` at the command line: run, explain, check-trace, speculate, systolic, hardware.

Exit codes: 0 done, 2 a mistake in what was asked for (one line says which), 3 a missed budget with
--strict, 130 interrupted.
"""

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from mu_ref.command_line import run_app
from mu_ref.errors import MuRefError
from npu_sim import cli_forecast, cli_sweep
from npu_sim.cli_explain import check_trace_file, explain
from npu_sim.cli_speculate import speculate
from npu_sim.cli_systolic import systolic
from npu_sim.errors import NpuSimError
from npu_sim.hardware import NPUS, RUNTIMES, npu
from npu_sim.hardware_files import npu_to_toml
from npu_sim.models import described_program
from npu_sim.options import (
    ActivationBitsOption,
    ContextOption,
    HeadBitsOption,
    HfConfigOption,
    JsonOption,
    KvBitsOption,
    ModelJsonOption,
    NpuOption,
    RuntimeOption,
    WeightBitsOption,
    cycle_budgets,
    precision_of,
)
from npu_sim.outputs import write_files
from npu_sim.report import BUDGET_MS, Report, simulate
from npu_sim.scenario_file import named_description
from npu_sim.tables import npu_list, npu_numbers, phase_table, share_table

__all__ = ["app", "main"]

BUDGET_MISSED = 3

app = typer.Typer(
    help="Simulate what a neural processing unit would take for a language model's request.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
hardware_app = typer.Typer(help="The NPUs and where their numbers come from.", no_args_is_help=True)
app.add_typer(hardware_app, name="hardware")
app.command()(explain)
app.command("check-trace")(check_trace_file)
app.command()(speculate)
app.command()(systolic)
cli_sweep.add_commands(app)
cli_forecast.add_commands(app)


def main() -> NoReturn:
    """Run the program."""
    run_app(app, (MuRefError, NpuSimError))


@app.command()
def run(
    model: Annotated[
        str | None, typer.Argument(help="Model preset, for example mu-330m; or one of the next.")
    ] = None,
    model_json: ModelJsonOption = None,
    hf_config: HfConfigOption = None,
    npu_name: NpuOption = NPUS[0],
    n_input: Annotated[int, typer.Option("--input", help="Tokens read.")] = 64,
    n_output: Annotated[int, typer.Option("--output", help="Tokens written.")] = 32,
    batch: Annotated[int, typer.Option(help="Requests computed together.")] = 1,
    context: ContextOption = None,
    runtime: RuntimeOption = RUNTIMES[0],
    weight_bits: WeightBitsOption = 8,
    activation_bits: ActivationBitsOption = 16,
    kv_bits: KvBitsOption = 16,
    head_weight_bits: HeadBitsOption = None,
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
    precision = precision_of(weight_bits, activation_bits, kv_bits, head_weight_bits)
    cycles = cycle_budgets(phase_budgets or [])
    program = described_program(
        named_description(model, model_json, hf_config), n_input, n_output, precision, batch,
        static_context=context, runtime=runtime,
    )  # fmt: skip
    report = simulate(
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


@hardware_app.command("list")
def list_hardware(as_json: JsonOption = False) -> None:
    """List the NPUs."""
    if as_json:
        typer.echo(json.dumps(list(NPUS)))
    else:
        Console(highlight=False).print(npu_list())


@hardware_app.command("show")
def show_hardware(
    name: Annotated[str, typer.Argument(help="NPU of `npu-sim hardware list`, or FILE.toml.")],
    as_json: JsonOption = False,
    as_toml: Annotated[
        bool, typer.Option("--toml", help="Print a file that --npu reads; change what you like.")
    ] = False,
) -> None:
    """Show every value of an NPU with its source."""
    chip = npu(name)
    if as_toml:
        typer.echo(npu_to_toml(chip), nl=False)
    elif as_json:
        numbers = {
            path: {"value": value, "source": chip.sources[path]}
            for path, value in chip.values().items()
        }
        typer.echo(json.dumps({"name": name, "title": chip.title, "numbers": numbers}, indent=2))
    else:
        console = Console(highlight=False)
        console.print(f"{name}: {chip.title}\n", soft_wrap=True)
        console.print(npu_numbers(chip))
