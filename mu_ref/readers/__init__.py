"""Readers of other projects' checkpoints: a folder with `config.json` and `model.safetensors`.

Imports configurations and weights. Two families, `microsoft_mu.py` and `t5gemma.py`: the maps from
their names and fields to ours live there and nowhere else.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.arrays import check_floats, read_safetensors
from mu_ref.border.reading import read_json
from mu_ref.border.text import short
from mu_ref.config import ModelConfig
from mu_ref.errors import ConfigError, WeightsError
from mu_ref.readers import microsoft_mu, t5gemma
from mu_ref.readers.fields import Fields
from mu_ref.weights import Weights, check_names, weight_shapes

__all__ = ["config_from_fields", "read_checkpoint"]


def read_checkpoint(folder: Path) -> tuple[ModelConfig, Weights]:
    """Read a model of another project.

    Args:
        folder: holds `config.json` and `model.safetensors` with the project's own names.

    Returns:
        The configuration and weights under our names.

    Raises:
        ConfigError: the family is unknown, or a field asks for what we do not have.
        WeightsError: tensors are missing, unknown, of another shape or not of floats.
    """
    fields = _read_json(folder / "config.json")
    model = config_from_fields(fields, str(folder / "config.json"))
    path = folder / "model.safetensors"
    if not path.exists() and (folder / f"{path.name}.index.json").exists():
        raise WeightsError(f"{path} must hold all weights, got several files of an index; save "
                           "the checkpoint as one file")  # fmt: skip
    tensors, _ = read_safetensors(path)
    check_floats(str(path), tensors)
    rename = microsoft_mu.name_of if "n_encoder_layer" in fields else t5gemma.name_of
    return model, _renamed(tensors, model, rename, str(folder))


def config_from_fields(fields: Fields, where: str = "config.json") -> ModelConfig:
    """Translate the fields of a `config.json`, whichever of the two families it is.

    Args:
        fields: of the file; those that nothing here reads are named in a warning.
        where: the file, for messages.

    Returns:
        The configuration.

    Raises:
        ConfigError: the family is unknown, or a field asks for what we do not have.
    """
    kind = fields.get("model_type")
    try:
        if "n_encoder_layer" in fields:
            return microsoft_mu.config_of(fields, f"{where}: ")
        if kind == "t5gemma" or (kind is None and {"encoder", "decoder"} <= set(fields)):
            return t5gemma.config_of(fields, f"{where}: ")
    except ConfigError as error:
        if str(error).startswith(where):
            raise
        raise ConfigError(f"{where}: {error}") from error  # the fields contradict each other
    raise ConfigError(
        f"{where} must be of microsoft/encoder-decoder-slm (it has n_encoder_layer) or of "
        f"T5Gemma (model_type t5gemma); got model_type {short(kind)}"
    )


def _read_json(path: Path) -> dict[str, Any]:
    fields = read_json(path, "a JSON file", ConfigError)
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} must hold a JSON object, got {type(fields).__name__}")
    return fields


def _renamed(
    tensors: Weights, model: ModelConfig, rename: Callable[[str], str | None], what: str
) -> Weights:
    """Apply a name map; a copy of the tied embedding is checked to be one, then dropped."""
    weights: Weights = {}
    for name, tensor in tensors.items():
        ours = rename(name)
        # A tied head has no weight of its own here; the file may hold a copy under its name.
        if ours is not None and not (ours == "head.weight" and model.tied_head):
            if ours in weights:
                raise WeightsError(f"{what}: {name} must stand once, under one of its names")
            weights[ours] = tensor
            continue
        tied = [t for n, t in tensors.items() if rename(n) == f"{model.head_site}.weight"]
        if tied and not np.array_equal(tensor, tied[0]):
            raise WeightsError(f"{what}: {name} must equal the tied embedding; it differs")
    check_names(what, weight_shapes(model), {n: w.shape for n, w in weights.items()})
    return weights
