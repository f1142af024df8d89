"""Fixed point equals its definitions in Python's unbounded integers and exact fractions."""

import math
from fractions import Fraction

import numpy as np
from exact import (
    INT32_MAX,
    INT32_MIN,
    clip,
    double,
    gemmlowp_double,
    half_away,
    half_even,
    half_up,
    multiplier,
    single,
)
from hypothesis import example, given
from hypothesis import strategies as st

from mu_ref.integers.fixed_point import (
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


def one(array: np.ndarray) -> int:
    assert array.dtype == np.int64
    return int(array[0])


# -- what is drawn ---------------------------------------------------------------------------------

int32s = st.one_of(
    st.integers(INT32_MIN, INT32_MAX),
    st.integers(-40, 40),
    st.sampled_from([INT32_MIN, INT32_MIN + 1, INT32_MAX - 1, INT32_MAX]),
    st.builds(lambda k, n: k * 2**n, st.integers(-9, 9), st.integers(0, 27)),  # many ties
)
mantissas = st.one_of(
    st.integers(2**30, 2**31 - 1),
    st.builds(lambda k: k * 2**28, st.integers(4, 7)),  # few bits, so that products tie
    st.sampled_from([0, 2**30, 2**31 - 1, 0x7FFF0000, 0x7FFEFFFF]),
)
shifts = st.integers(-31, 30)
wide_ints = st.one_of(
    st.integers(-(2**47) + 1, 2**47 - 1),
    st.integers(-40, 40),
    st.sampled_from([-(2**47) + 1, 2**47 - 1]),
    st.builds(lambda k, n: k * 2**n, st.integers(-9, 9), st.integers(0, 43)),
)
floats = st.floats(-(2.0**50), 2.0**50)
halves = st.integers(-(2**20), 2**20).map(lambda n: n / 2)
factors = st.one_of(
    st.just(0.0),
    st.floats(0, 2.0**29),
    st.builds(math.ldexp, st.integers(1, 15), st.integers(-45, 25)),
)


# -- rounding --------------------------------------------------------------------------------------


@given(st.one_of(floats, halves))
def test_rounding_a_real_number(x: float) -> None:
    exact = Fraction(x)
    assert round_half_even(x) == half_even(exact)
    assert one(round_half_even(np.array([x]))) == half_even(exact)
    assert round_half_away(x) == half_away(exact)


@given(st.integers(-(2**62) + 1, 2**62 - 1), st.integers(0, 80))
@example(2**62 - 1, 62)
@example(-(2**62) + 1, 63)
@example(-3, 1)
def test_a_rounding_shift_divides_and_sends_ties_up(x: int, t: int) -> None:
    assert one(rounding_shift(np.array([x]), t)) == half_up(Fraction(x, 2**t))


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from([4, 8, 16, 32]), st.booleans())
def test_saturation_is_the_nearest_integer_of_the_width(x: int, bits: int, signed: bool) -> None:
    low, high = integer_range(bits, signed=signed)
    assert high - low + 1 == 2**bits
    q = saturate(np.array([x]), bits, signed=signed)
    assert int(q[0]) == clip(x, low, high)
    assert q.dtype == np.dtype(f"{'' if signed else 'u'}int{max(bits, 8)}")


# -- real numbers ----------------------------------------------------------------------------------

grids = st.tuples(st.sampled_from([4, 8, 16, 32]), st.booleans())


@given(st.data(), grids, st.integers(-20, 20), st.lists(halves, min_size=1, max_size=4))
def test_quantizing_on_a_power_of_two_is_exact(data, grid, exponent: int, steps) -> None:
    """Halves of a step give ties; with a power of two, x / s is exact."""
    (bits, signed), scale = grid, 2.0**exponent
    low, high = integer_range(bits, signed=signed)
    z = data.draw(st.integers(low, high))
    q = quantize(np.array(steps) * scale, scale, z, bits, signed=signed)
    assert q.tolist() == [clip(half_even(Fraction(n)) + z, low, high) for n in steps]


@given(st.floats(-1e30, 1e30), st.floats(1e-10, 1e10), grids, st.data())
def test_the_error_of_quantizing_is_half_a_step(x, scale: float, grid, data) -> None:
    bits, signed = grid
    low, high = integer_range(bits, signed=signed)
    z = data.draw(st.integers(low, high))
    q = int(quantize(np.array([x]), scale, z, bits, signed=signed)[0])
    exact = Fraction(x) / Fraction(scale) + z
    if low < q < high:
        assert abs(q - exact) <= Fraction(1, 2) + abs(exact) * Fraction(1, 2**52)
    else:
        assert (q == low and exact < low + 1) or (q == high and exact > high - 1)


@given(st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1), st.floats(1e-10, 1e10), st.booleans())
def test_dequantizing_and_quantizing_again_is_the_identity(q, z, scale: float, signed) -> None:
    low, _ = integer_range(16, signed=signed)
    q, z = q + low, z + low
    x = dequantize(np.array([q]), scale, z)
    assert x[0] == (q - z) * scale
    assert int(quantize(x, scale, z, 16, signed=signed)[0]) == q


# -- multipliers -----------------------------------------------------------------------------------


@given(factors)
@example(2.0**30 - 1)
@example(math.nextafter(1.0, 0))
@example(math.nextafter(2.0**-32, 0))
@example(2.0**-32)
@example(5e-324)
def test_a_multiplier_is_the_definition(d: float) -> None:
    by = quantize_multiplier(d)
    assert (by.m, by.shift) == multiplier(Fraction(d))
    assert by.m == 0 or 2**30 <= by.m < 2**31
    assert -31 <= by.shift <= 30
    if by.m:
        error = Fraction(by.m) * Fraction(2) ** (by.shift - 31) - Fraction(d)
        assert abs(error) <= Fraction(d) * Fraction(1, 2**31)


@given(st.lists(factors, max_size=5))
@example([math.nextafter(1.0, 0), 1 - 2.0**-32, math.nextafter(2.0**-32, 0), 2.0**-32, 5e-324])
def test_multipliers_are_one_by_one(d: list[float]) -> None:
    by = quantize_multipliers(np.array(d))
    assert [*zip(by.m.tolist(), by.shift.tolist(), strict=True)] == [
        multiplier(Fraction(x)) for x in d
    ]


# -- accumulators ----------------------------------------------------------------------------------


@given(int32s, mantissas, shifts)
@example(INT32_MIN, 2**31 - 1, -31)
@example(INT32_MIN, 2**31 - 1, 30)
@example(INT32_MAX, 2**31 - 1, 30)
@example(INT32_MAX, 2**30, -31)
def test_requantizing_is_the_definition(a: int, m: int, shift: int) -> None:
    acc, by = np.array([a]), Multiplier(m, shift)
    assert one(requantize(acc, by, "tflite_single")) == single(a, m, shift)
    assert one(requantize(acc, by)) == single(a, m, shift)
    exact = Fraction(a * m) / Fraction(2) ** (31 - shift)
    assert one(requantize(acc, by, "half_even")) == half_even(exact)
    twice = one(requantize(acc, by, "tflite_double"))
    assert twice == double(a, m, shift) == gemmlowp_double(a, m, shift)
    if abs(a) << max(shift, 0) <= INT32_MAX:
        assert abs(twice - exact) <= 1  # 1/2 of the second rounding, 1/2 or less of the first


@given(st.lists(st.tuples(int32s, mantissas, shifts), min_size=1, max_size=4), st.data())
def test_each_channel_has_its_own_multiplier(channels, data) -> None:
    rows = data.draw(st.integers(1, 3))
    acc = np.array([[a - r * (a > 0) for a, _, _ in channels] for r in range(rows)], np.int32)
    m, shift = (np.array([c[i] for c in channels], np.int64) for i in (1, 2))
    for rounding, definition in (("tflite_single", single), ("tflite_double", double)):
        got = requantize(acc, Multiplier(m, shift), rounding)
        expected = [
            [definition(int(a), *c[1:]) for a, c in zip(row, channels, strict=True)] for row in acc
        ]
        assert got.tolist() == expected


@given(wide_ints, mantissas, st.integers(-31, 14))
@example(2**47 - 1, 2**31 - 1, 14)
@example(-(2**47) + 1, 2**31 - 1, 14)
@example(-(2**47) + 1, 2**31 - 1, -31)
def test_requantizing_a_wide_accumulator_is_the_definition(a: int, m: int, shift: int) -> None:
    m16 = (m + 2**15) >> 16 if m < 0x7FFF0000 else 0x7FFF
    t = 15 - shift
    expected = (a * m16 + 2 ** (t - 1)) >> t
    assert one(requantize_wide(np.array([a]), Multiplier(m, shift))) == expected


int17s = st.one_of(st.integers(-(2**16), 2**16), st.integers(-9, 9))


@given(int17s, factors, int17s, factors)
def test_a_sum_is_rounded_once(x: int, d_x: float, y: int, d_y: float) -> None:
    t = 31 - multiplier(max(Fraction(d_x), Fraction(d_y)))[1]
    m_x, m_y = half_away(Fraction(d_x) * 2**t), half_away(Fraction(d_y) * 2**t)
    total = one(requantize_sum(np.array([x]), d_x, np.array([y]), d_y))
    assert total == half_up(Fraction(x * m_x + y * m_y, 2**t))
    exact = x * Fraction(d_x) + y * Fraction(d_y)
    assert abs(total - exact) <= Fraction(1, 2) + Fraction(abs(x) + abs(y), 2 ** (t + 1))
    assert total == one(requantize_sum(np.array([y]), d_y, np.array([x]), d_x))


@given(st.integers(1, 2**18), st.integers(1, 2**16), st.integers(1, 2**16), st.booleans())
@example(2**15, 2**8, 2**8, False)
@example(2**15, 2**8, 2**8 - 1, False)
@example(2**15, 2**16, 2**16, True)
def test_a_proven_accumulator_holds_every_sum_and_the_largest_exactly(n, x, y, wide: bool) -> None:
    largest, limit = n * x * y, 2**47 if wide else 2**31
    if largest >= limit:
        with np.testing.assert_raises_regex(ValueError, f"it can reach {largest}"):
            check_accumulator("site", n, x, y, wide=wide)
        return
    assert check_accumulator("site", n, x, y, wide=wide) == largest
    acc = np.array([largest, -largest])  # reached by n equal products
    by = Multiplier(2**31 - 1, 0)
    if wide:
        assert requantize_wide(acc, by).tolist() == [
            (a * 0x7FFF + 2**14) >> 15 for a in (largest, -largest)
        ]
    else:
        assert acc.astype(np.int32).tolist() == acc.tolist()
        assert requantize(acc, by).tolist() == [single(a, by.m, 0) for a in (largest, -largest)]
