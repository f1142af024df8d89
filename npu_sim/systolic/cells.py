"""The cells of the systolic array, one fold per call: the text to read.

A cell has registers. In every cycle each operand moves on to the next cell, each cell does one
multiply-accumulate, and the edges read the next numbers. All cells do so at once, which in NumPy is
one statement for each of these (it copies first where source and target overlap);
`cells_kernel.py` is the fast twin. Chapter:
`docs/12_systolic.md`.
"""

import numpy as np

__all__ = ["Counts", "operand_stationary_fold", "output_stationary_fold"]

Counts = tuple[int, int, int, int]  # cycles, two kinds of reads, writes


def enter(lines: np.ndarray, cycle: int, n_cells: int) -> tuple[np.ndarray, int]:
    """What enters the cells of an edge in a cycle, and how many numbers of it were read.

    Line i starts i cycles late, one number per cycle; before and after it, and in cells that have
    no line, zeros enter.
    """
    entering, n_read = np.zeros(n_cells, lines.dtype), 0
    for i, line in enumerate(lines):
        if 0 <= cycle - i < len(line):
            entering[i] = line[cycle - i]
            n_read += 1
    return entering, n_read


def output_stationary_fold(
    a: np.ndarray, b: np.ndarray, out: np.ndarray, n_rows: int, n_cols: int
) -> Counts:
    """Write out [m n] = a [m k] @ b [k n]; every cell keeps its sum.

    Row r of a enters on the left and moves right, column c of b enters at the top and moves down;
    each starts a cycle after its neighbour, so a[r, i] and b[i, c] meet in cell (r, c).

    Args:
        a: [m k] integers, m <= n_rows.
        b: [k n] integers, n <= n_cols.
        out: [m n] of a type that holds every sum, filled.
        n_rows: rows of cells.
        n_cols: columns of cells.

    Returns:
        Cycles, reads of a, reads of b, writes.
    """
    (m, k), n = a.shape, b.shape[1]
    right, down, sums = (np.zeros((n_rows, n_cols), out.dtype) for _ in range(3))
    # A bit goes along with the last operand of each row: the cell that it reaches is finished.
    last = np.zeros((n_rows, n_cols), bool)
    cycle = n_finished = a_reads = b_reads = writes = 0
    while n_finished < n_rows * n_cols:
        right[:, 1:], down[1:], last[:, 1:] = right[:, :-1], down[:-1], last[:, :-1]
        right[:, 0], n_read = enter(a, cycle, n_rows)
        a_reads += n_read
        down[0], n_read = enter(b.T, cycle, n_cols)
        b_reads += n_read
        last[:, 0] = cycle - np.arange(n_rows) == k - 1
        sums += right * down
        done = last[:m, :n]
        out[done] = sums[:m, :n][done]  # a finished sum leaves on the wire of its column
        writes += int(done.sum())
        n_finished += int(last.sum())
        cycle += 1
    return cycle, a_reads, b_reads, writes


def operand_stationary_fold(
    held: np.ndarray, stream: np.ndarray, out: np.ndarray, n_rows: int, n_cols: int
) -> Counts:
    """Write out [t n] = stream [t k] @ held [k n]; held stays in place.

    First held moves down to its rows, the last one ahead. Then column r of stream enters row r on
    the left, a cycle after the row above, and moves right; sums move down and leave at the bottom.

    Args:
        held: [k n] integers, k <= n_rows, n <= n_cols.
        stream: [t k] integers.
        out: [t n] of a type that holds every sum, filled.
        n_rows: rows of cells.
        n_cols: columns of cells.

    Returns:
        Cycles, reads of held, reads of stream, writes.
    """
    (k, n), t = held.shape, stream.shape[0]
    hold, right, sums = (np.zeros((n_rows, n_cols), out.dtype) for _ in range(3))
    held_reads = stream_reads = writes = n_left = 0
    for row in reversed(range(n_rows)):  # the row that enters at the top
        hold[1:] = hold[:-1]
        hold[0] = 0
        if row < k:
            hold[0, :n] = held[row]
            held_reads += n
    # A bit goes along with each operand of the last row: where it is, a whole sum leaves.
    whole = np.zeros(n_cols, bool)
    n_out = np.zeros(n_cols, int)  # sums that have left each column
    cycle = 0
    while n_left < t * n_cols:
        right[:, 1:], sums[1:], whole[1:] = right[:, :-1], sums[:-1], whole[:-1]
        right[:, 0], n_read = enter(stream.T, cycle, n_rows)
        stream_reads += n_read
        sums[0], whole[0] = 0, 0 <= cycle - (n_rows - 1) < t
        sums += right * hold
        for c in np.flatnonzero(whole[:n]):
            out[n_out[c], c] = sums[-1, c]
            writes += 1
        n_out += whole
        n_left += int(whole.sum())
        cycle += 1
    return n_rows + cycle, held_reads, stream_reads, writes
