"""The fast float executor: the reference's operations, deferred and run by Numba kernels.

Between two matrices everything is float32. How a matrix is stored, and so which kernel multiplies
with it, its `Matrix` says (`matrices.py`); one executor serves float32 and int4 files.
"""

from collections.abc import Mapping
from math import prod
from typing import Any, TypeVar, final

import numpy as np

from mu_ref.border.memory import Arena, aligned
from mu_ref.config import INT4_GROUP
from mu_ref.errors import QuantizationError, WeightsError
from mu_ref.kernels import float_program as machine
from mu_ref.kernels.drafts.float_passes import run_drafted
from mu_ref.kernels.floats import KINDS, NORMS
from mu_ref.ops.fast.matrices import REGION, matrix_of
from mu_ref.ops.fast.memory import Tensor, as_integers, as_marks, check_tokens
from mu_ref.ops.fast.stretches.drafting import DraftingOps
from mu_ref.ops.fast.turns import turns_of
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.rotation import Rotation

__all__ = ["FastOps"]

Stored = TypeVar("Stored")


@final
class FastOps(DraftingOps):
    """Computes in float32 at the speed of the machine; a value is a `Tensor`.

    A row's bits do not depend on the batch, on the cache or on the number of threads. They differ
    from those of the reference executor in the order of sums over features, and where a matrix is
    int4 or int8 in the rounding of its input too (see `Matrix`).

    Args:
        tensors: of a float file, {"site.weight" or "site.bias": array}, or of an int4 file, see
            `mu_ref/integers/int4.py`.
        group: inputs of an int4 matrix that share a scale; only 128.

    Raises:
        QuantizationError: another group.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], group: int = INT4_GROUP) -> None:
        if group != INT4_GROUP:
            raise QuantizationError(
                f"the fast executor must have int4 groups of {INT4_GROUP}, got {group}; "
                "use the reference executor, or quantize again"
            )
        weights = {name: w for name, w in tensors.items() if not name.endswith("_scale")}
        arena = Arena(REGION)
        matrices = [n for n, w in weights.items() if w.ndim == 2]
        self._matrices = {name: matrix_of(name, tensors, arena) for name in matrices}
        self._vectors = {n: _vector(w) for n, w in weights.items() if w.ndim == 1}
        self._addresses = {name: w.ctypes.data for name, w in self._vectors.items()}
        arrays = [array for matrix in self._matrices.values() for array in matrix.arrays]
        n_bytes = sum(array.nbytes for array in (*arrays, *self._vectors.values()))
        super().__init__(
            run_drafted,
            np.float32,
            machine.run,
            machine.run_greedy,
            machine.scratch_bytes,
            n_bytes,
        )
        self._numpy = ReferenceOps({})

    # -- operations that read a weight -------------------------------------------------------------

    def embed(self, tokens: np.ndarray, site: str) -> Tensor:
        """[batch, n_tok] int -> [batch, n_tok, d_model]."""
        table = _held(self._matrices, f"{site}.weight")
        assert table.look_up is not None  # int4 files keep what is looked up in int8
        n_rows, d = table.shape
        values, scales, _ = table.addresses
        check_tokens(tokens, n_rows, site)
        at = self._input(tokens, "tokens", lambda t: as_integers(check_tokens(t, n_rows, site)))
        x = self._new((*tokens.shape, d))
        self._defer(
            table.look_up, x.block.address, values, at, scales,
            tokens.size, d, table.width, n_rows,
        )  # fmt: skip
        return x

    def linear(self, x: Tensor, site: str, weight_site: str | None = None) -> Tensor:
        """Compute y_n = sum_k x_k W_nk + b_n; int4 and int8 matrices round x first."""
        w = _held(self._matrices, f"{weight_site or site}.weight")
        values, scales, sums = w.addresses
        rounded = w.multiply != machine.LINEAR
        more = (scales, sums) if rounded else (self._scratch_for(w.width),)
        y = self._new((*x.shape[:-1], w.shape[0]))
        self._defer(
            w.multiply, y.block.address, x.block.address, values,
            self._addresses.get(f"{site}.bias", 0),
            prod(x.shape[:-1]), x.shape[-1], w.width, w.shape[0], *more,
        )  # fmt: skip
        return y

    def norm(self, x: Tensor, site: str, kind: str, eps: float) -> Tensor:
        """RMSNorm or LayerNorm over the last axis."""
        gain = _held(self._addresses, f"{site}.weight")
        bias = _held(self._addresses, f"{site}.bias") if kind == "layer" else gain
        y = self._new(x.shape)
        self._defer(
            machine.NORM, y.block.address, x.block.address, gain, bias,
            prod(x.shape[:-1]), x.shape[-1], NORMS.index(kind), scalar=eps,
        )  # fmt: skip
        return y

    # -- operations on activations -----------------------------------------------------------------

    def rope(self, x: Tensor, rotation: Rotation, site: str) -> Tensor:
        """(x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), halves of the last axis."""
        batch, heads, n_tok, d_head = x.shape
        y = self._new(x.shape, room=n_tok)

        shape = batch, n_tok, d_head // 2
        cos = self._input(rotation, f"turns of {d_head}", lambda r: turns_of(r, shape, _turns))
        sin = cos + batch * n_tok * (d_head // 2) * 4  # bytes; one array, so that one replay fills
        self._defer(
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
        self._defer(
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
        self._defer(
            machine.SOFTMAX, y.block.address, x.block.address, seen, 0,
            batch, n_heads, 0, n_query, n_key,
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
        self._defer(op, out.block.address, x.block.address, y, kind, prod(x.shape), scalar=scalar)
        return out

    def read(self, x: Tensor) -> np.ndarray:
        """Return the numbers."""
        return self._numbers(x).copy()


def _held(weights: Mapping[str, Stored], name: str) -> Stored:
    """One weight; whoever asks for another is told its name."""
    if name not in weights:
        raise WeightsError(f"weights must contain {name!r}; they do not")
    return weights[name]


def _vector(w: np.ndarray) -> np.ndarray:
    """A gain or a bias, as float32 from a cache line on."""
    copy = aligned(w.shape, np.float32)
    copy[:] = w
    return copy


def _turns(rotation: Rotation) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines."""
    return rotation.cos.astype(np.float32), rotation.sin.astype(np.float32)
