"""Drafter files: safetensors, in floats or integers, with the configuration in the metadata.

Names are sites, as in the model's file, so a drafter's weights join the model's in one executor.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mu_ref.border.arrays import check_finite, check_floats
from mu_ref.config import ModelConfig
from mu_ref.errors import WeightsError, check_choice
from mu_ref.integers.encodings import Encoding, encodings_from_json, encodings_to_json
from mu_ref.integers.store import SCHEMES, IntegerModel, check_integers, check_sites
from mu_ref.redrafter.config import DrafterConfig, drafter_shapes
from mu_ref.weights import Weights, check_names, read_safetensors, write_safetensors

__all__ = ["IntegerDrafter", "load_drafter", "load_integer_drafter", "save_drafter",
           "save_integer_drafter"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class IntegerDrafter:
    """A drafter in integers, made for one integer model."""

    drafter: DrafterConfig
    scheme: str  # of the model too
    tensors: Mapping[str, np.ndarray]  # int8 and int32; scales float32
    activations: Mapping[str, Encoding]  # by site
    notes: Mapping[str, str] = field(default_factory=dict)  # how it was made

    def joined(self, model: IntegerModel) -> IntegerModel:
        """Return the model with the drafter's sites among its own.

        Args:
            model: of the same scheme.

        Returns:
            What one executor needs for both.

        Raises:
            WeightsError: the schemes differ.
        """
        if model.scheme != self.scheme:
            raise WeightsError(
                f"the drafter must have the model's scheme {model.scheme}, it has {self.scheme}"
            )
        return replace(
            model,
            tensors={**model.tensors, **self.tensors},
            activations={**model.activations, **self.activations},
        )


def save_drafter(
    path: Path, drafter: DrafterConfig, weights: Weights, notes: Mapping[str, str]
) -> None:
    """Write a drafter in float16; the file appears whole or not at all.

    Args:
        path: a .safetensors file.
        drafter: goes into the metadata.
        weights: exactly those of `drafter_shapes`.
        notes: more metadata, such as how it was trained.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape, or a number in it is none
            of float16.
    """
    shapes = {name: w.shape for name, w in weights.items()}
    check_names("drafter", drafter_shapes(drafter), shapes)
    # Halves, because drafters ship with the package and a draft need not be exact.
    with np.errstate(over="ignore"):  # looked at in the next line
        halves = {name: w.astype(np.float16) for name, w in weights.items()}
    check_finite(f"{path.name} in float16", halves)
    write_safetensors(path, halves, {**notes, "drafter": drafter.to_json()})


def load_drafter(path: Path, model: ModelConfig | None = None) -> tuple[DrafterConfig, Weights]:
    """Read a file written by `save_drafter`.

    Args:
        path: a .safetensors file.
        model: the drafter must fit it, if given.

    Returns:
        The configuration and float32 weights.

    Raises:
        WeightsError: not there, damaged, or no drafter in floats.
        ConfigError: made for a model of another width or vocabulary.
    """
    drafter, tensors, metadata = _read(path, model)
    if "scheme" in metadata:
        raise WeightsError(f"{path} must be a float drafter, it holds {metadata['scheme']}")
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    check_names(str(path), drafter_shapes(drafter), shapes)
    check_floats(str(path), tensors)
    return drafter, {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def save_integer_drafter(path: Path, made: IntegerDrafter) -> None:
    """Write an integer drafter; the file appears whole or not at all."""
    metadata = {
        **made.notes,
        "drafter": made.drafter.to_json(),
        "scheme": made.scheme,
        "activations": encodings_to_json(made.activations),
    }
    write_safetensors(path, made.tensors, metadata)


def load_integer_drafter(path: Path, model: ModelConfig | None = None) -> IntegerDrafter:
    """Read a file written by `save_integer_drafter`.

    Args:
        path: a .safetensors file.
        model: the drafter must fit it, if given.

    Returns:
        The drafter.

    Raises:
        WeightsError: not there, damaged, or no drafter in integers.
        ConfigError: made for a model of another width or vocabulary.
    """
    drafter, tensors, metadata = _read(path, model)
    if not {"scheme", "activations"} <= set(metadata):
        raise WeightsError(f"{path} must be an integer drafter of `mu-ref train-drafter`")
    shapes = drafter_shapes(drafter)
    rows = {name: shape[:1] for name, shape in shapes.items() if name.endswith(".weight")}
    shapes |= {f"{name}_scale": shape for name, shape in rows.items()}  # a scale for each row
    check_names(str(path), shapes, {name: tensor.shape for name, tensor in tensors.items()})
    check_choice(f"{path}: scheme", metadata["scheme"], SCHEMES, WeightsError)
    check_integers(path, tensors)
    activations = encodings_from_json(metadata["activations"], f"{path}: activations")
    check_sites(str(path), activations, *_activation_sites(drafter))
    known = ("drafter", "scheme", "activations")
    notes = {key: text for key, text in metadata.items() if key not in known}
    return IntegerDrafter(drafter, metadata["scheme"], tensors, activations, notes)


def _activation_sites(drafter: DrafterConfig) -> tuple[set[str], set[str]]:
    """Sites that need an encoding, and those of later tokens, which drafts of one have not."""
    sites = {name.rpartition(".")[0] for name in drafter_shapes(drafter)} | {"drafter.concat"}
    for block in range(drafter.n_blocks):
        sites |= {f"drafter.{block}.activation", f"drafter.{block}.residual"}
    if not drafter.rnn:
        return sites, {"drafter.state_sum"}
    later = {"drafter.rnn_u", "drafter.rnn_sum"}
    return (sites | {"drafter.state"}) - later, later


def _read(path: Path, model: ModelConfig | None) -> tuple[DrafterConfig, Weights, dict[str, str]]:
    tensors, metadata = read_safetensors(path)
    if "drafter" not in metadata:
        raise WeightsError(
            f"{path} must be a drafter of `mu-ref train-drafter`; its metadata names none"
        )
    drafter = DrafterConfig.from_json(metadata["drafter"], f"{path}: drafter")
    if model is not None:
        drafter.check_fits(model)
    return drafter, tensors, metadata
