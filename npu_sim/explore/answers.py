"""What the page is answered: figures at both fidelities, pictures, a comparison of two sides.

Every figure is that of `npu-sim run` for the same question. Chapter: `docs/whatif.md`.
"""

import shlex
from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

from npu_sim.explore.asked import CONTROLS, DEFAULTS, command_of, scenario_of
from npu_sim.hardware.presets import NPUS, npu
from npu_sim.hardware.units import with_unit
from npu_sim.report.budget import Budget
from npu_sim.report.expected import expected_range
from npu_sim.report.report import Report, tile_run
from npu_sim.units import format_bytes, format_ms
from npu_sim.whatif.compare import compared
from npu_sim.whatif.metrics import evaluate, report_metrics, scenario_report
from npu_sim.whatif.scenario import Scenario

__all__ = ["Answers", "page_facts"]

Given = Mapping[str, str]

KEPT = 4  # answers of tiles: both sides, and those before a change that is taken back
KEPT_CALLS = 2000  # of all of them: a call of a large model takes a third of a megabyte

FIGURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("ttft_ms", "First token", format_ms),
    ("decode_tok_per_s", "Decode", "{:.1f} tok/s".format),
    ("latency_ms", "Whole request", format_ms),
    ("energy_mj", "Energy", "{:.3g} mJ".format),
    ("dram_bytes", "DRAM traffic", format_bytes),
    ("stored_bytes", "Stored in DRAM", format_bytes),
)


class Answers:
    """Answers questions; keeps the last simulations of tiles, one of which runs at a time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[tuple[str, str], ...], tuple[Scenario, Report]] = (
            OrderedDict()
        )
        self._lock = Lock()

    def roofline(self, given: Given) -> dict[str, Any]:
        """Answer at once, by a closed form.

        >>> from npu_sim.explore.answers import Answers
        >>> found = Answers().roofline({"model": "tiny", "npu": "teaching-npu", "output": "4"})
        >>> found["figures"][0]["label"], found["command"]
        ('First token', 'npu-sim run tiny --npu teaching-npu --output 4')

        Args:
            given: texts of the controls.

        Returns:
            Figures, each with its value and as a person reads it.

        Raises:
            MuRefError: something is not allowed, or cannot be simulated.
        """
        scenario = scenario_of(given)
        return _said(given, scenario, evaluate(scenario, "roofline"))

    def tiles(self, given: Given) -> dict[str, Any]:
        """Answer as `npu-sim run` does, with pictures; see `roofline`."""
        from npu_sim.explore.drawings import (
            draw_all,  # compiled code, which a roofline does without
        )

        scenario, report = self.simulated(given)
        expected = expected_range(report)
        return _said(given, scenario, report_metrics(report)) | {
            "run": report.to_json(),
            "expected": None
            if expected is None
            else f"80 % of measured calls like these: {expected[0]:.3g} to {expected[1]:.3g} ms",
            "pictures": draw_all(tile_run(report, "a picture")),
        }

    def comparison(self, a: Given, b: Given) -> dict[str, Any]:
        """Say what differs between two sides, and what each cause costs; see `tiles`."""
        (of_a, report_a), (of_b, report_b) = self.simulated(a), self.simulated(b)
        found = compared(of_a, of_b, report_a, report_b).to_json()
        fields = [
            {"field": path, "a": _shown(path, pair["a"]), "b": _shown(path, pair["b"])}
            for path, pair in found["fields"].items()
        ]
        return found | {"fields": fields}

    def simulated(self, given: Given) -> tuple[Scenario, Report]:
        """Simulate tiles, or return what was simulated lately."""
        key = tuple(sorted(given.items()))
        with self._lock:
            if key not in self._kept:
                scenario = scenario_of(given)
                self._kept[key] = scenario, scenario_report(scenario, "tile")
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT or (len(self._kept) > 1 and self._n_calls > KEPT_CALLS):
                self._kept.popitem(last=False)
            return self._kept[key]

    @property
    def _n_calls(self) -> int:
        return sum(len(report.program.calls) for _, report in self._kept.values())


def page_facts() -> dict[str, Any]:
    """Return what the page is made of: its controls, what they begin with, and each NPU's own."""
    controls = [
        {"name": c.name, "label": c.label, "unit": c.unit, "choices": c.choices, "hint": c.hint}
        for c in CONTROLS.values()
    ]
    chips = {name: npu(name) for name in NPUS}
    own = {
        name: {
            "tops": f"{chip.int8_tops:.4g}",
            "bandwidth": f"{chip.dma.bytes_per_s / 1e9:.4g}",
            "sram": f"{chip.sram.capacity_bytes / 2**20:.4g}",
        }
        for name, chip in chips.items()
    }
    titles = {name: chip.title for name, chip in chips.items()}
    return {"controls": controls, "defaults": dict(DEFAULTS), "own": own, "titles": titles}


def _said(given: Given, scenario: Scenario, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Figures of either fidelity, and the command that prints them."""
    workload = scenario.workload
    budget = Budget(limit=workload.budget_ms, used=metrics["latency_ms"], unit="ms")
    figures = [
        {"name": name, "label": label, "value": metrics[name],
         "text": shown(metrics[name]) if metrics[name] == metrics[name] else "no second token"}
        for name, label, shown in FIGURES
    ]  # fmt: skip
    figures.append({"name": "budget_left_ms", "label": "Budget",
                    "value": metrics["budget_left_ms"], "text": budget.line()})  # fmt: skip
    return {
        "simulated": True, "figures": figures, "met": budget.met,
        "title": f"{scenario.description.name} on {scenario.npu.name}",
        "command": shlex.join(command_of(given)),
    }  # fmt: skip


def _shown(path: str, value: Any) -> str:
    if path.startswith("npu.") and value is not None:
        return with_unit(path, value)
    return "none" if value is None else str(value)
