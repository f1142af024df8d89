"""The training loop: steps, checkpoints, resume.

A run is a pure function of its configuration and data: the random numbers of step s come from
(seed, s) and those of epoch e from (seed, e), so a run that was interrupted and resumed writes the
same bytes as one that was not (on one machine: BLAS may differ on another). Chapter:
`docs/03_training.md`.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.model import mu
from mu_ref.ops.tape import TapeOps
from mu_ref.training.datasets import Batch, Example, batches
from mu_ref.training.losses import cross_entropy
from mu_ref.training.optimizers import AdamW, Muon, clip_gradients, is_muon_weight
from mu_ref.training.schedule import WarmupStableDecay
from mu_ref.weights import (
    Weights,
    check_names,
    initial_weights,
    read_safetensors,
    weight_shapes,
    write_safetensors,
)

__all__ = ["Progress", "TrainConfig", "Trainer"]

EpochData = Callable[[np.random.Generator], Sequence[Example]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """What decides a run, besides the model and the data."""

    epochs: int = 18
    batch_size: int = 128
    peak_rate: float = 4e-3  # of Muon
    adam_rate_share: float = 0.4  # AdamW's rate, as a share of Muon's
    warmup_share: float = 0.03  # of all steps
    decay_share: float = 0.4  # of all steps
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    muon_weight_decay: float = 0.1
    adam_weight_decay: float = 0.01
    init_std: float = 0.02
    embedding_std: float = 0.072  # 1/√192: with mu-nano's embed_scale the stream starts at size 1
    post_norm_gain: float = 0.25
    checkpoint_steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("epochs", "batch_size", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.peak_rate > 0:
            raise InputError(f"peak_rate must be positive, got {self.peak_rate}")


@dataclass(frozen=True, slots=True)
class Progress:
    """What one step did, for a progress display."""

    step: int  # steps done
    total_steps: int
    epoch: int
    loss: float
    rate: float
    step_s: float


@dataclass(slots=True)
class Trainer:
    """Trains one model; call `run` and iterate.

    Args:
        model: the configuration.
        config: of the run.
        epoch_data: makes the examples of one epoch from a generator; always equally many.
    """

    model: ModelConfig
    config: TrainConfig
    epoch_data: EpochData
    weights: Weights = field(init=False)
    state: dict[str, Weights] = field(init=False)  # per weight, what its optimizer remembers
    step: int = field(init=False, default=0)  # steps done

    def __post_init__(self) -> None:
        """Draw initial weights."""
        rng = np.random.default_rng([self.config.seed, 0, 0])
        self.weights = initial_weights(
            self.model,
            rng,
            self.config.init_std,
            embedding_std=self.config.embedding_std,
            post_norm_gain=self.config.post_norm_gain,
        )
        self.state = {name: {} for name in self.weights}

    def run(self, checkpoint: Path | None = None) -> Iterator[Progress]:
        """Train to the end, or until the caller stops iterating.

        Args:
            checkpoint: file to write every `checkpoint_steps` and at the end.

        Yields:
            Progress after each step.

        Raises:
            InputError: an epoch has too few examples for one batch.
        """
        epoch = 0
        first = self._epoch(0)
        per_epoch = len(first)
        if not per_epoch:
            raise InputError(
                f"an epoch must fill a batch of {self.config.batch_size}; "
                "give more queries or a smaller batch"
            )
        total = per_epoch * self.config.epochs
        schedule = WarmupStableDecay(
            peak=self.config.peak_rate,
            warmup_steps=max(1, round(total * self.config.warmup_share)),
            decay_steps=max(1, round(total * self.config.decay_share)),
            total_steps=total,
        )
        for epoch in range(self.step // per_epoch, self.config.epochs):
            for batch in self._epoch(epoch)[self.step - epoch * per_epoch :]:
                started = time.perf_counter()
                rate = schedule.rate(self.step)
                loss = self.train_step(batch, rate)
                if checkpoint and (
                    self.step % self.config.checkpoint_steps == 0 or self.step == total
                ):
                    self.save(checkpoint)
                seconds = time.perf_counter() - started
                yield Progress(self.step, total, epoch, loss, rate, seconds)

    def _epoch(self, epoch: int) -> list[Batch]:
        rng = np.random.default_rng([self.config.seed, 1, epoch])
        return list(batches(self.epoch_data(rng), self.config.batch_size, self.model, rng))

    def train_step(self, batch: Batch, rate: float) -> float:
        """Take one step.

        Args:
            batch: the examples.
            rate: learning rate.

        Returns:
            The loss before the step.
        """
        rng = np.random.default_rng([self.config.seed, 2, self.step])
        ops = TapeOps(self.weights, self.model.dropout, rng)
        scores = mu.forward(
            ops, self.model, batch.source, batch.source_valid, batch.inputs, batch.counted
        )
        loss = cross_entropy(ops, scores, batch.labels, batch.counted, self.config.label_smoothing)
        grads, _ = clip_gradients(ops.backward(loss), self.config.clip_norm)
        self.step += 1
        muon = Muon(weight_decay=self.config.muon_weight_decay)
        adam = AdamW(weight_decay=self.config.adam_weight_decay)
        for name, grad in grads.items():
            weight, state = self.weights[name], self.state[name]
            if is_muon_weight(name, weight):
                muon.update(weight, grad, state, rate)
            else:
                adam_rate = rate * self.config.adam_rate_share
                adam.update(weight, grad, state, adam_rate, self.step)
        return float(loss.value)

    def start_from(self, path: Path) -> dict[str, str]:
        """Take the weights of a file in place of random ones.

        Args:
            path: weight file of the same shapes.

        Returns:
            What the file says of its own training.

        Raises:
            WeightsError: the file is damaged or of another model.
        """
        tensors, metadata = read_safetensors(path)
        shapes = {name: array.shape for name, array in tensors.items()}
        check_names(str(path), weight_shapes(self.model), shapes)
        self.weights = {name: tensors[name].astype(np.float32) for name in self.weights}
        return {key: text for key, text in metadata.items() if key != "config"}

    def save(self, path: Path) -> None:
        """Write everything that `resume` needs; the file appears whole or not at all."""
        tensors = dict(self.weights)
        for name, state in self.state.items():
            tensors |= {f"{name}:{kind}": array for kind, array in state.items()}
        metadata = {
            "config": self.model.to_json(),
            "train": json.dumps(asdict(self.config)),
            "step": str(self.step),
        }
        write_safetensors(path, tensors, metadata)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint.

        Args:
            path: file written by `save`.

        Raises:
            InputError: the checkpoint is of another model or another run.
            WeightsError: the file is damaged.
        """
        tensors, metadata = read_safetensors(path)
        ours = {"config": self.model.to_json(), "train": json.dumps(asdict(self.config))}
        for key, value in ours.items():
            if metadata.get(key) != value:
                raise InputError(
                    f"{path} must be a checkpoint of this run; its {key} differs. "
                    "Give the same options, or another checkpoint file"
                )
        weights = {name: array for name, array in tensors.items() if ":" not in name}
        shapes = {name: array.shape for name, array in weights.items()}
        check_names(str(path), weight_shapes(self.model), shapes)
        self.weights = {name: weights[name].copy() for name in self.weights}
        self.state = {name: {} for name in self.weights}
        for name in tensors.keys() - weights.keys():
            weight, _, kind = name.partition(":")
            self.state[weight][kind] = tensors[name].copy()
        self.step = int(metadata["step"])
