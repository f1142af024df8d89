"""Drafters of apple/ml-recurrent-drafter: names of its PyTorch state dict to ours."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mu_ref.border.arrays import check_finite, check_floats
from mu_ref.border.text import short
from mu_ref.config import ModelConfig
from mu_ref.errors import ConfigError, WeightsError, located
from mu_ref.readers.folder import read_fields, read_tensors
from mu_ref.redrafter.config import DrafterConfig, drafter_shapes
from mu_ref.weights import Weights, check_names

__all__ = ["apple_name_of", "read_apple_drafter", "read_apple_folder"]

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
    block = re.fullmatch(r"lm_head\.([0-9]+)\.linear\.(weight|bias)", name)
    if block:
        return f"drafter.{block[1]}.{block[2]}"
    return "drafter.head.weight" if re.fullmatch(r"lm_head\.[0-9]+\.weight", name) else None


def read_apple_drafter(tensors: Mapping[str, np.ndarray]) -> tuple[DrafterConfig, Weights]:
    """Read a state dict.

    Args:
        tensors: {name in Apple's code: array}.

    Returns:
        The configuration, which follows from names and shapes, and weights under our names.

    Raises:
        WeightsError: a name is unknown, missing or stands twice, shapes contradict each other, or
            a tensor holds something else than finite floats.
        ConfigError: a size is out of its range.
    """
    what = "a drafter's state dict"
    check_finite(what, tensors)
    check_floats(what, tensors)
    weights: Weights = {}
    for name, tensor in tensors.items():
        ours = apple_name_of(name)
        if ours is None:
            raise WeightsError(f"{what} must have Apple's names, got {short(name)}")
        if ours in weights:
            raise WeightsError(f"{what} must have {ours} once, got it again as {short(name)}")
        weights[ours] = tensor
    if "drafter.head.weight" not in weights:
        raise WeightsError(f"{what} must have a head, lm_head.N.weight; it has none")
    head = weights["drafter.head.weight"]
    proj = weights.get("drafter.input_proj.weight", head)
    if head.ndim != 2 or proj.ndim != 2:
        raise WeightsError(f"{what} must have matrices for its head and projection; one is not")
    n_blocks = sum(bool(re.fullmatch(r"drafter\.[0-9]+\.weight", name)) for name in weights)
    if f"lm_head.{n_blocks}.weight" not in tensors:
        raise WeightsError(f"{what} must have its head after {n_blocks} blocks, as "
                           f"lm_head.{n_blocks}.weight; it has not")  # fmt: skip
    with located(f"{what}: "):
        drafter = DrafterConfig(
            d_model=proj.shape[1] // 2,
            vocab_size=head.shape[0],
            d_exit=head.shape[1],
            n_blocks=n_blocks,
            rnn="drafter.rnn_u.weight" in weights,
        )
    check_names(what, drafter_shapes(drafter), {name: w.shape for name, w in weights.items()})
    return drafter, weights


def read_apple_folder(folder: Path, model: ModelConfig) -> tuple[DrafterConfig, Weights]:
    """Read a drafter that Apple's code has saved, for one model.

    Args:
        folder: holds `config.json` and `model.safetensors`, or its parts with an index.
        model: the drafter must fit it.

    Returns:
        The configuration, and float32 weights under our names.

    Raises:
        WeightsError: see `read_apple_drafter` and `readers.folder.read_tensors`.
        ConfigError: `config.json` contradicts the weights, or the drafter is of another width or
            vocabulary than the model.
    """
    fields, _ = read_fields(folder)
    with located(f"{folder}: "):
        drafter, weights = read_apple_drafter(read_tensors(folder))
    found = {
        "hidden_size": drafter.d_model, "vocab_size": drafter.vocab_size,
        "exit_dim": drafter.d_exit, "num_draft_layers": drafter.n_blocks, "rnn": drafter.rnn,
    }  # fmt: skip
    for name, value in found.items():
        said = fields.get(name, value)
        if said != value:
            raise ConfigError(f"{folder / 'config.json'}: {name} must be that of the weights, "
                              f"{value}, got {short(said)}")  # fmt: skip
    drafter.check_fits(model)
    return drafter, {name: tensor.astype(np.float32) for name, tensor in weights.items()}
