"""Readers of other projects' checkpoints: a folder with `config.json` and `model.safetensors`.

Imports configurations and weights. Two families, `microsoft_mu.py` and `t5gemma.py`: the maps from
their names and fields to ours live there and nowhere else.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.reading import read_json
from mu_ref.config import ModelConfig
from mu_ref.errors import ConfigError, WeightsError
from mu_ref.readers import microsoft_mu, t5gemma
from mu_ref.weights import Weights, check_names, read_safetensors, weight_shapes

__all__ = ["config_from_fields", "read_checkpoint"]

Fields = Mapping[str, Any]


def read_checkpoint(folder: Path) -> tuple[ModelConfig, Weights]:
    """Read a model of another project.

    Args:
        folder: holds `config.json` and `model.safetensors` with the project's own names.

    Returns:
        The configuration and weights under our names.

    Raises:
        ConfigError: the family is unknown, or a field asks for what we do not have.
        WeightsError: tensors are missing, unknown or of another shape.
    """
    fields = _read_json(folder / "config.json")
    model = config_from_fields(fields)
    tensors, _ = read_safetensors(folder / "model.safetensors")
    rename = microsoft_mu.name_of if "n_encoder_layer" in fields else t5gemma.name_of
    return model, _renamed(tensors, model, rename, str(folder))


def config_from_fields(fields: Fields) -> ModelConfig:
    """Translate the fields of a `config.json`, whichever of the two families it is."""
    try:
        if "n_encoder_layer" in fields:
            return microsoft_mu.config_of(fields)
        if fields.get("model_type") == "t5gemma" or {"encoder", "decoder"} <= set(fields):
            return t5gemma.config_of(fields)
    except (TypeError, AttributeError, ArithmeticError, LookupError) as error:
        raise ConfigError(
            f"config.json must hold a value of the right kind in every field; one has not ({error})"
        ) from error
    raise ConfigError(
        "config.json must be of microsoft/encoder-decoder-slm (it has n_encoder_layer) or of "
        f"T5Gemma (model_type t5gemma); got model_type {fields.get('model_type')!r}"
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
            weights[ours] = tensor
            continue
        tied = [t for n, t in tensors.items() if rename(n) == f"{model.head_site}.weight"]
        if tied and not np.array_equal(tensor, tied[0]):
            raise WeightsError(f"{what}: {name} must equal the tied embedding; it differs")
    check_names(what, weight_shapes(model), {n: w.shape for n, w in weights.items()})
    return weights
