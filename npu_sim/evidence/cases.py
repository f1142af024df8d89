"""Measured latencies: a table of graph calls, each with its model, widths, NPU and microseconds.

Chapter: `docs/validation.md`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mu_ref.border.ranges import Range
from mu_ref.border.reading import read_csv
from mu_ref.border.text import short
from mu_ref.errors import check_choice
from npu_sim.errors import NpuSimError, SweepError
from npu_sim.models.neutral_json import read_models
from npu_sim.program.call import call_program
from npu_sim.program.description import Description
from npu_sim.program.precision import Precision
from npu_sim.program.program import Program

__all__ = ["CALIBRATION", "Case", "calibration_cases", "read_cases", "read_number"]

CALIBRATION = "hexagon_calibration.csv"  # in npu_sim/data/hexagon
RUNTIMES: Mapping[str, str] = MappingProxyType({"qnn": "native", "geniex": "geniex"})
SLOTS = Range(low=0, high=2**17, why="longer masks of attention fill the memory")
BITS = Range(low=1, high=64, why="no number is wider")
MICROSECONDS = Range(
    low=0, above=True, high=1e12, whole=False, why="no call takes eleven days"
)  # fmt: skip
WHOLE: Mapping[str, Range] = MappingProxyType({
    "n_tokens": SLOTS, "n_context": SLOTS, "n_memory": SLOTS, "weight_bits": BITS,
    "activation_bits": BITS, "kv_bits": BITS, "head_weight_bits": BITS,
})  # fmt: skip
COLUMNS = ("case", "npu", "model", "phase", *WHOLE, "runtime", "measured_us")
REMEASURED = ("remeasured_min_us", "remeasured_max_us")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


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
        path: a CSV with at least `COLUMNS`; others are remarks.

    Returns:
        The cases, in order.

    Raises:
        SweepError: no such file, no CSV, a column is missing or misspelt, or a value is
            wrong; names line and column.
    """
    columns, rows = read_csv(path, "a CSV file of cases", SweepError)
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise SweepError(f"{path} must have the columns {', '.join(COLUMNS)}; missing {missing}")
    for name in columns:
        meant = get_close_matches(name.casefold(), REMEASURED, n=1, cutoff=0.8)
        if meant and name not in REMEASURED:
            raise SweepError(f"{path} must spell the column {meant[0]} so, got {short(name)}")
    cases = [_case(row, where) for where, row in rows]
    if not cases:
        raise SweepError(f"{path} must have at least one case, got none")
    return cases


def _case(row: Mapping[str, str], where: str) -> Case:
    numbers = {
        name: read_number(row[name], f"{where}: {name}", allowed) for name, allowed in WHOLE.items()
    }
    runtime, phase = row["runtime"].strip(), row["phase"].strip()
    check_choice(f"{where}: runtime", runtime, RUNTIMES, SweepError)
    check_choice(f"{where}: phase", phase, ("encode", "prefill", "decode"), SweepError)
    widths = {name: value for name, value in numbers.items() if name.endswith("bits")}
    try:
        precision = Precision(**widths)
    except NpuSimError as error:
        raise SweepError(f"{where}: {error}") from error
    return Case(
        name=row["case"], npu=row["npu"].strip(), model=row["model"].strip(), phase=phase,
        n_tokens=numbers["n_tokens"], n_context=numbers["n_context"],
        n_memory=numbers["n_memory"], precision=precision, runtime=RUNTIMES[runtime],
        measured_us=read_number(row["measured_us"], f"{where}: measured_us", MICROSECONDS),
        remeasured_us=_remeasured(row, where),
    )  # fmt: skip


def _remeasured(row: Mapping[str, str], where: str) -> tuple[float, float] | None:
    texts = [row.get(name, "").strip() for name in REMEASURED]
    if not any(texts):
        return None
    least, most = (
        read_number(text, f"{where}: {name}", MICROSECONDS)
        for name, text in zip(REMEASURED, texts, strict=True)
    )
    if least > most:
        raise SweepError(f"{where}: {REMEASURED[0]} must be at most {REMEASURED[1]}, got {texts}")
    return least, most


def read_number(text: str, what: str, allowed: Range) -> Any:
    """Read a number of a table, as CSV files write them.

    Args:
        text: the cell.
        what: file, line and column, for messages.
        allowed: what it may be.

    Returns:
        The number, whole where the range is.

    Raises:
        SweepError: no number, or one that does not fit.
    """
    if not NUMBER.fullmatch(text.strip()):
        raise SweepError(f"{what} must be {allowed}, got {short(text)}")
    value = float(text)
    return allowed.check(what, int(value) if allowed.whole and value.is_integer() else value,
                         SweepError)  # fmt: skip


def calibration_cases() -> tuple[list[Case], dict[str, Description]]:
    """Return the measured Hexagon calls that come with the package, and their models."""
    folder = files("npu_sim").joinpath("data", "hexagon")
    models = read_models(Path(str(folder.joinpath("hexagon_calibration_models.json"))))
    return read_cases(Path(str(folder.joinpath(CALIBRATION)))), models
