"""Fits what vendors do not publish to the measured Hexagon calls that come with the package.

Fifteen constants for two chips, each with a unit, a meaning and bounds. X2 Elite has two ratios:
what reads memory is `dma_ratio` times as fast as on X Elite, what computes or starts an operation
`compute_ratio` times; so have other chips (`chips.py`). Newer generations multiply floats faster
than that, all by the same. Chapter: `docs/validation.md`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Any

import numpy as np

from npu_sim.evidence.cases import BOTH, NEWER, PHONES, Case, check_one_release
from npu_sim.evidence.fit import Constant, Fit, fit_constants
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.presets import npu
from npu_sim.program.description import Description
from npu_sim.program.rows import ProgramTable, program_table
from npu_sim.tile.simulate import simulate_tiles

__all__ = [
    "CONSTANTS", "Calibration", "calibrate", "changed_values", "fit_recorded", "fitted_npus",
    "log_us", "recorded", "rounded",
]  # fmt: skip

X, X2 = BOTH
GIGA = 1e9  # bytes or elements; `units.GB` is a whole number


def _constant(
    name: str, unit: str, prior: float, spread: float, low: float, high: float, meaning: str
) -> Constant:
    return Constant(
        name=name, unit=unit, prior=prior, spread=spread, low=low, high=high, meaning=meaning
    )


CONSTANTS: tuple[Constant, ...] = (
    _constant("dma", "GB/s", 50, 0.25, 37, 63, "bandwidth of the NPU's own port to DRAM"),
    _constant("cache", "GB/s", 20, 0.7, 1, 100,
              "cached keys and values laid out for the matrix engine"),
    _constant("empty", "share", 0.4, 0.5, 0.02, 1,
              "what an empty slot of a padded cache costs, of one with a token"),
    _constant("float16", "share of peak", 0.4, 0.4, 0.1, 1, "matrix engine, 16-bit floats"),
    _constant("float16_newer", "newer / v73", 1.0, 0.3, 0.5, 2,
              "16-bit floats of v79 and v81 beside all else that computes, against v73"),
    _constant("integer", "share of peak", 0.7, 0.4, 0.1, 1,
              "matrix engine, weights of 4 or 8 bits and 16-bit activations"),
    _constant("attention", "share of peak", 0.25, 0.7, 0.03, 1,
              "matrix engine, products of two activations"),
    _constant("vector", "share of lanes", 0.6, 0.5, 0.1, 1,
              "vector engine; a quarter of it for 16-bit floats, which it widens"),
    _constant("outputs", "G elements/s", 10, 1.0, 1, 100,
              "results laid out for the next operation"),
    _constant("op", "us", 1.5, 0.5, 0.3, 5, "start and end of one operation"),
    _constant("call", "us", 150, 0.5, 30, 500, "start and end of one graph call"),
    _constant("geniex_call", "us", 2000, 0.8, 100, 5000,
              "more per call under an LLM runtime: sampling, several graph parts"),
    _constant("geniex_position", "us", 15, 0.8, 1, 100,
              "and per position: embedding, mask and angles on a CPU"),
    _constant("dma_ratio", "X2 / X", 1.8, 0.15, 1, 2.3, "reading memory, X2 Elite against X Elite"),
    _constant("compute_ratio", "X2 / X", 2.0, 0.15, 1, 3.6, "computing, X2 Elite against X Elite"),
)  # fmt: skip


def changed_values(constants: Mapping[str, float], chip: Npu) -> dict[str, Any]:
    """Turn constants into values of one chip.

    Args:
        constants: {name: value} of `CONSTANTS`, the ratios those of the chip, and `phone_host`
            (`chips.py`) for a phone.
        chip: a Hexagon; its clock, peak rates and lanes are kept.

    Returns:
        {path: value}.
    """
    # constants are those of X Elite: shares of its peaks, times the ratio, per peak of this chip
    c, of_x = constants, npu(X)
    is_x = chip.name.startswith(X)
    dma_ratio, ratio = (1.0, 1.0) if is_x else (c["dma_ratio"], c["compute_ratio"])
    peak = of_x.matrix.w8a16_macs_per_cycle * of_x.clock_hz
    own_peak = chip.matrix.w8a16_macs_per_cycle * chip.clock_hz
    lanes, own_lanes = (n.vector.width_bytes * n.clock_hz for n in (of_x, chip))
    floats = c["float16_newer"] if chip.name.startswith(NEWER) else 1.0
    host = c["phone_host"] if chip.name.startswith(PHONES) else 1.0
    matrix, vector = ratio * peak / own_peak, ratio * lanes / own_lanes
    integer = min(1.0, c["integer"] * matrix)
    efficiencies = {
        "matrix.w16a16_efficiency": c["float16"] * floats * matrix,
        "matrix.attention_efficiency": c["attention"] * matrix,
        "vector.efficiency": c["vector"] * vector,
        # widened to 32 bits, twice the lanes, and back again
        "vector.float_efficiency": c["vector"] * vector / 4,
    } | {f"matrix.{name}_efficiency": integer for name in ("w4a8", "w4a16", "w8a8", "w8a16")}
    return {
        "dma.bytes_per_s": min(round(c["dma"] * dma_ratio * GIGA), chip.dram.bytes_per_s),
        "dma.cache_bytes_per_s": round(c["cache"] * ratio * GIGA),
        "dma.empty_slot_share": c["empty"],
        "matrix.output_elements_per_s": round(c["outputs"] * ratio * GIGA),
        "per_op_overhead_cycles": round(c["op"] / ratio * chip.clock_hz / 1e6),
        "per_inference_overhead_us": c["call"],
        "geniex_overhead_us": c["geniex_call"] * host,
        "geniex_position_us": c["geniex_position"],
        # the ratio times a share may pass 1, which no chip reaches
        **{path: min(1.0, value) for path, value in efficiencies.items()},
    }


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A fit and what it was fitted to."""

    constants: tuple[Constant, ...]
    cases: tuple[Case, ...]
    fit: Fit

    @property
    def values(self) -> dict[str, float]:
        """Fitted constants by name."""
        return {c.name: float(v) for c, v in zip(self.constants, self.fit.values, strict=True)}

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and texts; errors are fractions."""
        fit, phases = self.fit, [case.phase for case in self.cases]
        left = np.abs(fit.left_out)
        return {
            "n": len(self.cases),
            "fit_mape": float(np.abs(fit.residuals).mean()),
            "left_out_mape": float(left.mean()),
            "left_out_by_phase": {
                phase: float(left[[p == phase for p in phases]].mean())
                for phase in dict.fromkeys(phases)
            },
            "constants": [
                {
                    "name": c.name, "value": float(value), "unit": c.unit, "meaning": c.meaning,
                    "prior": c.prior, "bounds": [c.low, c.high], "relative_sd": float(sd),
                    "informed_by_data": float(informed),
                }
                for c, value, sd, informed in zip(
                    self.constants, fit.values, fit.uncertainty, fit.informed, strict=True
                )
            ],
            "rows": [
                {"case": case.name, "measured_ms": case.measured_us / 1000,
                 "error": float(r), "left_out_error": float(left_out)}
                for case, r, left_out in zip(self.cases, fit.residuals, fit.left_out, strict=True)
            ],
        }  # fmt: skip


def calibrate(
    cases: Sequence[Case],
    models: Mapping[str, Description],
    *,
    by: str = "case",
    constants: tuple[Constant, ...] = CONSTANTS,
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Fit the constants at `tile` fidelity.

    Args:
        cases: measured calls on X Elite and X2 Elite.
        models: descriptions by name.
        by: what is left out together: "case" or "model".
        constants: what is fitted.
        progress: called with the number of passes over all cases so far.

    Returns:
        The calibration.

    Raises:
        NpuSimError: a case cannot be simulated, or the cases are of several releases.
    """
    return fit_recorded(recorded(cases, models), by=by, constants=constants, progress=progress)


def recorded(
    cases: Sequence[Case], models: Mapping[str, Description]
) -> list[tuple[Case, ProgramTable]]:
    """Record the programs of cases, which do not depend on constants; see `calibrate`."""
    check_one_release(cases)
    return [(case, program_table(case.program(models))) for case in cases]


def fit_recorded(
    tables: Sequence[tuple[Case, ProgramTable]],
    *,
    by: str = "case",
    constants: tuple[Constant, ...] = CONSTANTS,
    structure: Callable[[Npu], Npu] = lambda chip: chip,
    start: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Fit the constants to recorded cases; see `calibrate`.

    Args:
        tables: from `recorded`; timed in every pass.
        by: what is left out together: "case" or "model".
        constants: what is fitted.
        structure: what else is otherwise on each chip (`structure.py`).
        start: values to begin with, [n_constants]; by default the priors.
        progress: called with the number of passes over all cases so far.

    Returns:
        The calibration.
    """
    cases = [case for case, _ in tables]
    chips = {name: npu(name) for name in BOTH}
    passes = 0

    def predict(logarithms: np.ndarray) -> np.ndarray:
        nonlocal passes
        passes += 1
        if progress is not None:
            progress(passes)
        names = (c.name for c in constants)
        values = dict(zip(names, np.exp(logarithms).tolist(), strict=True))
        changed = {
            name: structure(chip.with_changes(changed_values(values, chip)))
            for name, chip in chips.items()
        }
        return np.array([log_us(table, changed[case.npu]) for case, table in tables])

    measured = np.array([case.measured_us for case in cases])
    groups = [case.name if by == "case" else case.model for case in cases]
    fit = fit_constants(constants, predict, measured, groups, start=start)
    return Calibration(constants=constants, cases=tuple(cases), fit=fit)


def log_us(table: ProgramTable, chip: Npu) -> float:
    """Logarithm of the simulated microseconds."""
    return float(np.log(simulate_tiles(table, chip).cycles / chip.clock_hz * 1e6))


def fitted_npus(found: Calibration, data: str, day: date, ending: str = "") -> Mapping[str, Npu]:
    """Return both chips with their fitted values, marked as such.

    Args:
        found: the calibration.
        data: what it was fitted to, for the sources.
        day: when.
        ending: of the names of the presets.

    Returns:
        {name: chip}.
    """
    source = f"fitted: {data}, {len(found.cases)} calls, {day.isoformat()}"
    return MappingProxyType({
        name: npu(name).with_changes(rounded(changed_values(found.values, npu(name))), source)
        for name in (both + ending for both in BOTH)
    })  # fmt: skip


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep four significant digits: more would claim what the data does not tell."""
    return {
        path: round(float(f"{value:.4g}")) if isinstance(value, int) else float(f"{value:.4g}")
        for path, value in values.items()
    }
