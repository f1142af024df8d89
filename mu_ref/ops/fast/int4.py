"""The fast executor of int4 weights: float32 activations, products of integers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mu_ref.config import INT4_GROUP
from mu_ref.errors import QuantizationError, WeightsError
from mu_ref.kernels import float_program as machine
from mu_ref.kernels.linear import BYTES
from mu_ref.kernels.packing import blocks_of
from mu_ref.kernels.threads import n_threads
from mu_ref.memory import aligned
from mu_ref.ops.fast.floats import FastOps
from mu_ref.ops.fast.memory import Tensor, as_integers, check_tokens

__all__ = ["FastInt4Ops"]


class FastInt4Ops(FastOps):
    """Computes with int4 matrices and int8 tables, in integers; a value is a `Tensor`.

    The input x of a product is rounded to steps of max |x| / 16383 (tables: 32767), each row by
    itself, so a row's bits do not depend on the batch. They differ from those of the reference
    executor on the same weights by that rounding and by the order of sums.

    Args:
        tensors: of an int4 file, see `mu_ref/integers/int4.py`.
        group: inputs that share a scale; only 128.

    Raises:
        QuantizationError: another group.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], group: int) -> None:
        if group != INT4_GROUP:
            raise QuantizationError(
                f"the fast executor must have int4 groups of {INT4_GROUP}, got {group}; "
                "use the reference executor, or quantize again"
            )
        super().__init__(
            {n: w for n, w in tensors.items() if w.dtype == np.float16 and w.ndim == 1}
        )
        self._packed: dict[str, tuple[np.ndarray, ...]] = {}
        self._sizes: dict[str, tuple[int, int]] = {}  # d_out, and d of a table
        for name, w in tensors.items():
            if w.dtype == np.uint8:
                self._packed[name] = blocks_of(w, tensors[f"{name}_scale"])
            elif w.dtype == np.int8:
                self._packed[name] = _packed8(w, tensors[f"{name}_scale"])
            self._sizes[name] = w.shape[0], w.shape[-1]
        self.n_threads = n_threads(sum(w.nbytes for w in tensors.values()))

    def _of(self, name: str) -> list[int]:
        if name not in self._packed:
            raise WeightsError(f"weights must contain {name!r}; they do not")
        return [array.ctypes.data for array in self._packed[name]]

    def embed(self, tokens: np.ndarray, site: str) -> Tensor:
        """[batch, n_tok] int -> [batch, n_tok, d_model]."""
        name = f"{site}.weight"
        table, scales, _ = self._of(name)
        n_rows, d = self._sizes[name]
        check_tokens(tokens, n_rows, site)
        at = self._input(tokens, "tokens", lambda t: as_integers(check_tokens(t, n_rows, site)))
        x = self._new((*tokens.shape, d))
        self._record(
            machine.EMBED8, x.block.address, table, at, scales,
            tokens.size, d, self._packed[name][0].shape[1], n_rows,
        )  # fmt: skip
        return x

    def linear(self, x: Tensor, site: str, weight_site: str | None = None) -> Tensor:
        """Compute y_n = sum_k x_k W_nk + b_n on rounded x."""
        name = f"{weight_site or site}.weight"
        address, scales, *sums = self._of(name)
        packed, d_out = self._packed[name][0], self._sizes[name][0]
        n_rows = int(np.prod(x.shape[:-1]))
        y = self._new((*x.shape[:-1], d_out))
        if packed.dtype == np.uint8:
            op, rest = machine.LINEAR4, (8 * packed.shape[1] // INT4_GROUP,)
        else:
            op, rest = machine.LINEAR8, (packed.shape[1], *sums)
        self._record(
            op, y.block.address, x.block.address, address, scales,
            self._addresses.get(f"{site}.bias", 0), n_rows, x.shape[-1], d_out, *rest,
        )  # fmt: skip
        return y


def _packed8(w: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, ...]:
    """Whole vectors, rows by four; scales as float32; the sum of each row."""
    packed: Any = aligned((-(-len(w) // 4) * 4, -(-w.shape[1] // BYTES) * BYTES), np.int8)
    packed[: len(w), : w.shape[1]] = w
    sums = w.sum(axis=1, dtype=np.int32)
    return packed, np.ascontiguousarray(scale[:, 0], np.float32), sums
