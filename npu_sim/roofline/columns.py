"""A program as columns of numbers, and its roofline price on many NPUs at once.

Equal operations become one row with a count; a decode step whose context grows by one token per
step is a row whose numbers grow by a fixed amount. `price` is `formula.roofline` over these rows
and over arrays of NPU numbers. Not here: tiles, energies. Chapter: `docs/whatif.md`.
"""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from npu_sim.hardware.chip import call_overhead_us
from npu_sim.program.program import Call, Program
from npu_sim.roofline.amounts import larger
from npu_sim.roofline.formula import (
    Amount,
    NpuValues,
    Work,
    call_cycles,
    kept_values,
    roofline,
    work_of,
)

__all__ = ["Priced", "ProgramColumns", "call_rows", "price", "program_columns", "program_rows"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramColumns:
    """The operations of a request, equal ones once, and its graph calls, equal ones once."""

    rows: np.ndarray  # [n_rows, 12] float64, a column for each field of `Work`
    row_of: np.ndarray  # [n_entries] int, rows of the first kind of calls, then of the second, ...
    counts: np.ndarray  # [n_entries] how often that row runs in one such call
    starts: np.ndarray  # [n_kinds] int, first entry of each kind
    positions: np.ndarray  # [n_kinds] positions that a call computes
    encodes: np.ndarray  # [n_kinds] 1 if it encodes, else 0
    calls: np.ndarray  # [n_kinds] how many calls are of the kind
    first_calls: np.ndarray  # [n_kinds] how many of them before the first token is written
    weight_bytes: int  # stored
    kv_bytes: int  # stored

    @property
    def run_counts(self) -> np.ndarray:
        """[n_rows] how often each row runs in the request."""
        sizes = np.diff([*self.starts, len(self.row_of)])
        runs = self.counts * np.repeat(self.calls, sizes)
        return np.bincount(self.row_of, runs, len(self.rows))


@dataclass(frozen=True, kw_only=True, slots=True)
class Priced:
    """Simulated times on N NPUs, [N] each."""

    ttft_cycles: np.ndarray
    latency_cycles: np.ndarray
    dram_bytes: np.ndarray


def program_columns(program: Program, n_grown: int = 0) -> ProgramColumns:
    """Write a program as columns.

    Args:
        program: from `request_program` or `record_request`.
        n_grown: further decode steps behind the last one, each differing from the one before as
            the last differs from the one before it.

    Returns:
        The columns; exact where contexts grow by one token per step.
    """
    kinds: dict[int, list[Work]] = {}  # by identity of their rows: a request may repeat a call
    calls: Counter[int] = Counter()
    first: Counter[int] = Counter()
    positions: dict[int, int] = {}
    encodes: dict[int, bool] = {}
    rows_of = program_rows(program)
    for index, (call, rows) in enumerate(zip(program.calls, rows_of, strict=True)):
        kinds[id(rows)], positions[id(rows)] = rows, call.n_positions
        encodes[id(rows)] = call.phase == "encode"
        calls[id(rows)] += 1
        first[id(rows)] += index < program.n_first_calls
    if n_grown:
        before, last = (np.array(rows, float) for rows in rows_of[-2:])
        for step in range(1, n_grown + 1):
            grown = list(map(Work._make, (last + step * (last - before)).tolist()))
            kinds[id(grown)], positions[id(grown)] = grown, program.calls[-1].n_positions
            encodes[id(grown)] = False
            calls[id(grown)] = 1
    number: dict[Work, int] = {}
    entries = [
        Counter(number.setdefault(row, len(number)) for row in rows) for rows in kinds.values()
    ]
    return ProgramColumns(
        rows=np.array(list(number), dtype=float),
        row_of=np.array([row for some in entries for row in some], dtype=int),
        counts=np.array([n for some in entries for n in some.values()], dtype=float),
        starts=np.cumsum([0, *map(len, entries)])[:-1],
        positions=np.array([positions[kind] for kind in kinds], dtype=float),
        encodes=np.array([encodes[kind] for kind in kinds], dtype=float),
        calls=np.array([calls[kind] for kind in kinds], dtype=float),
        first_calls=np.array([first[kind] for kind in kinds], dtype=float),
        weight_bytes=program.stored_weight_bytes,
        kv_bytes=program.stored_kv_bytes,
    )


def program_rows(program: Program) -> list[list[Work]]:
    """Write the operations of each call as rows, in order; layout operations have none.

    A call that repeats another, weights known and all, has the very same list.
    """
    known: set[str] = set()  # weights that an earlier call has read whole
    rows_of: dict[tuple[int, int], list[Work]] = {}
    found = []
    for call in program.calls:
        key = id(call), len(known)  # what is known only grows
        if key not in rows_of:
            rows_of[key] = call_rows(call, known)
            known |= {
                t.name
                for op in call.ops
                for t in op.inputs
                if t.role == "weight" and op.kind != "embed"
            }
        found.append(rows_of[key])
    return found


def call_rows(call: Call, known: Collection[str] = ()) -> list[Work]:
    """Write the operations of a call as rows, in order; layout operations have none."""
    return [work_of(op, known) for op in call.ops if not op.is_layout]


def price(columns: ProgramColumns, values: NpuValues, runtime: str = "native") -> Priced:
    """Price a program on many NPUs.

    Args:
        columns: the program.
        values: {path of `Npu.values`: a number, or [N] numbers}.
        runtime: who calls the graphs, one of `RUNTIMES` of `program.py`.

    Returns:
        The times.
    """
    values = {path: _column(v) for path, v in values.items() if not isinstance(v, str)}
    values = kept_values(values, columns.weight_bytes, columns.kv_bytes)
    cost = roofline(Work(*columns.rows.T), values)  # [1 or N, n_rows]

    of_calls = _summing(columns)
    overhead = of_calls(cost.overhead_cycles)  # the only amount that need not be whole
    memory = of_calls(cost.memory_cycles)
    most = [of_calls(cost.compute_cycles), of_calls(cost.vector_cycles), overhead]
    engine = np.maximum.reduce(np.broadcast_arrays(memory, *most))
    serial = of_calls(cost.engine_cycles) + overhead
    busy = of_calls(larger(cost.compute_cycles, cost.vector_cycles)) + overhead
    cycles = call_cycles(serial, memory, busy, engine, columns.encodes, values)
    call_us = call_overhead_us(values, runtime, columns.positions)  # [1 or N, n_kinds]
    cycles = cycles + np.round(call_us * values["clock_hz"] / 1e6)
    moved = of_calls(cost.dram_bytes) @ columns.calls
    return Priced(
        ttft_cycles=cycles @ columns.first_calls,
        latency_cycles=cycles @ columns.calls,
        dram_bytes=np.broadcast_to(moved, (len(cycles),)),
    )


def _summing(columns: ProgramColumns) -> Callable[[np.ndarray], np.ndarray]:
    """Return what sums an amount of each operation over each kind of calls.

    Rows that a quarter of the kinds have are a matrix product, the others are gathered: that is
    linear in the steps of a request, and of whole numbers both are exact in any order.
    """
    n_kinds, n_rows = len(columns.starts), len(columns.rows)
    kind_of = np.repeat(np.arange(n_kinds), np.diff([*columns.starts, len(columns.row_of)]))
    shared = 4 * np.bincount(columns.row_of, minlength=n_rows) >= n_kinds
    common = shared[columns.row_of]
    matrix = np.zeros((np.count_nonzero(shared), n_kinds))
    at = np.cumsum(shared)[columns.row_of[common]] - 1
    np.add.at(matrix, (at, kind_of[common]), columns.counts[common])
    rows, kinds, counts = (x[~common] for x in (columns.row_of, kind_of, columns.counts))
    starts = np.flatnonzero(np.diff(kinds, prepend=-1))
    n_ops = np.bincount(kind_of, columns.counts, n_kinds)

    def of_calls(amount: np.ndarray) -> np.ndarray:
        """[1 or N, 1 or n_rows] -> [1 or N, n_kinds]."""
        amount = np.atleast_2d(amount)
        if amount.shape[1] < n_rows:  # every operation has the same
            return amount * n_ops
        sums: np.ndarray = amount[:, shared] @ matrix
        if len(starts):
            sums[:, kinds[starts]] += np.add.reduceat(amount[:, rows] * counts, starts, axis=1)
        return sums

    return of_calls


def _column(value: Amount) -> np.ndarray:
    """A number or [N] -> [1 or N, 1] float64."""
    return np.atleast_1d(np.asarray(value, dtype=float))[:, None]
