"""How kernels of the simulator are compiled: once, and kept on disk under a name of all sources."""

from pathlib import Path

from mu_ref.compiled import compiled_folder, kernel_of

__all__ = ["kernel"]

kernel = kernel_of(compiled_folder("npu-sim", Path(__file__).parent.glob("*.py")))
