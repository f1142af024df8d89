"""How Mu learns: the rate over a run, Muon's work on a gradient, and what each choice is worth."""

import csv
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mu_ref.model import mu
from mu_ref.ops.tape import TapeOps
from mu_ref.presets import tiny
from mu_ref.training.losses import cross_entropy
from mu_ref.training.optimizers import AdamW, Muon, orthogonalize
from mu_ref.training.schedule import WarmupStableDecay
from mu_ref.training.trainer import TrainConfig
from mu_ref.weights import initial_weights
from npu_sim.show.figure import BLUE, DARK, GREEN, GREY, ORANGE, YELLOW, figure

__all__ = ["ablations", "mu_nano", "training"]

N_STEPS = 50


def training() -> Figure:
    """Draw the schedule of mu-nano, five rounds of (3.2), and losses of `tiny` learning to copy."""
    drawing, (rates, values, losses) = figure(8.0, 3.0, columns=3)
    config = TrainConfig()
    steps = np.arange(1000)
    schedule = WarmupStableDecay(
        peak=config.peak_rate, total_steps=1000,
        warmup_steps=round(1000 * config.warmup_share),
        decay_steps=round(1000 * config.decay_share),
    )  # fmt: skip
    rates.plot(steps / 10, [1000 * schedule.rate(int(s)) for s in steps], color=BLUE)
    rates.set(xlabel="% of the run", ylabel="learning rate, 1/1000", title="warm up, stay, decay")
    gradient = np.random.default_rng(1).standard_normal((8, 12)) * np.geomspace(10, 0.1, 8)[:, None]
    for n, (colour, form) in enumerate(
        ((GREY, "o:"), (YELLOW, "s--"), (BLUE, "^-.")), start=0
    ):  # fmt: skip
        rounds = (0, 2, 5)[n]
        made = orthogonalize(gradient, rounds)
        singular = np.linalg.svd(made, compute_uv=False)
        values.plot(range(1, 9), singular, form, color=colour, markersize=4,
                    label=f"{rounds} rounds")  # fmt: skip
    values.set(
        xlabel="largest to smallest", ylabel="singular value", title="Muon: (3.2) evens them"
    )
    values.set_ylim(0, 1.9)
    values.legend(frameon=False)
    for kind, colour, form in (("AdamW alone", DARK, "--"), ("Muon and AdamW", BLUE, "-")):
        losses.plot(_losses(muon=kind != "AdamW alone"), form, color=colour, label=kind)
    losses.set(xlabel="step", ylabel="loss", title="tiny learns to copy")
    losses.set_ylim(bottom=0)
    losses.legend(frameon=False)
    return drawing


def _losses(*, muon: bool) -> list[float]:
    """Losses of `tiny` over steps of 12 examples; matrices inside layers by Muon, if asked."""
    model, rng = tiny(), np.random.default_rng(0)
    weights = initial_weights(model, np.random.default_rng(0))
    states: dict[str, dict[str, Any]] = {name: {} for name in weights}
    found = []
    for step in range(1, N_STEPS + 1):
        source = rng.integers(4, 20, (12, 5))
        start = np.full((12, 1), model.bos_id)
        inputs = np.concatenate([start, source[:, :-1]], axis=1)
        tape = TapeOps(weights)
        everywhere = np.ones(source.shape, bool)
        scores = mu.forward(tape, model, source, everywhere, inputs)
        loss = cross_entropy(tape, scores, source, everywhere)
        found.append(float(loss.value))
        for name, gradient in tape.backward(loss).items():
            inside = weights[name].ndim == 2 and "embedding" not in name and "head" not in name
            if muon and inside:
                Muon().update(weights[name], gradient, states[name], 0.02)
            else:
                AdamW().update(weights[name], gradient, states[name], 0.005, step)
    return found


def mu_nano() -> Figure:
    """Draw loss and rate at the checkpoints of the training of the shipped weights."""
    rows = _read("mu_nano.csv")
    steps = [int(row["step"]) for row in rows]
    drawing, (losses, rates) = figure(8.0, 3.0, columns=2)
    losses.plot(steps, [float(row["loss"]) for row in rows], color=BLUE)
    losses.set(
        xlabel="step (128 queries each)", ylabel="loss per token", title="mean of twenty steps"
    )
    rates.plot(steps, [1000 * float(row["rate"]) for row in rows], color=GREEN)
    rates.set(xlabel="step", ylabel="learning rate, 1/1000", title="after the warm-up: stay, decay")
    rates.set_ylim(bottom=0)
    return drawing


def _read(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / name).open(newline="") as file:
        return list(csv.DictReader(file))


def ablations() -> Figure:
    """Draw held-out losses of the ablations: the mean of three seeds in a band of all of them."""
    rows = _read("ablations.csv")
    drawing, axes = figure(8.0, 3.6)
    looks = ((BLUE, "o-"), (GREEN, "s--"), (ORANGE, "^-."), (DARK, "v:"))
    names = [name for name in dict.fromkeys(row["run"] for row in rows) if "teacher" not in name]
    for name, (colour, form) in zip(names, looks, strict=True):
        own = [row for row in rows if row["run"] == name]
        steps = sorted({int(row["step"]) for row in own})
        losses = [[float(row["part_loss"]) for row in own if int(row["step"]) == n] for n in steps]
        axes.plot(
            steps, [mean(seeds) for seeds in losses], form, color=colour, markersize=4, label=name
        )
        least, most = [min(seeds) for seeds in losses], [max(seeds) for seeds in losses]
        axes.fill_between(steps, least, most, alpha=0.2, color=colour, lw=0)
    axes.set(xlabel="step (32 queries each)", ylabel="loss per token, held-out queries")
    axes.set_xticks(steps)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return drawing
