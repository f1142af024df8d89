"""Stored widths of weights, activations and caches; the pairs of widths that engines multiply."""

from dataclasses import dataclass

from mu_ref.errors import check_choice
from npu_sim.errors import WorkloadError

__all__ = ["PRECISIONS", "Precision", "precision_name"]

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
    head_weight_bits: int = 8  # the vocabulary projection, and the embedding tied to it

    def __post_init__(self) -> None:
        """Check every width."""
        for name, widths in (
            ("weight_bits", (4, 8, 16)),
            ("activation_bits", (8, 16)),
            ("kv_bits", (4, 8, 16)),
            ("head_weight_bits", (4, 8, 16)),
        ):
            check_choice(name, getattr(self, name), widths, WorkloadError)

    def label(self) -> str:
        """Return the usual short name, for example "W8A16, KV16, head W8"."""
        return (
            f"W{self.weight_bits}A{self.activation_bits}, "
            f"KV{self.kv_bits}, head W{self.head_weight_bits}"
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
