"""Predicted against measured: one row per measured graph call, and the errors by what they share.

Errors are absolute percentage errors, |predicted / measured - 1|, given as fractions. Beside the
`tile` fidelity stands the bare roofline: the same formula as everywhere, on a chip that keeps its
data-sheet peaks and has no overheads (`bare_npu`). Chapter: `docs/validation.md`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.files import write_text
from mu_ref.border.text import csv_cell, csv_line
from npu_sim.evidence.cases import OLDEST, Case
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.presets import NPUS, npu
from npu_sim.program.description import Description
from npu_sim.report.expected import expected_ms
from npu_sim.report.fidelity import simulate_program

__all__ = ["Prediction", "Validation", "bare_npu", "validate", "write_rows"]


PHASES = ("encode", "prefill", "decode")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One case with what was predicted for it."""

    case: Case
    npu: str  # simulated
    predicted_ms: float  # tile fidelity
    roofline_ms: float  # bare
    expected_ms: tuple[float, float] | None = None  # where 80 % of calls like this one lie

    @property
    def measured_ms(self) -> float:
        """Measured milliseconds."""
        return self.case.measured_us / 1000

    @property
    def error(self) -> float:
        """Predicted / measured - 1."""
        return self.predicted_ms / self.measured_ms - 1

    @property
    def low_ms(self) -> float | None:
        """Where the range begins in which 80 % of calls like this one lie; None: not validated."""
        return None if self.expected_ms is None else self.expected_ms[0]

    @property
    def high_ms(self) -> float | None:
        """Where it ends."""
        return None if self.expected_ms is None else self.expected_ms[1]

    @property
    def covered(self) -> bool | None:
        """Whether the measured call lies in the range."""
        if self.expected_ms is None:
            return None
        return self.expected_ms[0] <= self.measured_ms <= self.expected_ms[1]

    @property
    def roofline_error(self) -> float:
        """The same of the bare roofline."""
        return self.roofline_ms / self.measured_ms - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """All predictions."""

    rows: tuple[Prediction, ...]

    @property
    def errors(self) -> np.ndarray:
        """Absolute percentage errors, [n]."""
        return np.abs([row.error for row in self.rows])

    @property
    def coverage(self) -> float | None:
        """Share of the calls that lie in their expected range; None if none has one."""
        known = [row.covered for row in self.rows if row.covered is not None]
        return float(np.mean(known)) if known else None

    def by(self, key: Callable[[Prediction], str]) -> dict[str, dict[str, float]]:
        """Group the errors.

        Args:
            key: name of a row's group.

        Returns:
            {group: {"n", "mape", "median_ape"}}, in order of appearance.
        """
        groups: dict[str, list[float]] = {}
        for row in self.rows:
            groups.setdefault(key(row), []).append(abs(row.error))
        return {
            name: {"n": len(e), "mape": float(np.mean(e)), "median_ape": float(np.median(e))}
            for name, e in groups.items()
        }

    def groupings(self) -> dict[str, dict[str, dict[str, float]]]:
        """Errors by phase, precision and NPU."""
        return {
            "phase": self.by(lambda row: row.case.phase),
            "precision": self.by(lambda row: row.case.label),
            "npu": self.by(lambda row: row.npu),
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers; errors are fractions, a phase without rows is null."""
        errors, groups = self.errors, self.groupings()
        mapes = {
            key: {name: group["mape"] for name, group in groups[key].items()} for key in groups
        }
        return {
            "n": len(self.rows),
            "mape": float(errors.mean()),
            "median_ape": float(np.median(errors)),
            "max_ape": float(errors.max()),
            "coverage": self.coverage,
            "roofline_mape": float(np.mean([abs(row.roofline_error) for row in self.rows])),
            "by_phase": {name: mapes["phase"].get(name) for name in PHASES},
            "by_precision": mapes["precision"],
            "by_npu": mapes["npu"],
            "rows": [
                {
                    "case": row.case.name, "npu": row.npu, "phase": row.case.phase,
                    "predicted_ms": row.predicted_ms, "measured_ms": row.measured_ms,
                    "error": row.error, "roofline_ms": row.roofline_ms,
                    "low_ms": row.low_ms, "high_ms": row.high_ms,
                }
                for row in self.rows
            ],
        }  # fmt: skip


def validate(
    cases: Sequence[Case],
    models: Mapping[str, Description],
    npu_name: str | None = None,
) -> Validation:
    """Predict measured calls, and say how far off each prediction is.

        >>> import npu_sim
        >>> from npu_sim.evidence.cases import calibration_cases
        >>> cases, models = calibration_cases()
        >>> found = npu_sim.validate(cases[:2], models)
        >>> [abs(row.error) < 0.3 for row in found.rows]
        [True, True]

    Args:
        cases: measured calls.
        models: descriptions by name.
        npu_name: simulate this NPU instead of each case's own.

    Returns:
        The predictions, in order.

    Raises:
        NpuSimError: a case names an NPU or model that does not exist, or contradicts itself.
    """
    chips: dict[str, Npu] = {}
    rows = []
    for case in cases:
        name = chip_of(case) if npu_name is None else npu_name
        if name not in chips:
            chips[name] = npu(name)
        chip, program = chips[name], case.program(models)
        predicted_ms = simulate_program(program, chip).latency_ms
        rows.append(
            Prediction(
                case=case,
                npu=chip.name,
                predicted_ms=predicted_ms,
                expected_ms=expected_ms(chip.name, {case.phase: predicted_ms}),
                roofline_ms=simulate_program(
                    program, bare_npu(chip), fidelity="roofline"
                ).latency_ms,
            )
        )
    return Validation(rows=tuple(rows))


def chip_of(case: Case) -> str:
    """Name the preset of a case: of its own release, where there is one."""
    older = f"{case.npu}-{OLDEST}"
    return older if case.release == OLDEST and older in NPUS else case.npu


def write_rows(found: Validation, path: Path) -> None:
    """Write the predictions as CSV, units in the names of the columns.

    Args:
        found: from `validate`.
        path: the file; appears whole or not at all.
    """
    rows = found.to_json()["rows"]
    header = (
        "case", "npu", "phase", "predicted_ms", "low_ms", "high_ms", "measured_ms", "error",
        "roofline_ms",
    )  # fmt: skip
    lines = [csv_line(header)]
    for row in rows:
        cells = [row[name] for name in header]
        lines.append(csv_line(_cell(cell) for cell in cells))
    write_text(path, "".join(lines))


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return csv_cell(value)
    return "" if value is None else str(value)


def bare_npu(chip: Npu) -> Npu:
    """Return a chip at its data-sheet peaks: full DRAM bandwidth, full rates, no overheads.

    Its operations are bounded one by one, as a roofline is drawn.

    Args:
        chip: any NPU.

    Returns:
        The idealised chip.
    """
    losses = {path: 1.0 for path in chip.values() if path.endswith("efficiency")}
    free = {
        "matrix.output_elements_per_s": 0, "dma.cache_bytes_per_s": 0, "dma.runs_ahead": False,
        "dma.setup_cycles": 0, "per_op_overhead_cycles": 0, "per_inference_overhead_us": 0.0,
        "geniex_overhead_us": 0.0, "geniex_position_us": 0.0, "sram.fuses_operations": True,
        "dma.bytes_per_s": chip.dram.bytes_per_s, "sram.streams_encode": False,
    }  # fmt: skip
    return chip.with_changes({**losses, **free}, "assumed: no losses")
