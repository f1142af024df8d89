"""How kernels of the simulator are compiled: once, and kept on disk under a name of all sources.

Numba notices a changed kernel, but not a changed function that the kernel calls; so the folder is
named after the text of every module of this room.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

__all__ = ["kernel"]


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function with Numba at its first call, and keep the result.

    Args:
        function: plain loops over integers and arrays.

    Returns:
        The compiled function; `py_func` is the plain one.
    """
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(_folder())  # read when a kernel is decorated
    try:
        return numba.njit(cache=True)(function)
    finally:
        config.CACHE_DIR = before


def _folder() -> Path:
    """Where compiled kernels are kept: below NUMBA_CACHE_DIR or the user's cache folder."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    given = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    parent = os.environ.get("NUMBA_CACHE_DIR") or Path(given or Path.home() / ".cache") / "npu-sim"
    return Path(parent) / digest.hexdigest()[:16]
