"""Checkpoints of training: what makes a run the same run, and its two newest states on disk.

A run goes on from a checkpoint only if it would have come there itself: same options, same content
of every file that it reads, same version of this package. Two checkpoints are kept, so that a
damaged one costs an interval and not the run.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.reading import file_digest
from mu_ref.errors import InputError, WeightsError
from mu_ref.version import __version__
from mu_ref.weights import Shape, Weights, check_names, read_safetensors, write_safetensors

__all__ = [
    "Identity", "State", "check_loss", "checkpoint_before", "checkpoints_of",
    "identity_of", "read_checkpoint", "remove_checkpoints", "running_mean", "write_checkpoint",
]  # fmt: skip

Identity = Mapping[str, Any]  # {what: JSON}: all that decides a run


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stands: all that its next step depends on, and its loss so far."""

    weights: Weights
    moments: Mapping[str, Weights]  # of each weight, what its optimizer remembers
    step: int  # steps done
    mean_loss: float  # see `running_mean`


def identity_of(inputs: Mapping[str, Path | None], **decided: Any) -> Identity:
    """Return what makes a run the same run.

    Args:
        inputs: {what: file that the run reads}; its content counts, not its place.
        **decided: configurations and options, as JSON.

    Returns:
        All of it, with the version of this package.

    Raises:
        InputError: a file cannot be read.
    """
    digests = {what: None if path is None else file_digest(path) for what, path in inputs.items()}
    return {**decided, "input": digests, "version": __version__}


def running_mean(before: float, loss: float) -> float:
    """Return the mean of the loss over the last twenty steps or so: a single batch says little."""
    return loss if math.isnan(before) else 0.95 * before + 0.05 * loss


def check_loss(loss: float, step: int) -> None:
    """Raise InputError if the loss of a step is no number any more: such a run is lost."""
    if not math.isfinite(loss):
        raise InputError(
            f"the loss must stay a number, got {loss} at step {step}; "
            "give a smaller --rate, or other weights to start from"
        )


def checkpoint_before(path: Path) -> Path:
    """Return where the checkpoint before the newest lies."""
    return path.with_name(f"{path.stem}.1{path.suffix}")


def checkpoints_of(path: Path) -> list[Path]:
    """Return those of the two checkpoints that are there, the newest first."""
    return [place for place in (path, checkpoint_before(path)) if os.path.lexists(place)]


def write_checkpoint(path: Path, run: Identity, state: State) -> None:
    """Write a checkpoint; the one that was the newest stays as the one before.

    Args:
        path: of the newest.
        run: from `identity_of`.
        state: of the run.

    Raises:
        InputError: a weight is no number any more.
    """
    tensors = dict(state.weights)
    if not all(np.isfinite(weight).all() for weight in tensors.values()):
        check_loss(math.nan, state.step)
    for name, moments in state.moments.items():
        tensors |= {f"{name}:{kind}": array for kind, array in moments.items()}
    notes = {what: json.dumps(value) for what, value in run.items()}
    notes |= {"step": str(state.step), "mean_loss": repr(state.mean_loss)}
    notes["checksum"] = _checksum(tensors, notes)
    if path.exists():
        path.replace(checkpoint_before(path))
    write_safetensors(path, tensors, notes)


def read_checkpoint(path: Path, run: Identity, shapes: Mapping[str, Shape]) -> tuple[State, Path]:
    """Read the newest checkpoint that is whole.

    Args:
        path: of the newest; if it is damaged it is removed, lest it take the place of a whole one.
        run: must be that of the checkpoint.
        shapes: of the weights.

    Returns:
        The state, and the file it came from.

    Raises:
        InputError: no checkpoint, or one of another run; says what has changed.
        WeightsError: none is whole.
    """
    fault: WeightsError | None = None
    for place in checkpoints_of(path):
        try:
            state = _read(place, run, shapes)
        except WeightsError as error:
            fault = fault or error
            continue
        if fault is not None:
            path.unlink()
        return state, place
    if fault is not None:
        raise fault
    raise InputError(
        f"{path} must be a checkpoint to go on from; there is none. Leave --resume out to start"
    )


def remove_checkpoints(path: Path) -> None:
    """Remove both; the older one first, so that a kill in between leaves the end of the run."""
    for place in reversed(checkpoints_of(path)):
        place.unlink()


def _read(path: Path, run: Identity, shapes: Mapping[str, Shape]) -> State:
    tensors, notes = read_safetensors(path)
    _check_same(path, run, notes)
    weights = {name: array for name, array in tensors.items() if ":" not in name}
    check_names(str(path), shapes, {name: array.shape for name, array in weights.items()})
    if notes.pop("checksum", None) != _checksum(tensors, notes):
        raise WeightsError(f"{path} must be a whole checkpoint; its checksum does not fit")
    moments: dict[str, Weights] = {name: {} for name in shapes}
    for name in tensors.keys() - weights.keys():
        weight, _, kind = name.partition(":")
        moments[weight][kind] = tensors[name]
    ordered = {name: weights[name] for name in shapes}
    return State(ordered, moments, int(notes["step"]), float(notes["mean_loss"]))


def _check_same(path: Path, run: Identity, notes: Mapping[str, str]) -> None:
    for what, ours in run.items():
        try:
            theirs = json.loads(notes[what])
        except (KeyError, ValueError) as error:
            raise WeightsError(
                f"{path} must be a checkpoint of training; it does not say its {what}"
            ) from error
        if theirs != json.loads(json.dumps(ours)):
            raise InputError(
                f"{path} must be a checkpoint of this run; its {what} differs: "
                f"{_difference(what, theirs, ours)}. Give what it was started with, or delete the "
                "checkpoint to start anew"
            )


def _difference(what: str, before: Any, now: Any) -> str:
    """Name what differs, field by field."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return f"{before} before, {now} now"
    changed = [n for n in (before | now) if before.get(n) != now.get(n)]
    if what == "input":
        return f"{', '.join(changed)} had another content"
    inner = [f"{n} {_difference(n, before.get(n), now.get(n))}" for n in changed]
    return ", ".join(inner)


def _checksum(tensors: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(notes.items())).encode())
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
