r"""How an operation is cut: pieces that fit SRAM twice, and the cycles that each piece computes.

A weight matrix [n, k] is cut into pieces of whole output features (columns of the result); if a
block of features is too large, also along k, with partial sums kept in the accumulators. Pieces do
not depend on the number of tokens. Chapter: `docs/13_tiles.md`, equations 7.1 to 7.3.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from npu_sim.hardware.chip import Npu
from npu_sim.program.precision import PRECISIONS
from npu_sim.tile.compiled import kernel
from npu_sim.units import MILLION

__all__ = [
    "Chip", "block_cycles", "block_rows", "bundled", "cache_moved", "cached_piece_cycles",
    "ceil_div", "chip_numbers", "key_piece", "laid_out_rows", "layout_cycles", "mac_slots",
    "matrix_cycles", "pieces_cycles", "share_of", "short_rows", "spilled", "transfer_cycles",
    "vector_cycles", "weight_piece", "whole_rows",
]  # fmt: skip

MOST_PIECES = 256  # of an operation: more are bundled

# blocks of whole tiles, or a systolic array: what stays in its cells
Flow = IntEnum("Flow", "BLOCKS OS WS IS", start=0)


class Chip(NamedTuple):
    """What the schedule needs of an NPU, as integers."""

    clock_hz: int
    bytes_per_s: int
    setup_cycles: int
    flow: int  # a Flow
    rows: int
    columns: int
    tile_m: int
    tile_n: int
    tile_k: int
    short_m: int  # rows multiplied for a product of at most so many
    op_overhead_cycles: int
    unpack_per_cycle: int
    outputs_per_s: int  # results laid out for the next operation; 0: free
    cached_per_s: int  # bytes of keys and values laid out for the matrix engine; 0: free
    runs_ahead: bool  # the DMA may move what a later operation needs
    empty_share: float  # what an empty slot of a cache costs
    tile_rows: int  # activations of at most so many rows are worked on as so many
    block_rows: int  # longer ones in whole blocks of so many
    weight_rates: tuple[int, ...]  # MACs per million cycles, efficiency included, by precision
    attention_rates: tuple[int, ...]


def chip_numbers(npu: Npu) -> Chip:
    """Return an NPU's numbers as the kernels read them."""
    matrix = npu.matrix

    def rates(attention: float | None) -> tuple[int, ...]:
        peaks = [getattr(matrix, f"{name}_macs_per_cycle") for name in PRECISIONS]
        shares = [attention or getattr(matrix, f"{name}_efficiency") for name in PRECISIONS]
        return tuple(round(p * MILLION * s) for p, s in zip(peaks, shares, strict=True))

    return Chip(
        clock_hz=npu.clock_hz, bytes_per_s=npu.memory_bytes_per_s,
        setup_cycles=npu.dma.setup_cycles, flow=int(Flow[matrix.dataflow.upper()]),
        rows=matrix.rows, columns=matrix.columns,
        tile_m=matrix.tile_m, tile_n=matrix.tile_n, tile_k=matrix.tile_k, short_m=short_rows(npu),
        op_overhead_cycles=npu.per_op_overhead_cycles,
        unpack_per_cycle=npu.vector.unpack_elements_per_cycle,
        outputs_per_s=matrix.output_elements_per_s, cached_per_s=npu.dma.cache_bytes_per_s,
        runs_ahead=npu.dma.runs_ahead, empty_share=float(npu.dma.empty_slot_share),
        tile_rows=npu.sram.tile_rows, block_rows=npu.sram.block_rows,
        weight_rates=rates(None), attention_rates=rates(matrix.attention_efficiency),
    )  # fmt: skip


def short_rows(npu: Npu) -> int:
    """Rows that the matrix engine works on for fewer: the one tile in which they lie, if any."""
    return npu.sram.tile_rows if npu.sram.tile_rows > 1 else npu.matrix.tile_m


@kernel
def ceil_div(amount, per):
    """Divide and round up."""
    return -(-amount // per)


@kernel
def mac_slots(m, n, k, chip):
    r"""Places for multiply-accumulates that a product occupies, idle ones included.

    blocks: $\lceil m/t_m \rceil t_m \lceil n/t_n \rceil t_n \lceil k/t_k \rceil t_k$, where few
    rows are one shorter tile; systolic: folds F times cycles per fold P times the R C cells,

    $$s = F \, P \, R \, C, \quad P_\mathrm{os} = k + R + C - 2, \quad
      P_\mathrm{ws} = m + 2R + C - 2, \quad P_\mathrm{is} = n + 2R + C - 2$$              (7.1)

    Args:
        m: rows of the result.
        n: columns of the result.
        k: summed over.
        chip: the array and its dataflow.

    Returns:
        Slots, at least m * n * k.
    """
    if chip.flow == Flow.BLOCKS:
        rows = chip.short_m if m <= chip.short_m else ceil_div(m, chip.tile_m) * chip.tile_m
        blocks = ceil_div(n, chip.tile_n) * ceil_div(k, chip.tile_k)
        return rows * blocks * chip.tile_n * chip.tile_k
    # along the rows, along the columns, streaming; what stays in the cells is loaded row by row
    if chip.flow == Flow.OS:
        x, y, stream, load = m, n, k, 0
    elif chip.flow == Flow.WS:
        x, y, stream, load = k, n, m, chip.rows
    else:
        x, y, stream, load = k, m, n, chip.rows
    folds = ceil_div(x, chip.rows) * ceil_div(y, chip.columns)
    return folds * (load + stream + chip.rows + chip.columns - 2) * chip.rows * chip.columns


@kernel
def matrix_cycles(count, m, n, k, rate, chip):
    r"""Cycles of the matrix engine for `count` equal products of [m k] and [k n].

    $$t_\mathrm{matrix} = \lceil \mathrm{count} \cdot s / (r \, \eta) \rceil$$           (7.2)

    `rate` is r times the efficiency, in MACs per million cycles.
    """
    slots = count * mac_slots(m, n, k, chip)
    # by long division, so that no product passes 2^63
    return slots // rate * 1_000_000 + ceil_div(slots % rate * 1_000_000, rate)


@kernel
def block_cycles(m, height, n, k, rate, chip):
    """Cycles of m rows in blocks of so many, the last with what is left."""
    rest = m % height
    cycles = m // height * matrix_cycles(1, height, n, k, rate, chip)
    return cycles + (matrix_cycles(1, rest, n, k, rate, chip) if rest > 0 else 0)


@kernel
def layout_cycles(n_elements, per_s, chip):
    r"""Cycles to lay out results (elements), keys and values (bytes) for the matrix engine.

    $$t_\mathrm{layout} = \lceil e f_\mathrm{clock} / \mathrm{rate} \rceil$$            (4.7)

    The rate, `per_s`, is in elements or bytes per second; 0 is free.
    """
    return 0 if per_s == 0 else cycles_at(n_elements, per_s, chip.clock_hz)


@kernel
def whole_rows(rows, chip):
    """Rows of the whole tile, or of the whole blocks, that so many rows lie in."""
    if rows <= chip.tile_rows:
        return chip.tile_rows
    return ceil_div(rows, chip.block_rows) * chip.block_rows


@kernel
def laid_out_rows(amount, rows, chip):
    """What is laid out of an amount in so many rows: their whole tiles."""
    return amount * whole_rows(rows, chip) // rows


@kernel
def cache_moved(n_bytes, row, chip):
    """Bytes of a cache that take time: of its empty slots a share (4.9)."""
    empty = n_bytes * row.empty // max(1, row.kv)
    return n_bytes - empty + int(empty * chip.empty_share)


@kernel
def cycles_at(amount, per_s, clock_hz):
    """Cycles in which so much passes, rounded up."""
    if amount < 1 << 26:  # no clock is faster than 2^37
        return ceil_div(amount * clock_hz, per_s)
    # by long division in three steps, so that no product passes 2^63
    high, middle, low = amount >> 20, amount >> 10 & 0x3FF, amount & 0x3FF
    whole, rest = high * clock_hz // per_s, high * clock_hz % per_s
    rest = (rest << 10) + middle * clock_hz
    whole, rest = (whole << 10) + rest // per_s, rest % per_s
    return (whole << 10) + ceil_div((rest << 10) + low * clock_hz, per_s)


@kernel
def bundled(n_pieces):
    """Pieces that one task stands for, so that no operation has many more than MOST_PIECES.

    A bundle takes the cycles of its pieces, set-ups included, and the memory of one: they follow
    each other through it. Only what waits for a bundle waits longer, for 1 / MOST_PIECES of all.
    """
    return ceil_div(n_pieces, MOST_PIECES)


@kernel
def transfer_cycles(n_bytes, chip, n_pieces=1):
    r"""Cycles of one DMA transfer of b bytes, or of a bundle; none for no bytes.

    $$t_\mathrm{dma} = t_\mathrm{setup} +
      \lceil b f_\mathrm{clock} / \mathrm{bandwidth} \rceil$$                          (7.3)
    """
    return (
        0
        if n_bytes == 0
        else n_pieces * chip.setup_cycles + cycles_at(n_bytes, chip.bytes_per_s, chip.clock_hz)
    )


@kernel
def spilled(row, plan):
    """Bytes of both activations read and of the one written, if their class leaves SRAM."""
    a = row.a if row.a_class >= plan.kept_classes else 0
    b = row.b if row.b_class >= plan.kept_classes else 0
    out = row.out if row.out_class >= plan.kept_classes else 0
    return a, b, out


@kernel
def share_of(n_bytes, at, some, total):
    """The share of n_bytes that belongs to at..at+some of total."""
    shift = 16 if total >= 1 << 31 else 0  # so that no product passes 2^63
    whole = total >> shift
    return n_bytes * ((at + some) >> shift) // whole - n_bytes * (at >> shift) // whole


@kernel
def pieces_cycles(work_cycles, some, total, piece):
    """Whole cycles of the pieces in `some` of `total` bytes, each of so many bytes or what is left.

    Each piece is rounded up by itself: so its cycles do not depend on how many there are, and a
    faster engine never makes one longer.
    """
    if total == 0:
        return whole_cycles(work_cycles)
    per_byte, n_whole = work_cycles / total, some // piece
    return n_whole * whole_cycles(per_byte * piece) + whole_cycles(per_byte * (some % piece))


@kernel
def whole_cycles(cycles):
    """Round up, but not for what the rounding of floats has added."""
    return int(np.ceil(cycles * (1 - 1e-12)))


@kernel
def block_rows(m, x_bytes, out_bytes, plan, chip):
    """Rows computed together: all, unless what they read or write moves through DRAM.

    All m rows read `x_bytes` there, and write `out_bytes` for one piece of weights. Blocks are
    whole tiles where they can be.
    """
    height = m
    if x_bytes > 0:  # where rows are outside, a panel of them stays while all weights pass
        limit = plan.piece_bytes * (plan.panel if plan.rows_outer else 1)
        height = min(height, max(1, limit // ceil_div(x_bytes, m)))
    if out_bytes > 0:
        height = min(height, max(1, plan.piece_bytes // ceil_div(out_bytes, m)))
    return height // chip.tile_m * chip.tile_m if chip.tile_m < height < m else height


@kernel
def key_piece(row, right_bytes, row_bytes, plan, chip):
    """Keys in a piece, bytes of a key, rows computed together, where attention leaves SRAM.

    All heads read `right_bytes` of keys or values, 0 if these lie in SRAM; one row reads or writes
    `row_bytes`, whatever is more, for all keys of a head.
    """
    keys = row.k if row.keys_are_k == 1 else row.n
    key_bytes = max(1, right_bytes // (row.b_heads * keys))
    some = min(keys, max(1, plan.piece_bytes // key_bytes)) if right_bytes > 0 else keys
    height = chip.tile_m
    while height > 1 and height * (row_bytes * some // keys) > plan.piece_bytes:
        height = height // 2
    return some, key_bytes, height


@kernel
def cached_piece_cycles(row, n_bytes, rate, chip):
    """Cycles of the products that a piece of the cache takes part in, however long the cache is."""
    # one key costs what it costs among many; a piece holds n_bytes / (kv / (b_heads keys)) of them
    many = min(chip.tile_n * chip.tile_k * chip.rows * chip.columns, 1 << 34)
    rows_each = row.m * (row.products // row.b_heads)
    if row.keys_are_k == 1:
        keys, slots = row.k, mac_slots(rows_each, row.n, many, chip)
    else:
        keys, slots = row.n, mac_slots(rows_each, many, row.k, chip)
    in_piece = float(n_bytes) * row.b_heads * keys / row.kv
    return int(float(slots) / float(many) * in_piece * 1e6 / rate)


@kernel
def weight_piece(n, k, bits, limit, chip):
    """Columns and depth of one piece of a weight matrix: aligned to the array where that fits.

    Args:
        n: output features.
        k: input features.
        bits: of a weight.
        limit: bytes that a piece may have.
        chip: the array.

    Returns:
        (columns, depth), both at least 1.
    """
    # what the array has side by side, and what it sums at once
    across = chip.tile_n if chip.flow == Flow.BLOCKS else chip.columns
    deep = chip.rows if chip.flow in (Flow.WS, Flow.IS) else chip.tile_k
    columns = limit * 8 // (k * bits)  # whole output features that fit
    if columns >= min(across, n):
        return min(n, columns // across * across if columns >= across else n), k
    columns = min(across, n)  # one array across, and as deep as fits
    depth = limit * 8 // (columns * bits)
    if depth >= deep:
        return columns, min(k, depth // deep * deep)
    depth = min(k, deep)  # not even one array fits
    return max(1, min(columns, limit * 8 // (depth * bits))), min(depth, max(1, limit * 8 // bits))


def vector_cycles(rows: np.ndarray, npu: Npu) -> np.ndarray:
    """Cycles of the vector engine for the elementwise work of each row of a table.

    Args:
        rows: [n_rows] records of `rows.Row`.
        npu: lanes by element width, cycles of special functions, efficiency.

    Returns:
        [n_rows] float64; a piece of the work is rounded up, not all of it.
    """
    steps = rows["simple"] + rows["special"] * npu.vector.special_function_cycles
    lanes = np.maximum(1, npu.vector.width_bytes // rows["stored_bytes"])
    share = np.where(rows["floats"] == 1, npu.vector.float_efficiency, npu.vector.efficiency)
    blocks = -(-rows["rows"] // npu.sram.block_rows) * npu.sram.block_rows
    whole = np.where(rows["rows"] <= npu.sram.tile_rows, npu.sram.tile_rows, blocks)
    cycles: np.ndarray = np.ceil(steps) * whole / rows["rows"] / (lanes * share)
    return cycles
