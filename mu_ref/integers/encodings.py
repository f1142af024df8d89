r"""Encodings: which real numbers the integers of a site stand for, and their exchange formats.

Ours is signed: $x = s (q - z)$. AIMET's offset is unsigned and has the other sign:
$x = s (u + offset)$ with $0 \le u < 2^{bits}$, so

$u = q + 2^{bits - 1}$ and $offset = -(z + 2^{bits - 1}) \le 0$                        (5.11)

Worked example, 8 bits, s = 0.5, z = 28. The number 10 is q = 10 / 0.5 + 28 = 48 for us. For AIMET
offset = -(28 + 128) = -156 and u = 10 / 0.5 + 156 = 176 = 48 + 128; back, 0.5 (176 - 156) = 10.
AIMET 2.0.0 says the same as `uint8` with `y_zero_point` 156, the negated offset.
"""

import csv
import io
import json
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mu_ref.border.ranges import Range, check_kinds
from mu_ref.border.reading import exact_fields, parse_json
from mu_ref.errors import QuantizationError, WeightsError, check_choice
from mu_ref.integers.fixed_point import integer_range

__all__ = [
    "AIMET_VERSIONS", "Encoding", "aimet_offset", "encodings_from_json", "encodings_to_json",
    "to_aimet", "to_table",
]  # fmt: skip

AIMET_VERSIONS = ("1.0.0", "2.0.0")
QUANT_SCHEMES = ("post_training_tf", "post_training_tf_enhanced")
WEIGHT_WIDTHS = (8, 16, 32)
SCALE = Range(
    low=0, above=True, high=2.0**126, whole=False, why="products of scales must stay finite"
)
COLUMNS = ("name", "kind", "channel", "bits", "scale", "zero_point", "aimet_offset", "low", "high")


@dataclass(frozen=True, slots=True)
class Encoding:
    """The signed integers q of one site stand for $x = s (q - z)$.

    Raises:
        QuantizationError: a scale that is not positive, or a zero point outside the integers.
    """

    bits: int  # 8 or 16
    scale: float  # s
    zero_point: int = 0  # z

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_kinds(self, QuantizationError)
        if self.bits not in (8, 16):
            raise QuantizationError(f"activations must have 8 or 16 bits, got {self.bits}")
        SCALE.check("a scale", self.scale, QuantizationError)
        low, high = integer_range(self.bits)
        what = f"a zero point of {self.bits} bits"
        Range(low=low, high=high).check(what, self.zero_point, QuantizationError)

    @property
    def low(self) -> float:
        """The least real number."""
        return self.scale * (integer_range(self.bits)[0] - self.zero_point)

    @property
    def high(self) -> float:
        """The largest real number."""
        return self.scale * (integer_range(self.bits)[1] - self.zero_point)


def encodings_to_json(encodings: Mapping[str, Encoding]) -> str:
    """Write encodings by site as a JSON text that `encodings_from_json` reads back.

    Floats are in Python's shortest notation, which gives back the same binary64.
    """
    return json.dumps({site: asdict(encoding) for site, encoding in encodings.items()})


def encodings_from_json(text: str, where: str) -> dict[str, Encoding]:
    """Read encodings written by `encodings_to_json`.

    Args:
        text: JSON.
        where: it stands, for messages.

    Returns:
        {site: encoding}.

    Raises:
        WeightsError: not JSON, a field is missing or unknown, or a value is out of range.
    """
    data = parse_json(text, where, "JSON of encodings", WeightsError)
    if not isinstance(data, dict):
        raise WeightsError(f"{where} must be a JSON object, got {type(data).__name__}")
    encodings = {}
    for site, values in data.items():
        exact_fields(Encoding, values, f"{where}: {site}", WeightsError)
        try:
            encodings[site] = Encoding(**values)
        except QuantizationError as error:
            raise WeightsError(f"{where}: {site}: {error}") from error
    return encodings


def aimet_offset(bits: int, zero_point: int) -> int:
    """Return AIMET's offset of our zero point (5.11): -255..0 for 8 bits, -65535..0 for 16.

    Args:
        bits: width of the integers.
        zero_point: z of ours, signed.

    Returns:
        $-(z + 2^{bits - 1})$.
    """
    return -(int(zero_point) + 2 ** (bits - 1))


def to_aimet(
    activations: Mapping[str, Encoding],
    weight_scales: Mapping[str, np.ndarray],
    version: str = "2.0.0",
    *,
    weight_bits: Mapping[str, int] | None = None,
    quant_scheme: str = "post_training_tf",
) -> dict[str, Any]:
    """Write all encodings in an exchange format that AIMET and QNN read.

    Args:
        activations: {site: encoding}; at least one.
        weight_scales: {"site.weight": scales}, [d_out] along axis 0, or one scale for the whole
            tensor. Symmetric: no zero points.
        version: "1.0.0" (activations and parameters apart) or "2.0.0" (one list).
        weight_bits: {"site.weight": 8, 16 or 32}; 8 where nothing is said.
        quant_scheme: "post_training_tf" for min-max ranges, "post_training_tf_enhanced" for others;
            1.0.0 records it, nobody computes with it.

    Returns:
        What `json.dump` writes: dicts, lists, strings, ints, floats and bools.

    Raises:
        QuantizationError: no activation, a name used twice, or a scale that is not positive.

    Source:
        AIMET, Docs/techniques/encoding_spec.rst, and aimet_onnx AffineEncoding (`to_unsigned`,
        which subtracts 2^(bits-1) from the offset; `is_sym` means signed with offset 0).

    Differs from the source:
        Scales are written with 17 digits. AIMET reads them as float32, which changes 218 of the 232
        of the shipped mu-nano in w8a16 and 217 in w8a8, and integers at 18 and 37 sites on 25
        queries (`docs/onnx.md`): round the scales before comparing integers. Names are our sites,
        where AIMET has the tensors of an ONNX graph. `y_zero_point` is written even where it is 0.
    """
    check_choice("version", version, AIMET_VERSIONS, QuantizationError)
    check_choice("quant_scheme", quant_scheme, QUANT_SCHEMES, QuantizationError)
    weights = _checked(activations, weight_scales, weight_bits or {})
    if version == "2.0.0":
        entries = [_activation_2(name, e) for name, e in activations.items()]
        entries += [_weight_2(name, scale, bits) for name, (scale, bits) in weights.items()]
        return {"version": version, "encodings": entries}
    commonest = statistics.mode  # the first one met, of equally common ones
    return {
        "version": version,
        "activation_encodings": [_activation_1(name, e) for name, e in activations.items()],
        "param_encodings": [_weight_1(name, scale, b) for name, (scale, b) in weights.items()],
        "quantizer_args": {
            "activation_bitwidth": commonest(e.bits for e in activations.values()),
            "dtype": "int",
            "is_symmetric": True,
            "param_bitwidth": commonest([b for _, b in weights.values()] or [8]),
            "per_channel_quantization": any(len(scale) > 1 for scale, _ in weights.values()),
            "quant_scheme": quant_scheme,
        },
        "excluded_layers": [],
    }


def to_table(
    activations: Mapping[str, Encoding],
    weight_scales: Mapping[str, np.ndarray],
    *,
    weight_bits: Mapping[str, int] | None = None,
) -> str:
    """Write all encodings as CSV: a line for each activation and each channel of each weight.

    Args:
        activations: as in `to_aimet`.
        weight_scales: as in `to_aimet`.
        weight_bits: as in `to_aimet`.

    Returns:
        Text with a line of headings. `channel` is empty where one scale holds for all; `zero_point`
        is ours, `aimet_offset` AIMET's; `low` and `high` are the real numbers of the least and the
        largest integer. Numbers read back as the same binary64.

    Raises:
        QuantizationError: as in `to_aimet`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    weights = _checked(activations, weight_scales, weight_bits or {})
    for name, e in activations.items():
        writer.writerow([name, "activation", "", *_row(e.bits, e.scale, e.zero_point)])
    for name, (scale, bits) in weights.items():
        for channel, s in enumerate(scale):
            which = channel if len(scale) > 1 else ""
            writer.writerow([name, "weight", which, *_row(bits, s, 0)])
    return text.getvalue()


def _row(bits: int, scale: float, zero_point: int) -> Iterator[Any]:
    low, high = integer_range(bits)
    yield from (bits, repr(float(scale)), zero_point, aimet_offset(bits, zero_point))
    yield from (repr(float(scale * (low - zero_point))), repr(float(scale * (high - zero_point))))


def _activation_1(name: str, encoding: Encoding) -> dict[str, Any]:
    offset = aimet_offset(encoding.bits, encoding.zero_point)
    symmetric = encoding.zero_point == 0
    return _entry_1(name, "PER_TENSOR", encoding.bits, symmetric, [encoding.scale], offset)


def _weight_1(name: str, scale: list[float], bits: int) -> dict[str, Any]:
    kind = "PER_CHANNEL" if len(scale) > 1 else "PER_TENSOR"
    return _entry_1(name, kind, bits, True, scale, aimet_offset(bits, 0))


def _entry_1(
    name: str, kind: str, bits: int, symmetric: bool, scale: list[float], offset: int
) -> dict[str, Any]:
    return {
        "name": name,
        "enc_type": kind,
        "dtype": "INT",
        "bw": bits,
        "is_sym": symmetric,
        "scale": [float(s) for s in scale],
        "offset": [offset] * len(scale),
    }


def _activation_2(name: str, encoding: Encoding) -> dict[str, Any]:
    symmetric = encoding.zero_point == 0  # AIMET writes these signed, all others unsigned
    return {
        "name": name,
        "output_dtype": f"{'' if symmetric else 'u'}int{encoding.bits}",
        "y_scale": float(encoding.scale),
        "y_zero_point": 0 if symmetric else -aimet_offset(encoding.bits, encoding.zero_point),
    }


def _weight_2(name: str, scale: list[float], bits: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "output_dtype": f"int{bits}"}
    if len(scale) == 1:
        return entry | {"y_scale": scale[0], "y_zero_point": 0}
    return entry | {"y_scale": scale, "y_zero_point": [0] * len(scale), "axis": 0}


def _checked(
    activations: Mapping[str, Encoding],
    weight_scales: Mapping[str, np.ndarray],
    weight_bits: Mapping[str, int],
) -> dict[str, tuple[list[float], int]]:
    """Return {name: (scales, bits)} of the weights."""
    if not activations:
        raise QuantizationError("encodings must name at least one activation, got none")
    both, unknown = set(activations) & set(weight_scales), set(weight_bits) - set(weight_scales)
    if both or unknown:
        raise QuantizationError(
            f"a name must be of an activation or of a weight, got {sorted(both | unknown)[0]!r}"
        )
    weights = {}
    for name, array in weight_scales.items():
        bits, scale = weight_bits.get(name, 8), np.asarray(array, np.float64)
        if bits not in WEIGHT_WIDTHS:
            raise QuantizationError(f"{name} must have {WEIGHT_WIDTHS} bits, got {bits}")
        if scale.ndim > 1 or not scale.size:
            raise QuantizationError(f"{name} must have a scale for each row, got {scale.shape}")
        if not all(math.isfinite(s) and s > 0 for s in scale.flat):
            raise QuantizationError(f"scales of {name} must be positive and finite; one is not")
        weights[name] = (scale.ravel().tolist(), bits)
    return weights
