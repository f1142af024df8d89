"""`mu-ref train` and `warm-up`: make a model, and make ready to run one."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mu_ref.border.files import RUNS
from mu_ref.border.ranges import BATCH, COUNT, EPOCHS, RATE, SEED
from mu_ref.cli import options
from mu_ref.command_line import SetOption, in_range, plain_console
from mu_ref.errors import InputError, check_choice

if TYPE_CHECKING:
    from mu_ref.training.trainer import TrainConfig

__all__ = ["changed", "train", "warm_up"]


def train(
    name: Annotated[str, typer.Argument(metavar="PRESET", help="Preset name.")] = "mu-nano",
    out: Annotated[Path, typer.Option(help="Weight file to write at the end.")] = (
        RUNS / "mu-nano.safetensors"
    ),
    queries: Annotated[
        Path | None, typer.Option(help="Labelled queries, JSON lines; the shipped ones by default.")
    ] = None,
    epochs: Annotated[int, in_range(EPOCHS)] = 18,
    batch_size: Annotated[int, in_range(BATCH, help="Queries of a step.")] = 128,
    rate: Annotated[float, in_range(RATE, help="Peak learning rate.")] = 4e-3,
    seed: Annotated[int, in_range(SEED)] = 0,
    start: Annotated[
        Path | None, typer.Option(help="Weight file to start from; by default random weights.")
    ] = None,
    resume: options.ResumeOption = False,
    checkpoint_steps: Annotated[int, in_range(COUNT, help=options.INTERVAL)] = 200,
    changes: SetOption = None,
) -> None:
    """Train a model on labelled Settings queries; interrupt it and --resume as you like.

    Example: mu-ref train mu-nano --epochs 2 --out nano.safetensors --set clip_norm=0.5
    """
    from mu_ref.settings.train import train_agent
    from mu_ref.training.trainer import TrainConfig

    config = TrainConfig(
        epochs=epochs, batch_size=batch_size, peak_rate=rate, seed=seed,
        checkpoint_steps=checkpoint_steps,
    )  # fmt: skip
    config, of_model = changed(config, changes or [])
    console = options.report_console(out)
    train_agent(
        name, queries, config, out,
        start=start, resume=resume, console=console, model_changes=of_model,
    )  # fmt: skip


def changed(config: "TrainConfig", texts: list[str]) -> "tuple[TrainConfig, dict[str, str]]":
    """Set fields of the run, "clip_norm" or "train.clip_norm"; return those of the model too."""
    from mu_ref.border.overrides import assignments, kind_of_field
    from mu_ref.config import model_fields
    from mu_ref.presets import preset

    of_run, of_model = {}, {}
    known = asdict(config)
    for path, text in assignments(texts).items():
        name = path.removeprefix("train.")
        if name in known:
            of_run[name] = kind_of_field(text, known[name])
        else:
            of_model[path.removeprefix("model.")] = text
    fields = [*known, *model_fields(preset("mu-nano"))]
    for name in of_model:
        check_choice("field of --set", name, fields, InputError)
    return replace(config, **of_run), of_model


def warm_up() -> None:
    """Compile the kernels of the fast executors ahead of their first use.

    Example: mu-ref warm-up
    """
    from mu_ref.executors import compile_once

    for kind in ("float", "integer"):
        seconds = compile_once(plain_console(stderr=True), kind)
        typer.echo(f"{kind}: " + (f"compiled in {seconds:.0f} s" if seconds else "was ready"))
