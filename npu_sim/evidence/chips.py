"""More Hexagons: constants of X Elite, times at most two ratios fitted to a few calls of each.

Chips with language models measured have a ratio of memory and one of arithmetic; those with
encoders alone have one for both. No ratio lets a chip pass its peak. Chapter: `docs/validation.md`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from mu_ref.border.text import json_text
from npu_sim.evidence.calibrate import Calibration, changed_values, log_us, rounded
from npu_sim.evidence.cases import BOTH, CHIPS, TWO_RATIOS, Case
from npu_sim.evidence.fit import Constant, Fit, fit_constants
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.presets import npu
from npu_sim.program.description import Description
from npu_sim.program.rows import program_table

__all__ = ["SHARE", "ChipFit", "expected_json", "fit_chip", "left_out_errors", "spreads"]

SHARE = 0.8  # of the calls that an expected range holds

_MEANING = {
    "dma_ratio": "reading memory", "compute_ratio": "computing", "ratio": "reading and computing",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ChipFit:
    """The ratios of one chip."""

    npu: str
    constants: tuple[Constant, ...]
    cases: tuple[Case, ...]
    fit: Fit

    @property
    def ratios(self) -> dict[str, float]:
        """Fitted ratios to X Elite by name, both of them."""
        names = [constant.name for constant in self.constants]
        found = dict(zip(names, self.fit.values.tolist(), strict=True))
        return {name: found.get(name, found.get("ratio", 1.0)) for name in TWO_RATIOS}

    def chip(self, constants: Mapping[str, float], data: str, day: date) -> Npu:
        """Return the chip with its values, marked as fitted."""
        source = f"fitted: {data}, X Elite's and {len(self.cases)} calls, {day.isoformat()}"
        values = changed_values({**constants, **self.ratios}, npu(self.npu))
        return npu(self.npu).with_changes(rounded(values), source)

    @property
    def mape(self) -> float:
        """Mean absolute error on the calls of the fit."""
        return float(np.abs(self.fit.residuals).mean())


def fit_chip(
    name: str,
    cases: Sequence[Case],
    models: Mapping[str, Description],
    constants: Mapping[str, float],
) -> ChipFit:
    """Fit the ratios of one chip.

    Args:
        name: one of `CHIPS`.
        cases: measured calls; those of the chip are taken.
        models: descriptions by name.
        constants: {name: value} of X Elite.

    Returns:
        The fit; `left_out` leaves out a network.
    """
    own = [case for case in cases if case.npu == name]
    tables = [program_table(case.program(models)) for case in own]
    base, names = npu(name), CHIPS[name]
    fitted = tuple(
        Constant(name=ratio, unit="chip / X", prior=1.2, spread=0.7, low=0.3, high=4.0,
                 meaning=f"{_MEANING[ratio]}, against X Elite")
        for ratio in names
    )  # fmt: skip

    def predict(logarithms: np.ndarray) -> np.ndarray:
        found = dict(zip(names, np.exp(logarithms).tolist(), strict=True))
        both = {ratio: found.get(ratio, found.get("ratio", 1.0)) for ratio in TWO_RATIOS}
        chip = base.with_changes(changed_values({**constants, **both}, base))
        return np.array([log_us(table, chip) for table in tables])

    measured = np.array([case.measured_us for case in own])
    fit = fit_constants(fitted, predict, measured, [case.model for case in own])
    return ChipFit(npu=name, constants=fitted, cases=tuple(own), fit=fit)


def left_out_errors(
    fits: Sequence[ChipFit], models: Mapping[str, Description], constants: Mapping[str, float]
) -> dict[str, float]:
    """Predict each chip as if none of its calls were measured, with the ratios of the others.

    Args:
        fits: of all chips.
        models: descriptions by name.
        constants: {name: value} of X Elite.

    Returns:
        {chip: mean absolute error with the geometric means of the other chips' ratios}.
    """
    found = {}
    for fit in fits:
        others = [other.ratios for other in fits if other.npu != fit.npu]
        means = {
            name: float(np.exp(np.mean([np.log(ratios[name]) for ratios in others])))
            for name in TWO_RATIOS
        }
        base = npu(fit.npu)
        chip = base.with_changes(changed_values({**constants, **means}, base))
        errors = [
            np.exp(log_us(program_table(case.program(models)), chip)) / case.measured_us - 1
            for case in fit.cases
        ]
        found[fit.npu] = float(np.abs(errors).mean())
    return found


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


def expected_json(found: Calibration, more: Sequence[ChipFit]) -> str:
    """Return the text of `npu_sim/data/hexagon/expected.json`.

    Args:
        found: calls of X Elite and X2 Elite, networks left out.
        more: other chips, which have the same spreads, or their own where those are larger.

    Returns:
        JSON.
    """
    of_both = spreads(found.cases, found.fit.left_out)
    known = dict.fromkeys(BOTH, of_both)
    for fit in more:
        own = spreads(fit.cases, fit.fit.left_out)
        known[fit.npu] = {phase: max(q, of_both[phase]) for phase, q in own.items()}
    return json_text({"share": SHARE, "spreads": known}, indent=1) + "\n"
