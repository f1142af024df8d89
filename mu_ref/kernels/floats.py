"""Float twins of the operations of `mu_ref/ops/reference.py`, on flat arrays.

Tensors lie token by token: [batch, n_tok, heads * d_head]; `room` is how many tokens a row of the
batch has space for. Every function works on a range of rows, so that threads can share them; no sum
crosses a row, so the range changes no result.
"""

import math

import numba
import numpy as np

from mu_ref.kernels.linear import FLOATS
from mu_ref.kernels.simd import f32_zeros, fma4, sum4

__all__ = ["KINDS", "NORMS", "activation", "mix", "norm", "rope", "scores", "softmax"]

KINDS = ("gelu_tanh", "gelu", "silu", "relu", "tanh")
NORMS = ("rms", "rms_plus_one", "layer")


@numba.njit(cache=True, nogil=True)
def norm(x, gain, bias, out, d, kind, eps, first, last):
    """Normalise rows first..last-1 of d features; kind is a place in NORMS. Contract: bound."""
    for row in range(first, last):
        at = row * d
        mean = np.float32(0)
        if kind == 2:
            total = 0.0
            for k in range(d):
                total += x[at + k]
            mean = np.float32(total / d)
        squares = 0.0
        for k in range(d):
            difference = np.float32(x[at + k] - mean)
            squares += difference * difference
        root = np.sqrt(np.float32(squares / d) + eps)
        for k in range(d):
            g = gain[k] + np.float32(1) if kind == 1 else gain[k]
            y = (x[at + k] - mean) / root * g
            out[at + k] = y + bias[k] if kind == 2 else y


@numba.njit(cache=True, nogil=True)
def rope(x, cos, sin, out, n_heads, d_head, first, last):
    """Turn the pairs (x_i, x_{i+d/2}) of tokens first..last-1. Contract: exact.

    cos and sin are [n_tok, d_head / 2], one row for each token.
    """
    half = d_head // 2
    for token in range(first, last):
        for head in range(n_heads):
            at, turn = (token * n_heads + head) * d_head, token * half
            for i in range(half):
                a, b, c, s = x[at + i], x[at + half + i], cos[turn + i], sin[turn + i]
                out[at + i] = a * c - b * s
                out[at + half + i] = b * c + a * s


@numba.njit(cache=True, nogil=True)
def scores(q, k, head_of, out, n_heads, n_kv, n_query, n_key, room, d_head, first, last):
    """Write q · k for each key; a row is (batch, head, query). Contract: bound."""
    for row in range(first, last):
        batch, head, query = row // (n_heads * n_query), row // n_query % n_heads, row % n_query
        at = ((batch * n_query + query) * n_heads + head) * d_head
        start, stride = (batch * room * n_kv + head_of[head]) * d_head, n_kv * d_head
        if d_head % FLOATS == 0:
            for j in range(0, n_key, 4):
                step = stride if j + 4 <= n_key else 0  # fewer than four left: one by one
                for i in range(j, min(j + 4, n_key), 4 if step else 1):
                    total = f32_zeros()
                    for c in range(0, d_head, FLOATS):
                        total = fma4(total, q, at + c, k, start + i * stride + c, step)
                    values = sum4(total)
                    out[row * n_key + i] = values[0]
                    if step:
                        out[row * n_key + i + 1] = values[1]
                        out[row * n_key + i + 2] = values[2]
                        out[row * n_key + i + 3] = values[3]
        else:
            for j in range(n_key):
                dot = np.float32(0)
                for c in range(d_head):
                    dot += q[at + c] * k[start + j * stride + c]
                out[row * n_key + j] = dot


@numba.njit(cache=True, nogil=True)
def softmax(x, mask, out, factor, n_heads, n_query, n_key, first, last):
    """Softmax of factor * x where mask [batch, query, key] is not 0; else 0. Contract: bound."""
    for row in range(first, last):
        batch, query = row // (n_heads * n_query), row % n_query
        seen, at = (batch * n_query + query) * n_key, row * n_key
        largest = np.float32(-np.inf)
        for j in range(n_key):
            if mask[seen + j]:
                largest = max(largest, x[at + j] * factor)
        total = np.float32(0)
        for j in range(n_key):
            e = math.exp(x[at + j] * factor - largest) if mask[seen + j] else np.float32(0)
            out[at + j] = e
            total += e
        for j in range(n_key):
            out[at + j] = out[at + j] / total if total > 0 else np.float32(0)


@numba.njit(cache=True, nogil=True)
def mix(p, v, head_of, out, n_heads, n_kv, n_query, n_key, room, d_head, first, last):
    """Sum p_j v_j, first key to last; a row is (batch, head, query). Contract: exact."""
    for row in range(first, last):
        batch, head, query = row // (n_heads * n_query), row // n_query % n_heads, row % n_query
        to = ((batch * n_query + query) * n_heads + head) * d_head
        start, stride = (batch * room * n_kv + head_of[head]) * d_head, n_kv * d_head
        mixed = out[to : to + d_head]
        mixed[:] = 0
        for j in range(n_key):
            weight, at = p[row * n_key + j], start + j * stride
            for c in range(d_head):
                mixed[c] += weight * v[at + c]


@numba.njit(cache=True, nogil=True)
def activation(x, out, kind, scale, first, last):
    """Apply KINDS[kind] to elements; "tanh" is the soft-cap, scale * tanh(x / scale).

    Contract: ulp(4).
    """
    one, half = np.float32(1), np.float32(0.5)
    root = np.float32(math.sqrt(2 / math.pi))
    for i in range(first, last):
        v = x[i]
        if kind == 0:
            inner = root * (v + np.float32(0.044715) * v * v * v)
            out[i] = half * v * (one + math.tanh(inner))
        elif kind == 1:
            out[i] = half * v * (one + math.erf(v / np.float32(math.sqrt(2))))
        elif kind == 2:
            out[i] = v * half * (one + math.tanh(half * v))
        elif kind == 3:
            out[i] = max(v, np.float32(0))
        else:
            out[i] = scale * math.tanh(v / scale)
