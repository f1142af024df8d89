"""Arrays that start where vectors do, and memory that need not be held."""

import ctypes
import re
import sys
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["LINE", "aligned", "release_code"]

LINE = 64  # bytes of a cache line, and of a vector
DONTNEED = 4  # of madvise


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return zeros that start at a cache line; vectors across two lines would cost two loads."""
    n_bytes = prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(n_bytes + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + n_bytes].view(dtype).reshape(shape)


def release_code() -> None:
    """Give the pages of libraries back to the system, which reads a page again when it is used.

    Loading compiled kernels goes once through most of LLVM, 70 MB that would stay resident beside
    the weights. Only pages that equal their file are given back: those of mappings that cannot be
    written and of which this process has no copy. Other systems than Linux keep them.
    """
    maps = Path("/proc/self/smaps")
    if not sys.platform.startswith("linux") or not maps.is_file():
        return
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    text = maps.read_text(encoding="utf-8")
    mapping = r"^(\w+)-(\w+) r-.p [^\n]*\.so[\d.]*\n(.*?)^VmFlags"
    for start, end, fields in re.findall(mapping, text, re.MULTILINE | re.DOTALL):
        if not re.search(r"^(?:Anonymous|Swap): +[1-9]", fields, re.MULTILINE):
            libc.madvise(int(start, 16), int(end, 16) - int(start, 16), DONTNEED)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
