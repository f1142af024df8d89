"""Train the scorer from files to a file, and fit what joins it with the model."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from mu_ref.errors import InputError
from mu_ref.settings.agent import Agent
from mu_ref.settings.catalog import DATA
from mu_ref.settings.queries.labelled import LabelledQuery, read_queries
from mu_ref.settings.rank import load_scorer
from mu_ref.settings.train import training_queries
from mu_ref.settings.valid.decide import Decider, Decoding
from mu_ref.settings.valid.fitted import Judged, fit
from mu_ref.settings.valid.rank_training import EPOCHS, save_scorer, train_scorer, without

__all__ = ["VALIDATION", "train_rank", "training_items"]

VALIDATION = DATA / "validation.jsonl"


def training_items(queries: Path | None) -> list[LabelledQuery]:
    """Return the training queries, without those of the validation split, each once."""
    files = training_queries(None if queries is None else [queries])
    items = [item for file in files.values() for item in read_queries(file)]
    return without(items, read_queries(VALIDATION))


def train_rank(
    agent: Agent,
    queries: Path | None,
    out: Path,
    console: Console,
    *,
    start: Path | None = None,
    epochs: int | None,
    seed: int,
    limit: int | None = None,
) -> None:
    """Train a scorer, fit its numbers on the validation split, and write both.

    Args:
        agent: the model that it will work with.
        queries: to train on; the shipped training files by default.
        out: file to write.
        console: where progress is shown.
        start: a scorer to keep, so that only the numbers are fitted.
        epochs: how often every query is seen; `EPOCHS` times by default.
        seed: of wordings and order.
        limit: validation queries to fit on; all by default.
    """
    items = training_items(queries) if start is None else []
    epochs = EPOCHS if epochs is None else epochs
    if start is None and len({item.call for item in items}) < 2:
        raise InputError(
            "--queries must hold two different calls besides those of the validation split, got "
            f"{len(items)} queries of one; add some"
        )
    made = (
        train_scorer(items, agent.catalog, console, seed, epochs)
        if start is None
        else load_scorer(start)
    )
    decider = Decider.of(agent, Decoding(), made)
    validation = sorted(read_queries(VALIDATION)[:limit], key=lambda item: len(item.query))
    found = fit(list(_judged(decider, validation, console)))
    notes = {"queries": str(len(items)), "epochs": str(epochs), "seed": str(seed)}
    save_scorer(out, made, (made.notes or notes) | {"fitted": found.to_json()})
    console.print(f"wrote {out}", soft_wrap=True)


def _judged(
    decider: Decider, items: Sequence[LabelledQuery], console: Console, batch_size: int = 64
) -> "list[Judged]":
    found: list[Judged] = []
    starts = range(0, len(items), batch_size)
    quiet = not console.is_terminal
    for first in track(starts, "fitting", console=console, transient=True, disable=quiet):
        found += decider.judged(items[first : first + batch_size])
    return found
