"""The compiled twin of `schedule.py`, `attention.py` and `tasks.py`: the same tasks, sooner.

Functions have the names and the order of those that they repeat; what is explained there is not
explained again. A task is its place in the list, and -1 is none.
"""

from typing import Any, NamedTuple

import numpy as np

from npu_sim.program.rows import LINEAR, MATMUL
from npu_sim.tile.compiled import kernel
from npu_sim.tile.plan import Plan
from npu_sim.tile.tasks import Engine, Part, Ring
from npu_sim.tile.tiling import (
    Chip,
    block_cycles,
    block_rows,
    bundled,
    cache_moved,
    cached_piece_cycles,
    ceil_div,
    key_piece,
    laid_out_rows,
    layout_cycles,
    matrix_cycles,
    pieces_cycles,
    share_of,
    spilled,
    transfer_cycles,
    weight_piece,
    whole_rows,
)

__all__ = ["schedule"]


class Operation(NamedTuple):
    """One operation, and where its tasks are written."""

    number: int
    row: Any  # ROW
    work_cycles: float
    start: int  # the task that starts it
    plan: Plan
    chip: Chip
    tasks: np.ndarray  # [n_max] TASK
    n_tasks: np.ndarray  # [1] int64, written so far; those without a place are counted too


@kernel
def schedule(rows, work_cycles, plan, chip, tasks):
    """Twin of `schedule.schedule`. Contract: exact.

    Writes the tasks of rows [n_rows] ROW with work [n_rows] into tasks [n_max] TASK, but for their
    rooms, and returns how many there are. If there are more than n_max, nothing there is of use.
    """
    n_tasks = np.zeros(1, np.int64)
    for i in range(len(rows)):
        op = Operation(i, rows[i], work_cycles[i], n_tasks[0], plan, chip, tasks, n_tasks)
        add(op, Engine.CONTROL, Part.START, chip.op_overhead_cycles, 0, -1, -1)
        if op.row.form == LINEAR:
            linear(op)
        elif op.row.form == MATMUL:
            matmul(op)
        else:
            elements(op)
    return n_tasks[0]


@kernel
def add(op, engine, part, cycles, n_bytes, needs, needs_too):
    """Write a task; returns its place."""
    # without a place left it goes over the last one: the caller sees the number and tries again
    at = min(op.n_tasks[0], len(op.tasks) - 1)
    op.n_tasks[0] += 1
    task = op.tasks[at]
    task.op, task.engine, task.part = op.number, engine, part
    task.cycles, task.n_bytes, task.needs, task.needs_too = cycles, n_bytes, needs, needs_too
    task.start = task.end = task.room = task.last_user = -1
    task.written_op = task.ring = task.head = -1
    task.held_bytes = 0
    task.row_0 = task.row_1 = task.col_0 = task.col_1 = task.sum_0 = task.sum_1 = 0
    return at


@kernel
def place(op, at, row_0, row_1, col_0, col_1, sum_0, sum_1):
    """Say which part of the operation a task works on."""
    task = op.tasks[at]
    task.row_0, task.row_1, task.col_0, task.col_1 = row_0, row_1, col_0, col_1
    task.sum_0, task.sum_1 = sum_0, sum_1


@kernel
def read(op, part, n_bytes, ring, held_bytes, written_op, n_pieces):
    """Read pieces from DRAM into a ring."""
    start = -1 if op.chip.runs_ahead else op.start
    cycles = transfer_cycles(n_bytes, op.chip, n_pieces)
    at = add(op, Engine.DMA_IN, part, cycles, n_bytes, start, -1)
    task = op.tasks[at]
    task.written_op, task.ring, task.held_bytes = written_op, ring, ceil_div(held_bytes, n_pieces)
    return at


@kernel
def unpacked(op, load, n_elements, times):
    """Return the task that a product waits for: the read, or the unpacking of its 4 bits."""
    if op.row.unpack == 0:
        return load
    cycles = times * ceil_div(n_elements, op.chip.unpack_per_cycle)
    return add(op, Engine.VECTOR, Part.UNPACK, cycles, 0, load, -1)


@kernel
def multiply(op, m, height, n, k, more, x, ready):
    """Multiply [m k] by [k n] in blocks of rows; `more` cycles lay something out."""
    rates = op.chip.attention_rates if op.row.form == MATMUL else op.chip.weight_rates
    cycles = block_cycles(m, height, n, k, rates[op.row.precision], op.chip) + more
    return add(op, Engine.MATRIX, Part.PRODUCT, cycles, 0, x, ready)


@kernel
def write(op, made_by, n_bytes, n_pieces, held_bytes):
    """Write what a task has made to DRAM; the port for reads gives way as long."""
    cycles = transfer_cycles(n_bytes, op.chip, n_pieces)
    at = add(op, Engine.DMA_OUT, Part.WRITE, cycles, n_bytes, made_by, -1)
    task = op.tasks[made_by]
    task.ring, task.held_bytes, task.last_user = Ring.RESULTS, held_bytes, at
    add(op, Engine.DMA_IN, Part.GIVE_WAY, cycles, 0, -1, -1)


@kernel
def linear(op):
    """A product with weights."""
    row, plan, chip = op.row, op.plan, op.chip
    m, d_out, d_in = row.m, row.n, row.k
    x_bytes, _, out_bytes = spilled(row, plan)
    columns, depth = weight_piece(d_out, d_in, row.weight_bits, plan.piece_bytes, chip)
    n_deep = ceil_div(d_in, depth)
    n_pieces = ceil_div(d_out, columns) * n_deep
    height = block_rows(m, x_bytes, ceil_div(out_bytes * columns, d_out), plan, chip)
    panel = n_pieces if plan.rows_outer or height == m else min(plan.panel, n_pieces)
    bundle = height * bundled(ceil_div(m, height) * n_pieces)
    weights, ready = np.full(panel, -1), np.full(panel, -1)
    for first in range(0, n_pieces, panel):
        for row_0 in range(0, m, bundle):
            row_1 = min(row_0 + bundle, m)
            x = product = -1
            blocks = ceil_div(row_1 - row_0, height)
            if x_bytes > 0:
                n_bytes = x_bytes * (row_1 - row_0) // m
                ring = Ring.ACTIVATIONS
                x = read(op, Part.ACTIVATION, n_bytes, ring, n_bytes, row.a_from, blocks)
            for piece in range(first, min(first + panel, n_pieces)):
                at = piece - first
                col_0, sum_0 = piece // n_deep * columns, piece % n_deep * depth
                col_1, sum_1 = min(col_0 + columns, d_out), min(sum_0 + depth, d_in)
                if plan.rows_outer or row_0 == 0:
                    times = blocks if plan.rows_outer else 1
                    weights[at], ready[at] = load_weights(op, col_0, col_1, sum_0, sum_1, times)
                whole = row.laid_out == 1 and sum_1 == d_in
                results = whole_rows(row_1 - row_0, chip) * (col_1 - col_0) if whole else 0
                more = layout_cycles(results, chip.outputs_per_s, chip)
                product = multiply(
                    op, row_1 - row_0, height, col_1 - col_0, sum_1 - sum_0, more, x, ready[at]
                )
                place(op, product, row_0, row_1, col_0, col_1, sum_0, sum_1)
                if plan.rows_outer or row_1 == m:
                    op.tasks[weights[at]].last_user = product
                if out_bytes > 0 and sum_1 == d_in:
                    n_bytes = out_bytes * (row_1 - row_0) // m * (col_1 - col_0) // d_out
                    write(op, product, n_bytes, blocks, ceil_div(n_bytes, blocks))
            if x >= 0:
                op.tasks[x].last_user = product


@kernel
def load_weights(op, col_0, col_1, sum_0, sum_1, times):
    """Read one piece of weights; return the task that holds it and the one to wait for."""
    row, plan = op.row, op.plan
    n_elements = (col_1 - col_0) * (sum_1 - sum_0)
    n_bytes = ceil_div(n_elements * row.weight_bits, 8)
    if col_0 == 0 and sum_0 == 0:
        n_bytes += row.beside
    if plan.weights_pinned and row.known == 1:
        n_bytes = 0
    held = (0 if plan.weights_pinned else n_bytes) + (n_elements if row.unpack > 0 else 0)
    held = min(held, plan.weight_ring_bytes)
    ring = Ring.WEIGHTS
    load = read(op, Part.WEIGHTS, times * n_bytes, ring, times * held, -1, times)
    place(op, load, 0, row.m, col_0, col_1, sum_0, sum_1)
    return load, unpacked(op, load, n_elements, times)


@kernel
def elements(op):
    """Work of the vector engine."""
    row, plan = op.row, op.plan
    a, b, out_bytes = spilled(row, plan)
    made_by = max(row.a_from if a > 0 else -1, row.b_from if b > 0 else -1)
    beside = 0 if plan.weights_pinned and row.known == 1 else row.beside
    streamed = beside if beside > plan.piece_bytes else 0
    gains = done = -1
    if beside > 0 and streamed == 0:
        held = 0 if plan.weights_pinned else beside
        gains = read(op, Part.BESIDE, beside, Ring.WEIGHTS, held, -1, 1)
    total = max(a + b, out_bytes, streamed)
    bundle = max(bundled(ceil_div(total, plan.piece_bytes)), 1)
    for at in range(0, max(total, 1), bundle * plan.piece_bytes):
        some = min(bundle * plan.piece_bytes, total - at)
        pieces = max(ceil_div(some, plan.piece_bytes), 1)
        table_rows, x = gains, -1
        if streamed > 0:
            n_bytes = share_of(streamed, at, some, total)
            held = 0 if plan.weights_pinned else n_bytes
            table_rows = read(op, Part.BESIDE, n_bytes, Ring.WEIGHTS, held, -1, pieces)
        if a + b > 0:
            n_bytes = share_of(a + b, at, some, total)
            x = read(op, Part.ACTIVATION, n_bytes, Ring.ACTIVATIONS, n_bytes, made_by, pieces)
        cycles = pieces_cycles(op.work_cycles, some, total, plan.piece_bytes)
        done = add(op, Engine.VECTOR, Part.ELEMENTS, cycles, 0, table_rows, x)
        for load in (table_rows, x):
            if load >= 0:
                op.tasks[load].last_user = done
        if out_bytes > 0:
            n_bytes = share_of(out_bytes, at, some, total)
            write(op, done, n_bytes, pieces, ceil_div(n_bytes, pieces))
    if row.kv_written > 0 and not plan.cache_pinned:
        write(op, done, row.kv_written, 1, min(row.kv_written, plan.piece_bytes))


@kernel
def matmul(op):
    """A product of two activations."""
    row, plan, chip = op.row, op.plan, op.chip
    a, b, out = spilled(row, plan)
    if a > 0 or b > 0 or out > 0:
        by_heads(op, a, b, out)
        return
    cached = 0 if plan.cache_pinned else row.kv
    rate = chip.attention_rates[row.precision]
    rows_each = row.m * (row.products // row.b_heads)
    rest = matrix_cycles(row.b_heads, rows_each, row.n, row.k, rate, chip)
    if cached == 0:
        laid_out = laid_out_rows(row.laid_out, row.rows, chip)
        rest += layout_cycles(laid_out, chip.cached_per_s, chip)
    all_keys = row.b_heads * (row.k if row.keys_are_k == 1 else row.n)
    bundle = max(bundled(ceil_div(cached, plan.piece_bytes)), 1)
    share = bundle * cached_piece_cycles(row, plan.piece_bytes, rate, chip) if cached > 0 else 0
    for at in range(0, max(cached, 1), bundle * plan.piece_bytes):
        n_bytes = min(bundle * plan.piece_bytes, cached - at)
        last = at + bundle * plan.piece_bytes >= cached
        load = ready = -1
        if cached > 0:
            load, ready = load_cache(op, n_bytes, ceil_div(n_bytes, plan.piece_bytes))
        cycles = rest if last else min(rest, share)
        rest -= cycles
        product = add(op, Engine.MATRIX, Part.PRODUCT, cycles, 0, ready, -1)
        key_0 = at * all_keys // cached if cached > 0 else 0
        key_1 = all_keys if last else (at + n_bytes) * all_keys // cached
        place(op, product, 0, rows_each, key_0, key_1, 0, 0)
        if load >= 0:
            op.tasks[load].last_user = product


@kernel
def load_cache(op, n_bytes, n_pieces):
    """Read keys or values; return the task that holds them and the one to wait for."""
    row, chip = op.row, op.chip
    held = n_bytes + (2 * n_bytes if row.unpack > 0 else 0)
    moved = cache_moved(n_bytes, row, chip)
    load = read(op, Part.CACHE, n_bytes, Ring.WEIGHTS, held, row.kv_after, n_pieces)
    cycles = transfer_cycles(moved, chip, n_pieces)
    op.tasks[load].cycles = cycles + layout_cycles(moved, chip.cached_per_s, chip)
    return load, unpacked(op, load, 2 * n_bytes, 1)


@kernel
def by_heads(op, a, b, out):
    """The same, head by head in blocks of rows."""
    row, plan, chip = op.row, op.plan, op.chip
    heads, by_keys = row.b_heads, row.keys_are_k == 1
    m = row.m * (row.products // heads)
    n_keys, other = (row.k, row.n) if by_keys else (row.n, row.k)
    right = max(b, 0 if plan.cache_pinned else row.kv)
    some, key_bytes, height = key_piece(row, right, max(a, out) // (heads * m), plan, chip)
    together = some * bundled(heads * ceil_div(n_keys, some))
    bundle = height * bundled(heads * ceil_div(n_keys, together) * ceil_div(m, height))
    rate = chip.attention_rates[row.precision]
    for head in range(heads):
        for key_0 in range(0, n_keys, together):
            key_1 = min(key_0 + together, n_keys)
            keys = key_1 - key_0
            pieces = ceil_div(keys, some)
            last = keys - (pieces - 1) * some
            n_bytes = key_bytes * keys
            load = ready = product = -1
            if b > 0:
                ring = Ring.WEIGHTS
                load = read(op, Part.ACTIVATION, n_bytes, ring, n_bytes, row.b_from, pieces)
                ready = load
            elif right > 0:
                load, ready = load_cache(op, n_bytes, pieces)
            read_keys = keys if by_keys else pieces * n_keys
            written_keys = n_keys if by_keys else keys
            for row_0 in range(0, m, bundle):
                row_1 = min(row_0 + bundle, m)
                x, blocks = -1, ceil_div(row_1 - row_0, height)
                if a > 0:
                    n_bytes = a * (row_1 - row_0) // (heads * m) * read_keys // n_keys
                    ring, n_moved = Ring.ACTIVATIONS, blocks * pieces
                    x = read(op, Part.ACTIVATION, n_bytes, ring, n_bytes, row.a_from, n_moved)
                n, k = (other, some) if by_keys else (some, other)
                n_last, k_last = (other, last) if by_keys else (last, other)
                here = row_0 == 0 and (b > 0 or right == 0)
                whole = laid_out_rows(row.laid_out, row.rows, chip)
                laid_out = whole * keys // (heads * n_keys) if here else 0
                more = layout_cycles(laid_out, chip.cached_per_s, chip)
                more += (pieces - 1) * block_cycles(row_1 - row_0, height, n, k, rate, chip)
                product = multiply(op, row_1 - row_0, height, n_last, k_last, more, x, ready)
                place(op, product, row_0, row_1, key_0, key_1, 0, 0)
                op.tasks[product].head = head
                if x >= 0:
                    op.tasks[x].last_user = product
                if out > 0 and (not by_keys or key_1 == n_keys):
                    n_bytes = out * (row_1 - row_0) // (heads * m) * written_keys // n_keys
                    n_moved = blocks * (1 if by_keys else pieces)
                    write(op, product, n_bytes, n_moved, ceil_div(n_bytes, n_moved))
            if load >= 0:
                op.tasks[load].last_user = product
