"""The array cell by cell: its product is the matmul, its counts are the closed form's."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npu_sim.errors import WorkloadError
from npu_sim.systolic import array as systolic_array
from npu_sim.systolic import cells_kernel
from npu_sim.systolic.array import check_can_run, run_systolic
from npu_sim.systolic.closed_form import DATAFLOWS, SystolicArray, systolic_counts

RUNS = Path(__file__).parent / "data/scalesim_v3_gemm_cycles.csv"
COUNTED = (
    "folds", "cycles", "cycles_per_fold", "sram_ifmap_reads", "sram_filter_reads",
    "sram_ofmap_writes",
)  # fmt: skip
SHAPE = ("array_rows", "array_cols", "M", "N", "K")

arrays = st.builds(
    SystolicArray,
    rows=st.integers(1, 7),
    cols=st.integers(1, 7),
    dataflow=st.sampled_from(DATAFLOWS),
)
sizes = st.tuples(*[st.integers(1, 15)] * 3)
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([np.int8, np.uint8, np.int16, np.int64])


def operands(m, n, k, seed, dtype=np.int8):
    info = np.iinfo(np.int16 if dtype == np.int64 else dtype)
    rng = np.random.default_rng(seed)
    return [
        rng.integers(info.min, info.max, shape, dtype, endpoint=True) for shape in ((m, k), (k, n))
    ]


def matmul(a, b):
    return np.array(a.astype(object) @ b.astype(object), np.int64)  # Python's own integers


def counted(run):
    return {name: getattr(run, name) for name in COUNTED}


def small_runs():
    with RUNS.open(encoding="utf-8") as file:
        rows = [
            [row["dataflow"], *(int(row[name]) for name in SHAPE)] for row in csv.DictReader(file)
        ]
    return [row for row in rows if row[3] * row[4] * row[5] <= 1_000_000]


def test_126_runs_of_scale_sim_have_at_most_a_million_macs():
    assert len(small_runs()) == 126


@pytest.mark.parametrize("run", small_runs(), ids=lambda run: "-".join(map(str, run)))
def test_the_cells_count_what_scale_sim_reports(run):
    dataflow, rows, cols, m, n, k = run
    a, b = operands(m, n, k, seed=m + n + k)
    done = run_systolic(a, b, SystolicArray(rows=rows, cols=cols, dataflow=dataflow))
    with RUNS.open(encoding="utf-8") as file:
        said = next(
            row for row in csv.DictReader(file)
            if [row["dataflow"], *(int(row[name]) for name in SHAPE)] == run
        )  # fmt: skip
    assert done.cycles - 1 == int(said["total_cycles_reported"])
    for name in ("folds", "cycles_per_fold", "sram_ifmap_reads", "sram_filter_reads"):
        assert getattr(done, name) == int(said[name]), name
    assert np.array_equal(done.product, a.astype(np.int64) @ b.astype(np.int64))


@settings(max_examples=300)
@given(sizes, arrays, seeds, dtypes)
def test_product_is_the_matmul_and_counts_are_the_closed_form(size, array, seed, dtype):
    m, n, k = size
    a, b = operands(m, n, k, seed, dtype)
    run, counts = run_systolic(a, b, array), systolic_counts(m, n, k, array)
    assert np.array_equal(run.product, matmul(a, b))
    assert counted(run) == {name: getattr(counts, name) for name in COUNTED}


@settings(max_examples=40)
@given(sizes, arrays, seeds, dtypes)
def test_the_kernels_as_plain_python_do_the_same(size, array, seed, dtype):
    a, b = operands(*size, seed, dtype)
    fast = run_systolic(a, b, array)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("output_stationary_fold", "operand_stationary_fold"):
            patch.setattr(systolic_array, name, getattr(cells_kernel, name).py_func)
        patch.setattr(cells_kernel, "_load", cells_kernel._load.py_func)
        plain = run_systolic(a, b, array)
    assert np.array_equal(plain.product, fast.product)
    assert plain.product.dtype == fast.product.dtype
    assert counted(plain) == counted(fast)


class Watched:
    """An array that writes down each access."""

    def __init__(self, name, values, log):
        self.name, self.values, self.log = name, np.asarray(values), log
        self.shape, self.dtype = self.values.shape, self.values.dtype

    def __getitem__(self, index):
        self.log.append((self.name, *map(int, index)))
        return self.values[index]

    def __setitem__(self, index, value):
        self.log.append((self.name, *map(int, index)))
        self.values[index] = value


def test_output_stationary_event_by_event():
    log = []
    a, b = Watched("a", [[1, 2], [3, 4]], log), Watched("b", [[5, 6], [7, 8]], log)
    out = Watched("out", np.zeros((2, 2), int), log)
    counts = cells_kernel.output_stationary_fold.py_func(a, b, out, 2, 2)
    assert log == [
        ("b", 0, 0), ("a", 0, 0),                                          # cycle 0: 1 * 5
        ("b", 1, 0), ("b", 0, 1), ("a", 1, 0), ("a", 0, 1), ("out", 0, 0),  # 1: + 2 * 7 is done
        ("b", 1, 1), ("a", 1, 1), ("out", 1, 0), ("out", 0, 1),             # 2
        ("out", 1, 1),                                                      # 3: the far corner
    ]  # fmt: skip
    assert out.values.tolist() == [[19, 22], [43, 50]]
    assert counts == (4, 4, 4, 4)


def test_operand_stationary_event_by_event(monkeypatch):
    monkeypatch.setattr(cells_kernel, "_load", cells_kernel._load.py_func)
    log = []
    held, stream = Watched("held", [[5, 6], [7, 8]], log), Watched("stream", [[1, 2]], log)
    out = Watched("out", np.zeros((1, 2), int), log)
    counts = cells_kernel.operand_stationary_fold.py_func(held, stream, out, 2, 2)
    assert log == [
        ("held", 1, 0), ("held", 1, 1),      # cycle 0: the last row goes in first
        ("held", 0, 0), ("held", 0, 1),      # 1
        ("stream", 0, 0),                    # 2
        ("stream", 0, 1), ("out", 0, 0),     # 3: 1 * 5 + 2 * 7 leaves at the bottom
        ("out", 0, 1),                       # 4
    ]  # fmt: skip
    assert out.values.tolist() == [[19, 22]]
    assert counts == (5, 4, 2, 2)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_the_largest_sums_are_exact(dataflow):
    array = SystolicArray(rows=2, cols=2, dataflow=dataflow)
    for most, dtype in ((2**31 - 1, np.int32), (2**31, np.int64), (2**62, np.int64)):
        a, b = np.full((3, 1), most, np.int64), np.array([[1, -1, 0]])
        run = run_systolic(a, b, array)
        assert run.product.dtype == dtype
        assert np.array_equal(run.product, matmul(a, b))
    a = np.full((1, 4), -(2**30))
    assert run_systolic(a, -a.T[:, :1] // 2**29, array).product == -(2**33)
    low = run_systolic(np.array([[-(2**31) - 1, 1]]), np.array([[1], [0]]), array).product
    assert (low.dtype, low[0, 0]) == (np.int64, -(2**31) - 1)
    with pytest.raises(WorkloadError, match="must fit int64"):
        run_systolic(a, np.full((4, 1), 2**31), array)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((2, 3), int), "as many columns as b has rows"),
        (np.zeros((2, 3)), np.zeros((3, 2), int), "a must be a matrix of integers, got float64"),
        (np.zeros((2, 3), int), np.zeros(3, int), "b must be a matrix of integers"),
        (np.zeros((2, 0), int), np.zeros((0, 3), int), "a must be a matrix of integers"),
        (np.zeros((2, 3), bool), np.zeros((3, 2), int), "got bool"),
    ],
)
def test_what_is_no_product_of_integers_is_refused(a, b, message):
    with pytest.raises(WorkloadError, match=message):
        run_systolic(a, b, SystolicArray(rows=2, cols=2, dataflow="os"))


@pytest.mark.parametrize(
    ("m", "n", "k", "side"), [(10**6, 10**6, 1, 1000), (4096, 4096, 4096, 8), (3000, 3000, 1, 1)]
)
def test_what_would_run_for_hours_is_refused(m, n, k, side):
    with pytest.raises(WorkloadError, match="of a run with values must be at most"):
        check_can_run(m, n, k, SystolicArray(rows=side, cols=side, dataflow="os"))
