"""The parts of a report at `tile` fidelity: phases, layers, kinds of operation.

Where the time of an operation goes: its start to the overhead, what the matrix engine is busy to
compute, what the vector engine is busy beyond that to vector, and the rest is waiting for memory.
Where pieces stream and the DMA is the slowest, all of the time after the start counts as memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from npu_sim.program.program import Op
from npu_sim.report.energy import energy_joules
from npu_sim.report.phases import PhaseReport
from npu_sim.roofline.formula import LIMITS, Limit
from npu_sim.tile.limits import row_limits
from npu_sim.tile.simulate import TileRun

__all__ = ["Share", "shares", "tile_phases"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What one layer, kind of operation or site takes of a request."""

    name: str
    cycles: int
    macs: int
    dram_bytes: int


def tile_phases(run: TileRun) -> tuple[PhaseReport, ...]:
    """Add up a run by phase.

    Args:
        run: from `simulate_tiles`.

    Returns:
        One report per phase, in order.
    """
    return tuple(_phase(run, name) for name in run.table.program.phases)


def _phase(run: TileRun, name: str) -> PhaseReport:
    calls = [call for call in run.calls if call.table.call.phase == name]
    limits = sum((row_limits(call).sum(axis=0) for call in calls), np.zeros(4, np.int64))
    cycles: dict[Limit, int] = {
        limit: int(value) for limit, value in zip(LIMITS, limits, strict=True)
    }
    cycles["overhead"] += sum(call.overhead_cycles for call in calls)
    weights, cache, activations = (
        int(value) for value in sum(call.times["dram_bytes"].sum(axis=0) for call in calls)
    )
    ops = [op for call in calls for op in call.table.ops]
    npu = run.npu
    total = sum(cycles.values())
    return PhaseReport(
        phase=name, n_calls=len(calls), macs=sum(op.macs for op in ops), weight_bytes=weights,
        kv_bytes=cache, activation_bytes=activations, limit_cycles=MappingProxyType(cycles),
        energy_joules=energy_joules(ops, weights + cache + activations, total, npu),
        clock_hz=npu.clock_hz, peak_macs_per_cycle=npu.matrix.w8a8_macs_per_cycle,
    )  # fmt: skip


def shares(run: TileRun, by: str) -> list[Share]:
    """Divide a request by layer, kind of operation or site; overheads of calls are a share too.

    Args:
        run: from `simulate_tiles`.
        by: "layer", "kind" or "site".

    Returns:
        Shares, the longest first; their cycles add up to the request.
    """
    name_of = {"layer": _layer, "kind": _kind, "site": _site}[by]
    found: dict[str, np.ndarray] = {}
    for call in run.calls:
        per_row = np.stack(
            [
                row_limits(call).sum(axis=1),
                np.array([op.macs for op in call.table.ops], np.int64),
                call.times["dram_bytes"].sum(axis=1),
            ],
            axis=1,
        )
        for op, values in zip(call.table.ops, per_row, strict=True):
            name = name_of(op)
            found[name] = found[name] + values if name in found else values
    calls = np.array([sum(call.overhead_cycles for call in run.calls), 0, 0])
    found["(calls)"] = calls
    ranked = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    return [_share(name, values) for name, values in ranked]


def _share(name: str, values: Iterable[int]) -> Share:
    cycles, macs, dram_bytes = (int(value) for value in values)
    return Share(name=name, cycles=cycles, macs=macs, dram_bytes=dram_bytes)


def _layer(op: Op) -> str:
    parts = op.site.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 else parts[0]


def _kind(op: Op) -> str:
    return op.kind


def _site(op: Op) -> str:
    return op.site
