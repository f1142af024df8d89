"""Tasks and the rings they wait for: what `schedule.py` writes with.

A task is a row of integers. Tasks of one engine run in the order in which they are written, so
every wait of a task is for one that was written before: start times follow from start times, and
never shrink when any duration grows.
"""

import numpy as np

from npu_sim.tile.compiled import kernel
from npu_sim.tile.rows import COLUMNS, MATMUL
from npu_sim.tile.tiling import matrix_cycles, transfer_cycles

__all__ = [
    "CONTROL",
    "DMA_IN",
    "DMA_OUT",
    "ENGINES",
    "MATRIX",
    "TASK",
    "VECTOR",
    "multiply",
    "new_rings",
    "read_into",
    "spilled",
    "write_back",
]


_FORM, _PRECISION = COLUMNS["form"], COLUMNS["precision"]

ENGINES = ("control", "dma_in", "matrix", "vector", "dma_out")

CONTROL, DMA_IN, MATRIX, VECTOR, DMA_OUT = range(5)

TASK_FIELDS = (
    "engine", "row", "cycles", "bytes",
    "needs", "needs_too",  # tasks that must have ended, or -1
    "room",  # task that frees the memory this one fills, or -1
    "written_row",  # row whose results must be in DRAM, or -1
    "ring", "held",  # bytes that it takes of a ring at its start
    "user",  # task at whose end they are free again
    "part",  # index into PARTS
    "head", "row_0", "row_1", "col_0", "col_1", "sum_0", "sum_1",  # the piece
)  # fmt: skip

TASK = {name: i for i, name in enumerate(TASK_FIELDS)}

N_FIELDS = len(TASK_FIELDS)

PARTS = (
    "start", "weights", "cache", "activation", "beside", "product", "unpack", "elements", "write",
    "give way",
)  # fmt: skip

(START, WEIGHTS, CACHE, ACTIVATION, BESIDE, PRODUCT, UNPACK, ELEMENTS, WRITE, YIELD) = range(10)

WEIGHT_RING, ACTIVATION_RING, OUT_RING = range(3)

_ENGINE, _ROW, _CYCLES, _BYTES = (TASK[n] for n in ("engine", "row", "cycles", "bytes"))

_NEEDS, _NEEDS_TOO, _ROOM, _WRITTEN = (
    TASK[n] for n in ("needs", "needs_too", "room", "written_row")
)

_RING, _HELD, _USER, _PART, _HEAD = (TASK[n] for n in ("ring", "held", "user", "part", "head"))


def new_rings(capacities: tuple[int, int, int]) -> np.ndarray:
    """Return the state of three rings: capacity, bytes used, oldest task that still holds bytes.

    Args:
        capacities: bytes of the rings for weights, activations and results.

    Returns:
        [3, 3] int64.
    """
    rings = np.zeros((3, 3), np.int64)
    rings[:, 0] = capacities
    return rings


@kernel
def add(tasks, n, engine, row, cycles, n_bytes, needs, needs_too, part):
    """Write a task; returns its number. n[0] counts tasks, also those that no longer fit."""
    at = n[0]
    n[0] += 1
    if at < len(tasks):
        task = tasks[at]
        task[:] = 0
        task[_ENGINE], task[_ROW], task[_CYCLES], task[_BYTES] = engine, row, cycles, n_bytes
        task[_NEEDS], task[_NEEDS_TOO], task[_PART] = needs, needs_too, part
        task[_ROOM] = task[_WRITTEN] = task[_RING] = task[_USER] = task[_HEAD] = -1
    return at


@kernel
def place(tasks, n, at, head, row_0, row_1, col_0, col_1, sum_0, sum_1):
    """Say which part of the operation a task works on."""
    if at < len(tasks):
        tasks[at, _HEAD:] = (head, row_0, row_1, col_0, col_1, sum_0, sum_1)


@kernel
def take(tasks, n, rings, at, ring, n_bytes):
    """Let a task wait for room in a ring, first in first out, and hold it.

    Returns:
        True if there can be room; False if what is in the way waits for this task.
    """
    if at >= len(tasks):
        return True
    capacity, used, oldest = rings[ring]
    if n_bytes > capacity:
        return False
    room = -1
    while used + n_bytes > capacity:
        while tasks[oldest, _RING] != ring:
            oldest += 1
        if oldest >= at or tasks[oldest, _USER] < 0:
            return False
        room = tasks[oldest, _USER]
        used -= tasks[oldest, _HELD]
        oldest += 1
    rings[ring, 1], rings[ring, 2] = used + n_bytes, oldest
    tasks[at, _RING], tasks[at, _HELD] = ring, n_bytes
    tasks[at, _ROOM] = max(tasks[at, _ROOM], room)
    return True


@kernel
def free_after(tasks, at, user):
    """Say that the last user of what a task holds is `user` (or a later call says otherwise)."""
    if 0 <= at < len(tasks) and user < len(tasks):
        tasks[at, _USER] = user


_WRITTEN = TASK["written_row"]


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
