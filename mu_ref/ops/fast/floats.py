"""The fast float executor: the reference's operations, recorded and run by Numba kernels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mu_ref.errors import WeightsError
from mu_ref.kernels import float_program as machine
from mu_ref.kernels.floats import KINDS, NORMS
from mu_ref.kernels.linear import FLOATS
from mu_ref.memory import aligned
from mu_ref.ops.fast.deferred import Recorded
from mu_ref.ops.fast.memory import Tensor, as_integers, as_marks, check_tokens
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.rotation import Rotation

__all__ = ["FastOps"]


class FastOps(Recorded):
    """Computes in float32 at the speed of the machine; a value is a `Tensor`.

    A row's bits do not depend on the batch, on the cache or on the number of threads. They differ
    from the reference's in the order of sums over features.

    Args:
        weights: {"site.weight" or "site.bias": array}.
    """

    COPY, TAKE = machine.COPY, machine.TAKE

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.weights = {name: _whole_vectors(w) for name, w in weights.items()}
        super().__init__(np.float32, machine.run, sum(w.nbytes for w in self.weights.values()))
        self._numpy = ReferenceOps({})
        self.shapes = {name: w.shape for name, w in weights.items()}
        self._addresses = {name: w.ctypes.data for name, w in self.weights.items()}

    def _weight(self, name: str) -> int:
        if name not in self._addresses:
            raise WeightsError(f"weights must contain {name!r}; they do not")
        return self._addresses[name]

    # -- operations that read a weight -------------------------------------------------------------

    def embed(self, tokens: np.ndarray, site: str) -> Tensor:
        """[batch, n_tok] int -> [batch, n_tok, d_model]."""
        name = f"{site}.weight"
        table = self._weight(name)
        n_rows, d = self.shapes[name]
        check_tokens(tokens, n_rows, site)
        if self.weights[name].shape[1] != d:
            return self._stored(self.weights[name][tokens][..., :d])
        x = self._new((*tokens.shape, d))
        at = self._input(tokens, "tokens", lambda t: as_integers(check_tokens(t, n_rows, site)))
        self._record(machine.EMBED, x.block.address, table, at, 1, n_rows, tokens.size, d)
        return x

    def linear(self, x: Tensor, site: str, weight_site: str | None = None) -> Tensor:
        """Compute y_n = sum_k x_k W_nk + b_n."""
        name = f"{weight_site or site}.weight"
        weight = self._weight(name)
        d_out, d_in = self.shapes[name]
        n_rows = 1
        for size in x.shape[:-1]:
            n_rows *= size
        y = self._new((*x.shape[:-1], d_out))
        bias = self._addresses.get(f"{site}.bias", 0)
        self._record(
            machine.LINEAR, y.block.address, x.block.address, weight, bias,
            n_rows, d_in, self.weights[name].shape[1], d_out,
        )  # fmt: skip
        return y

    def norm(self, x: Tensor, site: str, kind: str, eps: float) -> Tensor:
        """RMSNorm or LayerNorm over the last axis."""
        gain = self._weight(f"{site}.weight")
        bias = self._weight(f"{site}.bias") if kind == "layer" else gain
        n_rows = 1
        for size in x.shape[:-1]:
            n_rows *= size
        y = self._new(x.shape)
        self._record(
            machine.NORM, y.block.address, x.block.address, gain, bias,
            n_rows, x.shape[-1], NORMS.index(kind), scalar=eps,
        )  # fmt: skip
        return y

    # -- operations on activations -----------------------------------------------------------------

    def rope(self, x: Tensor, rotation: Rotation, site: str) -> Tensor:
        """(x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), halves of the last axis."""
        batch, heads, n_tok, d_head = x.shape
        y = self._new(x.shape, room=n_tok)

        def turns(rotation: Rotation) -> np.ndarray:
            shape = (batch, n_tok, d_head // 2)
            both = [np.broadcast_to(part, shape) for part in (rotation.cos, rotation.sin)]
            return np.stack(both).astype(np.float32, order="C")

        cos = self._input(rotation, f"turns of {d_head}", turns)
        sin = cos + batch * n_tok * (d_head // 2) * 4
        self._record(
            machine.ROPE, y.block.address, x.block.address, cos, sin, batch * n_tok, heads, d_head
        )
        return y

    def matmul(self, a: Any, b: Any, site: str, *, transpose_b: bool = False) -> Tensor:
        """Compute q · k with transpose_b, p · v without; other products are left to NumPy."""
        if b.shared is None:
            product = self._numpy.matmul(
                self._numbers(a), self._numbers(b), site, transpose_b=transpose_b
            )
            return self._stored(product)
        batch, n_heads, n_key, d_head = b.shape
        n_query = a.shape[2]
        head_of, n_kv = b.shared
        if transpose_b:
            op, y = machine.SCORES, self._new((batch, n_heads, n_query, n_key))
        else:
            op, y = machine.MIX, self._new((batch, n_heads, n_query, d_head), room=n_query)
        self._record(
            op, y.block.address, a.block.address, b.block.address, head_of,
            batch, n_heads, n_kv, n_query, n_key, b.room, d_head,
        )  # fmt: skip
        return y

    def softmax(self, x: Tensor, mask: np.ndarray, site: str) -> Tensor:
        """Compute exp(x - max) / sum where mask is True."""
        if len(x.shape) != 4 or (mask.ndim == 4 and mask.shape[1] != 1):
            return self._stored(self._numpy.softmax(self._numbers(x), mask, site))
        batch, n_heads, n_query, n_key = x.shape
        seen = self._input(mask, f"seen by {n_query}", lambda m: as_marks(m, n_query))
        y = self._new(x.shape)
        self._record(
            machine.SOFTMAX, y.block.address, x.block.address, seen, 0,
            batch, n_heads, 0, n_query, n_key, scalar=1.0 if x.meaning is None else x.meaning,
        )  # fmt: skip
        return y

    def activation(self, x: Tensor, kind: str, site: str) -> Tensor:
        """Element by element."""
        return self._elementwise(machine.ACTIVATION, x, KINDS.index(kind))

    def softcap(self, x: Tensor, cap: float, site: str) -> Tensor:
        """Compute cap * tanh(x / cap)."""
        return self._elementwise(machine.ACTIVATION, x, KINDS.index("tanh"), cap)

    def add(self, x: Tensor, y: Tensor, site: str) -> Tensor:
        """Compute x + y."""
        return self._elementwise(machine.ADD, x, 0, y=y.block.address)

    def mul(self, x: Tensor, y: Tensor, site: str) -> Tensor:
        """Compute x * y."""
        return self._elementwise(machine.MUL, x, 0, y=y.block.address)

    def scale(self, x: Tensor, factor: float, site: str) -> Tensor:
        """Compute x * factor."""
        return self._elementwise(machine.SCALE, x, 0, factor)

    def concat(self, x: Tensor, y: Tensor, site: str) -> Tensor:
        """Join along the last axis."""
        return self._join(x, y, None)

    def _elementwise(
        self, op: int, x: Tensor, kind: int, scalar: float = 0.0, y: int = 0
    ) -> Tensor:
        out = self._new(x.shape, room=x.room)
        n = 1
        for size in x.shape:
            n *= size
        self._record(op, out.block.address, x.block.address, y, kind, n, scalar=scalar)
        return out

    def read(self, x: Tensor) -> np.ndarray:
        """Return the numbers."""
        return self._numbers(x).copy()


def _whole_vectors(w: np.ndarray) -> np.ndarray:
    """A copy that starts at a cache line; matrices get whole vectors of zeros and four rows."""
    if w.ndim == 1:
        shape: tuple[int, ...] = w.shape
    else:
        shape = (-(-w.shape[0] // 4) * 4, -(-w.shape[1] // FLOATS) * FLOATS)
    copy = aligned(shape, np.float32)
    copy[tuple(slice(n) for n in w.shape)] = w
    return copy
