"""A program as columns of numbers, and its roofline price on many NPUs at once.

Equal operations become one row with a count; a decode step whose context grows by one token per
step is a row whose numbers grow by a fixed amount. `price` is the twin of `roofline.op_cost` and
`report.simulate` (`docs/04_npu.md`, equations 4.1 to 4.5) over arrays of NPU numbers; a test holds
them equal. Not here: tiles, energies.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from npu_sim.hardware.chip import Npu
from npu_sim.program.precision import PRECISIONS, precision_name
from npu_sim.program.program import VECTOR_WORK, Call, Op, Program
from npu_sim.tile.rows import MATMUL, ProgramTable
from npu_sim.units import MILLION

__all__ = ["FlatProgram", "Priced", "RooflineSheet", "call_rows", "flatten", "price"]


USED = (
    "macs", "precision", "simple", "special", "stored_bytes", "weight_bytes", "kv", "kv_written",
    "activation_bytes", "form",
)  # fmt: skip


class RooflineSheet:
    """A program, ready to be priced again and again.

    Args:
        table: from `program_table`.
    """

    def __init__(self, table: ProgramTable) -> None:
        self.program = table.program
        rows = np.concatenate([call.rows for call in table.calls])
        used = np.stack([rows[name] for name in USED], axis=1)
        different, index = np.unique(used, axis=0, return_inverse=True)
        (
            self.macs, self.precision, self.simple, self.special, self.stored_bytes,
            weights, kv, kv_written, self.activations, form,
        ) = (np.ascontiguousarray(column) for column in different.T)  # fmt: skip
        self.attention = form == MATMUL
        self.moved = weights + kv + kv_written
        call_of = np.repeat(np.arange(len(table.calls)), [len(c.rows) for c in table.calls])
        self.positions = [call.call.n_positions for call in table.calls]
        self.counts = np.zeros((len(table.calls), len(different)), np.int64)
        np.add.at(self.counts, (call_of, index.ravel()), 1)

    def call_cycles(self, npu: Npu) -> np.ndarray:
        """Price every call.

        Args:
            npu: must multiply the program's widths (`support.py`).

        Returns:
            [n_calls] int64, the overhead of the call included.
        """
        matrix, by_width = npu.matrix, []
        for name in PRECISIONS:
            peak = getattr(matrix, f"{name}_macs_per_cycle") * MILLION
            shares = (getattr(matrix, f"{name}_efficiency"), matrix.attention_efficiency)
            by_width.append([max(1, round(peak * share)) for share in shares])
        rates = np.array(by_width)[self.precision, self.attention.astype(int)]
        compute = -(-self.macs * MILLION // rates)
        steps = self.simple + self.special * npu.vector.special_function_cycles
        lanes = np.maximum(1, npu.vector.width_bytes // self.stored_bytes)
        busy_lanes = lanes * npu.vector.efficiency
        elements = np.ceil(np.ceil(steps) / busy_lanes).astype(np.int64)
        leaves = (self.activations > npu.sram.capacity_bytes) & (not npu.sram.fuses_operations)
        spilled = self.activations * leaves
        memory = -(-(self.moved + spilled) * npu.clock_hz // npu.memory_bytes_per_s)
        busiest = np.maximum(np.maximum(compute, elements), memory)
        priced = busiest + npu.per_op_overhead_cycles
        cycles: np.ndarray = self.counts @ priced
        runtime = self.program.runtime
        return cycles + [npu.call_overhead_cycles(runtime, n) for n in self.positions]

    def latency_ms(self, npu: Npu) -> float:
        """Simulated milliseconds of the whole request."""
        return 1000 * int(self.call_cycles(npu).sum()) / npu.clock_hz


# columns of a row: counted amounts, then what kind of work it is
MACS, MOVED, ACTIVATION, ELEMENTS, PRECISION, SIMPLE, SPECIAL, STORED, ATTENTION = range(9)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlatProgram:
    """The operations of a request, equal ones once."""

    rows: np.ndarray  # [n_rows, 9], see the columns above
    counts: np.ndarray  # [n_rows] how often each runs
    first: np.ndarray  # [n_rows] how often each runs before the first token is written
    positions: np.ndarray  # [n_kinds] positions that a call computes
    calls: np.ndarray  # [n_kinds] how many calls compute so many
    first_calls: np.ndarray  # [n_kinds] how many of them before the first token is written
    n_output: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Priced:
    """Simulated times on N NPUs, [N] each."""

    ttft_cycles: np.ndarray
    latency_cycles: np.ndarray
    dram_bytes: np.ndarray


def flatten(program: Program, n_grown: int = 0) -> FlatProgram:
    """Write a program as columns.

    Args:
        program: from `request_program` or `record_request`.
        n_grown: further decode steps behind the last one, each differing from the one before as
            the last differs from the one before it.

    Returns:
        The columns; exact where contexts grow by one token per step.
    """
    counted: Counter[tuple[float, ...]] = Counter()
    first: Counter[tuple[float, ...]] = Counter()
    rows_of: dict[int, list[tuple[float, ...]]] = {}
    for index, call in enumerate(program.calls):
        if id(call) not in rows_of:
            rows_of[id(call)] = call_rows(call)
        counted.update(rows_of[id(call)])
        if index < program.n_first_calls:
            first.update(rows_of[id(call)])
    if n_grown:
        before, last = (np.array(rows_of[id(call)]) for call in program.calls[-2:])
        for step in range(1, n_grown + 1):
            counted.update(map(tuple, (last + step * (last - before)).tolist()))
    rows = np.array(list(counted), dtype=float)
    positions = [call.n_positions for call in program.calls]
    of_call = Counter([*positions, *positions[-1:] * n_grown])
    first_of = Counter(positions[: program.n_first_calls])
    return FlatProgram(
        rows=rows,
        counts=np.array(list(counted.values()), dtype=float),
        first=np.array([first[row] for row in counted], dtype=float),
        positions=np.array(list(of_call), dtype=float),
        calls=np.array(list(of_call.values()), dtype=float),
        first_calls=np.array([first_of[n] for n in of_call], dtype=float),
        n_output=program.n_output + n_grown,
    )


def call_rows(call: Call) -> list[tuple[float, ...]]:
    """Write the operations of a call as rows, in order; layout operations have none."""
    return [_row(op) for op in call.ops if not op.is_layout]


def _row(op: Op) -> tuple[float, ...]:
    work = VECTOR_WORK[op.vector_work]
    widths = [t.bits for t in (*op.inputs, op.output) if t.role != "weight"]
    stored_bytes = 1 if max(widths) <= 8 else 2 if max(widths) <= 16 else 4
    precision = -1 if op.gemm is None else PRECISIONS.index(precision_name(*op.operand_bits))
    return (
        float(op.macs), float(op.weight_bytes + op.kv_bytes), float(op.activation_bytes),
        float(op.vector_elements), float(precision), float(work.simple_operations),
        float(work.special_functions), float(stored_bytes), float(op.kind == "matmul"),
    )  # fmt: skip


def price(flat: FlatProgram, values: Mapping[str, Any], runtime: str = "native") -> Priced:
    """Price a program on many NPUs.

    Args:
        flat: the program.
        values: {path of `Npu.values`: a number, or [N] numbers}.
        runtime: who calls the graphs, one of `hardware.RUNTIMES`.

    Returns:
        The times.
    """
    v = {path: _column(value) for path, value in values.items() if not isinstance(value, str)}
    row = flat.rows.T  # [9, n_rows]
    rate = np.ones((1, len(flat.counts)))
    attention = row[ATTENTION] == 1
    for index, name in enumerate(PRECISIONS):
        share = np.where(
            attention, v["matrix.attention_efficiency"], v[f"matrix.{name}_efficiency"]
        )
        of_width = np.round(v[f"matrix.{name}_macs_per_cycle"] * MILLION * share)
        rate = np.where(row[PRECISION] == index, of_width, rate)
    compute = np.ceil(row[MACS] * MILLION / np.maximum(rate, 1))  # [N, n_rows]
    lanes = np.maximum(1, v["vector.width_bytes"] // row[STORED])
    steps = row[SIMPLE] + row[SPECIAL] * v["vector.special_function_cycles"]
    vector = np.ceil(np.ceil(row[ELEMENTS] * steps) / (lanes * v["vector.efficiency"]))
    leaves = (row[ACTIVATION] > v["sram.capacity_bytes"]) & (v["sram.fuses_operations"] == 0)
    spilled = np.where(leaves, row[ACTIVATION], 0.0)
    moved = row[MOVED] + spilled
    bytes_per_s = np.minimum(v["dma.bytes_per_s"], v["dram.bytes_per_s"])
    memory = np.ceil(moved * v["clock_hz"] / bytes_per_s)
    cycles = np.maximum(np.maximum(compute, vector), memory) + v["per_op_overhead_cycles"]
    call_us = v["per_inference_overhead_us"] + np.zeros(len(flat.calls))  # [1 or N, n_kinds]
    if runtime == "geniex":
        call_us = call_us + v["geniex_overhead_us"] + flat.positions * v["geniex_position_us"]
    overhead = np.round(call_us * v["clock_hz"] / 1e6)
    return Priced(
        ttft_cycles=cycles @ flat.first + overhead @ flat.first_calls,
        latency_cycles=cycles @ flat.counts + overhead @ flat.calls,
        dram_bytes=np.broadcast_to(moved, cycles.shape) @ flat.counts,
    )


def _column(value: Any) -> np.ndarray:
    """A number or [N] -> [1 or N, 1] float64."""
    return np.atleast_1d(np.asarray(value, dtype=float))[:, None]
