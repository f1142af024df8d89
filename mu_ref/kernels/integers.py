"""Integer twins of `mu_ref/integers/nonlinear.py` and `mu_ref/ops/integer.py`, on flat arrays.

Values are int16 steps q - z. Tensors lie as in `floats.py`, and the functions work on ranges in the
same way. Everything is exact: the integers are those of the reference executor. `by` is how sums
become the steps of a site, (low, high, mode, m, t); see `rounding.rescale_row`.
"""

import numpy as np

from mu_ref.kernels.compiled import kernel
from mu_ref.kernels.rounding import (
    ARGUMENT_BITS,
    ONE,
    PART,
    SINGLE,
    bit_length,
    clip,
    interpolate,
    interpolate_row,
    rescale_int32,
    rescale_row,
    shifted,
)
from mu_ref.kernels.vector.dots import HAS_BYTE_TABLES
from mu_ref.kernels.vector.simd import vector1
from mu_ref.kernels.vector.steps import look_up64

__all__ = ["activation", "add", "center", "likeliest", "lookup", "mul", "norm", "rope"]

I64 = np.int64


# -- rows ------------------------------------------------------------------------------------------


@kernel
def norm(x, gain, bias, out, rsqrt, d, layer, eps, by, first, last):
    """Normalise rows first..last-1.

    Contract: exact. 0.25 ns an element, with a mean 1.5. bias is empty where there is none.
    """
    low, high, _, m, t = by
    steps, gained = np.empty(d, I64), np.empty(d, np.int32)
    for row in range(first, last):
        at = row * d
        source, to = x[at : at + d], out[at : at + d]
        shift, squares = np.int64(0), np.int64(0)
        if layer:
            for k in range(d):
                steps[k] = source[k]
            shift = center(steps, d)
            for k in range(d):
                squares += steps[k] * steps[k]
        else:
            for k in range(d):
                squares += np.int64(np.int32(source[k]) * np.int32(source[k]))
        squares += eps >> (2 * shift)
        # 1 / sqrt(r) from a table of mantissas in [2^30, 2^32), so r loses an even number of bits.
        r = max(squares, ONE)
        half = (bit_length(r) - 31) >> 1
        mantissa = r >> (2 * half) if half > 0 else r << (-2 * half)
        root = interpolate(rsqrt, mantissa - (ONE << 30), 22, 0)
        row_m = (root * m) >> 30 if squares > 0 else np.int64(0)
        row_t = t + 15 + half
        if layer:
            row_t = max(row_t - 8, ONE)  # the bias is in 2^-8 steps of the output
        if row_t > 62:  # all that is left of so small a number is 0; int64 shifts no further
            row_m, row_t = np.int64(0), np.int64(62)
        if not layer:
            for k in range(d):
                gained[k] = np.int32(source[k]) * np.int32(gain[k])
            rescale_int32(gained, row_m, row_t, low, high, to)
            continue
        for k in range(d):
            steps[k] = shifted(shifted(steps[k] * gain[k] * row_m, row_t) + bias[k], 8)
        for k in range(d):
            to[k] = clip(steps[k], low, high)


@kernel
def center(steps, d):
    """Twin of nonlinear.center, in place; returns the shift. Contract: exact. 0.8 ns an element."""
    total, largest = np.int64(0), np.int64(1)
    for k in range(d):
        total += steps[k]
    for k in range(d):
        steps[k] = d * steps[k] - total
        largest = max(largest, abs(steps[k]))
    shift = max(bit_length(largest) - 15, np.int64(0))
    if shift > 0:
        for k in range(d):
            steps[k] = shifted(steps[k], shift)
    return shift


@kernel
def rope(x, cos, sin, out, n_heads, d_head, by, first, last):
    """Turn the pairs of tokens first..last-1; cos and sin in 2^-15, of one angle each.

    Contract: exact. 0.33 ns an element. int32 holds a cos - b sin, as turning lengthens no pair:
    2^15 sqrt(2) 2^15 is the most.
    """
    half, d, (low, high, mode, m, t) = d_head // 2, n_heads * d_head, by
    turned, c, s = np.empty(d, np.int32), np.empty(half, np.int32), np.empty(half, np.int32)
    for token in range(first, last):
        c[:], s[:] = cos[token * half : (token + 1) * half], sin[token * half : (token + 1) * half]
        given, to = x[token * d : (token + 1) * d], out[token * d : (token + 1) * d]
        for at in range(0, d, d_head):
            left, right = given[at : at + half], given[at + half : at + d_head]
            y, z = turned[at : at + half], turned[at + half : at + d_head]
            for i in range(half):
                y[i] = np.int32(left[i]) * c[i] - np.int32(right[i]) * s[i]
            for i in range(half):
                z[i] = np.int32(right[i]) * c[i] + np.int32(left[i]) * s[i]
        if mode == SINGLE:
            rescale_int32(turned, m, t, low, high, to)
        else:
            rescale_row(turned, by, to)


# -- elements --------------------------------------------------------------------------------------


@kernel
def activation(x, out, points, kind, argument_m, argument_t, by, first, last):
    """Twin of nonlinear.gate: x g(x) for kind 0, tanh for 1; relu for 2.

    Contract: exact. 3.0 ns an element.
    """
    room, sizes_room = np.empty(PART, np.int64), np.empty(PART, np.int64)
    ends = np.empty(2 * PART, np.int64)
    turn = np.int64(0) if kind == 1 else ONE << 15  # g(-x) is turn - g(x)
    for start in range(first, last, PART):
        given, to = x[start : min(start + PART, last)], out[start : min(start + PART, last)]
        part, g = room[: len(to)], sizes_room[: len(to)]
        if kind == 2:
            for i in range(len(to)):
                part[i] = max(np.int64(given[i]), np.int64(0))
        else:
            for i in range(len(to)):
                part[i] = shifted(np.int64(given[i]) * argument_m, argument_t)
                g[i] = min(abs(part[i]), np.int64(16 << ARGUMENT_BITS))  # the table ends at 16
            interpolate_row(points, g, ends, ARGUMENT_BITS - 7, 1)
            for i in range(len(to)):
                of_sign = g[i] if part[i] >= 0 else turn - g[i]
                part[i] = of_sign if kind == 1 else given[i] * of_sign
        rescale_row(part, by, to)


@kernel
def lookup(x, values, out, low, first, last):
    """Read the results of a function of 8-bit steps, values[x & 255], none below low.

    Contract: exact. 0.05 ns an element where registers hold a table of bytes (VBMI), else 0.3.
    """
    start = _look_up_many(x, values, out, low, first, last)
    for i in range(start, last):
        out[i] = values[x[i] & 255]


if HAS_BYTE_TABLES:

    @kernel
    def _look_up_many(x, values, out, low, first, last):
        """Read results 64 at a time; return where the rest begins."""
        table = np.empty(256, np.uint8)
        for i in range(256):
            table[i] = np.uint8(values[i] - low)  # of 8 bits too, so 255 at most
        a, b, c, d = vector1(table, 0), vector1(table, 64), vector1(table, 128), vector1(table, 192)
        for i in range(first, last - 63, 64):
            look_up64(a, b, c, d, x, i, np.int16(low), out)
        return first + max(last - first, 0) // 64 * 64

else:

    @kernel
    def _look_up_many(x, values, out, low, first, last):
        """Read none."""
        return first


@kernel
def add(x, y, out, m_y, by, first, last):
    """Twin of fixed_point.requantize_sum; m of `by` is that of x.

    Contract: exact. 0.25 ns an element.
    """
    low, high, _, m_x, t = by
    a, b, to = x[first:last], y[first:last], out[first:last]
    for i in range(len(to)):
        total = np.int64(a[i]) * m_x + np.int64(b[i]) * m_y
        to[i] = clip(shifted(total, t), low, high)


@kernel
def mul(x, y, out, by, first, last):
    """Multiply elements and rescale. Contract: exact. 1.2 ns an element."""
    part = np.empty(PART, np.int64)
    for start in range(first, last, PART):
        n = min(PART, last - start)
        a, b = x[start : start + n], y[start : start + n]
        for i in range(n):
            part[i] = np.int64(a[i]) * np.int64(b[i])
        rescale_row(part, by, out[start : start + n])


# -- decisions -------------------------------------------------------------------------------------


@kernel
def likeliest(x):
    """Return the lowest index of the largest element. Contract: exact."""
    largest = x[0]
    for i in range(len(x)):
        largest = max(largest, x[i])
    at = 0
    while x[at] != largest:
        at += 1
    return at
