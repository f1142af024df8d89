"""Drafters of apple/ml-recurrent-drafter: names of its PyTorch state dict to ours."""

import re
from collections.abc import Mapping

import numpy as np

from mu_ref.errors import WeightsError
from mu_ref.redrafter.config import DrafterConfig, drafter_shapes
from mu_ref.weights import Weights, check_names

__all__ = ["apple_name_of", "read_apple_drafter"]

_FIXED = {
    "input_proj.weight": "drafter.input_proj.weight",
    "input_proj.bias": "drafter.input_proj.bias",
    "rnn_u.weight": "drafter.rnn_u.weight",
    "rnn_u.bias": "drafter.rnn_w.bias",  # the same sum: see `drafter.advance`
    "rnn_w.weight": "drafter.rnn_w.weight",
}


def apple_name_of(name: str) -> str | None:
    """Translate one name; None if it is not a drafter's.

    Residual block i is `lm_head.{i}.linear`, the head `lm_head.{number of blocks}`.
    """
    if name in _FIXED:
        return _FIXED[name]
    block = re.fullmatch(r"lm_head\.(\d+)\.linear\.(weight|bias)", name)
    if block:
        return f"drafter.{block[1]}.{block[2]}"
    return "drafter.head.weight" if re.fullmatch(r"lm_head\.\d+\.weight", name) else None


def read_apple_drafter(tensors: Mapping[str, np.ndarray]) -> tuple[DrafterConfig, Weights]:
    """Read a state dict.

    Args:
        tensors: {name in Apple's code: array}.

    Returns:
        The configuration, which follows from names and shapes, and weights under our names.

    Raises:
        WeightsError: a name is unknown or missing, or shapes contradict each other.
    """
    weights: Weights = {}
    for name, tensor in tensors.items():
        ours = apple_name_of(name)
        if ours is None:
            raise WeightsError(f"a drafter's state dict must have Apple's names, got {name!r}")
        weights[ours] = tensor
    if "drafter.head.weight" not in weights:
        raise WeightsError("a drafter's state dict must have a head, lm_head.N.weight; it has none")
    vocab_size, d_exit = weights["drafter.head.weight"].shape
    proj = weights.get("drafter.input_proj.weight")
    drafter = DrafterConfig(
        d_model=(d_exit if proj is None else proj.shape[1]) // 2,
        vocab_size=vocab_size,
        d_exit=d_exit,
        n_blocks=sum(bool(re.fullmatch(r"drafter\.\d+\.weight", name)) for name in weights),
        rnn="drafter.rnn_u.weight" in weights,
    )
    shapes = {name: w.shape for name, w in weights.items()}
    check_names("a drafter's state dict", drafter_shapes(drafter), shapes)
    return drafter, weights
