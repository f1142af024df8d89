r"""Where measured calls lie around a simulated one: 80 % of them, by chip and phase.

From calls whose network was left out of the fit: q is the 80 % quantile of |ln(predicted /
measured)| of a phase, and the range is

$$p \, e^{-q} \ldots p \, e^{q}$$                                                       (4.10)

It holds what the simulator gets wrong, for calls like those: one release, batch 1, networks of the
families measured. Elsewhere a prediction is not validated. `npu_sim/evidence/chips.py` writes the
file of q. Chapter: `docs/validation.md`.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from npu_sim.report.report import Report

__all__ = ["expected_ms", "expected_range"]


def expected_ms(chip: str, phases_ms: Mapping[str, float]) -> tuple[float, float] | None:
    """Say where 80 % of measured calls lie.

    Args:
        chip: name of a preset, as it is there.
        phases_ms: {phase: simulated milliseconds}; phases are late together.

    Returns:
        (low, high) milliseconds, or None where nothing was measured.
    """
    known = _known().get(chip, {})
    if not phases_ms or not all(phase in known for phase in phases_ms):
        return None
    low, high = (
        sum(ms * float(np.exp(sign * known[phase])) for phase, ms in phases_ms.items())
        for sign in (-1, 1)
    )
    return low, high


def expected_range(report: Report) -> tuple[float, float] | None:
    """Return where 80 % of measured calls like those of a report lie; None where none was measured.

    Args:
        report: of a request.

    Returns:
        (low, high) milliseconds, or None.
    """
    if report.fidelity != "tile" or report.program.batch > 1:
        return None
    return expected_ms(report.npu.name, {phase.phase: phase.time_ms for phase in report.phases})


@cache
def _known() -> dict[str, dict[str, float]]:
    text = files("npu_sim").joinpath("data", "hexagon", "expected.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found["spreads"]
