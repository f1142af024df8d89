"""How many drafted tokens survive: recorded, or of a distribution. An input of `step.py`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu_ref.border.ranges import BEAMS, DRAFTED, SHARE, Range
from mu_ref.border.reading import read_json_lines
from mu_ref.border.text import short
from npu_sim.errors import WorkloadError

__all__ = ["HOST_US", "Acceptance", "acceptance_of", "read_acceptance", "read_steps", "step_lines"]


MOST_NODES = 1 + BEAMS.high * DRAFTED.high
NODES = Range(low=1, high=MOST_NODES, why="no tree of the widest beams has more")
HOST_US = Range(low=0, high=10**9, whole=False, why="no host takes a quarter of an hour")
ACCEPTED = Range(low=0, high=DRAFTED.high, why=DRAFTED.why)


@dataclass(frozen=True, kw_only=True, slots=True)
class Acceptance:
    """How many drafted tokens steps keep, and how large their trees are.

    Raises:
        WorkloadError: nothing, or more accepted than a path has.
    """

    n_accepted: tuple[int, ...]  # of each recorded step, without the model's own token
    nodes: tuple[int, ...]  # of each recorded step, the root included
    weights: tuple[float, ...]  # how often each of them occurs; they sum to 1

    def __post_init__(self) -> None:
        """Check the lengths and the ranges."""
        for accepted, nodes, weight in zip(self.n_accepted, self.nodes, self.weights, strict=False):
            ACCEPTED.check("n_accepted", accepted, WorkloadError)
            NODES.check("nodes", nodes, WorkloadError)
            SHARE.check("the weight of a step", weight, WorkloadError)
        if not self.nodes or not len(self.nodes) == len(self.n_accepted) == len(self.weights):
            raise WorkloadError(
                "acceptance must have as many nodes and weights as steps, at least 1"
            )
        for accepted, nodes in zip(self.n_accepted, self.nodes, strict=True):
            if not 0 <= accepted < nodes:
                raise WorkloadError(
                    f"n_accepted must lie between 0 and nodes - 1, got {accepted} of {nodes} nodes"
                )

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """Each pair of accepted tokens and nodes that occurs."""
        return set(zip(self.n_accepted, self.nodes, strict=True))

    @property
    def tokens_per_step(self) -> float:
        """Mean of accepted tokens, plus the model's own."""
        pairs = zip(self.n_accepted, self.weights, strict=True)
        return 1 + sum(accepted * weight for accepted, weight in pairs)

    @classmethod
    def recorded(cls, steps: Sequence[tuple[int, int]]) -> "Acceptance":
        """Of recorded steps (n_accepted, nodes), all equally likely."""
        n = len(steps)
        return cls(
            n_accepted=tuple(s[0] for s in steps), nodes=tuple(s[1] for s in steps),
            weights=(1 / n,) * n if n else (),
        )  # fmt: skip

    @classmethod
    def distributed(cls, probabilities: Sequence[float], nodes: int) -> "Acceptance":
        """Of a distribution over 0, 1, ... accepted tokens, with trees of one size.

        Raises:
            WorkloadError: probabilities that are negative or do not sum to 1.
        """
        for probability in probabilities:
            SHARE.check("each acceptance probability", probability, WorkloadError)
        if not abs(sum(probabilities) - 1) <= 1e-6:
            raise WorkloadError(
                f"acceptance probabilities must be at least 0 and sum to 1, got "
                f"{short(list(probabilities))}"
            )
        n = len(probabilities)
        return cls(n_accepted=tuple(range(n)), nodes=(nodes,) * n, weights=tuple(probabilities))

    @classmethod
    def chain(cls, accept_rate: float, draft_len: int, nodes: int) -> "Acceptance":
        """Of drafts of which each token is accepted with one rate if those before it are."""
        SHARE.check("accept_rate", accept_rate, WorkloadError)
        DRAFTED.check("draft_len", draft_len, WorkloadError)
        stops = [accept_rate**n * (1 - accept_rate) for n in range(draft_len)]
        return cls.distributed([*stops, accept_rate**draft_len], nodes)


MOST_STEPS = 200_000  # of a file

Steps = list[tuple[int, int]] | list[float]  # (n_accepted, nodes) of each, or probabilities


def read_acceptance(path: Path, nodes: int) -> Acceptance:
    """Read recorded steps, or a distribution for trees of one size.

    Args:
        path: see `read_steps`.
        nodes: of the trees, where the file holds a distribution.

    Returns:
        The `Acceptance`.

    Raises:
        WorkloadError: see `read_steps`; or the trees are too small.
    """
    return acceptance_of(read_steps(path), nodes)


def acceptance_of(steps: Steps, nodes: int) -> Acceptance:
    """Return the acceptance of what a file holds; trees have `nodes` where it does not say."""
    if isinstance(steps[0], tuple):
        return Acceptance.recorded(steps)
    return Acceptance.distributed(steps, nodes)


def read_steps(path: Path, lines: Iterator[tuple[str, Any]] | None = None) -> Steps:
    """Read a file of recorded steps or of a distribution.

    Args:
        path: JSON lines: {"n_accepted": 2, "nodes": 9} per step, or one {"probabilities": [...]}.
        lines: of the file, where it is being read already.

    Returns:
        At least one step, or probabilities that sum to 1.

    Raises:
        WorkloadError: no such fields, others beside them, or values out of range; names the line.
    """
    steps: list[tuple[int, int]] = []
    lines = step_lines(path) if lines is None else lines
    for where, item in lines:
        keys = set(item) if isinstance(item, dict) else set()
        if keys == {"probabilities"} and not steps:
            if next(lines, None) is not None:
                raise WorkloadError(f"{path} must hold nothing behind its probabilities")
            return _probabilities(where, item["probabilities"])
        if keys != {"n_accepted", "nodes"}:
            raise WorkloadError(
                f"{where} must hold n_accepted and nodes, or probabilities alone in the file; got "
                f"{short(item)}"
            )
        NODES.check(f"{where}: nodes", item["nodes"], WorkloadError)
        fits = Range(low=0, high=item["nodes"] - 1, why="the root is never drafted")
        fits.check(f"{where}: n_accepted", item["n_accepted"], WorkloadError)
        steps.append((item["n_accepted"], item["nodes"]))
        if len(steps) > MOST_STEPS:
            raise WorkloadError(f"{path} must hold at most {MOST_STEPS:,} steps, got more")
    if not steps:
        raise WorkloadError(f"{path} must hold at least 1 step or probabilities, got none")
    return steps


def step_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (where, value) of each line of a file of steps."""
    yield from read_json_lines(path, "JSON of a step or of probabilities", WorkloadError)


def _probabilities(where: str, values: object) -> list[float]:
    if not isinstance(values, list) or not 1 <= len(values) <= DRAFTED.high + 1:
        raise WorkloadError(
            f"{where}: probabilities must be a list of 1 to {DRAFTED.high + 1} numbers, got "
            f"{short(values)}"
        )
    try:
        Acceptance.distributed(values, len(values))
    except WorkloadError as error:
        raise WorkloadError(f"{where}: {error}") from error
    return values
