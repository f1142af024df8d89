"""The tape's formulas by compiled kernels, for float32; anything else is left to NumPy.

A kernel does in one pass over the memory what NumPy does in five to ten, and keeps less for the way
back.
"""

from typing import final

import numpy as np

from mu_ref.kernels.floats import KINDS
from mu_ref.kernels.training import elements, rows
from mu_ref.ops.arithmetic import Arithmetic, Array, Gradients, WithBack

__all__ = ["FastArithmetic"]

F32 = np.float32


@final
class FastArithmetic(Arithmetic):
    """Compiled twins of `Arithmetic`; the same values but for rounding."""

    def norm(self, x: Array, gain: Array, bias: Array | None, kind: str, eps: float) -> WithBack:
        """Keep a mean and a scale for each row, and x."""
        if x.dtype != F32:
            return super().norm(x, gain, bias, kind, eps)
        layer, d = kind == "layer", x.shape[-1]
        flat = np.ascontiguousarray(x).reshape(-1, d)
        g = gain + F32(1) if kind == "rms_plus_one" else gain
        b = np.zeros(d, F32) if bias is None else bias
        y, mean, r = np.empty_like(flat), np.zeros(len(flat), F32), np.empty(len(flat), F32)
        rows.norm(flat, g, b, y, mean, r, layer, F32(eps))

        def back(grad: Array) -> Gradients:
            dy = np.ascontiguousarray(grad).reshape(-1, d)
            dx, d_gain, d_bias = np.empty_like(flat), np.zeros(d, F32), np.zeros(d, F32)
            rows.norm_back(dy, flat, g, mean, r, dx, d_gain, d_bias, layer)
            found = dx.reshape(x.shape), d_gain
            return found if bias is None else (*found, d_bias)

        return y.reshape(x.shape), back

    def rope(self, x: Array, cos: Array, sin: Array) -> WithBack:
        """Write heads as `split_heads` reads them, token by token: its way back copies nothing."""
        if x.dtype != F32:
            return super().rope(x, cos, sin)
        batch, n_heads, n_tok, d = x.shape
        whole = (batch, 1, n_tok, d // 2)
        tables = [np.broadcast_to(t, whole).reshape(-1, d // 2) for t in (cos, sin, -sin)]

        def turned(value: Array, cos: Array, sin: Array) -> Array:
            by_token = value.transpose(0, 2, 1, 3)
            if by_token.flags.c_contiguous:
                given, places = by_token, (n_tok * n_heads * d, d, n_heads * d)
            else:
                given, places = value, (n_heads * n_tok * d, n_tok * d, d)
            flat = np.ascontiguousarray(given).reshape(-1)
            y = np.empty((batch, n_tok, n_heads, d), F32)
            sizes = (n_tok, n_heads, d // 2)
            elements.turn(flat, places, cos, sin, y.reshape(-1), sizes)
            return y.transpose(0, 2, 1, 3)

        return turned(x, *tables[:2]), lambda grad: (turned(grad, tables[0], tables[2]),)

    def activation(self, v: Array, kind: str) -> WithBack:
        """Work out the derivative beside the value."""
        if v.dtype != F32:
            return super().activation(v, kind)
        flat = np.ascontiguousarray(v).reshape(-1)
        y, slope = np.empty(v.shape, F32), np.empty(v.shape, F32)
        elements.activation(flat, y.reshape(-1), slope.reshape(-1), KINDS.index(kind))
        return y, lambda grad: (np.multiply(grad, slope, out=slope),)

    def cross_entropy(self, z: Array, y: Array, counted: Array, epsilon: float) -> WithBack:
        """Work out the gradient beside the loss."""
        if z.dtype != F32 or not counted.any():
            return super().cross_entropy(z, y, counted, epsilon)
        flat = np.ascontiguousarray(z).reshape(-1, z.shape[-1])
        losses, dz = np.empty(len(flat), F32), np.empty_like(flat)
        marks, n = np.ascontiguousarray(counted).reshape(-1), F32(counted.sum())
        targets = np.ascontiguousarray(y).reshape(-1)
        rows.cross_entropy(flat, targets, marks, F32(epsilon), 1 / n, losses, dz)

        def back(grad: Array) -> Gradients:
            if grad != 1:
                np.multiply(dz, grad, out=dz)
            return (dz.reshape(z.shape),)

        return np.asarray(losses.sum(dtype=np.float64) / n, F32), back

    def embed(self, table: Array, tokens: Array) -> WithBack:
        """Add rows one after another."""
        if table.dtype != F32 or not tokens.size:
            return super().embed(table, tokens)

        def back(grad: Array) -> Gradients:
            d_table = np.zeros_like(table)
            given = np.ascontiguousarray(grad).reshape(-1, table.shape[1])
            elements.add_rows(d_table, np.ascontiguousarray(tokens).reshape(-1), given)
            return (d_table,)

        return table[tokens], back

    def adamw(
        self, weight: Array, grad: Array, mean: Array, square: Array, by: tuple[float, ...]
    ) -> None:
        """Do all of it in one pass."""
        arrays = (weight, grad, mean, square)
        if any(a.dtype != F32 or not a.flags.c_contiguous for a in arrays):
            super().adamw(weight, grad, mean, square, by)
            return
        flat = [a.reshape(-1) for a in arrays]
        elements.adamw(*flat, tuple(map(F32, by)))
