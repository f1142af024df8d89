"""What decoding remembers between steps: keys and values, and which slot holds which position.

Slots are filled in the order in which tokens were computed; a slot that holds padding stays, marked
as not valid, and is never attended to. So rows of unequal length share one rectangle of slots, and
the masks are a function of `positions` and `valid` alone.
"""

from dataclasses import dataclass, field

import numpy as np

from mu_ref.ops import Value

__all__ = ["Cache", "LayerCache", "Memory"]


@dataclass(slots=True)
class LayerCache:
    """Keys and values of one layer, [batch, n_kv_heads, n_slots, d_head]; None when empty."""

    k: Value | None = None
    v: Value | None = None


@dataclass(slots=True)
class Memory:
    """What the decoder reads of the encoder: K and V of every layer, computed once."""

    hidden: Value  # encoder output, [batch, n_src, d_model of the encoder]
    layers: list[LayerCache]  # one per decoder layer
    mask: np.ndarray  # [batch, n_src] bool, False at padding


@dataclass(slots=True)
class Cache:
    """State of a decoder between steps.

    `tokens` is kept because RoPE with NTK scaling turns *all* positions differently once the
    length passes `rope_base_len`: keys cached under another theta are wrong in every layer, and
    the only exact answer is to compute them again from the tokens.
    """

    layers: list[LayerCache]
    tokens: np.ndarray  # [batch, n_slots] int
    valid: np.ndarray  # [batch, n_slots] bool
    positions: np.ndarray = field(init=False)  # [batch, n_slots] int
    theta: np.ndarray | None = None  # [batch] float64, base under which the keys were rotated

    def __post_init__(self) -> None:
        """Positions start empty."""
        self.positions = np.zeros(self.tokens.shape, np.int64)

    @classmethod
    def empty(cls, batch: int, n_layers: int) -> "Cache":
        """Return a cache without any slot."""
        layers = [LayerCache() for _ in range(n_layers)]
        return cls(layers, np.zeros((batch, 0), np.int64), np.zeros((batch, 0), bool))
