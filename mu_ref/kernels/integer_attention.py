"""Integer attention, as `integers.py` has the rest: twins of `mu_ref/integers/nonlinear.py`.

A row is (batch, head, query). For many queries of a head `products/heads.py` is faster.
"""

import numpy as np

from mu_ref.kernels.compiled import kernel
from mu_ref.kernels.machine import places
from mu_ref.kernels.rounding import (
    ARGUMENT_BITS,
    ONE,
    PART,
    clip,
    interpolate_row,
    rescale_row,
    shifted,
)  # fmt: skip
from mu_ref.kernels.vector.simd import mix_i16, pairs4, store4, sums4, zeros4

__all__ = ["exp2_weights", "mix", "probabilities", "scores", "split_bytes"]

I64 = np.int64
SHORTS = 32  # int16 in a vector
DISTANCES = 256  # of two scores of 8 bits
FEATURES = 64  # that are mixed together


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
def probabilities(x, mask, out, exp2, bits, narrow, by, n_heads, n_query, n_key, first, last):
    """Twin of nonlinear.exp2_weights and nonlinear.probabilities.

    Contract: exact. 3.0 ns an element; 1.1 where narrow: scores have 8 bits then, and the weights
    of all 256 distances from the largest are known before many scores are looked at.

    The quotient is taken in float64: numerator and sum are below 2^53 and the quotient below 2^16,
    so its rounding (2^-53 of it) is less than its distance to the next integer (1 / sum).
    """
    low, high, _, m, t = by
    n_room = max(n_key, DISTANCES)
    weights, shifts, ends = np.empty(n_room, I64), np.empty(n_room, I64), np.empty(2 * n_room, I64)
    known = np.empty(DISTANCES, np.int32)
    narrow = narrow and (last - first) * n_key > DISTANCES
    if narrow:
        for i in range(DISTANCES):
            weights[i] = i
        exp2_weights(weights[:DISTANCES], exp2, m, t, shifts, ends)
        for i in range(DISTANCES):
            known[i] = weights[i]
    weights = weights[:n_key]
    for row in range(first, last):
        batch, query = row // (n_heads * n_query), row % n_query
        at = (batch * n_query + query) * n_key
        seen = mask[at : at + n_key]
        given, to = x[row * n_key : (row + 1) * n_key], out[row * n_key : (row + 1) * n_key]
        largest = np.int64(-(2**16))
        for j in range(n_key):
            largest = max(largest, np.int64(given[j]) if seen[j] else largest)
        if narrow:
            for j in range(n_key):
                weights[j] = known[(largest - given[j]) & 255]
        else:
            for j in range(n_key):
                weights[j] = largest - given[j] if seen[j] else 0
            exp2_weights(weights, exp2, m, t, shifts, ends)
        total = np.int64(0)
        for j in range(n_key):
            weights[j] = weights[j] if seen[j] else 0
            total += weights[j]
        divisor = np.float64(max(total, ONE))  # a row of padding sees no key
        for j in range(n_key):
            numerator = np.float64((weights[j] << bits) + (total >> 1))
            to[j] = clip(np.int64(numerator / divisor), low, high)


@kernel
def exp2_weights(below, exp2, m, t, shifts, ends):
    """Replace distances from the largest score by their weights, 2^30 for 0.

    Contract: exact. 2 ns an element. shifts has room for as many, ends for twice as many.
    """
    for j in range(len(below)):
        u = min(shifted(below[j] * m, t), 31 << ARGUMENT_BITS)
        shifts[j] = u >> ARGUMENT_BITS
        below[j] = u & ((1 << ARGUMENT_BITS) - 1)
    interpolate_row(exp2, below, ends, ARGUMENT_BITS - 8, 0)
    for j in range(len(below)):
        below[j] >>= shifts[j]


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
