"""The parts of a report: what one phase costs, and what is left of a budget.

Every time is simulated. `report.py` puts the parts together. Chapter: `docs/04_npu.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from npu_sim.hardware.chip import Npu
from npu_sim.report.energy import energy_joules
from npu_sim.roofline.formula import LIMITS, Limit, OpCost
from npu_sim.units import ms_from_cycles

__all__ = ["PhaseReport", "phase_report"]


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


def phase_report(
    name: str, calls: list[list[OpCost]], npu: Npu, call_overhead_cycles: int
) -> PhaseReport:
    """Add up the costs of one phase.

    Args:
        name: of the phase.
        calls: for each graph call, the costs of its operations.
        npu: the NPU that they were priced on.
        call_overhead_cycles: of all these calls.

    Returns:
        The sums; overheads count as a limit of their own, the rest of an operation as its
        busiest engine's.
    """
    limit_cycles: dict[Limit, int] = dict.fromkeys(LIMITS, 0)
    limit_cycles["overhead"] = call_overhead_cycles
    costs = [cost for call in calls for cost in call]
    for cost in costs:
        limit_cycles[cost.engine] += cost.engine_cycles
        limit_cycles["overhead"] += cost.overhead_cycles
    weight_bytes = sum(cost.op.weight_bytes for cost in costs)
    kv_bytes = sum(cost.op.kv_bytes for cost in costs)
    moved_bytes = sum(cost.dram_bytes for cost in costs)
    cycles = sum(limit_cycles.values())
    return PhaseReport(
        phase=name,
        n_calls=len(calls),
        macs=sum(cost.op.macs for cost in costs),
        weight_bytes=weight_bytes,
        kv_bytes=kv_bytes,
        activation_bytes=moved_bytes - weight_bytes - kv_bytes,
        limit_cycles=MappingProxyType(limit_cycles),
        energy_joules=energy_joules((cost.op for cost in costs), moved_bytes, cycles, npu),
        clock_hz=npu.clock_hz,
        peak_macs_per_cycle=npu.matrix.w8a8_macs_per_cycle,
    )
