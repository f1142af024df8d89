"""Turn a float model into an integer model, given what was observed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from mu_ref.border.ranges import SHARE, check_fields
from mu_ref.config import ModelConfig
from mu_ref.errors import QuantizationError, check_choice
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.fixed_point import ROUNDINGS, Rounding, quantize, round_half_even
from mu_ref.integers.nonlinear import BIAS_BITS
from mu_ref.integers.store import SCHEMES, IntegerModel
from mu_ref.quantize.observe import OBSERVERS, Observed, SiteRange, observed_range
from mu_ref.weights import Weights, weight_shapes

__all__ = ["Options", "calibrate", "site_encoding", "weight_scales"]

# The residual stream, what is added to it, and the logits keep 16 bits in every scheme.
STREAM = (
    "*embedding", "*.embed_norm", "*.post_norm", "*.residual", "head", "head.softcap",
    "drafter.concat", "drafter.head",
)  # fmt: skip
CLIP_SHARES = np.linspace(1.0, 0.5, 26)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to quantize.

    Raises:
        QuantizationError: an unknown scheme, observer or rounding, or a width other than 8 or 16.
    """

    scheme: str = "w8a16"
    observer: str = "minmax"
    rounding: Rounding = "tflite_single"
    clip_weights: bool = False  # search each channel's scale for the least squared error
    smooth: float | None = None  # strength of the migration from activations to weights, 0..1
    bits: Mapping[str, int] = field(default_factory=dict)  # {site pattern: 8 or 16}; last wins

    def __post_init__(self) -> None:
        """Check the choices."""
        check_choice("scheme", self.scheme, SCHEMES, QuantizationError)
        check_choice("observer", self.observer, OBSERVERS, QuantizationError)
        check_choice("rounding", self.rounding, ROUNDINGS, QuantizationError)
        for pattern, bits in self.bits.items():
            if bits not in (8, 16):
                raise QuantizationError(f"{pattern} must have 8 or 16 bits, got {bits}")
        check_fields(self, {"smooth": SHARE}, QuantizationError)

    def site_bits(self, site: str) -> int:
        """Width of one site's integers."""
        wide = self.scheme == "w8a16" or any(fnmatchcase(site, p) for p in STREAM)
        bits = 16 if wide else 8
        for pattern, wanted in self.bits.items():
            if fnmatchcase(site, pattern):
                bits = wanted
        return bits


def calibrate(
    model: ModelConfig,
    weights: Weights,
    observed: Observed,
    options: Options,
    names: Iterable[str] | None = None,
    known: Mapping[str, Encoding] | None = None,
) -> IntegerModel:
    """Choose every scale, and round the weights.

    Args:
        model: the configuration.
        weights: float weights, those that were observed.
        observed: ranges and sources of every site.
        options: how.
        names: the weights to round; by default those of the model.
        known: encodings that are decided already, by site.

    Returns:
        The integer model.

    Raises:
        QuantizationError: a pattern that no site matches, or a bias that int32 cannot hold.
    """
    _check_patterns(options, observed)
    activations = {
        site: site_encoding(seen, options.observer, options.site_bits(site))
        for site, seen in observed.ranges.items()
    } | dict(known or {})

    def step_of(site: str) -> float:
        """Scale of what a linear reads."""
        source, factor = observed.inputs[site]
        return activations[source].scale * factor

    plus_one = {n for n, stack in model.stacks.items() if stack.norm_kind == "rms_plus_one"}
    tensors: dict[str, np.ndarray] = {}
    names = list(weight_shapes(model) if names is None else names)
    parts = [(name, *name.rsplit(".", 1)) for name in names]
    for name, site, part in parts:
        if part == "bias":
            continue
        w = np.asarray(weights[name], np.float64)
        if w.ndim == 1:
            rounded, scale = _rounded_gain(w + 1 if name.split(".")[0] in plus_one else w)
        else:
            bias = weights.get(f"{site}.bias")
            # a bias that dwarfs its products must still fit int32, in steps of their sum
            least = 0.0 if bias is None else np.abs(bias) / (2**30 * step_of(site))
            rounded, scale = _rounded_matrix(w, least, clip=options.clip_weights)
        tensors |= {name: rounded, f"{name}_scale": scale}
    for name, site, part in parts:  # last: a bias is counted in steps of its matrix
        if part == "bias" and site in observed.inputs:
            weight_site = model.head_site if site == "head" else site
            scale = tensors[f"{weight_site}.weight_scale"].astype(np.float64)
            tensors[name] = _rounded_bias(name, weights[name], scale * step_of(site))
        elif part == "bias":  # of a LayerNorm
            step = activations[site].scale / 2**BIAS_BITS
            tensors[name] = _rounded_bias(name, weights[name], step)
    return IntegerModel(model, options.scheme, options.rounding, tensors, activations)


def _check_patterns(options: Options, observed: Observed) -> None:
    for pattern in options.bits:
        if not any(fnmatchcase(site, pattern) for site in observed.ranges):
            raise QuantizationError(
                f"a width must be given for a site, got {pattern!r}, which matches none"
            )


def site_encoding(seen: SiteRange, observer: str, bits: int) -> Encoding:
    """Choose the encoding of one site.

    Softmax has a fixed one: probabilities in 2^-8 or 2^-15. Activation functions, which are
    one-sided, use all 8 bits with a zero point; everything else is symmetric.

    Args:
        seen: its range.
        observer: one of `OBSERVERS`.
        bits: 8 or 16.

    Returns:
        The encoding. A site that was always 0 gets scale 1.
    """
    if seen.op == "softmax":
        return Encoding(8, 2**-8, -128) if bits == 8 else Encoding(16, 2**-15)
    low, high = observed_range(seen, observer, bits)
    if seen.op == "activation" and bits == 8:
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255 or 1.0
        return Encoding(8, scale, int(np.clip(round_half_even(-128 - low / scale), -128, 127)))
    return Encoding(bits, max(abs(low), abs(high)) / (2 ** (bits - 1) - 1) or 1.0)


def weight_scales(w: np.ndarray, *, clip: bool) -> np.ndarray:
    """Choose the scale of each output channel.

    Args:
        w: [d_out, d_in].
        clip: False: the largest weight is 127 steps. True: of 26 shares of that scale, from 1
            down to 1/2, the one with the least squared error.

    Returns:
        [d_out] float32; 1 for a channel of zeros.
    """
    largest = np.abs(w).max(axis=1) / 127
    full = np.where(largest > 0, largest, 1.0)
    if not clip:
        return full.astype(np.float32)
    best, least = full, np.full(len(w), np.inf)
    for share in CLIP_SHARES:
        scale = (share * full).astype(np.float32).astype(np.float64)
        rounded = np.clip(round_half_even(w / scale[:, None]), -127, 127) * scale[:, None]
        error = ((w - rounded) ** 2).sum(axis=1)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best.astype(np.float32)


def _rounded_gain(gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """16-bit integers and their one scale; gains are few, so they can be wide."""
    scale = np.array([max(np.abs(gain).max() / 32767, 2**-40)], np.float32)
    return quantize(gain, scale.astype(np.float64), 0, 16), scale


def _rounded_matrix(
    w: np.ndarray, least: np.ndarray | float, *, clip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """8-bit integers [d_out, d_in] and a scale of each row, not below `least`."""
    scale = np.maximum(weight_scales(w, clip=clip), np.asarray(least, np.float32))
    q = quantize(w, scale.astype(np.float64)[:, None], 0, 8)
    return np.maximum(q, np.int8(-127)), scale  # symmetric: -128 would have no counterpart


def _rounded_bias(name: str, bias: np.ndarray, step: np.ndarray | float) -> np.ndarray:
    steps = round_half_even(np.asarray(bias, np.float64) / step)
    if np.abs(steps).max(initial=0) >= 2**31:
        raise QuantizationError(
            f"{name} must fit int32 in steps of its accumulator, got {np.abs(steps).max():.3g} "
            "steps; the scales of its inputs are too small for this bias"
        )
    return steps.astype(np.int32)
