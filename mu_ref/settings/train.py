"""Train the Settings agent: data in, weight file out, with a display of the way there."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.presets import preset
from mu_ref.settings.catalog import DATA, load_catalog
from mu_ref.settings.queries.labelled import read_queries
from mu_ref.settings.queries.training_data import epoch_data
from mu_ref.tokenizer import Tokenizer
from mu_ref.training.trainer import TrainConfig, Trainer
from mu_ref.weights import save_weights

__all__ = ["train_agent"]


def train_agent(
    name: str,
    queries: Path | None,
    config: TrainConfig,
    out: Path,
    *,
    start: Path | None = None,
    resume: bool,
    console: Console,
) -> None:
    """Train a preset and write its weights in float16.

    Args:
        name: preset; an encoder-decoder with the shipped tokenizer's vocabulary.
        queries: labelled queries, JSON lines; by default the shipped training split and the
            queries written in addition.
        config: of the run.
        out: weight file; the checkpoint stands beside it as `<name>.checkpoint.safetensors`.
        start: weight file to start from; random weights without.
        resume: continue from the checkpoint.
        console: where progress is shown.

    Raises:
        InputError: the preset does not fit the tokenizer, or there is (not) a checkpoint.
        ConfigError: no such preset.
        WeightsError: `start` is not a weight file of the preset.
    """
    tokenizer = Tokenizer.load(DATA / "tokenizer.json")
    model = _preset_for(tokenizer, name)
    files = [DATA / "train.jsonl", DATA / "train_more.jsonl"] if queries is None else [queries]
    items = [item for file in files for item in read_queries(file)]
    trainer = Trainer(model, config, epoch_data(items, load_catalog(), tokenizer))
    before = {} if start is None else trainer.start_from(start)
    checkpoint = out.with_suffix(".checkpoint.safetensors")
    if resume:
        trainer.resume(checkpoint)
    elif checkpoint.exists():
        raise InputError(f"{checkpoint} exists; give --resume to go on, or delete it to start anew")
    out.parent.mkdir(parents=True, exist_ok=True)
    loss, finished = _run(trainer, checkpoint, console)
    if not finished:
        trainer.save(checkpoint)
        console.print(f"stopped after step {trainer.step}; --resume goes on from {checkpoint}")
        raise KeyboardInterrupt
    notes = {
        "train": json.dumps(asdict(config)),
        "queries": str(len(items)),
        "steps": str(trainer.step),
        "loss": f"{loss:.4f}",
    }
    if before:
        notes["start"] = json.dumps(before)
    halves = {n: w.astype(np.float16) for n, w in trainer.weights.items()}
    save_weights(out, model, halves, notes)
    checkpoint.unlink()
    console.print(f"wrote {out}")


def _preset_for(tokenizer: Tokenizer, name: str) -> ModelConfig:
    model = preset(name)
    if model.encoder is None or model.vocab_size != tokenizer.vocab_size:
        raise InputError(
            f"the preset must be an encoder-decoder with the tokenizer's {tokenizer.vocab_size} "
            f"tokens, got {name} with {model.vocab_size}; mu-nano is one"
        )
    return model


def _run(trainer: Trainer, checkpoint: Path, console: Console) -> tuple[float, bool]:
    """Train; return the running mean of the loss, and whether the end was reached."""
    columns = (
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("epoch {task.fields[epoch]}  loss {task.fields[loss]:.3f}"),
        TextColumn("rate {task.fields[rate]:.2g}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as display, _interrupt_noted() as interrupted:
        task = display.add_task("training", total=None, epoch=0, loss=float("nan"), rate=0.0)
        mean = float("nan")
        for p in trainer.run(checkpoint):
            mean = p.loss if np.isnan(mean) else 0.95 * mean + 0.05 * p.loss
            display.update(
                task, completed=p.step, total=p.total_steps, epoch=p.epoch, loss=mean, rate=p.rate
            )
            if interrupted:
                return mean, p.step == p.total_steps
    return mean, True


@contextmanager
def _interrupt_noted() -> Iterator[list[int]]:
    """Turn Ctrl-C into a note, so that a step is never left half done."""
    noted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
