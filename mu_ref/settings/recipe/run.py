"""What the runs of this room share: all steps, with a display, in a folder."""

from rich.console import Console

from mu_ref.settings.training_run import run_to_end, say_resumed
from mu_ref.training.run_folder import RunFolder
from mu_ref.training.trainer import Trainer

__all__ = ["run_in_folder"]


def run_in_folder(run: RunFolder, trainer: Trainer, resume: bool, console: Console) -> None:
    """Take all steps of a run; an interrupt saves first, and says how to go on.

    Args:
        run: checked.
        trainer: before its first step.
        resume: whether it goes on from a checkpoint.
        console: where progress is shown.

    Raises:
        InputError, WeightsError: nothing to go on from; the loss is no number any more.
        KeyboardInterrupt: the user stopped the run.
    """
    place = run.begin(trainer, resume=resume)
    if place is not None:
        say_resumed(console, trainer.step, place, run.checkpoint)
    run_to_end(
        run.steps(trainer),
        lambda p: f"epoch {p.epoch}  loss {p.mean_loss:.3f}  rate {p.rate:.2g}",
        lambda _: run.save(trainer),
        run.checkpoint,
        console,
    )
