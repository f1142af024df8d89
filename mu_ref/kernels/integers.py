"""Integer twins of `mu_ref/quantize/fixed_point.py`, `nonlinear.py` and `mu_ref/ops/integer.py`.

Values are int16 steps q - z, one type for 8 and 16 bits. Tensors lie as in `floats.py`, and the
functions work on ranges in the same way. Everything is exact: the integers are those of the
reference executor. Loops are kept free of branches, so that the compiler can use vectors.
"""

import numba
import numpy as np

from mu_ref.kernels.simd import i32_zeros, pairs4, sum4

__all__ = [
    "DOUBLE",
    "EVEN",
    "SINGLE",
    "activation",
    "add",
    "lookup",
    "mix",
    "mul",
    "norm",
    "probabilities",
    "rescale",
    "rescale_channels",
    "rescale_row",
    "rope",
    "scores",
]

SINGLE, DOUBLE, EVEN = range(3)
ARGUMENT_BITS = 16
ONE = np.int64(1)
SHORTS = 32  # int16 in a vector
PART = 128  # keys, or features, whose products with one byte int32 holds


# -- numbers ---------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def clip(x, low, high):
    """x, not below low and not above high."""
    return min(max(x, low), high)


@numba.njit(cache=True, nogil=True)
def shifted(x, t):
    """floor(x / 2^t + 1/2) for t in 1..62."""
    return (x + (ONE << (t - ONE))) >> t


@numba.njit(cache=True, nogil=True)
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
    shift = 31 - t
    low, high = np.int64(-(2**31)), np.int64(2**31 - 1)
    left = clip(acc << max(shift, 0), low, high)
    high_part = high if left == low and m == low else shifted(left * m, 31)
    size = shifted(abs(high_part), -shift) if shift < 0 else abs(high_part)
    return -size if high_part < 0 else size


@numba.njit(cache=True, nogil=True)
def rescale_row(sums, m, t, mode, low, high, out):
    """Write rescaled sums, with one multiplier. Contract: exact."""
    if mode == SINGLE:
        for i in range(len(out)):
            out[i] = clip(shifted(sums[i] * m, t), low, high)
    else:
        for i in range(len(out)):
            out[i] = clip(rescale(sums[i], m, t, mode), low, high)


@numba.njit(cache=True, nogil=True)
def rescale_channels(sums, m, t, mode, low, high, out):
    """Write rescaled sums, each with the multiplier of its channel. Contract: exact.

    m is int32 and sums may be int32 or int64: the compiler has a faster product for the first.
    """
    if mode == SINGLE:
        for i in range(len(out)):
            out[i] = clip(shifted(np.int64(sums[i]) * np.int64(m[i]), t[i]), low, high)
    else:
        for i in range(len(out)):
            y = rescale(np.int64(sums[i]), np.int64(m[i]), t[i], mode)
            out[i] = clip(y, low, high)


@numba.njit(cache=True, nogil=True)
def interpolate(points, x, fraction_bits, drop_bits):
    """Twin of tables.interpolate. Contract: exact."""
    i = min(x >> fraction_bits, np.int64(len(points) - 2))
    rest = x - (i << fraction_bits)
    total = (points[i] << fraction_bits) + (points[i + 1] - points[i]) * rest
    shift = fraction_bits + drop_bits
    return (total + (ONE << (shift - 1))) >> shift


@numba.njit(cache=True, nogil=True)
def bit_length(x):
    """Bits of x >= 1."""
    n = np.int64(0)
    while x:
        x >>= 1
        n += 1
    return n


# -- rows ------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def norm(x, gain, bias, out, rsqrt, d, layer, eps, m, t, low, high, first, last):
    """Normalise rows first..last-1. Contract: exact. bias is empty where there is none."""
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
    """Twin of nonlinear.center, in place; returns the shift. Contract: exact."""
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
    """Turn the pairs of tokens first..last-1; cos and sin in 2^-15. Contract: exact."""
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


@numba.njit(cache=True, nogil=True)
def split_bytes(x, high, low):
    """Write x >> 8 and x & 255, so that products with 16 bits fit in int32 sums."""
    for i in range(len(x)):
        high[i] = x[i] >> 8
        low[i] = x[i] & 255


@numba.njit(cache=True, nogil=True)
def scores(
    q, k, head_of, out, n_heads, n_kv, n_query, n_key, room, d_head, narrow,
    m, t, mode, low, high, first, last,
):  # fmt: skip
    """Write q · k for each key; a row is (batch, head, query). Contract: exact.

    With narrow, q and k have 8 bits. q is filled up with zeros to whole vectors, so up to 31
    elements behind a key are read and count nothing: k must go on that far.
    """
    d = -(-d_head // SHORTS) * SHORTS
    tops, rests = np.zeros(d, np.int16), np.zeros(d, np.int16)
    dots = np.empty(n_key + 3, np.int64)
    for row in range(first, last):
        batch, head, query = row // (n_heads * n_query), row // n_query % n_heads, row % n_query
        at = ((batch * n_query + query) * n_heads + head) * d_head
        start, stride = (batch * room * n_kv + head_of[head]) * d_head, n_kv * d_head
        if d <= PART:
            if narrow:
                rests[:d_head] = q[at : at + d_head]
            else:
                split_bytes(q[at : at + d_head], tops, rests)
            for j in range(0, n_key, 4):
                step = stride if j + 4 <= n_key else 0  # fewer than four left: one by one
                for i in range(j, min(j + 4, n_key), 4 if step else 1):
                    top, rest = i32_zeros(), i32_zeros()
                    for c in range(0, d, SHORTS):
                        if not narrow:
                            top = pairs4(top, tops, c, k, start + i * stride + c, step)
                        rest = pairs4(rest, rests, c, k, start + i * stride + c, step)
                    a, b = sum4(top), sum4(rest)
                    dots[i] = (np.int64(a[0]) << 8) + b[0]
                    if step:
                        dots[i + 1] = (np.int64(a[1]) << 8) + b[1]
                        dots[i + 2] = (np.int64(a[2]) << 8) + b[2]
                        dots[i + 3] = (np.int64(a[3]) << 8) + b[3]
        else:
            for j in range(n_key):
                dots[j] = 0
                for c in range(d_head):
                    dots[j] += np.int64(q[at + c]) * np.int64(k[start + j * stride + c])
        rescale_row(dots, m, t, mode, low, high, out[row * n_key : (row + 1) * n_key])


@numba.njit(cache=True, nogil=True)
def probabilities(x, mask, out, exp2, m, t, bits, low, high, n_heads, n_query, n_key, first, last):
    """Twin of nonlinear.exp2_weights and nonlinear.probabilities. Contract: exact.

    The quotient is taken in float64: numerator and sum are below 2^53 and the quotient below 2^16,
    so its rounding (2^-53 of it) is less than its distance to the next integer (1 / sum).
    """
    weights = np.empty(n_key, np.int64)
    for row in range(first, last):
        batch, query = row // (n_heads * n_query), row % n_query
        at = (batch * n_query + query) * n_key
        seen = mask[at : at + n_key]
        given, to = x[row * n_key : (row + 1) * n_key], out[row * n_key : (row + 1) * n_key]
        largest = np.int64(-(2**16))
        for j in range(n_key):
            largest = max(largest, np.int64(given[j]) if seen[j] else np.int64(-(2**16)))
        total = np.int64(0)
        for j in range(n_key):
            below = largest - given[j] if seen[j] else np.int64(0)
            u = min(shifted(below * m, t), np.int64(31 << ARGUMENT_BITS))
            e = interpolate(exp2, u & ((1 << ARGUMENT_BITS) - 1), ARGUMENT_BITS - 8, 0)
            weights[j] = e >> (u >> ARGUMENT_BITS) if seen[j] else np.int64(0)
            total += weights[j]
        divisor = np.float64(max(total, ONE))
        for j in range(n_key):
            numerator = np.float64((weights[j] << bits) + (total >> 1))
            to[j] = clip(np.int64(numerator / divisor), low, high)


@numba.njit(cache=True, nogil=True)
def mix(
    p, v, head_of, out, n_heads, n_kv, n_query, n_key, room, d_head, narrow,
    m, t, mode, low, high, first, last,
):  # fmt: skip
    """Sum p_j v_j; a row is (batch, head, query). Contract: exact.

    With narrow, p and v have 8 bits.
    """
    sums = np.empty(d_head, np.int64)
    tops, rests = np.empty(d_head, np.int32), np.empty(d_head, np.int32)
    for row in range(first, last):
        batch, head, query = row // (n_heads * n_query), row // n_query % n_heads, row % n_query
        to = ((batch * n_query + query) * n_heads + head) * d_head
        start, stride = (batch * room * n_kv + head_of[head]) * d_head, n_kv * d_head
        sums[:] = 0
        for part in range(0, n_key, PART):
            tops[:] = 0
            rests[:] = 0
            for j in range(part, min(part + PART, n_key)):
                weight, value = np.int32(p[row * n_key + j]), v[start + j * stride :]
                top, rest = np.int32(weight >> 8), np.int32(weight & 255)
                if narrow:
                    top, rest = np.int32(0), weight
                else:
                    for c in range(d_head):
                        tops[c] += np.int32(top * np.int32(value[c]))
                for c in range(d_head):
                    rests[c] += np.int32(rest * np.int32(value[c]))
            for c in range(d_head):
                sums[c] += (np.int64(tops[c]) << 8) + rests[c]
        rescale_row(sums, m, t, mode, low, high, out[to : to + d_head])


# -- elements --------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def activation(x, out, points, kind, argument_m, argument_t, m, t, mode, low, high, first, last):
    """Twin of nonlinear.gate: x g(x) for kind 0, tanh for 1; relu for 2. Contract: exact."""
    part = np.empty(PART, np.int64)
    for start in range(first, last, PART):
        n = min(PART, last - start)
        given = x[start : start + n]
        if kind == 2:
            for i in range(n):
                part[i] = max(np.int64(given[i]), np.int64(0))
        else:
            turn = np.int64(0) if kind == 1 else ONE << 15  # g(-x) is turn - g(x)
            for i in range(n):
                steps = np.int64(given[i])
                argument = shifted(steps * argument_m, argument_t)
                size = min(abs(argument), np.int64(16 << ARGUMENT_BITS))
                g = interpolate(points, size, ARGUMENT_BITS - 7, 1)
                g = g if argument >= 0 else turn - g
                part[i] = g if kind == 1 else steps * g
        rescale_row(part, m, t, mode, low, high, out[start : start + n])


@numba.njit(cache=True, nogil=True)
def lookup(x, values, out, first, last):
    """Read the results of a function of 8-bit values: values[255 + x]. Contract: exact."""
    given, to = x[first:last], out[first:last]
    for i in range(len(to)):
        to[i] = values[np.int32(given[i]) + 255]


@numba.njit(cache=True, nogil=True)
def add(x, y, out, m_x, m_y, t, low, high, first, last):
    """Twin of fixed_point.requantize_sum. Contract: exact."""
    a, b, to = x[first:last], y[first:last], out[first:last]
    for i in range(len(to)):
        total = np.int64(a[i]) * m_x + np.int64(b[i]) * m_y
        to[i] = clip(shifted(total, t), low, high)


@numba.njit(cache=True, nogil=True)
def mul(x, y, out, m, t, mode, low, high, first, last):
    """Multiply elements and rescale. Contract: exact."""
    part = np.empty(PART, np.int64)
    for start in range(first, last, PART):
        n = min(PART, last - start)
        a, b = x[start : start + n], y[start : start + n]
        for i in range(n):
            part[i] = np.int64(a[i]) * np.int64(b[i])
        rescale_row(part, m, t, mode, low, high, out[start : start + n])
