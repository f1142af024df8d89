"""Measured latencies: a table of graph calls, each with its model, widths, NPU and microseconds.

Chapter: `docs/validation.md`.
"""

import re
from collections.abc import Mapping, Sequence
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

__all__ = [
    "BOTH",
    "CHIPS",
    "NEWER",
    "NEWEST",
    "OLDEST",
    "PHONES",
    "RELEASES",
    "TWO_RATIOS",
    "Case",
    "calibration_cases",
    "check_one_release",
    "read_cases",
    "read_number",
    "released_cases",
]  # fmt: skip

# releases that were measured: (calls, models) in npu_sim/data/hexagon
RELEASES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "2026-10": ("hexagon_2026-10.csv", "hexagon_2026-10_models.json"),
        "2026-08": ("hexagon_calibration.csv", "hexagon_calibration_models.json"),
    }
)
BOTH = ("hexagon-x-elite", "hexagon-x2-elite")  # fitted together
TWO_RATIOS, _ONE = ("dma_ratio", "compute_ratio"), ("compute_ratio",)
# more chips, and which ratios to X Elite are fitted for each: of encoders alone, not that of memory
CHIPS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "hexagon-8-elite": TWO_RATIOS, "hexagon-8-elite-gen5": TWO_RATIOS,
    "hexagon-qcs9075": TWO_RATIOS, "hexagon-qcs8275": TWO_RATIOS,
    "hexagon-8-gen3": _ONE, "hexagon-qcs8550": _ONE,
})  # fmt: skip
PHONES = ("hexagon-8-elite", "hexagon-8-elite-gen5", "hexagon-8-gen3")
NEWER = ("hexagon-x2-elite", "hexagon-8-elite", "hexagon-8-elite-gen5")  # v79 and v81
NEWEST, OLDEST = RELEASES  # a file without the column `release` is of the oldest
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
MORE = ("n_filled", "release")  # of newer files; without them a call means something else
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
    n_filled: int | None = None  # slots of self-attention that hold tokens; None: all
    release: str = OLDEST  # of the packages that were measured: one is never fitted with another
    use: str = "calibration"  # what the row is for, see `docs/validation.md`
    protocol: str = ""  # how it was measured
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
                self.precision, n_filled=self.n_filled,
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
        meant = get_close_matches(name.casefold(), REMEASURED + MORE, n=1, cutoff=0.8)
        if meant and name not in REMEASURED + MORE:
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
        remeasured_us=_remeasured(row, where), n_filled=_filled(row, where),
        release=row.get("release", "").strip() or OLDEST,
        use=row.get("use", "").strip() or "calibration", protocol=row.get("protocol", "").strip(),
    )  # fmt: skip


def _filled(row: Mapping[str, str], where: str) -> int | None:
    text = row.get("n_filled", "").strip()
    return None if not text else read_number(text, f"{where}: n_filled", SLOTS)


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


def released_cases(release: str = NEWEST) -> tuple[list[Case], dict[str, Description]]:
    """Return the measured Hexagon calls of a release that come with the package, and their models.

    Args:
        release: one of `RELEASES`.

    Returns:
        All its cases, whatever they are for, and {name: description}.
    """
    folder = files("npu_sim").joinpath("data", "hexagon")
    calls, models = (Path(str(folder.joinpath(name))) for name in RELEASES[release])
    return read_cases(calls), read_models(models)


def calibration_cases(release: str = NEWEST) -> tuple[list[Case], dict[str, Description]]:
    """Return those of `released_cases` that X Elite and X2 Elite are fitted to."""
    cases, models = released_cases(release)
    return [case for case in cases if case.use == "calibration"], models


def check_one_release(cases: Sequence[Case]) -> None:
    """Refuse cases of several releases, whose compilers differ by more than networks do.

    Args:
        cases: to be fitted or averaged together.

    Raises:
        SweepError: there are several.
    """
    releases = list(dict.fromkeys(case.release for case in cases))
    if len(releases) > 1:
        raise SweepError(
            f"cases must be of one release, got {short(releases)}; compiler versions move a "
            "network by 20 to 45 %, so take each release by itself"
        )
