"""The systolic array cell by cell and cycle by cycle, with values.

In a cycle an operand moves to a neighbour, a cell does one multiply-accumulate, and an edge reads
one number per row or column from SRAM. Nothing is computed beside that: product, cycles, reads and
writes are what came out of the cells. Here the product is cut into folds; the cells are in
`cells.py` and its fast twin, which runs, the closed form in `closed_form.py`. Chapter:
`docs/12_systolic.md`.
"""

from dataclasses import dataclass

import numpy as np

from npu_sim.errors import WorkloadError
from npu_sim.systolic.cells import Counts
from npu_sim.systolic.cells_kernel import operand_stationary_fold, output_stationary_fold
from npu_sim.systolic.closed_form import SystolicArray, systolic_counts

__all__ = ["MOST_NUMBERS", "MOST_WORK", "SystolicRun", "check_can_run", "run_systolic", "work_of"]

SumType = type[np.int32] | type[np.int64]
MOST_WORK = 2 * 10**10  # cells x cycles: some seconds, on an array of a few cells a minute
FOLD_WORK = 10**4  # what starting a fold costs, in the same unit
MOST_NUMBERS = 10**8  # of either operand or the product, to be kept in memory


@dataclass(frozen=True, kw_only=True, slots=True)
class SystolicRun:
    """What came out of the array, and what was counted meanwhile."""

    product: np.ndarray  # [m n], int32 if that surely holds it, else int64
    folds: int
    cycles: int
    cycles_per_fold: int  # of the first fold
    sram_ifmap_reads: int
    sram_filter_reads: int
    sram_ofmap_writes: int


def run_systolic(a: np.ndarray, b: np.ndarray, array: SystolicArray) -> SystolicRun:
    """Multiply on the array.

    Args:
        a: [m k] integers, the activations (ifmap).
        b: [k n] integers, the weights (filter).
        array: the array.

    Returns:
        The product, exact, and the counts.

    Raises:
        WorkloadError: not two integer matrices that fit each other, sums that int64 may not hold,
            or more than `check_can_run` allows.
    """
    dtype = _sum_dtype(a, b)
    (m, k), n = a.shape, b.shape[1]
    check_can_run(m, n, k, array)
    if not a.dtype == b.dtype == np.int8:  # narrow registers move faster, and stay as they are
        a, b = a.astype(dtype), b.astype(dtype)
    if array.dataflow == "os":
        product, counts = _run_output_stationary(a, b, array, dtype)
        ifmap, filter_ = 1, 2
    elif array.dataflow == "ws":
        product, counts = _run_operand_stationary(b, a, array, dtype)
        ifmap, filter_ = 2, 1
    else:  # the same with the operands exchanged: (a b)' = b' a'
        product, counts = _run_operand_stationary(a.T, b.T, array, dtype)
        product, ifmap, filter_ = product.T, 1, 2
    return SystolicRun(
        product=np.ascontiguousarray(product),
        folds=len(counts),
        cycles=sum(fold[0] for fold in counts),
        cycles_per_fold=counts[0][0],
        sram_ifmap_reads=sum(fold[ifmap] for fold in counts),
        sram_filter_reads=sum(fold[filter_] for fold in counts),
        sram_ofmap_writes=sum(fold[3] for fold in counts),
    )


def check_can_run(m: int, n: int, k: int, array: SystolicArray) -> None:
    """Refuse what would take hours cell by cell, or more memory than a desk has.

    Args:
        m: rows of the activations.
        n: columns of the weights.
        k: length of each sum.
        array: the array.

    Raises:
        WorkloadError: a size out of its range, or too much to run.
    """
    for what, value, most in (
        ("cells x cycles (and 10,000 per fold)", work_of(m, n, k, array), MOST_WORK),
        ("numbers in a matrix", max(m * k, k * n, m * n), MOST_NUMBERS),
    ):
        if value > most:
            raise WorkloadError(
                f"{what} of a run with values must be at most {most}, got {value}; "
                "count it in closed form"
            )


def work_of(m: int, n: int, k: int, array: SystolicArray) -> int:
    """Return what it takes to run a product cell by cell, in cells x cycles."""
    counts = systolic_counts(m, n, k, array)
    return counts.cycles * array.cells + counts.folds * FOLD_WORK


def _sum_dtype(a: np.ndarray, b: np.ndarray) -> SumType:
    """Check the operands; return the type that holds every product and every partial sum."""
    for name, x in (("a", a), ("b", b)):
        if x.ndim != 2 or x.dtype.kind not in "iu" or x.size == 0:
            raise WorkloadError(
                f"{name} must be a matrix of integers, got {x.dtype} of shape {x.shape}; "
                "quantize it first"
            )
    if a.shape[1] != b.shape[0]:
        raise WorkloadError(
            f"a must have as many columns as b has rows, got {a.shape} and {b.shape}"
        )
    a_most, b_most = _magnitude(a), _magnitude(b)
    largest = max(a.shape[1] * a_most * b_most, a_most, b_most)
    if largest > np.iinfo(np.int64).max:
        raise WorkloadError(
            f"k * max|a| * max|b| must fit int64, got {largest}; use narrower integers"
        )
    return np.int32 if largest <= np.iinfo(np.int32).max else np.int64


def _magnitude(x: np.ndarray) -> int:
    return max(abs(int(x.min())), abs(int(x.max())))


def _run_output_stationary(
    a: np.ndarray, b: np.ndarray, array: SystolicArray, dtype: SumType
) -> tuple[np.ndarray, list[Counts]]:
    """Run every fold: a tile of the product per fold, rows of `a` down, columns of `b` across."""
    product: np.ndarray = np.zeros((a.shape[0], b.shape[1]), dtype)
    counts = []
    for i in range(0, product.shape[0], array.rows):
        for j in range(0, product.shape[1], array.cols):
            here = slice(i, i + array.rows), slice(j, j + array.cols)
            tiles = np.ascontiguousarray(a[here[0]]), np.ascontiguousarray(b[:, here[1]])
            out = np.zeros(product[here].shape, product.dtype)
            counts.append(output_stationary_fold(*tiles, out, array.rows, array.cols))
            product[here] = out
    return product, counts


def _run_operand_stationary(
    held: np.ndarray, stream: np.ndarray, array: SystolicArray, dtype: SumType
) -> tuple[np.ndarray, list[Counts]]:
    """Run every fold of stream @ held: a tile of `held` per fold, through which `stream` passes."""
    product: np.ndarray = np.zeros((stream.shape[0], held.shape[1]), dtype)
    counts = []
    for i in range(0, held.shape[0], array.rows):
        for j in range(0, held.shape[1], array.cols):
            here = slice(i, i + array.rows), slice(j, j + array.cols)
            tiles = np.ascontiguousarray(held[here]), np.ascontiguousarray(stream[:, here[0]])
            out = np.zeros((product.shape[0], tiles[0].shape[1]), product.dtype)
            counts.append(operand_stationary_fold(*tiles, out, array.rows, array.cols))
            product[:, here[1]] += out  # the SRAM of results adds partial sums
    return product, counts
