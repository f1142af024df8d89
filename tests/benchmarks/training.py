"""Ablations of the recipe at a size that two cores bear: what each choice is worth, over seeds.

    python -m tests.benchmarks.training run runs/ablations.csv
    python -m tests.benchmarks.training table docs/figures/ablations.csv
    python -m docs.figures ablations

`run` takes ten minutes of one core, and goes on where it was stopped. A twelfth of mu-nano (8:3
layers, width 48) reads 10,240 of the shipped queries once, as they are written, in 320 batches of
32. Lines of the CSV: the loss on a fifth of the validation queries every 80 steps, and at the end
the loss and the share of exact calls on all of them.
"""

import csv
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from types import MappingProxyType
from typing import Any

from mu_ref.config import ModelConfig, with_model_fields
from mu_ref.model import mu
from mu_ref.ops.tape import TapeOps
from mu_ref.presets import preset
from mu_ref.settings.catalog import DATA
from mu_ref.settings.queries.labelled import evenly_spread, read_queries
from mu_ref.settings.recipe.tasks import examples_of, task_data
from mu_ref.tokenizer import Tokenizer
from mu_ref.training.datasets import Example, make_batch
from mu_ref.training.distill import Distillation, Teacher
from mu_ref.training.losses import cross_entropy
from mu_ref.training.trainer import TrainConfig, Trainer
from mu_ref.weights import Weights, count_parameters, load_weights, save_weights

N_QUERIES, SEEDS, EVERY = 10_240, (0, 1, 2), 80
RUN = TrainConfig(
    epochs=1, batch_size=32, peak_rate=8e-3, label_smoothing=0.0, embedding_std=48**-0.5
)
FIELDS = ("run", "seed", "parameters", "step", "part_loss", "validation_loss", "exact")


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way to train, which differs from the first in one thing."""

    layers: tuple[int, int] = (8, 3)
    optimizer: str = "muon"
    adam_share: float = 0.4
    teacher: Distillation | None = None


WAYS: Mapping[str, Way] = MappingProxyType(
    {
        "Muon, 8:3": Way(),
        "distilled": Way(teacher=Distillation(temperature=1.0, mix=0.5)),
        "AdamW": Way(optimizer="adamw"),
        "5:6 layers": Way(layers=(5, 6)),
    }
)


def sized(width: int, heads: int, layers: tuple[int, int]) -> ModelConfig:
    """mu-nano with another width, heads of 16, and other layers."""
    fields: dict[str, Any] = {"dropout": 0.1}
    for stack, n_layers in zip(("encoder", "decoder"), layers, strict=True):
        own = {"d_model": width, "d_ff": 4 * width, "n_heads": heads, "n_kv_heads": heads // 2,
               "d_head": 16, "attention_scale": 0.25, "embed_scale": width**0.5,
               "n_layers": n_layers}  # fmt: skip
        fields |= {f"{stack}.{name}": value for name, value in own.items()}
    return with_model_fields(preset("mu-nano"), fields)


def main() -> None:
    """Run or print."""
    what, path = sys.argv[1:]
    if what == "run":
        run_all(Path(path))
    else:
        print("\n".join(table(rows_of(Path(path)))))


def run_all(path: Path) -> None:
    """Train what is not in the file yet; seed by seed, so that an early end costs a seed."""
    tokenizer = Tokenizer.load()
    items = [i for n in ("train.jsonl", "train_more.jsonl") for i in read_queries(DATA / n)]
    data = task_data(examples_of(evenly_spread(items, N_QUERIES), tokenizer))
    held_out = examples_of(read_queries(DATA / "validation.jsonl"), tokenizer)
    teacher = trained_teacher(path, data, held_out)
    done = {(row["run"], int(row["seed"])) for row in rows_of(path) if row["exact"]}
    for seed in SEEDS:
        for name, way in WAYS.items():
            if (name, seed) not in done:
                run = replace(
                    RUN, seed=seed, matrix_optimizer=way.optimizer, adam_rate_share=way.adam_share
                )
                trainer = Trainer(sized(48, 4, way.layers), run, data)
                if way.teacher is not None:
                    trainer.learn_from(Teacher(*teacher, way.teacher))
                noted(path, name, trainer, held_out)


def trained_teacher(path: Path, data: Any, held_out: list[Example]) -> tuple[ModelConfig, Weights]:
    """Three times as many parameters, and twice as many steps."""
    place = path.with_suffix(".teacher.safetensors")
    if not place.exists():
        run = replace(RUN, epochs=2, seed=100, embedding_std=88**-0.5)
        trainer = Trainer(sized(88, 6, (8, 3)), run, data)
        noted(path, "teacher, 640 steps", trainer, held_out)
        save_weights(place, trainer.model, trainer.weights)
    return load_weights(place)


def noted(path: Path, name: str, trainer: Trainer, held_out: list[Example]) -> None:
    """Train, and append the run to the file when it is done."""
    same = {"run": name, "seed": trainer.config.seed,
            "parameters": count_parameters(trainer.model)}  # fmt: skip
    rows: list[dict[str, Any]] = []
    for progress in trainer.run():
        if progress.step % EVERY == 0:
            part = f"{validation_loss(trainer, held_out[::5]):.4f}"
            rows.append({**same, "step": progress.step, "part_loss": part})
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


if __name__ == "__main__":
    main()
