"""Readers of other projects' checkpoints: a folder with `config.json` and `model.safetensors`.

Imports configurations and weights. `folder.py` reads the files. Three families, `microsoft_mu.py`,
`t5gemma.py` and `llama.py`: the maps from their names and fields to ours live there and nowhere
else. What is read, and what is refused: `docs/checkpoints.md`.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from mu_ref.border.text import short
from mu_ref.config import ModelConfig
from mu_ref.errors import ConfigError, WeightsError
from mu_ref.readers import llama, microsoft_mu, t5gemma
from mu_ref.readers.fields import Fields, warn_of_unknown
from mu_ref.readers.folder import files_of, read_fields, read_tensors
from mu_ref.readers.ids import FIELDS
from mu_ref.weights import Weights, check_names, weight_shapes

__all__ = ["config_from_fields", "files_of", "read_checkpoint"]

# Of generation_config.json: what says nothing of a greedy answer.
_NOTES = ("_from_model_config", "transformers_version", "use_cache", "cache_implementation",
          "output_attentions", "output_hidden_states", "return_dict_in_generate", "output_scores",
          "output_logits")  # fmt: skip


def read_checkpoint(folder: Path) -> tuple[ModelConfig, Weights]:
    """Read a model of another project.

    Args:
        folder: holds `config.json`, perhaps `generation_config.json`, and `model.safetensors` or
            its parts with an index, all with the project's own names.

    Returns:
        The configuration and weights under our names.

    Raises:
        ConfigError: the family is unknown, or a field asks for what we do not have.
        WeightsError: tensors are missing, unknown, of another shape or not of floats.
    """
    fields, generation = read_fields(folder)
    model = config_from_fields(fields, str(folder / "config.json"), generation)
    family = _family(fields)
    assert family is not None  # else the configuration was refused
    return model, _renamed(read_tensors(folder), model, family.name_of, str(folder))


def config_from_fields(
    fields: Fields, where: str = "config.json", generation: Fields | None = None
) -> ModelConfig:
    """Translate the fields of a `config.json`, whichever of the three families it is.

    Args:
        fields: of the file; those that nothing here reads are named in a warning.
        where: the file, for messages.
        generation: fields of a `generation_config.json`, if there is one.

    Returns:
        The configuration.

    Raises:
        ConfigError: the family is unknown, or a field asks for what we do not have.
    """
    _refuse_others(fields, where)
    if generation is not None:
        warn_of_unknown(generation, {*FIELDS, *_NOTES}, "generation_config.json: ")
    family = _family(fields)
    if family is None:
        raise ConfigError(
            f"{where} must be of microsoft/encoder-decoder-slm (it has n_encoder_layer), of "
            "T5Gemma (model_type t5gemma) or of LLaMA (llama); got model_type "
            f"{short(fields.get('model_type'))}"
        )
    try:
        return family.config_of(fields, generation, f"{where}: ")
    except ConfigError as error:
        if str(error).startswith(where):
            raise
        raise ConfigError(f"{where}: {error}") from error  # the fields contradict each other


def _family(fields: Fields) -> ModuleType | None:
    """Return the module that knows a family's names and fields; None if none does."""
    if "n_encoder_layer" in fields:
        return microsoft_mu
    kind = fields.get("model_type")
    if kind == "t5gemma" or (kind is None and {"encoder", "decoder"} <= set(fields)):
        return t5gemma
    return llama if kind == "llama" else None


def _refuse_others(fields: Fields, where: str) -> None:
    """Refuse the relatives of both families by name; their fields look like ours."""
    parts = [fields, *(fields.get(name) for name in ("encoder", "decoder"))]
    objects = [part for part in parts if isinstance(part, dict)]
    kinds = {kind for part in objects if isinstance(kind := part.get("model_type"), str)}
    made = fields.get("architectures")
    kinds |= (
        {name.lower() for name in made if isinstance(name, str)}
        if isinstance(made, list)
        else set()
    )
    found = None
    if any(kind.startswith("t5gemma2") for kind in kinds):
        found = "T5Gemma 2"
    elif any("llava" in kind or kind == "mu_v2" for kind in kinds) or "mm_vision_tower" in fields:
        found = "Mu's vision model (mu_v2)"
    elif any(kind == "encoder-decoder" or "bert" in kind for kind in kinds):
        found = "BERT2BERT (model_type encoder-decoder)"
    if found is not None:
        raise ConfigError(f"{where}: {found} is not supported; give a checkpoint of T5Gemma or of "
                          "Mu's text model")  # fmt: skip


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
