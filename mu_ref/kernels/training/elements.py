"""Twins of what a training step does element by element: activations, turns, AdamW's step."""

import math

import numpy as np

from mu_ref.kernels.compiled import dividing
from mu_ref.kernels.floats import PART, exp

__all__ = ["activation", "adamw", "add_rows", "turn"]

FAR = np.float32(10)  # beyond it GELU is 0 or x, to the last bit


@dividing
def activation(x, out, slope, kind):
    """Write KINDS[kind] of each element, and its derivative there.

    Contract: bound. 1.2 ns an element.
    """
    if kind in (0, 2):
        _logistic(x, out, slope, kind == 0)
        return
    one, half, root = np.float32(1), np.float32(0.5), np.float32(math.sqrt(0.5))
    peak = np.float32(1 / math.sqrt(2 * math.pi))
    for i in range(len(x)):
        v = x[i]
        if kind == 1:  # d/dv: Φ(v) + v φ(v)
            below = half * (one + np.float32(math.erf(v * root)))
            out[i] = v * below
            slope[i] = below + v * peak * np.float32(math.exp(-half * v * v))
        else:
            out[i] = np.float32(0) if v < 0 else v
            slope[i] = one if v > 0 else np.float32(0)


@dividing
def _logistic(x, out, slope, gelu):
    """Y = v s, s = 1 / (1 + e^-u), slope s + v s'; u is v, or 2 sqrt(2 / pi) (v + 0.044715 v³)."""
    work, powers = np.empty(PART, np.float32), np.empty(PART, np.int32)
    one, cube = np.float32(1), np.float32(0.044715)
    root = np.float32(2 * math.sqrt(2 / math.pi))
    for start in range(0, len(x), PART):
        given, to = x[start : start + PART], out[start : start + PART]
        by, e = slope[start : start + PART], work[: len(given)]
        for i in range(len(given)):
            v = min(max(given[i], -FAR), FAR) if gelu else given[i]
            e[i] = -root * v * (one + cube * v * v) if gelu else -v
        exp(e, powers[: len(e)])
        for i in range(len(given)):
            v = given[i]
            s = one / (one + e[i])
            near = min(max(v, -FAR), FAR)
            du = root * (one + np.float32(3) * cube * near * near) if gelu else one
            to[i] = v * s
            by[i] = s + v * s * (one - s) * du


@dividing
def turn(x, places, cos, sin, out, sizes):
    """Turn the pairs (x_i, x_{i+d/2}) of all heads; back, where sin is -sin.

    Contract: exact. 0.2 ns an element.

    Args:
        x: flat; head h of token n in row b starts at b places[0] + h places[1] + n places[2].
        places: three strides.
        cos: [tokens of all rows, d / 2].
        sin: the same.
        out: flat, [row, token, head, d].
        sizes: n_tok, n_heads, d / 2.
    """
    n_tok, n_heads, half = sizes
    for token in range(len(cos)):
        row, n = token // n_tok, token % n_tok
        for head in range(n_heads):
            at = row * places[0] + head * places[1] + n * places[2]
            given = x[at : at + 2 * half]
            to = out[(token * n_heads + head) * 2 * half :]
            for i in range(half):
                c, s = cos[token, i], sin[token, i]
                a, b = given[i], given[half + i]
                to[i] = a * c - b * s
                to[half + i] = b * c + a * s


@dividing
def add_rows(table, tokens, grad):
    """Add row i of grad to row tokens[i] of the table. Contract: exact. 0.1 ns an element."""
    for i in range(len(tokens)):
        to, given = table[tokens[i]], grad[i]
        for k in range(len(given)):
            to[k] += given[k]


@dividing
def adamw(weight, grad, mean, square, by):
    """Step each element of a weight and its two means, in one pass over the memory.

    by: 1 - beta1, 1 - beta2, what of the means is known yet (two shares), rate, eps, and what decay
    leaves of a weight; all float32, as NumPy rounds them.

    Contract: exact. 0.6 ns an element.
    """
    new_mean, new_square, known_mean, known_square, rate, eps, left = by
    for i in range(len(weight)):
        g = grad[i]
        m = mean[i] + new_mean * (g - mean[i])
        v = square[i] + new_square * (g * g - square[i])
        mean[i], square[i] = m, v
        step = rate * (m / known_mean) / (np.sqrt(v / known_square) + eps)
        weight[i] = weight[i] * left - step
