"""Train a drafter on what the model itself writes (the paper's distillation), the model frozen.

The model's greedy continuations and hidden states are computed once; a step then costs the small
drafter only. Chapter: `docs/15_drafting.md`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from mu_ref.border.ranges import (
    BATCH,
    DRAFTED,
    EPOCHS,
    RATE,
    SEED,
    SHARE,
    STRENGTH,
    check_fields,
)  # fmt: skip
from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.generate import stream
from mu_ref.model import mu
from mu_ref.model.decoder import decode
from mu_ref.model.encoder import embed
from mu_ref.ops import Ops
from mu_ref.ops.tape import Node, TapeOps
from mu_ref.redrafter.config import DrafterConfig, initial_drafter
from mu_ref.redrafter.losses import draft_losses, draft_scores, total
from mu_ref.training.checkpoint import State, check_loss, running_mean
from mu_ref.training.optimizers import AdamW, clip_gradients
from mu_ref.training.schedule import WarmupStableDecay
from mu_ref.weights import Weights

__all__ = [
    "Distilled",
    "DrafterTraining",
    "TrainingStep",
    "distill",
    "first_state",
    "token_embeddings",
    "train_drafter",
]

RANGES = MappingProxyType(
    {"epochs": EPOCHS, "draft_len": DRAFTED, "batch_size": BATCH, "peak_rate": RATE, "seed": SEED}
    | {"weight_decay": STRENGTH, "clip_norm": replace(STRENGTH, above=True)}
    | dict.fromkeys(("warmup_share", "decay_share", "later_share"), SHARE)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DrafterTraining:
    """What decides a run, besides the drafter and the data.

    Raises:
        InputError: a number out of range.
    """

    epochs: int = 4
    draft_len: int = 8  # tokens ahead that are trained
    batch_size: int = 1024  # positions
    peak_rate: float = 3e-3
    weight_decay: float = 0.01
    warmup_share: float = 0.05  # of all steps
    decay_share: float = 0.6  # of all steps
    clip_norm: float = 1.0
    seed: int = 0
    later_share: float = 1.0  # of the positions behind an answer's first, see `distill`

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_fields(self, RANGES, InputError)


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """What one step did."""

    weights: Weights  # updated in place
    loss: float  # mean over the tokens ahead
    step: int  # steps done
    total_steps: int
    state: State  # all that the next step depends on


@dataclass(frozen=True, slots=True)
class Distilled:
    """Positions of the model's own texts: where it stood, and what it wrote next."""

    hidden: np.ndarray  # [n, d_model] float32, after the final norm
    following: np.ndarray  # [n, draft_len + 1] int, the model's next tokens
    n_targets: np.ndarray  # [n] int, how many of them, after the first, it really wrote

    def longest_first(self, rows: np.ndarray) -> "Distilled":
        """Pick positions, those with most targets first."""
        rows = rows[np.argsort(-self.n_targets[rows], kind="stable")]
        return Distilled(self.hidden[rows], self.following[rows], self.n_targets[rows])


def distill(
    ops: Ops,
    model: ModelConfig,
    source: np.ndarray,
    source_valid: np.ndarray,
    max_new_tokens: int,
    draft_len: int,
    *,
    later_share: float = 1.0,
    rng: np.random.Generator | None = None,
) -> Distilled:
    """Let the model answer greedily, and note its state at every position of its answers.

    Every text is drafted from its first position, and from later ones only behind a draft that was
    wrong or used up; a share of those may be enough.

    Args:
        ops: the executor of the model.
        model: an encoder-decoder.
        source: [batch, n_src] int.
        source_valid: [batch, n_src] bool.
        max_new_tokens: limit of an answer.
        draft_len: how far ahead to look.
        later_share: of the positions behind the first of each answer.
        rng: says which; needed unless all are.

    Returns:
        Positions after which at least two tokens came.

    Raises:
        InputError: a share without a generator.
    """
    if later_share < 1 and rng is None:
        raise InputError("a share of later positions must be given a generator; pass rng")
    memory = mu.remember(ops, model, source, source_valid)
    start = np.full((len(source), 1), model.bos_id)
    steps = list(stream(ops, model, memory, start, np.ones(start.shape, bool), max_new_tokens))
    written = np.stack([step.tokens for step in steps], axis=1)  # [batch, n]
    ended = np.stack([step.ended for step in steps], axis=1)
    lengths = np.minimum((~ended).sum(axis=1) + 1, written.shape[1])  # eos included
    read = np.concatenate([start, written[:, :-1]], axis=1)  # what the decoder read for each token
    valid = np.arange(read.shape[1]) < lengths[:, None]
    hidden = ops.read(decode(ops, model, read, valid, memory))  # [batch, n, d_model]
    padded = np.pad(written, ((0, 0), (0, draft_len)), constant_values=model.pad_id)
    following = np.lib.stride_tricks.sliding_window_view(padded, draft_len + 1, axis=1)
    n_targets = lengths[:, None] - 1 - np.arange(read.shape[1])
    rows = n_targets > 0
    if rng is not None:
        rows &= (np.arange(read.shape[1]) == 0) | (rng.random(rows.shape) < later_share)
    return Distilled(
        hidden[rows].astype(np.float32),
        following[rows],
        np.minimum(n_targets[rows], draft_len),
    )


def token_embeddings(ops: Ops, model: ModelConfig) -> np.ndarray:
    """Every token as the decoder's first layer reads it: [vocab_size, d_model] float32."""
    tokens = np.arange(model.vocab_size)[None]
    return ops.read(embed(ops, model, tokens, "decoder"))[0].astype(np.float32)


def train_drafter(
    drafter: DrafterConfig,
    table: np.ndarray,
    data: Distilled,
    training: DrafterTraining,
    state: State | None = None,
) -> Iterator[TrainingStep]:
    """Train a drafter.

    Args:
        drafter: the drafter.
        table: [vocab_size, d_model], from `token_embeddings`.
        data: positions to learn from.
        training: of the run.
        state: where to go on from; that of `first_state`, with random weights, by default.

    Yields:
        What each step did.

    Raises:
        InputError: fewer positions than a batch, or the loss is no number any more.
    """
    size, n_rows = training.batch_size, len(data.hidden)
    if n_rows < size:
        raise InputError(f"training must see at least {size} positions, got {n_rows}")
    if state is None:
        state = first_state(drafter, training)
    weights, moments = state.weights, {name: dict(m) for name, m in state.moments.items()}
    per_epoch = n_rows // size
    steps = training.epochs * per_epoch
    schedule = WarmupStableDecay(
        peak=training.peak_rate,
        warmup_steps=max(1, round(steps * training.warmup_share)),
        decay_steps=max(1, round(steps * training.decay_share)),
        total_steps=steps,
    )
    for epoch in range(state.step // per_epoch, training.epochs):
        order = np.random.default_rng([training.seed, 1, epoch]).permutation(n_rows)
        for i in range(state.step - epoch * per_epoch, per_epoch):
            batch = data.longest_first(order[i * size : (i + 1) * size])
            rate, step = schedule.rate(state.step), state.step + 1
            loss = _train_step(drafter, table, batch, training, weights, moments, rate, step)
            check_loss(loss, step)
            state = State(weights, moments, step, running_mean(state.mean_loss, loss))
            yield TrainingStep(weights, loss, step, steps, state)


def first_state(
    drafter: DrafterConfig, training: DrafterTraining, start: Weights | None = None
) -> State:
    """Return where a run begins: with the weights of `start`, or with random ones."""
    weights = initial_drafter(drafter, np.random.default_rng([training.seed, 0]))
    weights |= {name: given.copy() for name, given in (start or {}).items()}
    return State(weights, {name: {} for name in weights}, 0, math.nan)


@np.errstate(over="ignore", invalid="ignore")  # the caller looks at the loss
def _train_step(
    drafter: DrafterConfig,
    table: np.ndarray,
    batch: Distilled,
    training: DrafterTraining,
    weights: Weights,
    moments: dict[str, Weights],
    rate: float,
    step: int,
) -> float:
    """Step all weights in place; return the loss for each token ahead, before the step."""
    ops = TapeOps(weights)
    loss = _loss(ops, drafter, table, batch)
    grads, _ = clip_gradients(ops.backward(loss), training.clip_norm)
    adam = AdamW(weight_decay=training.weight_decay)
    for name, grad in grads.items():
        adam.update(weights[name], grad, moments[name], rate, step)
    return float(loss.value) / int(batch.n_targets.max())


def _loss(ops: TapeOps, drafter: DrafterConfig, table: np.ndarray, batch: Distilled) -> Node:
    """Loss of positions sorted by how many targets they have, most first."""
    counts = [int((batch.n_targets > i).sum()) for i in range(batch.n_targets.max())]
    embeddings = [table[batch.following[:n, i]] for i, n in enumerate(counts)]
    targets = [batch.following[:n, i + 1] for i, n in enumerate(counts)]
    logits = draft_scores(ops, drafter, batch.hidden, embeddings)
    return total(ops, draft_losses(ops, logits, targets, [np.ones(n, bool) for n in counts]))
