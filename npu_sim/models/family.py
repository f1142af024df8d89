"""What an entry of the table of families is, and short ways to write one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from npu_sim.models.parts import Of

__all__ = ["Family", "Parts", "shape", "sizes"]

Parts = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One `model_type`."""

    sides: tuple[str, ...]  # stacks that it has
    defaults: Parts  # of fields that a file may leave out; those without are null
    parts: Parts
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # where a stack's stand
    aliases: Mapping[str, str] = field(default_factory=dict)  # other names of fields

    def but(self, defaults: Parts | None = None, **parts: Any) -> "Family":
        """Return a family that differs by some defaults and parts."""
        return replace(
            self, defaults={**self.defaults, **(defaults or {})}, parts={**self.parts, **parts}
        )


def sizes(layers: str, width: str, inner: str, heads: str) -> Parts:
    """Name the fields that say the sizes of a stack."""
    return {"n_layers": Of(layers), "d_model": Of(width), "d_ff": Of(inner), "n_heads": Of(heads)}


def shape(
    width: int, inner: int, layers: int, heads: int, kv: int | None, vocabulary: int, positions: int
) -> Parts:  # fmt: skip
    """Give defaults to the fields that most families have."""
    return {
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocabulary,
        "max_position_embeddings": positions,
    }  # fmt: skip
