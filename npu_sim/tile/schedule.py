"""From operations to tasks: which piece moves when, and what every task waits for.

Operations run one after another, as a graph runtime runs them; within an operation pieces stream
through the engines, and the DMA runs ahead of the operations as far as its ring of SRAM reaches.
This is the text to read; `schedule_kernel.py` is its fast twin. Chapter: `docs/13_tiles.md`.

Assumes:
    A cached key or value that this call appends is forwarded in SRAM; older ones are read from
    DRAM, so their transfers wait for nothing, unless this call has computed all of them.
    Partial sums stay in accumulators inside the matrix engine.
    A write to DRAM takes its time on the port for reads too ("give way"): one port, both ways.
"""

from collections.abc import Generator, Iterator

from npu_sim.hardware.chip import Npu
from npu_sim.program.rows import LINEAR, MATMUL, CallTable, Row
from npu_sim.tile.attention import matmul
from npu_sim.tile.plan import Plan
from npu_sim.tile.tasks import Engine, Loaded, Operation, Part, Ring, Task, cut
from npu_sim.tile.tiling import (
    block_rows,
    bundled,
    ceil_div,
    chip_numbers,
    layout_cycles,
    pieces_cycles,
    share_of,
    spilled,
    vector_cycles,
    weight_piece,
    whole_rows,
)

__all__ = ["schedule"]


def schedule(call: CallTable, plan: Plan, npu: Npu) -> Iterator[Task]:
    """Yield the tasks of one call; each engine runs its own in this order.

    Args:
        call: its operations.
        plan: how SRAM is divided, and in which order pieces of weights and blocks of rows pass.
        npu: the NPU.

    Yields:
        Tasks. What another one says of a task, as its `last_user`, is known when that is yielded.
    """
    chip = chip_numbers(npu)
    work = vector_cycles(call.rows, npu)
    for number, numbers in enumerate(call.rows):
        row = Row(*numbers.item())
        start = Task(number, Engine.CONTROL, Part.START, chip.op_overhead_cycles)
        yield start
        op = Operation(number, row, float(work[number]), start, plan, chip)
        if row.form == LINEAR:
            yield from linear(op)
        elif row.form == MATMUL:
            yield from matmul(op)
        else:
            yield from elements(op)


def linear(op: Operation) -> Iterator[Task]:
    """A product with weights: panels of pieces, blocks of rows, pieces of a panel."""
    row, plan, chip = op.row, op.plan, op.chip
    m, d_out, d_in = row.m, row.n, row.k
    x_bytes, _, out_bytes = spilled(row, plan)
    n_columns, depth = weight_piece(d_out, d_in, row.weight_bits, plan.piece_bytes, chip)
    pieces = [(columns, sums) for columns in cut(d_out, n_columns) for sums in cut(d_in, depth)]
    height = block_rows(m, x_bytes, ceil_div(out_bytes * n_columns, d_out), plan, chip)
    # rows outside: one panel per block of rows; a single block needs no panels either
    n_panel = len(pieces) if plan.rows_outer or height == m else plan.panel
    bundle = height * bundled(ceil_div(m, height) * len(pieces))
    for panel in cut(len(pieces), n_panel):
        loaded: dict[int, Loaded] = {}  # pieces of this panel, which stay for all blocks of rows
        for rows in cut(m, bundle):
            x = product = None
            blocks = ceil_div(len(rows), height)
            if x_bytes:
                n_bytes = x_bytes * len(rows) // m
                x = op.read(
                    Part.ACTIVATION, n_bytes, Ring.ACTIVATIONS, None, row.a_from, blocks
                )  # fmt: skip
                yield x
            for piece in panel:
                columns, sums = pieces[piece]
                if plan.rows_outer or rows.start == 0:
                    # with rows outside every block reads them again
                    times = blocks if plan.rows_outer else 1
                    loaded[piece] = yield from load_weights(op, columns, sums, times)
                weights, ready = loaded[piece]
                whole = sums.stop == d_in  # before, these are partial sums
                laid = whole_rows(len(rows), chip)
                results = laid * len(columns) if whole and row.laid_out else 0
                more = layout_cycles(results, chip.outputs_per_s, chip)
                size = len(rows), height, len(columns), len(sums)
                product = op.multiply(*size, more, x, ready)
                product.rows, product.columns, product.sums = rows, columns, sums
                yield product
                if plan.rows_outer or rows.stop == m:
                    weights.last_user = product
                if whole and out_bytes:
                    n_bytes = out_bytes * len(rows) // m * len(columns) // d_out
                    yield from op.write(product, n_bytes, blocks)
            if x:
                x.last_user = product


def load_weights(
    op: Operation, columns: range, sums: range, times: int
) -> Generator[Task, None, Loaded]:
    """Read one piece of weights, with biases and scales if it is the first, and unpack 4 bits.

    A bundle of blocks of rows reads it so many times, one after another.
    """
    row, plan = op.row, op.plan
    n_elements = len(columns) * len(sums)
    n_bytes = ceil_div(n_elements * row.weight_bits, 8)
    if columns.start == 0 and sums.start == 0:
        n_bytes += row.beside
    if plan.weights_pinned and row.known:
        n_bytes = 0
    # What is read lies in the ring, unless it is pinned beside it; what is unpacked always does.
    held = (0 if plan.weights_pinned else n_bytes) + (n_elements if row.unpack else 0)
    held = min(held, plan.weight_ring_bytes)  # scales of a large head stream through all of it
    load = op.read(Part.WEIGHTS, times * n_bytes, Ring.WEIGHTS, times * held, -1, times)
    load.rows, load.columns, load.sums = range(row.m), columns, sums
    return (yield from op.unpacked(load, n_elements, times))


def elements(op: Operation) -> Iterator[Task]:
    """Work of the vector engine: gains are read before it, table rows stream with the elements."""
    row, plan = op.row, op.plan
    a, b, out_bytes = spilled(row, plan)
    made_by = max(row.a_from if a else -1, row.b_from if b else -1)
    beside = 0 if plan.weights_pinned and row.known else row.beside
    streamed = beside if beside > plan.piece_bytes else 0
    gains = None
    if beside and not streamed:  # few enough to be there before the first element
        held = 0 if plan.weights_pinned else beside
        gains = op.read(Part.BESIDE, beside, Ring.WEIGHTS, held)
        yield gains
    # Pieces are cut from what has most bytes; all else that streams is cut in proportion. Work
    # with nothing to stream is one piece.
    total = max(a + b, out_bytes, streamed)
    bundle = max(bundled(ceil_div(total, plan.piece_bytes)), 1)
    for at in range(0, max(total, 1), bundle * plan.piece_bytes):
        some = min(bundle * plan.piece_bytes, total - at)
        pieces = max(ceil_div(some, plan.piece_bytes), 1)
        table_rows, x = gains, None
        if streamed:
            n_bytes = share_of(streamed, at, some, total)
            held = 0 if plan.weights_pinned else n_bytes
            table_rows = op.read(Part.BESIDE, n_bytes, Ring.WEIGHTS, held, -1, pieces)
            yield table_rows
        if a + b:
            n_bytes = share_of(a + b, at, some, total)
            x = op.read(Part.ACTIVATION, n_bytes, Ring.ACTIVATIONS, None, made_by, pieces)
            yield x
        cycles = pieces_cycles(op.work_cycles, some, total, plan.piece_bytes)
        done = op.compute(Engine.VECTOR, Part.ELEMENTS, cycles, table_rows, x)
        for load in done.needs:
            load.last_user = done
        yield done
        if out_bytes:
            yield from op.write(done, share_of(out_bytes, at, some, total), pieces)
    if row.kv_written and not plan.cache_pinned:
        held = min(row.kv_written, plan.piece_bytes)
        yield from op.write(done, row.kv_written, held=held)
