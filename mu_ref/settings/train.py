"""Train the Settings agent: data in, weight file out, with a display of the way there."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mu_ref.config import ModelConfig, with_model_fields
from mu_ref.errors import InputError
from mu_ref.executors import training_arithmetic
from mu_ref.presets import preset
from mu_ref.settings.catalog import DATA, load_catalog
from mu_ref.settings.queries.labelled import read_queries
from mu_ref.settings.queries.training_data import epoch_data
from mu_ref.settings.training_run import halves_of, plan_run, run_to_end, say_resumed
from mu_ref.tokenizer import Tokenizer
from mu_ref.training.checkpoint import remove_checkpoints
from mu_ref.training.trainer import TrainConfig, Trainer
from mu_ref.weights import save_weights

__all__ = ["MADE_OF", "preset_for", "train_agent", "training_queries"]

# What the texts of an epoch are made of, besides the queries.
MADE_OF = ("tokenizer.json", "catalog.json", "templates.toml", "template_names.json",
           "phrases.toml", "out_of_scope.toml")  # fmt: skip


def training_queries(given: Sequence[Path] | None) -> dict[str, Path]:
    """Return {what: file} of the queries to train on, by default the shipped training split."""
    if given:
        return {f"--queries {n}" if len(given) > 1 else "--queries": file
                for n, file in enumerate(given, 1)}  # fmt: skip
    shipped = ("train.jsonl", "train_more.jsonl", "oblique.jsonl", "wordings.jsonl")
    return {name: DATA / name for name in shipped}


def train_agent(
    name: str,
    queries: Path | None,
    config: TrainConfig,
    out: Path,
    *,
    start: Path | None = None,
    resume: bool,
    console: Console,
    model_changes: Mapping[str, Any] | None = None,
) -> None:
    """Train a preset and write its weights in float16.

    Args:
        name: preset; an encoder-decoder with the shipped tokenizer's vocabulary.
        queries: labelled queries, JSON lines; by default the shipped training split and the
            queries written in addition.
        config: of the run.
        out: weight file; the checkpoints stand beside it, as `<name>.checkpoint.safetensors` and
            `<name>.checkpoint.1.safetensors`, until it is written.
        start: weight file to start from; random weights without.
        resume: continue from the newest checkpoint that is whole.
        console: where progress is shown.
        model_changes: {path: value} of fields of the preset that are changed.

    Raises:
        InputError: the preset does not fit the tokenizer, or there is (not) a checkpoint; an output
            would replace an input; the loss is no number any more.
        ConfigError: no such preset.
        WeightsError: `start` is not a weight file of the preset.
        KeyboardInterrupt: the user stopped the run; a checkpoint has been written.
    """
    files = training_queries(None if queries is None else [queries])
    inputs = files | {name: DATA / name for name in MADE_OF}
    checkpoint = plan_run(out, [*inputs.values(), start], resume=resume)
    tokenizer = Tokenizer.load(DATA / "tokenizer.json")
    model = preset_for(tokenizer, name, model_changes or {})
    items = [item for file in files.values() for item in read_queries(file)]
    data = epoch_data(items, load_catalog(), tokenizer)
    trainer = Trainer(model, config, data, {**inputs, "--start": start}, training_arithmetic())
    before = {} if start is None else trainer.start_from(start)
    if resume and checkpoint is not None:
        place = trainer.resume(checkpoint)
        say_resumed(console, trainer.step, place, checkpoint)
    run_to_end(
        trainer.run(checkpoint),
        lambda p: f"epoch {p.epoch}  loss {p.mean_loss:.3f}  rate {p.rate:.2g}",
        lambda _: trainer.save(checkpoint) if checkpoint is not None else None,
        checkpoint,
        console,
    )
    notes = _notes(config, len(items), trainer, before)
    save_weights(out, model, halves_of(trainer.weights), notes)
    if checkpoint is not None:
        remove_checkpoints(checkpoint)
    console.print(f"wrote {out}", soft_wrap=True)


def _notes(
    config: TrainConfig, n_queries: int, trainer: Trainer, before: dict[str, str]
) -> dict[str, str]:
    """How the weights were made."""
    notes = {
        "train": json.dumps(config.deciding()),
        "queries": str(n_queries),
        "steps": str(trainer.step),
        "loss": f"{trainer.mean_loss:.4f}",
    }
    return notes | ({"start": json.dumps(before)} if before else {})


def preset_for(tokenizer: Tokenizer, name: str, changes: Mapping[str, Any]) -> ModelConfig:
    """Return a preset, changed; InputError unless it reads and writes the tokenizer's tokens."""
    model = with_model_fields(preset(name), changes)
    if model.encoder is None or model.vocab_size != tokenizer.vocab_size:
        raise InputError(
            f"the preset must be an encoder-decoder with the tokenizer's {tokenizer.vocab_size} "
            f"tokens, got {name} with {model.vocab_size}; mu-nano is one"
        )
    return model
