"""Float twins of the operations of `mu_ref/ops/reference.py`, on flat arrays.

Tensors lie token by token: [batch, n_tok, heads * d_head]; `room` is how many tokens a row of the
batch has space for. Every function works on a range of rows, so that threads can share them; no sum
crosses a row, so the range changes no result.
"""

import math

import numpy as np

from mu_ref.kernels.compiled import dividing, kernel
from mu_ref.kernels.machine import places
from mu_ref.kernels.products.packing import BIG
from mu_ref.kernels.vector.simd import fma4, mix_f32, store4, sums4, zeros4

__all__ = ["KINDS", "NORMS", "activation", "likeliest", "mix", "norm", "rope", "scores", "softmax"]

FLOATS = 16  # in a vector
PART = 256  # elements that are worked on together
KINDS = ("gelu_tanh", "gelu", "silu", "relu", "tanh")
NORMS = ("rms", "rms_plus_one", "layer")
UNSEEN = np.float32(-3e38)  # below every score, and e to its power is 0


@dividing
def norm(x, gain, bias, out, d, kind, eps, first, last):
    """Normalise rows first..last-1 of d features; kind is a place in NORMS.

    Contract: bound. 0.8 ns an element.
    """
    work, sums = np.empty(d, np.float32), np.empty(FLOATS)
    for row in range(first, last):
        given, to = x[row * d : (row + 1) * d], out[row * d : (row + 1) * d]
        mean = np.float32(total(given, sums) / d) if kind == 2 else np.float32(0)  # 2: "layer"
        for k in range(d):
            work[k] = (given[k] - mean) * (given[k] - mean)
        root = np.sqrt(np.float32(total(work, sums) / d) + eps)
        for k in range(d):
            g = gain[k] + np.float32(1) if kind == 1 else gain[k]
            y = (given[k] - mean) / root * g
            to[k] = y + bias[k] if kind == 2 else y


@kernel
def total(x, sums):
    """Sum in float64: number k goes to sum k mod 16, in `sums`. Contract: bound.

    One sum would wait for itself at every number; sixteen fill a vector.
    """
    whole = len(x) // FLOATS * FLOATS
    sums[:] = 0
    for k in range(0, whole, FLOATS):
        for lane in range(FLOATS):
            sums[lane] += x[k + lane]
    for k in range(whole, len(x)):
        sums[k - whole] += x[k]
    result = 0.0
    for lane in range(FLOATS):
        result += sums[lane]
    return result


@kernel
def rope(x, cos, sin, out, n_heads, d_head, first, last):
    """Turn the pairs (x_i, x_{i+d/2}) of tokens first..last-1. Contract: exact. 1.3 ns an element.

    cos and sin are [n_tok, d_head / 2], one row for each token.
    """
    half = d_head // 2
    for token in range(first, last):
        c, s = cos[token * half : (token + 1) * half], sin[token * half : (token + 1) * half]
        for head in range(n_heads):
            at, end = (token * n_heads + head) * d_head, (token * n_heads + head + 1) * d_head
            a, b = x[at : at + half], x[at + half : end]
            left, right = out[at : at + half], out[at + half : end]
            for i in range(half):
                left[i] = a[i] * c[i] - b[i] * s[i]
            for i in range(half):
                right[i] = b[i] * c[i] + a[i] * s[i]


@kernel
def scores(q, k, head_of, out, n_heads, n_kv, n_query, n_key, room, d_head, first, last):
    """Write q · k for each key; a row is (batch, head, query).

    Contract: bound. 18 ns an element.
    """
    dots = np.empty(n_key + 3, np.float32)
    for row in range(first, last):
        at, start, stride = places(row, head_of, n_heads, n_kv, n_query, room, d_head)
        if d_head % FLOATS == 0:
            for j in range(0, n_key, 4):
                step = stride if j + 4 <= n_key else 0  # fewer than four left: one by one
                for i in range(j, min(j + 4, n_key), 4 if step else 1):
                    total = zeros4(dots)
                    for c in range(0, d_head, FLOATS):
                        total = fma4(total, q, at + c, k, start + i * stride + c, step)
                    sums4(dots, i, total)
            out[row * n_key : (row + 1) * n_key] = dots[:n_key]
        else:
            for j in range(n_key):  # a vector would take in numbers of the next key
                dot = np.float32(0)
                for c in range(d_head):
                    dot += q[at + c] * k[start + j * stride + c]
                out[row * n_key + j] = dot


@kernel
def exp(x, powers):
    """Replace x by e^x, up to 2 ulp; below -87, where float32 has no normal numbers left, by 0.

    e^x = 2^n e^r with n = round(x / ln 2), so that |r| <= ln 2 / 2 and a polynomial does for e^r.
    `powers` is room for int32, as many as x has numbers: 2^n is written as its bits. No branch and
    no call, so that the compiler can use vectors.

    Source:
        Cephes, expf: the polynomial and the two parts of ln 2.
    """
    one, half = np.float32(1), np.float32(0.5)
    low, high, big = np.float32(-87), np.float32(88), BIG
    for i in range(len(x)):
        v = min(max(x[i], low), high)
        n = (v * np.float32(1.44269504) + big) - big
        powers[i] = (np.int32(n) + np.int32(127)) << np.int32(23)
        r = (v - n * np.float32(0.693359375)) - n * np.float32(-2.12194440e-4)
        y = np.float32(1.9875691500e-4)
        y = y * r + np.float32(1.3981999507e-3)
        y = y * r + np.float32(8.3334519073e-3)
        y = y * r + np.float32(4.1665795894e-2)
        y = y * r + np.float32(1.6666665459e-1)
        y = y * r + half
        y = (y * r * r + r) + one
        x[i] = y if x[i] >= low else np.float32(0)
    scales = powers.view(np.float32)
    for i in range(len(x)):
        x[i] = x[i] * scales[i]


@dividing
def softmax(x, mask, out, n_heads, n_query, n_key, first, last):
    """Softmax of x where mask [batch, query, key] is not 0; else 0.

    Contract: bound. 2.8 ns an element.
    """
    powers, sums = np.empty(n_key, np.int32), np.empty(FLOATS)
    for row in range(first, last):
        batch, query = row // (n_heads * n_query), row % n_query
        at = (batch * n_query + query) * n_key
        seen = mask[at : at + n_key]
        given, weights = x[row * n_key : (row + 1) * n_key], out[row * n_key : (row + 1) * n_key]
        for j in range(n_key):
            weights[j] = given[j] if seen[j] else UNSEEN
        largest = np.float32(0.5) * UNSEEN  # more than what is not seen, which so becomes 0
        for j in range(n_key):
            largest = max(largest, weights[j])
        for j in range(n_key):
            weights[j] = weights[j] - largest
        exp(weights, powers)
        whole = max(np.float32(total(weights, sums)), np.float32(1e-30))  # 0: sees nothing
        for j in range(n_key):
            weights[j] = weights[j] / whole


@kernel
def mix(p, v, head_of, out, n_heads, n_kv, n_query, n_key, room, d_head, first, last):
    """Sum p_j v_j, first key to last; a row is (batch, head, query).

    Contract: bound. 1.4 ns an element.

    Up to 63 elements behind a value are read and count nothing.
    """
    features = np.empty(4 * FLOATS, np.float32)
    for row in range(first, last):
        to, start, stride = places(row, head_of, n_heads, n_kv, n_query, room, d_head)
        for c in range(0, d_head, len(features)):
            total = zeros4(features)
            for j in range(n_key):
                total = mix_f32(total, p, row * n_key + j, v, start + j * stride + c, FLOATS)
            store4(features, 0, FLOATS, total)
            n = min(len(features), d_head - c)
            out[to + c : to + c + n] = features[:n]


@dividing
def activation(x, out, kind, scale, first, last):
    """Apply KINDS[kind] to elements; "tanh" is the soft-cap, scale * tanh(x / scale).

    gelu_tanh is x (1 + tanh(u)) / 2 = x / (1 + e^-2u), silu is x / (1 + e^-x).

    Contract: bound. 2.6 ns an element.
    """
    if kind in (0, 2):
        _logistic(x[first:last], out[first:last], kind == 0)
        return
    half, root = np.float32(0.5), np.float32(math.sqrt(0.5))
    for i in range(first, last):
        if kind == 1:
            out[i] = half * x[i] * (np.float32(1) + math.erf(x[i] * root))
        elif kind == 3:
            out[i] = max(x[i], np.float32(0))
        else:
            out[i] = scale * math.tanh(x[i] / scale)


@dividing
def _logistic(x, out, gelu):
    """X / (1 + e^-x), or with u = sqrt(2 / pi) (x + 0.044715 x^3) in place of x / 2 in e."""
    powers, root = np.empty(PART, np.int32), np.float32(-2 * math.sqrt(2 / math.pi))
    for start in range(0, len(x), PART):
        given, to = x[start : start + PART], out[start : start + PART]
        for i in range(len(given)):
            v = given[i]
            to[i] = root * (v + np.float32(0.044715) * v * v * v) if gelu else -v
        exp(to, powers[: len(to)])
        for i in range(len(given)):
            to[i] = given[i] / (np.float32(1) + to[i])


@kernel
def likeliest(x):
    """Return the lowest index of the largest element, NaN above all. Contract: exact.

    A float32 is ordered like its size as an integer, with its sign: the compiler has vectors for
    integers only.
    """
    bits, keys = x.view(np.int32), np.empty(PART, np.int32)
    largest, at = np.int32(-(2**31)), 0
    for start in range(0, len(x), PART):
        given = bits[start : start + PART]
        most = np.int32(-(2**31))
        for i in range(len(given)):
            size = given[i] & np.int32(0x7FFFFFFF)
            signed = size if given[i] >= 0 else -size
            keys[i] = signed if size <= np.int32(0x7F800000) else np.int32(0x7FFFFFFF)
            most = max(most, keys[i])
        if most > largest:
            largest, at = most, start
            while keys[at - start] != most:
                at += 1
    return at
