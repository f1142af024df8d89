"""Tasks of products of two activations: attention, whose right operand may be cached.

Keys stream in pieces; query heads that share a stored head are computed together, as more rows.
`schedule.py` has the other operations. Chapter: `docs/13_tiles.md`.
"""

from collections.abc import Generator, Iterator

from npu_sim.tile.tasks import Engine, Loaded, Operation, Part, Ring, Task, cut
from npu_sim.tile.tiling import (
    block_cycles,
    bundled,
    cache_moved,
    cached_piece_cycles,
    ceil_div,
    key_piece,
    laid_out_rows,
    layout_cycles,
    matrix_cycles,
    spilled,
    transfer_cycles,
)

__all__ = ["matmul"]


def matmul(op: Operation) -> Iterator[Task]:
    """A product of two activations; the right one may be cached keys or values."""
    row, plan, chip = op.row, op.plan, op.chip
    a, b, out = spilled(row, plan)
    if a or b or out:
        yield from by_heads(op, a, b, out)
        return
    cached = 0 if plan.cache_pinned else row.kv
    rate = chip.attention_rates[row.precision]
    rows_each = row.m * (row.products // row.b_heads)  # rows that share one right operand
    rest = matrix_cycles(row.b_heads, rows_each, row.n, row.k, rate, chip)  # of all pieces
    if not cached:  # computed here: laid out by the matrix engine itself
        laid_out = laid_out_rows(row.laid_out, row.rows, chip)
        rest += layout_cycles(laid_out, chip.cached_per_s, chip)
    all_keys = row.b_heads * (row.k if row.keys_are_k else row.n)
    bundle = bundled(ceil_div(cached, plan.piece_bytes))
    for piece in cut(cached, max(bundle, 1) * plan.piece_bytes) or [range(0)]:
        last = piece.stop == cached
        load = ready = None
        if cached:
            n_pieces = ceil_div(len(piece), plan.piece_bytes)
            load, ready = yield from load_cache(op, len(piece), n_pieces)
        # a piece of the cache computes its share: whole pieces the same, the last what is left
        cycles = rest
        if not last:
            cycles = min(rest, bundle * cached_piece_cycles(row, plan.piece_bytes, rate, chip))
        rest -= cycles
        product = op.compute(Engine.MATRIX, Part.PRODUCT, cycles, ready)
        # a piece of bytes holds keys of one head after another: they count on from head to head
        first_key = piece.start * all_keys // cached if cached else 0
        last_key = all_keys if last else piece.stop * all_keys // cached
        product.rows, product.columns = range(rows_each), range(first_key, last_key)
        if load:
            load.last_user = product
        yield product


def load_cache(
    op: Operation, n_bytes: int, n_pieces: int = 1
) -> Generator[Task, None, Loaded]:  # fmt: skip
    """Read keys or values, lay them out on the way, and unpack them if they have 4 bits.

    Empty slots of a padded graph are read too, at a share of the time.
    """
    row, chip = op.row, op.chip
    unpacked = 2 * n_bytes if row.unpack else 0  # the same at 8 bits
    moved = cache_moved(n_bytes, row, chip)
    load = op.read(
        Part.CACHE, n_bytes, Ring.WEIGHTS, n_bytes + unpacked, row.kv_after, n_pieces
    )  # fmt: skip
    load.cycles = transfer_cycles(moved, chip, n_pieces)
    load.cycles += layout_cycles(moved, chip.cached_per_s, chip)
    return (yield from op.unpacked(load, 2 * n_bytes))


def by_heads(op: Operation, a: int, b: int, out: int) -> Iterator[Task]:
    """The same, head by head in blocks of rows, where operands or the result move through DRAM."""
    row, plan, chip = op.row, op.plan, op.chip
    heads, by_keys = row.b_heads, row.keys_are_k
    m = row.m * (row.products // heads)  # rows that share one right operand
    n_keys, other = (row.k, row.n) if by_keys else (row.n, row.k)
    right = max(b, 0 if plan.cache_pinned else row.kv)
    some, key_bytes, height = key_piece(row, right, max(a, out) // (heads * m), plan, chip)
    # keys are bundled, and rows where there are still many pieces
    together = some * bundled(heads * ceil_div(n_keys, some))
    bundle = height * bundled(heads * ceil_div(n_keys, together) * ceil_div(m, height))
    rate = chip.attention_rates[row.precision]
    for head in range(heads):
        for keys in cut(n_keys, together):
            pieces = ceil_div(len(keys), some)
            last = len(keys) - (pieces - 1) * some  # keys of its last piece
            n_bytes = key_bytes * len(keys)
            load = ready = product = None
            if b:  # computed in this call, so it waits until it is written
                load = op.read(
                    Part.ACTIVATION, n_bytes, Ring.WEIGHTS, None, row.b_from, pieces
                )  # fmt: skip
                ready = load
                yield load
            elif right:
                load, ready = yield from load_cache(op, n_bytes, pieces)
            # keys that are summed over cut the rows that are read, others those that are written
            read_keys = len(keys) if by_keys else pieces * n_keys
            written_keys = n_keys if by_keys else len(keys)
            for rows in cut(m, bundle):
                x, blocks = None, ceil_div(len(rows), height)
                if a:
                    n_bytes = a * len(rows) // (heads * m) * read_keys // n_keys
                    x = op.read(
                        Part.ACTIVATION, n_bytes, Ring.ACTIVATIONS, None, row.a_from,
                        blocks * pieces,
                    )  # fmt: skip
                    yield x
                (n, k), (n_last, k_last) = (
                    (other, size) if by_keys else (size, other) for size in (some, last)
                )
                here = rows.start == 0 and (b or not right)  # not read from the cache
                whole = laid_out_rows(row.laid_out, row.rows, chip)
                laid_out = whole * len(keys) // (heads * n_keys) if here else 0
                more = layout_cycles(laid_out, chip.cached_per_s, chip)
                more += (pieces - 1) * block_cycles(len(rows), height, n, k, rate, chip)
                product = op.multiply(len(rows), height, n_last, k_last, more, x, ready)
                product.head, product.rows, product.columns = head, rows, keys
                yield product
                if x:
                    x.last_user = product
                if out and (not by_keys or keys.stop == n_keys):
                    n_bytes = out * len(rows) // (heads * m) * written_keys // n_keys
                    yield from op.write(product, n_bytes, blocks * (1 if by_keys else pieces))
            if load:
                load.last_user = product
