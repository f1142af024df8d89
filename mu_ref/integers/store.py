"""Integer weight files: int8 matrices, int16 gains, int32 biases, and every scale.

Tensors keep the names of the float file: `site.weight` with `site.weight_scale` beside it, and
`site.bias`. The encodings of the activations are JSON in the metadata.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mu_ref.border.text import short
from mu_ref.config import ModelConfig
from mu_ref.errors import QuantizationError, WeightsError, check_choice
from mu_ref.integers.encodings import Encoding, encodings_from_json, encodings_to_json
from mu_ref.integers.fixed_point import ROUNDINGS, Rounding
from mu_ref.weights import check_names, read_safetensors, weight_shapes, write_safetensors

__all__ = ["SCHEMES", "IntegerModel", "load_integers", "save_integers"]

SCHEMES = ("w8a16", "w8a8")


@dataclass(frozen=True, slots=True)
class IntegerModel:
    """A model in integers: all that the integer executor and a port need."""

    model: ModelConfig
    scheme: str
    rounding: Rounding  # of 32-bit accumulators
    tensors: Mapping[str, np.ndarray]  # int8, int16 and int32; scales float32
    activations: Mapping[str, Encoding]  # by site
    notes: Mapping[str, str] = field(default_factory=dict)  # how it was made

    def weight(self, site: str) -> np.ndarray:
        """Return int8 [d_out, d_in], or int16 [d] of a norm."""
        return self._tensor(f"{site}.weight")

    def weight_scale(self, site: str) -> np.ndarray:
        """Return float64 [d_out], or [1] of a norm."""
        return self._tensor(f"{site}.weight_scale").astype(np.float64)

    def bias(self, site: str) -> np.ndarray | None:
        """Return int32 [d_out] in accumulator steps (a norm's in 2^-8 output steps), or None."""
        return self.tensors.get(f"{site}.bias")

    def encoding(self, site: str) -> Encoding:
        """Return the encoding of what a site computes."""
        if site not in self.activations:
            raise QuantizationError(
                f"the integer model must have an encoding for {site!r}; it has none. "
                "Quantize again with `mu-ref quantize`"
            )
        return self.activations[site]

    def _tensor(self, name: str) -> np.ndarray:
        if name not in self.tensors:
            raise WeightsError(f"weights must contain {name!r}; they do not")
        return self.tensors[name]


def integer_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """List the tensors of an integer file: those of the float file, and a scale for each weight."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in weight_shapes(model).items():
        shapes[name] = shape
        if name.endswith(".weight"):
            shapes[f"{name}_scale"] = shape[:1] if len(shape) == 2 else (1,)
    return shapes


def activation_sites(model: ModelConfig) -> set[str]:
    """List the sites that an integer model has an encoding for: all that compute something new."""
    names = (name.rpartition(".") for name in weight_shapes(model))
    sites = {site for site, _, kind in names if kind == "weight"} - {"head"}
    for name, stack in model.stacks.items():
        capped = ("softcap",) * (stack.attention_softcap is not None)
        attention = ("scores", "softmax", "mix", "residual", *capped)
        both = name == "decoder" and model.encoder is not None
        parts = {
            "self_attention": ("q_rope", "k_rope", *attention),
            "cross_attention": attention if both else (),
            "mlp": ("activation", "residual", *("gated",) * stack.gated),
        }
        sites |= {
            f"{name}.{layer}.{sublayer}.{part}"
            for layer in range(stack.n_layers)
            for sublayer in parts
            for part in parts[sublayer]
        }
    if model.decoder is not None:
        sites |= {"head", *("head.softcap",) * (model.final_softcap is not None)}
    return sites


def check_sites(what: str, got: Iterable[str], wanted: set[str], more: Iterable[str] = ()) -> None:
    """Check that encodings are of the sites that are computed.

    Args:
        what: the file, for the message.
        got: sites that have one.
        wanted: sites that need one.
        more: sites that may have one.

    Raises:
        WeightsError: a site is missing or unknown.
    """
    missing, unknown = sorted(wanted - set(got)), sorted(set(got) - wanted - set(more))
    if missing or unknown:
        raise WeightsError(
            f"{what}: activations must be of the sites that are computed; missing {missing[:3]} "
            f"({len(missing)} in all), unknown {short(unknown[:3])} ({len(unknown)} in all)"
        )


def save_integers(path: Path, integers: IntegerModel) -> None:
    """Write an integer model; the file appears whole or not at all.

    Args:
        path: a .safetensors file.
        integers: what to write.
    """
    metadata = {
        **integers.notes,
        "config": integers.model.to_json(),
        "scheme": integers.scheme,
        "rounding": integers.rounding,
        "activations": encodings_to_json(integers.activations),
    }
    write_safetensors(path, integers.tensors, metadata)


def load_integers(path: Path) -> IntegerModel:
    """Read a file written by `save_integers`.

    Args:
        path: a .safetensors file.

    Returns:
        The model.

    Raises:
        WeightsError: not there, damaged, a float file, or of other names, shapes or types.
        ConfigError: its configuration is none.
    """
    tensors, metadata = read_safetensors(path)
    keys = ("config", "scheme", "rounding", "activations")
    if not all(key in metadata for key in keys):
        raise WeightsError(
            f"{path} must be an integer weight file of `mu-ref quantize`; its metadata lacks "
            f"{', '.join(key for key in keys if key not in metadata)}"
        )
    model = ModelConfig.from_json(metadata["config"], f"{path}: configuration")
    check_names(str(path), integer_shapes(model), {n: t.shape for n, t in tensors.items()})
    check_choice(f"{path}: scheme", metadata["scheme"], SCHEMES, WeightsError)
    check_choice(f"{path}: rounding", metadata["rounding"], ROUNDINGS, WeightsError)
    check_integers(path, tensors)
    notes = {key: text for key, text in metadata.items() if key not in keys}
    rounding: Rounding = metadata["rounding"]  # type: ignore[assignment]
    activations = encodings_from_json(metadata["activations"], f"{path}: activations")
    check_sites(str(path), activations, activation_sites(model))
    return IntegerModel(model, metadata["scheme"], rounding, tensors, activations, notes)


def check_integers(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Check the kinds of numbers of an integer file, and that its scales are positive.

    Args:
        path: of the file, for the message.
        tensors: by name.

    Raises:
        WeightsError: a tensor holds something else.
    """
    for name, tensor in tensors.items():
        wanted = _dtype(name, tensor)
        if tensor.dtype != wanted:
            raise WeightsError(f"{path}: {name} must be {wanted}, got {tensor.dtype}")
        if name.endswith("_scale") and not (tensor > 0).all():
            raise WeightsError(f"{path}: {name} must hold positive scales; one is not")


def _dtype(name: str, tensor: np.ndarray) -> np.dtype:
    if name.endswith("_scale"):
        return np.dtype(np.float32)
    if name.endswith(".bias"):
        return np.dtype(np.int32)
    return np.dtype(np.int8 if tensor.ndim == 2 else np.int16)
