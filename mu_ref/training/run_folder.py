"""A folder for one run: what it was asked, its losses, their curve, its checkpoints, its result.

    config.json              what decides the run
    metrics.csv              a line for each step
    loss.png                 the curve
    checkpoint.safetensors   where the run stands, and the one before it; gone when it is done
    RESULT                   weights, at the end

A run that was stopped and resumed leaves the same bytes in all of them as one that was not.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from mu_ref.border.files import check_folder, check_outputs, write_picture, write_text
from mu_ref.border.reading import read_csv
from mu_ref.errors import InputError, MuRefError
from mu_ref.training.checkpoint import (
    checkpoint_before,
    checkpoints_of,
    remove_checkpoints,
    running_mean,
)  # fmt: skip
from mu_ref.training.trainer import Progress, Trainer

__all__ = ["RunFolder"]

COLUMNS = ("step", "epoch", "rate", "loss")


@dataclass(slots=True)
class RunFolder:
    """Where a run writes; call `check` before any work, then iterate `steps`.

    Args:
        folder: a new one, or one of a run of the same kind.
        result: name of the file that the run makes.
    """

    folder: Path
    result: str
    rows: list[tuple[str, ...]] = field(init=False, default_factory=list)  # of metrics.csv

    @property
    def checkpoint(self) -> Path:
        """Where the newest checkpoint lies."""
        return self.folder / "checkpoint.safetensors"

    def check(self, inputs: Iterable[Path | None], *, resume: bool) -> None:
        """Refuse, before any work, a folder that cannot be written, or holds somebody else's files.

        Args:
            inputs: every file that the run reads.
            resume: whether it goes on from a checkpoint.

        Raises:
            InputError: see `check_folder` and `check_outputs`; or there is a checkpoint and
                `resume` is not given, or the other way round.
        """
        places = [*self._places(), self.checkpoint, checkpoint_before(self.checkpoint)]
        check_folder(self.folder, "files of a run", lambda path: path in places)
        if self.folder.is_dir():
            check_outputs({f"DIR's {place.name}": place for place in places}, inputs)
        found = checkpoints_of(self.checkpoint)
        if resume and not found:
            raise InputError(
                f"--resume must find {self.checkpoint}; there is none. Leave --resume out to start"
            )
        if found and not resume:
            raise InputError(
                f"{found[0]} exists; give --resume to go on, or delete it to start anew"
            )

    def begin(self, trainer: Trainer, *, resume: bool) -> Path | None:
        """Start a run, or go on where it stands; nothing is written yet.

        Args:
            trainer: before its first step.
            resume: whether it goes on from a checkpoint.

        Returns:
            The checkpoint that it goes on from, or None.
        """
        if not resume:
            return None
        place = trainer.resume(self.checkpoint)
        self.rows = self._kept(trainer.step)
        return place

    def steps(self, trainer: Trainer) -> Iterator[Progress]:
        """Take the steps of a run, and keep its files up to date.

        Args:
            trainer: after `begin`.

        Yields:
            Progress after each step.
        """
        for progress in trainer.run():
            values = (progress.step, progress.epoch, progress.rate, progress.loss)
            self.rows.append(tuple(map(repr, values)))
            if progress.step % trainer.config.checkpoint_steps == 0:
                self.save(trainer)
            yield progress

    def save(self, trainer: Trainer) -> None:
        """Write the losses, then the checkpoint: it never tells of a step that they lack."""
        with self._all_or_nothing(trainer):
            self._write_metrics()
            trainer.save(self.checkpoint)

    def end(self, trainer: Trainer, write: Callable[[Path], None]) -> None:
        """Write the result, the losses and their curve; then the checkpoints may go.

        Args:
            trainer: after its last step.
            write: writes the result to a path.
        """
        with self._all_or_nothing(trainer):
            write(self.folder / self.result)
            self._write_metrics()
            self._plot()
        remove_checkpoints(self.checkpoint)

    @contextmanager
    def _all_or_nothing(self, trainer: Trainer) -> Iterator[None]:
        """Make the folder and its configuration; a disk that is full keeps no begun files."""
        made = not self.folder.is_dir()
        self.folder.mkdir(parents=True, exist_ok=True)
        before = set(self.folder.iterdir())
        try:
            text = json.dumps(trainer.identity, indent=2, sort_keys=True)
            write_text(self.folder / "config.json", text + "\n")
            yield
        except (OSError, MuRefError):
            if not checkpoints_of(self.checkpoint):
                for path in set(self._places()) - before:
                    path.unlink(missing_ok=True)
                if made:
                    self.folder.rmdir()
            raise

    def _places(self) -> list[Path]:
        names = ("config.json", "metrics.csv", "loss.png", self.result)
        return [self.folder / name for name in names]

    def _write_metrics(self) -> None:
        text = StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *self.rows])
        write_text(self.folder / "metrics.csv", text.getvalue())

    def _kept(self, step: int) -> list[tuple[str, ...]]:
        """Lines up to the checkpoint; what came after it is done again."""
        path = self.folder / "metrics.csv"
        _, lines = read_csv(path, "the losses of a run", InputError)
        rows = [tuple(line.get(name, "") for name in COLUMNS) for _, line in lines[:step]]
        if [row[0] for row in rows] != [str(n + 1) for n in range(step)]:
            raise InputError(
                f"{path} must have a line for each of the {step} steps of the checkpoint, got "
                f"{len(rows)}; delete the checkpoint to start anew"
            )
        return rows

    def _plot(self) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        losses = [float(row[3]) for row in self.rows]
        means, before = [], float("nan")
        for loss in losses:
            before = running_mean(before, loss)
            means.append(before)
        steps = range(1, len(losses) + 1)
        axes.plot(steps, losses, lw=0.5, alpha=0.5, label="loss of a batch")
        axes.plot(steps, means, label="running mean")
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.legend()
        write_picture(self.folder / "loss.png", figure, 110)
