"""Fixed point by hand: ties of both signs, the ends of every range, and what is refused."""

import math

import numpy as np
import pytest

from mu_ref.errors import QuantizationError
from mu_ref.quantize.fixed_point import (
    ROUNDINGS,
    Multiplier,
    check_accumulator,
    dequantize,
    integer_range,
    quantize,
    quantize_multiplier,
    quantize_multipliers,
    requantize,
    requantize_sum,
    requantize_wide,
    round_half_away,
    round_half_even,
    rounding_shift,
    saturate,
)

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


# -- integers and their widths ---------------------------------------------------------------------


def test_the_ranges_of_the_widths() -> None:
    assert integer_range(4) == (-8, 7)
    assert integer_range(8) == (-128, 127)
    assert integer_range(16) == (-32768, 32767)
    assert integer_range(32) == (INT32_MIN, INT32_MAX)
    assert integer_range(8, signed=False) == (0, 255)
    assert integer_range(16, signed=False) == (0, 65535)


@pytest.mark.parametrize(
    ("bits", "signed", "dtype", "expected"),
    [
        (4, True, np.int8, [-8, -8, 0, 7, 7]),
        (8, True, np.int8, [-128, -128, 0, 127, 127]),
        (8, False, np.uint8, [0, 0, 0, 127, 255]),
        (16, True, np.int16, [-32768, -128, 0, 127, 32767]),
        (16, False, np.uint16, [0, 0, 0, 127, 65535]),
        (32, True, np.int32, [INT32_MIN, -128, 0, 127, INT32_MAX]),
    ],
)
def test_saturation_clips_and_narrows(bits, signed, dtype, expected) -> None:
    q = saturate(np.array([-(2**62), -128, 0, 127, 2**62]), bits, signed=signed)
    assert q.dtype == dtype
    assert q.tolist() == expected


def test_a_narrow_integer_may_be_saturated_to_a_wider_one() -> None:
    assert saturate(np.array([-128, 127], np.int8), 16).tolist() == [-128, 127]


# -- rounding --------------------------------------------------------------------------------------


def test_ties_go_to_the_even_integer_or_away_from_zero() -> None:
    ties = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
    assert [round_half_even(x) for x in ties] == [-2, -2, 0, 0, 2, 2]
    assert round_half_even(np.array(ties)).tolist() == [-2, -2, 0, 0, 2, 2]
    assert round_half_even(np.array(ties)).dtype == np.int64
    assert [round_half_away(x) for x in ties] == [-3, -2, -1, 1, 2, 3]


def test_just_below_a_tie_is_not_a_tie() -> None:
    below = math.nextafter(0.5, 0)  # below + 0.5 rounds to 1.0 in binary64
    assert below + 0.5 == 1.0
    assert [round_half_away(x) for x in (below, -below)] == [0, 0]
    assert round_half_away(2.0**52 + 1) == 2**52 + 1  # here + 0.5 would round to the even integer


@pytest.mark.parametrize(
    ("x", "t", "expected"),
    [(5, 1, 3), (-5, 1, -2), (7, 0, 7), (-7, 0, -7), (6, 2, 2), (-6, 2, -1), (-7, 2, -2)],
)
def test_a_rounding_shift_sends_ties_up(x: int, t: int, expected: int) -> None:
    assert rounding_shift(np.array([x]), t).tolist() == [expected]


def test_a_rounding_shift_by_more_bits_than_there_are() -> None:
    x = np.array([2**62 - 1, -(2**62) + 1, 2**61, 2**61 - 1])
    assert rounding_shift(x, 62).tolist() == [1, -1, 1, 0]
    assert rounding_shift(x, 63).tolist() == [0, 0, 0, 0]
    assert rounding_shift(x, np.array([62, 63, 100, 1])).tolist() == [1, 0, 0, 2**60]


# -- real numbers ----------------------------------------------------------------------------------


def test_quantizing_adds_the_zero_point_after_rounding() -> None:
    # 5/2 rounds to the even 2, then 2 + 3 = 5; round(5/2 + 3) would be 6
    assert quantize(np.array([5.0]), 2.0, 3, 8).tolist() == [5]


def test_every_integer_can_be_reached_with_every_zero_point() -> None:
    every = np.arange(-128, 128)
    for zero_point in (-128, -1, 0, 127):
        x = 0.25 * (every - zero_point)
        assert quantize(x, 0.25, zero_point, 8).tolist() == every.tolist()
    every = np.arange(256)
    for zero_point in (0, 128, 255):
        x = 0.25 * (every - zero_point)
        assert quantize(x, 0.25, zero_point, 8, signed=False).tolist() == every.tolist()


@pytest.mark.parametrize("zero_point", [-128, 0, 127])
def test_numbers_beyond_the_range_saturate(zero_point: int) -> None:
    x = np.array([-np.inf, -1e300, 1e300, np.inf])
    with np.errstate(over="raise"):
        assert quantize(x, 1e-30, zero_point, 8).tolist() == [-128, -128, 127, 127]


def test_scales_and_zero_points_may_differ_by_channel() -> None:
    x = np.array([[1.0, 1.0], [-1.0, 3.0]])  # [d_out, d_in]
    q = quantize(x, np.array([[0.5], [0.25]]), np.array([[1], [-1]]), 16)
    assert q.dtype == np.int16
    assert q.tolist() == [[3, 3], [-5, 11]]
    back = dequantize(q, np.array([[0.5], [0.25]]), np.array([[1], [-1]]))
    assert back.dtype == np.float64
    np.testing.assert_array_equal(back, x)


def test_dequantizing_does_not_wrap_in_the_narrow_type() -> None:
    q = np.array([-128, 127], np.int8)
    assert dequantize(q, 0.5, 127).tolist() == [-127.5, 0.0]
    assert dequantize(q, 0.5, -128).tolist() == [0.0, 127.5]


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_not_positive_and_finite_is_refused(scale: float) -> None:
    message = rf"a scale must be positive and finite, got {scale}"
    with pytest.raises(QuantizationError, match=message):
        quantize(np.ones(2), np.array([1.0, scale]), 0, 8)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(QuantizationError, match="must be numbers, got NaN"):
        quantize(np.array([0.0, np.nan]), 1.0, 0, 8)


# -- multipliers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "m", "shift"),
    [
        (0.0, 0, 0),
        (1.0, 2**30, 1),
        (0.5, 2**30, 0),
        (0.75, 3 * 2**29, 0),
        (2.0**29, 2**30, 30),
        (2.0**-32, 2**30, -31),
    ],
)
def test_multipliers_of_powers_of_two(d: float, m: int, shift: int) -> None:
    assert quantize_multiplier(d) == Multiplier(m, shift)


def test_a_multiplier_that_rounds_up_to_a_power_of_two_is_halved() -> None:
    assert quantize_multiplier(math.nextafter(1.0, 0)) == Multiplier(2**30, 1)
    # half a step below 1: the tie goes away from zero; a step and a half: to 2^31 - 1 or - 2
    assert quantize_multiplier(1 - 2.0**-32) == Multiplier(2**30, 1)
    assert quantize_multiplier(1 - 2.0**-31) == Multiplier(2**31 - 1, 0)


def test_a_multiplier_too_small_for_31_bits_is_zero() -> None:
    assert quantize_multiplier(0.75 * 2.0**-32) == Multiplier(0, 0)  # shift -32
    assert quantize_multiplier(5e-324) == Multiplier(0, 0)
    # just below 2^-32 the carry comes first and saves it
    assert quantize_multiplier(math.nextafter(2.0**-32, 0)) == Multiplier(2**30, -31)


@pytest.mark.parametrize("d", [-1e-9, float("nan"), float("inf"), -float("inf")])
def test_a_multiplier_that_is_no_factor_is_refused(d: float) -> None:
    with pytest.raises(QuantizationError, match=f"must be finite and at least 0, got {d}"):
        quantize_multiplier(d)


def test_a_multiplier_too_big_for_int32_is_refused() -> None:
    assert quantize_multiplier(2.0**30 - 1) == Multiplier(2**31 - 2, 30)
    for d in (2.0**30, 1e300):
        with pytest.raises(QuantizationError, match=r"below 2\^30.*two scales do not belong"):
            quantize_multiplier(d)


def test_multipliers_of_a_channel_each() -> None:
    by = quantize_multipliers(np.array([0.5, 0.0, 3.0], np.float32))
    assert (by.m.tolist(), by.shift.tolist()) == ([2**30, 0, 3 * 2**29], [0, 0, 2])
    assert by.m.dtype == by.shift.dtype == np.int64
    empty = quantize_multipliers(np.zeros(0))
    assert empty.m.dtype == empty.shift.dtype == np.int64


# -- accumulators ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "acc", "single", "even", "double"),
    [
        (0.5, 5, 3, 2, 3),
        (0.5, -5, -2, -2, -2),  # double: the first rounding sends ties up, the second away
        (0.25, 10, 3, 2, 3),
        (0.25, -10, -2, -2, -3),
        (0.25, 9, 2, 2, 3),  # double rounds 4.5 to 5 and 2.5 to 3, though 9/4 = 2.25
        (0.25, 14, 4, 4, 4),
        (0.25, -14, -3, -4, -4),
        (4.0, 2**28 - 1, 2**30 - 4, 2**30 - 4, 2**30 - 4),
        (4.0, 2**28, 2**30, 2**30, 2**30),  # double: 2^28 << 3 saturates, and rounds back up
        (4.0, 2**28 + 1, 2**30 + 4, 2**30 + 4, 2**30),  # double: the source's shift is undefined
        (0.0, INT32_MIN, 0, 0, 0),
    ],
)
def test_ties_in_the_three_roundings(d, acc, single, even, double) -> None:
    by = quantize_multiplier(d)
    got = {r: requantize(np.array([acc]), by, r).tolist() for r in ROUNDINGS}
    assert got == {"tflite_single": [single], "half_even": [even], "tflite_double": [double]}


def test_the_largest_products_do_not_overflow() -> None:
    acc = np.array([INT32_MIN, INT32_MAX])
    largest = Multiplier(2**31 - 1, 30)
    for rounding in ("tflite_single", "half_even"):
        assert requantize(acc, largest, rounding).tolist() == [
            -(2**30) * (2**31 - 1),
            # (2^31 - 1)^2 / 2 = 2^61 - 2^31 + 1/2: a tie
            2**61 - 2**31 + (rounding == "tflite_single"),
        ]
    # the product with 2^30 leaves int32; the source's shift is undefined there, ours saturates
    assert requantize(acc, largest, "tflite_double").tolist() == [-(2**31) + 1, 2**31 - 2]
    for rounding in ROUNDINGS:
        assert requantize(acc, Multiplier(2**31 - 1, -31), rounding).tolist() == [-1, 1]
    assert requantize(acc, Multiplier(2**30, -31)).tolist() == [0, 0]  # -1/2 goes up; below 1/2
    assert requantize(acc, Multiplier(2**30, -31), "tflite_double").tolist() == [-1, 1]


def test_two_smallest_integers_saturate_in_the_double_rounding() -> None:
    both = requantize(np.array([INT32_MIN]), Multiplier(INT32_MIN, 0), "tflite_double")
    assert both.tolist() == [INT32_MAX]


def test_an_unknown_rounding_is_refused() -> None:
    message = "rounding must be one of tflite_double, tflite_single, half_even; got 'floor'"
    with pytest.raises(QuantizationError, match=message):
        requantize(np.array([1]), Multiplier(2**30, 0), "floor")


def test_a_wide_accumulator_uses_sixteen_bits_of_the_multiplier() -> None:
    half = Multiplier(2**30, 0)
    assert requantize_wide(np.array([5, -5, 2**47 - 1]), half).tolist() == [3, -2, 2**46]
    # 0x7FFF0000 and above are cut to 0x7FFF, though 0x7FFF8000 would round to 0x8000
    for m in (0x7FFF0000, 0x7FFF8000, 2**31 - 1):
        assert requantize_wide(np.array([2**15]), Multiplier(m, 0)).tolist() == [0x7FFF]
    assert requantize_wide(np.array([2**15]), Multiplier(0x7FFE7FFF, 0)).tolist() == [0x7FFE]
    assert requantize_wide(np.array([2**15]), Multiplier(0x7FFE8000, 0)).tolist() == [0x7FFF]
    # the largest: (2^47 - 1) (2^15 - 1) / 2 is a tie
    top = requantize_wide(np.array([2**47 - 1]), Multiplier(2**31 - 1, 14))
    assert top.tolist() == [((2**47 - 1) * 0x7FFF + 1) // 2]


def test_a_wide_multiplier_too_big_is_refused() -> None:
    with pytest.raises(QuantizationError, match=r"64-bit accumulator must be below 2\^14"):
        requantize_wide(np.array([1]), Multiplier(np.array([2**30, 2**30]), np.array([0, 15])))


def test_a_sum_is_rounded_once() -> None:
    # 1/2 + 1/2: rounding each term first would give 1 + 1
    assert requantize_sum(np.array([1]), 0.5, np.array([1]), 0.5).tolist() == [1]
    # 3 * 1/2 - 1 * 2 = -1/2, a tie, goes up
    assert requantize_sum(np.array([3]), 0.5, np.array([-1]), 2.0).tolist() == [0]
    assert requantize_sum(np.array([7]), 0.0, np.array([9]), 0.0).tolist() == [0]
    # a factor that is nothing beside the other: 2^-40 * 2^16 disappears
    assert requantize_sum(np.array([2**16]), 2.0**-40, np.array([2**16]), 1.0).tolist() == [2**16]


@pytest.mark.parametrize("bad", [float("nan"), -0.5, float("inf"), 2.0**30])
def test_a_sum_with_a_bad_factor_is_refused(bad: float) -> None:
    for factors in ((bad, 1.0), (1.0, bad)):
        with pytest.raises(QuantizationError, match="a multiplier must be"):
            requantize_sum(np.array([1]), factors[0], np.array([1]), factors[1])


@pytest.mark.parametrize(("wide", "limit"), [(False, 2**31), (True, 2**47)])
def test_the_proof_of_an_accumulator_is_tight(wide: bool, limit: int) -> None:
    assert check_accumulator("edge", limit - 1, 1, 1, wide=wide) == limit - 1
    with pytest.raises(QuantizationError, match=f"edge: .* stay below {limit}, it can reach"):
        check_accumulator("edge", limit, 1, 1, wide=wide)


def test_the_accumulators_of_the_two_schemes() -> None:
    # int8 x int8 with the zero point subtracted (255) fits 32 bits up to 66,311 terms
    assert check_accumulator("w8a8", 66_311, 255, 127, wide=False) == 66_311 * 255 * 127
    with pytest.raises(QuantizationError, match="split the sum"):
        check_accumulator("w8a8", 66_312, 255, 127, wide=False)
    # int16 x int8 needs the wide one already at 517 terms
    assert check_accumulator("w8a16", 516, 32768, 127, wide=False) < 2**31
    with pytest.raises(QuantizationError, match="w8a16"):
        check_accumulator("w8a16", 517, 32768, 127, wide=False)
    assert check_accumulator("w8a16", 2**24, 32768, 127, wide=True) < 2**47


def test_python_integers_are_arrays_without_axes() -> None:
    assert int(rounding_shift(5, 1)) == 3
    assert int(requantize(5, Multiplier(2**30, 0))) == 3
    assert int(requantize_wide(5, Multiplier(2**30, 0))) == 3
    assert int(saturate(300, 8)) == 127
