r"""Weight-only int4, one scale for each group of inputs: a storage format, W4A16 on an NPU.

Weights are stored in 4 bits and turned back into numbers before they are multiplied; activations
know nothing of it. A group is `group` neighbouring inputs of one output row:

$\hat w_{nk} = s_{n, \lfloor k / group \rfloor} \, q_{nk}$, q in -8..7                  (5.12)

All matrices of the layers are int4. Embeddings and the head are int8 with one scale for each row: a
lookup reads one row per token, so 4 bits would save little there, and the head's errors go straight
into the logits. Norms and biases are float16; they are few.

With groups of 128 a weight takes 4 + 16/128 = 4.125 bits. Nothing here is exact by contract: the
integer executor (`store.py`) does not read this format. Files: `int4_store.py`.
"""

from collections.abc import Mapping

import numpy as np

from mu_ref.config import INT4_GROUP, ModelConfig
from mu_ref.errors import QuantizationError
from mu_ref.integers.fixed_point import quantize
from mu_ref.weights import Shape, Weights, check_names, weight_shapes

__all__ = [
    "dequantize_groups",
    "dequantize_weights_int4",
    "int4_shapes",
    "is_table",
    "pack_int4",
    "quantize_groups",
    "quantize_rows",
    "quantize_weights_int4",
    "unpack_int4",
]

LOW, HIGH = -8, 7
CLIP_SHARES = tuple(1 - i / 20 for i in range(11))  # 1, 0.95, ..., 0.5 of the range
FLOAT16_MAX = 65504.0


# -- nibbles ---------------------------------------------------------------------------------------


def pack_int4(q: np.ndarray) -> np.ndarray:
    """Put two neighbouring integers into a byte, **the first in the low nibble**.

    Args:
        q: [..., d_in], -8..7.

    Returns:
        [..., ceil(d_in / 2)] uint8, two's complement nibbles; the last high nibble is 0 if d_in is
        odd. (1, -2, 7) becomes 0xE1, 0x07.

    Raises:
        QuantizationError: an integer outside -8..7.

    Source:
        ONNX, int4 tensors: "first element in the 4 LSB".
    """
    if q.size and not (q.min() >= LOW and q.max() <= HIGH):
        raise QuantizationError(f"int4 must lie in -8..7, got {q.min()}..{q.max()}")
    odd = [(0, 0)] * (q.ndim - 1) + [(0, q.shape[-1] % 2)]
    nibbles = np.pad(q.astype(np.uint8) & 0x0F, odd)
    return nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)


def unpack_int4(packed: np.ndarray, d_in: int) -> np.ndarray:
    """Take the integers out of their bytes again.

    Args:
        packed: [..., ceil(d_in / 2)] uint8.
        d_in: how many integers there are.

    Returns:
        [..., d_in] int8, -8..7.
    """
    pairs = np.stack([packed & 0x0F, packed >> 4], axis=-1)  # [..., ceil(d_in / 2), 2]
    nibbles = pairs.reshape(*packed.shape[:-1], -1)[..., :d_in].astype(np.int8)
    return (nibbles ^ 8) - 8  # 8..15 are -8..-1


# -- one matrix ------------------------------------------------------------------------------------


def quantize_groups(
    w: np.ndarray, group: int = INT4_GROUP, *, clip_search: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    r"""Round a matrix to int4 with a scale for each group of inputs.

    $s = \max(\max w / 7, \; -\min w / 8)$ over the group and 0, rounded up to float16;
    $q = \mathrm{saturate}(\mathrm{round\_half\_even}(w / s))$                           (5.13)

    The range is -8..7, not -7..7: two's complement has the -8, and a group whose largest weight is
    negative gets a finer step from it. s fits both ends, and rounding it up keeps it so:
    nothing saturates, and the error is at most s / 2. There is no zero point: a negated group may
    round to other sizes.

    Args:
        w: [d_out, d_in], finite.
        group: inputs that share a scale; the last group may be shorter.
        clip_search: try 11 shares (1, 0.95, ..., 0.5) of s in each group and keep the one of the
            least squared error, where large weights may saturate.

    Returns:
        q [d_out, d_in] int8 and s [d_out, ceil(d_in / group)] float16; s is 1 where all are 0.

    Raises:
        QuantizationError: a group below 1, or weights that are not finite or beyond float16.

    Source:
        Scale: AIMET's signed symmetric min-max encoding. Groups: GPTQ, arXiv:2210.17323.

    Differs from the source:
        Rounds to nearest; GPTQ corrects later columns for the error of earlier ones.
    """
    if group < 1:
        raise QuantizationError(f"a group must hold at least 1 input, got {group}")
    d_out, d_in = w.shape
    n_groups = -(-d_in // group)
    padded = np.pad(w.astype(np.float64), [(0, 0), (0, n_groups * group - d_in)])
    blocks = padded.reshape(d_out, n_groups, group)  # zeros at the end change no scale
    whole = np.maximum(blocks.max(2, initial=0) / HIGH, blocks.min(2, initial=0) / LOW)
    if not (whole <= FLOAT16_MAX).all():
        raise QuantizationError(f"weights must be finite and below {HIGH * FLOAT16_MAX:.0f}")
    q, scale, least = _rounded(blocks, whole)
    for share in CLIP_SHARES[1:] if clip_search else ():
        other_q, other_scale, error = _rounded(blocks, whole * share)
        better = error < least
        q = np.where(better[..., None], other_q, q)
        scale, least = np.where(better, other_scale, scale), np.where(better, error, least)
    return q.reshape(d_out, -1)[:, :d_in], scale


def _rounded(blocks: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return integers, float16 scales and the squared error of each group."""
    s = _rounded_up(scale)  # [d_out, n_groups]
    q = quantize(blocks, s[..., None], 0, 4)
    return q, s, np.square(blocks - q * s[..., None].astype(np.float64)).sum(2)


def _rounded_up(scale: np.ndarray) -> np.ndarray:
    """To float16, and 1 for 0."""
    nearest = scale.astype(np.float16)
    up = np.nextafter(nearest, np.float16(np.inf), where=nearest < scale, out=nearest.copy())
    return np.where(scale == 0, np.float16(1), up)


def dequantize_groups(q: np.ndarray, scale: np.ndarray, group: int = INT4_GROUP) -> np.ndarray:
    """Return the weights (5.12), float32 and exact: 4 bits times 11 bits.

    Args:
        q: [d_out, d_in], -8..7.
        scale: [d_out, ceil(d_in / group)] float16.
        group: inputs that share a scale.

    Returns:
        [d_out, d_in] float32.
    """
    each = np.repeat(scale.astype(np.float32), group, axis=1)[:, : q.shape[1]]  # [d_out, d_in]
    return q.astype(np.float32) * each


def quantize_rows(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round a table to int8 with a scale for each row, max |w| / 127 rounded up to float16.

    Args:
        w: [n_rows, d], finite, up to 65504.

    Returns:
        q [n_rows, d] int8, -127..127, and s [n_rows, 1] float16; s is 1 where all are 0.
    """
    scale = _rounded_up(np.abs(w).max(axis=1, keepdims=True) / 127.0)
    return quantize(w.astype(np.float64), scale, 0, 8), scale


# -- a whole model ---------------------------------------------------------------------------------


def int4_shapes(model: ModelConfig, group: int = INT4_GROUP) -> dict[str, Shape]:
    """List every tensor of an int4 file with its shape, without allocating any.

    Args:
        model: the configuration.
        group: inputs that share a scale.

    Returns:
        {"site.weight": [d_out, ceil(d_in / 2)] uint8, "site.weight_scale": [d_out, n_groups]
        float16} for the matrices of the layers, int8 with [n_rows, 1] float16 scales for tables;
        the other names of `weight_shapes`, float16.
    """
    shapes: dict[str, Shape] = {}
    for name, shape in weight_shapes(model).items():
        shapes[name] = shape
        if is_table(name):
            shapes[f"{name}_scale"] = (shape[0], 1)
        elif len(shape) == 2:
            shapes[name] = (shape[0], -(-shape[1] // 2))
            shapes[f"{name}_scale"] = (shape[0], -(-shape[1] // group))
    return shapes


def quantize_weights_int4(
    model: ModelConfig,
    weights: Mapping[str, np.ndarray],
    group: int = INT4_GROUP,
    *,
    clip_search: bool = False,
) -> Weights:
    """Turn float weights into the tensors of an int4 file.

    Args:
        model: the configuration.
        weights: exactly the tensors of `weight_shapes(model)`.
        group: inputs that share a scale.
        clip_search: see `quantize_groups`.

    Returns:
        {name: uint8, int8 or float16 array} as `int4_shapes` lists them.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape.
        QuantizationError: a group below 1, or weights that are not finite or beyond float16.
    """
    check_names("weights", weight_shapes(model), {n: w.shape for n, w in weights.items()})
    tensors: Weights = {}
    for name, shape in weight_shapes(model).items():
        w = weights[name]
        if not (np.abs(w) <= FLOAT16_MAX).all():
            raise QuantizationError(
                f"{name} must hold numbers up to {FLOAT16_MAX:.0f}; it does not"
            )
        if is_table(name):
            tensors[name], tensors[f"{name}_scale"] = quantize_rows(w)
        elif len(shape) == 2:
            q, tensors[f"{name}_scale"] = quantize_groups(w, group, clip_search=clip_search)
            tensors[name] = pack_int4(q)
        else:
            tensors[name] = w.astype(np.float16)
    return tensors


def dequantize_weights_int4(
    model: ModelConfig, tensors: Mapping[str, np.ndarray], group: int = INT4_GROUP
) -> Weights:
    """Turn the tensors of an int4 file into float weights, for `ReferenceOps`.

    Args:
        model: the configuration.
        tensors: exactly those of `int4_shapes(model, group)`.
        group: inputs that share a scale.

    Returns:
        {name: float32 array} as `weight_shapes` lists them.
    """
    weights: Weights = {}
    for name, shape in weight_shapes(model).items():
        if is_table(name):
            scale = tensors[f"{name}_scale"].astype(np.float32)
            weights[name] = tensors[name].astype(np.float32) * scale
        elif len(shape) == 2:
            q = unpack_int4(tensors[name], shape[1])
            weights[name] = dequantize_groups(q, tensors[f"{name}_scale"], group)
        else:
            weights[name] = tensors[name].astype(np.float32)
    return weights


def is_table(name: str) -> bool:
    """Say whether a weight is an embedding or the head, which have 8 bits."""
    return name.endswith("embedding.weight") or name == "head.weight"
