"""Arrays that start where vectors do."""

from math import prod
from typing import Any

import numpy as np

__all__ = ["LINE", "Arena", "aligned", "padded"]

LINE = 64  # bytes of a cache line, and of a vector


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return zeros that start at a cache line; vectors across two lines would cost two loads."""
    n_bytes = prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(n_bytes + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + n_bytes].view(dtype).reshape(shape)


def padded(n_bytes: int) -> int:
    """Return the bytes of whole cache lines that hold so many."""
    return -(-n_bytes // LINE) * LINE


class Arena:
    """Memory for arrays that live as long as each other: the weights of a model.

    For an allocation of several MB NumPy asks Linux for pages of 2 MB. Many arrays of less than
    that would lie in pages of 4 KB, and looking these up slows down whoever reads all of them.

    Args:
        n_bytes: of one piece of memory; what does not fit into the rest of it begins another.
    """

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes, self._rest = n_bytes, np.zeros(0, np.uint8)

    def array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return zeros as `aligned` does."""
        n_bytes = prod(shape) * np.dtype(dtype).itemsize
        if padded(n_bytes) > len(self._rest):
            self._rest = aligned((max(padded(n_bytes), self._n_bytes),), np.uint8)
        array, self._rest = self._rest[:n_bytes], self._rest[padded(n_bytes) :]
        return array.view(dtype).reshape(shape)
