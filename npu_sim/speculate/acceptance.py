"""How many drafted tokens survive: recorded, or of a distribution. An input of `step.py`."""

from collections.abc import Sequence
from dataclasses import dataclass

from npu_sim.errors import WorkloadError

__all__ = ["Acceptance"]


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
        if min(probabilities, default=-1) < 0 or abs(sum(probabilities) - 1) > 1e-6:
            raise WorkloadError(
                f"acceptance probabilities must be at least 0 and sum to 1, got {probabilities}"
            )
        n = len(probabilities)
        return cls(n_accepted=tuple(range(n)), nodes=(nodes,) * n, weights=tuple(probabilities))

    @classmethod
    def chain(cls, accept_rate: float, draft_len: int, nodes: int) -> "Acceptance":
        """Of drafts of which each token is accepted with one rate if those before it are."""
        if not 0 <= accept_rate <= 1:
            raise WorkloadError(f"accept_rate must lie in [0, 1], got {accept_rate}")
        stops = [accept_rate**n * (1 - accept_rate) for n in range(draft_len)]
        return cls.distributed([*stops, accept_rate**draft_len], nodes)
