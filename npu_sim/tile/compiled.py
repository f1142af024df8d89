"""How kernels of the simulator are compiled: once, and kept on disk under a name of all sources."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from mu_ref.files import cache_folder

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
    config.CACHE_DIR = str(
        cache_folder("npu-sim", Path(__file__).parent.glob("*.py"))
    )  # read when a kernel is decorated
    try:
        return numba.njit(cache=True)(function)
    finally:
        config.CACHE_DIR = before
