"""How these kernels are compiled: once, and kept on disk under a name of all sources."""

import os
from pathlib import Path

from mu_ref.compiled import compiled_folder, kernel_of

__all__ = ["FOLDER", "dividing", "kernel"]

# Where they are kept; other instructions are other kernels.
FOLDER = compiled_folder(
    "mu-ref", Path(__file__).parent.rglob("*.py"), os.environ.get("MU_REF_NO_VNNI", "")
)

kernel = kernel_of(FOLDER, nogil=True)

# For loops that divide: a 0 in a denominator is no error, so that vectors can be used.
dividing = kernel_of(FOLDER, nogil=True, error_model="numpy")
