"""Train a preset for the Settings agent with a teacher beside the labels, in a run folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mu_ref.executors import training_arithmetic
from mu_ref.settings.catalog import DATA, load_catalog
from mu_ref.settings.queries.labelled import read_queries
from mu_ref.settings.queries.training_data import epoch_data
from mu_ref.settings.recipe.run import run_in_folder
from mu_ref.settings.train import MADE_OF, preset_for, training_queries
from mu_ref.settings.training_run import halves_of
from mu_ref.tokenizer import Tokenizer
from mu_ref.training.distill import Distillation, Teacher
from mu_ref.training.run_folder import RunFolder
from mu_ref.training.trainer import TrainConfig, Trainer
from mu_ref.weights import load_weights, save_weights

__all__ = ["distill_agent"]


def distill_agent(
    name: str,
    teacher: Path,
    queries: Sequence[Path] | None,
    config: TrainConfig,
    how: Distillation,
    folder: Path,
    *,
    start: Path | None,
    resume: bool,
    console: Console,
    model_changes: Mapping[str, Any] | None = None,
) -> None:
    """Train a student, and write `student.safetensors` in float16 to the folder of the run.

    Args:
        name: preset of the student.
        teacher: weight file of the teacher; best about three times as large.
        queries: files of labelled queries; by default those that `mu-ref train` reads.
        config: of the run.
        how: temperature and mix.
        folder: see `RunFolder`.
        start: weight file of the student to start from; random weights without.
        resume: continue from the newest checkpoint that is whole.
        console: where progress is shown.
        model_changes: {path: value} of fields of the preset that are changed.

    Raises:
        InputError: teacher, student and tokenizer do not fit together; see `RunFolder.check`; the
            loss is no number any more.
        ConfigError: no such preset.
        WeightsError: a file is no weight file, or `start` is not of the student.
        KeyboardInterrupt: the user stopped the run; a checkpoint has been written.
    """
    files = training_queries(queries)
    inputs = files | {name: DATA / name for name in MADE_OF} | {"--teacher": teacher}
    run = RunFolder(folder, "student.safetensors")
    run.check([*inputs.values(), start], resume=resume)
    tokenizer = Tokenizer.load(DATA / "tokenizer.json")
    model = preset_for(tokenizer, name, model_changes or {})
    wise, weights = load_weights(teacher)
    items = [item for file in files.values() for item in read_queries(file)]
    data = epoch_data(items, load_catalog(), tokenizer)
    trainer = Trainer(model, config, data, {**inputs, "--start": start}, training_arithmetic())
    if start is not None:
        trainer.start_from(start)
    trainer.learn_from(Teacher(wise, {n: w.astype(np.float32) for n, w in weights.items()}, how))
    run_in_folder(run, trainer, resume, console)
    notes = {
        "train": json.dumps(config.deciding()),
        "distillation": json.dumps(trainer.identity["distillation"]),
        "queries": str(len(items)),
        "steps": str(trainer.step),
        "loss": f"{trainer.mean_loss:.4f}",
    }
    halves = halves_of(trainer.weights)
    run.end(trainer, lambda place: save_weights(place, model, halves, notes))
    console.print(f"wrote {folder / run.result}", soft_wrap=True)
