"""What a plan costs at least, from the sizes of its pieces alone, before a task is written.

Most calls wait for the DMA, so a plan whose transfers take longer than another plan's whole call
need not be tried. Chapter: `docs/13_tiles.md`.
"""

import numpy as np

from npu_sim.program.rows import LINEAR, MATMUL, VECTOR, CallTable
from npu_sim.tile.compiled import kernel
from npu_sim.tile.plan import Plan
from npu_sim.tile.tiling import (
    Chip,
    block_rows,
    bundled,
    ceil_div,
    key_piece,
    layout_cycles,
    matrix_cycles,
    spilled,
    weight_piece,
    whole_rows,
)

__all__ = ["least_cycles", "least_tasks"]

READ, WRITTEN, TASKS = 0, 2, 4  # places of what is counted


def least_cycles(
    call: CallTable, work: np.ndarray, plan: Plan, chip: Chip, *, streams: bool = False
) -> int:
    """Cycles that no schedule of the plan can beat.

    The port for reads moves what is read, and gives way to what is written. Where it does not run
    ahead of the operations, each of these starts, and then reads and computes, before the next one
    starts, unless they stream.

    Args:
        call: the call.
        work: [n_rows] cycles of the vector engine, from `vector_cycles`.
        plan: which activations move, how large a transfer is, what is pinned.
        chip: bandwidth, set-up, overheads and the array.
        streams: operations begin on parts of those before them.

    Returns:
        Cycles, at most those of any schedule of the plan.
    """
    counted, engines = _least(call.rows, work, plan, chip)
    products, elements, computing, serial = (int(cycles) for cycles in engines)
    read, reads, written, writes, _ = (int(number) for number in counted)
    port = _moved_cycles(read + written, reads + writes, chip)
    if streams:
        return max(port, products, elements)
    starts = len(call.rows) * chip.op_overhead_cycles
    return max(port, starts + (computing if chip.runs_ahead else serial))


@kernel
def _moved_cycles(n_bytes, transfers, chip):
    """Cycles of so many bytes in so many transfers, at least."""
    stream = (
        n_bytes * chip.clock_hz // chip.bytes_per_s
        if n_bytes < 1 << 26
        else (
            n_bytes // chip.bytes_per_s * chip.clock_hz
            + int(n_bytes % chip.bytes_per_s / chip.bytes_per_s * chip.clock_hz * (1 - 1e-12))
        )
    )
    return stream + transfers * chip.setup_cycles


def least_tasks(call: CallTable, plan: Plan, chip: Chip) -> int:
    """Tasks that any schedule of the plan has at least."""
    return int(_least(call.rows, np.zeros(len(call.rows)), plan, chip)[0][TASKS])


@kernel
def _least(rows, work, plan, chip):
    """Return [5] int64, all at least: bytes and transfers of reads, of writes, and tasks.

    And [4] int64 cycles: of products, of elements, of both one after another, and of operations
    one after another, each as long as its reads or its work.
    """
    least, engines = np.zeros(5, np.int64), np.zeros(4, np.int64)
    for i in range(len(rows)):
        before, transfers = least[READ], least[READ + 1]
        if rows[i].form == LINEAR:
            _of_linear(rows[i], plan, chip, least)
        elif rows[i].form == MATMUL:
            _of_matmul(rows[i], plan, chip, least)
        else:
            _of_elements(rows[i], plan, least)
        reads = _moved_cycles(least[READ] - before, least[READ + 1] - transfers, chip)
        elements = rows[i].form == VECTOR
        computes = int(work[i] * (1 - 1e-9)) if elements else _products(rows[i], chip)
        engines[int(elements)] += computes
        engines[2] += computes
        engines[3] += max(reads, computes)
    return least, engines


@kernel
def _products(row, chip):
    """Cycles of the matrix engine, at least: pieces only add to those of the whole."""
    if row.form == MATMUL:
        rows = row.m * (row.products // row.b_heads)
        rate = chip.attention_rates[row.precision]
        return matrix_cycles(row.b_heads, rows, row.n, row.k, rate, chip)
    cycles = matrix_cycles(1, row.m, row.n, row.k, chip.weight_rates[row.precision], chip)
    results = whole_rows(row.m, chip) * row.n if row.laid_out == 1 else 0
    return cycles + layout_cycles(results, chip.outputs_per_s, chip)


@kernel
def _move(least, way, n_bytes, transfers):
    """Count transfers one way; none, if there may be no byte for each."""
    least[way] += n_bytes
    least[way + 1] += transfers if n_bytes >= transfers else 0


@kernel
def _of_linear(row, plan, chip, least):
    """Weights, as often as blocks of rows read them again, and rows, as often as panels do."""
    m, d_out = row.m, row.n
    x, _, out = spilled(row, plan)
    columns, depth = weight_piece(d_out, row.k, row.weight_bits, plan.piece_bytes, chip)
    across = ceil_div(d_out, columns)
    pieces = across * ceil_div(row.k, depth)
    height = block_rows(m, x, ceil_div(out * columns, d_out), plan, chip)
    blocks = ceil_div(m, height)
    times = blocks if plan.rows_outer else 1
    panel = pieces if plan.rows_outer or height == m else min(plan.panel, pieces)
    if not (plan.weights_pinned and row.known == 1):
        _move(least, READ, times * (row.weight + row.beside), times * pieces)
    # a block may round its bytes down, by less than one in each row
    panels = ceil_div(pieces, panel)
    _move(least, READ, x // m * m * panels, blocks * panels)
    _move(least, WRITTEN, out // (m * d_out) * m * d_out, blocks * across)
    times = ceil_div(m, height * bundled(blocks * pieces))  # of bundles, each a task
    products, loads = times * pieces, (times if plan.rows_outer else 1) * pieces
    least[TASKS] += products + loads + times * ((x > 0) * panels + 2 * (out > 0) * across)


@kernel
def _of_matmul(row, plan, chip, least):
    """Pieces of cached keys or values; head by head where activations move."""
    a, b, out = spilled(row, plan)
    cached = 0 if plan.cache_pinned else row.kv
    empty = min(row.empty, cached)  # slots that take a share of their time, perhaps none
    if a == 0 and b == 0 and out == 0:
        _move(least, READ, cached - empty, ceil_div(cached, plan.piece_bytes))
        return
    heads, by_keys = row.b_heads, row.keys_are_k == 1
    m, n_keys = row.m * (row.products // heads), row.k if by_keys else row.n
    right = max(b, cached)
    some, key_bytes, height = key_piece(row, right, max(a, out) // (heads * m), plan, chip)
    pieces, blocks = heads * ceil_div(n_keys, some), ceil_div(m, height)
    if right > 0:
        _move(least, READ, key_bytes * n_keys * heads - empty, pieces)
    rounded = heads * m * n_keys
    if by_keys:
        _move(least, READ, a // rounded * rounded, blocks * pieces)
        _move(least, WRITTEN, out // (heads * m) * heads * m, heads * blocks)
    else:
        _move(least, READ, a // (heads * m) * m * pieces, blocks * pieces)
        _move(least, WRITTEN, out // rounded * rounded, blocks * pieces)


@kernel
def _of_elements(row, plan, least):
    """Pieces of what has most bytes; of what streams beside it, the bytes alone."""
    a, b, out = spilled(row, plan)
    beside = 0 if plan.weights_pinned and row.known == 1 else row.beside
    streamed = beside if beside > plan.piece_bytes else 0
    total = max(a + b, out, streamed)
    pieces = ceil_div(total, plan.piece_bytes)
    for way, n_bytes in ((READ, a + b), (WRITTEN, out), (READ, streamed)):
        _move(least, way, n_bytes, pieces if n_bytes == total else 0)
    if streamed == 0:
        _move(least, READ, beside, beside > 0)
    if not plan.cache_pinned:
        _move(least, WRITTEN, row.kv_written, row.kv_written > 0)
