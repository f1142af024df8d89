"""Train the Settings agent's drafter: queries in, drafter file out, with a display of the way."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType

from rich.console import Console

from mu_ref.border.ranges import COUNT
from mu_ref.errors import InputError
from mu_ref.redrafter.config import DrafterConfig, drafter_shapes
from mu_ref.redrafter.store import load_drafter, save_drafter
from mu_ref.redrafter.train import (
    DrafterTraining,
    TrainingStep,
    first_state,
    token_embeddings,
    train_drafter,
)  # fmt: skip
from mu_ref.settings.agent import MAX_NEW_TOKENS, Agent
from mu_ref.settings.drafts import distill_queries
from mu_ref.settings.training_run import halves_of, plan_run, run_to_end, say_resumed
from mu_ref.training.checkpoint import (
    State,
    identity_of,
    read_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)  # fmt: skip
from mu_ref.weights import read_safetensors

__all__ = ["train_agent_drafter"]


def train_agent_drafter(
    agent: Agent,
    drafter: DrafterConfig,
    queries: Sequence[str],
    training: DrafterTraining,
    out: Path,
    *,
    inputs: Mapping[str, Path | None],
    start: Path | None,
    resume: bool = False,
    checkpoint_steps: int = 50,
    notes: Mapping[str, str] = MappingProxyType({}),
    console: Console,
) -> None:
    """Distil the agent into a drafter and write it in float16.

    Args:
        agent: on a float executor.
        drafter: the drafter.
        queries: what the agent answers; its own answers are the labels.
        training: of the run.
        out: drafter file; the checkpoints stand beside it until it is written.
        inputs: {what: file} that the agent and the queries come from.
        start: drafter to start from; its configuration takes the place of `drafter`.
        resume: continue from the newest checkpoint that is whole; the answers are made again.
        checkpoint_steps: steps from one checkpoint to the next.
        notes: what the file says of the queries, too.
        console: where progress is shown.

    Raises:
        InputError: fewer positions than a batch; see `plan_run`; the loss is no number any more.
        WeightsError, ConfigError: `start` is no drafter, or of another model.
        KeyboardInterrupt: the user stopped the run; a checkpoint has been written.
    """
    COUNT.check("checkpoint_steps", checkpoint_steps)
    checkpoint = plan_run(out, [*inputs.values(), start], resume=resume)
    _check_batch(training, len(queries))
    drafter, before = (drafter, {}) if start is None else load_drafter(start, agent.model)
    run = identity_of(
        {**inputs, "--start": start}, drafter=asdict(drafter), train=asdict(training),
        queries=len(queries), **notes,
    )  # fmt: skip
    state = first_state(drafter, training, before)
    if resume and checkpoint is not None:
        state, place = read_checkpoint(checkpoint, run, drafter_shapes(drafter))
        say_resumed(console, state.step, place, checkpoint)
    n, share, seed = training.draft_len, training.later_share, training.seed
    data = distill_queries(agent, queries, n, console, later_share=share, seed=seed)
    console.print(f"{len(queries):,} answers, {len(data.hidden):,} positions")
    steps = train_drafter(drafter, token_embeddings(agent.ops, agent.model), data, training, state)
    save = partial(write_checkpoint, checkpoint, run) if checkpoint is not None else _save_nothing
    kept = _kept(steps, checkpoint_steps, save)
    last = run_to_end(kept, _words, lambda step: save(step.state), checkpoint, console)
    state = state if last is None else last.state
    how = {**notes, **_notes(training, len(queries), len(data.hidden), state, start)}
    save_drafter(out, drafter, halves_of(state.weights), how)
    if checkpoint is not None:
        remove_checkpoints(checkpoint)
    console.print(f"wrote {out}", soft_wrap=True)


def _notes(
    training: DrafterTraining, n_queries: int, n_positions: int, state: State, start: Path | None
) -> dict[str, str]:
    """How the drafter was made."""
    before = {} if start is None else {"start": json.dumps(read_safetensors(start)[1])}
    return before | {
        "train": json.dumps(asdict(training)),
        "queries": str(n_queries),
        "positions": str(n_positions),
        "loss": f"{state.mean_loss:.4f}",
    }


def _save_nothing(state: State) -> None:
    pass


def _words(step: TrainingStep) -> str:
    return f"loss {step.state.mean_loss:.3f} per token"


def _kept(
    steps: Iterable[TrainingStep], interval: int, save: Callable[[State], None]
) -> Iterator[TrainingStep]:
    """Pass steps on, and save every `interval` of them and the last."""
    for step in steps:
        if step.step % interval == 0 or step.step == step.total_steps:
            save(step.state)
        yield step


def _check_batch(training: DrafterTraining, n_queries: int) -> None:
    """Refuse, before anything is answered, a batch that no answers could fill."""
    most = n_queries * (MAX_NEW_TOKENS - 1)
    if training.batch_size > most:
        raise InputError(
            f"training must see at least {training.batch_size} positions, got at most {most} of "
            f"{n_queries} queries; give more queries or a smaller --batch-size"
        )
