"""`mu-ref train`, `warm-up` and `settings eval`: make a model, and score it."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mu_ref.cli.options import ExecutorOption, SchemeOption, WeightsOption
from mu_ref.command_line import JsonOption

__all__ = ["settings_eval", "train", "warm_up"]


def train(
    name: Annotated[str, typer.Argument(metavar="PRESET", help="Preset name.")] = "mu-nano",
    out: Annotated[Path, typer.Option(help="Weight file to write at the end.")] = Path(
        "runs/mu-nano.safetensors"
    ),
    queries: Annotated[
        Path | None, typer.Option(help="Labelled queries, JSON lines; the shipped ones by default.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 18,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 4e-3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    start: Annotated[
        Path | None, typer.Option(help="Weight file to start from; by default random weights.")
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Continue from the checkpoint beside --out.")
    ] = False,
) -> None:
    """Train a model on labelled Settings queries; interrupt it and --resume as you like."""
    from mu_ref.settings.train import train_agent
    from mu_ref.training.trainer import TrainConfig

    config = TrainConfig(epochs=epochs, batch_size=batch_size, peak_rate=rate, seed=seed)
    console = Console(highlight=False)
    train_agent(name, queries, config, out, start=start, resume=resume, console=console)


def warm_up() -> None:
    """Compile the kernels of the fast executors ahead of their first use."""
    from mu_ref.executors import compile_once

    for kind in ("float", "integer"):
        seconds = compile_once(Console(stderr=True), kind)
        typer.echo(f"{kind}: " + (f"compiled in {seconds:.0f} s" if seconds else "was ready"))


def settings_eval(
    file: Annotated[Path, typer.Argument(help="Labelled queries, JSON lines.")],
    weights: WeightsOption = None,
    scheme: SchemeOption = "float32",
    executor: ExecutorOption = "reference",
    worst: Annotated[int, typer.Option(min=0, help="How many confusions to list.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Score the agent on labelled queries."""
    from mu_ref.settings.agent import answer_all, load_agent, score
    from mu_ref.settings.queries.labelled import read_queries

    agent, items = load_agent(weights, scheme, executor), read_queries(file)
    result = score(agent, items, answer_all(agent, items, Console(stderr=True)))
    if result.invalid_expected:
        Console(stderr=True).print(
            f"warning: {result.invalid_expected} expected calls in {file} are not in the grammar"
        )
    if as_json:
        typer.echo(json.dumps(result.to_json()))
        return
    for field, value in result.to_json().items():
        typer.echo(f"{field:<15} {value if field == 'n' else f'{value:.4f}'}")
    if worst and result.confusions:
        typer.echo("\nexpected -> answered (count)")
        for expected, answered, count in result.confusions[:worst]:
            typer.echo(f"  {expected} -> {answered} ({count})")
