"""Measured latencies: a table of graph calls, each with its model, widths, NPU and microseconds.

Chapter: `docs/validation.md`.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from mu_ref.border.reading import read_text
from mu_ref.errors import check_choice
from npu_sim.errors import NpuSimError, SweepError
from npu_sim.models.neutral_json import read_models
from npu_sim.program.call import call_program
from npu_sim.program.description import Description
from npu_sim.program.precision import Precision
from npu_sim.program.program import Program

__all__ = ["CALIBRATION", "Case", "calibration_cases", "read_cases"]

CALIBRATION = "hexagon_calibration.csv"  # in npu_sim/data/hexagon
RUNTIMES: Mapping[str, str] = MappingProxyType({"qnn": "native", "geniex": "geniex"})
WHOLE = ("n_tokens", "n_context", "n_memory", "weight_bits", "activation_bits", "kv_bits",
         "head_weight_bits")  # fmt: skip
COLUMNS = ("case", "npu", "model", "phase", *WHOLE, "runtime", "measured_us")


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One measured graph call."""

    name: str
    npu: str
    model: str
    phase: str  # encode, prefill or decode
    n_tokens: int
    n_context: int
    n_memory: int
    precision: Precision
    runtime: str  # one of `npu_sim.hardware.RUNTIMES`
    measured_us: float
    remeasured_us: tuple[float, float] | None  # range over compiler versions

    @property
    def label(self) -> str:
        """Short name of the widths: "fp16", or "w4a16"."""
        p = self.precision
        widths = f"w{p.weight_bits}a{p.activation_bits}"
        return "fp16" if widths == "w16a16" else widths

    def program(self, models: Mapping[str, Description]) -> Program:
        """Record the graph call.

        Args:
            models: descriptions by name.

        Returns:
            A program of one call.

        Raises:
            SweepError: the case names no model, or lengths that contradict it.
        """
        check_choice(f"model of case {self.name}", self.model, models, SweepError)
        try:
            program = call_program(
                models[self.model], self.phase, self.n_tokens, self.n_context, self.n_memory,
                self.precision,
            )  # fmt: skip
        except NpuSimError as error:
            raise SweepError(f"case {self.name}: {error}") from error
        return replace(program, runtime=self.runtime)


def read_cases(path: Path) -> list[Case]:
    """Read a table of cases.

    Args:
        path: a CSV with at least `COLUMNS`; others are ignored.

    Returns:
        The cases, in order.

    Raises:
        SweepError: no such file, a column is missing, or a value is wrong; names row and column.
    """
    text = read_text(path, "a CSV file of cases", SweepError)
    return _cases(text.splitlines(), str(path))


def _cases(lines: Iterable[str], where: str) -> list[Case]:
    rows = csv.DictReader(lines)
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or [])]
    if missing:
        raise SweepError(f"{where} must have the columns {', '.join(COLUMNS)}; missing {missing}")
    cases = [_case(row, f"{where}, row {number}") for number, row in enumerate(rows, start=2)]
    if not cases:
        raise SweepError(f"{where} must have at least one case, got none")
    return cases


def _case(row: Mapping[str, str], where: str) -> Case:
    numbers = {name: _whole(row, name, where) for name in WHOLE}
    runtime = (row["runtime"] or "").strip()
    check_choice(f"{where}: runtime", runtime, RUNTIMES, SweepError)
    check_choice(f"{where}: phase", row["phase"], ("encode", "prefill", "decode"), SweepError)
    widths = {name: value for name, value in numbers.items() if name.endswith("bits")}
    try:
        precision = Precision(**widths)
    except NpuSimError as error:
        raise SweepError(f"{where}: {error}") from error
    least, most = (row.get(f"remeasured_{end}_us") for end in ("min", "max"))
    return Case(
        name=row["case"], npu=row["npu"], model=row["model"], phase=row["phase"],
        n_tokens=numbers["n_tokens"], n_context=numbers["n_context"],
        n_memory=numbers["n_memory"], precision=precision, runtime=RUNTIMES[runtime],
        measured_us=_positive(row, "measured_us", where),
        remeasured_us=(float(least), float(most)) if least and most else None,
    )  # fmt: skip


def _whole(row: Mapping[str, str], name: str, where: str) -> int:
    try:
        return int(float(row[name])) if float(row[name]).is_integer() else int(row[name])
    except (TypeError, ValueError, OverflowError) as error:
        raise SweepError(f"{where}: {name} must be a whole number, got {row[name]!r}") from error


def _positive(row: Mapping[str, str], name: str, where: str) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise SweepError(f"{where}: {name} must be a positive number, got {row[name]!r}")
    return value


def calibration_cases() -> tuple[list[Case], dict[str, Description]]:
    """Return the measured Hexagon calls that come with the package, and their models."""
    folder = files("npu_sim").joinpath("data", "hexagon")
    text = folder.joinpath(CALIBRATION).read_text(encoding="utf-8")
    models = read_models(Path(str(folder.joinpath("hexagon_calibration_models.json"))))
    return _cases(text.splitlines(), CALIBRATION), models
