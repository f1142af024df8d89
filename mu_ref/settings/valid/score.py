"""Score decisions on labelled queries: exact match, and how much doubt is worth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console
from rich.progress import track

from mu_ref.settings.evaluate import Evaluation, evaluate
from mu_ref.settings.queries.labelled import LabelledQuery
from mu_ref.settings.valid.decide import RANKS, Decider, Decision

__all__ = ["BINS", "Doubt", "decide_all", "doubt_of", "every_way", "score_decisions"]

BINS = 10  # of probabilities, equally wide


@dataclass(frozen=True, slots=True)
class Doubt:
    """What doubt is worth; shares of 1."""

    doubtful: float  # share of the queries
    exact_sure: float  # exact match where the greedy call was not in doubt; 0/0 is 1
    exact_doubtful: float  # exact match of the best call elsewhere
    off: float  # mean distance of probability and exact match over bins, weighted by queries
    bins: tuple[tuple[int, float, float], ...]  # queries, mean probability, exact match of each

    def to_json(self) -> dict[str, float]:
        """Return the scores alone, as plain JSON values."""
        names = ("doubtful", "exact_sure", "exact_doubtful")
        return {name: getattr(self, name) for name in names} | {"calibration_error": self.off}


def decide_all(
    decider: Decider, items: Sequence[LabelledQuery], console: Console, batch_size: int = 64
) -> list[Decision]:
    """Decide on every query.

    Args:
        decider: who decides.
        items: the queries; their labels are not looked at.
        console: where progress is shown.
        batch_size: queries decided together; those of similar length, to save padding.

    Returns:
        One decision per query, in order.

    Raises:
        InputError: a query is too long.
    """
    order = sorted(range(len(items)), key=lambda i: len(items[i].query))
    decisions: dict[int, Decision] = {}
    starts = range(0, len(order), batch_size)
    quiet = not console.is_terminal
    for start in track(starts, "answering", console=console, transient=True, disable=quiet):
        batch = order[start : start + batch_size]
        found = decider.decide([items[i].query for i in batch])
        decisions |= dict(zip(batch, found, strict=True))
    return [decisions[i] for i in range(len(items))]


def score_decisions(
    decider: Decider, items: Sequence[LabelledQuery], decisions: Sequence[Decision]
) -> Evaluation:
    """Score the best calls against the labels, whatever their probability."""
    texts = [decision.text for decision in decisions]
    return evaluate([item.call for item in items], texts, decider.agent.catalog)


def doubt_of(items: Sequence[LabelledQuery], decisions: Sequence[Decision]) -> Doubt:
    """Say how often there was doubt, and whether probabilities are kept.

    Args:
        items: at least one query with its call.
        decisions: one for each.

    Returns:
        The scores.
    """
    right = np.array([i.call == d.text for i, d in zip(items, decisions, strict=True)])
    doubtful = np.array([d.doubtful for d in decisions])
    p = np.array([d.probability for d in decisions])
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    bins = tuple(
        (int(chosen.sum()), float(p[chosen].mean()), float(right[chosen].mean()))
        if chosen.any() else (0, (k + 0.5) / BINS, 0.0)
        for k in range(BINS) for chosen in [place == k]
    )  # fmt: skip
    return Doubt(
        float(doubtful.mean()),
        float(right[~doubtful].mean()) if not doubtful.all() else 1.0,
        float(right[doubtful].mean()) if doubtful.any() else 1.0,
        sum(n * abs(mean - exact) for n, mean, exact in bins) / len(right),
        bins,
    )


def every_way(
    decider: Decider, items: Sequence[LabelledQuery], console: Console
) -> dict[str, Evaluation]:
    """Score every way to decode and to rank, each by itself."""
    found = {}
    for decode, ranks in (("greedy", ("both",)), ("search", RANKS), ("auto", RANKS)):
        for rank in ranks:
            way = replace(decider, decoding=replace(decider.decoding, decode=decode, rank=rank))
            name = decode if decode == "greedy" else f"{decode} {rank}"
            found[name] = score_decisions(way, items, decide_all(way, items, console))
    return found
