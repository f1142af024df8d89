"""What decoding remembers between steps: keys and values, and which slot holds which position.

Slots are filled in the order in which tokens were computed; a slot that holds padding stays, marked
as not valid, and is never attended to. So rows of unequal length share one rectangle of slots, and
the masks are a function of `positions` and `valid` alone.
"""

from dataclasses import dataclass, field

import numpy as np

from mu_ref.ops import Ops, Value

__all__ = ["Cache", "LayerCache", "LayerMemory", "Memory", "Placement"]


@dataclass(slots=True)
class LayerCache:
    """Keys and values of one layer, [batch, n_kv_heads, n_slots, d_head]; None when empty."""

    k: Value | None = None
    v: Value | None = None


@dataclass(slots=True)
class LayerMemory:
    """What one decoder layer reads of the encoder: keys, values, and which of them are tokens."""

    k: Value  # [batch, n_kv_heads, n_src, d_head]
    v: Value  # [batch, n_kv_heads, n_src, d_head]
    mask: np.ndarray  # [batch, 1, 1, n_src] bool, False at padding; one for all heads and queries


@dataclass(slots=True)
class Memory:
    """What the decoder reads of the encoder, computed once for all steps."""

    hidden: Value  # encoder output, [batch, n_src, d_model of the encoder]
    layers: list[LayerMemory]  # one per decoder layer; all hold the same mask

    @property
    def mask(self) -> np.ndarray:
        """[batch, 1, 1, n_src] bool, False at padding."""
        return self.layers[0].mask


@dataclass(frozen=True, slots=True)
class Placement:
    """Where new tokens stand when they do not simply follow: drafts, of which few will be kept."""

    positions: np.ndarray  # [batch, n_new] int
    lengths: np.ndarray  # [batch] int, of the row as RoPE counts it, new tokens included
    # [batch, n_new, n_told] bool, which of the last n_told slots a new token may read: of the new
    # ones alone, n_told = n_new, or of cached ones too where not all of them are its ancestors
    sees: np.ndarray


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

    def keep(self, ops: Ops, n_kept: int, index: np.ndarray, kept: np.ndarray) -> None:
        """Forget all slots but the first n_kept and the chosen ones.

        Args:
            ops: the executor.
            n_kept: slots that stay as they are.
            index: [batch, m] int, the slots that follow them.
            kept: [batch, m] bool; False makes a slot padding, for rows that keep fewer.
        """
        for layer, cached in enumerate(self.layers):
            site = f"decoder.{layer}.self_attention"
            cached.k = ops.keep_slots(cached.k, n_kept, index, f"{site}.k_keep")
            cached.v = ops.keep_slots(cached.v, n_kept, index, f"{site}.v_keep")

        def rows(x: np.ndarray) -> np.ndarray:
            chosen = np.take_along_axis(x, index, axis=1)
            return np.concatenate([x[:, :n_kept], chosen], axis=1)

        self.tokens, self.positions, self.valid = map(
            rows, (self.tokens, self.positions, self.valid)
        )
        self.valid[:, n_kept:] &= kept

    @classmethod
    def empty(cls, batch: int, n_layers: int) -> "Cache":
        """Return a cache without any slot."""
        layers = [LayerCache() for _ in range(n_layers)]
        return cls(layers, np.zeros((batch, 0), np.int64), np.zeros((batch, 0), bool))
