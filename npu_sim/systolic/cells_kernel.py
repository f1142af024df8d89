"""The compiled twin of `cells.py`: the same registers, visited only where something happens.

In every cycle a kernel visits the cells that a row's first operand has reached and its last one has
not passed; in all others nothing happens. Column counters are unsigned because Numba then drops its
check for negative indices, and the loop over the cells of a row becomes vector instructions; the
order of its statements is for that too.
"""

from pathlib import Path

import numpy as np

from mu_ref.compiled import compiled_folder, kernel_of
from npu_sim.systolic.cells import Counts

__all__ = ["operand_stationary_fold", "output_stationary_fold"]

kernel = kernel_of(compiled_folder("npu-sim", Path(__file__).parent.glob("*.py")), nogil=True)


@kernel
def output_stationary_fold(
    a: np.ndarray, b: np.ndarray, out: np.ndarray, n_rows: int, n_cols: int
) -> Counts:
    """Twin of `cells.output_stationary_fold`. Contract: exact."""
    (m, k), n = a.shape, b.shape[1]
    right = np.zeros((m, n), a.dtype)  # what a cell passes to the right
    down = np.zeros((m + 1, n), a.dtype)  # [r + 1, c]: what it passes down; [0, c]: what enters
    sums, sum_type = np.zeros((m, n), out.dtype), out.dtype.type
    cycle = n_finished = a_reads = b_reads = writes = 0
    while n_finished < n_rows * n_cols:
        for c in range(max(cycle - k + 1, 0), min(cycle + 1, n)):
            down[0, c] = b[cycle - c, c]
            b_reads += 1
        last_row, first_row = min(cycle, n_rows - 1), max(cycle - k - n_cols + 2, 0)
        for r in range(last_row, first_row - 1, -1):  # upwards: the row above has not moved yet
            head = cycle - r  # column that the first operand of the row has reached
            tail = head - (k - 1)  # and the last one
            if r < m and tail < n:
                first = max(tail, 0)
                if tail <= 0:
                    x = a[r, head]
                    a_reads += 1
                else:
                    x = right[r, first - 1]
                for c in range(np.uint64(first), np.uint64(min(head + 1, n))):
                    x_next = right[r, c]
                    y = down[r, c]
                    right[r, c] = x
                    down[r + 1, c] = y
                    sums[r, c] = sum_type(sums[r, c] + sum_type(sum_type(x) * sum_type(y)))
                    x = x_next
            if tail >= 0:
                n_finished += 1
                if r < m and tail < n:
                    out[r, tail] = sums[r, tail]
                    writes += 1
        cycle += 1
    return cycle, a_reads, b_reads, writes


@kernel
def _load(held: np.ndarray, hold: np.ndarray) -> tuple[int, int]:
    """Move held [k n] down into the cells, its last row first; return cycles and reads."""
    (k, n), n_rows = held.shape, hold.shape[0]
    cycle = reads = 0
    for row in range(n_rows - 1, -1, -1):  # the row that enters at the top
        for r in range(n_rows - 1 - row, 0, -1):
            for c in range(n):
                hold[r, c] = hold[r - 1, c]
        for c in range(n):
            hold[0, c] = 0
            if row < k:
                hold[0, c] = held[row, c]
                reads += 1
        cycle += 1
    return cycle, reads


@kernel
def operand_stationary_fold(
    held: np.ndarray, stream: np.ndarray, out: np.ndarray, n_rows: int, n_cols: int
) -> Counts:
    """Twin of `cells.operand_stationary_fold`. Contract: exact."""
    (k, n), t = held.shape, stream.shape[0]
    hold = np.zeros((n_rows, n), held.dtype)
    right = np.zeros((n_rows, n), held.dtype)  # what a cell passes to the right
    sums = np.zeros((n_rows + 1, n), out.dtype)  # [r + 1, c]: what it passes down; [0, c]: zero
    sum_type = out.dtype.type
    n_out = np.zeros(n_cols, np.int64)  # sums that have left each column
    start, held_reads = _load(held, hold)
    cycle, n_left, stream_reads, writes = start, 0, 0, 0
    while n_left < t * n_cols:
        step = cycle - start
        last_row, first_row = min(step, n_rows - 1), max(step - t - n_cols + 2, 0)
        for r in range(last_row, first_row - 1, -1):  # upwards: the row above has not moved yet
            head = step - r  # column that the first operand of the row has reached
            tail = head - (t - 1)  # and the last one
            if tail < n:
                first = max(tail, 0)
                if tail > 0:
                    x = right[r, first - 1]
                elif r < k:
                    x = stream[head, r]
                    stream_reads += 1
                else:
                    x = held.dtype.type(0)
                for c in range(np.uint64(first), np.uint64(min(head + 1, n))):
                    x_next = right[r, c]
                    right[r, c] = x
                    product = sum_type(sum_type(x) * sum_type(hold[r, c]))
                    sums[r + 1, c] = sum_type(sums[r, c] + product)
                    x = x_next
            if r == n_rows - 1:
                for c in range(max(tail, 0), min(head + 1, n_cols)):
                    if c < n:
                        out[n_out[c], c] = sums[n_rows, c]
                        writes += 1
                    n_out[c] += 1
                    n_left += 1
        cycle += 1
    return cycle, held_reads, stream_reads, writes
