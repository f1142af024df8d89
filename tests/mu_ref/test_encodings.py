"""Encodings and their exchange formats, read back with the words of AIMET's specification."""

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_ref.errors import QuantizationError
from mu_ref.integers.encodings import Encoding, aimet_offset, to_aimet, to_table
from mu_ref.integers.fixed_point import dequantize, integer_range, quantize

ACTIVATIONS = {
    "encoder.0.mlp.up": Encoding(8, 0.5, 28),
    "encoder.0.residual": Encoding(16, 2.0**-10),
}
SCALES = {
    "encoder.0.mlp.up.weight": np.array([0.25, 0.125, 0.75]),
    "encoder.0.pre_norm.weight": np.array([2.0**-12]),
}
BITS = {"encoder.0.pre_norm.weight": 16}


@st.composite
def encodings(draw: Any) -> Encoding:
    bits = draw(st.sampled_from([8, 16]))
    zero_point = st.one_of(st.just(0), st.integers(*integer_range(bits)))
    return Encoding(bits, draw(st.floats(1e-9, 1e6)), draw(zero_point))


# -- one encoding ----------------------------------------------------------------------------------


def test_the_ends_of_an_encoding() -> None:
    assert (Encoding(8, 0.5, 28).low, Encoding(8, 0.5, 28).high) == (-78.0, 49.5)
    assert (Encoding(16, 2.0**-15).low, Encoding(16, 2.0**-15).high) == (-1.0, 1 - 2.0**-15)


@given(encodings())
def test_the_ends_are_the_least_and_the_largest_integer(encoding: Encoding) -> None:
    ends = np.array(integer_range(encoding.bits))
    x = dequantize(ends, encoding.scale, encoding.zero_point)
    assert x.tolist() == [encoding.low, encoding.high]
    assert quantize(x, encoding.scale, encoding.zero_point, encoding.bits).tolist() == ends.tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((4, 1.0), "activations must have 8 or 16 bits, got 4"),
        ((8.0, 1.0), "bits must be a whole number, got 8.0"),
        ((8, 0.0), "a scale must be a number above 0 .* got 0.0"),
        ((8, -1.0), "a scale must be a number above 0 .* got -1.0"),
        ((8, float("nan")), "a scale must be a number above 0 .* got nan"),
        ((8, float("inf")), "a scale must be a number above 0 .* got inf"),
        ((8, True), "scale must be a number, got True"),
        ((8, 1.0, 128), r"from -128 to 127, got 128"),
        ((16, 1.0, -32769), r"from -32,768 to 32,767, got -32769"),
        ((8, 1.0, 0.5), r"zero_point must be a whole number, got 0.5"),
    ],
)
def test_an_encoding_that_means_nothing_is_refused(fields: tuple, message: str) -> None:
    with pytest.raises(QuantizationError, match=message):
        Encoding(*fields)


# -- the sign of AIMET's offset --------------------------------------------------------------------


def test_the_worked_example_of_the_offset() -> None:
    """The number 10 in three conventions, by hand: s = 0.5, our zero point 28."""
    ours = 10 / 0.5 + 28
    assert ours == 48
    assert quantize(np.array([10.0]), 0.5, 28, 8).tolist() == [ours]

    offset = aimet_offset(8, 28)
    assert offset == -156
    unsigned = 10 / 0.5 - offset  # AIMET: u = x / scale - offset
    assert unsigned == 176 == ours + 128
    assert 0.5 * (unsigned + offset) == 10  # AIMET: x = scale * (u + offset)

    entry = to_aimet({"x": Encoding(8, 0.5, 28)}, {}, "2.0.0")["encodings"][0]
    assert entry["output_dtype"] == "uint8"
    assert 0.5 * (176 - entry["y_zero_point"]) == 10  # ONNX: x = y_scale * (u - y_zero_point)


@pytest.mark.parametrize(
    ("bits", "zero_point", "offset"),
    [(8, -128, 0), (8, 0, -128), (8, 127, -255), (16, -32768, 0), (16, 32767, -65535)],
)
def test_the_ends_of_the_offset(bits: int, zero_point: int, offset: int) -> None:
    assert aimet_offset(bits, zero_point) == offset


# -- whole files -----------------------------------------------------------------------------------


def test_version_1_0_0_entry_by_entry() -> None:
    document = to_aimet(ACTIVATIONS, SCALES, "1.0.0", weight_bits=BITS)
    tensor = {"enc_type": "PER_TENSOR", "dtype": "INT"}
    assert document == {
        "version": "1.0.0",
        "activation_encodings": [
            tensor
            | {"name": "encoder.0.mlp.up", "bw": 8, "is_sym": False}
            | {"scale": [0.5], "offset": [-156]},
            tensor
            | {"name": "encoder.0.residual", "bw": 16, "is_sym": True}
            | {"scale": [2.0**-10], "offset": [-32768]},
        ],
        "param_encodings": [
            {"name": "encoder.0.mlp.up.weight", "enc_type": "PER_CHANNEL", "dtype": "INT"}
            | {"bw": 8, "is_sym": True}
            | {"scale": [0.25, 0.125, 0.75], "offset": [-128, -128, -128]},
            tensor
            | {"name": "encoder.0.pre_norm.weight", "bw": 16, "is_sym": True}
            | {"scale": [2.0**-12], "offset": [-32768]},
        ],
        "quantizer_args": {
            "activation_bitwidth": 8,
            "dtype": "int",
            "is_symmetric": True,
            "param_bitwidth": 8,
            "per_channel_quantization": True,
            "quant_scheme": "post_training_tf",
        },
        "excluded_layers": [],
    }


def test_version_2_0_0_entry_by_entry() -> None:
    assert to_aimet(ACTIVATIONS, SCALES, weight_bits=BITS) == {
        "version": "2.0.0",
        "encodings": [
            {"name": "encoder.0.mlp.up", "output_dtype": "uint8"}
            | {"y_scale": 0.5, "y_zero_point": 156},
            {"name": "encoder.0.residual", "output_dtype": "int16"}
            | {"y_scale": 2.0**-10, "y_zero_point": 0},
            {"name": "encoder.0.mlp.up.weight", "output_dtype": "int8"}
            | {"y_scale": [0.25, 0.125, 0.75], "y_zero_point": [0, 0, 0], "axis": 0},
            {"name": "encoder.0.pre_norm.weight", "output_dtype": "int16"}
            | {"y_scale": 2.0**-12, "y_zero_point": 0},
        ],
    }


def test_the_table_line_by_line() -> None:
    assert to_table(ACTIVATIONS, SCALES, weight_bits=BITS).splitlines() == [
        "name,kind,channel,bits,scale,zero_point,aimet_offset,low,high",
        "encoder.0.mlp.up,activation,,8,0.5,28,-156,-78.0,49.5",
        "encoder.0.residual,activation,,16,0.0009765625,0,-32768,-32.0,31.9990234375",
        "encoder.0.mlp.up.weight,weight,0,8,0.25,0,-128,-32.0,31.75",
        "encoder.0.mlp.up.weight,weight,1,8,0.125,0,-128,-16.0,15.875",
        "encoder.0.mlp.up.weight,weight,2,8,0.75,0,-128,-96.0,95.25",
        "encoder.0.pre_norm.weight,weight,,16,0.000244140625,0,-32768,-8.0,7.999755859375",
    ]


def ends_1(entry: dict[str, Any]) -> list[tuple[float, float]]:
    """Least and largest number of each channel: x = scale * (u + offset), u unsigned."""
    top = 2 ** entry["bw"] - 1
    assert all(isinstance(offset, int) for offset in entry["offset"])
    pairs = zip(entry["scale"], entry["offset"], strict=True)
    return [(s * offset, s * (top + offset)) for s, offset in pairs]


def ends_2(entry: dict[str, Any]) -> list[tuple[float, float]]:
    """Least and largest number of each channel: x = y_scale * (q - y_zero_point)."""
    unsigned = entry["output_dtype"].startswith("u")
    info = np.iinfo(entry["output_dtype"])
    assert (info.min == 0) == unsigned
    scale, zero = np.atleast_1d(entry["y_scale"]), np.atleast_1d(entry["y_zero_point"])
    assert ("axis" in entry) == (len(scale) > 1)
    pairs = zip(scale.tolist(), zero.tolist(), strict=True)
    return [(s * (int(info.min) - z), s * (int(info.max) - z)) for s, z in pairs]


@given(
    st.lists(encodings(), min_size=1, max_size=4),
    st.lists(st.lists(st.floats(1e-9, 1e6), min_size=1, max_size=4), max_size=3),
    st.sampled_from([8, 16, 32]),
)
def test_all_formats_stand_for_the_same_numbers(several, scales, bits: int) -> None:
    activations = {f"site.{i}": encoding for i, encoding in enumerate(several)}
    weights = {f"{i}.weight": np.array(scale) for i, scale in enumerate(scales)}
    wide = dict.fromkeys(weights, bits)
    expected = {name: [(e.low, e.high)] for name, e in activations.items()}
    low, high = integer_range(bits)
    expected |= {n: [(s * low, s * high) for s in w.tolist()] for n, w in weights.items()}

    one = json.loads(json.dumps(to_aimet(activations, weights, "1.0.0", weight_bits=wide)))
    two = json.loads(json.dumps(to_aimet(activations, weights, "2.0.0", weight_bits=wide)))
    entries = one["activation_encodings"] + one["param_encodings"]
    assert {entry["name"]: ends_1(entry) for entry in entries} == expected
    assert {entry["name"]: ends_2(entry) for entry in two["encodings"]} == expected
    table: dict[str, list[tuple[float, float]]] = {}
    for row in csv.DictReader(io.StringIO(to_table(activations, weights, weight_bits=wide))):
        table.setdefault(row["name"], []).append((float(row["low"]), float(row["high"])))
        half = 2 ** (int(row["bits"]) - 1)
        assert int(row["aimet_offset"]) + int(row["zero_point"]) == -half
    assert table == expected


def test_two_channels_are_channels_and_no_weights_have_eight_bits() -> None:
    pair = {"w.weight": np.array([0.5, 0.25])}
    args = to_aimet(ACTIVATIONS, pair, "1.0.0")["quantizer_args"]
    assert args["per_channel_quantization"] is True
    (entry,) = to_aimet(ACTIVATIONS, pair, "1.0.0")["param_encodings"]
    assert (entry["enc_type"], entry["scale"], entry["bw"]) == ("PER_CHANNEL", [0.5, 0.25], 8)
    assert to_table(ACTIVATIONS, pair).splitlines()[-1].startswith("w.weight,weight,1,8,0.25,")
    assert to_aimet(ACTIVATIONS, {}, "1.0.0")["quantizer_args"]["param_bitwidth"] == 8
    one = to_aimet(ACTIVATIONS, {"w.weight": np.array([0.5])}, "1.0.0")
    assert one["quantizer_args"]["per_channel_quantization"] is False
    assert "\r" not in to_table(ACTIVATIONS, pair)


def test_the_scheme_of_the_ranges_is_recorded() -> None:
    document = to_aimet(ACTIVATIONS, {}, "1.0.0", quant_scheme="post_training_tf_enhanced")
    assert document["quantizer_args"]["quant_scheme"] == "post_training_tf_enhanced"
    assert document["quantizer_args"]["per_channel_quantization"] is False


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (np.array([1.0, 0.0]), "scales of w.weight must be positive and finite"),
        (np.array([np.nan]), "scales of w.weight must be positive and finite"),
        (np.array([np.inf]), "scales of w.weight must be positive and finite"),
        (np.ones((2, 2)), r"a scale for each row, got \(2, 2\)"),
        (np.zeros(0), r"a scale for each row, got \(0,\)"),
    ],
)
def test_a_bad_weight_scale_is_refused(scale: np.ndarray, message: str) -> None:
    for write in (to_aimet, to_table):
        with pytest.raises(QuantizationError, match=message):
            write(ACTIVATIONS, {"w.weight": scale})


def test_names_and_choices_that_do_not_fit_are_refused() -> None:
    with pytest.raises(QuantizationError, match="at least one activation, got none"):
        to_aimet({}, SCALES)
    with pytest.raises(QuantizationError, match=r"or of a weight, got 'encoder\.0\.residual'"):
        to_aimet(ACTIVATIONS, {"encoder.0.residual": np.ones(1)})
    with pytest.raises(QuantizationError, match="or of a weight, got 'typo'"):
        to_aimet(ACTIVATIONS, SCALES, weight_bits={"typo": 8})
    with pytest.raises(QuantizationError, match="bits, got 7"):
        to_aimet(ACTIVATIONS, SCALES, weight_bits={"encoder.0.mlp.up.weight": 7})
    with pytest.raises(QuantizationError, match=r"version must be one of .*; got '0\.6\.1'"):
        to_aimet(ACTIVATIONS, SCALES, "0.6.1")
    with pytest.raises(QuantizationError, match="quant_scheme must be one of"):
        to_aimet(ACTIVATIONS, SCALES, quant_scheme="guess")
