"""Accumulators brought to another scale by hand: ties, the ends of every range, what is refused."""

import numpy as np
import pytest

from mu_ref.errors import QuantizationError
from mu_ref.integers.fixed_point import (
    ROUNDINGS,
    Multiplier,
    check_accumulator,
    quantize_multiplier,
    requantize,
    requantize_sum,
    requantize_wide,
    rounding_shift,
    saturate,
)

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


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
