"""What each layer, kind of operation or site takes of a request, at `tile` fidelity."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from npu_sim.program.program import Op
from npu_sim.tile.bottleneck import row_limits
from npu_sim.tile.simulate import TileRun

__all__ = ["DIVISIONS", "Share", "shares"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What one layer, kind of operation or site takes of a request."""

    name: str  # "(calls)": the overheads of graph calls
    cycles: int
    macs: int
    dram_bytes: int


def _layer(op: Op) -> str:
    # "encoder.3" of "encoder.3.mlp.up", "encoder" of "encoder.final_norm"
    parts = op.site.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 else parts[0]


DIVISIONS: Mapping[str, Callable[[Op], str]] = MappingProxyType(
    {"layer": _layer, "kind": lambda op: op.kind, "site": lambda op: op.site}
)


def shares(run: TileRun, by: str) -> list[Share]:
    """Divide a request by layer, kind of operation or site; overheads of calls are a share too.

    Args:
        run: from `simulate_tiles`.
        by: one of `DIVISIONS`.

    Returns:
        Shares, the longest first, layers as they come; their cycles add up to the request.
    """
    found: dict[str, np.ndarray] = {}
    for call in run.calls:
        macs = np.array([op.macs for op in call.table.ops], np.int64)
        # [n_rows, 3]: cycles, macs, bytes of weights, cache and activations together
        per_row = np.stack(
            [row_limits(call).sum(axis=1), macs, call.times["dram_bytes"].sum(axis=1)], axis=1
        )
        for op, values in zip(call.table.ops, per_row, strict=True):
            name = DIVISIONS[by](op)
            found[name] = found[name] + values if name in found else values
    found["(calls)"] = np.array([sum(call.overhead_cycles for call in run.calls), 0, 0])
    ranked = list(found.items())
    if by != "layer":
        ranked.sort(key=lambda item: (-item[1][0], item[0]))
    return [
        Share(name=name, cycles=int(cycles), macs=int(macs), dram_bytes=int(dram_bytes))
        for name, (cycles, macs, dram_bytes) in ranked
    ]
