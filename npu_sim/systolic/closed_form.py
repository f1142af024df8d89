"""A matrix product on a systolic array in closed form: folds, cycles, SRAM reads and writes.

The array cell by cell, with values, is `array.py`; it counts the same. Chapter:
`docs/12_systolic.md`.
"""

from dataclasses import dataclass
from typing import Any

from mu_ref.border.ranges import Range, check_fields
from mu_ref.errors import check_choice
from npu_sim.errors import HardwareError, WorkloadError
from npu_sim.units import ceil_div

__all__ = [
    "DATAFLOWS",
    "SIDE",
    "SystolicArray",
    "SystolicCounts",
    "overall_util_pct",
    "systolic_counts",
]

DATAFLOWS = ("os", "ws", "is")  # which operand stays: output, weight (filter), input (ifmap)
SIDE = Range(low=1, high=10**12 - 1, why="beyond it there is a mistake, not a matrix")


@dataclass(frozen=True, kw_only=True, slots=True)
class SystolicArray:
    """A grid of cells, each with one multiply-accumulate per cycle.

    Raises:
        HardwareError: rows or columns out of their range, or an unknown dataflow.
    """

    rows: int
    cols: int
    dataflow: str  # one of DATAFLOWS

    def __post_init__(self) -> None:
        """Check the size and the dataflow."""
        check_fields(self, {"rows": SIDE, "cols": SIDE}, HardwareError)
        check_choice("dataflow", self.dataflow, DATAFLOWS, HardwareError)

    @property
    def cells(self) -> int:
        """Cells, which is also the MACs per cycle."""
        return self.rows * self.cols


@dataclass(frozen=True, kw_only=True, slots=True)
class SystolicCounts:
    """What one product [m k] @ [k n] takes. Cycles of the array; reads and writes in elements."""

    folds: int  # times that the array is filled
    cycles_per_fold: int
    cycles: int
    macs: int  # of the product; cells without an operand are not counted
    utilization: float  # macs over those possible in the time, 0 to 1
    sram_ifmap_reads: int  # of the [m k] operand, the activations
    sram_filter_reads: int  # of the [k n] operand, the weights
    sram_ofmap_writes: int  # results, and partial results where k is cut
    scalesim_cycles: int  # SCALE-Sim's report: the number of the last cycle, counted from 0
    scalesim_ofmap_writes: int  # SCALE-Sim's report: for "os" too high by rows + cols per fold

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, ready for `json.dumps`."""
        return {name: getattr(self, name) for name in self.__slots__}


def systolic_counts(m: int, n: int, k: int, array: SystolicArray) -> SystolicCounts:
    """Count folds, cycles and SRAM traffic of [m k] @ [k n].

    Args:
        m: rows of the activations, within `SIDE`.
        n: columns of the weights, the same.
        k: length of each sum, the same.
        array: the array.

    Returns:
        The counts, by (8.1) to (8.5).

    Raises:
        WorkloadError: a size outside that range.

    Assumes:
        Folds do not overlap, the SRAM delivers every operand on time, and an accumulating SRAM adds
        partial results where they are written. The array always takes its full length: a fold
        smaller than the array is not faster.

    Source:
        SCALE-Sim 3.0.0, `compute/systolic_compute_{os,ws,is}.py`, mode CALC.

    Differs from the source:
        `cycles` counts the first cycle too; SCALE-Sim's number is `scalesim_cycles`.
        `sram_ofmap_writes` counts results only; SCALE-Sim's number is `scalesim_ofmap_writes`.
    """
    for name, size in (("m", m), ("n", n), ("k", k)):
        SIDE.check(name, size, WorkloadError)
    row_axis, col_axis, stream = _axes(m, n, k, array.dataflow)
    row_folds, col_folds = ceil_div(row_axis, array.rows), ceil_div(col_axis, array.cols)
    folds = row_folds * col_folds  # (8.1)
    skew = array.rows + array.cols - 2
    per_fold = stream + skew + (0 if array.dataflow == "os" else array.rows)  # (8.2)
    cycles = folds * per_fold  # (8.3)
    ifmap_passes, filter_passes, ofmap_passes = {
        "os": (col_folds, row_folds, 1),
        "ws": (col_folds, 1, row_folds),
        "is": (1, col_folds, row_folds),
    }[array.dataflow]
    writes = m * n * ofmap_passes  # (8.5)
    return SystolicCounts(
        folds=folds,
        cycles_per_fold=per_fold,
        cycles=cycles,
        macs=m * n * k,
        utilization=m * n * k / (cycles * array.cells),
        sram_ifmap_reads=m * k * ifmap_passes,  # (8.4)
        sram_filter_reads=k * n * filter_passes,
        sram_ofmap_writes=writes,
        scalesim_cycles=cycles - 1,
        scalesim_ofmap_writes=writes
        + (folds * (array.rows + array.cols) if array.dataflow == "os" else 0),
    )


def overall_util_pct(counts: SystolicCounts, array: SystolicArray) -> float | None:
    """Utilization in percent as SCALE-Sim reports it, over its own number of cycles.

    Args:
        counts: from `systolic_counts`.
        array: the same array.

    Returns:
        Four decimals; None where SCALE-Sim's number of cycles is 0.
    """
    if counts.scalesim_cycles == 0:
        return None
    return round(100 * counts.macs / (counts.scalesim_cycles * array.cells), 4)


def _axes(m: int, n: int, k: int, dataflow: str) -> tuple[int, int, int]:
    """Say which size lies along the rows, which along the columns, and which streams through."""
    return {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]
