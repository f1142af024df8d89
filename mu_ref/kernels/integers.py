"""Integer twins of `mu_ref/integers/nonlinear.py` and, attention apart, `mu_ref/ops/integer.py`.

Values are int16 steps q - z. Tensors lie as in `floats.py`, and the functions work on ranges in the
same way. Everything is exact: the integers are those of the reference executor.
"""

import numba
import numpy as np

from mu_ref.kernels.rounding import (
    ARGUMENT_BITS,
    ONE,
    PART,
    bit_length,
    clip,
    interpolate,
    interpolate_row,
    rescale_row,
    shifted,
)

__all__ = ["activation", "add", "center", "lookup", "mul", "norm", "rope"]


# -- rows ------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def norm(x, gain, bias, out, rsqrt, d, layer, eps, m, t, low, high, first, last):
    """Normalise rows first..last-1.

    Contract: exact. 1.5 ns an element. bias is empty where there is none.
    """
    steps = np.empty(d, np.int64)
    for row in range(first, last):
        at = row * d
        source, to = x[at : at + d], out[at : at + d]
        for k in range(d):
            steps[k] = source[k]
        shift = np.int64(0)
        if layer:
            shift = center(steps, d)
        squares = np.int64(0)
        for k in range(d):
            squares += steps[k] * steps[k]
        squares += eps >> (2 * shift)
        r = max(squares, ONE)
        half = (bit_length(r) - 31) >> 1
        mantissa = r >> (2 * half) if half > 0 else r << (-2 * half)
        root = interpolate(rsqrt, mantissa - (ONE << 30), 22, 0)
        row_m = (root * m) >> 30 if squares > 0 else np.int64(0)
        row_t = t + 15 + half
        if layer:
            row_t = max(row_t - 8, ONE)  # the bias is in 2^-8 steps of the output
        if row_t > 62:
            row_m, row_t = np.int64(0), np.int64(62)
        for k in range(d):
            steps[k] = shifted(steps[k] * gain[k] * row_m, row_t)
        if layer:
            for k in range(d):
                steps[k] = shifted(steps[k] + bias[k], 8)
        for k in range(d):
            to[k] = clip(steps[k], low, high)


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True)
def rope(x, cos, sin, out, n_heads, d_head, m, t, mode, low, high, first, last):
    """Turn the pairs of tokens first..last-1; cos and sin in 2^-15.

    Contract: exact. 0.7 ns an element.
    """
    half = d_head // 2
    turned = np.empty(d_head, np.int64)
    for token in range(first, last):
        c, s = cos[token * half : (token + 1) * half], sin[token * half : (token + 1) * half]
        for head in range(n_heads):
            at = (token * n_heads + head) * d_head
            left, right = x[at : at + half], x[at + half : at + d_head]
            for i in range(half):
                a, b = np.int64(left[i]), np.int64(right[i])
                turned[i] = a * c[i] - b * s[i]
                turned[half + i] = b * c[i] + a * s[i]
            rescale_row(turned, m, t, mode, low, high, out[at : at + d_head])


# -- elements --------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def activation(x, out, points, kind, argument_m, argument_t, m, t, mode, low, high, first, last):
    """Twin of nonlinear.gate: x g(x) for kind 0, tanh for 1; relu for 2.

    Contract: exact. 3.0 ns an element.
    """
    room, sizes_room, ends = (
        np.empty(PART, np.int64), np.empty(PART, np.int64), np.empty(2 * PART, np.int64),
    )  # fmt: skip
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
                g[i] = min(abs(part[i]), np.int64(16 << ARGUMENT_BITS))
            interpolate_row(points, g, ends, ARGUMENT_BITS - 7, 1)
            for i in range(len(to)):
                of_sign = g[i] if part[i] >= 0 else turn - g[i]
                part[i] = of_sign if kind == 1 else given[i] * of_sign
        rescale_row(part, m, t, mode, low, high, to)


@numba.njit(cache=True, nogil=True)
def lookup(x, values, out, first, last):
    """Read the results of a function of 8-bit values: values[255 + x].

    Contract: exact. 1.0 ns an element.
    """
    given, to = x[first:last], out[first:last]
    for i in range(len(to)):
        to[i] = values[np.int32(given[i]) + 255]


@numba.njit(cache=True, nogil=True)
def add(x, y, out, m_x, m_y, t, low, high, first, last):
    """Twin of fixed_point.requantize_sum. Contract: exact. 1.0 ns an element."""
    a, b, to = x[first:last], y[first:last], out[first:last]
    for i in range(len(to)):
        total = np.int64(a[i]) * m_x + np.int64(b[i]) * m_y
        to[i] = clip(shifted(total, t), low, high)


@numba.njit(cache=True, nogil=True)
def mul(x, y, out, m, t, mode, low, high, first, last):
    """Multiply elements and rescale. Contract: exact. 1.2 ns an element."""
    part = np.empty(PART, np.int64)
    for start in range(first, last, PART):
        n = min(PART, last - start)
        a, b = x[start : start + n], y[start : start + n]
        for i in range(n):
            part[i] = np.int64(a[i]) * np.int64(b[i])
        rescale_row(part, m, t, mode, low, high, out[start : start + n])
