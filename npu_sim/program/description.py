"""What is known of a model that is only described, and the executor that records it.

A `Description` is a `ModelConfig` and what its architecture has beside or instead of ours: other
positions than RoPE, norms on queries and keys, parts left out. `DescribedOps` records the forward
pass of `mu_ref` with those differences, so a model that `mu_ref` runs has the very program that is
recorded from it. Not here: calls and requests (`models.py`). Chapter: `docs/04_npu.md`.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.ops.rotation import Rotation
from npu_sim.program.log import Shaped
from npu_sim.program.precision import Precision
from npu_sim.program.recorder import RecordOps

__all__ = ["HEADS", "DescribedOps", "Description", "describe"]

HEADS = ("all", "last", "none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """A model whose cost can be told without running it."""

    config: ModelConfig
    lm_head: Literal["all", "last", "none"]  # positions of a call that the head scores
    positions: Literal["rope", "table", "bias", "none"] = "rope"  # bias: added to the scores (T5)
    qk_norm: bool = False  # a norm on every head of queries and keys
    absent: frozenset[str] = frozenset()  # endings of sites and weights that this family lacks
    extra_embeddings: int = 0  # more rows added to each embedding, for example token types
    input_features: int | None = None  # the encoder reads vectors of this width, not tokens

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.config.name

    @property
    def n_parameters(self) -> int:
        """Parameters, each once."""
        return sum(prod(shape) for shape in DescribedOps(self, Precision()).log.shapes.values())


def describe(config: ModelConfig) -> Description:
    """Describe a model that `mu_ref` runs.

    Args:
        config: the model.

    Returns:
        Its description: nothing added, nothing left out.
    """
    return Description(config=config, lm_head="none" if config.decoder is None else "last")


class DescribedOps(RecordOps):
    """Records the forward pass as a described architecture would run it; shapes only.

    Args:
        model: the description.
        precision: stored widths.
    """

    def __init__(self, model: Description, precision: Precision) -> None:
        super().__init__(model.config, precision)
        self.model = model
        shapes = self.log.shapes
        for name in [n for n in shapes if self._lacks(n.rsplit(".", 1)[0]) or self._lacks(n)]:
            del shapes[name]
        for stack_name, stack in model.config.stacks.items():
            if model.positions == "table":
                rows = model.config.max_len + model.extra_embeddings
                shapes[f"{stack_name}.positions.weight"] = (rows, stack.d_model)
            if model.positions == "bias":  # 32 distances, as in T5
                shapes[f"{stack_name}.positions.weight"] = (32, stack.n_heads)
            if model.qk_norm:
                for layer in range(stack.n_layers):
                    for part in ("q_rope", "k_rope"):
                        shapes[f"{stack_name}.{layer}.self_attention.{part}.weight"] = (
                            stack.d_head,
                        )
        if model.input_features is not None and model.config.encoder is not None:
            site = model.config.embedding_site("encoder")
            shapes[f"{site}.weight"] = (model.config.encoder.d_model, model.input_features)
            shapes[f"{site}.bias"] = (model.config.encoder.d_model,)

    def _lacks(self, name: str) -> bool:
        """Whether the architecture has no such site or weight."""
        return any(name.endswith(ending) for ending in self.model.absent)

    def embed(self, tokens: np.ndarray, site: str) -> Shaped:
        """Look rows up, or project feature vectors; then add what says where a token stands."""
        stack = "encoder" if self.log.phase == "encode" else "decoder"
        if self.model.input_features is not None and stack == "encoder":
            shape = (*tokens.shape, self.model.input_features)
            features = self.log.activation("features", shape)
            x = self.linear(Shaped(shape=shape, tensor=features), site)
        else:
            x = super().embed(tokens, site)
        if self.model.positions == "table":
            rows = self.log.weight(f"{stack}.positions.weight", x.shape)
            inputs = (x.tensor, *[rows] * (1 + self.model.extra_embeddings))
            x = self.log.vector("add", "add", x.shape, inputs, f"{stack}.positions", None)
        return x

    def norm(self, x: Shaped, site: str, kind: str, eps: float) -> Shaped:
        """As recorded, unless the architecture has no such norm."""
        return x if self._lacks(site) else super().norm(x, site, kind, eps)

    def rope(self, x: Shaped, rotation: Rotation, site: str) -> Shaped:
        """Normalise queries and keys, then turn them, each where the architecture does."""
        if self.model.qk_norm:
            stack = self.config.stacks[site.split(".", maxsplit=1)[0]]
            x = super().norm(x, site, stack.norm_kind, stack.norm_eps)
        return super().rope(x, rotation, site) if self.model.positions == "rope" else x

    def scale(self, x: Shaped, factor: float, site: str) -> Shaped:
        """Scale scores; T5 adds a bias of its own instead, in self-attention."""
        if self.model.positions == "bias" and site.endswith("attention.scale"):
            if "cross_attention" in site:
                return x
            table = self.log.weight(f"{site.split('.', maxsplit=1)[0]}.positions.weight")
            return self.log.vector("add", "add", x.shape, (x.tensor, table), site, None)
        return super().scale(x, factor, site)
