"""Tasks: what the schedule writes and the engines run, and the operation that they belong to.

`Task` is for the reader. `TASK` holds the same as integers, for kernels: a task that another one
names is its place in the list there, and -1 stands for none.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from npu_sim.program.rows import MATMUL, Row
from npu_sim.tile.plan import Plan
from npu_sim.tile.tiling import Chip, block_cycles, ceil_div, transfer_cycles

__all__ = ["ENGINES", "PARTS", "TASK", "Engine", "Loaded", "Operation", "Part", "Ring", "Task"]

Engine = IntEnum("Engine", "CONTROL DMA_IN MATRIX VECTOR DMA_OUT", start=0)
ENGINES = tuple(engine.name.lower() for engine in Engine)

# what a task is for; a write lets the port for reads give way
Part = IntEnum(
    "Part",
    "START WEIGHTS CACHE ACTIVATION BESIDE PRODUCT UNPACK ELEMENTS WRITE GIVE_WAY",
    start=0,
)
PARTS = tuple(part.name.lower().replace("_", " ") for part in Part)

# parts of SRAM that are freed in the order in which they are filled; the cache is in the first
Ring = IntEnum("Ring", "WEIGHTS ACTIVATIONS RESULTS", start=0)


@dataclass(eq=False, slots=True)
class Task:
    """A piece of work of one engine; it starts when all that it waits for has ended."""

    op: int  # the operation: row of the call's table
    engine: Engine
    part: Part
    cycles: int
    n_bytes: int = 0  # moved from or to DRAM
    needs: tuple["Task", ...] = field(default=(), repr=False)  # must have ended
    written_op: int = -1  # operation whose results must be in DRAM, or -1
    ring: Ring | None = None  # memory that it fills
    held_bytes: int = 0  # that it takes of the ring at its start
    last_user: "Task | None" = field(default=None, repr=False)  # at whose end they are free again
    # the part of the operation: a stored head, or -1 for all in a row; rows of the result; its
    # columns (of attention: keys); what is summed over
    head: int = -1
    rows: range = range(0)
    columns: range = range(0)
    sums: range = range(0)


_NUMBERS = (
    "op", "engine", "part", "cycles", "n_bytes",
    "start", "end",  # when it runs, cycles after the overhead of its call
    "needs", "needs_too",  # tasks
    "room",  # the task that frees the memory which this one fills; the object leaves it to its ring
    "written_op", "ring", "held_bytes",
    "last_user",  # a task
    "head", "row_0", "row_1", "col_0", "col_1", "sum_0", "sum_1",
)  # fmt: skip

TASK = np.dtype((np.record, [(name, np.int64) for name in _NUMBERS]))


PARTS_STREAMED = 16  # in which an operation passes on what it makes, where operations stream

Loaded = tuple[Task, Task]  # the task that holds an operand, and the one that a product waits for


def cut(size: int, piece: int) -> list[range]:
    """Cut 0..size into pieces, the last one with what is left."""
    return [range(at, min(at + piece, size)) for at in range(0, size, piece)]


class Operation(NamedTuple):
    """One operation of a call, and what its tasks are written from."""

    number: int  # in the call
    row: Row
    work_cycles: float  # of the vector engine
    start: Task
    plan: Plan
    chip: Chip

    def read(
        self, part: Part, n_bytes: int, ring: Ring, held: int | None = None, written_op: int = -1,
        n_pieces: int = 1,
    ) -> Task:  # fmt: skip
        """Read pieces from DRAM into a ring, which holds one of them, or what is given for all."""
        cycles = transfer_cycles(n_bytes, self.chip, n_pieces)
        return Task(
            self.number, Engine.DMA_IN, part, cycles, n_bytes,
            needs=() if self.chip.runs_ahead else (self.start,), written_op=written_op, ring=ring,
            held_bytes=ceil_div(n_bytes if held is None else held, n_pieces),
        )  # fmt: skip

    def compute(self, engine: Engine, part: Part, cycles: int, *needs: Task | None) -> Task:
        """Compute from what has been read."""
        there = tuple(task for task in needs if task)
        return Task(self.number, engine, part, cycles, needs=there)

    def unpacked(
        self, load: Task, n_elements: int, times: int = 1
    ) -> Generator[Task, None, Loaded]:
        """Yield a read, and the task that unpacks it if it has 4 bits; return both or it twice."""
        yield load
        if not self.row.unpack:
            return load, load
        cycles = times * ceil_div(n_elements, self.chip.unpack_per_cycle)
        unpack = self.compute(Engine.VECTOR, Part.UNPACK, cycles, load)
        yield unpack
        return load, unpack

    def multiply(
        self, m: int, height: int, n: int, k: int, more: int, *needs: Task | None
    ) -> Task:  # fmt: skip
        """Multiply [m k] by [k n] in blocks of rows; `more` cycles lay something out."""
        chip, attention = self.chip, self.row.form == MATMUL
        rates = chip.attention_rates if attention else chip.weight_rates
        cycles = block_cycles(m, height, n, k, rates[self.row.precision], chip) + more
        return self.compute(Engine.MATRIX, Part.PRODUCT, cycles, *needs)

    def write(
        self, made_by: Task, n_bytes: int, n_pieces: int = 1, held: int | None = None
    ) -> Iterator[Task]:  # fmt: skip
        """Write what a task has made to DRAM; the port for reads gives way as long."""
        cycles = transfer_cycles(n_bytes, self.chip, n_pieces)
        write = Task(self.number, Engine.DMA_OUT, Part.WRITE, cycles, n_bytes, needs=(made_by,))
        made_by.ring, made_by.last_user = Ring.RESULTS, write
        made_by.held_bytes = ceil_div(n_bytes, n_pieces) if held is None else held
        yield write
        yield Task(self.number, Engine.DMA_IN, Part.GIVE_WAY, cycles)
