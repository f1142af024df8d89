"""Kernels of a training step and what NumPy makes of their arguments; joined to `twins.TWINS`.

A kernel that writes several arrays is asked for one of them, drawn at random.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mu_ref.kernels.training import elements, rows, sums
from mu_ref.ops.arithmetic import Arithmetic

__all__ = ["TRAINING_TWINS", "TRAINING_WITHOUT_PYTHON_BODY"]

F32, U = np.float32, 2.0**-24


@dataclass(frozen=True, kw_only=True)
class Twin:
    """As `twins.Twin`."""

    args: tuple[Any, ...]
    writes: int | None
    expected: np.ndarray
    tolerance: np.ndarray | float = 0.0
    part: int | None = None


def reals(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * rng.standard_normal(shape)).astype(F32)


def one_of(rng: np.random.Generator, args: tuple[Any, ...], outputs: dict[int, Any]) -> Twin:
    """Outputs: by place, what is expected, and how far off it may be."""
    place = int(rng.choice(list(outputs)))
    expected, tolerance = outputs[place]
    return Twin(args=args, writes=place, expected=expected, tolerance=tolerance)


def normed(rng: np.random.Generator, d: int) -> tuple[Any, ...]:
    """A layer norm or not, rows, gain, bias, eps; in float64 mean, r and u of the rows."""
    layer, x = bool(rng.integers(2)), reals(rng, 5, d, scale=2)
    x[:, 0] += 1  # a row of one number has a deviation too
    gain, bias, eps = reals(rng, d), reals(rng, d), F32(0.1)
    wide = x.astype(np.float64)
    mean = wide.mean(axis=1) if layer else np.zeros(5)
    centred = wide - mean[:, None]
    r = 1 / np.sqrt((centred**2).mean(axis=1) + eps)
    return layer, x, gain, bias, eps, mean, r, centred * r[:, None]


def norm(rng: np.random.Generator, d: int) -> Twin:
    layer, x, gain, bias, eps, mean, r, u = normed(rng, d)
    y = u * gain + (bias if layer else 0)
    args = (x, gain, bias, np.zeros_like(x), np.zeros(5, F32), np.zeros(5, F32), layer, eps)
    largest = float(np.abs(x).max())
    near = 200 * U * (1 + largest) * (1 + np.abs(gain).max())
    return one_of(rng, args, {3: (y, near), 4: (mean, near), 5: (r, near)})


def norm_back(rng: np.random.Generator, d: int) -> Twin:
    layer, x, gain, _, _, mean, r, u = normed(rng, d)
    dy = reals(rng, 5, d)
    du = dy.astype(np.float64) * gain
    dx = r[:, None] * (du - u * (du * u).mean(axis=1, keepdims=True))
    if layer:
        dx -= dx.mean(axis=1, keepdims=True)
    outputs = {5: (dx, 0.0), 6: ((dy * u).sum(axis=0), 0.0), 7: (dy.sum(axis=0) * layer, 0.0)}
    near = 400 * U * (1 + np.abs(du).max() + np.abs(dy).max()) * (1 + np.abs(u).max() ** 2)
    args = (
        dy, x, gain, mean.astype(F32), r.astype(F32), np.zeros_like(x), np.zeros(d, F32),
        np.zeros(d, F32), layer,
    )  # fmt: skip
    return one_of(
        rng, args, {n: (value.astype(np.float64), near) for n, (value, _) in outputs.items()}
    )


def cross_entropy(rng: np.random.Generator, d: int) -> Twin:
    z, y = reals(rng, 6, d, scale=float(rng.choice([0.1, 3, 60]))), rng.integers(0, d, 6)
    counted, epsilon, share = rng.random(6) < 0.7, F32(rng.choice([0, 0.1])), F32(0.25)
    wide = z.astype(np.float64)
    log_p = wide - wide.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    q = np.full((6, d), float(epsilon) / d)
    q[np.arange(6), y] += 1 - float(epsilon)
    loss = -(q * log_p).sum(axis=1) * counted
    dz = float(share) * (np.exp(log_p) - q) * counted[:, None]
    args = (z, y, counted, epsilon, share, np.zeros(6, F32), np.zeros_like(z))
    near = 40 * U * (1 + np.abs(z).max())
    return one_of(rng, args, {5: (loss, near), 6: (dz, near)})


def activation(rng: np.random.Generator, d: int) -> Twin:
    kind, x = int(rng.integers(4)), reals(rng, d, scale=float(rng.choice([0.1, 3, 50])))
    wide = x.astype(np.float64)
    c, a = math.sqrt(2 / math.pi), 0.044715
    near = np.clip(wide, -40, 40)
    s = 1 / (1 + np.exp(-near))
    t = np.tanh(c * (wide + a * wide**3))
    below = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in wide])
    y, slope = {
        0: (wide * (1 + t) / 2, (1 + t) / 2 + wide * (1 - t * t) * c * (1 + 3 * a * wide**2) / 2),
        1: (wide * below, below + wide * np.exp(-wide * wide / 2) / math.sqrt(2 * math.pi)),
        2: (wide * s, s * (1 + wide * (1 - s))),
        3: (np.maximum(wide, 0), (wide > 0).astype(np.float64)),
    }[kind]
    args = (x, np.zeros(d, F32), np.zeros(d, F32), kind)
    return one_of(rng, args, {1: (y, 32 * U * (1 + np.abs(wide))), 2: (slope, 64 * U)})


def turn(rng: np.random.Generator, d: int) -> Twin:
    n_tok, n_heads, whole = 3, 2, 2 * d
    x, angle = reals(rng, 2, n_tok, n_heads, whole), rng.uniform(0, 7, (2 * n_tok, d))
    cos, sin = np.cos(angle).astype(F32), np.sin(angle).astype(F32)
    c, s = (t.reshape(2, n_tok, 1, d) for t in (cos, sin))
    a, b = x[..., :d], x[..., d:]
    expected = np.concatenate([a * c - b * s, b * c + a * s], axis=-1)
    places = (n_tok * n_heads * whole, whole, n_heads * whole)
    flat = x.ravel()
    if rng.integers(2):  # heads first, as a product of matrices leaves them
        flat = x.transpose(0, 2, 1, 3).ravel()
        places = (n_tok * n_heads * whole, n_tok * whole, whole)
    args = (flat, places, cos, sin, np.zeros(x.size, F32), (n_tok, n_heads, d))
    return Twin(args=args, writes=4, expected=expected.ravel())


def add_rows(rng: np.random.Generator, d: int) -> Twin:
    table, tokens = reals(rng, 4, d), rng.integers(0, 4, 9)
    grad, expected = reals(rng, 9, d), table.copy()
    np.add.at(expected, tokens, grad)
    return Twin(args=(table, tokens, grad), writes=0, expected=expected)


def adamw(rng: np.random.Generator, d: int) -> Twin:
    weight, grad, mean = (reals(rng, d) for _ in range(3))
    square = reals(rng, d) ** 2
    grad[rng.random(d) < 0.3] = 0
    by = tuple(map(F32, (0.1, 0.02, rng.uniform(0.1, 1), rng.uniform(0.02, 1), 1e-3, 1e-8, 0.999)))
    after = weight.copy(), grad, mean.copy(), square.copy()
    Arithmetic().adamw(*after, by)
    args = (weight, grad, mean, square, by)
    return one_of(rng, args, {n: (after[n], 0.0) for n in (0, 2, 3)})


def dot(rng: np.random.Generator, d: int) -> Twin:
    x, y = reals(rng, d), reals(rng, d)
    wide = x.astype(np.float64) * y
    return Twin(
        args=(x, y), writes=None, expected=wide.sum(), tolerance=2 * d * U * np.abs(wide).sum()
    )


def total(rng: np.random.Generator, d: int) -> Twin:
    x = reals(rng, d)
    wide = x.astype(np.float64)
    return Twin(
        args=(x,), writes=None, expected=wide.sum(), tolerance=2 * d * U * np.abs(wide).sum()
    )


def largest(rng: np.random.Generator, d: int) -> Twin:
    x = reals(rng, d, scale=float(rng.choice([1, 1e30])))
    return Twin(args=(x,), writes=None, expected=x.max())


TRAINING_TWINS = {
    (elements, "activation"): activation,
    (elements, "adamw"): adamw,
    (elements, "add_rows"): add_rows,
    (elements, "turn"): turn,
    (sums, "dot"): dot,
    (sums, "largest"): largest,
    (sums, "total"): total,
    (rows, "cross_entropy"): cross_entropy,
    (rows, "norm"): norm,
    (rows, "norm_back"): norm_back,
}
TRAINING_WITHOUT_PYTHON_BODY = {(sums, name) for name in ("dot", "largest", "total")}
