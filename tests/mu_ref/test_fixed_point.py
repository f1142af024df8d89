"""Quantizing and multipliers by hand: ties of both signs, the ends of every range, errors."""

import math

import numpy as np
import pytest

from mu_ref.errors import QuantizationError
from mu_ref.integers.fixed_point import (
    Multiplier,
    dequantize,
    integer_range,
    quantize,
    quantize_multiplier,
    quantize_multipliers,
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
    for wrong in (-1.0, math.nan, math.inf, 2.0**30, math.nextafter(2.0**30, 0)):
        with pytest.raises(QuantizationError, match="a multiplier must be"):
            quantize_multipliers(np.array([0.5, wrong, 3.0]))
    by = quantize_multipliers(np.array([0.5, 0.0, 3.0], np.float32))
    assert (by.m.tolist(), by.shift.tolist()) == ([2**30, 0, 3 * 2**29], [0, 0, 2])
    assert by.m.dtype == by.shift.dtype == np.int64
    empty = quantize_multipliers(np.zeros(0))
    assert empty.m.dtype == empty.shift.dtype == np.int64
