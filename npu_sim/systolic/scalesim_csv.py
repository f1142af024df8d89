"""Files of matrix products on systolic arrays, with the columns of SCALE-Sim's measured runs.

A row names an array and a product; what it takes is added under the names SCALE-Sim's runs use and
under ours. Chapter: `docs/12_systolic.md`.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mu_ref.border.files import check_outputs, written_whole
from mu_ref.border.reading import read_csv
from mu_ref.border.text import short
from npu_sim.errors import WorkloadError
from npu_sim.systolic.closed_form import (
    DATAFLOWS,
    SIDE,
    SystolicArray,
    SystolicCounts,
    overall_util_pct,
    systolic_counts,
)

__all__ = ["COPIED", "REPORTED", "SHAPE", "SystolicRow", "read_rows", "write_rows"]

SHAPE = ("array_rows", "array_cols", "dataflow", "M", "N", "K")  # must be in the file
REPORTED = (  # may be in the file, and are then compared
    "total_cycles_reported", "folds", "cycles_per_fold", "sram_ifmap_reads", "sram_filter_reads",
    "overall_util_pct",
)  # fmt: skip
ADDED = (
    "cycles", "scalesim_cycles", "sram_ofmap_writes", "scalesim_ofmap_writes", "utilization",
)  # fmt: skip
MOST_ROWS = 100_000
COPIED = ("dram_ifmap_reads", "dram_filter_reads")  # depend on the SRAM, which is not modelled here


@dataclass(frozen=True, kw_only=True, slots=True)
class SystolicRow:
    """One row of a file: an array, a product, and what the file says that it takes."""

    number: int  # of its line in the file
    array: SystolicArray
    m: int
    n: int
    k: int
    given: dict[str, str]  # every cell of the row, by column

    @property
    def counts(self) -> SystolicCounts:
        """What the product takes, in closed form."""
        return systolic_counts(self.m, self.n, self.k, self.array)

    def results(self) -> dict[str, str]:
        """Return every column that is computed, as text."""
        counts = self.counts
        percent = overall_util_pct(counts, self.array)
        values = counts.to_json() | {
            "total_cycles_reported": counts.scalesim_cycles,
            "overall_util_pct": "" if percent is None else percent,
        }
        return {column: str(values[column]) for column in (*REPORTED, *ADDED)}

    def differing(self) -> list[str]:
        """Name the columns in which the file says something else than SCALE-Sim's formulas."""
        results = self.results()
        said = {column: self.given[column] for column in REPORTED if self.given.get(column)}
        return [column for column, text in said.items() if not _equal(text, results[column])]


def read_rows(path: Path) -> list[SystolicRow]:
    """Read a file of products.

    Args:
        path: comma-separated, with a header that names at least the columns in `SHAPE`.

    Returns:
        Its rows, at least one.

    Raises:
        WorkloadError: not such a file; names the line and the column.
    """
    header, cells = read_csv(path, "a CSV file of products", WorkloadError)
    _check_header(path, header)
    if len(cells) > MOST_ROWS:
        raise WorkloadError(f"{path} must have at most {MOST_ROWS:,} rows, got {len(cells):,}")
    rows = [_row(where, given) for where, given in cells]
    if not rows:
        raise WorkloadError(f"{path} must have a row below its header, got none")
    return rows


def write_rows(path: Path, rows: Iterable[SystolicRow]) -> None:
    """Write rows with their results, in the order they came in.

    Args:
        path: file to write; seen by nobody until it is complete.
        rows: from `read_rows`.

    Raises:
        InputError: `path` is a folder, or lies in one that does not exist.
        OSError: the file cannot be written.
    """
    check_outputs({"the output": path})
    rows = list(rows)
    copied = [name for name in COPIED if name in rows[0].given]
    with written_whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*SHAPE, *REPORTED, *ADDED, *copied])
        for row in rows:
            shape = (row.array.rows, row.array.cols, row.array.dataflow, row.m, row.n, row.k)
            writer.writerow([*shape, *row.results().values(), *(row.given[c] for c in copied)])


def _check_header(path: Path, header: list[str]) -> None:
    known = (*SHAPE, *REPORTED, *ADDED, *COPIED)
    missing = [name for name in SHAPE if name not in header]
    unknown = [name for name in header if name not in known]
    for what, names in (("missing", missing), ("unknown", unknown)):
        if names:
            got = ", ".join(map(repr, names))[:200]
            raise WorkloadError(
                f"{path} must have the columns {', '.join(SHAPE)} (allowed are also "
                f"{', '.join(known[len(SHAPE) :])}), got {what}: {got}"
            )


def _row(where: str, cells: dict[str, str]) -> SystolicRow:
    given = {name: cell.strip() for name, cell in cells.items()}
    rows, cols, m, n, k = (
        _whole_number(where, name, given[name]) for name in SHAPE if name != "dataflow"
    )
    for name in (*REPORTED, *COPIED):
        if given.get(name) and not _is_number(given[name]):
            raise WorkloadError(
                f"{where}, column {name} must be a number or empty, got {short(given[name])}"
            )
    if given["dataflow"] not in DATAFLOWS:
        raise WorkloadError(
            f"{where}, column dataflow must be one of {', '.join(DATAFLOWS)}; "
            f"got {short(given['dataflow'])}"
        )
    array = SystolicArray(rows=rows, cols=cols, dataflow=given["dataflow"])
    number = int(where.rpartition(":")[2])
    return SystolicRow(number=number, array=array, m=m, n=n, k=k, given=given)


def _whole_number(where: str, column: str, text: str) -> int:
    digits = text.lstrip("0")
    if not (text.isascii() and text.isdigit() and 0 < len(digits) <= len(str(SIDE.high))):
        raise WorkloadError(f"{where}, column {column} must be {SIDE}, got {short(text)}")
    return int(digits)


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False


def _equal(said: str, ours: str) -> bool:
    return bool(ours) and float(said) == float(ours)
