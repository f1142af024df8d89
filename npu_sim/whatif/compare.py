"""Two scenarios side by side: which fields differ, and what each cause costs in each phase.

Causes are compute, vector, memory and overhead, at either fidelity. Chapter: `docs/whatif.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from npu_sim.report.fidelity import FIDELITIES
from npu_sim.report.report import Report
from npu_sim.roofline.formula import LIMITS
from npu_sim.units import ms_from_cycles
from npu_sim.whatif.metrics import scenario_report
from npu_sim.whatif.scenario import Scenario

__all__ = ["Comparison", "compare", "compared"]

Costs = Mapping[tuple[str, str], float]  # (phase, cause) -> ms


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What differs between two scenarios."""

    fields: Mapping[str, tuple[Any, Any]]  # {path: (value in A, value in B)}
    costs: Mapping[tuple[str, str], tuple[float, float]]  # (phase, cause) -> (ms in A, ms in B)

    @property
    def totals_ms(self) -> tuple[float, float]:
        """Simulated request of A and of B."""
        pairs = list(self.costs.values())
        return sum(a for a, _ in pairs), sum(b for _, b in pairs)

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and texts."""
        a, b = self.totals_ms
        return {
            "simulated": True,
            "fields": {path: {"a": x, "b": y} for path, (x, y) in self.fields.items()},
            "costs": [
                {"phase": phase, "cause": cause, "a_ms": x, "b_ms": y, "difference_ms": y - x}
                for (phase, cause), (x, y) in self.costs.items()
            ],
            "a_ms": a,
            "b_ms": b,
        }


def compare(a: Scenario, b: Scenario, fidelity: str = FIDELITIES[0]) -> Comparison:
    """Compare two scenarios: which fields differ, and what each cause costs in each phase.

        >>> import npu_sim
        >>> a, b = (npu_sim.base_scenario({"model": "mu-nano", "precision": {"weight_bits": bits}})
        ...         for bits in (8, 4))
        >>> npu_sim.compare(a, b).fields
        {'precision.weight_bits': (8, 4)}

    Args:
        a: the first.
        b: the second.
        fidelity: one of `FIDELITIES`.

    Returns:
        Fields that differ, and the cost of each cause in each phase; together the costs are the
        simulated requests.

    Raises:
        NpuSimError: one of them cannot be simulated.
    """
    return compared(a, b, scenario_report(a, fidelity), scenario_report(b, fidelity))


def compared(a: Scenario, b: Scenario, of_a: Report, of_b: Report) -> Comparison:
    """Compare two scenarios whose reports there are; see `compare`."""
    fields_a, fields_b = a.paths(), b.paths()
    pairs = {path: (fields_a.get(path), fields_b.get(path)) for path in {**fields_a, **fields_b}}
    fields = {path: (x, y) for path, (x, y) in pairs.items() if x != y}
    if a.description.name != b.description.name:
        fields = {"model": (a.description.name, b.description.name), **fields}
    costs_a, costs_b = _costs(of_a), _costs(of_b)
    keys = dict.fromkeys([*costs_a, *costs_b])
    costs = {key: (costs_a.get(key, 0.0), costs_b.get(key, 0.0)) for key in keys}
    return Comparison(fields=fields, costs=costs)


def _costs(report: Report) -> Costs:
    return {
        (phase.phase, cause): ms_from_cycles(phase.limit_cycles[cause], report.npu.clock_hz)
        for phase in report.phases
        for cause in LIMITS
    }
