"""The integer executor's limits to the last unit, and its operations on numbers small by hand.

A sum that might leave its accumulator is refused before it is taken; each limit below is met
exactly once from either side.
"""

import math
from typing import Any

import numpy as np
import pytest

from mu_ref.errors import QuantizationError
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.store import IntegerModel
from mu_ref.ops.integer import IntegerOps, Quantized
from mu_ref.ops.rotation import Rotation
from mu_ref.presets import tiny

SITE = "site"


def executor(output: Encoding, rounding: Any = "tflite_single", **tensors: Any) -> IntegerOps:
    named = {f"{SITE}.{name}": array for name, array in tensors.items()}
    return IntegerOps(IntegerModel(tiny(), "w8a8", rounding, named, {SITE: output}))


def value(rows: Any, encoding: Encoding) -> Quantized:
    return Quantized(np.array(rows, f"i{encoding.bits // 8}"), encoding)


def same(q: int, n: int, bits: int = 8, zero_point: int = 0) -> Quantized:
    """A row [1, 1, n] of equal integers, without room for more than one."""
    array = np.broadcast_to(np.array(q, f"i{bits // 8}"), (1, 1, n))
    return Quantized(array, Encoding(bits, 1.0, zero_point))


# -- accumulators ----------------------------------------------------------------------------------


def linear(n: int, bits: int, bias: int) -> Quantized:
    weight = np.broadcast_to(np.int8(1), (1, n))
    tensors = {"weight": weight, "weight_scale": np.ones(1, np.float32)}
    return executor(Encoding(16, 2.0**16), **tensors, bias=np.array([bias], np.int32)).linear(
        same(1, n, bits), SITE
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_a_linear_s_sum_starts_from_the_magnitude_of_its_bias(sign: int) -> None:
    # 3 products of at most 255 * 128 (an 8-bit input may lie 255 steps from its zero point)
    room = 2**31 - 3 * 255 * 128
    assert linear(3, 8, sign * (room - 1)).q.tolist() == [[[sign * 32767]]]  # in steps of 2^16
    with pytest.raises(QuantizationError, match=r"site: .* products of up to 255 x 128"):
        linear(3, 8, sign * room)


def test_without_a_bias_a_linear_s_sum_starts_from_zero() -> None:
    # 65,793 * 255 * 128 = 2,147,483,520 is below 2^31 by 128
    weight = {"weight": np.ones((1, 65_794), np.int8), "weight_scale": np.ones(1, np.float32)}
    with pytest.raises(QuantizationError, match="65794 products"):
        executor(Encoding(16, 2.0**16), **weight).linear(same(1, 65_794), SITE)
    fewer = {"weight": weight["weight"][:, 1:], "weight_scale": weight["weight_scale"]}
    assert executor(Encoding(16, 2.0), **fewer).linear(same(1, 65_793), SITE).q == 32767
    with pytest.raises(QuantizationError, match="65793 products of up to 255 x 128"):
        linear(65_793, 8, 128)


def test_a_linear_of_16_bits_has_a_wide_accumulator() -> None:
    # 2^25 products of 2^15 * 2^7 reach 2^47; nothing is computed before that is refused
    with pytest.raises(QuantizationError, match=f"32768 x 128 must stay below {2**47}"):
        linear(2**25, 16, 0)
    assert linear(2**10, 16, 0).q == 0  # 2^10 products would not fit 32 bits


@pytest.mark.parametrize(
    ("left", "right", "limit", "most"),
    [
        (8, 8, 2**31, 33_025),  # 255 * 255 * 33,025 < 2^31
        (8, 16, 2**47, 16_843_009),  # 255 * 2^15 * 16,843,009 = 2^47 - 2^15
        (16, 8, 2**47, 16_843_009),
        (16, 16, 2**47, 2**17 - 1),  # 2^15 * 2^15 * 2^17 = 2^47
    ],
)
def test_a_product_of_activations_knows_its_largest_sum(
    left: int, right: int, limit: int, most: int, monkeypatch
) -> None:
    monkeypatch.setattr(Quantized, "steps", property(lambda self: self.q))
    ops = executor(Encoding(16, 2.0**16))
    ops.product = lambda a, b, site: np.zeros((1, 1), np.int64)
    a, b = (same(1, most, bits) for bits in (left, right))
    assert ops.matmul(a, b, SITE, transpose_b=True).q == 0
    a, b = (same(1, most + 1, bits) for bits in (left, right))
    with pytest.raises(QuantizationError, match=f"must stay below {limit}"):
        ops.matmul(a, b, SITE, transpose_b=True)


# -- norms -----------------------------------------------------------------------------------------

ONES = {"weight": np.full(4, 16384, np.int16), "weight_scale": np.array([2**-14], "f4")}
THOUSANDTHS = Encoding(16, 1e-3)


def test_eps_of_an_rms_norm_counts_in_squared_steps() -> None:
    """x = (3, 4, 5, 0), mean square 12.5, eps 3.5: x / 4; in steps of 1/2, 1 and 2^-10."""
    for step in (0.5, 1.0, 2.0**-10):
        q = [round(x / step) for x in (3, 4, 5, 0)]
        x = value([q], Encoding(16, step))
        y = executor(THOUSANDTHS, **ONES).norm(x, SITE, "rms", 3.5)
        assert y.q.tolist() == [[750, 1000, 1250, 0]]
        plus = executor(THOUSANDTHS, **ONES).norm(x, SITE, "rms_plus_one", 3.5)
        assert plus.q.tolist() == y.q.tolist()  # the gain that is stored has the 1 in it


@pytest.mark.parametrize("zero_point", [0, -20])
def test_eps_of_a_layer_norm_counts_in_squared_steps_of_n_times_the_row(zero_point: int) -> None:
    """x = (1, 3, 5, 7): mean 4, variance 5, eps 4 makes 9: (-1, -1/3, 1/3, 1)."""
    bits = 16 if zero_point == 0 else 8
    q = [2 * x + zero_point for x in (1, 3, 5, 7)]
    x = value([q], Encoding(bits, 0.5, zero_point))
    y = executor(THOUSANDTHS, **ONES).norm(x, SITE, "layer", 4.0)
    assert y.q.tolist() == [[-1000, -333, 333, 1000]]


def test_eps_shrinks_with_a_row_that_is_shifted_to_fit() -> None:
    """4 x - sum reaches 80,000 and is shifted by 2 bits, so eps by 4: (-2, -1, 1, 2) / 2."""
    x = value([[-20000, -10000, 10000, 20000]], Encoding(16, 1e-4))
    y = executor(THOUSANDTHS, **ONES).norm(x, SITE, "layer", 1.5)
    assert y.q.tolist() == [[-1000, -500, 500, 1000]]


def test_eps_is_rounded_to_whole_squared_steps() -> None:
    """4 * 0.15 = 0.6 counts as 1: x = (1, 0, 0, 0) over sqrt((1 + 1) / 4)."""
    x = value([[1, 0, 0, 0]], Encoding(16, 1.0))
    y = executor(THOUSANDTHS, **ONES).norm(x, SITE, "rms", 0.15)
    assert y.q.tolist() == [[1414, 0, 0, 0]]


def test_a_norm_s_gain_has_its_scale_and_its_features() -> None:
    gain = {"weight": np.array([1000, -2000, 500, 4000], np.int16),
            "weight_scale": np.array([1e-3], "f4")}  # fmt: skip
    x = value([[3, 4, 5, 0]], Encoding(16, 1.0))
    y = executor(THOUSANDTHS, **gain).norm(x, SITE, "rms", 3.5)
    assert y.q.tolist() == [[750, -2000, 625, 0]]


@pytest.mark.parametrize(("kind", "n_squared"), [("rms", 1), ("layer", 16)])
def test_an_eps_beyond_2_to_the_61_squared_steps_is_refused(kind: str, n_squared: int) -> None:
    x = value([[1, 2, 3, 4]], Encoding(16, 1.0))
    largest = 2.0**61 / 4 / n_squared  # n times eps, for "layer" n squared times more
    ops = executor(THOUSANDTHS, **ONES)
    assert not ops.norm(x, SITE, kind, math.nextafter(largest, 0)).q.any()
    for eps in (largest, 2 * largest, float("inf"), float("nan")):
        with pytest.raises(QuantizationError, match=r"must stay below 2\^61 squared steps"):
            ops.norm(x, SITE, kind, eps)


# -- functions of activations ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "unit"), [(Encoding(8, 2**-8, -128), 8), (Encoding(16, 2**-15), 15)]
)
def test_softmax_by_hand(out: Encoding, unit: int) -> None:
    """Scores ln 2 apart weigh 1 : 2 : 4; a masked one weighs nothing."""
    x = value([[0, 1000, 2000, 30000]], Encoding(16, math.log(2) / 1000))
    y = executor(out).softmax(x, np.array([[True, True, True, False]]), SITE)
    expected = [2**unit / 7, 2 * 2**unit / 7, 4 * 2**unit / 7, 0]
    np.testing.assert_allclose(y.steps[0], expected, atol=0.51)
    assert y.encoding == out


def test_gates_and_softcaps_by_hand() -> None:
    """silu(1) = 0.7311, gelu(-1) = -0.1587, gelu_tanh(1) = 0.8412, 2 tanh(1) = 1.5232."""
    x = value([-1000, 0, 1000], Encoding(16, 1e-3))
    for kind, expected in (
        ("silu", [-269, 0, 731]), ("gelu", [-159, 0, 841]), ("gelu_tanh", [-159, 0, 841]),
        ("relu", [0, 0, 1000]),
    ):  # fmt: skip
        assert executor(THOUSANDTHS).activation(x, kind, SITE).q.tolist() == expected
    twice = value([-2000, 0, 2000], Encoding(16, 1e-3))
    assert executor(THOUSANDTHS).softcap(twice, 2.0, SITE).q.tolist() == [-1523, 0, 1523]


def test_joining_brings_both_parts_to_one_scale() -> None:
    x, y = value([[2, -3]], Encoding(8, 0.5, 1)), value([[300]], Encoding(16, 0.01))
    joined = executor(Encoding(8, 0.25, 10)).concat(x, y, SITE)
    assert joined.q.tolist() == [[2 + 10, -8 + 10, 12 + 10]]  # 0.5, -2 and 3 in quarters
    assert joined.encoding == Encoding(8, 0.25, 10)


def test_a_turn_keeps_the_size_at_every_position() -> None:
    """Position p turns (1, 0) to (cos p, sin p); the second pair turns theta^-1/2 as fast."""
    turn = Rotation(np.array([[0, 1, -2]]), np.array([100.0]), 4)
    x = value([[[[1000, 1000, 0, 0]] * 3]], THOUSANDTHS)
    y = executor(THOUSANDTHS).rope(x, turn, SITE).q[0, 0]
    for row, p in zip(y.tolist(), (0, 1, -2), strict=True):
        expected = [math.cos(p), math.cos(p / 10), math.sin(p), math.sin(p / 10)]
        np.testing.assert_allclose(row, 1000 * np.array(expected), atol=0.51)


def test_a_scale_of_zero_is_refused_and_a_zero_point_survives() -> None:
    x = value([[3]], Encoding(8, 0.5, 7))
    for factor in (3.0, 0.25):
        assert executor(THOUSANDTHS).scale(x, factor, SITE).encoding == Encoding(8, factor / 2, 7)
    with pytest.raises(QuantizationError, match="must be positive, got 0"):
        executor(THOUSANDTHS).scale(x, 0.0, SITE)
    assert executor(THOUSANDTHS).read(x).tolist() == [[-2.0]]


def test_a_site_s_multipliers_follow_the_scale_that_comes_in() -> None:
    tensors = {"weight": np.array([[2]], np.int8), "weight_scale": np.array([1.0], "f4")}
    ops = executor(Encoding(16, 0.5), **tensors)
    for scale, expected in ((1.0, 12), (0.5, 6), (1.0, 12)):
        assert ops.linear(value([[3]], Encoding(16, scale)), SITE).q.tolist() == [[expected]]


# -- layout ----------------------------------------------------------------------------------------


def test_layout_moves_integers_and_keeps_their_meaning() -> None:
    e = Encoding(8, 0.5, 3)
    ops = executor(THOUSANDTHS)
    x = value(np.arange(8).reshape(1, 2, 4), e)  # token 0: 0..3, token 1: 4..7
    heads = ops.split_heads(x, 2, "")
    assert heads.q.tolist() == [[[[0, 1], [4, 5]], [[2, 3], [6, 7]]]]
    assert ops.merge_heads(heads, "").q.tolist() == x.q.tolist()
    shared = ops.share_heads(heads, (0, 0, 1), "")
    assert shared.q[0, :, 0, 0].tolist() == [0, 0, 2]
    longer = ops.append(heads, heads, "")
    assert longer.q[0, 0].tolist() == [[0, 1], [4, 5], [0, 1], [4, 5]]
    assert ops.append(None, heads, "") is heads
    picked = ops.take_tokens(x, np.array([[1, 1]]), "")
    assert picked.q.tolist() == [[[4, 5, 6, 7]] * 2]
    kept = ops.keep_slots(longer, 1, np.array([[3, 2]]), "")
    assert kept.q[0, 0].tolist() == [[0, 1], [4, 5], [0, 1]]
    for moved in (heads, shared, longer, picked, kept):
        assert moved.encoding == e
    assert heads.shape == (1, 2, 2, 2)
