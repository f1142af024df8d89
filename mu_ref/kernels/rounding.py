"""Twins of the roundings in `mu_ref/integers/fixed_point.py` and of the tables' interpolation.

Values are int16 steps q - z, one type for 8 and 16 bits. Everything is exact. Loops are kept free
of branches, so that the compiler can use vectors.
"""

import numpy as np

from mu_ref.kernels.compiled import kernel
from mu_ref.kernels.vector.simd import add1, vector1
from mu_ref.kernels.vector.steps import all1, clip1, high1, left1, shift1, store_i16

__all__ = [
    "ARGUMENT_BITS", "DOUBLE", "EVEN", "ONE", "PART", "SINGLE", "bit_length", "clip", "interpolate",
    "interpolate_row", "rescale", "rescale_block", "rescale_channels", "rescale_int32",
    "rescale_row", "shifted",
]  # fmt: skip

SINGLE, DOUBLE, EVEN = range(3)
ARGUMENT_BITS = 16
ONE = np.int64(1)
PART = 128  # keys, or features, whose products with one byte int32 holds
LANES = 16  # int32 in a vector
FEW_ROWS = 8  # whose sums stay near while what a channel needs is read once


@kernel
def clip(x, low, high):
    """x, not below low and not above high."""
    return min(max(x, low), high)


@kernel
def shifted(x, t):
    """floor(x / 2^t + 1/2) for t in 1..62."""
    return (x + (ONE << (t - ONE))) >> t


@kernel
def rescale(acc, m, t, mode):
    """Twin of fixed_point.requantize and requantize_wide. Contract: exact.

    t is 31 - shift, or for a wide accumulator 15 - shift with a 15-bit m and mode SINGLE.
    """
    if mode == SINGLE:
        return shifted(acc * m, t)
    if mode == EVEN:
        product = acc * m
        floor = product >> t
        twice_rest, unit = (product - (floor << t)) << ONE, ONE << t
        up = twice_rest > unit or (twice_rest == unit and (floor & 1) == 1)
        return floor + ONE if up else floor
    # "tflite_double" rounds to 32 bits first, ties up, and then shifts, ties away from zero.
    shift = 31 - t
    low, high = np.int64(-(2**31)), np.int64(2**31 - 1)
    left = clip(acc << max(shift, 0), low, high)
    high_part = high if left == low and m == low else shifted(left * m, 31)
    size = shifted(abs(high_part), -shift) if shift < 0 else abs(high_part)
    return -size if high_part < 0 else size


@kernel
def rescale_row(sums, by, out):
    """Write sums as the steps of a site. Contract: exact. 0.2 to 0.5 ns an element, by mode.

    by = (low, high, mode, m, t): the limits of a step, how is rounded, and the site's multiplier.
    """
    low, high, mode, m, t = by
    if mode == SINGLE:  # a loop of its own, without the branches that vectors cannot take
        for i in range(len(out)):
            out[i] = clip(shifted(sums[i] * m, t), low, high)
    else:
        for i in range(len(out)):
            out[i] = clip(rescale(sums[i], m, t, mode), low, high)


@kernel
def rescale_channels(sums, m, t, mode, low, high, out):
    """Write rescaled sums, each with the multiplier of its channel.

    Contract: exact. 0.3 to 0.6 ns an element, by mode.

    m is int32 and sums may be int32 or int64: the compiler has a faster product for the first.
    """
    if mode == SINGLE:
        for i in range(len(out)):
            out[i] = clip(shifted(np.int64(sums[i]) * np.int64(m[i]), t[i]), low, high)
    else:
        for i in range(len(out)):
            y = rescale(np.int64(sums[i]), np.int64(m[i]), t[i], mode)
            out[i] = clip(y, low, high)


@kernel
def rescale_int32(sums, m, t, low, high, out):
    """Write int32 sums as `rescale_row` does, rounded once, with m in int32.

    Contract: exact. 0.1 ns an element where t > 32.

    Then the lower half of a product decides nothing: floor(s m / 2^t + 1/2) is the upper half, 2^(t
    - 33) more, shifted by t - 32, and all of that fits int32.
    """
    whole = len(out) // LANES * LANES if t > 32 else 0
    factor, shift = all1(np.int32(m)), all1(np.int32(t - 32))
    half = all1(np.int32(ONE << max(t - 33, 0)))
    lows, highs = all1(np.int32(low)), all1(np.int32(high))
    for i in range(0, whole, LANES):
        y = shift1(add1(high1(vector1(sums, i), factor), half), shift)
        store_i16(out, i, clip1(y, lows, highs))
    for i in range(whole, len(out)):
        out[i] = clip(shifted(np.int64(sums[i]) * np.int64(m), t), low, high)


@kernel
def rescale_block(sums, width, n_rows, begin, m, t, mode, low, high, out, step):
    """Write `rescale_channels` of begin + sums, for rows of sums `width` apart; all int32.

    Contract: exact. 0.2 ns an element where all t > 32 (see `rescale_int32`).

    Rows of out begin `step` apart.
    """
    n = len(m)
    whole = n // LANES * LANES if mode == SINGLE and t.min() > 32 else 0
    one, less = all1(np.int32(1)), all1(np.int32(-1))
    lows, highs = all1(np.int32(low)), all1(np.int32(high))
    for top in range(0, n_rows, FEW_ROWS):
        for i in range(0, whole, LANES):
            start, factor = vector1(begin, i), vector1(m, i)
            shift = add1(vector1(t, i), all1(np.int32(-32)))
            half = left1(one, add1(shift, less))
            for r in range(top, min(top + FEW_ROWS, n_rows)):
                y = high1(add1(vector1(sums, r * width + i), start), factor)
                y = shift1(add1(y, half), shift)
                store_i16(out, r * step + i, clip1(y, lows, highs))
    if whole == n:
        return
    rest = np.empty(n - whole, np.int32)
    for r in range(n_rows):
        of, to = r * width + whole, r * step
        for i in range(len(rest)):
            rest[i] = begin[whole + i] + sums[of + i]
        y = out[to + whole : to + n]
        rescale_channels(rest, m[whole:], t[whole:], mode, low, high, y)


@kernel
def interpolate(points, x, fraction_bits, drop_bits):
    """Twin of tables.interpolate. Contract: exact."""
    i = min(x >> fraction_bits, np.int64(len(points) - 2))
    return _between(points[i], points[i + 1], x - (i << fraction_bits), fraction_bits, drop_bits)


@kernel
def _between(left, right, rest, fraction_bits, drop_bits):
    """The line from left to right, at rest / 2^fraction_bits, rounded to drop bits."""
    total = (left << fraction_bits) + (right - left) * rest
    return shifted(total, fraction_bits + drop_bits)


@kernel
def interpolate_row(points, x, ends, fraction_bits, drop_bits):
    """Replace each x by its interpolation; ends has room for twice as many. Contract: exact.

    Reading the table is a loop of its own, as vectors cannot; so the rest can.
    """
    left, right, last = ends[: len(x)], ends[len(x) : 2 * len(x)], np.int64(len(points) - 2)
    for k in range(len(x)):
        i = np.uint64(min(x[k] >> fraction_bits, last))  # unsigned: it is not counted from the end
        left[k], right[k] = points[i], points[i + np.uint64(1)]
    for k in range(len(x)):
        rest = x[k] - (min(x[k] >> fraction_bits, last) << fraction_bits)
        x[k] = _between(left[k], right[k], rest, fraction_bits, drop_bits)


@kernel
def bit_length(x):
    """Bits of x >= 1."""
    n = np.int64(0)
    while x:
        x >>= 1
        n += 1
    return n
