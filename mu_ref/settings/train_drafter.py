"""Train the Settings agent's drafter: queries in, drafter file out, with a display of the way."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mu_ref.redrafter.config import DrafterConfig
from mu_ref.redrafter.store import load_drafter, save_drafter
from mu_ref.redrafter.train import DrafterTraining, token_embeddings, train_drafter
from mu_ref.settings.agent import Agent
from mu_ref.settings.drafts import distill_queries

__all__ = ["train_agent_drafter"]


def train_agent_drafter(
    agent: Agent,
    drafter: DrafterConfig,
    queries: Sequence[str],
    training: DrafterTraining,
    out: Path,
    *,
    start: Path | None,
    console: Console,
) -> None:
    """Distil the agent into a drafter and write it in float16.

    Args:
        agent: on a float executor.
        drafter: the drafter.
        queries: what the agent answers; its own answers are the labels.
        training: of the run.
        out: drafter file.
        start: drafter to start from; its configuration takes the place of `drafter`.
        console: where progress is shown.

    Raises:
        InputError: fewer positions than a batch.
        WeightsError, ConfigError: `start` is no drafter, or of another model.
    """
    before = None
    if start is not None:
        drafter, before = load_drafter(start, agent.model)
    out.parent.mkdir(parents=True, exist_ok=True)
    data = distill_queries(agent, queries, training.draft_len, console)
    console.print(f"{len(queries):,} answers, {len(data.hidden):,} positions")
    table = token_embeddings(agent.ops, agent.model)
    columns = (
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f} per token"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as display:
        task = display.add_task("training", total=None, loss=float("nan"))
        mean = float("nan")
        for step in train_drafter(drafter, table, data, training, before):
            # a running mean: a single batch says little
            mean = step.loss if np.isnan(mean) else 0.95 * mean + 0.05 * step.loss
            display.update(task, completed=step.step, total=step.total_steps, loss=mean)
            weights = step.weights
    notes = {
        "train": json.dumps(asdict(training)),
        "queries": str(len(queries)),
        "positions": str(len(data.hidden)),
        "loss": f"{mean:.4f}",
    }
    save_drafter(out, drafter, weights, notes)
    console.print(f"wrote {out}")
