"""`mu-ref distill`, `lora train` and `lora merge`: the rest of Mu's recipe."""

from pathlib import Path
from typing import Annotated

import typer

from mu_ref.border.ranges import BATCH, COUNT, EPOCHS, FACTOR, RANK, RATE, SEED, SHARE
from mu_ref.cli import options
from mu_ref.cli.training.train import changed
from mu_ref.command_line import SetOption, in_range, named_folder, plain_console

__all__ = ["distill", "lora_merge", "lora_train"]

FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", parser=named_folder, help="Folder of the run.")
]
QueriesOption = Annotated[
    list[Path] | None,
    typer.Option("--queries", help="Labelled queries, JSON lines; repeatable; the shipped ones "
                 "by default."),
]  # fmt: skip
SitesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--site",
        metavar="PATTERN",
        help="Layers that change, such as *.q; repeatable; decoder.* by default.",
    ),
]
BaseOption = Annotated[
    Path | None, typer.Option("--base", help="Weights to start from; the shipped mu-nano.")
]


def distill(
    folder: FolderArgument,
    teacher: Annotated[Path, typer.Option(help="Weight file of a larger model.")],
    student: Annotated[str, typer.Option(help="Preset of the student.")] = "mu-nano",
    temperature: Annotated[float, in_range(FACTOR, help="Softens scores.")] = 1.0,
    mix: Annotated[
        float, in_range(SHARE, help="Weight of the teacher's scores beside the labels.")
    ] = 0.5,
    queries: QueriesOption = None,
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
    """Train a model on labelled queries and on what a larger one makes of them."""
    from mu_ref.settings.recipe.distill import distill_agent
    from mu_ref.training.distill import Distillation
    from mu_ref.training.trainer import TrainConfig

    config = TrainConfig(
        epochs=epochs, batch_size=batch_size, peak_rate=rate, seed=seed,
        checkpoint_steps=checkpoint_steps,
    )  # fmt: skip
    config, of_model = changed(config, changes or [])
    distill_agent(
        student, teacher, queries, config, Distillation(temperature=temperature, mix=mix), folder,
        start=start, resume=resume, console=plain_console(), model_changes=of_model,
    )  # fmt: skip


def lora_train(
    folder: FolderArgument,
    task: Annotated[str, typer.Option(help="uri (query to page address) or calls.")] = "uri",
    base: BaseOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="Let all weights move, for comparison.")
    ] = False,
    rank: Annotated[int | None, in_range(RANK, help="Rank of each change, 10 by default.")] = None,
    alpha: Annotated[
        float | None, in_range(FACTOR, help="alpha / rank scales each change; 20 by default.")
    ] = None,
    sites: SitesOption = None,
    queries: QueriesOption = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Labelled queries to score; the shipped validation split.")
    ] = None,
    limit: Annotated[int | None, in_range(COUNT, help="Queries to train on at most.")] = None,
    epochs: Annotated[int, in_range(EPOCHS)] = 2,
    batch_size: Annotated[int, in_range(BATCH, help="Queries of a step.")] = 32,
    rate: Annotated[
        float | None, in_range(RATE, help="Peak learning rate; 0.012, or 0.004 with --full.")
    ] = None,
    seed: Annotated[int, in_range(SEED)] = 0,
    resume: options.ResumeOption = False,
    checkpoint_steps: Annotated[int, in_range(COUNT, help=options.INTERVAL)] = 200,
) -> None:
    """Teach a trained model a second task, by a LoRA on its frozen weights or by all of them."""
    from mu_ref.settings.recipe.lora import tune
    from mu_ref.training.lora import LoraConfig
    from mu_ref.training.trainer import TrainConfig

    if full:
        options.check_unused("with --full", {"--rank": rank, "--alpha": alpha, "--site": sites})
    usual = LoraConfig()
    lora = LoraConfig(
        rank=rank or usual.rank, alpha=alpha or usual.alpha, sites=tuple(sites or usual.sites)
    )
    config = TrainConfig(
        epochs=epochs, batch_size=batch_size, peak_rate=rate or (4e-3 if full else 1.2e-2),
        seed=seed, checkpoint_steps=checkpoint_steps, label_smoothing=0.0,
    )  # fmt: skip
    result = tune(
        base, task, queries, held_out, config, None if full else lora, folder,
        limit=limit, resume=resume, console=plain_console(),
    )  # fmt: skip
    typer.echo(f"trained {result.trained:.2%} of the parameters")
    typer.echo(f"exact on {result.n} held-out queries: {result.before:.4f} before, "
               f"{result.exact:.4f} after")  # fmt: skip


def lora_merge(
    adapter: Annotated[Path, typer.Argument(help="LoRA from `mu-ref lora train`.")],
    out: Annotated[Path, typer.Option(help="Weight file to write.")],
    base: BaseOption = None,
) -> None:
    """Write plain weights that compute what a base and its LoRA compute together.

    Example: mu-ref lora merge runs/uri/lora.safetensors --out uri.safetensors
    """
    from mu_ref.settings.recipe.lora import merge_lora

    sites = merge_lora(adapter, base, out)
    typer.echo(f"wrote {out}; {len(sites)} sites changed")
