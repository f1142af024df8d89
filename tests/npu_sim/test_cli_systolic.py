"""`npu-sim systolic`: what it prints and writes, and what it refuses."""

import csv
import json
import sys
from pathlib import Path

import pytest

from npu_sim.cli import systolic as cli_systolic
from npu_sim.cli.app import main

RUNS = Path(__file__).parent / "data/scalesim_v3_gemm_cycles.csv"
ONE = ["--m", "7", "--n", "13", "--k", "29", "--rows", "8", "--cols", "8", "--dataflow", "ws"]
HEADER = "array_rows,array_cols,dataflow,M,N,K\n"


@pytest.fixture
def systolic(monkeypatch, capsys):
    """Run the command; returns (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["npu-sim", "systolic", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_json_has_both_counts_and_the_traffic(systolic):
    code, out, err = systolic(*ONE, "--json")
    assert (code, err) == (0, "")
    data = json.loads(out)  # 7-13-29 on 8 x 8, ws: a run of SCALE-Sim
    assert {name: data[name] for name in (
        "cycles", "scalesim_cycles", "folds", "sram_ifmap_reads", "sram_filter_reads",
        "sram_ofmap_writes", "fidelity", "dataflow",
    )} == {
        "cycles": 232, "scalesim_cycles": 231, "folds": 8, "sram_ifmap_reads": 406,
        "sram_filter_reads": 377, "sram_ofmap_writes": 364, "fidelity": "closed-form",
        "dataflow": "ws",
    }  # fmt: skip
    assert data["utilization"] == 7 * 13 * 29 / (232 * 64)


def test_the_cells_print_the_same_and_that_the_product_is_right(systolic):
    closed = json.loads(systolic(*ONE, "--json")[1])
    code, out, err = systolic(*ONE, "--json", "--fidelity", "cycle", "--seed", "3")
    assert (code, err) == (0, "")
    closed["fidelity"] = "cycle"
    assert json.loads(out) == closed | {"product_equals_matmul": True}


@pytest.mark.parametrize("fidelity", ["closed-form", "cycle"])
def test_text_names_every_count(systolic, fidelity):
    code, out, err = systolic(*ONE, "--fidelity", fidelity)
    assert (code, err) == (0, "")
    assert out.startswith(f"[7 x 29] @ [29 x 13] on 8 x 8 cells, ws; {fidelity}\n")
    for line in (
        "cycles                            232", "scalesim_cycles                   231",
        "utilization                   17.77 %", "sram_filter_reads                 377",
    ):  # fmt: skip
        assert line in out.splitlines()
    assert ("equals the matrix product" in out) == (fidelity == "cycle")


def test_a_product_that_left_the_array_wrong_would_be_told(systolic, monkeypatch):
    from npu_sim.systolic import array as systolic_array

    right = systolic_array.run_systolic

    def wrong(a, b, array):
        run = right(a, b, array)
        run.product[0, 0] += 1
        return run

    monkeypatch.setattr(systolic_array, "run_systolic", wrong)
    assert "DIFFERS FROM the matrix product" in systolic(*ONE, "--fidelity", "cycle")[1]


def test_a_file_of_runs_is_reproduced(systolic, tmp_path):
    out_path = tmp_path / "out.csv"
    code, out, err = systolic("--csv", RUNS, "--out", out_path)
    assert (code, err) == (0, "")
    assert out == f"157 rows written to {out_path} (closed-form)\n"
    given, found = read(RUNS), read(out_path)
    assert len(found) == 157
    for row, result in zip(given, found, strict=True):
        for name in row.keys() - {"overall_util_pct"}:
            assert result[name] == row[name], name
        assert float(result["overall_util_pct"]) == float(row["overall_util_pct"])
        assert result["scalesim_cycles"] == row["total_cycles_reported"]
        assert int(result["cycles"]) == int(row["total_cycles_reported"]) + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv"]


def test_shapes_alone_are_enough_and_results_can_be_fed_again(systolic, tmp_path):
    source, first, second = (tmp_path / name for name in ("in.csv", "1.csv", "2.csv"))
    source.write_text("K,M,N,dataflow,array_cols,array_rows\n29,7,13,ws,8,8\n\n1,1,1,os,1,1\n")
    assert systolic("--csv", source, "--out", first, "--fidelity", "cycle")[0] == 0
    assert [row["cycles"] for row in read(first)] == ["232", "1"]
    assert read(first)[1]["overall_util_pct"] == ""
    code, out, _ = systolic("--csv", first, "--out", second, "--json")
    assert code == 0
    assert first.read_bytes() == second.read_bytes()
    assert json.loads(out) == {
        "rows": 2, "fidelity": "closed-form", "out": str(second), "differing": {},
    }  # fmt: skip


def test_a_row_that_reports_something_else_is_told(systolic, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text(
        HEADER.strip()
        + ",total_cycles_reported,folds\n8,8,ws,7,13,29,231,8\n8,8,ws,7,13,29,999,8\n"
    )
    code, out, _ = systolic("--csv", source, "--out", tmp_path / "out.csv")
    assert code == 1
    assert out.splitlines()[1:] == [f"row 3 of {source} reports another total_cycles_reported"]
    code, out, _ = systolic("--csv", source, "--out", tmp_path / "out.csv", "--json")
    assert json.loads(out)["differing"] == {"3": ["total_cycles_reported"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "with a line of column names; it is empty"),
        ("array_rows,array_cols,dataflow,M,N\n", "got missing: 'K'"),
        ("array_rows,array_cols,dataflow,M,N,K,colour\n8,8,ws,1,1,1,red\n", "unknown: 'colour'"),
        (
            "array_rows,array_cols,dataflow,M,N,K,M\n8,8,ws,1,1,1,1\n",
            "must stand once, got 'M' twice",
        ),
        (HEADER, "must have a row below its header, got none"),
        (HEADER + "8,8,ws,1,1,1\n8,8,ws,1,1\n", "in.csv:3 must have 6 cells, got 5"),
        (HEADER + "8,8,ws,1,1,1,9\n", "in.csv:2 must have 6 cells, got 7"),
        (HEADER + "8,8,ws,1,1,1\n8,8,ws,1,-3,1\n", "in.csv:3, column N must be a whole number"),
        (HEADER + "0,8,ws,1,1,1\n", "in.csv:2, column array_rows must be a whole number from 1"),
        (HEADER + "8,8,ws,1,1,1.5\n", "in.csv:2, column K must be a whole number from 1"),
        (HEADER + "8,8,ws,,1,1\n", "in.csv:2, column M must be a whole"),
        (HEADER + f"8,8,ws,{'9' * 5000},1,1\n", "in.csv:2, column M must be a whole"),
        (
            HEADER + "8,8,rs,1,1,1\n",
            "column dataflow must be one of os, ws, is; got 'rs'",
        ),
        (HEADER.strip() + ",folds\n8,8,ws,1,1,1,many\n", "in.csv:2, column folds must be a number"),
        (HEADER.strip() + ",folds\n8,8,ws,1,1,1,nan\n", "in.csv:2, column folds must be a number"),
        (HEADER + '8,8,"ws,1,1,1\n', "must be a CSV file of products, got no CSV"),
        (HEADER.encode() + b"8,8,ws,1,1,\xff\n", "must be text in UTF-8, got the byte 0xff"),
    ],
)
def test_a_wrong_file_names_row_and_column_and_writes_nothing(systolic, tmp_path, text, message):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, out, err = systolic("--csv", source, "--out", target)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {source}")
    assert err.count("\n") == 1
    assert message in err
    assert not target.exists()


def test_a_row_too_large_for_the_cells_is_named(systolic, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text(HEADER + "8,8,ws,9,9,9\n8,8,os,9999,9999,9999\n")
    code, _, err = systolic("--csv", source, "--out", tmp_path / "out.csv", "--fidelity", "cycle")
    assert code == 2
    assert f"{source}, row 3: cells x cycles" in err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a product needs --m, --n, --k, --rows, --cols, --dataflow too"),
        (ONE[2:], "a product needs --m too"),
        ([*ONE, "--m", "0"], "--m must be a whole number from 1 to 999,999,999,999, got 0"),
        ([*ONE, "--k", "-3"], "--k must be a whole number from 1 to 999,999,999,999, got -3"),
        (
            [*ONE, "--n", "1000000000000"],
            "--n must be a whole number from 1 to 999,999,999,999, got 1",
        ),
        ([*ONE, "--rows", "0"], "--rows must be a whole number from 1 to"),
        ([*ONE, "--cols", "-1"], "--cols must be a whole number from 1 to"),
        ([*ONE, "--cols", "wide"], "--cols"),
        ([*ONE, "--dataflow", "rs"], "dataflow must be one of os, ws, is; got 'rs'"),
        ([*ONE, "--fidelity", "gate"], "fidelity must be one of closed-form, cycle; got 'gate'"),
        ([*ONE, "--fidelity", "cycle", "--seed", "-1"], "--seed"),
        ([*ONE, "--fidelity", "cycle", "--m", "999999999"], "count it in closed form"),
        ([*ONE, "--csv", "in.csv"], "--csv and --out must be given together"),
        ([*ONE, "--out", "out.csv"], "--csv and --out must be given together"),
        (["--m", "1", "--csv", "in.csv", "--out", "out.csv"], "--csv must stand without --m"),
        (
            ["--csv", "no-such.csv", "--out", "out.csv"],
            "products; there is no such file",
        ),
        (["--csv", RUNS, "--out", "no-such-folder/out.csv"], "folder that exists, got no-such"),
        (["--csv", RUNS, "--out", RUNS.parent], "--out must be a file, got the folder"),
        (["--csv", RUNS.parent, "--out", "out.csv"], "got a folder; name a file in it"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(systolic, arguments, message):
    code, out, err = systolic(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_the_cells_of_every_row_are_asked_and_believed_only_if_they_agree(tmp_path, monkeypatch):
    [row] = cli_systolic.read_rows(_file(tmp_path, "8,8,ws,7,13,29\n"))
    monkeypatch.setattr(cli_systolic, "_run_with_values", lambda *_: {"cycles": 231})
    with pytest.raises(AssertionError, match="row 2"):
        cli_systolic._check_with_values(tmp_path, row, 0)


def _file(folder, rows):
    path = folder / "in.csv"
    path.write_text(HEADER + rows)
    return path
