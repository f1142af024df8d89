"""One model at many input lengths: columns recorded at three of them, computed for all others.

Every number of an operation is a polynomial of degree two at most in the number of input tokens:
weights do not depend on it, linear layers and caches grow with it, attention with its square. So
three recordings say everything, and a sweep over lengths needs no more. Chapter: `docs/whatif.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from npu_sim.errors import check_at_most
from npu_sim.program.program import Program
from npu_sim.program.request import MAX_INPUT_TOKENS
from npu_sim.roofline.columns import ProgramColumns, program_rows
from npu_sim.whatif.request import (
    N_RECORDED,
    RequestColumns,
    is_exact,
    later_tokens,
    request_columns,
)
from npu_sim.whatif.scenario import Scenario

__all__ = ["ColumnsByLength", "columns_by_length"]

LEAST = 2  # one token is a special case: taking the last of one copies nothing
RECORDED = (LEAST, LEAST + 1, LEAST + 2)  # three points fix a polynomial of degree two


@dataclass(frozen=True, eq=False)
class ColumnsByLength:
    """A request at any input length of at least `LEAST`."""

    base: Scenario
    recorded: tuple[RequestColumns, ...]  # at the lengths RECORDED
    rows: np.ndarray  # [3, n_rows, 12] differences of order 0, 1, 2
    row_of: np.ndarray  # [n_entries], as in `ProgramColumns`
    counts: np.ndarray  # [n_entries]
    starts: np.ndarray  # [n_kinds]
    stored: np.ndarray  # [3] bytes in DRAM, as differences

    def at(self, n_input: int) -> RequestColumns:
        """Return the request at one length.

        Args:
            n_input: tokens read.

        Returns:
            What `request_columns` returns.

        Raises:
            WorkloadError: too long to simulate.
        """
        workload = replace(self.base.workload, n_input=n_input)
        if n_input < LEAST:
            return request_columns(replace(self.base, workload=workload))
        check_at_most("batch x n_input", workload.batch * n_input, MAX_INPUT_TOKENS)
        shortest = self.recorded[0]
        positions = [np.array(request.columns.positions) for request in self.recorded]
        stored_bytes = round(float(_newton(self.stored, n_input)))
        columns = ProgramColumns(
            rows=_newton(self.rows, n_input),
            row_of=self.row_of,
            counts=self.counts,
            starts=self.starts,
            positions=_newton(_differences(positions), n_input),
            encodes=shortest.columns.encodes,
            calls=shortest.columns.calls,
            first_calls=shortest.columns.first_calls,
            weight_bytes=shortest.columns.weight_bytes,
            kv_bytes=stored_bytes - shortest.columns.weight_bytes,
        )
        return replace(shortest, columns=columns, stored_bytes=stored_bytes)


def columns_by_length(scenario: Scenario) -> ColumnsByLength | None:
    """Record a request at three input lengths.

    Args:
        scenario: its input length does not matter.

    Returns:
        The request at any length, or None where lengths change more than sizes: static contexts,
        drafters, NTK, windows, experts, odd widths in 4 bits.
    """
    n_grown = later_tokens(scenario) + 1 - N_RECORDED  # steps that follow from the recorded ones
    if not is_exact(scenario) or scenario.drafter.beam_width or n_grown < 1:
        return None
    if scenario.description.experts_per_token:
        return None  # more tokens reach more experts, and no polynomial says how many
    widths, stacks = scenario.precision, scenario.description.model.stacks.values()
    if 4 in (widths.weight_bits, widths.head_bits) and any(s.d_model % 2 for s in stacks):
        return None  # half bytes are rounded up, which no polynomial does
    requests = tuple(
        request_columns(replace(scenario, workload=replace(scenario.workload, n_input=n)))
        for n in RECORDED
    )
    aligned = [_aligned(request.program, n_grown) for request in requests]
    rows = _differences([rows for rows, _ in aligned])
    # operations are equal if they are so at all lengths
    different, row_of = np.unique(np.concatenate(rows, axis=1), axis=0, return_inverse=True)
    # equal ones of a call once: a pair of call and row is one number
    pairs = aligned[0][1] * len(different) + row_of.reshape(-1)
    entries, counts = np.unique(pairs, return_counts=True)
    calls = entries // len(different)
    width = rows.shape[2]
    return ColumnsByLength(
        base=scenario,
        recorded=requests,
        rows=np.stack([different[:, i * width : (i + 1) * width] for i in range(3)]),
        row_of=entries % len(different),
        counts=counts.astype(float),
        starts=np.flatnonzero(np.diff(calls, prepend=-1)),
        stored=_differences([np.array(float(request.stored_bytes)) for request in requests]),
    )


def _aligned(program: Program, n_grown: int) -> tuple[np.ndarray, np.ndarray]:
    """All operations in order, grown steps last, and the number of the call of each."""
    n_recorded = len(program.calls) - n_grown
    per_call = [np.array(rows, float) for rows in program_rows(program)[:n_recorded]]
    before, last = per_call[-2:]
    per_call += [last + step * (last - before) for step in range(1, n_grown + 1)]
    return np.concatenate(per_call), np.repeat(np.arange(len(per_call)), list(map(len, per_call)))


def _differences(values: Sequence[np.ndarray]) -> np.ndarray:
    """Values at three neighbouring lengths -> differences of order 0, 1 and 2."""
    a, b, c = values
    return np.stack([a, b - a, c - 2 * b + a])


def _newton(differences: np.ndarray, n_input: int) -> np.ndarray:
    """Newton's polynomial through the three lengths; exact in whole numbers."""
    x = n_input - LEAST
    value: np.ndarray = differences[0] + x * differences[1] + x * (x - 1) // 2 * differences[2]
    return value
