"""`npu-sim` at the command line: which command is which function.

Exit codes: 0 done; 1 a comparison found a difference (`systolic`: with the numbers of a file, or
with the matrix product); 2 a mistake in what was asked for, or in a file that is read, a trace that
breaks the rules of viewers too (one line says which); 3 a missed budget with --strict; 130
interrupted.
"""

import gc
from typing import NoReturn

import typer

from mu_ref.command_line import run_app
from npu_sim.cli.calibrate import show_calibration
from npu_sim.cli.evidence import show_headline, show_validation
from npu_sim.cli.explain import check_trace_file, explain
from npu_sim.cli.explore import explore as explore_page
from npu_sim.cli.hardware import compare_hardware, list_hardware, show_hardware
from npu_sim.cli.run import run
from npu_sim.cli.speculate import speculate
from npu_sim.cli.sweep import sweep
from npu_sim.cli.systolic import systolic
from npu_sim.cli.whatif import show_comparison, show_sensitivity, show_solution

__all__ = ["app", "main"]

app = typer.Typer(
    help="Simulate what a neural processing unit would take for a language model's request.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
hardware_app = typer.Typer(help="The NPUs and where their numbers come from.", no_args_is_help=True)
hardware_app.command("list")(list_hardware)
hardware_app.command("show")(show_hardware)
hardware_app.command("compare")(compare_hardware)
app.add_typer(hardware_app, name="hardware")
app.command()(explain)
app.command("explore")(explore_page)
app.command("check-trace")(check_trace_file)
app.command()(speculate)
app.command()(systolic)
app.command()(sweep)
app.command("sensitivity")(show_sensitivity)
app.command("compare")(show_comparison)
app.command("solve")(show_solution)
app.command("validate")(show_validation)
app.command("calibrate")(show_calibration)
app.command("headline")(show_headline)
app.command()(run)


def main() -> NoReturn:
    """Run the program."""
    # a recording is many small objects that hold no circles: looking for some takes a tenth of it
    gc.set_threshold(100_000, 10, 10)
    run_app(app)
