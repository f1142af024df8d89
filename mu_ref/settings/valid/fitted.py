"""What turns log-probabilities into a choice, a probability and doubt: a few fitted numbers.

They are fitted on the validation split by maximum likelihood, which also calibrates them, and
travel in the metadata of the scorer's file.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mu_ref.border.reading import parse_json
from mu_ref.errors import WeightsError

__all__ = ["UNFITTED", "Fitted", "Judged", "fit"]

# What is known of a call: the log-probabilities of the model and of the scorer, whether it is
# none(), and whether it opens a page. Both judges take rare calls of these kinds for likelier than
# they are; a constant for each kind corrects that.
N_FACTS, N_JUDGES = 4, 2
USED = {
    "model": (True, False, True, True),
    "linear": (False, True, True, True),
    "both": (True, True, True, True),
}
SLACK = 0.0005  # exact match that a lower threshold may cost: one validation query is 0.0007
STEPS = 40  # of Newton's method


@dataclass(frozen=True, slots=True)
class Judged:
    """One validation query: what was found, and which of it is right."""

    greedy: np.ndarray  # [N_FACTS] of the greedy call
    greedy_right: bool
    candidates: np.ndarray  # [n, N_FACTS], the same of each candidate
    right: np.ndarray  # [n] bool, which candidates are the right call; several may be none()


@dataclass(frozen=True, slots=True)
class Fitted:
    """Fitted numbers, by rank."""

    search: dict[str, tuple[float, ...]]  # weights of the facts
    greedy: dict[str, tuple[float, ...]]  # a constant, and weights of the facts
    threshold: float  # probability below which a greedy call is in doubt

    def probabilities(self, facts: np.ndarray, rank: str) -> np.ndarray:
        """Return the probability of each candidate, [n], from its facts, [n, N_FACTS]."""
        scores = facts @ np.array(self.search[rank])
        p = np.exp(scores - scores.max())
        return p / p.sum()

    def greedy_probability(self, facts: np.ndarray, rank: str) -> float:
        """Return the probability that a greedy call is right, from its facts, [N_FACTS]."""
        constant, *weights = self.greedy[rank]
        return float(1 / (1 + np.exp(-(constant + facts @ np.array(weights)))))

    def to_json(self) -> str:
        """Return the numbers as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str) -> "Fitted":
        """Read the numbers.

        Raises:
            WeightsError: the text does not hold them.
        """
        found = parse_json(text, where, "fitted numbers in JSON", WeightsError)
        try:
            search = {rank: tuple(map(float, found["search"][rank])) for rank in USED}
            greedy = {rank: tuple(map(float, found["greedy"][rank])) for rank in USED}
            # a scorer that was fitted before kinds of calls counted: they do not
            search = {r: (*w, 0.0, 0.0) if len(w) == N_JUDGES else w for r, w in search.items()}
            greedy = {r: (*w, 0.0, 0.0) if len(w) == 1 + N_JUDGES else w for r, w in greedy.items()}
            fits = all(len(search[r]) == N_FACTS and len(greedy[r]) == 1 + N_FACTS for r in USED)
            made = cls(search, greedy, float(found["threshold"])) if fits else None
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{where} must hold fitted numbers, got {error}") from error
        numbers = [*sum(search.values(), ()), *sum(greedy.values(), ())]
        if made is None or not np.all(np.isfinite([*numbers, made.threshold])):
            raise WeightsError(f"{where} must hold finite fitted numbers; train the scorer again")
        return made


# Before anything is fitted: model and scorer count alike.
UNFITTED = Fitted(
    dict.fromkeys(USED, (1.0, 1.0, 0.0, 0.0)), dict.fromkeys(USED, (0.0, 1.0, 1.0, 0.0, 0.0)), 0.9
)


def fit(judged: Sequence[Judged]) -> Fitted:
    """Fit all numbers.

    Args:
        judged: validation queries, and nothing else.

    Returns:
        The numbers.
    """
    search = {rank: _search_weights(judged, used) for rank, used in USED.items()}
    greedy = {rank: _greedy_weights(judged, used) for rank, used in USED.items()}
    found = Fitted(search, greedy, 1.0)
    return Fitted(search, greedy, _threshold(judged, found))


def _search_weights(judged: Sequence[Judged], used: tuple[bool, ...]) -> tuple[float, ...]:
    """Fit a softmax over candidates, by Newton's method, where one is right."""
    weights = np.array(used, float)
    weights[N_JUDGES:] = 0
    chosen = [item for item in judged if item.right.any()]
    for _ in range(STEPS):
        slope, curve = np.zeros(N_FACTS), 1e-3 * np.eye(N_FACTS)
        for item in chosen:
            x = item.candidates * used
            scores = x @ weights
            p = np.exp(scores - scores.max())
            p /= p.sum()
            mean = p @ x
            aim = np.where(item.right, np.exp(np.minimum(scores - scores[item.right].max(), 0)), 0)
            aim /= aim.sum()
            slope += aim @ x - mean
            curve += (x * p[:, None]).T @ x - np.outer(mean, mean)
        # a step of at most 1: where few queries lack a kind of call, its constant has no end
        weights += np.clip(np.linalg.solve(curve, slope), -1, 1)
        weights[:N_JUDGES] = np.maximum(weights[:N_JUDGES], 0)  # no judge counts against a call
        weights *= used
    return tuple(weights.tolist())


def _greedy_weights(judged: Sequence[Judged], used: tuple[bool, ...]) -> tuple[float, ...]:
    """Fit a logistic regression, by Newton's method."""
    x = np.array([[1.0, *item.greedy] for item in judged]) * [1.0, *used]
    y = np.array([item.greedy_right for item in judged], float)
    weights = np.zeros(1 + N_FACTS)
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-(x @ weights)))
        curve = (x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(len(weights))
        weights += np.linalg.solve(curve, x.T @ (y - p))
    return tuple(weights.tolist())


def _threshold(judged: Sequence[Judged], fitted: Fitted) -> float:
    """Return the lowest threshold that costs next to nothing against the best one."""
    p = np.array([fitted.greedy_probability(item.greedy, "both") for item in judged])
    greedy = np.array([item.greedy_right for item in judged])
    searched = np.array(
        [item.right[np.argmax(fitted.probabilities(item.candidates, "both"))] for item in judged]
    )
    tried = np.arange(0.5, 0.996, 0.01)
    exact = np.array([np.where(p < t, searched, greedy).mean() for t in tried])
    return float(tried[np.argmax(exact >= exact.max() - SLACK)])
