"""Products on systolic arrays by hand: files, cycles of small arrays, what cannot be."""

from pathlib import Path

import pytest

from npu_sim.errors import WorkloadError
from npu_sim.systolic.closed_form import DATAFLOWS, SystolicArray, systolic_counts
from npu_sim.systolic.scalesim_csv import read_rows, write_rows

HEADER = "array_rows,array_cols,dataflow,M,N,K"


def table(folder: Path, *lines: str, more: str = "") -> Path:
    path = folder / "products.csv"
    path.write_text("\n".join([HEADER + more, *lines]) + "\n", encoding="utf-8")
    return path


def test_a_row_becomes_a_product_of_its_line(tmp_path: Path) -> None:
    first, second = read_rows(table(tmp_path, "2,3,os,4,5,6", "", "7,8,ws, 9 ,10,11"))
    assert first.array == SystolicArray(rows=2, cols=3, dataflow="os")
    assert (first.number, first.m, first.n, first.k) == (2, 4, 5, 6)
    assert (second.number, second.m, second.n, second.k) == (4, 9, 10, 11)


def test_only_what_a_file_says_is_compared(tmp_path: Path) -> None:
    more = ",total_cycles_reported,folds,cycles_per_fold"
    right, none, wrong = read_rows(
        table(tmp_path, "2,2,os,2,2,5,8,1,9", "2,2,os,2,2,5,,,", "2,2,os,2,2,5,,2,", more=more)
    )
    counts = systolic_counts(2, 2, 5, right.array)
    assert none.differing() == []
    assert wrong.differing() == ["folds"]
    said = [counts.scalesim_cycles, counts.folds, counts.cycles_per_fold]
    (row,) = read_rows(table(tmp_path, f"2,2,os,2,2,5,{said[0]},{said[1]},{said[2]}", more=more))
    assert row.differing() == []
    for place, column in enumerate(more[1:].split(",")):
        other = [*said]
        other[place] += 1
        (row,) = read_rows(
            table(tmp_path, f"2,2,os,2,2,5,{other[0]},{other[1]},{other[2]}", more=more)
        )
        assert row.differing() == [column]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0,3,os,4,5,6", r":2, column array_rows must be"), ("2,3,x,4,5,6", r":2, column dataflow"),
        ("2,3,os,4,-5,6", r":2, column N must be"), ("2,3,os,4,5,6.5", r":2, column K must be"),
        (f"2,3,os,4,5,{10**12}", r"K must be|must be"), ("2,3,os,4,5", ":2 must have 6 cells"),
    ],
)  # fmt: skip
def test_a_row_that_is_none_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        read_rows(table(tmp_path, line))


def test_sides_end_below_a_million_million() -> None:
    largest = 10**12 - 1
    for dataflow in DATAFLOWS:
        array = SystolicArray(rows=1, cols=1, dataflow=dataflow)
        assert systolic_counts(1, 1, largest, array).folds >= 1
        for wrong in ((0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, largest + 1)):
            with pytest.raises(WorkloadError):
                systolic_counts(*wrong, array)


def test_every_result_is_written_with_its_product(tmp_path: Path) -> None:
    rows = read_rows(table(tmp_path, "2,2,os,2,2,5", "4,4,ws,2,2,5"))
    write_rows(tmp_path / "out.csv", rows)
    header, *lines = (tmp_path / "out.csv").read_text().splitlines()
    assert header.startswith(HEADER)
    for line, row in zip(lines, rows, strict=True):
        cells = dict(zip(header.split(","), line.split(","), strict=True))
        counts = row.counts
        assert (cells["array_rows"], cells["K"]) == (str(row.array.rows), "5")
        assert cells["cycles"] == str(counts.cycles)
        assert cells["total_cycles_reported"] == str(counts.scalesim_cycles)
        percent = 100 * 2 * 2 * 5 / (counts.scalesim_cycles * row.array.rows * row.array.cols)
        assert float(cells["overall_util_pct"]) == round(percent, 4)
