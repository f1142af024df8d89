"""`npu-sim` at the command line: run, hardware list, hardware show.

Exit codes: 0 done, 2 a mistake in what was asked for (one line says which), 3 a missed budget with
--strict, 130 interrupted.
"""

import json
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from mu_ref.command_line import run_app
from mu_ref.errors import MuRefError
from mu_ref.presets import preset
from npu_sim import cli_sweep
from npu_sim.errors import NpuSimError
from npu_sim.hardware import NPUS, npu
from npu_sim.hardware_files import npu_to_toml
from npu_sim.program import Precision
from npu_sim.report import BUDGET_MS, simulate_request
from npu_sim.tables import npu_list, npu_numbers, phase_table

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
cli_sweep.add_commands(app)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def main() -> NoReturn:
    """Run the program."""
    run_app(app, (MuRefError, NpuSimError))


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="Model preset, for example mu-330m.")],
    npu_name: Annotated[
        str, typer.Option("--npu", help="NPU of `npu-sim hardware list`, or FILE.toml.")
    ] = NPUS[0],
    n_input: Annotated[int, typer.Option("--input", help="Tokens read.")] = 64,
    n_output: Annotated[int, typer.Option("--output", help="Tokens written.")] = 32,
    batch: Annotated[int, typer.Option(help="Requests computed together.")] = 1,
    weight_bits: Annotated[int, typer.Option(help="Width of weights: 4, 8 or 16.")] = 8,
    activation_bits: Annotated[int, typer.Option(help="Width of activations: 8 or 16.")] = 16,
    kv_bits: Annotated[int, typer.Option(help="Width of cached keys and values.")] = 16,
    head_weight_bits: Annotated[
        int | None,
        typer.Option(help="Width of the vocabulary projection; as the weights, at least 8."),
    ] = None,
    budget_ms: Annotated[float, typer.Option(help="Latency budget of the request.")] = BUDGET_MS,
    strict: Annotated[bool, typer.Option(help="Exit with 3 if the budget is missed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Simulate one request of a model on an NPU."""
    precision = Precision(
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        kv_bits=kv_bits,
        head_weight_bits=max(weight_bits, 8) if head_weight_bits is None else head_weight_bits,
    )
    report = simulate_request(
        preset(model), npu_name, n_input, n_output, precision, batch=batch, budget_ms=budget_ms
    )
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        console = Console(highlight=False)
        console.print(
            f"{model} on {npu_name}: {n_input} tokens in, {n_output} out, {precision.label()}; "
            "every time is simulated (roofline)\n",
            soft_wrap=True,
        )
        console.print(phase_table(report))
        console.print()
        for name, value in report.summary_rows():
            console.print(f"{name:<20} {value}", soft_wrap=True)
    if strict and not report.budget.met:
        raise typer.Exit(BUDGET_MISSED)


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
