"""The closed form: against SCALE-Sim's runs, by hand, and laws."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npu_sim.errors import HardwareError, WorkloadError
from npu_sim.systolic.closed_form import DATAFLOWS, SystolicArray, overall_util_pct, systolic_counts

RUNS = Path(__file__).parent / "data/scalesim_v3_gemm_cycles.csv"

sizes = st.integers(1, 300)
arrays = st.builds(
    SystolicArray,
    rows=st.integers(1, 40),
    cols=st.integers(1, 40),
    dataflow=st.sampled_from(DATAFLOWS),
)


def runs():
    with RUNS.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def counts_of(run):
    array = SystolicArray(
        rows=int(run["array_rows"]), cols=int(run["array_cols"]), dataflow=run["dataflow"]
    )
    return array, systolic_counts(int(run["M"]), int(run["N"]), int(run["K"]), array)


def test_there_are_157_runs_of_all_dataflows():
    assert len(runs()) == 157
    assert {run["dataflow"] for run in runs()} == set(DATAFLOWS)


@pytest.mark.parametrize("run", runs(), ids=lambda run: "-".join(list(run.values())[:6]))
def test_every_run_of_scale_sim_is_reproduced_exactly(run):
    array, counts = counts_of(run)
    assert (
        counts.scalesim_cycles,
        counts.folds,
        counts.cycles_per_fold,
        counts.sram_ifmap_reads,
        counts.sram_filter_reads,
    ) == tuple(
        int(run[name])
        for name in (
            "total_cycles_reported", "folds", "cycles_per_fold", "sram_ifmap_reads",
            "sram_filter_reads",
        )
    )  # fmt: skip
    assert overall_util_pct(counts, array) == float(run["overall_util_pct"])
    assert counts.cycles == int(run["total_cycles_reported"]) + 1


@pytest.mark.parametrize(
    ("m", "n", "k", "side", "dataflow", "reported"),
    [  # "SRAM OFMAP Writes" of SCALE-Sim 3.0.0, which the file does not have
        (7, 13, 29, 8, "os", 123),
        (7, 13, 29, 8, "ws", 364),
        (7, 13, 29, 8, "is", 364),
        (8, 8, 8, 128, "os", 320),
        (256, 256, 128, 128, "os", 66_560),
    ],
)
def test_writes_of_results_as_scale_sim_reports_them(m, n, k, side, dataflow, reported):
    array = SystolicArray(rows=side, cols=side, dataflow=dataflow)
    counts = systolic_counts(m, n, k, array)
    assert counts.scalesim_ofmap_writes == reported
    if dataflow == "os":  # every result is written once
        assert counts.sram_ofmap_writes == m * n


def test_by_hand():
    # [3 x 5] @ [5 x 7] on 2 x 4 cells.
    os = systolic_counts(3, 7, 5, SystolicArray(rows=2, cols=4, dataflow="os"))
    assert (os.folds, os.cycles_per_fold, os.cycles) == (2 * 2, 5 + 1 + 3, 36)
    assert (os.sram_ifmap_reads, os.sram_filter_reads, os.sram_ofmap_writes) == (30, 70, 21)
    ws = systolic_counts(3, 7, 5, SystolicArray(rows=2, cols=4, dataflow="ws"))
    assert (ws.folds, ws.cycles_per_fold, ws.cycles) == (3 * 2, 2 + 3 + 1 + 3, 54)
    assert (ws.sram_ifmap_reads, ws.sram_filter_reads, ws.sram_ofmap_writes) == (30, 35, 63)
    is_ = systolic_counts(3, 7, 5, SystolicArray(rows=2, cols=4, dataflow="is"))
    assert (is_.folds, is_.cycles_per_fold, is_.cycles) == (3 * 1, 2 + 7 + 1 + 3, 39)
    assert (is_.sram_ifmap_reads, is_.sram_filter_reads, is_.sram_ofmap_writes) == (15, 35, 63)
    assert is_.utilization == 105 / (39 * 8)


def test_one_cell_and_one_product_take_one_cycle_and_scale_sim_says_none():
    array = SystolicArray(rows=1, cols=1, dataflow="os")
    counts = systolic_counts(1, 1, 1, array)
    assert (counts.cycles, counts.scalesim_cycles, counts.utilization) == (1, 0, 1.0)
    assert overall_util_pct(counts, array) is None


@given(sizes, sizes, sizes, arrays)
def test_time_is_at_least_what_the_multipliers_need(m, n, k, array):
    counts = systolic_counts(m, n, k, array)
    assert counts.cycles * array.cells >= m * n * k == counts.macs
    assert counts.sram_ifmap_reads >= m * k
    assert counts.sram_filter_reads >= k * n
    assert counts.sram_ofmap_writes >= m * n


@given(sizes, sizes, sizes, arrays, st.integers(0, 2))
def test_a_larger_product_never_takes_less(m, n, k, array, axis):
    larger = [size + (i == axis) for i, size in enumerate((m, n, k))]
    now, then = systolic_counts(m, n, k, array), systolic_counts(*larger, array)
    for name in ("cycles", "sram_ifmap_reads", "sram_filter_reads", "sram_ofmap_writes"):
        assert getattr(then, name) >= getattr(now, name)


@given(sizes, sizes, sizes, arrays)
def test_input_stationary_is_weight_stationary_of_the_transposed_product(m, n, k, array):
    as_ws = systolic_counts(n, m, k, replace(array, dataflow="ws"))
    as_is = systolic_counts(m, n, k, replace(array, dataflow="is"))
    assert as_is.cycles == as_ws.cycles
    assert as_is.sram_ifmap_reads == as_ws.sram_filter_reads
    assert as_is.sram_filter_reads == as_ws.sram_ifmap_reads


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "8", 10**12])
def test_a_size_must_be_a_positive_whole_number(size):
    array = SystolicArray(rows=4, cols=4, dataflow="os")
    for name in ("m", "n", "k"):
        with pytest.raises(WorkloadError, match=f"^{name} must be"):
            systolic_counts(**({"m": 1, "n": 1, "k": 1, "array": array} | {name: size}))
    for name in ("rows", "cols"):
        with pytest.raises(HardwareError, match=f"^{name} must be"):
            SystolicArray(**({"rows": 1, "cols": 1, "dataflow": "os"} | {name: size}))


@pytest.mark.parametrize("dataflow", ["OS", "", "rs", None])
def test_an_unknown_dataflow_is_refused(dataflow):
    with pytest.raises(HardwareError, match="dataflow must be one of os, ws, is"):
        SystolicArray(rows=4, cols=4, dataflow=dataflow)
