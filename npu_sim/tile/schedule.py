"""From operations to tasks: which piece moves when, and what every task waits for.

Operations run one after another, as a graph runtime runs them; within an operation, pieces
stream through the engines, and the DMA runs ahead of the operations as far as its ring of SRAM
reaches. Written for Numba: `expand` is a loop over rows of a `CallTable`.
Chapter: `docs/07_npu_tiles.md`.

Assumes:
    A cached key or value that this call appends is forwarded in SRAM; older ones are read from
    DRAM, so their transfers wait for nothing, unless this call has computed all of them.
    Partial sums stay in accumulators inside the matrix engine.
    A write to DRAM takes its time on the port for reads too ("give way"): one port, both ways.
"""

import numpy as np

from npu_sim.tile.attention import matmul
from npu_sim.tile.compiled import kernel
from npu_sim.tile.plan import Plan
from npu_sim.tile.rows import COLUMNS, LINEAR, MATMUL
from npu_sim.tile.tasks import (
    ACTIVATION,
    ACTIVATION_RING,
    BESIDE,
    CONTROL,
    ELEMENTS,
    START,
    UNPACK,
    VECTOR,
    WEIGHT_RING,
    WEIGHTS,
    add,
    free_after,
    multiply,
    place,
    read_into,
    spilled,
    write_back,
)
from npu_sim.tile.tiling import ceil_div, layout_cycles, weight_piece

__all__ = ["Plan", "expand"]

_C = COLUMNS
_FORM, _M, _N, _K = _C["form"], _C["m"], _C["n"], _C["k"]
_WEIGHT_BITS, _BESIDE, _KNOWN = _C["weight_bits"], _C["beside"], _C["known"]
_KV_WRITTEN, _UNPACK = _C["kv_written"], _C["unpack"]
_A, _A_CLASS, _A_FROM = _C["a"], _C["a_class"], _C["a_from"]
_B, _B_CLASS, _B_FROM = _C["b"], _C["b_class"], _C["b_from"]
_OUT, _OUT_CLASS, _LAID_OUT = _C["out"], _C["out_class"], _C["laid_out"]


@kernel
def expand(rows, work_cycles, plan, chip, tasks, rings, n):
    """Write the tasks of one call.

    Args:
        rows: of a `CallTable`.
        work_cycles: [n_rows] cycles of elementwise work.
        plan: of the call.
        chip: the NPU.
        tasks: [n_max, n_fields] int64, filled.
        rings: from `new_rings`, changed.
        n: [2] int64, receives the number of tasks; more than n_max: call again with more. The
            second is the start of the operation that is written.

    Returns:
        True if every piece finds room.
    """
    fits = True
    for i in range(len(rows)):
        row = rows[i]
        n[1] = add(tasks, n, CONTROL, i, chip.op_overhead_cycles, 0, -1, -1, START)
        if row[_FORM] == LINEAR:
            fits = _linear(i, row, plan, chip, tasks, rings, n) and fits
        elif row[_FORM] == MATMUL:
            fits = matmul(i, row, plan, chip, tasks, rings, n) and fits
        else:
            fits = _elements(i, row, work_cycles[i], plan, chip, tasks, rings, n) and fits
    return fits


@kernel
def _load_weights(i, row, columns, depth, first, plan, chip, tasks, rings, n):
    """Read one piece of weights, with biases and scales if it is the first, and unpack it.

    Returns:
        (task that holds it, task that a product waits for); -1 if there can be no room.
    """
    n_bytes = ceil_div(columns * depth * row[_WEIGHT_BITS], 8)
    if first:
        n_bytes += row[_BESIDE]
    pinned = plan.weights_pinned == 1
    if pinned and row[_KNOWN] == 1:
        n_bytes = 0
    wide = columns * depth if row[_UNPACK] > 0 else 0  # the same piece at 8 bits
    load = read_into(
        i, n_bytes, wide if pinned else n_bytes + wide, WEIGHT_RING, WEIGHTS, -1,
        chip, tasks, rings, n,
    )  # fmt: skip
    if row[_UNPACK] == 0 or load < 0:
        return load, load
    cycles = ceil_div(columns * depth, chip.unpack_per_cycle)
    return load, add(tasks, n, VECTOR, i, cycles, 0, load, -1, UNPACK)


@kernel
def _linear(i, row, plan, chip, tasks, rings, n):
    """A product with weights: panels of pieces, blocks of rows, pieces of a panel."""
    m, d_out, d_in = row[_M], row[_N], row[_K]
    columns, depth = weight_piece(d_out, d_in, row[_WEIGHT_BITS], plan.piece_bytes, chip)
    n_deep = ceil_div(d_in, depth)
    n_pieces = ceil_div(d_out, columns) * n_deep
    a = spilled(row[_A], row[_A_CLASS], plan)
    out = spilled(row[_OUT], row[_OUT_CLASS], plan)
    high = _block_rows(m, a, ceil_div(out * columns, d_out), plan, chip)
    by_rows = plan.rows_outer == 1
    # rows outside: one panel per block of rows; a single block needs no panels either
    panel = n_pieces if by_rows or high == m else min(plan.panel, n_pieces)
    loads, ready = np.full(panel, -1), np.full(panel, -1)
    fits = True
    for first in range(0, n_pieces, panel):
        last = min(first + panel, n_pieces)
        for row_0 in range(0, m, high):
            row_1 = min(row_0 + high, m)
            a_load = product = -1
            if a > 0:
                n_bytes = a * (row_1 - row_0) // m
                a_load = read_into(
                    i, n_bytes, n_bytes, ACTIVATION_RING, ACTIVATION, row[_A_FROM],
                    chip, tasks, rings, n,
                )  # fmt: skip
                fits = fits and a_load >= 0
            for piece in range(first, last):
                at = piece - first
                col_0, sum_0 = piece // n_deep * columns, piece % n_deep * depth
                col_1, sum_1 = min(col_0 + columns, d_out), min(sum_0 + depth, d_in)
                if by_rows or row_0 == 0:
                    loads[at], ready[at] = _load_weights(
                        i, row, col_1 - col_0, sum_1 - sum_0, piece == 0,
                        plan, chip, tasks, rings, n,
                    )  # fmt: skip
                    fits = fits and loads[at] >= 0
                    place(tasks, n, loads[at], -1, 0, m, col_0, col_1, sum_0, sum_1)
                whole = row[_LAID_OUT] == 1 and sum_1 == d_in  # these results are complete
                results = (row_1 - row_0) * (col_1 - col_0) if whole else 0
                product = multiply(
                    i, row, row_1 - row_0, col_1 - col_0, sum_1 - sum_0,
                    layout_cycles(results, chip.outputs_per_s, chip),
                    a_load, ready[at], chip, tasks, n,
                )  # fmt: skip
                place(tasks, n, product, -1, row_0, row_1, col_0, col_1, sum_0, sum_1)
                if by_rows or row_1 == m:
                    free_after(tasks, loads[at], product)
                if out > 0 and sum_1 == d_in:
                    n_bytes = out * (row_1 - row_0) // m * (col_1 - col_0) // d_out
                    fits = write_back(i, n_bytes, n_bytes, product, chip, tasks, rings, n) and fits
            free_after(tasks, a_load, product)
    return fits


@kernel
def _block_rows(m, a, out_piece, plan, chip):
    """Rows computed together: all, unless what they read or write moves through DRAM.

    Args:
        m: all rows.
        a: bytes read through DRAM by all rows.
        out_piece: bytes that all rows write through DRAM for one piece of weights.
        plan: limits both.
        chip: blocks are whole tiles where they can be.
    """
    high = m
    if a > 0:
        limit = plan.piece_bytes * (plan.panel if plan.rows_outer == 1 else 1)
        high = min(high, max(1, limit // ceil_div(a, m)))
    if out_piece > 0:
        high = min(high, max(1, plan.piece_bytes // ceil_div(out_piece, m)))
    if chip.tile_m < high < m:
        return high // chip.tile_m * chip.tile_m
    return high


@kernel
def _elements(i, row, cycles, plan, chip, tasks, rings, n):
    """Work of the vector engine: gains are read before it, table rows stream with the elements."""
    a = spilled(row[_A], row[_A_CLASS], plan)
    b = spilled(row[_B], row[_B_CLASS], plan)
    out = spilled(row[_OUT], row[_OUT_CLASS], plan)
    pinned = plan.weights_pinned == 1
    beside = 0 if pinned and row[_KNOWN] == 1 else row[_BESIDE]
    streamed = beside if beside > plan.piece_bytes else 0
    fits, gains, done = True, -1, -1
    if beside > streamed:
        held = 0 if pinned else beside
        gains = read_into(i, beside, held, WEIGHT_RING, BESIDE, -1, chip, tasks, rings, n)
        fits = gains >= 0
    made_by = max(row[_A_FROM] if a > 0 else -1, row[_B_FROM] if b > 0 else -1)
    rest, total = cycles, max(a + b, out, streamed)
    for at in range(0, max(total, 1), plan.piece_bytes):
        last = at + plan.piece_bytes >= total
        some = min(plan.piece_bytes, total - at)
        rows, load = gains, -1
        if streamed > 0:
            n_bytes = _part(streamed, at, some, total)
            held = 0 if pinned else n_bytes
            rows = read_into(i, n_bytes, held, WEIGHT_RING, BESIDE, -1, chip, tasks, rings, n)
            fits = fits and rows >= 0
        if a + b > 0:
            n_bytes = _part(a + b, at, some, total)
            load = read_into(
                i, n_bytes, n_bytes, ACTIVATION_RING, ACTIVATION, made_by, chip, tasks, rings, n
            )
            fits = fits and load >= 0
        share = rest if last else min(rest, cycles * plan.piece_bytes // max(total, 1))
        rest -= share
        done = add(tasks, n, VECTOR, i, share, 0, rows, load, ELEMENTS)
        free_after(tasks, load, done)
        free_after(tasks, rows, done)
        if out > 0:
            n_bytes = _part(out, at, some, total)
            fits = write_back(i, n_bytes, n_bytes, done, chip, tasks, rings, n) and fits
    if row[_KV_WRITTEN] > 0 and plan.cache_pinned == 0:
        held = min(row[_KV_WRITTEN], plan.piece_bytes)
        fits = write_back(i, row[_KV_WRITTEN], held, done, chip, tasks, rings, n) and fits
    return fits


@kernel
def _part(n_bytes, at, some, total):
    """The share of n_bytes that belongs to at..at+some of total."""
    shift = 16 if total >= 1 << 31 else 0  # so that no product passes 2^63
    whole = total >> shift
    return n_bytes * ((at + some) >> shift) // whole - n_bytes * (at >> shift) // whole
