"""A program as columns of numbers, and its roofline price on many NPUs at once.

Equal operations become one row with a count; a decode step whose context grows by one token per
step is a row whose numbers grow by a fixed amount. `price` is `formula.roofline` over these rows
and over arrays of NPU numbers. Not here: tiles, energies. Chapter: `docs/whatif.md`.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from npu_sim.hardware.chip import call_overhead_us
from npu_sim.program.program import Call, Program
from npu_sim.roofline.formula import Amount, NpuValues, Work, roofline, work_of

__all__ = ["Priced", "ProgramColumns", "call_rows", "price", "program_columns"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramColumns:
    """The operations of a request, equal ones once, and its graph calls."""

    rows: np.ndarray  # [n_rows, 10] float64, a column for each field of `Work`
    counts: np.ndarray  # [n_rows] how often each runs
    first: np.ndarray  # [n_rows] how often each runs before the first token is written
    positions: np.ndarray  # [n_kinds] positions that a call computes
    calls: np.ndarray  # [n_kinds] how many calls compute so many
    first_calls: np.ndarray  # [n_kinds] how many of them before the first token is written


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
    counted: Counter[Work] = Counter()
    first: Counter[Work] = Counter()
    rows_of: dict[int, list[Work]] = {}  # by identity: a request may repeat one call
    for index, call in enumerate(program.calls):
        if id(call) not in rows_of:
            rows_of[id(call)] = call_rows(call)
        counted.update(rows_of[id(call)])
        if index < program.n_first_calls:
            first.update(rows_of[id(call)])
    if n_grown:
        before, last = (np.array(rows_of[id(call)], float) for call in program.calls[-2:])
        for step in range(1, n_grown + 1):
            counted.update(map(Work._make, (last + step * (last - before)).tolist()))
    positions = [call.n_positions for call in program.calls]
    of_call = Counter([*positions, *positions[-1:] * n_grown])
    first_of = Counter(positions[: program.n_first_calls])
    return ProgramColumns(
        rows=np.array(list(counted), dtype=float),
        counts=np.array(list(counted.values()), dtype=float),
        first=np.array([first[row] for row in counted], dtype=float),
        positions=np.array(list(of_call), dtype=float),
        calls=np.array(list(of_call.values()), dtype=float),
        first_calls=np.array([first_of[n] for n in of_call], dtype=float),
    )


def call_rows(call: Call) -> list[Work]:
    """Write the operations of a call as rows, in order; layout operations have none."""
    return [work_of(op) for op in call.ops if not op.is_layout]


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
    cost = roofline(Work(*columns.rows.T), values)  # [1 or N, n_rows]
    call_us = call_overhead_us(values, runtime, columns.positions)  # [1 or N, n_kinds]
    overhead = np.round(call_us * values["clock_hz"] / 1e6)
    return Priced(
        ttft_cycles=cost.cycles @ columns.first + overhead @ columns.first_calls,
        latency_cycles=cost.cycles @ columns.counts + overhead @ columns.calls,
        dram_bytes=np.broadcast_to(cost.dram_bytes, cost.cycles.shape) @ columns.counts,
    )


def _column(value: Amount) -> np.ndarray:
    """A number or [N] -> [1 or N, 1] float64."""
    return np.atleast_1d(np.asarray(value, dtype=float))[:, None]
