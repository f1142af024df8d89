"""What speculative decoding puts out, and what it counts."""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["SpeculativeStep", "Statistics"]


@dataclass(frozen=True, slots=True)
class SpeculativeStep:
    """What one pass of the model wrote: up to draft_len + 1 tokens in each row."""

    tokens: np.ndarray  # [batch, n] int, pad_id behind a row's own
    n_tokens: np.ndarray  # [batch] int, eos included; 0 for rows that had ended
    logits: np.ndarray | None  # [batch, n, vocab_size], what they were chosen from, if asked for
    ended: np.ndarray  # [batch] bool


@dataclass(slots=True)
class Statistics:
    """Counts over all verifying passes and rows; the first pass, without drafts, is not in them."""

    n_steps: int = 0  # of rows that had not ended
    n_tokens: int = 0  # written by those steps
    accepted: dict[int, int] = field(default_factory=dict)  # {drafted tokens kept: steps}
    nodes_before: int = 0  # tokens of all beams
    nodes_after: int = 0  # after packing
    draft_s: float = 0.0
    verify_s: float = 0.0

    @property
    def mean_accepted(self) -> float:
        """Drafted tokens kept for each step; the step's own token is not among them."""
        kept = sum(n * steps for n, steps in self.accepted.items())
        return kept / self.n_steps if self.n_steps else 0.0

    @property
    def tokens_per_step(self) -> float:
        """Tokens that one verifying pass writes, on average."""
        return self.n_tokens / self.n_steps if self.n_steps else 0.0

    @property
    def draft_share(self) -> float:
        """Share of the time that drafting takes."""
        total = self.draft_s + self.verify_s
        return self.draft_s / total if total else 0.0

    def count(
        self,
        step: SpeculativeStep,
        n_accepted: np.ndarray,
        n_before: int,
        n_nodes: np.ndarray,
        times: tuple[float, float],
    ) -> None:
        """Take in one step.

        Args:
            step: what it wrote.
            n_accepted: [batch] int.
            n_before: tokens of a row's beams.
            n_nodes: [batch] int, how many of them were verified.
            times: seconds of drafting, and of the rest.
        """
        alive = step.n_tokens > 0
        n_rows = int(alive.sum())
        self.n_steps += n_rows
        self.n_tokens += int(step.n_tokens.sum())
        self.nodes_before += n_rows * n_before
        self.nodes_after += int(n_nodes[alive].sum())
        for n in n_accepted[alive].tolist():
            self.accepted[n] = self.accepted.get(n, 0) + 1
        self.draft_s += times[0]
        self.verify_s += times[1]
