"""A budget of milliseconds, megabytes or cycles, and what is left of it."""

from dataclasses import dataclass

from npu_sim.units import MB, format_bytes, format_ms

__all__ = ["Budget"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """An amount that must not be passed."""

    limit: float
    used: float  # simulated
    unit: str  # "ms", "MB" or "cycles"

    @property
    def margin(self) -> float:
        """What is left; negative when missed."""
        return self.limit - self.used

    @property
    def met(self) -> bool:
        """Whether what is used stays within the limit."""
        return self.margin >= 0

    def line(self) -> str:
        """Say it in one line."""
        verdict, side = ("met", "left") if self.met else ("missed", "over")
        return f"{self._shown(self.limit)} {verdict}, {self._shown(abs(self.margin))} {side}"

    def _shown(self, amount: float) -> str:
        if self.unit == "cycles":
            return f"{amount:,.0f} cycles"
        return format_ms(amount) if self.unit == "ms" else format_bytes(amount * MB)
