"""The reference executor: NumPy arrays, float32 or float64, written to be read, never optimised.

Its one unusual rule is contract 1 of `docs/design.md`: a row's result does not depend on how many
rows are computed with it, nor on how much padding follows it. So every sum has one fixed order:

* over features (`linear`, `norm`, q·k) the length never changes, and `np.einsum` without
  `optimize` reduces each output alone, in an order that depends on that length only;
* over keys (softmax, p·v) the length grows with every token, so the sum runs strictly from the
  first key to the last, where masked keys add exact zeros.

No BLAS: `X[:1] @ W.T` and `(X @ W.T)[:1]` differ in the last bit. Chapter: `docs/08_mu.md`.
"""

import math
from collections.abc import Mapping
from typing import final

import numpy as np

from mu_ref.errors import ConfigError, WeightsError
from mu_ref.ops import Ops
from mu_ref.ops.rotation import Rotation

__all__ = ["ReferenceOps"]


@final
class ReferenceOps(Ops):
    """Computes each operation by its formula; a value is a NumPy array of `dtype`.

        >>> import numpy as np
        >>> import mu_ref
        >>> ops = mu_ref.ReferenceOps({"norm.weight": np.ones(2)}, np.float64)
        >>> ops.norm(np.array([3.0, 4.0]), "norm", "rms", 0.0) ** 2  # squares sum to n
        array([0.72, 1.28])

    Args:
        weights: {"site.weight" or "site.bias": array}.
        dtype: np.float32 or np.float64; weights are converted once.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], dtype: type = np.float32) -> None:
        if dtype not in (np.float32, np.float64):
            raise ConfigError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
        self.dtype = dtype
        self.weights = {name: np.ascontiguousarray(w, dtype) for name, w in weights.items()}

    def weight(self, name: str) -> np.ndarray:
        """Return one weight; WeightsError names the site if it is not there."""
        if name not in self.weights:
            raise WeightsError(f"weights must contain {name!r}; they do not")
        return self.weights[name]

    # -- operations that read a weight -----------------------------------------------------------

    def embed(self, tokens: np.ndarray, site: str) -> np.ndarray:
        """[batch, n_tok] int -> [batch, n_tok, d_model]."""
        return self.weight(f"{site}.weight")[tokens]

    def linear(self, x: np.ndarray, site: str, weight_site: str | None = None) -> np.ndarray:
        """Compute y_n = sum_k x_k W_nk + b_n."""
        w = self.weight(f"{weight_site or site}.weight")
        rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])  # [rows, d_in]
        y = np.einsum("mk,nk->mn", rows, w).reshape(*x.shape[:-1], w.shape[0])
        bias = self.weights.get(f"{site}.bias")
        return y if bias is None else y + bias

    def norm(self, x: np.ndarray, site: str, kind: str, eps: float) -> np.ndarray:
        """RMSNorm or LayerNorm over the last axis."""
        gain = self.weight(f"{site}.weight")
        x = np.ascontiguousarray(x)
        if kind == "layer":
            x = x - np.mean(x, axis=-1, keepdims=True)
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        unit = x / np.sqrt(mean_square + self.dtype(eps))
        if kind == "rms_plus_one":
            gain = gain + self.dtype(1)
        y = unit * gain
        return y + self.weight(f"{site}.bias") if kind == "layer" else y

    # -- operations on activations ---------------------------------------------------------------

    def rope(self, x: np.ndarray, rotation: Rotation, site: str) -> np.ndarray:
        """(x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), halves of the last axis."""
        cos = rotation.cos[:, None].astype(self.dtype)  # [batch, 1, n_tok, d_head / 2]
        sin = rotation.sin[:, None].astype(self.dtype)
        x1, x2 = np.split(x, 2, axis=-1)
        return np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)

    def matmul(
        self, a: np.ndarray, b: np.ndarray, site: str, *, transpose_b: bool = False
    ) -> np.ndarray:
        """Compute a @ b, over features with transpose_b (q·k), over keys without (p·v)."""
        if transpose_b:
            a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
            return np.einsum("...mk,...nk->...mn", a, b)
        y = np.zeros((*a.shape[:-1], b.shape[-1]), self.dtype)  # [..., m, n]
        for j in range(b.shape[-2]):  # first key to last: see the module docstring
            y += a[..., :, j, None] * b[..., j, None, :]
        return y

    def softmax(self, x: np.ndarray, mask: np.ndarray, site: str) -> np.ndarray:
        """Compute exp(x - max) / sum where mask is True."""
        x = np.where(mask, x, self.dtype(-np.inf))
        largest = np.max(x, axis=-1, keepdims=True)
        largest = np.where(np.isneginf(largest), self.dtype(0), largest)  # nothing to attend to
        e = np.exp(x - largest)
        total = np.add.accumulate(e, axis=-1)[..., -1:]  # first key to last
        return e / np.where(total == 0, self.dtype(1), total)

    def activation(self, x: np.ndarray, kind: str, site: str) -> np.ndarray:
        """Element by element."""
        one, half = self.dtype(1), self.dtype(0.5)
        if kind == "gelu_tanh":
            inner = self.dtype(math.sqrt(2 / math.pi)) * (x + self.dtype(0.044715) * x * x * x)
            return half * x * (one + np.tanh(inner))
        if kind == "gelu":
            return half * x * (one + _erf(x / self.dtype(math.sqrt(2))))
        if kind == "silu":
            # sigmoid(x) = (1 + tanh(x / 2)) / 2 cannot overflow
            return x * half * (one + np.tanh(half * x))
        return np.maximum(x, self.dtype(0))

    def add(self, x: np.ndarray, y: np.ndarray, site: str) -> np.ndarray:
        """Compute x + y."""
        return x + y

    def mul(self, x: np.ndarray, y: np.ndarray, site: str) -> np.ndarray:
        """Compute x * y."""
        return x * y

    def scale(self, x: np.ndarray, factor: float, site: str) -> np.ndarray:
        """Compute x * factor."""
        return x * self.dtype(factor)

    def softcap(self, x: np.ndarray, cap: float, site: str) -> np.ndarray:
        """Compute cap * tanh(x / cap)."""
        return self.dtype(cap) * np.tanh(x / self.dtype(cap))

    def concat(self, x: np.ndarray, y: np.ndarray, site: str) -> np.ndarray:
        """Join along the last axis."""
        return np.concatenate([x, y], axis=-1)

    # -- layout ----------------------------------------------------------------------------------

    def split_heads(self, x: np.ndarray, n_heads: int, site: str) -> np.ndarray:
        """[batch, n_tok, n_heads * d_head] -> [batch, n_heads, n_tok, d_head]."""
        batch, n_tok, width = x.shape
        return x.reshape(batch, n_tok, n_heads, width // n_heads).transpose(0, 2, 1, 3)

    def merge_heads(self, x: np.ndarray, site: str) -> np.ndarray:
        """[batch, n_heads, n_tok, d_head] -> [batch, n_tok, n_heads * d_head]."""
        batch, n_heads, n_tok, d_head = x.shape
        return x.transpose(0, 2, 1, 3).reshape(batch, n_tok, n_heads * d_head)

    def share_heads(self, x: np.ndarray, head_of: tuple[int, ...], site: str) -> np.ndarray:
        """[batch, n_kv_heads, n, d_head] -> [batch, n_heads, n, d_head]."""
        return x[:, list(head_of)]

    def append(self, past: np.ndarray | None, new: np.ndarray, site: str) -> np.ndarray:
        """Join along the token axis."""
        return new if past is None else np.concatenate([past, new], axis=2)

    def take_tokens(self, x: np.ndarray, index: np.ndarray, site: str) -> np.ndarray:
        """[batch, n_tok, d], [batch, n] -> [batch, n, d]."""
        return np.take_along_axis(x, index[:, :, None], axis=1)

    def keep_slots(self, x: np.ndarray, n_kept: int, index: np.ndarray, site: str) -> np.ndarray:
        """[batch, heads, n, d], [batch, m] -> [batch, heads, n_kept + m, d]."""
        chosen = np.take_along_axis(x, index[:, None, :, None], axis=2)
        return np.concatenate([x[:, :, :n_kept], chosen], axis=2)

    # -- decisions -------------------------------------------------------------------------------

    def argmax(self, x: np.ndarray, site: str) -> np.ndarray:
        """Lowest index of the largest element."""
        return np.argmax(x, axis=-1)

    def top_k(self, x: np.ndarray, k: int, site: str) -> np.ndarray:
        """Indices of the k largest; a stable sort keeps the lowest index first on ties."""
        return np.argsort(-x, axis=-1, kind="stable")[..., :k]


def _erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype)
