"""Where measured calls lie around a simulated one: 80 % of them, by chip and phase.

From calls whose network was left out of the fit: q is the 80 % quantile of |ln(predicted /
measured)| of a phase, and the range is

$$p \\, e^{-q} \\ldots p \\, e^{q}$$                                                       (4.10)

It holds what the simulator gets wrong and what a compiler version moves, for calls like those: one
release, batch 1, networks of the families measured. Elsewhere a prediction is not validated.
Chapter: `docs/validation.md`.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from mu_ref.border.text import json_text
from npu_sim.evidence.cases import Case

if TYPE_CHECKING:
    from npu_sim.evidence.calibrate import Calibration
    from npu_sim.evidence.chips import ChipFit

__all__ = ["SHARE", "expected_json", "expected_ms", "spreads"]

SHARE = 0.8  # of the calls


def spreads(cases: Sequence[Case], left_out: np.ndarray) -> dict[str, float]:
    """Return q of each phase.

    Args:
        cases: measured calls.
        left_out: [n] predicted / measured - 1, each by a fit without its network.

    Returns:
        {phase: q}, three digits.
    """
    away = np.abs(np.log1p(left_out))
    return {
        phase: round(float(np.quantile(away[[c.phase == phase for c in cases]], SHARE)), 3)
        for phase in dict.fromkeys(case.phase for case in cases)
    }


def expected_json(found: "Calibration", more: "Sequence[ChipFit]") -> str:
    """Return the text of `npu_sim/data/hexagon/expected.json`.

    Args:
        found: calls of X Elite and X2 Elite, networks left out.
        more: other chips, which have the same spreads, or their own where those are larger.

    Returns:
        JSON.
    """
    of_both = spreads(found.cases, found.fit.left_out)
    known = dict.fromkeys(("hexagon-x-elite", "hexagon-x2-elite"), of_both)
    for fit in more:
        own = spreads(fit.cases, fit.fit.left_out)
        known[fit.npu] = {phase: max(q, of_both[phase]) for phase, q in own.items()}
    return json_text({"share": SHARE, "spreads": known}, indent=1) + "\n"


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


@cache
def _known() -> dict[str, dict[str, float]]:
    text = files("npu_sim").joinpath("data", "hexagon", "expected.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found["spreads"]
