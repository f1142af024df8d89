"""Which part of a product of integers a thread computes: its own outputs, or of many rows its own.

With few rows the time is that of reading weights, so each thread reads weights of its own. With
many it is that of arithmetic: each thread then computes all outputs of its own rows, and reads what
it wrote itself, not what lies near another core. Floats take so long to multiply that it does not
show there.
"""

from mu_ref.kernels.compiled import kernel
from mu_ref.kernels.machine import next_part, share
from mu_ref.kernels.products.linear import ROWS

__all__ = ["n_blocks", "next_rows", "outputs_read"]

OWN_ROWS = 32  # rows for each thread, from which it has its own


@kernel
def _groups(n_rows, n_threads):
    return n_threads if n_rows >= OWN_ROWS * n_threads else 1


@kernel
def n_blocks(n_rows, n_threads, block):
    """Count the blocks of rows that pass over the weights, one after the other, for each thread.

    Contract: exact. A block is whole tiles of `ROWS`, so no group of rows has more than the last.
    """
    groups = _groups(n_rows, n_threads)
    first, last = share(n_rows, groups - 1, groups, ROWS)
    return -(-(last - first) // block)


@kernel
def next_rows(work, number, turn, at, thread, n_threads, d_out, step, size, n_rows, block):
    """The next part of a product that this thread does; own parts first, then what others left.

    Args:
        work: from `machine.work_of`.
        number: of the block, see `n_blocks`.
        turn: see `machine.next_part`.
        at: see `machine.next_part`.
        thread: this one.
        n_threads: how many there are.
        d_out: outputs.
        step: outputs that are computed together.
        size: of a part, in outputs, whole steps.
        n_rows: rows of the product.
        block: of them pass over the weights together.

    Returns:
        Whether there is one, the next `turn` and `at`, its first row and how many (perhaps none),
        its first output and where they end.
    """
    groups = _groups(n_rows, n_threads)
    width = d_out if groups == 1 else -(-d_out // step) * step  # outputs of a group of rows
    at, end, turn = next_part(
        work, number, turn, at, thread, n_threads, groups * width, step, size
    )  # fmt: skip
    group = min(at // width, groups - 1)
    first, last = share(n_rows, group, groups, ROWS)
    top = first + number * block
    c = at - group * width
    n = max(0, min(block, last - top))
    return at < end, turn, end, top, n, c, min(end - group * width, d_out)


@kernel
def outputs_read(n_rows, n_outputs, step, thread, n_threads):
    """The outputs whose weights this thread reads, but for what others leave.

    Contract: exact.
    """
    if _groups(n_rows, n_threads) > 1:
        return 0, n_outputs
    return share(n_outputs, thread, n_threads, step)
