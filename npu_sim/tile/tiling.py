r"""How an operation is cut: pieces that fit SRAM twice, and the cycles that each piece computes.

A weight matrix [n, k] is cut into pieces of whole output features (columns of the result); if a
block of features is too large, also along k, with partial sums kept in the accumulators. Pieces do
not depend on the number of tokens. Chapter: `docs/07_npu_tiles.md`, equations 7.1 to 7.3.
"""

from typing import NamedTuple

import numpy as np

from npu_sim.hardware.chip import Npu
from npu_sim.program.precision import PRECISIONS
from npu_sim.tile.compiled import kernel
from npu_sim.tile.rows import COLUMNS
from npu_sim.units import MILLION

__all__ = ["Chip", "chip_numbers", "layout_cycles", "mac_slots", "matrix_cycles",
           "transfer_cycles", "vector_cycles", "weight_piece"]  # fmt: skip

FLOWS = ("blocks", "os", "ws", "is")


class Chip(NamedTuple):
    """What the schedule needs of an NPU, as integers."""

    clock_hz: int
    bytes_per_s: int
    setup_cycles: int
    flow: int  # index into FLOWS
    rows: int
    columns: int
    tile_m: int
    tile_n: int
    tile_k: int
    op_overhead_cycles: int
    unpack_per_cycle: int
    outputs_per_s: int  # results laid out for the next operation; 0: free
    cached_per_s: int  # keys and values laid out for the matrix engine; 0: free
    runs_ahead: int  # 1: the DMA may move what a later operation needs
    weight_rates: tuple[int, ...]  # MACs per million cycles, efficiency included, by precision
    attention_rates: tuple[int, ...]


def chip_numbers(npu: Npu) -> Chip:
    """Return an NPU's numbers as the kernels read them."""
    matrix = npu.matrix

    def rates(efficiency: float | None) -> tuple[int, ...]:
        return tuple(
            round(
                getattr(matrix, f"{name}_macs_per_cycle")
                * MILLION
                * (getattr(matrix, f"{name}_efficiency") if efficiency is None else efficiency)
            )
            for name in PRECISIONS
        )

    return Chip(
        clock_hz=npu.clock_hz, bytes_per_s=npu.memory_bytes_per_s,
        setup_cycles=npu.dma.setup_cycles, flow=FLOWS.index(matrix.dataflow), rows=matrix.rows,
        columns=matrix.columns, tile_m=matrix.tile_m, tile_n=matrix.tile_n, tile_k=matrix.tile_k,
        op_overhead_cycles=npu.per_op_overhead_cycles,
        unpack_per_cycle=npu.vector.unpack_elements_per_cycle,
        outputs_per_s=matrix.output_elements_per_s, cached_per_s=npu.dma.cache_elements_per_s,
        runs_ahead=int(npu.dma.runs_ahead),
        weight_rates=rates(None), attention_rates=rates(matrix.attention_efficiency),
    )  # fmt: skip


@kernel
def ceil_div(amount, per):
    """Divide and round up."""
    return -(-amount // per)


@kernel
def mac_slots(m, n, k, chip):
    r"""Places for multiply-accumulates that a product occupies, idle ones included.

    blocks: $\lceil m/t_m \rceil t_m \lceil n/t_n \rceil t_n \lceil k/t_k \rceil t_k$; systolic:
    folds F times cycles per fold P times the R C cells of the array,

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
    cells = chip.rows * chip.columns
    if chip.flow == 0:
        blocks = ceil_div(m, chip.tile_m) * ceil_div(n, chip.tile_n) * ceil_div(k, chip.tile_k)
        return blocks * chip.tile_m * chip.tile_n * chip.tile_k
    if chip.flow == 1:
        folds = ceil_div(m, chip.rows) * ceil_div(n, chip.columns)
        return folds * (k + chip.rows + chip.columns - 2) * cells
    load = 2 * chip.rows + chip.columns - 2
    if chip.flow == 2:
        return ceil_div(k, chip.rows) * ceil_div(n, chip.columns) * (m + load) * cells
    return ceil_div(k, chip.rows) * ceil_div(m, chip.columns) * (n + load) * cells


@kernel
def matrix_cycles(count, m, n, k, rate, chip):
    r"""Cycles of the matrix engine for `count` equal products.

    $$t_\mathrm{matrix} = \lceil \mathrm{count} \cdot s / (r \, \eta) \rceil$$           (7.2)

    Args:
        count: products.
        m: rows of each.
        n: columns of each.
        k: summed over.
        rate: r times efficiency, MACs per million cycles.
        chip: the array.

    Returns:
        Cycles.
    """
    return ceil_div(count * mac_slots(m, n, k, chip) * 1_000_000, rate)


@kernel
def layout_cycles(n_elements, per_s, chip):
    r"""Cycles of the matrix engine to lay elements out: results, or operands of attention.

    $$t_\mathrm{layout} = \lceil e f_\mathrm{clock} / \mathrm{rate} \rceil$$            (4.7)

    Args:
        n_elements: e.
        per_s: elements per second; 0 is free.
        chip: its clock.

    Returns:
        Cycles.
    """
    return 0 if per_s == 0 else ceil_div(n_elements * chip.clock_hz, per_s)


@kernel
def transfer_cycles(n_bytes, chip):
    r"""Cycles of one DMA transfer; none for no bytes.

    $$t_\mathrm{dma} = t_\mathrm{setup} +
      \lceil b f_\mathrm{clock} / \mathrm{bandwidth} \rceil$$                          (7.3)

    Args:
        n_bytes: of the transfer.
        chip: the DMA.

    Returns:
        Cycles.
    """
    if n_bytes == 0:
        return 0
    # by long division, so that no product passes 2^63
    high, low = n_bytes >> 20, n_bytes & 0xFFFFF
    whole, rest = high * chip.clock_hz // chip.bytes_per_s, high * chip.clock_hz % chip.bytes_per_s
    stream = (whole << 20) + ceil_div((rest << 20) + low * chip.clock_hz, chip.bytes_per_s)
    return chip.setup_cycles + stream


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
    wide = chip.columns if chip.flow != 0 else chip.tile_n
    deep = chip.rows if chip.flow > 1 else chip.tile_k
    columns = limit * 8 // (k * bits)
    if columns >= min(wide, n):
        return min(n, max(1, columns // wide * wide) if columns >= wide else n), k
    columns = min(wide, n)
    depth = limit * 8 // (columns * bits)
    if depth >= deep:
        return columns, min(k, depth // deep * deep)
    depth = min(k, deep)
    return max(1, min(columns, limit * 8 // (depth * bits))), min(depth, max(1, limit * 8 // bits))


def vector_cycles(rows: np.ndarray, npu: Npu) -> np.ndarray:
    """Cycles of the vector engine for the elementwise work of each row of a table.

    Args:
        rows: [n_rows, len(COLUMNS)] int64.
        npu: lanes by element width, cycles of special functions, efficiency.

    Returns:
        [n_rows] int64.
    """
    steps = rows[:, COLUMNS["simple"]] + rows[:, COLUMNS["special"]] * (
        npu.vector.special_function_cycles
    )
    lanes = np.maximum(1, npu.vector.width_bytes // rows[:, COLUMNS["stored_bytes"]])
    share = np.where(
        rows[:, COLUMNS["floats"]] == 1, npu.vector.float_efficiency, npu.vector.efficiency
    )
    cycles: np.ndarray = np.ceil(np.ceil(steps) / (lanes * share)).astype(np.int64)
    return cycles
