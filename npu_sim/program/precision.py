"""Stored widths of weights, activations and caches; the pairs of widths that engines multiply."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from types import MappingProxyType

from mu_ref.errors import check_choice
from npu_sim.errors import WorkloadError

__all__ = ["PRECISIONS", "WIDTHS", "Precision", "precision_name"]

WIDTHS: Mapping[str, tuple[int, ...]] = MappingProxyType({
    "weight_bits": (4, 8, 16), "activation_bits": (8, 16), "kv_bits": (4, 8, 16),
    "head_weight_bits": (4, 8, 16),
})  # fmt: skip
PRECISIONS = ("w4a8", "w4a16", "w8a8", "w8a16", "w16a16")  # pairs of operands that engines multiply


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """Stored widths; the defaults are W8A16.

        >>> import npu_sim
        >>> npu_sim.Precision(weight_bits=4).label()
        'W4A16, KV16, head W8'

    Raises:
        WorkloadError: a width that no engine has.
    """

    weight_bits: int = 8
    activation_bits: int = 16
    kv_bits: int = 16  # cached keys and values
    head_weight_bits: int | None = None  # None: those of the weights, at least 8; see `head_bits`

    def __post_init__(self) -> None:
        """Check every width."""
        for name, widths in WIDTHS.items():
            value = getattr(self, name)
            if value is None and name == "head_weight_bits":
                continue
            # 8.0 and True equal whole numbers, and are none
            if isinstance(value, bool) or not isinstance(value, Integral):
                rule = ", ".join(map(str, widths))
                raise WorkloadError(f"{name} must be one of {rule}; got {value!r}")
            check_choice(name, value, widths, WorkloadError)

    @property
    def head_bits(self) -> int:
        """Width of the vocabulary projection, and of the embedding tied to it."""
        if self.head_weight_bits is None:
            return max(self.weight_bits, 8)
        return self.head_weight_bits

    def widths(self) -> dict[str, int]:
        """Return every width by its name, that of the head as it is."""
        names = ("weight_bits", "activation_bits", "kv_bits")
        return {name: getattr(self, name) for name in names} | {"head_weight_bits": self.head_bits}

    def label(self) -> str:
        """Return the usual short name, for example "W8A16, KV16, head W8"."""
        return (
            f"W{self.weight_bits}A{self.activation_bits}, KV{self.kv_bits}, head W{self.head_bits}"
        )


def precision_name(weight_bits: int, activation_bits: int) -> str:
    """Return the name of the rate that multiplies two widths.

    Args:
        weight_bits: width of the stationary operand: weights, or cached keys and values.
        activation_bits: width of the moving operand.

    Returns:
        "w4a8", "w4a16", "w8a8", "w8a16" or "w16a16"; anything wider is "w16a16".
    """
    if weight_bits > 8:
        return "w16a16"
    return f"w{4 if weight_bits <= 4 else 8}a{8 if activation_bits <= 8 else 16}"
