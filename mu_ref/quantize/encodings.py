"""Encodings: which real numbers the integers of a site stand for, and their exchange formats."""

from dataclasses import dataclass

from mu_ref.errors import QuantizationError
from mu_ref.quantize.fixed_point import integer_range

__all__ = ["Encoding"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """The signed integers q of one site stand for $x = s (q - z)$.

    Raises:
        QuantizationError: a scale that is not positive, or a zero point outside the integers.
    """

    bits: int  # 8 or 16
    scale: float  # s
    zero_point: int = 0  # z

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.bits not in (8, 16):
            raise QuantizationError(f"activations must have 8 or 16 bits, got {self.bits}")
        if not 0 < self.scale < float("inf"):
            raise QuantizationError(f"a scale must be positive and finite, got {self.scale}")
        low, high = integer_range(self.bits)
        if not low <= self.zero_point <= high:
            raise QuantizationError(
                f"a zero point of {self.bits} bits must lie in {low}..{high}, "
                f"got {self.zero_point}"
            )

    @property
    def low(self) -> float:
        """The least real number."""
        return self.scale * (integer_range(self.bits)[0] - self.zero_point)

    @property
    def high(self) -> float:
        """The largest real number."""
        return self.scale * (integer_range(self.bits)[1] - self.zero_point)
