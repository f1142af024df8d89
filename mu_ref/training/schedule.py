"""The learning rate over a run: warm up, stay, decay (WSD)."""

from dataclasses import dataclass

__all__ = ["WarmupStableDecay"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmupStableDecay:
    r"""Rate of each step, the first being step 0.

    $$\eta(s) = \eta \cdot \begin{cases} (s + 1) / W & s < W \\ 1 & W \le s < S - D \\
      1 - \sqrt{1 - (S - s) / D} & \text{else} \end{cases}$$                              (3.4)

    Source:
        MiniCPM, arXiv:2404.06395, for warm-up, stable, decay.

    Differs from the source:
        The decay is 1 - sqrt(progress) (one of Hugging Face's `get_wsd_schedule` forms), not
        exponential; its share of the run is ours to choose.
    """

    peak: float
    warmup_steps: int
    decay_steps: int
    total_steps: int

    def rate(self, step: int) -> float:
        """Learning rate of `step`."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        left = self.total_steps - step
        if left > self.decay_steps:
            return self.peak
        return self.peak * (1 - (1 - left / self.decay_steps) ** 0.5)
