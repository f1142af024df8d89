"""What decides a drafter: its sizes, and the weights that follow from them."""

import json
from dataclasses import asdict, dataclass
from math import prod
from typing import Self

import numpy as np

from mu_ref.border.ranges import BLOCKS, SIZE, WEIGHTS, check_fields, check_kinds
from mu_ref.border.reading import exact_fields, parse_json
from mu_ref.config import ModelConfig
from mu_ref.errors import ConfigError, located
from mu_ref.weights import Weights

__all__ = ["DrafterConfig", "drafter_shapes", "initial_drafter"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DrafterConfig:
    """Sizes of a drafter; `docs/15_drafting.md` shows the network.

    Raises:
        ConfigError: a size or the number of blocks is out of its range.
    """

    d_model: int  # width of the model's hidden states and embeddings
    vocab_size: int  # of the model's decoder
    d_exit: int  # width of the residual blocks; 2 * d_model needs no input projection
    n_blocks: int  # residual blocks
    rnn: bool  # a trained recurrent cell; without it the state is the sum of the embeddings

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_kinds(self, ConfigError)
        sizes = {"d_model": SIZE, "vocab_size": SIZE, "d_exit": SIZE, "n_blocks": BLOCKS}
        check_fields(self, sizes, ConfigError)
        WEIGHTS.check("the number of a drafter's weights", self.n_parameters, ConfigError)

    @property
    def input_proj(self) -> bool:
        """Is there a projection from [h, s] to the blocks?"""
        return self.d_exit != 2 * self.d_model

    @property
    def n_parameters(self) -> int:
        """Weights and biases: $R (E^2 + E) + E V$ of blocks and head, projection and cell."""
        return sum(prod(shape) for shape in drafter_shapes(self).values())

    def check_fits(self, model: ModelConfig) -> None:
        """Raise ConfigError if the drafter was made for another model."""
        stack = model.stacks.get("decoder")
        if stack is None or (stack.d_model, model.vocab_size) != (self.d_model, self.vocab_size):
            raise ConfigError(
                f"the drafter must fit {model.name}; it was made for width {self.d_model} and "
                f"{self.vocab_size} tokens"
            )

    def to_json(self) -> str:
        """Return the configuration as a JSON text that `from_json` reads back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str = "a drafter's configuration") -> Self:
        """Read a configuration written by `to_json`.

        Args:
            text: JSON.
            where: it stands, for messages.

        Returns:
            The configuration.

        Raises:
            ConfigError: not JSON, or a field is missing, unknown or of the wrong kind.
        """
        data = parse_json(text, where, "JSON of a drafter", ConfigError)
        exact_fields(cls, data, where, ConfigError)
        with located(f"{where}: "):
            return cls(**data)


def drafter_shapes(drafter: DrafterConfig) -> dict[str, tuple[int, ...]]:
    """List every weight of a drafter with its shape.

    Args:
        drafter: the drafter.

    Returns:
        {"drafter.<part>.weight" or "drafter.<part>.bias": shape}.
    """
    d, exit_ = drafter.d_model, drafter.d_exit
    shapes: dict[str, tuple[int, ...]] = {}
    if drafter.rnn:
        shapes["drafter.rnn_w.weight"] = (d, d)
        shapes["drafter.rnn_w.bias"] = (d,)
        shapes["drafter.rnn_u.weight"] = (d, d)
    if drafter.input_proj:
        shapes["drafter.input_proj.weight"] = (exit_, 2 * d)
        shapes["drafter.input_proj.bias"] = (exit_,)
    for block in range(drafter.n_blocks):
        shapes[f"drafter.{block}.weight"] = (exit_, exit_)
        shapes[f"drafter.{block}.bias"] = (exit_,)
    shapes["drafter.head.weight"] = (drafter.vocab_size, exit_)
    return shapes


def initial_drafter(drafter: DrafterConfig, rng: np.random.Generator) -> Weights:
    r"""Draw a drafter: every weight and bias uniform in $\pm 1 / \sqrt{d_{in}}$, as PyTorch does.

    Args:
        drafter: the drafter.
        rng: source of randomness.

    Returns:
        float32 weights.
    """
    shapes = drafter_shapes(drafter)
    weights = {}
    for name, shape in shapes.items():
        # A bias has the range of its weight.
        d_in = shapes[name.replace(".bias", ".weight")][1]
        weights[name] = rng.uniform(-(d_in**-0.5), d_in**-0.5, shape).astype(np.float32)
    return weights
