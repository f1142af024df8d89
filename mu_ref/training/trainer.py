"""The training loop: steps, checkpoints, resume.

A run is a pure function of its configuration and data: the random numbers of step s come from
(seed, s) and those of epoch e from (seed, e), so a run that was interrupted and resumed writes the
same bytes as one that was not (on one machine: BLAS may differ on another). Chapter:
`docs/09_training.md`.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from mu_ref.border.ranges import (
    BATCH,
    COUNT,
    EPOCHS,
    RATE,
    SEED,
    SHARE,
    STRENGTH,
    check_fields,
)  # fmt: skip
from mu_ref.config import ModelConfig
from mu_ref.errors import InputError, check_choice
from mu_ref.model import mu
from mu_ref.ops import Ops
from mu_ref.ops.arithmetic import Arithmetic
from mu_ref.ops.lora import LoraOps
from mu_ref.ops.tape import TapeOps
from mu_ref.training.checkpoint import (
    Identity,
    State,
    check_loss,
    identity_of,
    read_checkpoint,
    running_mean,
    write_checkpoint,
)  # fmt: skip
from mu_ref.training.datasets import Batch, Example, batches, make_batch
from mu_ref.training.distill import Teacher
from mu_ref.training.lora import LoraConfig, initial_lora, lora_sites
from mu_ref.training.losses import cross_entropy
from mu_ref.training.optimizers import AdamW, Muon, clip_factor, is_muon_weight
from mu_ref.training.schedule import WarmupStableDecay
from mu_ref.weights import (
    Weights,
    check_names,
    initial_weights,
    read_safetensors,
    weight_shapes,
)  # fmt: skip

__all__ = ["Progress", "TrainConfig", "Trainer"]

EpochData = Callable[[np.random.Generator], Sequence[Example]]

RANGES = MappingProxyType(
    {"epochs": EPOCHS, "batch_size": BATCH, "checkpoint_steps": COUNT, "seed": SEED}
    | {"peak_rate": RATE, "clip_norm": replace(STRENGTH, above=True)}
    | dict.fromkeys(("warmup_share", "decay_share", "label_smoothing"), SHARE)
    | dict.fromkeys(("adam_rate_share", "muon_weight_decay", "adam_weight_decay"), STRENGTH)
    | dict.fromkeys(("init_std", "embedding_std", "post_norm_gain"), STRENGTH)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """What decides a run, besides the model and the data.

    Raises:
        InputError: a number out of range.
    """

    epochs: int = 18
    batch_size: int = 128
    matrix_optimizer: Literal["muon", "adamw"] = "muon"  # of the matrices inside layers
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
        check_fields(self, RANGES, InputError)
        check_choice("matrix_optimizer", self.matrix_optimizer, ("muon", "adamw"))

    def deciding(self) -> dict[str, Any]:
        """Return what decides the result: everything but how often a checkpoint is written."""
        return {name: value for name, value in asdict(self).items() if name != "checkpoint_steps"}


@dataclass(frozen=True, slots=True)
class Progress:
    """What one step did, for a progress display."""

    step: int  # steps done
    total_steps: int
    epoch: int
    loss: float
    mean_loss: float  # of the last twenty steps or so, see `running_mean`
    rate: float
    step_s: float


@dataclass(slots=True)
class Trainer:
    """Trains one model; call `run` and iterate.

    Args:
        model: the configuration.
        config: of the run.
        epoch_data: makes the examples of one epoch from a generator; always equally many.
        inputs: {what: file that the data come from}; a changed one is another run.
        arithmetic: computes what is no product of matrices; NumPy by default.
    """

    model: ModelConfig
    config: TrainConfig
    epoch_data: EpochData
    inputs: Mapping[str, Path | None] = field(default_factory=dict)
    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    identity: Identity = field(init=False)
    weights: Weights = field(init=False)
    state: dict[str, Weights] = field(init=False)  # per weight, what its optimizer remembers
    step: int = field(init=False, default=0)  # steps done
    frozen: Weights = field(init=False, default_factory=dict)  # under a LoRA
    lora: LoraConfig | None = field(init=False, default=None)
    teacher: Teacher | None = field(init=False, default=None)
    mean_loss: float = field(init=False, default=math.nan)

    def __post_init__(self) -> None:
        """Draw initial weights."""
        config, train = json.loads(self.model.to_json()), self.config.deciding()
        self.identity = identity_of(self.inputs, config=config, train=train)
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
            InputError: an epoch has too few examples for one batch, or the loss is no number.
        """
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
                check_loss(loss, self.step)
                self.mean_loss = running_mean(self.mean_loss, loss)
                if checkpoint and (
                    self.step % self.config.checkpoint_steps == 0 or self.step == total
                ):
                    self.save(checkpoint)
                seconds = time.perf_counter() - started
                yield Progress(self.step, total, epoch, loss, self.mean_loss, rate, seconds)

    def _epoch(self, epoch: int) -> list[Batch]:
        rng = np.random.default_rng([self.config.seed, 1, epoch])
        return list(batches(self.epoch_data(rng), self.config.batch_size, self.model, rng))

    @np.errstate(over="ignore", invalid="ignore")  # `run` looks at the loss
    def train_step(self, batch: Batch, rate: float) -> float:
        """Take one step.

        Args:
            batch: the examples.
            rate: learning rate.

        Returns:
            The loss before the step.
        """
        rng = np.random.default_rng([self.config.seed, 2, self.step])
        tape = TapeOps(self.weights, self.model.dropout, rng, self.frozen, self.arithmetic)
        scores = mu.forward(
            self._around(tape), self.model, batch.source, batch.source_valid, batch.inputs,
            batch.counted,
        )  # fmt: skip
        loss = cross_entropy(tape, scores, batch.labels, batch.counted, self.config.label_smoothing)
        if self.teacher is not None:
            loss = self.teacher.taught(tape, loss, scores, batch)
        grads = tape.backward(loss)
        factor, _ = clip_factor(grads, self.config.clip_norm)
        self.step += 1
        muon = Muon(weight_decay=self.config.muon_weight_decay)
        adam = AdamW(weight_decay=self.config.adam_weight_decay, arithmetic=self.arithmetic)
        for name, whole in grads.items():
            grad = whole * whole.dtype.type(factor)
            weight, state = self.weights[name], self.state[name]
            if self.config.matrix_optimizer == "muon" and is_muon_weight(name, weight):
                muon.update(weight, grad, state, rate)
            else:
                adam_rate = rate * self.config.adam_rate_share
                adam.update(weight, grad, state, adam_rate, self.step)
        return float(loss.value)

    def exact_share(self, examples: Sequence[Example]) -> float:
        """Return the share of examples whose target greedy decoding would write, token for token.

        Greedy decoding writes the target if, and only if, each of its tokens has the highest score
        after those before it: so one pass over the targets tells, and nothing is decoded.

        Args:
            examples: at least one; equal scores go to the lowest token, as in decoding.
        """
        right = 0
        for start in range(0, len(examples), self.config.batch_size):
            batch = make_batch(examples[start : start + self.config.batch_size], self.model)
            frozen = {**self.frozen, **self.weights}
            ops = self._around(TapeOps({}, frozen=frozen, arithmetic=self.arithmetic))
            source = batch.source, batch.source_valid
            scores = mu.forward(ops, self.model, *source, batch.inputs, batch.counted)
            hit = ops.argmax(scores, "head") == batch.labels
            right += int((hit | ~batch.counted).all(axis=1).sum())
        return right / len(examples)

    def _around(self, tape: TapeOps) -> Ops:
        if self.lora is None:
            return tape
        return LoraOps(tape, dict.fromkeys(lora_sites(self.model, self.lora), self.lora.factor))

    def learn_from(self, teacher: Teacher) -> None:
        """Let a teacher's scores count beside the labels.

        Args:
            teacher: its file belongs to `inputs`.

        Raises:
            InputError: it reads or writes other tokens.
        """
        teacher.check_student(self.model)
        self.teacher = teacher
        self.identity = {**self.identity, "distillation": asdict(teacher.how)}

    def adapt(self, lora: LoraConfig) -> None:
        """Freeze the weights that there are, and train a LoRA on top of them.

        Args:
            lora: its configuration.

        Raises:
            InputError: a pattern of its sites fits no linear layer.
        """
        rng = np.random.default_rng([self.config.seed, 0, 1])
        self.frozen, self.weights = self.weights, initial_lora(self.model, lora, rng)
        self.state = {name: {} for name in self.weights}
        self.lora = lora
        self.identity = {**self.identity, "lora": asdict(lora)}

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
        """Write everything that `resume` needs; the checkpoint before it is kept."""
        state = State(self.weights, self.state, self.step, self.mean_loss)
        write_checkpoint(path, self.identity, state)

    def resume(self, path: Path) -> Path:
        """Continue from a checkpoint.

        Args:
            path: file written by `save`.

        Returns:
            The file that was whole: `path`, or the one before it.

        Raises:
            InputError: no checkpoint, or one of another model or another run.
            WeightsError: the file is damaged, and there is none before it.
        """
        found, place = read_checkpoint(
            path, self.identity, {name: weight.shape for name, weight in self.weights.items()}
        )
        self.weights = found.weights
        self.state = {name: dict(found.moments[name]) for name in found.weights}
        self.step, self.mean_loss = found.step, found.mean_loss
        return place
