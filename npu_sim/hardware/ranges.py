"""What each number of an NPU may be, by its path; ceilings are where no chip is, with room above.

They also keep every product of the kernels within 64 bits (`tile/tiling.py`), which do not check.
"""

from collections.abc import Mapping
from types import MappingProxyType

from mu_ref.border.ranges import Range
from npu_sim.errors import HardwareError

__all__ = ["check_number", "range_of"]

_CELLS = Range(low=1, high=4096, why="no chip has an array or a block so wide")
_RATE = Range(low=0, high=2**23, why="no chip has so many multipliers")
_LANES = Range(low=1, high=2**24, why="no chip has so many lanes")
_PER_S = Range(low=1, high=10**15, why="no memory moves a petabyte per second")
_FREE_OR_PER_S = Range(low=0, high=10**15, why="0 is free, and costs as little")
_BYTES = Range(low=1, high=2**50, why="no memory holds a pebibyte")
_SHARE = Range(low=1e-6, high=1, whole=False, why="it is a share of the peak")
_BY_PATH: Mapping[str, Range] = MappingProxyType({
    "clock_hz": Range(low=1, high=10**11, why="no chip is clocked at 100 GHz"),
    "matrix.rows": _CELLS, "matrix.columns": _CELLS,
    "matrix.tile_m": _CELLS, "matrix.tile_n": _CELLS, "matrix.tile_k": _CELLS,
    "matrix.w8a8_macs_per_cycle": Range(low=1, high=_RATE.high, why=_RATE.why),
    "matrix.output_elements_per_s": _FREE_OR_PER_S,
    "vector.width_bytes": _LANES, "vector.unpack_elements_per_cycle": _LANES,
    "vector.special_function_cycles": Range(
        low=0, high=1000, whole=False, why="no function takes so long"
    ),
    "dma.transfer_bytes": Range(low=1, high=2**32, why="no DMA moves more at once"),
    "dma.cache_bytes_per_s": _FREE_OR_PER_S,
    "dma.empty_slot_share": Range(
        low=0, high=1, whole=False, why="an empty slot costs no more than a full one"
    ),
    "sram.tile_rows": _CELLS, "sram.block_rows": _CELLS,
})  # fmt: skip
_BY_ENDING: Mapping[str, Range] = MappingProxyType({
    "_macs_per_cycle": _RATE, "efficiency": _SHARE, "bytes_per_s": _PER_S,
    "capacity_bytes": _BYTES,
    "_cycles": Range(low=0, high=10**9, why="nothing takes so long to start"),
    "_us": Range(low=0, high=10**9, whole=False, why="no call waits for a quarter of an hour"),
    "_pj": Range(low=0, high=10**9, whole=False, why="nothing costs a millijoule"),
    "_watts": Range(low=0, high=10**6, whole=False, why="no chip draws a megawatt"),
})  # fmt: skip


def range_of(path: str) -> Range:
    """Return what a number of an NPU may be.

    Args:
        path: of `Npu.numbers()`.

    Returns:
        Its range.
    """
    found = _BY_PATH.get(path)
    return found or next(r for ending, r in _BY_ENDING.items() if path.endswith(ending))


def check_number(path: str, value: object) -> None:
    """Check one number of an NPU.

    Args:
        path: of `Npu.numbers()`.
        value: anything.

    Raises:
        HardwareError: it does not fit the range of its path.
    """
    range_of(path).check(path, value, HardwareError)
