"""What-ifs at roofline fidelity, for tests that ask something else than what waiting costs."""

from typing import Any

from npu_sim.whatif import compare as comparing
from npu_sim.whatif import metrics
from npu_sim.whatif import sensitivity as moving
from npu_sim.whatif import solve as searching
from npu_sim.whatif.compare import Comparison
from npu_sim.whatif.scenario import Scenario
from npu_sim.whatif.sensitivity import Swing
from npu_sim.whatif.solve import Answer

__all__ = ["compare", "evaluate", "sensitivity", "solve"]


def evaluate(scenario: Scenario, fidelity: str = "roofline") -> dict[str, float]:
    return metrics.evaluate(scenario, fidelity)


def compare(a: Scenario, b: Scenario, fidelity: str = "roofline") -> Comparison:
    return comparing.compare(a, b, fidelity)


def solve(*asked: Any, fidelity: str = "roofline") -> Answer:
    return searching.solve(*(asked if len(asked) > 4 else (*asked, fidelity)))


def sensitivity(*asked: Any, **more: Any) -> tuple[float, list[Swing]]:
    more = more if len(asked) > 4 else {"fidelity": "roofline", **more}
    return moving.sensitivity(*asked, **more)
