"""`mu-ref` at the command line: which command is which function.

Exit codes: 0 done, 1 a comparison found a difference, 2 a mistake in what was asked for (one line
says which), 130 interrupted.
"""

from collections.abc import Callable
from typing import NoReturn

import typer

from mu_ref.cli import export, golden
from mu_ref.cli.ask import ask
from mu_ref.cli.forward import forward
from mu_ref.cli.info import info
from mu_ref.cli.quantize import quantize
from mu_ref.cli.redrafter import draft_sweep, generate, quantize_drafter, train_drafter
from mu_ref.cli.settings import settings_baseline, settings_eval, train_rank
from mu_ref.cli.training.recipe import distill, lora_merge, lora_train
from mu_ref.cli.training.train import train, warm_up
from mu_ref.command_line import run_app

__all__ = ["app", "main"]

app = typer.Typer(
    help="A readable reference of Microsoft's Mu, run by many executors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


# of functions whose options leave no line for an example
LONG = {
    "train": "Example: mu-ref lora train runs/uri --task uri --rank 4",
    "write": "Example: mu-ref golden write golden --query 'wifi on' --depth layers",
}


def _group(name: str, about: str, **commands: Callable[..., None]) -> None:
    """Add commands of two words, such as `golden write`."""
    group = typer.Typer(help=about, no_args_is_help=True)
    for command, function in commands.items():
        group.command(command, epilog=LONG.get(command))(function)
    app.add_typer(group, name=name)


_group(
    "settings", "The Settings agent.",
    eval=settings_eval, baseline=settings_baseline, **{"train-rank": train_rank},
)  # fmt: skip
_group("golden", "Golden files, the oracle of ports.", write=golden.write, check=golden.check)
_group("lora", "Tasks learnt on frozen weights.", train=lora_train, merge=lora_merge)
_group("export", "Models for other engines.", onnx=export.onnx)
app.command(epilog="Example: mu-ref quantize mu-nano --scheme w8a16 --worst 10")(quantize)
app.command()(generate)
app.command(
    "train-drafter",
    epilog="Example: mu-ref train-drafter mu-nano --epochs 3 --out drafter.safetensors",
)(train_drafter)
app.command("quantize-drafter")(quantize_drafter)
app.command("draft-sweep")(draft_sweep)
app.command(epilog="Example: mu-ref ask 'turn bluetooth off' --npu hexagon-x-elite")(ask)
app.command()(info)
app.command()(forward)
app.command()(train)
app.command(epilog="Example: mu-ref distill runs/student --teacher runs/teacher.safetensors")(
    distill
)
app.command("warm-up")(warm_up)


def main() -> NoReturn:
    """Run the program."""
    run_app(app)
