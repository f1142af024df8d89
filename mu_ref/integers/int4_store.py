"""int4 weight files: packed matrices with their float16 scales, the rest float16.

A safetensors file with the names of the float file. `site.weight` of a matrix of the layers is
uint8 [d_out, ceil(d_in / 2)], two weights to a byte, the first in the low nibble, with
`site.weight_scale` float16 [d_out, ceil(d_in / group)] beside it. Embeddings and the head are int8
with `_scale` float16 [n_rows, 1]. Everything else is float16. The metadata holds the configuration
as `config` and the group as `int4_group`. What the integers mean: `int4.py`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mu_ref.border.arrays import check_finite
from mu_ref.config import ModelConfig
from mu_ref.errors import WeightsError
from mu_ref.integers.int4 import int4_shapes, is_table
from mu_ref.weights import Shape, Weights, check_names, read_safetensors, write_safetensors

__all__ = ["load_int4", "save_int4"]


def save_int4(
    path: Path,
    model: ModelConfig,
    tensors: Mapping[str, np.ndarray],
    group: int,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write an int4 file; it appears whole or not at all.

    Args:
        path: a .safetensors file.
        model: goes into the metadata.
        tensors: what `quantize_weights_int4` returned.
        group: inputs that share a scale.
        notes: more texts for the metadata.

    Raises:
        WeightsError: a tensor is missing, unknown, or of another shape or type, or a scale is not
            positive.
    """
    _check(path.name, int4_shapes(model, group), tensors)
    metadata = {**(notes or {}), "config": model.to_json(), "int4_group": str(group)}
    write_safetensors(path, tensors, metadata)


def load_int4(path: Path) -> tuple[ModelConfig, Weights, int]:
    """Read a file written by `save_int4`.

    Args:
        path: a .safetensors file.

    Returns:
        The configuration, {name: uint8, int8 or float16 array} and the group.

    Raises:
        WeightsError: not there, damaged, another kind of weight file, of other names, shapes or
            types, or with a scale that is not positive.
    """
    tensors, metadata = read_safetensors(path)
    lacking = [key for key in ("config", "int4_group") if key not in metadata]
    if lacking:
        raise WeightsError(
            f"{path} must be an int4 weight file of mu-ref; its metadata lacks {lacking[0]!r}"
        )
    text = metadata["int4_group"]
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) > 0):
        raise WeightsError(f"{path}: int4_group must be a positive integer, got {text[:60]!r}")
    model = ModelConfig.from_json(metadata["config"], f"{path}: configuration")
    _check(str(path), int4_shapes(model, int(text)), tensors)
    return model, tensors, int(text)


def _check(what: str, shapes: Mapping[str, Shape], tensors: Mapping[str, np.ndarray]) -> None:
    check_names(what, shapes, {name: t.shape for name, t in tensors.items()})
    for name, tensor in tensors.items():
        wanted: type = np.uint8 if f"{name}_scale" in shapes else np.float16
        if is_table(name):
            wanted = np.int8
        if tensor.dtype != wanted:
            raise WeightsError(f"{what}: {name} must be {np.dtype(wanted)}, got {tensor.dtype}")
        if name.endswith("_scale") and not ((tensor > 0) & np.isfinite(tensor)).all():
            raise WeightsError(f"{what}: {name} must hold positive scales; one is not")
    check_finite(what, tensors)
