"""Teach the agent's model a second task, by a LoRA on the frozen base or by all of its weights."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from mu_ref.border.files import check_outputs
from mu_ref.border.reading import file_digest
from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.executors import shipped_weights, training_arithmetic
from mu_ref.settings.catalog import DATA, load_catalog
from mu_ref.settings.queries.labelled import evenly_spread, read_queries
from mu_ref.settings.recipe.run import run_in_folder
from mu_ref.settings.recipe.tasks import examples_of, task_data, task_items
from mu_ref.settings.train import training_queries
from mu_ref.settings.training_run import halves_of
from mu_ref.tokenizer import Tokenizer
from mu_ref.training.lora import (
    Adapter,
    LoraConfig,
    load_adapter,
    lora_sites,
    merged,
    save_adapter,
    trained_share,
)  # fmt: skip
from mu_ref.training.run_folder import RunFolder
from mu_ref.training.trainer import TrainConfig, Trainer
from mu_ref.weights import load_weights, save_weights

__all__ = ["Tuned", "merge_lora", "tune"]


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a run has reached."""

    trained: float  # share of the parameters that moved
    n: int  # held-out queries
    before: float  # share of them that were answered exactly before the run
    exact: float  # and after it


def tune(
    base: Path | None,
    task: str,
    queries: Sequence[Path] | None,
    held_out: Path | None,
    config: TrainConfig,
    lora: LoraConfig | None,
    folder: Path,
    *,
    limit: int | None,
    resume: bool,
    console: Console,
) -> Tuned:
    """Train on a task, and write `lora.safetensors` or `weights.safetensors` to the run's folder.

    Args:
        base: weight file to start from; the shipped mu-nano by default.
        task: one of `TASKS`.
        queries: files of labelled queries; by default those that `mu-ref train` reads.
        held_out: file of labelled queries to score; the shipped validation split by default.
        config: of the run.
        lora: its configuration; None lets all weights move.
        folder: see `RunFolder`.
        limit: queries to train on at most, from the whole length of the files.
        resume: continue from the newest checkpoint that is whole.
        console: where progress is shown.

    Returns:
        The share of exact answers to the held-out queries.

    Raises:
        InputError: no such task; a pattern of sites fits nothing; see `RunFolder.check`; the loss
            is no number any more.
        WeightsError: the base is no weight file.
        KeyboardInterrupt: the user stopped the run; a checkpoint has been written.
    """
    base = shipped_weights("float32") if base is None else base
    held_out = DATA / "validation.jsonl" if held_out is None else held_out
    files = training_queries(queries)
    inputs = files | {"--base": base} | {n: DATA / n for n in ("tokenizer.json", "catalog.json")}
    run = RunFolder(folder, "weights.safetensors" if lora is None else "lora.safetensors")
    run.check([*inputs.values(), held_out], resume=resume)
    tokenizer, catalog = Tokenizer.load(DATA / "tokenizer.json"), load_catalog()
    model = _readable(base, tokenizer)
    items = evenly_spread([i for file in files.values() for i in read_queries(file)], limit)
    data = task_data(examples_of(task_items(task, items, catalog), tokenizer))
    scored = examples_of(task_items(task, read_queries(held_out), catalog), tokenizer)
    # a run of a few epochs, of few weights above all, ends before it could learn too much by heart
    trainer = Trainer(replace(model, dropout=0.0), config, data, inputs, training_arithmetic())
    trainer.identity = {**trainer.identity, "task": task, "queries": len(items)}
    notes = {"start": json.dumps(trainer.start_from(base))}
    if lora is not None:
        trainer.adapt(lora)
    before = trainer.exact_share(scored)
    run_in_folder(run, trainer, resume, console)
    exact = trainer.exact_share(scored)
    notes |= {"task": task, "steps": str(trainer.step), "held_out_exact": f"{exact:.4f}"}
    run.end(trainer, lambda place: _write(place, model, trainer, base, notes))
    console.print(f"wrote {folder / run.result}", soft_wrap=True)
    return Tuned(1.0 if lora is None else trained_share(model, lora), len(scored), before, exact)


def _readable(base: Path, tokenizer: Tokenizer) -> ModelConfig:
    """Return the model of a weight file; InputError unless it reads and writes the tokens."""
    model, _ = load_weights(base)
    if model.encoder is None or model.decoder is None or model.vocab_size != tokenizer.vocab_size:
        raise InputError(
            f"--base must be an encoder-decoder with the tokenizer's {tokenizer.vocab_size} "
            f"tokens, got {model.name} with {model.vocab_size}"
        )
    return model


def _write(
    place: Path, model: ModelConfig, trainer: Trainer, base: Path, notes: dict[str, str]
) -> None:
    """Write what has moved, in float16."""
    notes = {**notes, "train": json.dumps(trainer.config.deciding())}
    halves = halves_of(trainer.weights)
    if trainer.lora is None:
        save_weights(place, model, halves, notes)
    else:
        own = Adapter(trainer.lora, halves, file_digest(base), notes)
        save_adapter(place, model, own)


def merge_lora(adapter: Path, base: Path | None, out: Path) -> list[str]:
    """Write plain weights, in float16, that compute what a base and a LoRA compute together.

    Args:
        adapter: file of the LoRA.
        base: weight file that it was trained on; the shipped mu-nano by default.
        out: weight file to write.

    Returns:
        The sites that changed.

    Raises:
        InputError: `out` is one of the files that are read.
        WeightsError: a file is damaged or foreign, or the LoRA is one of other weights.
    """
    base = shipped_weights("float32") if base is None else base
    check_outputs({"--out": out}, [adapter, base])
    model, weights = load_weights(base)
    own = load_adapter(adapter, model, file_digest(base))
    whole = {name: w.astype(np.float32) for name, w in weights.items()}
    notes = {**own.notes, "lora_base": own.base}
    save_weights(out, model, halves_of(merged(whole, own.lora, own.weights)), notes)
    return lora_sites(model, own.lora)
