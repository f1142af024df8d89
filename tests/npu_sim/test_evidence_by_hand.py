"""Fits, errors and tables of measurements against closed forms and numbers worked out by hand."""

import hashlib
import json
from dataclasses import replace
from datetime import date
from types import SimpleNamespace

import numpy as np
import pytest

from mu_ref.presets import tiny
from npu_sim.errors import SweepError
from npu_sim.evidence import calibrate as calibration
from npu_sim.evidence import chips, gemm
from npu_sim.evidence.calibrate import CONSTANTS, X2, Calibration, X, calibrate, changed_values
from npu_sim.evidence.cases import (
    CHIPS,
    PHONES,
    RELEASES,
    TWO_RATIOS,
    Case,
    calibration_cases,
    read_cases,
)
from npu_sim.evidence.fit import Constant, Fit, fit_constants
from npu_sim.evidence.gemm import GemmFit, GemmRow, calibrate_gemms, gemm_op, predict_us
from npu_sim.evidence.validate import Prediction, Validation, bare_npu, validate, write_rows
from npu_sim.hardware.presets import npu
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.roofline.formula import op_cost

# -- the fit: linear in logarithms, so that the least value has a closed form ----------------------

SLOPES = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.3, -0.2], [1.0, 1.0]])
OFFSETS = np.array([0.1, -0.2, 0.0, 0.3, 0.05])
PRIOR, SPREAD = np.array([2.0, 5.0]), np.array([0.5, 0.2])
MEASURED = np.array([2.5, 3.0, 4.0, 1.1, 11.0])


def constants(low: float = 1e-3, high: float = 1e3) -> tuple[Constant, ...]:
    return tuple(
        Constant(name=name, unit="s", meaning="", prior=p, spread=s, low=low, high=high)
        for name, p, s in zip("ab", PRIOR, SPREAD, strict=True)
    )


def linear(logarithms: np.ndarray) -> np.ndarray:
    return SLOPES @ logarithms + OFFSETS


def least(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where (4.6) is least for some rows, and its curvature: errors of 10 %, a prior."""
    a, target = SLOPES[rows] / 0.1, (np.log(MEASURED) - OFFSETS)[rows] / 0.1
    curve = a.T @ a + np.diag(1 / SPREAD**2)
    return np.linalg.solve(curve, a.T @ target + np.log(PRIOR) / SPREAD**2), curve


def test_a_linear_fit_is_the_least_squares_of_rows_and_prior() -> None:
    fit = fit_constants(constants(), linear, MEASURED, range(5))
    theta, curve = least(np.arange(5))
    np.testing.assert_allclose(np.log(fit.values), theta, atol=3e-5)
    np.testing.assert_allclose(fit.residuals, np.exp(linear(theta)) / MEASURED - 1, atol=3e-5)
    variance = np.diag(np.linalg.inv(curve))
    np.testing.assert_allclose(fit.uncertainty, np.sqrt(variance), rtol=1e-9)
    np.testing.assert_allclose(fit.informed, 1 - variance / SPREAD**2, rtol=1e-9)


def test_a_fit_stops_where_nothing_is_gained() -> None:
    """The start, two slopes a step, and two predictions for each row that is left out: 10."""
    calls = []
    fit_constants(constants(), lambda x: calls.append(x) or linear(x), MEASURED, range(5), 100)
    assert len(calls) - 1 - 10 <= 3 * 4  # at most four steps of one prediction and two slopes


@pytest.mark.parametrize("groups", [(0, 1, 2, 3, 4), ("x", "y", "x", "y", "z")])
def test_each_group_is_predicted_by_the_fit_of_the_others(groups) -> None:
    fit = fit_constants(constants(), linear, MEASURED, groups)
    for row, group in enumerate(groups):
        others = np.array([i for i, g in enumerate(groups) if g != group])
        predicted = np.exp(linear(least(others)[0]))[row]
        assert fit.left_out[row] == pytest.approx(predicted / MEASURED[row] - 1, abs=1e-6)


def test_bounds_are_kept_by_the_fit_the_left_out_fits_and_the_start() -> None:
    fit = fit_constants(constants(high=3.0), linear, MEASURED, range(5))
    assert fit.values.max() == pytest.approx(3.0)  # the prior of b lies beyond
    assert np.abs(fit.left_out).max() < 1
    low = fit_constants(constants(low=4.0), linear, MEASURED, range(5))
    assert low.values.min() == pytest.approx(4.0)


def test_behind_a_bound_the_others_make_the_best_of_it() -> None:
    """The first stays at 2.2, which it would pass: the least value of the second alone."""
    first, second = constants()
    fit = fit_constants((replace(first, high=2.2), second), linear, MEASURED, range(5))
    assert least(np.arange(5))[0][0] > np.log(2.2)
    a, target = SLOPES / 0.1, (np.log(MEASURED) - OFFSETS) / 0.1 - SLOPES[:, 0] * 10 * np.log(2.2)
    b = (a[:, 1] @ target + np.log(5.0) / 0.04) / (a[:, 1] @ a[:, 1] + 1 / 0.04)
    np.testing.assert_allclose(np.log(fit.values), [np.log(2.2), b], atol=3e-5)


@pytest.mark.parametrize("prior", [0.01, 0.1, 1.0, 20.0, 100.0])
def test_a_fit_goes_on_to_the_least_value(prior: float) -> None:
    """One constant beside known work; finer and finer grids find the least value of (4.6)."""
    work = np.geomspace(0.01, 100, 12)
    measured = 2.0 + work * np.array([1.1, 0.9] * 6)
    only = Constant(name="a", unit="s", meaning="", prior=prior, spread=3.0, low=1e-6, high=1e6)

    def predict(logarithms: np.ndarray) -> np.ndarray:
        return np.log(np.exp(logarithms[0]) + work)

    def cost(theta: float) -> float:
        errors = (np.log(np.exp(theta) + work) - np.log(measured)) / 0.1
        return float((errors**2).sum() + ((theta - np.log(prior)) / 3.0) ** 2)

    low, high = -3.0, 4.0
    for _ in range(12):
        grid = np.linspace(low, high, 101)
        best = int(np.argmin([cost(theta) for theta in grid]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 100)]
    fit = fit_constants((only,), predict, measured, range(12))
    assert np.log(fit.values[0]) == pytest.approx((low + high) / 2, abs=3e-5)


# -- errors ----------------------------------------------------------------------------------------


def case(name: str = "c", measured_us: float = 1000.0, **fields: object) -> Case:
    given = {
        "npu": X, "model": "m", "phase": "encode", "n_tokens": 4, "n_context": 4, "n_memory": 0,
        "precision": Precision(), "runtime": "native", "remeasured_us": None,
        "release": "2026-10",
    } | fields  # fmt: skip
    return Case(name=name, measured_us=measured_us, **given)


ROWS = tuple(
    Prediction(case=case(str(i), 2000.0, phase=phase, precision=p), npu=chip, predicted_ms=ms,
               roofline_ms=roofline)
    for i, (phase, p, chip, ms, roofline) in enumerate([
        ("encode", Precision(), X, 2.2, 1.0),  # 0.1, roofline -0.5
        ("encode", Precision(), X2, 1.6, 0.5),  # -0.2, -0.75
        ("decode", Precision(weight_bits=16, head_weight_bits=16), X, 3.2, 2.0),  # 0.6, 0
        ("encode", Precision(weight_bits=4), X, 2.0, 1.0),  # 0, -0.5
    ])
)  # fmt: skip


def test_errors_are_means_medians_and_largest_ones_by_hand() -> None:
    found = Validation(rows=ROWS)
    np.testing.assert_allclose(found.errors, [0.1, 0.2, 0.6, 0.0])
    assert [row.error for row in ROWS] == pytest.approx([0.1, -0.2, 0.6, 0.0])
    assert [row.measured_ms for row in ROWS] == [2.0] * 4
    data = json.loads(json.dumps(found.to_json()))
    rows = data.pop("rows")
    assert data == {
        "n": 4, "mape": pytest.approx(0.225), "median_ape": pytest.approx(0.15),
        "max_ape": pytest.approx(0.6), "coverage": None, "roofline_mape": pytest.approx(0.4375),
        "by_phase": {"encode": pytest.approx(0.1), "prefill": None, "decode": pytest.approx(0.6)},
        "by_precision": {"w8a16": pytest.approx(0.15), "fp16": pytest.approx(0.6),
                         "w4a16": pytest.approx(0)},
        "by_npu": {X: pytest.approx(0.7 / 3), X2: pytest.approx(0.2)},
    }  # fmt: skip
    assert rows[1] == {
        "case": "1", "npu": X2, "phase": "encode", "predicted_ms": 1.6, "measured_ms": 2.0,
        "error": pytest.approx(-0.2), "roofline_ms": 0.5, "low_ms": None, "high_ms": None,
    }  # fmt: skip


def test_groups_have_a_mean_and_a_median_that_differ() -> None:
    groups = Validation(rows=ROWS).groupings()
    assert groups["npu"][X] == {
        "n": 3, "mape": pytest.approx(0.7 / 3), "median_ape": pytest.approx(0.1),
    }  # fmt: skip
    assert groups["phase"]["encode"] == {
        "n": 3, "mape": pytest.approx(0.1), "median_ape": pytest.approx(0.1),
    }  # fmt: skip
    assert list(groups["precision"]) == ["w8a16", "fp16", "w4a16"]


def test_rows_are_written_with_their_units(tmp_path) -> None:
    write_rows(Validation(rows=ROWS[:1]), tmp_path / "a.csv")
    header, row = (tmp_path / "a.csv").read_bytes().decode().split("\n")[:2]
    assert header == ("case,npu,phase,predicted_ms,low_ms,high_ms,measured_ms,error,roofline_ms")
    assert row.startswith(f"0,{X},encode,2.2,,,2.0,0.1000000000000000")
    assert row.endswith(",1.0")


def test_a_bare_chip_has_no_losses_and_keeps_its_peaks() -> None:
    chip = npu("hexagon-x-elite")
    bare = bare_npu(chip)
    changed = {p: v for p, v in bare.values().items() if v != chip.values()[p]}
    free = {p: v for p, v in changed.items() if not p.endswith("efficiency")}
    assert {v for p, v in bare.values().items() if p.endswith("efficiency")} == {1.0}
    assert free == {
        "matrix.output_elements_per_s": 0, "dma.cache_bytes_per_s": 0, "dma.setup_cycles": 0,
        "per_op_overhead_cycles": 0, "per_inference_overhead_us": 0.0, "geniex_overhead_us": 0.0,
        "geniex_position_us": 0.0, "dma.bytes_per_s": chip.dram.bytes_per_s,
        "sram.streams_encode": False,
    } | {p: True for p in ("sram.fuses_operations",) if not chip.values()[p]}  # fmt: skip
    assert not bare.dma.runs_ahead  # operations are bounded one by one
    assert bare.sources["dma.setup_cycles"] == "assumed: no losses"


def test_a_roofline_prediction_is_the_sum_of_its_operations_on_the_bare_chip() -> None:
    models = {"m": describe(tiny())}
    found = validate([case(), case("d", 500.0)], models).rows
    bare = bare_npu(npu(X))
    cycles = sum(op_cost(op, bare).cycles for op in case().program(models).ops)
    assert found[0].roofline_ms == found[1].roofline_ms == cycles / bare.clock_hz * 1000
    assert found[0].predicted_ms > found[0].roofline_ms
    assert [row.npu for row in validate([case()], models, X2).rows] == [X2]
    assert [row.case.name for row in found] == ["c", "d"]


# -- constants become values of two chips ----------------------------------------------------------

VALUES = {
    "dma": 50.0, "cache": 8.0, "float16": 0.3, "float16_newer": 1.1, "integer": 0.6,
    "attention": 0.2, "vector": 0.5, "outputs": 12.0, "op": 2.0, "call": 120.0,
    "geniex_call": 900.0, "geniex_position": 11.0, "dma_ratio": 1.5,
    "compute_ratio": 1.25, "empty": 0.4,
}  # fmt: skip


def test_constants_of_x_elite_are_its_values_in_their_units() -> None:
    chip = npu(X)
    efficiencies = {f"matrix.{n}_efficiency": pytest.approx(0.6)
                    for n in ("w4a8", "w4a16", "w8a8", "w8a16")}  # fmt: skip
    assert VALUES.keys() == {c.name for c in CONSTANTS}
    assert changed_values(VALUES, chip) == efficiencies | {
        "dma.bytes_per_s": 50 * 10**9, "dma.cache_bytes_per_s": 8 * 10**9,
        "matrix.output_elements_per_s": 12 * 10**9,
        "per_op_overhead_cycles": round(2 * chip.clock_hz / 10**6),
        "per_inference_overhead_us": 120.0, "geniex_overhead_us": 900.0,
        "geniex_position_us": 11.0, "matrix.w16a16_efficiency": pytest.approx(0.3),
        "matrix.attention_efficiency": pytest.approx(0.2), "vector.efficiency": pytest.approx(0.5),
        "vector.float_efficiency": pytest.approx(0.125), "dma.empty_slot_share": 0.4,
    }  # fmt: skip


def test_x2_elite_reads_and_computes_by_its_two_ratios() -> None:
    """A chip of half the clock and a quarter of the lanes must use more of what it has."""
    x, x2 = npu(X), npu(X2).with_value("clock_hz", npu(X).clock_hz // 2)
    found = changed_values(VALUES, x2)
    peaks = x.matrix.w8a16_macs_per_cycle / (x2.matrix.w8a16_macs_per_cycle / 2)
    lanes = x.vector.width_bytes / (x2.vector.width_bytes / 2)
    assert found["dma.bytes_per_s"] == 75 * 10**9
    assert found["dma.cache_bytes_per_s"] == 10 * 10**9
    assert found["matrix.output_elements_per_s"] == 15 * 10**9
    assert found["per_op_overhead_cycles"] == round(2 / 1.25 * x2.clock_hz / 10**6)
    # a newer generation multiplies floats faster by a ratio of its own
    shares = {"w16a16": 0.3 * 1.1, "attention": 0.2, "w8a16": 0.6, "w4a8": 0.6}
    for name, share in shares.items():
        expected = min(1.0, share * 1.25 * peaks)
        assert found[f"matrix.{name}_efficiency"] == pytest.approx(expected)
    assert found["vector.efficiency"] == pytest.approx(min(1.0, 0.5 * 1.25 * lanes))
    assert found["vector.float_efficiency"] == pytest.approx(min(1.0, 0.125 * 1.25 * lanes))
    fast = changed_values(VALUES | {"compute_ratio": 99.0}, x2)
    assert {v for p, v in fast.items() if p.endswith("efficiency")} == {1.0}


def test_priors_and_bounds_of_the_constants() -> None:
    """As `docs/validation.md` lists them: prior, spread in logarithms, lower and upper bound."""
    assert {c.name: (c.prior, c.spread, c.low, c.high) for c in CONSTANTS} == {
        "dma": (50, 0.25, 37, 63), "cache": (20, 0.7, 1, 100), "empty": (0.4, 0.5, 0.02, 1),
        "float16": (0.4, 0.4, 0.1, 1), "float16_newer": (1.0, 0.3, 0.5, 2),
        "integer": (0.7, 0.4, 0.1, 1), "attention": (0.25, 0.7, 0.03, 1),
        "vector": (0.6, 0.5, 0.1, 1), "outputs": (10, 1.0, 1, 100), "op": (1.5, 0.5, 0.3, 5),
        "call": (150, 0.5, 30, 500), "geniex_call": (2000, 0.8, 100, 5000),
        "geniex_position": (15, 0.8, 1, 100), "dma_ratio": (1.8, 0.15, 1, 2.3),
        "compute_ratio": (2.0, 0.15, 1, 3.6),
    }  # fmt: skip


@pytest.fixture
def simulated(monkeypatch) -> list:
    """Replace the simulation: a case takes its tokens over the port's rate, and its overhead."""
    captured: list = []

    def simulate(table, chip):
        us = table.n_tokens * 1e9 / chip.dma.bytes_per_s + chip.per_inference_overhead_us
        return SimpleNamespace(cycles=us * chip.clock_hz / 1e6)

    def fit(constants, predict, measured, groups, start=None):
        captured.append((constants, predict, measured, list(groups)))
        n = len(measured)
        return Fit(values=np.exp([0.5] * len(constants)), uncertainty=np.zeros(len(constants)),
                   residuals=np.zeros(n), left_out=np.zeros(n),
                   informed=np.zeros(len(constants)))  # fmt: skip

    monkeypatch.setattr(calibration, "simulate_tiles", simulate)
    monkeypatch.setattr(calibration, "program_table", lambda program: program)
    monkeypatch.setattr(calibration, "fit_constants", fit)
    monkeypatch.setattr(Case, "program", lambda self, models: self)
    return captured


def test_a_calibration_predicts_each_case_on_its_chip(simulated) -> None:
    cases = [case("a", 300.0, n_tokens=40), case("b", 400.0, n_tokens=90, npu=X2, model="n"),
             case("c", 500.0, n_tokens=10)]  # fmt: skip
    passes: list[int] = []
    found = calibrate(cases, {}, progress=passes.append)
    ((fitted, predict, measured, groups),) = simulated
    assert (fitted, measured.tolist(), groups) == (CONSTANTS, [300, 400, 500], ["a", "b", "c"])
    assert found.cases == tuple(cases)
    logarithms = np.log([VALUES[c.name] for c in CONSTANTS])
    us = np.exp(predict(logarithms))
    np.testing.assert_allclose(us, [40 / 50 + 120, 90 / 75 + 120, 10 / 50 + 120], rtol=1e-9)
    predict(logarithms)
    assert passes == [1, 2]
    assert found.values == dict.fromkeys(VALUES, pytest.approx(np.exp(0.5)))
    calibrate(cases, {}, by="model")
    assert simulated[1][3] == ["m", "n", "m"]


def test_newer_generations_and_phones_are_those_that_the_lists_name() -> None:
    values = VALUES | {"dma_ratio": 1.0, "compute_ratio": 1.0, "phone_host": 3.0}
    found = {name: changed_values(values, npu(name)) for name in CHIPS}
    hosts = {name: values["geniex_overhead_us"] for name, values in found.items()}
    on_phones = dict.fromkeys(PHONES, 2700.0)
    assert hosts == dict.fromkeys(CHIPS, 900.0) | on_phones
    x = npu(X).matrix.w8a16_macs_per_cycle * npu(X).clock_hz
    for name, values in found.items():
        chip = npu(name)
        floats = 0.33 if name in ("hexagon-8-elite", "hexagon-8-elite-gen5") else 0.3
        # the share is of the peak at 16-bit activations
        share = floats * x / (chip.matrix.w8a16_macs_per_cycle * chip.clock_hz)
        assert values["matrix.w16a16_efficiency"] == pytest.approx(min(1.0, share))


def chip_fit(name: str, dma_ratio: float, compute_ratio: float = 1.0) -> chips.ChipFit:
    """Two calls of 4 and 8 tokens, measured as 1 and 2 us."""
    cases = (case("a", 1.0, n_tokens=4, npu=name), case("b", 2.0, n_tokens=8, npu=name))
    nothing = np.zeros(2)
    values = {"dma_ratio": dma_ratio, "compute_ratio": compute_ratio, "phone_host": 1.0}
    fit = Fit(values=nothing, uncertainty=nothing, residuals=nothing, left_out=nothing,
              informed=nothing)  # fmt: skip
    return chips.ChipFit(npu=name, values=values, cases=cases, fit=fit)


def test_a_port_takes_a_share_of_the_memory_which_no_chip_passes() -> None:
    """Of 84.8 GB/s 10 are taken, of 76.8 GB/s 19.2, of 51.2 GB/s all, for 50 times 2 is more."""
    fits = [chip_fit("hexagon-8-elite", 0.2), chip_fit("hexagon-qcs9075", 0.384),
            chip_fit("hexagon-qcs8275", 2.0)]  # fmt: skip
    share = chips.memory_share(fits, VALUES)
    assert share == pytest.approx((10 / 84.8 * 19.2 / 76.8 * 1) ** (1 / 3))
    ratio = chips.memory_ratio("hexagon-8-gen3", 0.5, VALUES)
    assert ratio == pytest.approx(0.5 * 76.8 / 50)


def test_a_chip_is_predicted_by_the_calls_of_the_others(simulated, monkeypatch) -> None:
    monkeypatch.setattr(chips, "program_table", lambda program: program)
    ratios = {"hexagon-8-elite": 0.5, "hexagon-qcs9075": 0.125, "hexagon-qcs8275": 0.75}
    fits = [chip_fit(name, ratio) for name, ratio in ratios.items()]
    fits.append(chip_fit("hexagon-qcs8550", 9.0))  # its ratio of memory was not fitted
    constants = VALUES | {"dma": 4.0, "call": 0.0}
    memory = {name: npu(name).dram.bytes_per_s / 1e9 for name in CHIPS}
    shares = {name: 4 * ratio / memory[name] for name, ratio in ratios.items()}
    errors = chips.left_out_errors(fits, {}, constants)
    for name in [fit.npu for fit in fits]:
        others = [share for other, share in shares.items() if other != name]
        rate = np.prod(others) ** (1 / len(others)) * memory[name]
        # 4 tokens (8) over the mean share of its memory, measured as 1 us (2)
        assert errors[name] == pytest.approx(abs(4 / rate - 1), rel=1e-6)


def test_chips_are_fitted_with_one_constant_of_the_phones(simulated, monkeypatch) -> None:
    """The fit stands still at e^0.5 for each constant: what is predicted there, by hand."""
    monkeypatch.setattr(chips, "program_table", lambda program: program)
    monkeypatch.setattr(chips, "fit_constants", calibration.fit_constants)
    cases = [case("a", 3.0, n_tokens=4, npu=name, model=name) for name in CHIPS]
    fits = chips.fit_chips(cases, {}, VALUES)
    together, *alone = [[c.name for c in fitted] for fitted, *_ in simulated]
    assert together == [*TWO_RATIOS * 4, "phone_host"]
    assert alone == [["compute_ratio"]] * 2
    found = {fit.npu: fit.values for fit in fits}
    root = np.exp(0.5)
    assert found["hexagon-8-elite"] == dict.fromkeys(found["hexagon-8-elite"], pytest.approx(root))
    # 50 GB/s times e^0.5 are 82.4: less than the memory of two of the four chips, all of others'
    share = (82.436 / 84.8) ** (2 / 4)
    assert found["hexagon-qcs8550"] == {
        "dma_ratio": pytest.approx(share * 67.2 / 50, rel=1e-4),
        "compute_ratio": pytest.approx(root), "phone_host": pytest.approx(root),
    }  # fmt: skip
    assert [[c.npu for c in fit.cases] for fit in fits] == [[fit.npu] for fit in fits]
    assert {len(fit.fit.left_out) for fit in fits} == {1}
    # each chip is predicted by its own ratio: 4 tokens over 50 GB/s times 1, 2, 3, 4
    predict = simulated[0][1]
    us = np.exp(predict(np.log([0.1, 1, 0.2, 1, 0.3, 1, 0.4, 1, 1])))
    rates = np.array([0.1, 0.2, 0.3, 0.4]) * 50
    np.testing.assert_allclose(us, 4 / rates + 120, rtol=1e-9)


def test_a_calibration_says_its_errors_by_phase_and_its_constants() -> None:
    fit = Fit(
        values=np.array([3.0, 4.0]), uncertainty=np.array([0.1, 0.2]),
        residuals=np.array([0.1, -0.3, 0.2]), left_out=np.array([0.2, -0.4, 0.9]),
        informed=np.array([0.7, 0.8]),
    )  # fmt: skip
    cases = (case("a", 2000.0), case("b"), case("c", phase="decode"))
    data = Calibration(constants=constants(), cases=cases, fit=fit).to_json()
    assert (data["n"], data["fit_mape"]) == (3, pytest.approx(0.2))
    assert data["left_out_mape"] == pytest.approx(0.5)
    assert data["left_out_by_phase"] == {"encode": pytest.approx(0.3), "decode": pytest.approx(0.9)}
    assert data["constants"][1] == {
        "name": "b", "value": 4.0, "unit": "s", "meaning": "", "prior": 5.0, "bounds": [1e-3, 1e3],
        "relative_sd": 0.2, "informed_by_data": 0.8,
    }  # fmt: skip
    assert data["rows"][0] == {
        "case": "a", "measured_ms": 2.0, "error": 0.1, "left_out_error": 0.2,
    }  # fmt: skip


def test_fitted_values_keep_four_digits_and_name_their_data() -> None:
    found = SimpleNamespace(values=VALUES | {"dma": 45.67891, "call": 123.4567}, cases=range(7))
    chip = calibration.fitted_npus(found, "data.csv", date(2025, 3, 4))[X]
    assert (chip.dma.bytes_per_s, chip.per_inference_overhead_us) == (45_680_000_000, 123.5)
    assert chip.sources["dma.bytes_per_s"] == "fitted: data.csv, 7 calls, 2025-03-04"
    assert chip.sources["dram.bytes_per_s"] == npu(X).sources["dram.bytes_per_s"]


# -- tables of measured calls ----------------------------------------------------------------------

HEADER = ("case,npu,model,phase,n_tokens,n_context,n_memory,weight_bits,activation_bits,kv_bits,"
          "head_weight_bits,runtime,measured_us,remeasured_min_us,remeasured_max_us")  # fmt: skip
ROW = "c,chip,m,decode,1,128.0,16,4,16,8,16, geniex ,1303.5,1200,1400"


def table(tmp_path, *rows: str):
    file = tmp_path / "cases.csv"
    file.write_text("\ufeff" + "\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return file


def test_a_row_becomes_a_case_field_by_field(tmp_path) -> None:
    (found,) = read_cases(table(tmp_path, ROW))
    assert found == Case(
        name="c", npu="chip", model="m", phase="decode", n_tokens=1, n_context=128, n_memory=16,
        precision=Precision(weight_bits=4, activation_bits=16, kv_bits=8, head_weight_bits=16),
        runtime="geniex", measured_us=1303.5, remeasured_us=(1200.0, 1400.0),
    )  # fmt: skip
    assert found.label == "w4a16"
    assert replace(found, precision=Precision(weight_bits=16)).label == "fp16"
    assert replace(found, precision=Precision(weight_bits=8, activation_bits=8)).label == "w8a8"
    plain_row = ROW.replace("geniex", "qnn").replace("1200,1400", ",")
    (plain,) = read_cases(table(tmp_path, plain_row))
    assert (plain.runtime, plain.remeasured_us) == ("native", None)
    (once,) = read_cases(table(tmp_path, ROW.replace("1200,1400", "1200,1200")))
    assert once.remeasured_us == (1200.0, 1200.0)
    with pytest.raises(SweepError, match="remeasured_min_us must be at most remeasured_max_us"):
        read_cases(table(tmp_path, ROW.replace("1200,1400", "1400,1200")))
    with pytest.raises(SweepError, match="csv:2: remeasured_max_us must be a number above 0"):
        read_cases(table(tmp_path, ROW.replace("1400", "")))  # half a range says nothing


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            ",1,128.0",
            ",1.5,128.0",
            "csv:3: n_tokens must be a whole number from 0 .*, got 1.5",
        ),
        (",128.0", ",inf", "csv:3: n_context must be a whole number from 0 to 131,072, got 'inf'"),
        (",128.0", ",", "csv:3: n_context must be a whole number from 0 to 131,072, got ''"),
        ("1303.5", "0", "csv:3: measured_us must be a number above 0"),
        ("decode", "think", "csv:3: phase must be one of encode, prefill, decode; got 'think'"),
        ("geniex", "onnx", "csv:3: runtime must be one of qnn, geniex; got 'onnx'"),
        (",4,16", ",5,16", "csv:3: weight_bits must be one of 4, 8, 16; got 5"),
        ("1303.5", "inf", "csv:3: measured_us must be a number above 0"),
        ("1303.5", "nan", "csv:3: measured_us must be a number above 0"),
        ("1303.5", "soon", "csv:3: measured_us must be a number above 0"),
    ],
)
def test_a_wrong_value_is_named_with_its_row(tmp_path, old, new, message) -> None:
    with pytest.raises(SweepError, match=message):
        read_cases(table(tmp_path, ROW, ROW.replace(old, new, 1)))


def test_a_table_without_rows_or_a_column_is_refused(tmp_path) -> None:
    with pytest.raises(SweepError, match="must have at least one case, got none"):
        read_cases(table(tmp_path))
    (tmp_path / "a.csv").write_text(HEADER.replace("kv_bits", "bits") + "\n" + ROW)
    with pytest.raises(SweepError, match=r"missing \['kv_bits'\]"):
        read_cases(tmp_path / "a.csv")
    with pytest.raises(SweepError, match="there is no such file"):
        read_cases(tmp_path / "absent.csv")


def test_a_case_names_a_model_and_lengths_that_suit_it() -> None:
    with pytest.raises(SweepError, match="model of case c must be one of n; got 'm'"):
        case().program({"n": describe(tiny())})
    with pytest.raises(SweepError, match="case c: n_memory must be at least 1"):
        case(phase="decode", n_tokens=1).program({"m": describe(tiny())})


def test_a_small_time_is_positive_too(tmp_path) -> None:
    assert read_cases(table(tmp_path, ROW.replace("1303.5", "0.5")))[0].measured_us == 0.5


def test_other_bytes_than_text_are_refused(tmp_path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SweepError, match="must be text in UTF-8"):
        read_cases(tmp_path / "a.csv")


def test_a_case_records_one_call_of_its_runtime(tmp_path) -> None:
    models = {"m": describe(tiny())}
    found = case(phase="decode", n_tokens=1, n_context=9, n_memory=7, runtime="geniex",
                 precision=Precision(kv_bits=8))  # fmt: skip
    program = found.program(models)
    assert (len(program.calls), program.calls[0].phase, program.runtime) == (1, "decode", "geniex")
    assert program.precision == Precision(kv_bits=8)
    scores = [op.gemm.n for op in program.ops if op.site.endswith("attention.scores")]
    assert scores == [9, 7] * 2
    assert [len(calibration_cases(release)[0]) for release in RELEASES] == [56, 20]


# -- matrix products -------------------------------------------------------------------------------

PRODUCT = GemmRow(m=2, n=3, k=5, measured_us=7.0)


def test_a_product_belongs_to_the_half_that_its_shape_s_hash_says() -> None:
    halves = {
        (m, n): GemmRow(m=m, n=n, k=8, measured_us=1.0).fitted_on
        for m in (1, 16) for n in (2, 64)
    }  # fmt: skip
    for (m, n), fitted_on in halves.items():
        first = hashlib.sha256(f"{m}x8x{n}".encode()).digest()[0]
        assert fitted_on == (first in range(0, 256, 2))
    assert set(halves.values()) == {True, False}


def test_a_product_as_an_operation() -> None:
    op = gemm_op(PRODUCT)
    assert (op.macs, op.operand_bits) == (30, (16, 16))
    assert (op.weight_bytes, op.activation_bytes) == (3 * 5 * 2, (2 * 5 + 2 * 3) * 2)


@pytest.mark.parametrize(("efficiency", "bytes_per_s"), [(0.5, 10**12), (1.0, 10**8)])
def test_a_product_takes_its_arithmetic_or_all_its_bytes_and_the_launch(
    efficiency: float, bytes_per_s: int
) -> None:
    """1,000 x 2,000 x 3,000: 6e9 MACs; 3e6, 6e6 and 2e6 values of two bytes, to or from DRAM."""
    chip = npu("a100").with_changes({
        "matrix.w16a16_efficiency": efficiency, "dma.bytes_per_s": bytes_per_s,
        "dram.bytes_per_s": 10**13, "per_op_overhead_cycles": 0, "dma.setup_cycles": 0,
        "per_inference_overhead_us": 9.0, "sram.capacity_bytes": 10**12,
    })  # fmt: skip
    row = GemmRow(m=1000, n=2000, k=3000, measured_us=1.0)
    arithmetic = 6e9 / (chip.matrix.w16a16_macs_per_cycle * efficiency) / chip.clock_hz
    moving = (3e6 + 6e6 + 2e6) * 2 / bytes_per_s
    expected = max(arithmetic, moving) * 1e6 + 9
    assert predict_us(row, chip) == pytest.approx(expected, rel=1e-4)
    assert (arithmetic > moving) == (efficiency == 0.5)


def test_the_errors_of_each_half_are_averaged_apart() -> None:
    rows = tuple(GemmRow(m=m, n=2, k=8, measured_us=1.0) for m in range(1, 9))
    fitted = np.array([row.fitted_on for row in rows])
    found = GemmFit(npu="x", changes={"p": 1}, rows=rows, errors=np.where(fitted, -0.25, 0.5))
    assert (found.mape(fitted_on=True), found.mape(fitted_on=False)) == (0.25, 0.5)
    assert found.to_json() == {
        "npu": "x", "values": {"p": 1}, "n_fitted": int(fitted.sum()),
        "n_held_out": int((~fitted).sum()), "fit_mape": 0.25, "held_out_mape": 0.5,
    }  # fmt: skip


def test_a_chip_s_products_are_fitted_on_half_of_them_and_rounded(monkeypatch) -> None:
    asked = {}

    def fit(constants, predict, measured, groups, start=None):
        asked.update(constants=constants, measured=measured.tolist(), groups=list(groups))
        return SimpleNamespace(values=np.array([12.34567, 0.654321, 0.5004]))

    monkeypatch.setattr(gemm, "fit_constants", fit)
    found = calibrate_gemms("a100")
    half = [row.measured_us for row in gemm.gemm_rows("a100") if row.fitted_on]
    assert (asked["measured"], asked["groups"]) == (half, list(range(len(half))))
    assert [(c.name, c.prior, c.spread, c.low, c.high) for c in asked["constants"]] == [
        ("launch", 10, 1.5, 0.5, 100), ("efficiency", 0.8, 0.5, 0.3, 1),
        ("bandwidth", 0.85, 0.3, 0.4, 1),
    ]  # fmt: skip
    assert found.changes == {
        "per_inference_overhead_us": 12.346, "matrix.w16a16_efficiency": 0.6543,
        "dma.bytes_per_s": round(0.5004 * npu("a100").dram.bytes_per_s / 1e9) * 10**9,
    }  # fmt: skip
    assert all(isinstance(row.m, int) and row.measured_us > 0 for row in found.rows)


def test_a_calibration_finds_the_constants_that_made_its_rows(monkeypatch) -> None:
    chip = npu("a100").with_changes({
        "per_inference_overhead_us": 20.0, "matrix.w16a16_efficiency": 0.6,
        "dma.bytes_per_s": round(0.7 * npu("a100").dram.bytes_per_s),
    })  # fmt: skip
    shapes = [(m, n, k) for m in (1, 8, 4096) for n in (256, 8192, 9000) for k in (256, 9000)]
    rows = [GemmRow(m=m, n=n, k=k, measured_us=predict_us(
        GemmRow(m=m, n=n, k=k, measured_us=1.0), chip)) for m, n, k in shapes]  # fmt: skip
    assert {row.fitted_on for row in rows} == {True, False}
    monkeypatch.setattr(gemm, "gemm_rows", lambda name: rows)
    found = calibrate_gemms("a100")
    assert found.changes["per_inference_overhead_us"] == pytest.approx(20, rel=0.05)
    assert found.changes["matrix.w16a16_efficiency"] == pytest.approx(0.6, rel=0.02)
    bandwidth = found.changes["dma.bytes_per_s"]
    assert bandwidth == pytest.approx(chip.dma.bytes_per_s, rel=0.02)
    assert bandwidth % 10**9 == 0
    assert isinstance(bandwidth, int)
    assert np.abs(found.errors).max() < 0.03
    assert (found.rows, len(found.errors)) == (tuple(rows), len(rows))
