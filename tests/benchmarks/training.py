"""Ablations of the recipe at a size that two cores bear: what each choice is worth, over seeds.

    python -m tests.benchmarks.training run runs/ablations.csv    # half an hour; goes on where it was
    python -m tests.benchmarks.training table runs/ablations.csv
    python -m tests.benchmarks.training plot runs/ablations.csv docs/03_training.png

A twentieth of mu-nano (8:3 layers, width 48) reads 15,000 of the shipped queries once, in batches
of 64. Validation is the shipped split. One line of the CSV for each run and twenty steps; the line of
the last step has the validation figures too.
"""

import csv
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from types import MappingProxyType
from typing import Any

import numpy as np

from mu_ref.border.files import write_picture
from mu_ref.config import ModelConfig, with_model_fields
from mu_ref.model import mu
from mu_ref.ops.tape import TapeOps
from mu_ref.presets import preset
from mu_ref.settings.catalog import DATA, load_catalog
from mu_ref.settings.queries.labelled import evenly_spread, query_tokens, read_queries
from mu_ref.settings.queries.training_data import epoch_data
from mu_ref.tokenizer import Tokenizer
from mu_ref.training.datasets import Example, make_batch
from mu_ref.training.distill import Distillation, Teacher
from mu_ref.training.losses import cross_entropy
from mu_ref.training.trainer import TrainConfig, Trainer
from mu_ref.weights import Weights, count_parameters, load_weights, save_weights

N_QUERIES, SEEDS, EVERY = 15_000, (0, 1, 2), 20
RUN = TrainConfig(epochs=1, batch_size=64, embedding_std=48**-0.5)
FIELDS = ("run", "seed", "parameters", "step", "loss", "validation_loss", "exact")


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way to train, which differs from the first in one thing."""

    layers: tuple[int, int] = (8, 3)
    optimizer: str = "muon"
    adam_share: float = 0.4
    teacher: Distillation | None = None


WAYS: Mapping[str, Way] = MappingProxyType(
    {
        "muon, 8:3": Way(),
        "distilled": Way(teacher=Distillation(temperature=1.0, mix=0.5)),
        "adamw": Way(optimizer="adamw"),
        "adamw, 2.5 x rate": Way(optimizer="adamw", adam_share=1.0),
        "5:6 layers": Way(layers=(5, 6)),
    }
)


def sized(width: int, heads: int, layers: tuple[int, int]) -> ModelConfig:
    """mu-nano with another width, heads of 16, and other layers."""
    fields: dict[str, Any] = {}
    for stack, n_layers in zip(("encoder", "decoder"), layers, strict=True):
        own = {"d_model": width, "d_ff": 4 * width, "n_heads": heads, "n_kv_heads": heads // 2,
               "d_head": 16, "attention_scale": 0.25, "embed_scale": width**0.5,
               "n_layers": n_layers}  # fmt: skip
        fields |= {f"{stack}.{name}": value for name, value in own.items()}
    return with_model_fields(preset("mu-nano"), {**fields, "dropout": 0.1})


def main() -> None:
    """Run, print or draw."""
    what, path, *more = sys.argv[1:]
    if what == "run":
        run_all(Path(path))
    elif what == "table":
        print("\n".join(table(rows_of(Path(path)))))
    else:
        plot(rows_of(Path(path)), Path(more[0]))


def run_all(path: Path) -> None:
    """Train what is not in the file yet; seed by seed, so that an early end costs a seed."""
    tokenizer = Tokenizer.load()
    items = [i for n in ("train.jsonl", "train_more.jsonl") for i in read_queries(DATA / n)]
    data = epoch_data(evenly_spread(items, N_QUERIES), load_catalog(), tokenizer)
    held_out = [
        Example(query_tokens(i.query, tokenizer), tokenizer.encode(i.call))
        for i in read_queries(DATA / "validation.jsonl")
    ]
    teacher = trained_teacher(path.with_suffix(".teacher.safetensors"), path, data, held_out)
    done = {(row["run"], int(row["seed"])) for row in rows_of(path) if row["exact"]}
    for seed in SEEDS:
        for name, way in WAYS.items():
            if (name, seed) not in done:
                trainer = Trainer(
                    sized(48, 4, way.layers),
                    replace(RUN, seed=seed, matrix_optimizer=way.optimizer,
                            adam_rate_share=way.adam_share),
                    data,
                )  # fmt: skip
                if way.teacher is not None:
                    trainer.learn_from(Teacher(*teacher, way.teacher))
                noted(path, name, trainer, held_out)


def trained_teacher(
    place: Path, path: Path, data: Any, held_out: list[Example]
) -> tuple[ModelConfig, Weights]:
    """Three times as many parameters, and twice as many steps."""
    if not place.exists():
        run = replace(RUN, epochs=2, seed=100, embedding_std=88**-0.5)
        trainer = Trainer(sized(88, 6, (8, 3)), run, data)
        noted(path, "teacher", trainer, held_out)
        save_weights(place, trainer.model, trainer.weights)
    return load_weights(place)


def noted(path: Path, name: str, trainer: Trainer, held_out: list[Example]) -> None:
    """Train, and append the run to the file when it is done."""
    losses: list[tuple[int, float]] = []
    for step in trainer.run():
        losses.append((step.step, step.loss))
    rows = []
    for start in range(0, len(losses), EVERY):
        part = losses[start : start + EVERY]
        row = {"run": name, "seed": trainer.config.seed, "step": part[-1][0],
               "parameters": count_parameters(trainer.model),
               "loss": f"{mean(loss for _, loss in part):.4f}"}  # fmt: skip
        rows.append(row)
    rows[-1]["validation_loss"] = f"{validation_loss(trainer, held_out):.4f}"
    rows[-1]["exact"] = f"{trainer.exact_share(held_out):.4f}"
    print(rows[-1], flush=True)
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, restval="", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def validation_loss(trainer: Trainer, held_out: list[Example]) -> float:
    """Mean negative log-likelihood of a token of the held-out calls."""
    total, n = 0.0, 0
    for start in range(0, len(held_out), 64):
        batch = make_batch(held_out[start : start + 64], trainer.model)
        tape = TapeOps({}, frozen=trainer.weights)
        source = batch.source, batch.source_valid
        scores = mu.forward(tape, trainer.model, *source, batch.inputs, batch.counted)
        loss = cross_entropy(tape, scores, batch.labels, batch.counted)
        counted = int(batch.counted.sum())
        total, n = total + float(loss.value) * counted, n + counted
    return total / n


def rows_of(path: Path) -> list[dict[str, str]]:
    """Lines of the file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(rows: list[dict[str, str]]) -> Iterator[str]:
    """Means over seeds, with the standard deviation."""
    yield "| run | parameters | seeds | validation loss | exact match |"
    yield "|---|---|---|---|---|"
    for name in dict.fromkeys(row["run"] for row in rows):
        ends = [row for row in rows if row["run"] == name and row["exact"]]
        loss = spread([float(row["validation_loss"]) for row in ends], 1, 3)
        exact = spread([float(row["exact"]) for row in ends], 100, 1)
        yield f"| {name} | {int(ends[0]['parameters']):,} | {len(ends)} | {loss} | {exact} % |"


def spread(values: list[float], factor: float, digits: int) -> str:
    """Mean and standard deviation as text."""
    scaled = [factor * value for value in values]
    around = f" ± {stdev(scaled):.{digits}f}" if len(scaled) > 1 else ""
    return f"{mean(scaled):.{digits}f}{around}"


def plot(rows: list[dict[str, str]], path: Path) -> None:
    """Draw the loss of each way over steps: the mean of the seeds, and a band from least to most."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    for name in WAYS:
        own = [row for row in rows if row["run"] == name]
        steps = sorted({int(row["step"]) for row in own})
        losses = np.array(
            [sorted(float(r["loss"]) for r in own if int(r["step"]) == s) for s in steps]
        )
        if own:
            line = axes.plot(steps, losses.mean(axis=1), label=name)[0]
            low, high = losses.min(axis=1), losses.max(axis=1)
            axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color(), lw=0)
    axes.set_xlabel("step (64 queries each)")
    axes.set_ylabel("training loss (smoothed labels; distilled: mixed)")
    axes.legend()
    write_picture(path, figure, 110)


if __name__ == "__main__":
    main()
