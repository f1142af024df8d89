"""Arrays that start where vectors do."""

from math import prod
from typing import Any

import numpy as np

__all__ = ["LINE", "aligned"]

LINE = 64  # bytes of a cache line, and of a vector


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return zeros that start at a cache line; vectors across two lines would cost two loads."""
    n_bytes = prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(n_bytes + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + n_bytes].view(dtype).reshape(shape)
