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

from typing import NamedTuple

import numba
import numpy as np

from npu_sim.table import COLUMNS, LINEAR, MATMUL
from npu_sim.tasks import (
    ACTIVATION,
    ACTIVATION_RING,
    BESIDE,
    CACHE,
    CONTROL,
    DMA_IN,
    DMA_OUT,
    ELEMENTS,
    MATRIX,
    OUT_RING,
    PRODUCT,
    START,
    TASK,
    UNPACK,
    VECTOR,
    WEIGHT_RING,
    WEIGHTS,
    WRITE,
    YIELD,
    add,
    free_after,
    place,
    take,
)
from npu_sim.tiling import (
    ceil_div,
    layout_cycles,
    mac_slots,
    matrix_cycles,
    transfer_cycles,
    weight_piece,
)

__all__ = ["Plan", "expand"]

_C = COLUMNS
_WRITTEN = TASK["written_row"]
_FORM, _COUNT, _M, _N, _K = _C["form"], _C["products"], _C["m"], _C["n"], _C["k"]
_PRECISION, _B_HEADS, _KEYS_ARE_K = _C["precision"], _C["b_heads"], _C["keys_are_k"]
_WEIGHT, _WEIGHT_BITS, _BESIDE, _KNOWN = (
    _C["weight"], _C["weight_bits"], _C["beside"], _C["known"],
)  # fmt: skip
_KV, _KV_AFTER, _KV_WRITTEN = _C["kv"], _C["kv_after"], _C["kv_written"]
_A, _A_CLASS, _A_FROM = _C["a"], _C["a_class"], _C["a_from"]
_B, _B_CLASS, _B_FROM = _C["b"], _C["b_class"], _C["b_from"]
_OUT, _OUT_CLASS, _UNPACK = _C["out"], _C["out_class"], _C["unpack"]
_LAID_OUT = _C["laid_out"]


class Plan(NamedTuple):
    """How one call uses SRAM; the fastest of some is taken (`memory.py`)."""

    piece_bytes: int  # largest transfer
    kept_classes: int  # activations of classes below this stay in SRAM, others move through DRAM
    rows_outer: int  # 1: for each block of rows all weights; 0: for each panel of weights all rows
    panel: int  # pieces of weights (of rows) that stay while rows (weights) stream past
    kept_bytes: int  # activations that lie in SRAM
    weight_ring_bytes: int
    activation_ring_bytes: int
    out_ring_bytes: int
    weights_pinned: int  # 1: weights stay in SRAM from call to call
    cache_pinned: int


@numba.njit(cache=True)
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
            fits = _matmul(i, row, plan, chip, tasks, rings, n) and fits
        else:
            fits = _elements(i, row, work_cycles[i], plan, chip, tasks, rings, n) and fits
    return fits


@numba.njit(cache=True)
def _spilled(n_bytes, tensor_class, plan):
    return n_bytes if tensor_class >= plan.kept_classes else 0


@numba.njit(cache=True)
def _load(i, n_bytes, held, ring, part, written_row, chip, tasks, rings, n):
    """Read bytes into a ring; returns the task, or -1 if there can be no room."""
    begun = -1 if chip.runs_ahead == 1 else n[1]
    at = add(tasks, n, DMA_IN, i, transfer_cycles(n_bytes, chip), n_bytes, begun, -1, part)
    if at < len(tasks):
        tasks[at, _WRITTEN] = written_row
    return at if take(tasks, n, rings, at, ring, held) else -1


@numba.njit(cache=True)
def _store(i, n_bytes, held, made_by, chip, tasks, rings, n):
    """Write what a task made to DRAM; the port for reads gives way as long."""
    fits = take(tasks, n, rings, made_by, OUT_RING, held)
    cycles = transfer_cycles(n_bytes, chip)
    at = add(tasks, n, DMA_OUT, i, cycles, n_bytes, made_by, -1, WRITE)
    free_after(tasks, made_by, at)
    add(tasks, n, DMA_IN, i, cycles, 0, -1, -1, YIELD)
    return fits


@numba.njit(cache=True)
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
    load = _load(
        i, n_bytes, wide if pinned else n_bytes + wide, WEIGHT_RING, WEIGHTS, -1,
        chip, tasks, rings, n,
    )  # fmt: skip
    if row[_UNPACK] == 0 or load < 0:
        return load, load
    cycles = ceil_div(columns * depth, chip.unpack_per_cycle)
    return load, add(tasks, n, VECTOR, i, cycles, 0, load, -1, UNPACK)


@numba.njit(cache=True)
def _linear(i, row, plan, chip, tasks, rings, n):
    """A product with weights: panels of pieces, blocks of rows, pieces of a panel."""
    m, d_out, d_in = row[_M], row[_N], row[_K]
    columns, depth = weight_piece(d_out, d_in, row[_WEIGHT_BITS], plan.piece_bytes, chip)
    n_deep = ceil_div(d_in, depth)
    n_pieces = ceil_div(d_out, columns) * n_deep
    a = _spilled(row[_A], row[_A_CLASS], plan)
    out = _spilled(row[_OUT], row[_OUT_CLASS], plan)
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
                a_load = _load(
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
                product = _product(
                    i, row, row_1 - row_0, col_1 - col_0, sum_1 - sum_0,
                    layout_cycles(results, chip.outputs_per_s, chip),
                    a_load, ready[at], chip, tasks, n,
                )  # fmt: skip
                place(tasks, n, product, -1, row_0, row_1, col_0, col_1, sum_0, sum_1)
                if by_rows or row_1 == m:
                    free_after(tasks, loads[at], product)
                if out > 0 and sum_1 == d_in:
                    n_bytes = out * (row_1 - row_0) // m * (col_1 - col_0) // d_out
                    fits = _store(i, n_bytes, n_bytes, product, chip, tasks, rings, n) and fits
            free_after(tasks, a_load, product)
    return fits


@numba.njit(cache=True)
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


@numba.njit(cache=True)
def _product(i, row, m, n_columns, k, more, a_load, b_ready, chip, tasks, n):
    """Write a task of the matrix engine; `more` cycles lay something out."""
    attention = row[_FORM] == MATMUL
    rates = chip.attention_rates if attention else chip.weight_rates
    cycles = matrix_cycles(1, m, n_columns, k, rates[row[_PRECISION]], chip) + more
    return add(tasks, n, MATRIX, i, cycles, 0, a_load, b_ready, PRODUCT)


@numba.njit(cache=True)
def _matmul(i, row, plan, chip, tasks, rings, n):
    """A product of two activations; the right one may be cached keys or values."""
    a = _spilled(row[_A], row[_A_CLASS], plan)
    b = _spilled(row[_B], row[_B_CLASS], plan)
    out = _spilled(row[_OUT], row[_OUT_CLASS], plan)
    if a > 0 or b > 0 or out > 0:
        return _matmul_by_heads(i, row, a, b, out, plan, chip, tasks, rings, n)
    cached = row[_KV] if plan.cache_pinned == 0 else 0
    rate = chip.attention_rates[row[_PRECISION]]
    rows_each = row[_M] * (row[_COUNT] // row[_B_HEADS])  # rows that share one right operand
    layout = layout_cycles(row[_LAID_OUT], chip.cached_per_s, chip)
    rest = layout + matrix_cycles(row[_B_HEADS], rows_each, row[_N], row[_K], rate, chip)
    # a piece of the cache computes its share: whole pieces the same, the last one what is left
    share = _share(row, plan.piece_bytes, rate, chip)
    share += layout * plan.piece_bytes // max(1, row[_KV])
    fits, keys = True, row[_K] if row[_KEYS_ARE_K] == 1 else row[_N]
    all_keys = row[_B_HEADS] * keys
    for at in range(0, max(cached, 1), plan.piece_bytes):
        n_bytes = min(plan.piece_bytes, cached - at)
        last = at + plan.piece_bytes >= cached
        load = ready = -1
        if n_bytes > 0:
            load, ready = _load_cache(i, row, n_bytes, plan, chip, tasks, rings, n)
            fits = fits and load >= 0
        cycles = rest if last else min(share, rest)
        rest -= cycles
        product = add(tasks, n, MATRIX, i, cycles, 0, ready, -1, PRODUCT)
        key_0 = at * all_keys // cached if cached > 0 else 0  # keys of all heads, in one row
        key_1 = all_keys if last else (at + n_bytes) * all_keys // cached
        place(tasks, n, product, -1, 0, rows_each, key_0, key_1, 0, 0)
        free_after(tasks, load, product)
    return fits


@numba.njit(cache=True)
def _share(row, n_bytes, rate, chip):
    """Cycles of the products that one piece of the cache takes part in, whatever its length."""
    if row[_KV] == 0:
        return 0
    keys = row[_K] if row[_KEYS_ARE_K] == 1 else row[_N]
    many = chip.tile_n * chip.tile_k * chip.rows * chip.columns
    rows_each = row[_M] * (row[_COUNT] // row[_B_HEADS])
    if row[_KEYS_ARE_K] == 1:
        slots = mac_slots(rows_each, row[_N], many, chip)
    else:
        slots = mac_slots(rows_each, many, row[_K], chip)
    # one key costs slots / many; a piece holds n_bytes / (kv / (b_heads keys)) of them
    per_key = float(slots) / float(many)
    in_piece = float(n_bytes) * row[_B_HEADS] * keys / row[_KV]
    return int(per_key * in_piece * 1e6 / rate)


@numba.njit(cache=True)
def _load_cache(i, row, n_bytes, plan, chip, tasks, rings, n):
    """Read keys or values, and unpack them if they have 4 bits."""
    load = _load(
        i, n_bytes, n_bytes * (3 if row[_UNPACK] > 0 else 1), WEIGHT_RING, CACHE, row[_KV_AFTER],
        chip, tasks, rings, n,
    )  # fmt: skip
    if row[_UNPACK] == 0 or load < 0:
        return load, load
    return load, add(
        tasks, n, VECTOR, i, ceil_div(2 * n_bytes, chip.unpack_per_cycle), 0, load, -1, UNPACK
    )


@numba.njit(cache=True)
def _matmul_by_heads(i, row, a, b, out, plan, chip, tasks, rings, n):
    """The same, head by head in blocks of rows, where operands or the result move through DRAM."""
    heads = row[_B_HEADS]
    m = row[_M] * (row[_COUNT] // heads)  # rows that share one right operand
    by_keys = row[_KEYS_ARE_K] == 1
    keys, other = (row[_K], row[_N]) if by_keys else (row[_N], row[_K])
    right = max(b, row[_KV] if plan.cache_pinned == 0 else 0)
    per_key = max(1, right // (heads * keys))
    some = min(keys, max(1, plan.piece_bytes // per_key)) if right > 0 else keys
    high = min(m, chip.tile_m)
    while high > 1 and high * max(a, out) // (heads * m) * some // keys > plan.piece_bytes:
        high = high // 2
    fits = True
    for head in range(heads):
        for key_0 in range(0, keys, some):
            key_1 = min(key_0 + some, keys)
            load = ready = product = -1
            if b > 0:
                n_bytes = per_key * (key_1 - key_0)
                load = ready = _load(
                    i, n_bytes, n_bytes, WEIGHT_RING, ACTIVATION, row[_B_FROM],
                    chip, tasks, rings, n,
                )  # fmt: skip
                fits = fits and load >= 0
            elif right > 0:
                load, ready = _load_cache(
                    i, row, per_key * (key_1 - key_0), plan, chip, tasks, rings, n
                )
                fits = fits and load >= 0
            for row_0 in range(0, m, high):
                row_1 = min(row_0 + high, m)
                a_load = -1
                if a > 0:
                    n_bytes = a * (row_1 - row_0) // (heads * m)
                    if by_keys:
                        n_bytes = n_bytes * (key_1 - key_0) // keys
                    a_load = _load(
                        i, n_bytes, n_bytes, ACTIVATION_RING, ACTIVATION, row[_A_FROM],
                        chip, tasks, rings, n,
                    )  # fmt: skip
                    fits = fits and a_load >= 0
                columns, depth = (other, key_1 - key_0) if by_keys else (key_1 - key_0, other)
                laid_out = row[_LAID_OUT] * (key_1 - key_0) // (heads * keys) if row_0 == 0 else 0
                product = _product(
                    i, row, row_1 - row_0, columns, depth,
                    layout_cycles(laid_out, chip.cached_per_s, chip),
                    a_load, ready, chip, tasks, n,
                )  # fmt: skip
                place(tasks, n, product, head, row_0, row_1, key_0, key_1, 0, 0)
                free_after(tasks, a_load, product)
                if out > 0 and (not by_keys or key_1 == keys):
                    n_bytes = out * (row_1 - row_0) // (heads * m)
                    if not by_keys:
                        n_bytes = n_bytes * (key_1 - key_0) // keys
                    fits = _store(i, n_bytes, n_bytes, product, chip, tasks, rings, n) and fits
            free_after(tasks, load, product)
    return fits


@numba.njit(cache=True)
def _elements(i, row, cycles, plan, chip, tasks, rings, n):
    """Work of the vector engine: what it reads beside, then element by element."""
    a = _spilled(row[_A], row[_A_CLASS], plan)
    b = _spilled(row[_B], row[_B_CLASS], plan)
    out = _spilled(row[_OUT], row[_OUT_CLASS], plan)
    fits, needs, beside = True, -1, -1
    n_bytes = row[_BESIDE] if plan.weights_pinned == 0 or row[_KNOWN] == 0 else 0
    first = n[0]
    for at in range(0, n_bytes, plan.piece_bytes):
        some = min(plan.piece_bytes, n_bytes - at)
        held = 0 if plan.weights_pinned == 1 else some
        needs = beside = _load(i, some, held, WEIGHT_RING, BESIDE, -1, chip, tasks, rings, n)
        fits = fits and needs >= 0
    done = -1
    rest, total = cycles, max(a + b, out)
    for at in range(0, max(total, 1), plan.piece_bytes):
        last = at + plan.piece_bytes >= total
        some = min(plan.piece_bytes, total - at)
        load = -1
        if a + b > 0:
            n_bytes = _part(a + b, at, some, total)
            load = _load(
                i, n_bytes, n_bytes, ACTIVATION_RING, ACTIVATION,
                max(row[_A_FROM] if a > 0 else -1, row[_B_FROM] if b > 0 else -1),
                chip, tasks, rings, n,
            )  # fmt: skip
            fits = fits and load >= 0
        share = rest if last else min(rest, cycles * plan.piece_bytes // max(total, 1))
        rest -= share
        done = add(tasks, n, VECTOR, i, share, 0, needs, load, ELEMENTS)
        free_after(tasks, load, done)
        if out > 0:
            n_bytes = _part(out, at, some, total)
            fits = _store(i, n_bytes, n_bytes, done, chip, tasks, rings, n) and fits
    if beside >= 0:
        for at in range(first, beside + 1):
            free_after(tasks, at, done)
    if row[_KV_WRITTEN] > 0 and plan.cache_pinned == 0:
        held = min(row[_KV_WRITTEN], plan.piece_bytes)
        fits = _store(i, row[_KV_WRITTEN], held, done, chip, tasks, rings, n) and fits
    return fits


@numba.njit(cache=True)
def _part(n_bytes, at, some, total):
    """The share of n_bytes that belongs to at..at+some of total."""
    return n_bytes * (at + some) // total - n_bytes * at // total
