"""Distillation: a student learns what a larger model holds for likely, beside the labels.

The teacher scores the very sequences that the student reads, in the wording of the epoch; nothing
is stored. Chapter: `docs/09_training.md`.
"""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from mu_ref.border.ranges import FACTOR, SHARE, check_fields
from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.model import mu
from mu_ref.ops.arithmetic import Arithmetic
from mu_ref.ops.tape import Node, TapeOps
from mu_ref.training.datasets import Batch
from mu_ref.training.losses import forward_kl, mixed
from mu_ref.weights import Weights

__all__ = ["Distillation", "Teacher"]

RANGES = MappingProxyType({"temperature": FACTOR, "mix": SHARE})


@dataclass(frozen=True, kw_only=True, slots=True)
class Distillation:
    """How much a student heeds its teacher.

    Raises:
        InputError: a number out of range.
    """

    temperature: float = 1.0  # tau of (3.5)
    mix: float = 0.5  # mu of (3.6): 0 is the labels alone, 1 the teacher alone

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_fields(self, RANGES, InputError)


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained model of the student's vocabulary.

    Raises:
        InputError: the vocabularies differ.
    """

    model: ModelConfig
    weights: Weights
    how: Distillation

    def check_student(self, student: ModelConfig) -> None:
        """Raise InputError unless teacher and student read and write the same tokens."""
        sizes = [(m.vocab_size, m.encoder_vocab_size) for m in (self.model, student)]
        if sizes[0] != sizes[1] or self.model.encoder is None or self.model.decoder is None:
            raise InputError(
                f"a teacher must be an encoder-decoder with the student's {student.vocab_size} "
                f"tokens, got {self.model.name} with {self.model.vocab_size}"
            )

    def scores(self, batch: Batch, arithmetic: Arithmetic | None = None) -> np.ndarray:
        """Score the labels of a batch: [batch, n_tgt, vocab_size]; nothing is dropped."""
        tape = TapeOps({}, frozen=self.weights, arithmetic=arithmetic)
        source = batch.source, batch.source_valid
        return mu.forward(tape, self.model, *source, batch.inputs, batch.counted).value

    def taught(self, ops: TapeOps, hard: Node, logits: Node, batch: Batch) -> Node:
        """Return the loss of a student.

        Args:
            ops: the student's tape.
            hard: its loss against the labels.
            logits: [batch, n_tgt, vocab_size], its scores.
            batch: what it read.

        Returns:
            A node with one element, (3.6).
        """
        if self.how.mix == 0:
            return hard
        wise = self.scores(batch, ops.arithmetic)
        soft = forward_kl(ops, logits, wise, batch.counted, self.how.temperature)
        return mixed(ops, hard, soft, self.how.mix)
