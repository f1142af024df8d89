"""What every operation writes its tasks with: reads into a ring, writes to DRAM, products."""

from typing import NamedTuple

from npu_sim.compiled import kernel
from npu_sim.table import COLUMNS, MATMUL
from npu_sim.tasks import (
    DMA_IN,
    DMA_OUT,
    MATRIX,
    OUT_RING,
    PRODUCT,
    TASK,
    WRITE,
    YIELD,
    add,
    free_after,
    take,
)
from npu_sim.tiling import matrix_cycles, transfer_cycles

__all__ = ["Plan", "multiply", "read_into", "spilled", "write_back"]

_WRITTEN = TASK["written_row"]
_FORM, _PRECISION = COLUMNS["form"], COLUMNS["precision"]


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


@kernel
def spilled(n_bytes, tensor_class, plan):
    """Bytes that move through DRAM because their class does not stay in SRAM."""
    return n_bytes if tensor_class >= plan.kept_classes else 0


@kernel
def read_into(i, n_bytes, held, ring, part, written_row, chip, tasks, rings, n):
    """Read bytes into a ring; returns the task, or -1 if there can be no room."""
    begun = -1 if chip.runs_ahead == 1 else n[1]
    at = add(tasks, n, DMA_IN, i, transfer_cycles(n_bytes, chip), n_bytes, begun, -1, part)
    if at < len(tasks):
        tasks[at, _WRITTEN] = written_row
    return at if take(tasks, n, rings, at, ring, held) else -1


@kernel
def write_back(i, n_bytes, held, made_by, chip, tasks, rings, n):
    """Write what a task made to DRAM; the port for reads gives way as long."""
    fits = take(tasks, n, rings, made_by, OUT_RING, held)
    cycles = transfer_cycles(n_bytes, chip)
    at = add(tasks, n, DMA_OUT, i, cycles, n_bytes, made_by, -1, WRITE)
    free_after(tasks, made_by, at)
    add(tasks, n, DMA_IN, i, cycles, 0, -1, -1, YIELD)
    return fits


@kernel
def multiply(i, row, m, n_columns, k, more, a_load, b_ready, chip, tasks, n):
    """Write a task of the matrix engine; `more` cycles lay something out."""
    attention = row[_FORM] == MATMUL
    rates = chip.attention_rates if attention else chip.weight_rates
    cycles = matrix_cycles(1, m, n_columns, k, rates[row[_PRECISION]], chip) + more
    return add(tasks, n, MATRIX, i, cycles, 0, a_load, b_ready, PRODUCT)
