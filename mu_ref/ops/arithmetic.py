"""What the tape computes beside products of matrices: each formula, and the way back through it.

A method takes arrays and returns its result and `back`, a function from the gradient of the result
to those of what it was made from, to be called once. Here in NumPy; compiled, for float32, in
`fast/arithmetic.py`. Chapter: `docs/09_training.md`.
"""

import math
from collections.abc import Callable

import numpy as np

__all__ = ["Arithmetic", "Gradients", "log_softmax"]

Array = np.ndarray
Gradients = tuple[Array | None, ...]
WithBack = tuple[Array, Callable[[Array], Gradients]]


class Arithmetic:
    """Formulas in the float type of what they are given."""

    def norm(self, x: Array, gain: Array, bias: Array | None, kind: str, eps: float) -> WithBack:
        """Compute y = g u (+ b), u = x r, r = 1 / sqrt(mean(x²) + eps); "layer" centres x first."""
        centred = x - x.mean(axis=-1, keepdims=True) if kind == "layer" else x
        r = 1 / np.sqrt(_row_dot(centred, centred) / centred.shape[-1] + x.dtype.type(eps))
        unit = centred * r
        g = gain + gain.dtype.type(1) if kind == "rms_plus_one" else gain
        y = unit * g if bias is None else unit * g + bias

        def back(grad: Array) -> Gradients:
            flat = grad.reshape(-1, grad.shape[-1])
            d_gain = np.einsum("md,md->d", flat, unit.reshape(flat.shape))
            d_unit = grad * g
            dx = r * (d_unit - unit * (_row_dot(d_unit, unit) / unit.shape[-1]))
            if kind == "layer":
                dx = dx - dx.mean(axis=-1, keepdims=True)
            return (dx, d_gain) if bias is None else (dx, d_gain, flat.sum(axis=0))

        return y, back

    def rope(self, x: Array, cos: Array, sin: Array) -> WithBack:
        """Turn heads [batch, n_heads, n_tok, d] by [batch, 1, n_tok, d / 2]; the gradient, back."""

        def turn(value: Array, sine: Array) -> Array:
            half = value.shape[-1] // 2
            x1, x2 = value[..., :half], value[..., half:]
            y = np.empty(value.shape, value.dtype)
            np.subtract(x1 * cos, x2 * sine, out=y[..., :half])
            np.add(x2 * cos, x1 * sine, out=y[..., half:])
            return y

        return turn(x, sin), lambda grad: (turn(grad, -sin),)

    def softmax(self, x: Array, mask: Array) -> WithBack:
        """Compute softmax p; its gradient is dx = p (dp - Σ p dp)."""
        masked = np.where(mask, x, x.dtype.type(-np.inf))
        largest = masked.max(axis=-1, keepdims=True)
        largest[np.isneginf(largest)] = 0
        p = np.exp(masked - largest)
        total = p.sum(axis=-1, keepdims=True)
        total[total == 0] = 1
        p /= total
        return p, lambda grad: (p * (grad - _row_dot(grad, p)),)

    def activation(self, v: Array, kind: str) -> WithBack:
        """Element by element, with the derivative beside each formula."""
        number = v.dtype.type
        if kind == "gelu_tanh":
            c, a = number(math.sqrt(2 / math.pi)), number(0.044715)
            square = v * v
            t = np.tanh(c * v * (1 + a * square))
            y = number(0.5) * v * (1 + t)
            # d/dv: (1 + t)/2 + v (1 - t²) c (1 + 3 a v²) / 2
            slope = number(0.5) * ((1 + t) + v * (1 - t * t) * (c * (1 + 3 * a * square)))
        elif kind == "gelu":
            t = np.vectorize(math.erf, otypes=[v.dtype])(v / number(math.sqrt(2)))
            y = number(0.5) * v * (1 + t)
            # d/dv: Φ(v) + v φ(v)
            density = np.exp(number(-0.5) * v * v) * number(1 / math.sqrt(2 * math.pi))
            slope = number(0.5) * (1 + t) + v * density
        elif kind == "silu":
            s = number(0.5) * (1 + np.tanh(number(0.5) * v))
            y, slope = v * s, s * (1 + v * (1 - s))
        else:
            y, slope = np.maximum(v, 0), (v > 0).astype(v.dtype)
        return y, lambda grad: (grad * slope,)

    def cross_entropy(self, z: Array, y: Array, counted: Array, epsilon: float) -> WithBack:
        """(3.1) of scores [..., V] and targets [...]; the gradient is (p - q) / N where counted."""
        scores, hits, eps = z[counted], y[counted], z.dtype.type(epsilon)  # [N, V], [N]
        n, vocab_size = scores.shape
        log_p = log_softmax(scores)
        hit = log_p[np.arange(n), hits]  # [N], of the target token
        loss = -((1 - eps) * hit + eps * log_p.mean(axis=-1)).mean()

        def back(grad: Array) -> Gradients:
            d = np.exp(log_p) - eps / vocab_size  # p - q
            d[np.arange(n), hits] -= 1 - eps
            dz = np.zeros_like(z)
            dz[counted] = d * (grad / z.dtype.type(n))
            return (dz,)

        return np.asarray(loss, z.dtype), back

    def embed(self, table: Array, tokens: Array) -> WithBack:
        """Rows of the table; the gradient adds up over repeated tokens."""

        def back(grad: Array) -> Gradients:
            d_table = np.zeros_like(table)
            np.add.at(d_table, tokens, grad)
            return (d_table,)

        return table[tokens], back

    def adamw(
        self, weight: Array, grad: Array, mean: Array, square: Array, by: tuple[float, ...]
    ) -> None:
        """Step a weight and the running means of its gradient and of the gradient's square.

        by: 1 - beta1, 1 - beta2, what of both means is known yet (two shares), rate, eps, and what
        decay leaves of the weight.
        """
        new_mean, new_square, known_mean, known_square, rate, eps, left = by
        mean += new_mean * (grad - mean)
        square += new_square * (grad * grad - square)
        weight *= left
        weight -= rate * (mean / known_mean) / (np.sqrt(square / known_square) + eps)


def log_softmax(scores: Array) -> Array:
    """Logarithms of softmax over the last axis."""
    scores = scores - scores.max(axis=-1, keepdims=True)  # so that exp cannot overflow
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


def _row_dot(x: Array, y: Array) -> Array:
    return np.einsum("...d,...d->...", x, y)[..., None]
