"""Predictions beside measurements: reading cases, errors, fits, and the bars on held-out data."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npu_sim.errors import NpuSimError, SweepError
from npu_sim.evidence.calibrate import CONSTANTS, X2, X, changed_values, fitted_npus
from npu_sim.evidence.cases import calibration_cases, read_cases
from npu_sim.evidence.fit import Constant, fit_constants
from npu_sim.evidence.gemm import GEMM_NPUS, calibrate_gemms, gemm_rows, predict_us
from npu_sim.evidence.validate import Prediction, Validation, bare_npu, validate
from npu_sim.hardware.presets import npu
from npu_sim.program.rows import program_table
from npu_sim.tile.simulate import simulate_tiles

HEADER = (
    "case,npu,model,phase,n_tokens,n_context,n_memory,weight_bits,activation_bits,kv_bits,"
    "head_weight_bits,runtime,measured_us"
)
ROW = "minilm,hexagon-x-elite,minilm-l6,encode,128,128,0,16,16,16,16,qnn,1303.0"


def write(tmp_path, *rows, header=HEADER):
    file = tmp_path / "cases.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def test_the_calibration_file_is_predicted_within_the_bars_of_new_networks():
    cases, models = calibration_cases()
    data = validate(cases, models).to_json()
    assert data["n"] == 56
    assert data["mape"] <= 0.07
    assert data["by_phase"]["decode"] <= 0.05
    assert data["by_phase"]["encode"] <= 0.12
    assert data["by_phase"]["prefill"] <= 0.06
    assert data["max_ape"] <= 0.35
    assert data["roofline_mape"] > 0.5  # what the issue calls about 70 %


def test_errors_are_what_arithmetic_says(tmp_path):
    cases = read_cases(write(tmp_path, ROW, ROW.replace("1303.0", "2606.0")))
    found = validate(cases, calibration_cases()[1])
    predicted = found.rows[0].predicted_ms
    assert found.rows[1].predicted_ms == predicted
    errors = [predicted / 1.303 - 1, predicted / 2.606 - 1]
    assert [row.error for row in found.rows] == pytest.approx(errors)
    data = found.to_json()
    assert data["mape"] == pytest.approx(np.mean(np.abs(errors)))
    assert data["max_ape"] == pytest.approx(max(np.abs(errors)))
    assert data["by_phase"]["decode"] is None
    assert set(data["by_precision"]) == {"fp16"}


def test_groups_have_the_mean_and_the_median_of_their_errors(tmp_path):
    case = read_cases(write(tmp_path, ROW))[0]
    rows = [
        Prediction(case=case, npu=name, predicted_ms=1.303 * factor, roofline_ms=1.0)
        for name, factor in [("a", 1.1), ("a", 0.9), ("a", 1.4), ("b", 1.25)]
    ]
    found = Validation(rows=tuple(rows))
    groups = found.by(lambda row: row.npu)
    assert groups["a"] == pytest.approx({"n": 3, "mape": 0.2, "median_ape": 0.1})
    assert groups["b"] == pytest.approx({"n": 1, "mape": 0.25, "median_ape": 0.25})
    assert found.to_json()["median_ape"] == pytest.approx(0.175)  # of 0.1, 0.1, 0.25, 0.4


def test_another_npu_can_be_simulated_and_a_faster_one_is_faster(tmp_path):
    cases, models = read_cases(write(tmp_path, ROW)), calibration_cases()[1]
    own = validate(cases, models).rows[0]
    other = validate(cases, models, "hexagon-x2-elite").rows[0]
    assert other.npu == "hexagon-x2-elite"
    assert other.predicted_ms < own.predicted_ms


def test_a_host_runtime_adds_its_work_and_more_columns_are_ignored(tmp_path):
    models, chip = calibration_cases()[1], npu("hexagon-x-elite-2026-08")
    hosted = write(tmp_path, ROW.replace("qnn", "geniex") + ",note", header=HEADER + ",remark")
    with_host = validate(read_cases(hosted), models).rows[0].predicted_ms
    plain = validate(read_cases(write(tmp_path, ROW)), models).rows[0].predicted_ms
    more_us = chip.geniex_overhead_us + 128 * chip.geniex_position_us
    assert with_host - plain == pytest.approx(more_us / 1000, rel=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("minilm-l6", "maxilm", "model of case minilm must be one of"),
        ("hexagon-x-elite", "abacus", "NPU must be one of"),
        ("encode", "think", "csv:2: phase must be one of"),
        (",128,128", ",x,128", "csv:2: n_tokens must be a whole number from 0 to 131,072, got 'x'"),
        ("1303.0", "-3", "csv:2: measured_us must be a number above 0"),
        ("qnn", "onnx", "csv:2: runtime must be one of qnn, geniex"),
        (",16,16,16,16", ",5,16,16,16", "csv:2: weight_bits must be one of"),
        ("encode,128,128,0", "decode,1,128,0", "case minilm: phases but encode must have"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, old, new, message):
    file = write(tmp_path, ROW.replace(old, new, 1))
    with pytest.raises(NpuSimError, match=message):
        validate(read_cases(file), calibration_cases()[1])


def test_a_file_without_columns_or_rows_is_refused(tmp_path):
    with pytest.raises(SweepError, match=r"missing \['measured_us'\]"):
        read_cases(write(tmp_path, header=HEADER.replace(",measured_us", "")))
    with pytest.raises(SweepError, match="at least one case"):
        read_cases(write(tmp_path))
    with pytest.raises(SweepError, match="there is no such file"):
        read_cases(tmp_path / "absent.csv")


def test_a_bare_roofline_is_below_every_prediction():
    cases, models = calibration_cases()
    for row in validate(cases[:4], models).rows:
        assert row.roofline_ms < row.predicted_ms
    bare = bare_npu(npu("hexagon-x-elite"))
    assert bare.memory_bytes_per_s == bare.dram.bytes_per_s
    assert bare.call_overhead_cycles("geniex", 128) == 0


# -- the fit itself ----------------------------------------------------------------------------


def constant(name, prior, **more):
    fields = {"spread": 1.0, "low": prior / 50, "high": prior * 50} | more
    return Constant(name=name, unit="s", meaning="", prior=prior, **fields)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_a_fit_finds_the_constants_that_made_the_data(rate, overhead):
    work = overhead * rate * np.geomspace(0.01, 100, 24)  # from all overhead to all work
    measured = overhead + work / rate

    def predict(logarithms):
        r, o = np.exp(logarithms)
        return np.log(o + work / r)

    constants = (constant("rate", 1.0, spread=9.0), constant("overhead", 1.0, spread=9.0))
    fit = fit_constants(constants, predict, measured, range(24), n_steps=40)
    assert fit.values == pytest.approx([rate, overhead], rel=0.02)
    assert np.abs(fit.residuals).max() < 0.02
    assert np.abs(fit.left_out).max() < 0.1
    assert (fit.informed > 0.9).all()


def test_a_constant_that_no_row_depends_on_stays_at_its_prior_and_is_said_to():
    def predict(logarithms):
        return np.repeat(logarithms[0], 5)

    constants = (constant("used", 1.0), constant("unused", 3.0, spread=0.4))
    fit = fit_constants(constants, predict, np.full(5, 2.0), range(5))
    assert fit.values == pytest.approx([2.0, 3.0], rel=0.01)
    assert fit.informed[1] == pytest.approx(0, abs=1e-9)
    assert fit.uncertainty[1] == pytest.approx(0.4)


def test_a_fit_goes_on_until_little_is_left_to_gain():
    # a curve on which the first step is too long, and gains less than 1
    def predict(logarithms):
        theta = logarithms[0]
        return np.array([theta + 5 * theta**2])

    true = np.log(1.07)
    measured = np.exp([true + 5 * true**2])
    fit = fit_constants((constant("c", 1.0, spread=9.0),), predict, measured, range(1))
    assert fit.values[0] == pytest.approx(1.07, rel=3e-3)


def test_bounds_hold():
    fit = fit_constants(
        (constant("c", 1.0, low=0.5, high=1.5),), lambda t: np.repeat(t[0], 4), np.full(4, 9.0),
        range(4),
    )  # fmt: skip
    assert fit.values[0] == pytest.approx(1.5)


def test_a_row_that_is_left_out_does_not_help_itself():
    # one wild row: its own prediction without it must be that of the others
    def predict(logarithms):
        return np.repeat(logarithms[0], 6)

    measured = np.array([1.0, 1, 1, 1, 1, 3.0])
    fit = fit_constants((constant("c", 1.0, spread=5.0),), predict, measured, range(6))
    assert fit.left_out[5] == pytest.approx(1 / 3 - 1, abs=0.02)
    assert fit.residuals[5] > fit.left_out[5]


# -- what is shipped ----------------------------------------------------------------------------


def test_the_shipped_chips_hold_fitted_values_within_their_bounds():
    paths = set(changed_values({c.name: c.prior for c in CONSTANTS}, npu(X)))
    for name in (X, X2):
        chip = npu(name)
        fitted = {path for path, source in chip.sources.items() if source.startswith("fitted: ")}
        assert fitted == paths
        assert all("hexagon_2026-10.csv, 56 calls" in chip.sources[path] for path in fitted)
    bounds = {c.name: (c.low, c.high) for c in CONSTANTS}
    low, high = bounds["dma"]
    assert low <= npu(X).dma.bytes_per_s / 1e9 <= high
    low, high = bounds["op"]
    assert low <= npu(X).per_op_overhead_cycles / npu(X).clock_hz * 1e6 <= high


def test_fitted_chips_are_the_constants_written_back():
    class Found:
        values = {c.name: c.prior for c in CONSTANTS}  # noqa: RUF012 - stands for a Calibration
        cases = range(20)

    from datetime import date

    chips = fitted_npus(Found(), "some.csv", date(2026, 1, 2))
    chip = chips[X]
    assert chip.dma.bytes_per_s == 50_000_000_000
    assert chip.matrix.w8a16_efficiency == pytest.approx(0.7)
    assert chip.vector.float_efficiency == pytest.approx(0.15)
    assert chips[X2].dma.bytes_per_s == pytest.approx(1.8 * 50e9, rel=1e-3)
    assert chip.sources["dma.bytes_per_s"] == "fitted: some.csv, 20 calls, 2026-01-02"


@pytest.mark.parametrize(
    ("path", "slower"),
    [
        ("matrix.output_elements_per_s", 10**9),
        ("dma.cache_bytes_per_s", 10**9),
        ("geniex_position_us", 100.0),
        ("vector.float_efficiency", 0.05),
    ],
)
def test_each_effect_of_the_fit_slows_a_call_that_has_it(path, slower):
    cases, models = calibration_cases()
    case = next(c for c in cases if c.name == "qwen3-0.6b-prefill128-c512@hexagon-x-elite")
    if path == "vector.float_efficiency":
        case = next(c for c in cases if c.name == "minilm-l6-enc-fp16@hexagon-x-elite")
    table, chip = program_table(case.program(models)), npu(case.npu)
    slow = chip.with_value(path, slower)
    assert simulate_tiles(table, slow).cycles > simulate_tiles(table, chip).cycles


def test_a_dma_that_runs_ahead_is_not_slower():
    cases, models = calibration_cases()
    case = next(c for c in cases if c.name == "whisper-base-dec-fp16@hexagon-x-elite")
    table, chip = program_table(case.program(models)), npu(case.npu)
    ahead = chip.with_value("dma.runs_ahead", True)
    assert simulate_tiles(table, ahead).cycles < simulate_tiles(table, chip).cycles


# -- matrix products on a GPU and a TPU --------------------------------------------------------


@pytest.mark.parametrize(("name", "bar"), [("a100", 0.12), ("tpu-v6e", 0.15)])
def test_products_that_were_not_fitted_are_predicted_within_the_bar(name, bar):
    found = calibrate_gemms(name)
    assert found.mape(fitted_on=False) <= bar
    shipped = npu(name)
    values = {path: shipped.values()[path] for path in found.changes}
    assert values == pytest.approx(dict(found.changes), rel=1e-3)


@pytest.mark.parametrize("name", GEMM_NPUS)
def test_halves_are_disjoint_and_both_have_rows(name):
    rows = gemm_rows(name)
    fitted = [row for row in rows if row.fitted_on]
    assert 0.3 < len(fitted) / len(rows) < 0.7


def test_a_product_costs_launch_arithmetic_and_bytes_by_hand():
    row = gemm_rows("a100")[4]  # 1024 x 12288 x 12288
    chip = npu("a100").with_changes(
        {"matrix.w16a16_efficiency": 0.5, "per_op_overhead_cycles": 0,
         "per_inference_overhead_us": 10.0}
    )  # fmt: skip
    macs = 1024 * 12288 * 12288
    seconds = macs / (110_592 * 0.5 * 1.41e9)
    assert predict_us(row, chip) == pytest.approx(seconds * 1e6 + 10, rel=1e-6)


# -- command line ------------------------------------------------------------------------------


def run(monkeypatch, capsys, *arguments):
    import sys

    from npu_sim.cli.app import main

    monkeypatch.setattr(sys, "argv", ["npu-sim", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code, *capsys.readouterr()


def test_the_command_writes_json_csv_and_a_picture(tmp_path, monkeypatch, capsys):
    from importlib.resources import files

    models = files("npu_sim").joinpath("data", "hexagon", "hexagon_calibration_models.json")
    arguments = ["validate", str(write(tmp_path, ROW)), "--models", str(models)]
    code, out, _ = run(
        monkeypatch, capsys, *arguments, "--json", "--csv", str(tmp_path / "out.csv"),
        "--plot", str(tmp_path / "out.png"),
    )  # fmt: skip
    data = json.loads(out)
    assert code == 0
    assert {"n", "mape", "median_ape", "max_ape", "roofline_mape", "by_phase"} <= set(data)
    assert set(data["by_phase"]) == {"encode", "prefill", "decode"}
    with (tmp_path / "out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["predicted_ms"]) == data["rows"][0]["predicted_ms"]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run(monkeypatch, capsys, *arguments)
    assert code == 0
    assert "by phase: encode" in out


def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, "validate", "absent.csv", "--models", "absent.json")
    assert (code, out) == (2, "")
    assert err == "error: absent.csv must be a CSV file of cases; there is no such file\n"
