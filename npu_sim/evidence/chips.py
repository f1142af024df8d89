"""More Hexagons: constants of X Elite, times at most two ratios fitted to a few calls of each.

Chips with language models measured have a ratio of memory and one of arithmetic. Those with
encoders alone have the second; their port takes the share of their memory that the others' ports
take of theirs, on the mean. The phones have one constant in common: what an LLM runtime costs
there. No ratio lets a chip pass its peak. Chapter: `docs/validation.md`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from mu_ref.border.text import json_text
from npu_sim.evidence.calibrate import GIGA, Calibration, changed_values, log_us, rounded
from npu_sim.evidence.cases import BOTH, CHIPS, TWO_RATIOS, Case
from npu_sim.evidence.fit import Constant, Fit, fit_constants
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.presets import npu
from npu_sim.program.description import Description
from npu_sim.program.rows import program_table

__all__ = [
    "HOST", "SHARE", "ChipFit", "expected_json", "fit_chips", "left_out_errors", "spreads",
]  # fmt: skip

SHARE = 0.8  # of the calls that an expected range holds

HOST = Constant(name="phone_host", unit="phone / laptop", prior=1.0, spread=0.7, low=0.3, high=5.0,
                meaning="work of an LLM runtime's host per call")  # fmt: skip
_MEANING = {"dma_ratio": "reading memory", "compute_ratio": "computing"}


@dataclass(frozen=True, kw_only=True)
class ChipFit:
    """The ratios of one chip."""

    npu: str
    values: Mapping[str, float]  # of `TWO_RATIOS`, fitted or not, and `phone_host`
    cases: tuple[Case, ...]
    fit: Fit  # rows of this chip

    def chip(self, constants: Mapping[str, float], data: str, day: date) -> Npu:
        """Return the chip with its values, marked as fitted."""
        source = f"fitted: {data}, X Elite's and {len(self.cases)} calls, {day.isoformat()}"
        values = changed_values({**constants, **self.values}, npu(self.npu))
        return npu(self.npu).with_changes(rounded(values), source)

    @property
    def mape(self) -> float:
        """Mean absolute error on the calls of the fit."""
        return float(np.abs(self.fit.residuals).mean())


def fit_chips(
    cases: Sequence[Case], models: Mapping[str, Description], constants: Mapping[str, float]
) -> list[ChipFit]:
    """Fit the ratios of all chips of `CHIPS`, those with two of them first.

    Args:
        cases: measured calls; those of the chips are taken.
        models: descriptions by name.
        constants: {name: value} of X Elite.

    Returns:
        A fit of each; its `left_out` leaves out a network.
    """
    of_two = [name for name, ratios in CHIPS.items() if ratios == TWO_RATIOS]
    fits = _fit_together(of_two, HOST, cases, models, constants)
    host = {HOST.name: fits[0].values[HOST.name]}
    share = memory_share(fits, constants)
    for name in CHIPS:
        if name not in of_two:
            known = {**constants, **host, "dma_ratio": memory_ratio(name, share, constants)}
            fits += _fit_together([name], None, cases, models, known)
    return fits


def _fit_together(
    names: Sequence[str],
    shared: Constant | None,
    cases: Sequence[Case],
    models: Mapping[str, Description],
    known: Mapping[str, float],
) -> list[ChipFit]:
    """Fit the ratios of several chips, and one constant that they share."""
    own = [case for case in cases if case.npu in names]
    tables = [program_table(case.program(models)) for case in own]
    unknown = [(name, ratio) for name in names for ratio in CHIPS[name]]
    fitted = [
        Constant(name=ratio, unit="chip / X", prior=1.2, spread=0.7, low=0.3, high=4.0,
                 meaning=f"{_MEANING[ratio]}, {name} against X Elite")
        for name, ratio in unknown
    ] + ([shared] if shared else [])  # fmt: skip

    def values_of(name: str, found: Sequence[float]) -> dict[str, float]:
        ratios = {r: value for (n, r), value in zip(unknown, found, strict=False) if n == name}
        return {**known, **ratios, **({shared.name: found[-1]} if shared else {})}

    def predict(logarithms: np.ndarray) -> np.ndarray:
        found = np.exp(logarithms).tolist()
        changed = {
            name: npu(name).with_changes(changed_values(values_of(name, found), npu(name)))
            for name in names
        }
        return np.array(
            [log_us(table, changed[case.npu]) for case, table in zip(own, tables, strict=True)]
        )

    measured = np.array([case.measured_us for case in own])
    fit = fit_constants(fitted, predict, measured, [case.model for case in own])
    fits = []
    for name in names:
        rows = [case.npu == name for case in own]
        values = values_of(name, fit.values.tolist())
        fits.append(ChipFit(
            npu=name, values={key: values[key] for key in (*TWO_RATIOS, HOST.name)},
            cases=tuple(case for case in own if case.npu == name),
            fit=replace(fit, residuals=fit.residuals[rows], left_out=fit.left_out[rows]),
        ))  # fmt: skip
    return fits


def memory_share(fits: Iterable[ChipFit], constants: Mapping[str, float]) -> float:
    """What ports take of the data-sheet memory of their chips: the geometric mean."""
    shares = []
    for fit in fits:
        of_port = constants["dma"] * fit.values["dma_ratio"] * GIGA / npu(fit.npu).dram.bytes_per_s
        shares.append(min(1.0, of_port))
    return float(np.exp(np.mean(np.log(shares))))


def memory_ratio(name: str, share: float, constants: Mapping[str, float]) -> float:
    """The ratio to X Elite of a chip whose port takes such a share of its memory."""
    return share * npu(name).dram.bytes_per_s / (constants["dma"] * GIGA)


def left_out_errors(
    fits: Sequence[ChipFit], models: Mapping[str, Description], constants: Mapping[str, float]
) -> dict[str, float]:
    """Predict each chip as if none of its calls were measured, by those of the others.

    Args:
        fits: of all chips.
        models: descriptions by name.
        constants: {name: value} of X Elite.

    Returns:
        {chip: mean absolute error with the others' share of memory and ratio of computing}.
    """
    found = {}
    for fit in fits:
        others = [other for other in fits if other.npu != fit.npu]
        of_two = [other for other in others if CHIPS[other.npu] == TWO_RATIOS]
        means = {
            "dma_ratio": memory_ratio(fit.npu, memory_share(of_two, constants), constants),
            "compute_ratio": float(
                np.exp(np.mean([np.log(other.values["compute_ratio"]) for other in others]))
            ),
        }
        base = npu(fit.npu)
        chip = base.with_changes(changed_values({**constants, **fit.values, **means}, base))
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
