"""Which field matters most: each is moved alone, down and up. Chapter: `docs/whatif.md`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mu_ref.border.ranges import Range
from npu_sim.errors import SweepError
from npu_sim.report.fidelity import FIDELITIES
from npu_sim.whatif.metrics import evaluate_base, evaluate_changed
from npu_sim.whatif.scenario import Scenario, full_path

__all__ = ["MOVED", "SENSITIVE", "Swing", "sensitivity"]


SENSITIVE = (
    "npu.clock_hz", "npu.matrix.w8a16_macs_per_cycle", "npu.matrix.attention_efficiency",
    "npu.vector.width_bytes", "npu.vector.special_function_cycles", "npu.dma.bytes_per_s",
    "npu.sram.capacity_bytes", "npu.per_op_overhead_cycles", "npu.per_inference_overhead_us",
    "workload.n_input", "workload.n_output", "precision.weight_bits", "precision.kv_bits",
)  # fmt: skip

WIDTHS = (4, 8, 16)
MOVED = Range(low=0, above=True, high=0.99, whole=False, why="a field less all of itself is none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Swing:
    """What one field does to a metric."""

    path: str
    low: float | None  # metric with the smaller value; None: cannot be simulated
    high: float | None
    low_value: Any
    high_value: Any

    def span(self, base: float) -> float:
        """Largest change of the metric, as a share of its base if that is not 0."""
        far = max(0.0 if x is None else abs(x - base) for x in (self.low, self.high))
        return far / abs(base) if base else far


def sensitivity(
    scenario: Scenario,
    metric: str = "latency_ms",
    share: float = 0.2,
    paths: Sequence[str] = SENSITIVE,
    fidelity: str = FIDELITIES[0],
) -> tuple[float, list[Swing]]:
    """Move one field at a time down and up.

        >>> import npu_sim
        >>> mu = npu_sim.base_scenario({"model": "mu-330m"})
        >>> _, swings = npu_sim.sensitivity(mu, "decode_tok_per_s", fidelity="roofline")
        >>> [swing.path for swing in swings[:2]]  # what decoding waits for
        ['precision.weight_bits', 'npu.dma.bytes_per_s']

    Args:
        scenario: the base.
        metric: one of `METRICS`.
        share: how far, 0.2 is 20 % each way; widths go to their neighbours, overheads of 0 stay.
        paths: fields to move.
        fidelity: one of `FIDELITIES`.

    Returns:
        The metric of the base, and a swing per field, the largest first.

    Raises:
        NpuSimError: no such metric or field, a share that is no share, or a metric that the
            scenario has not.
    """
    MOVED.check("share", share, SweepError)
    base = evaluate_base(scenario, metric, fidelity)
    swings = []
    for name in paths:
        path = full_path(name, scenario)
        low, high = _neighbours(path, scenario.paths()[path], share)
        found = [
            evaluate_changed(scenario, {path: value}, metric, fidelity) for value in (low, high)
        ]
        swings.append(Swing(path=path, low=found[0], high=found[1], low_value=low, high_value=high))
    return base, sorted(swings, key=lambda swing: -swing.span(base))


def _neighbours(path: str, value: Any, share: float) -> tuple[Any, Any]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SweepError(f"{path} must be a number to be moved, got {value!r}")
    if path.startswith("precision."):
        at = WIDTHS.index(value)  # 20 % more than 8 bits is no width
        return WIDTHS[max(at - 1, 0)], WIDTHS[min(at + 1, len(WIDTHS) - 1)]
    low, high = value * (1 - share), value * (1 + share)
    if path.endswith("efficiency"):
        high = min(high, 1.0)
    return (round(low), round(high)) if isinstance(value, int) else (low, high)
