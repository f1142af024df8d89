"""Integer twins of attention in `mu_ref/ops/integer.py`: scores, probabilities, mix.

A row is (batch, head, query). Keys and values lie as in `floats.py`. Everything is exact. 16 bits
are taken as two bytes, so that the sums of products with 16 bits fit int32.
"""

import numba
import numpy as np

from mu_ref.kernels.rounding import (
    ARGUMENT_BITS,
    ONE,
    PART,
    clip,
    interpolate_row,
    rescale_row,
    shifted,
)
from mu_ref.kernels.simd import mix_i16, pairs4, store4, sums4, zeros4

__all__ = ["mix", "probabilities", "scores"]

SHORTS = 32  # int16 in a vector
FEATURES = 64  # that are mixed together


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
    """Write q · k for each key; a row is (batch, head, query). Contract: exact. 26 ns an element.

    With narrow, q and k have 8 bits. q is filled up with zeros to whole vectors, so up to 31
    elements behind a key are read and count nothing: k must go on that far.
    """
    d = -(-d_head // SHORTS) * SHORTS
    tops, rests = np.zeros(d, np.int16), np.zeros(d, np.int16)
    dots = np.empty(n_key, np.int64)
    of_tops, of_rests = np.zeros(n_key + 3, np.int32), np.zeros(n_key + 3, np.int32)
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
                    top, rest = zeros4(np.int32(0)), zeros4(np.int32(0))
                    for c in range(0, d, SHORTS):
                        if not narrow:
                            top = pairs4(top, tops, c, k, start + i * stride + c, step)
                        rest = pairs4(rest, rests, c, k, start + i * stride + c, step)
                    sums4(of_tops, i, top)
                    sums4(of_rests, i, rest)
            for j in range(n_key):
                dots[j] = (np.int64(of_tops[j]) << 8) + of_rests[j]
        else:
            for j in range(n_key):
                dots[j] = 0
                for c in range(d_head):
                    dots[j] += np.int64(q[at + c]) * np.int64(k[start + j * stride + c])
        rescale_row(dots, m, t, mode, low, high, out[row * n_key : (row + 1) * n_key])


@numba.njit(cache=True, nogil=True)
def probabilities(x, mask, out, exp2, m, t, bits, low, high, n_heads, n_query, n_key, first, last):
    """Twin of nonlinear.exp2_weights and nonlinear.probabilities.

    Contract: exact. 3.0 ns an element.

    The quotient is taken in float64: numerator and sum are below 2^53 and the quotient below 2^16,
    so its rounding (2^-53 of it) is less than its distance to the next integer (1 / sum).
    """
    weights, shifts, ends = (
        np.empty(n_key, np.int64), np.empty(n_key, np.int64), np.empty(2 * n_key, np.int64),
    )  # fmt: skip
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
        divisor = np.float64(max(total, ONE))
        for j in range(n_key):
            numerator = np.float64((weights[j] << bits) + (total >> 1))
            to[j] = clip(np.int64(numerator / divisor), low, high)


@numba.njit(cache=True, nogil=True)
def mix(
    p, v, head_of, out, n_heads, n_kv, n_query, n_key, room, d_head, narrow,
    m, t, mode, low, high, first, last,
):  # fmt: skip
    """Sum p_j v_j; a row is (batch, head, query). Contract: exact. 2.2 ns an element.

    With narrow, p and v have 8 bits. Up to 63 elements behind a value are read and count nothing.
    """
    n_pairs = -(-n_key // 2) * 2  # a last key without partner meets a weight of 0
    tops, rests = np.zeros(n_pairs, np.int16), np.zeros(n_pairs, np.int16)
    part, sums = np.empty(FEATURES, np.int32), np.empty(FEATURES, np.int64)
    for row in range(first, last):
        batch, head, query = row // (n_heads * n_query), row // n_query % n_heads, row % n_query
        to = ((batch * n_query + query) * n_heads + head) * d_head
        start, stride = (batch * room * n_kv + head_of[head]) * d_head, n_kv * d_head
        if narrow:
            rests[:n_key] = p[row * n_key : (row + 1) * n_key]
        else:
            split_bytes(p[row * n_key : (row + 1) * n_key], tops, rests)
        for c in range(0, d_head, FEATURES):
            sums[:] = 0
            for some in range(0, n_key, PART):
                top, rest = zeros4(np.int32(0)), zeros4(np.int32(0))
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
            rescale_row(sums[:n], m, t, mode, low, high, out[to + c : to + c + n])
