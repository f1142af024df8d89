"""Tasks of products of two activations: attention, whose right operand may be cached.

Keys stream in pieces; query heads that share a stored head are computed together, as more rows.
`schedule.py` has the other operations. Chapter: `docs/07_npu_tiles.md`.
"""

from npu_sim.tile.compiled import kernel
from npu_sim.tile.rows import COLUMNS
from npu_sim.tile.tasks import (
    ACTIVATION,
    ACTIVATION_RING,
    CACHE,
    MATRIX,
    PRODUCT,
    TASK,
    UNPACK,
    VECTOR,
    WEIGHT_RING,
    add,
    free_after,
    multiply,
    place,
    read_into,
    spilled,
    write_back,
)
from npu_sim.tile.tiling import ceil_div, layout_cycles, mac_slots, matrix_cycles

__all__ = ["matmul"]

_C, _CYCLES = COLUMNS, TASK["cycles"]
_COUNT, _M, _N, _K = _C["products"], _C["m"], _C["n"], _C["k"]
_PRECISION, _B_HEADS, _KEYS_ARE_K = _C["precision"], _C["b_heads"], _C["keys_are_k"]
_KV, _KV_AFTER, _UNPACK = _C["kv"], _C["kv_after"], _C["unpack"]
_A, _A_CLASS, _A_FROM = _C["a"], _C["a_class"], _C["a_from"]
_B, _B_CLASS, _B_FROM = _C["b"], _C["b_class"], _C["b_from"]
_OUT, _OUT_CLASS, _LAID_OUT = _C["out"], _C["out_class"], _C["laid_out"]


@kernel
def matmul(i, row, plan, chip, tasks, rings, n):
    """A product of two activations; the right one may be cached keys or values."""
    a = spilled(row[_A], row[_A_CLASS], plan)
    b = spilled(row[_B], row[_B_CLASS], plan)
    out = spilled(row[_OUT], row[_OUT_CLASS], plan)
    if a > 0 or b > 0 or out > 0:
        return _matmul_by_heads(i, row, a, b, out, plan, chip, tasks, rings, n)
    cached = row[_KV] if plan.cache_pinned == 0 else 0
    rate = chip.attention_rates[row[_PRECISION]]
    rows_each = row[_M] * (row[_COUNT] // row[_B_HEADS])  # rows that share one right operand
    rest = matrix_cycles(row[_B_HEADS], rows_each, row[_N], row[_K], rate, chip)
    if cached == 0:  # computed here: laid out by the matrix engine itself
        rest += layout_cycles(row[_LAID_OUT], chip.cached_per_s, chip)
    # a piece of the cache computes its share: whole pieces the same, the last one what is left
    share = _share(row, plan.piece_bytes, rate, chip)
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


@kernel
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


@kernel
def _load_cache(i, row, n_bytes, plan, chip, tasks, rings, n):
    """Read keys or values, lay them out on the way, and unpack them if they have 4 bits."""
    load = read_into(
        i, n_bytes, n_bytes * (3 if row[_UNPACK] > 0 else 1), WEIGHT_RING, CACHE, row[_KV_AFTER],
        chip, tasks, rings, n,
    )  # fmt: skip
    if 0 <= load < len(tasks):
        elements = row[_LAID_OUT] * n_bytes // max(1, row[_KV])
        tasks[load, _CYCLES] += layout_cycles(elements, chip.cached_per_s, chip)
    if row[_UNPACK] == 0 or load < 0:
        return load, load
    return load, add(
        tasks, n, VECTOR, i, ceil_div(2 * n_bytes, chip.unpack_per_cycle), 0, load, -1, UNPACK
    )


@kernel
def _matmul_by_heads(i, row, a, b, out, plan, chip, tasks, rings, n):
    """The same, head by head in blocks of rows, where operands or the result move through DRAM."""
    heads = row[_B_HEADS]
    m = row[_M] * (row[_COUNT] // heads)  # rows that share one right operand
    by_keys = row[_KEYS_ARE_K] == 1
    keys, other = (row[_K], row[_N]) if by_keys else (row[_N], row[_K])
    right = max(b, row[_KV] if plan.cache_pinned == 0 else 0)
    per_key = max(1, right // (heads * keys))
    some = min(keys, max(1, plan.piece_bytes // per_key)) if right > 0 else keys
    per_row = max(a, out) // (heads * m) * some // keys  # of one row and one piece of keys
    high = chip.tile_m
    while high > 1 and high * per_row > plan.piece_bytes:
        high = high // 2
    high = min(high, m)
    fits = True
    for head in range(heads):
        for key_0 in range(0, keys, some):
            key_1 = min(key_0 + some, keys)
            load = ready = product = -1
            if b > 0:
                n_bytes = per_key * (key_1 - key_0)
                load = ready = read_into(
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
                    a_load = read_into(
                        i, n_bytes, n_bytes, ACTIVATION_RING, ACTIVATION, row[_A_FROM],
                        chip, tasks, rings, n,
                    )  # fmt: skip
                    fits = fits and a_load >= 0
                columns, depth = (other, key_1 - key_0) if by_keys else (key_1 - key_0, other)
                here = row_0 == 0 and (b > 0 or right == 0)  # not read from the cache
                laid_out = row[_LAID_OUT] * (key_1 - key_0) // (heads * keys) if here else 0
                product = multiply(
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
                    fits = write_back(i, n_bytes, n_bytes, product, chip, tasks, rings, n) and fits
            free_after(tasks, load, product)
    return fits
