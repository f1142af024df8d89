"""What each phase of a request costs: one `PhaseReport`, whichever fidelity the calls come from.

Each fidelity says of a graph call where its time goes and what it moves (`CallReport`); a phase
is the sum over its calls. At `tile` fidelity the time of an operation goes in this order: its
start to the overhead, what the matrix engine is busy to compute, what the vector engine is busy
beyond that to vector, and the rest is waiting for memory. Where pieces stream and the DMA is the
slowest, all of the time after the start counts as memory. Every time is simulated. Chapters:
`docs/11_machine.md`, `docs/13_tiles.md`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from npu_sim.hardware.chip import Npu
from npu_sim.program.program import Call, Program
from npu_sim.report.energy import energy_joules
from npu_sim.roofline.columns import program_rows
from npu_sim.roofline.formula import (
    LIMITS,
    Limit,
    NpuValues,
    OpCost,
    Work,
    call_cycles,
    kept_values,
    roofline,
)
from npu_sim.units import ms_from_cycles

if TYPE_CHECKING:
    from npu_sim.tile.simulate import TileRun

__all__ = ["CallReport", "PhaseReport", "phase_reports", "roofline_calls", "tile_calls"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CallReport:
    """One graph call at either fidelity."""

    call: Call
    limit_cycles: Mapping[Limit, int]  # where the time goes; the start of the call is overhead
    weight_bytes: int  # read from DRAM
    kv_bytes: int  # read from and written to DRAM
    activation_bytes: int  # through DRAM because they do not fit SRAM

    @property
    def cycles(self) -> int:
        """Simulated cycles."""
        return sum(self.limit_cycles.values())


def roofline_calls(program: Program, npu: Npu) -> list[CallReport]:
    """Price each call of a program operation by operation.

    Args:
        program: the request.
        npu: an NPU that can run it.

    Returns:
        Each call, in order; an operation counts as what its busiest engine does.
    """
    values = kept_values(npu.values(), program.stored_weight_bytes, program.stored_kv_bytes)
    rows = program_rows(program)
    return [
        _roofline_call(call, some, program.runtime, npu, values)
        for call, some in zip(program.calls, rows, strict=True)
    ]


def _roofline_call(
    call: Call, rows: Sequence[Work], runtime: str, npu: Npu, values: NpuValues
) -> CallReport:
    limit_cycles: dict[Limit, int] = dict.fromkeys(LIMITS, 0)
    weight_bytes = kv_bytes = moved_bytes = serial = memory = busy = 0
    engines = dict.fromkeys(LIMITS, 0)
    # layers repeat each other, so that few operations of a call differ
    for work, count in Counter(rows).items():
        cost = roofline(work, values)
        engine = _computing(cost) if npu.dma.runs_ahead else cost.engine
        limit_cycles["overhead"] += count * cost.overhead_cycles
        limit_cycles[engine] += count * getattr(cost, f"{engine}_cycles")
        weight_bytes += count * (work.weight_bytes - work.known_bytes * values["kept.weights"])
        kv_bytes += count * work.kv_bytes * (1 - values["kept.cache"])
        moved_bytes += count * cost.dram_bytes
        serial += count * cost.cycles
        memory += count * cost.memory_cycles
        busy += count * cost.busy_cycles
        for limit in LIMITS:
            engines[limit] += count * getattr(cost, f"{limit}_cycles")
    if npu.dma.runs_ahead and memory > busy:  # whatever computes waits for it
        starts = limit_cycles["overhead"]
        limit_cycles |= {"compute": 0, "vector": 0, "memory": memory - starts}
    most, encodes = max(engines.values()), call.phase == "encode"
    if (
        npu.sram.streams_encode and npu.sram.fuses_operations and encodes
    ):  # all of it is what the busiest engine does
        busiest = max(LIMITS, key=lambda limit: engines[limit])
        limit_cycles = dict.fromkeys(LIMITS, 0) | {busiest: most}
    assert sum(limit_cycles.values()) == call_cycles(serial, memory, busy, most, encodes, values)
    limit_cycles["overhead"] += npu.call_overhead_cycles(runtime, call.n_positions)
    return CallReport(
        call=call, limit_cycles=limit_cycles, weight_bytes=weight_bytes, kv_bytes=kv_bytes,
        activation_bytes=moved_bytes - weight_bytes - kv_bytes,
    )  # fmt: skip


def _computing(cost: OpCost) -> Limit:
    """Which of the computing engines is busier."""
    return "compute" if cost.compute_cycles >= cost.vector_cycles else "vector"


def tile_calls(run: "TileRun") -> list[CallReport]:
    """Sum up each call of a run.

    Args:
        run: from `simulate_tiles`.

    Returns:
        Each call, in order.
    """
    from npu_sim.tile.bottleneck import row_limits  # compiled code, which a roofline does without

    calls = []
    for call in run.calls:
        limits = row_limits(call).sum(axis=0).tolist()
        limits[LIMITS.index("overhead")] += call.overhead_cycles
        weight_bytes, kv_bytes, activation_bytes = call.times["dram_bytes"].sum(axis=0).tolist()
        calls.append(
            CallReport(
                call=call.table.call, limit_cycles=dict(zip(LIMITS, limits, strict=True)),
                weight_bytes=weight_bytes, kv_bytes=kv_bytes, activation_bytes=activation_bytes,
            )
        )  # fmt: skip
    return calls


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseReport:
    """All graph calls of one phase together."""

    phase: str
    n_calls: int
    macs: int
    weight_bytes: int  # read from DRAM
    kv_bytes: int  # read from and written to DRAM
    activation_bytes: int  # through DRAM because they do not fit SRAM
    limit_cycles: Mapping[Limit, int]  # where the time goes; the sum is `cycles`
    energy_joules: float
    clock_hz: int
    peak_macs_per_cycle: int  # at 8-bit operands

    @property
    def cycles(self) -> int:
        """Simulated cycles."""
        return sum(self.limit_cycles.values())

    @property
    def time_ms(self) -> float:
        """Simulated milliseconds."""
        return ms_from_cycles(self.cycles, self.clock_hz)

    @property
    def dram_bytes(self) -> int:
        """Bytes between DRAM and SRAM."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes

    @property
    def bound(self) -> Limit:
        """What most of the time goes to."""
        return max(LIMITS, key=lambda limit: self.limit_cycles[limit])

    @property
    def utilization(self) -> float:
        """Useful MACs over the MACs possible at 8-bit operands in that time, 0 to 1."""
        return self.macs / (self.peak_macs_per_cycle * self.cycles) if self.cycles else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and texts."""
        return {
            "phase": self.phase,
            "calls": self.n_calls,
            "macs": self.macs,
            "dram_bytes": self.dram_bytes,
            "weight_bytes": self.weight_bytes,
            "kv_bytes": self.kv_bytes,
            "activation_bytes": self.activation_bytes,
            "cycles": self.cycles,
            "time_ms": self.time_ms,
            "energy_mj": 1000 * self.energy_joules,
            "limit_cycles": dict(self.limit_cycles),
            "bound": self.bound,
            "utilization": self.utilization,
        }


def phase_reports(calls: Sequence[CallReport], npu: Npu) -> tuple[PhaseReport, ...]:
    """Add up calls by phase.

    Args:
        calls: of a whole request, from either fidelity.
        npu: the NPU that they ran on.

    Returns:
        One report per phase, in order.
    """
    phases = dict.fromkeys(call.call.phase for call in calls)
    return tuple(_phase([c for c in calls if c.call.phase == name], npu) for name in phases)


def _phase(calls: Sequence[CallReport], npu: Npu) -> PhaseReport:
    ops = [op for call in calls for op in call.call.ops]
    weight_bytes = sum(call.weight_bytes for call in calls)
    kv_bytes = sum(call.kv_bytes for call in calls)
    activation_bytes = sum(call.activation_bytes for call in calls)
    moved_bytes, cycles = weight_bytes + kv_bytes + activation_bytes, sum(c.cycles for c in calls)
    return PhaseReport(
        phase=calls[0].call.phase,
        n_calls=len(calls),
        macs=sum(op.macs for op in ops),
        weight_bytes=weight_bytes,
        kv_bytes=kv_bytes,
        activation_bytes=activation_bytes,
        limit_cycles=MappingProxyType(
            {limit: sum(call.limit_cycles[limit] for call in calls) for limit in LIMITS}
        ),
        energy_joules=energy_joules(ops, moved_bytes, cycles, npu),
        clock_hz=npu.clock_hz,
        peak_macs_per_cycle=npu.matrix.w8a8_macs_per_cycle,
    )
