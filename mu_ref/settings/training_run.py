"""What both trainers of the Settings agent share: files of a run, its display, and its stops."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mu_ref.border.files import check_outputs, is_stream
from mu_ref.errors import InputError
from mu_ref.training.checkpoint import checkpoint_before, checkpoints_of
from mu_ref.weights import Weights

__all__ = ["halves_of", "plan_run", "run_to_end", "say_resumed"]


class Step(Protocol):
    """What a step of either trainer tells."""

    @property
    def step(self) -> int:
        """Steps done."""

    @property
    def total_steps(self) -> int:
        """Steps of the run."""


AStep = TypeVar("AStep", bound=Step)


def plan_run(out: Path, inputs: Iterable[Path | None], *, resume: bool) -> Path | None:
    """Check, before any work, where a run writes and whether there is something to go on from.

    Args:
        out: what the run makes.
        inputs: every file that it reads.
        resume: whether it goes on from a checkpoint.

    Returns:
        Where its newest checkpoint lies, beside `out`; None if that is a device or a pipe.

    Raises:
        InputError: see `check_outputs`; or there is a checkpoint and `resume` is not given, or the
            other way round.
    """
    if is_stream(out):
        if resume:
            raise InputError(f"--resume must have a file as --out, got {out}; it has no checkpoint")
        return None
    check_outputs({"--out": out}, inputs)  # a name that is a folder has no file beside it
    checkpoint = out.with_name(f"{out.name.removesuffix('.safetensors')}.checkpoint.safetensors")
    written = {
        "--out": out,
        "the checkpoint of --out": checkpoint,
        "the checkpoint before": checkpoint_before(checkpoint),
    }
    check_outputs(written, inputs)
    found = checkpoints_of(checkpoint)
    if resume and not found:
        raise InputError(
            f"--resume must find {checkpoint}; there is none. Leave --resume out to start"
        )
    if found and not resume:
        raise InputError(f"{found[0]} exists; give --resume to go on, or delete it to start anew")
    return checkpoint


def run_to_end(
    steps: Iterable[AStep],
    describe: Callable[[AStep], str],
    save: Callable[[AStep], None],
    checkpoint: Path | None,
    console: Console,
) -> AStep | None:
    """Take all steps, with a display; an interrupt saves first, and says how to go on.

    Args:
        steps: of a trainer.
        describe: words about a step.
        save: writes the checkpoint after a step.
        checkpoint: where `save` writes; without one nothing is saved.
        console: where progress is shown.

    Returns:
        The last step; None if there was none left.

    Raises:
        KeyboardInterrupt: the user stopped the run.
    """
    columns = (
        TextColumn("{task.fields[steps]}"),
        BarColumn(),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(),
    )
    last, stopped = None, False
    coming = iter(steps)
    with _interrupt_noted() as interrupted, ExitStack() as shown:
        # a run that is refused at its first step has shown nothing
        begun = list(islice(coming, 1))
        display = shown.enter_context(Progress(*columns, console=console))
        task = display.add_task("", total=None, steps="")
        for last in chain(begun, coming):
            display.update(
                task, completed=last.step, total=last.total_steps, description=describe(last),
                steps=f"step {last.step}/{last.total_steps}",
            )  # fmt: skip
            stopped = bool(interrupted) and last.step < last.total_steps
            if stopped:
                break
    if last is None or not stopped:
        return last
    if checkpoint is None:
        console.print("stopped; beside a device no checkpoint is kept")
    else:
        save(last)
        console.print(
            f"stopped after step {last.step}; the same command with --resume goes on from "
            f"{checkpoint}",
            soft_wrap=True,
        )
    raise KeyboardInterrupt


def say_resumed(console: Console, step: int, place: Path, newest: Path) -> None:
    """Say where a run goes on, and whether that is the checkpoint before the newest."""
    why = "" if place == newest else f"; {newest.name} was not whole"
    console.print(f"goes on after step {step}, from {place}{why}", soft_wrap=True)


def halves_of(weights: Weights) -> dict[str, np.ndarray]:
    """Return float16 copies; InputError if one is no number or too large for it."""
    with np.errstate(over="ignore"):
        halves = {name: weight.astype(np.float16) for name, weight in weights.items()}
    for name, half in halves.items():
        if not np.isfinite(half).all():
            raise InputError(
                f"{name} must hold numbers that fit float16, at most 65,504; it does not after "
                "this run. Give a smaller --rate, and delete the checkpoint"
            )
    return halves


@contextmanager
def _interrupt_noted() -> Iterator[list[int]]:
    """Turn Ctrl-C into a note, so that a step is never left half done."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted  # only the main thread gets signals
        return
    before = signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
