"""`mu-ref` at the command line: which command is which function.

Exit codes: 0 done, 2 a mistake in what was asked for (one line says which), 130 interrupted.
"""

from typing import NoReturn

import typer

from mu_ref.cli import export, golden
from mu_ref.cli.ask import ask
from mu_ref.cli.forward import forward
from mu_ref.cli.info import info
from mu_ref.cli.quantize import quantize
from mu_ref.cli.redrafter import draft_sweep, generate, quantize_drafter, train_drafter
from mu_ref.cli.train import settings_eval, train, warm_up
from mu_ref.command_line import run_app

__all__ = ["app", "main"]

app = typer.Typer(
    help="A readable reference of Microsoft's Mu, run by many executors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
settings_app = typer.Typer(help="The Settings agent.", no_args_is_help=True)
settings_app.command("eval")(settings_eval)
app.add_typer(settings_app, name="settings")
golden_app = typer.Typer(help="Golden files, the oracle of ports.", no_args_is_help=True)
golden_app.command("write")(golden.write)
golden_app.command("check")(golden.check)
app.add_typer(golden_app, name="golden")
export_app = typer.Typer(help="Models for other engines.", no_args_is_help=True)
export_app.command("onnx")(export.onnx)
app.add_typer(export_app, name="export")
app.command()(quantize)
app.command()(generate)
app.command("train-drafter")(train_drafter)
app.command("quantize-drafter")(quantize_drafter)
app.command("draft-sweep")(draft_sweep)
app.command()(ask)
app.command()(info)
app.command()(forward)
app.command()(train)
app.command("warm-up")(warm_up)


def main() -> NoReturn:
    """Run the program."""
    run_app(app)
