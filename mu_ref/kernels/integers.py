"""Integer twins of `mu_ref/integers/nonlinear.py` and `mu_ref/ops/integer.py`, on flat arrays.

Values are int16 steps q - z. Tensors lie as in `floats.py`, and the functions work on ranges in the
same way. Everything is exact: the integers are those of the reference executor. `by` is how sums
become the steps of a site, (low, high, mode, m, t); see `rounding.rescale_row`.
"""

import numpy as np

from mu_ref.kernels.compiled import kernel
from mu_ref.kernels.machine import places
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
from mu_ref.kernels.vector.simd import mix_i16, pairs4, store4, sums4, zeros4

__all__ = [
    "activation", "add", "center", "likeliest", "lookup", "mix", "mul", "norm", "probabilities",
    "rope", "scores", "split_bytes",
]  # fmt: skip

SHORTS = 32  # int16 in a vector
FEATURES = 64  # that are mixed together


# -- rows ------------------------------------------------------------------------------------------


@kernel
def norm(x, gain, bias, out, rsqrt, d, layer, eps, by, first, last):
    """Normalise rows first..last-1.

    Contract: exact. 1.5 ns an element. bias is empty where there is none.
    """
    low, high, _, m, t = by
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
        for k in range(d):
            steps[k] = shifted(steps[k] * gain[k] * row_m, row_t)
        if layer:
            for k in range(d):
                steps[k] = shifted(steps[k] + bias[k], 8)
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
            rescale_row(turned, by, out[at : at + d_head])


# -- attention: a row is (batch, head, query) ------------------------------------------------------


@kernel
def split_bytes(x, high, low):
    """Write x >> 8 and x & 255, so that products with 16 bits fit int32. Contract: exact."""
    for i in range(len(x)):
        high[i] = x[i] >> 8
        low[i] = x[i] & 255


@kernel
def scores(
    q, k, head_of, out, n_heads, n_kv, n_query, n_key, room, d_head, narrow, by, first, last
):
    """Write q · k for each key. Contract: exact. 26 ns an element.

    With narrow, q and k have 8 bits. q is filled up with zeros to whole vectors, so up to 31
    elements behind a key are read and count nothing: k must go on that far.
    """
    d = -(-d_head // SHORTS) * SHORTS
    tops, rests = np.zeros(d, np.int16), np.zeros(d, np.int16)
    dots = np.empty(n_key, np.int64)
    of_tops, of_rests = np.zeros(n_key + 3, np.int32), np.zeros(n_key + 3, np.int32)
    for row in range(first, last):
        at, start, stride = places(row, head_of, n_heads, n_kv, n_query, room, d_head)
        if narrow:
            rests[:d_head] = q[at : at + d_head]
        else:
            split_bytes(q[at : at + d_head], tops, rests)
        dots[:] = 0
        for some in range(0, d, PART):  # int32 holds the products of one part
            for j in range(0, n_key, 4):
                step = stride if j + 4 <= n_key else 0  # fewer than four left: one by one
                for i in range(j, min(j + 4, n_key), 4 if step else 1):
                    top, rest = zeros4(of_tops), zeros4(of_rests)
                    for c in range(some, min(some + PART, d), SHORTS):
                        if not narrow:
                            top = pairs4(top, tops, c, k, start + i * stride + c, step)
                        rest = pairs4(rest, rests, c, k, start + i * stride + c, step)
                    if not narrow:
                        sums4(of_tops, i, top)
                    sums4(of_rests, i, rest)
            for j in range(n_key):
                dots[j] += (np.int64(of_tops[j]) << 8) + of_rests[j]
        rescale_row(dots, by, out[row * n_key : (row + 1) * n_key])


@kernel
def probabilities(x, mask, out, exp2, bits, by, n_heads, n_query, n_key, first, last):
    """Twin of nonlinear.exp2_weights and nonlinear.probabilities.

    Contract: exact. 3.0 ns an element.

    The quotient is taken in float64: numerator and sum are below 2^53 and the quotient below 2^16,
    so its rounding (2^-53 of it) is less than its distance to the next integer (1 / sum).
    """
    low, high, _, m, t = by
    weights, shifts = np.empty(n_key, np.int64), np.empty(n_key, np.int64)
    ends = np.empty(2 * n_key, np.int64)
    for row in range(first, last):
        batch, query = row // (n_heads * n_query), row % n_query
        at = (batch * n_query + query) * n_key
        seen = mask[at : at + n_key]
        given, to = x[row * n_key : (row + 1) * n_key], out[row * n_key : (row + 1) * n_key]
        largest = np.int64(-(2**16))
        for j in range(n_key):
            largest = max(largest, np.int64(given[j]) if seen[j] else np.int64(-(2**16)))
        for j in range(n_key):
            below = largest - given[j] if seen[j] else np.int64(0)
            u = min(shifted(below * m, t), np.int64(31 << ARGUMENT_BITS))
            shifts[j] = u >> ARGUMENT_BITS
            weights[j] = u & ((1 << ARGUMENT_BITS) - 1)
        interpolate_row(exp2, weights, ends, ARGUMENT_BITS - 8, 0)
        total = np.int64(0)
        for j in range(n_key):
            weights[j] = weights[j] >> shifts[j] if seen[j] else np.int64(0)
            total += weights[j]
        divisor = np.float64(max(total, ONE))  # a row of padding sees no key
        for j in range(n_key):
            numerator = np.float64((weights[j] << bits) + (total >> 1))
            to[j] = clip(np.int64(numerator / divisor), low, high)


@kernel
def mix(p, v, head_of, out, n_heads, n_kv, n_query, n_key, room, d_head, narrow, by, first, last):
    """Sum p_j v_j. Contract: exact. 2.2 ns an element.

    With narrow, p and v have 8 bits. Up to 63 elements behind a value are read and count nothing.
    """
    n_pairs = -(-n_key // 2) * 2  # a last key without partner meets a weight of 0
    tops, rests = np.zeros(n_pairs, np.int16), np.zeros(n_pairs, np.int16)
    part, sums = np.empty(FEATURES, np.int32), np.empty(FEATURES, np.int64)
    for row in range(first, last):
        to, start, stride = places(row, head_of, n_heads, n_kv, n_query, room, d_head)
        if narrow:
            rests[:n_key] = p[row * n_key : (row + 1) * n_key]
        else:
            split_bytes(p[row * n_key : (row + 1) * n_key], tops, rests)
        for c in range(0, d_head, FEATURES):
            sums[:] = 0
            for some in range(0, n_key, PART):  # int32 holds the products of one part
                top, rest = zeros4(part), zeros4(part)
                for j in range(some, min(some + PART, n_key), 2):
                    at, other = start + j * stride + c, start + min(j + 1, n_key - 1) * stride + c
                    if not narrow:
                        top = mix_i16(top, tops, j, v, at, other)
                    rest = mix_i16(rest, rests, j, v, at, other)
                store4(part, 0, 16, top)
                for i in range(FEATURES):
                    sums[i] += np.int64(part[i]) << 8
                store4(part, 0, 16, rest)
                for i in range(FEATURES):
                    sums[i] += part[i]
            n = min(FEATURES, d_head - c)
            rescale_row(sums[:n], by, out[to + c : to + c + n])


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
def lookup(x, values, out, first, last):
    """Read the results of a function of 8-bit values: values[255 + x].

    Contract: exact. 1.0 ns an element.
    """
    given, to = x[first:last], out[first:last]
    for i in range(len(to)):
        to[i] = values[np.int32(given[i]) + 255]


@kernel
def add(x, y, out, m_y, by, first, last):
    """Twin of fixed_point.requantize_sum; m of `by` is that of x.

    Contract: exact. 1.0 ns an element.
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
