"""What is known of a model that is only described: enough to tell what it costs.

A `Description` is a `ModelConfig` and what its architecture has beside or instead of ours: other
positions than RoPE, norms on queries and keys, parts left out. The recorder (`recorder.py`) asks it
at each operation. A model that `mu_ref` runs is the description with nothing special, so whatever
is recorded of it is what `mu_ref` computes. Chapter: `docs/11_machine.md`.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

from mu_ref.config import ModelConfig
from mu_ref.weights import weight_shapes

__all__ = ["HEADS", "Description", "describe"]

HEADS = ("all", "last", "none")
T5_DISTANCES = 32  # buckets of distances, each with a bias per head; all T5 share the number


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """A model whose cost can be told without running it."""

    model: ModelConfig
    lm_head: Literal["all", "last", "none"]  # positions of a call that the head scores
    positions: Literal["rope", "table", "bias", "none"] = "rope"  # bias: added to the scores (T5)
    qk_norm: bool = False  # a norm on every head of queries and keys
    absent: frozenset[str] = frozenset()  # endings of sites and weights that this family lacks
    extra_embeddings: int = 0  # more rows added to each embedding, for example token types
    input_features: int | None = None  # the encoder reads vectors of this width, not tokens
    own_weights: tuple[tuple[str, tuple[int, ...]], ...] = ()  # shapes that are not as in ours
    rotary_share: float = 1.0  # of each head that RoPE turns
    experts_per_token: int = 0  # where the weights of an MLP are those of several experts
    input_slots: int | None = None  # positions that are read if nobody says how many, and at most

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.model.name

    @property
    def n_parameters(self) -> int:
        """Parameters, each once."""
        return sum(prod(shape) for shape in self.weight_shapes().values())

    @property
    def n_experts(self) -> int:
        """Experts that a layer stores; 0 without a mixture."""
        return max((shape[0] for _, shape in self.own_weights if len(shape) == 3), default=0)

    def lacks(self, name: str) -> bool:
        """Say whether the architecture has no such site or weight."""
        return any(name.endswith(ending) for ending in self.absent)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """List every weight of the architecture with its shape, as `mu_ref.weights` does of ours.

        Returns:
            {"site.weight" or "site.bias": shape}.
        """
        shapes = weight_shapes(self.model)
        for name, stack in self.model.stacks.items():
            if self.positions == "table":
                rows = self.model.max_len + self.extra_embeddings
                shapes[f"{name}.positions.weight"] = (rows, stack.d_model)
            if self.positions == "bias":
                shapes[f"{name}.positions.weight"] = (T5_DISTANCES, stack.n_heads)
            if self.qk_norm:
                # these norms stand where queries and keys are turned, so their site is that of rope
                for layer in range(stack.n_layers):
                    at = f"{name}.{layer}.self_attention"
                    shapes |= {f"{at}.{q}_rope.weight": (stack.d_head,) for q in ("q", "k")}
        if self.input_features is not None and self.model.encoder is not None:
            # vectors are projected where tokens would be looked up
            site, d_model = self.model.embedding_site("encoder"), self.model.encoder.d_model
            shapes[f"{site}.weight"] = (d_model, self.input_features)
            shapes[f"{site}.bias"] = (d_model,)
        own = dict(self.own_weights)
        return own | {
            name: own.get(name, shape)
            for name, shape in shapes.items()
            if not self.lacks(name) and not self.lacks(name.rpartition(".")[0])
        }


def describe(model: ModelConfig) -> Description:
    """Describe a model that `mu_ref` runs.

    Args:
        model: the configuration.

    Returns:
        Its description: nothing added, nothing left out.
    """
    return Description(model=model, lm_head="none" if model.decoder is None else "last")
