"""Options of `npu-sim` reach the work: each command against the functions that it stands for."""

import json

import numpy as np
import pytest

from mu_ref.presets import tiny
from mu_ref.redrafter.config import DrafterConfig
from npu_sim.hardware.presets import npu
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.request import described_program
from npu_sim.report.facts import model_facts
from npu_sim.report.fidelity import simulate_program
from npu_sim.speculate.acceptance import Acceptance
from npu_sim.speculate.step import speculate
from npu_sim.systolic.closed_form import SystolicArray, systolic_counts
from npu_sim.whatif.scenario_toml import base_scenario
from npu_sim.whatif.sensitivity import sensitivity
from npu_sim.whatif.solve import solve

CHIP = npu("teaching-npu")
SMALL = ["--npu", "teaching-npu", "--input", "4", "--output", "3"]
BASE = {"model": "tiny", "npu": "teaching-npu", "workload": {"n_input": 4, "n_output": 3}}


@pytest.fixture
def npu_sim(npu_sim):
    """Run the command line; returns (exit code, stdout)."""
    return lambda *arguments: npu_sim(*arguments)[:2]


def plain(value):
    return json.loads(json.dumps(value))


def test_every_option_of_a_run_is_the_programs_or_the_reports(npu_sim):
    _, out = npu_sim(
        "run", "tiny", *SMALL, "--batch", "2", "--context", "8", "--runtime", "geniex",
        "--weight-bits", "4", "--activation-bits", "8", "--kv-bits", "8", "--head-weight-bits",
        "16", "--fidelity", "roofline", "--budget-ms", "7.5", "--budget-mb", "0.25",
        "--phase-budget", "decode=90000", "--json",
    )  # fmt: skip
    precision = Precision(weight_bits=4, activation_bits=8, kv_bits=8, head_weight_bits=16)
    program = described_program(
        describe(tiny()), 4, 3, precision, 2, static_context=8, runtime="geniex"
    )
    found = simulate_program(
        program, CHIP, 7.5, fidelity="roofline", budget_mb=0.25, cycle_budgets={"decode": 90000}
    )
    facts = model_facts(describe(tiny()), precision)
    not_validated = {"low_ms": None, "high_ms": None}
    assert json.loads(out) == plain(found.to_json() | facts | not_validated)
    native = described_program(describe(tiny()), 4, 3, precision, 2, static_context=8)
    assert found.latency_cycles > simulate_program(native, CHIP, fidelity="roofline").latency_cycles


@pytest.mark.parametrize(
    ("given", "head"),
    [((4, None), 8), ((8, None), 8), ((16, None), 16), ((8, 16), 16), ((16, 4), 4)],
)
def test_the_head_has_the_width_of_the_weights_but_at_least_eight_bits(given, head):
    assert Precision(weight_bits=given[0], head_weight_bits=given[1]).head_bits == head


@pytest.mark.parametrize(
    "budget", [["--budget-ms", "0.01"], ["--budget-mb", "0.001"], ["--phase-budget", "encode=9"]]
)
def test_any_missed_budget_is_exit_code_3_with_strict(npu_sim, budget):
    run = ["run", "tiny", *SMALL, "--fidelity", "roofline"]
    assert npu_sim(*run, *budget)[0] in (0, None)
    assert npu_sim(*run, *budget, "--strict")[0] == 3
    assert npu_sim(*run, "--strict")[0] in (0, None)


def test_each_picture_is_drawn_where_it_was_asked_for(npu_sim, monkeypatch, tmp_path):
    drawn = {}
    for room, name in (("gantt", "gantt"), ("pictures", "roofline"), ("pictures", "breakdown")):
        monkeypatch.setattr(
            f"npu_sim.show.{room}.draw_{name}", lambda run, path, n=name: drawn.update({n: path})
        )
    paths = {name: tmp_path / f"{name}.png" for name in ("gantt", "roofline", "breakdown")}
    npu_sim("run", "tiny", *SMALL, "--gantt", paths["gantt"], "--plot-roofline", paths["roofline"],
            "--plot-breakdown", paths["breakdown"])  # fmt: skip
    assert drawn == paths


def test_options_of_a_drafter_are_the_steps(npu_sim):
    _, out = npu_sim(
        "speculate", "tiny", "--npu", "teaching-npu", "--beam-width", "2,1", "--draft-len", "3",
        "--accept-rate", "0.6", "--nodes-saved", "0.5", "--exit-dim", "24", "--blocks", "1",
        "--no-rnn", "--input", "5", "--context", "9", "--host-us", "700", "--kv-bits", "8",
        "--json",
    )  # fmt: skip
    steps = json.loads(out)["steps"]
    drafter = DrafterConfig(d_model=16, vocab_size=61, d_exit=24, n_blocks=1, rnn=False)
    # half of 2 x 3 drafted nodes and the root; one beam shares nothing with itself
    for step, (width, nodes) in zip(steps, ((2, 4), (1, 4)), strict=True):
        cost = speculate(
            tiny(), drafter, width, 3, Acceptance.chain(0.6, 3, nodes), CHIP, Precision(kv_bits=8),
            n_input=5, n_context=9, host_us=700.0,
        )  # fmt: skip
        assert step == {"beam_width": width, "draft_len": 3, "nodes": nodes} | plain(cost.to_json())


def test_by_default_blocks_are_twice_as_wide_as_the_model(npu_sim):
    _, out = npu_sim("speculate", "tiny", "--npu", "teaching-npu", "--draft-len", "2")
    # two blocks of 32, a head of 61 x 32, a cell of 16: 4,592 numbers
    n = 2 * (32 * 32 + 32) + 61 * 32 + 2 * 16 * 16 + 16
    assert f"drafter of {n / 1e6:.1f} M parameters" in out
    assert npu_sim("speculate", "tiny", "--nodes-saved", "1.0")[0] == 2


def test_a_product_on_an_array_as_text(npu_sim):
    size = ["--m", "5", "--n", "3", "--k", "7", "--rows", "4", "--cols", "2", "--dataflow", "ws"]
    counts = systolic_counts(5, 3, 7, SystolicArray(rows=4, cols=2, dataflow="ws"))
    for fidelity in ("closed-form", "cycle"):
        _, out = npu_sim("systolic", *size, "--fidelity", fidelity)
        rows = dict(line.split(maxsplit=1) for line in out.splitlines()[2:9])
        # 105 MACs of 8 cells in 2 x 2 folds of 5 + 4 + 4 + 2 - 2 cycles
        assert rows["utilization"] == f"{100 * 105 / (8 * 4 * 13):.2f} %"
        assert (rows["cycles"], rows["scalesim_cycles"]) == ("52", "51")
        assert rows["sram_ifmap_reads"] == str(counts.sram_ifmap_reads)


def test_the_values_of_a_run_have_both_signs(npu_sim, monkeypatch):
    seen = []

    def noted(a, b, array):
        seen.append((a, b))
        return run_systolic(a, b, array)

    from npu_sim.systolic.array import run_systolic

    monkeypatch.setattr("npu_sim.systolic.array.run_systolic", noted)
    npu_sim("systolic", "--m", "9", "--n", "8", "--k", "9", "--rows", "4", "--cols", "4",
            "--dataflow", "os", "--fidelity", "cycle", "--seed", "3")  # fmt: skip
    (a, b), *_ = seen
    for x in (a, b):
        assert x.dtype == np.int8
        assert x.min() < -50
        assert x.max() > 50


def test_fields_are_moved_as_far_as_asked(npu_sim):
    _, out = npu_sim("sensitivity", "tiny", *SMALL, "--metric", "ttft_ms", "--share", "0.4",
                     "--fidelity", "roofline", "--json")  # fmt: skip
    data = json.loads(out)
    base, swings = sensitivity(base_scenario(BASE), "ttft_ms", 0.4, fidelity="roofline")
    assert data["base"] == base
    assert data["rows"] == [
        {"field": s.path, "low_value": s.low_value, "low": s.low, "high_value": s.high_value,
         "high": s.high} for s in swings
    ]  # fmt: skip
    other = base_scenario({"model": "tiny", "npu": "teaching-npu"})
    assert base != sensitivity(other, "ttft_ms", fidelity="roofline")[0]


@pytest.mark.parametrize("fidelity", ["roofline", "tile"])
def test_a_search_is_of_the_fidelity_asked_for(npu_sim, fidelity):
    arguments = ["solve", "tiny", *SMALL, "--vary", "op_overhead", "--target-latency-ms", "0.7",
                 "--fidelity", fidelity]  # fmt: skip
    answer = solve(base_scenario(BASE), "op_overhead", "latency_ms", 0.7, fidelity)
    assert answer.needed > answer.now  # there is time left
    assert json.loads(npu_sim(*arguments, "--json")[1])["needed"] == answer.needed
    _, out = npu_sim(*arguments)
    assert f"{answer.needed / answer.now:.3g} times as much (simulated, {fidelity})" in out


def test_the_second_of_two_scenarios_is_dearer_by_its_difference(npu_sim):
    two = ["compare", "teaching-npu", "hexagon-x-elite", "--model", "tiny", "--input", "4",
           "--output", "3"]  # fmt: skip
    data = json.loads(npu_sim(*two, "--json")[1])
    for row in data["costs"]:
        assert row["difference_ms"] == row["b_ms"] - row["a_ms"]
    row = next(r for r in data["costs"] if r["phase"] == "encode" and r["cause"] == "overhead")
    _, out = npu_sim(*two)
    line = next(text for text in out.splitlines() if text.split()[:2] == ["encode", "overhead"])
    numbers = [float(text.replace(",", "")) for text in line.split()[2:]]
    assert numbers == [pytest.approx(row[k], rel=1e-3) for k in ("a_ms", "b_ms", "difference_ms")]


def test_speculate_takes_the_context_of_a_scenario(npu_sim, tmp_path):
    (tmp_path / "s.toml").write_text("model = 'tiny'\nworkload.context = 80\n")
    of_file, by_option, other = (
        npu_sim("speculate", *words, "--json")[1]
        for words in ([tmp_path / "s.toml"], ["tiny", "--context", 80], ["tiny"])
    )
    assert of_file == by_option != other
