"""Numba kernels, each the twin of a reference function; compiled once and kept on disk.

Imports configurations and memory, nothing above. Read `linear.py` first: it says what a product
is; `float_program.py` and `integer_program.py` say who calls it. Numba notices a changed kernel,
but not a changed function that the kernel calls; so the folder of the compiled code is named after
all sources here, and after the instructions that were asked for.
"""

import os
from pathlib import Path

import numba

from mu_ref.files import cache_folder

__all__ = ["compiled_folder"]


def compiled_folder() -> Path:
    """Where these kernels are kept; other instructions are other kernels."""
    instructions = os.environ.get("MU_REF_NO_VNNI", "")
    return cache_folder("mu-ref", Path(__file__).parent.glob("*.py"), instructions)


_before = numba.config.CACHE_DIR
numba.config.CACHE_DIR = str(compiled_folder())  # read when a kernel is decorated
try:
    from mu_ref.kernels import float_program, integer_program, trees  # noqa: F401
finally:
    numba.config.CACHE_DIR = _before
