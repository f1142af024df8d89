"""Sensitivity, search, comparison and requests against sums by hand."""

from dataclasses import replace
from math import ceil, nan

import numpy as np
import pytest
from at_roofline import compare, evaluate, sensitivity, solve

from mu_ref.presets import tiny
from npu_sim.errors import SweepError
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate_program
from npu_sim.roofline.columns import price
from npu_sim.speculate.drafter import Drafter
from npu_sim.whatif import sensitivity as moving
from npu_sim.whatif import solve as searching
from npu_sim.whatif.input_lengths import columns_by_length
from npu_sim.whatif.metrics import METRICS
from npu_sim.whatif.request import request_columns, scenario_program
from npu_sim.whatif.scenario import Scenario, Workload
from npu_sim.whatif.scenario_toml import base_scenario
from npu_sim.whatif.sensitivity import _neighbours
from npu_sim.whatif.solve import _bisect, _edge, _extreme


def base(model: str = "tiny", **workload) -> Scenario:
    return base_scenario({"model": model, "npu": "teaching-npu", "workload": workload})


DECODER = replace(base(n_input=5), description=describe(replace(tiny(), encoder=None)))

# its first layer forgets from the third step on
FORGETS = replace(tiny().decoder, window=7, windowed_layers=(True, False))
WINDOWED = replace(DECODER, description=describe(replace(tiny(), encoder=None, decoder=FORGETS)))


# -- which field matters ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("npu.clock_hz", 1000, (750, 1250)),
        ("npu.per_op_overhead_cycles", 3, (2, 4)),  # 2.25 and 3.75
        ("npu.per_inference_overhead_us", 3.0, (2.25, 3.75)),
        ("npu.matrix.attention_efficiency", 0.5, (0.375, 0.625)),
        ("npu.matrix.attention_efficiency", 0.9, (0.675, 1.0)),  # no share is above 1
        ("precision.weight_bits", 4, (4, 8)),
        ("precision.weight_bits", 8, (4, 16)),
        ("precision.kv_bits", 16, (8, 16)),
    ],
)
def test_a_quarter_down_and_up(path, value, expected):
    assert _neighbours(path, value, 0.25) == expected


def test_only_numbers_can_be_moved():
    for value in (True, "os"):
        with pytest.raises(SweepError, match="must be a number to be moved"):
            _neighbours("npu.x", value, 0.25)


def test_fields_are_sorted_by_what_they_do(monkeypatch):
    """The clock halves and doubles, the width does little, tokens cannot be fewer."""
    made_up = {
        ("npu.clock_hz", 800_000_000): 12.0, ("npu.clock_hz", 1_200_000_000): 9.5,
        ("npu.vector.width_bytes", 51): 10.1, ("npu.vector.width_bytes", 77): 9.0,
        ("workload.n_input", 51): None, ("workload.n_input", 77): 14.0,
    }  # fmt: skip

    def changed(scenario, changes, metric, fidelity):
        assert (metric, fidelity) == ("ttft_ms", "tile")
        return made_up[next(iter(changes.items()))]

    monkeypatch.setattr(moving, "evaluate_changed", changed)
    monkeypatch.setattr(moving, "evaluate_base", lambda scenario, metric, fidelity: 10.0)
    paths = ("vector.width_bytes", "clock", "n_input")
    value, swings = sensitivity(base(), "ttft_ms", 0.2, paths, "tile")
    assert value == 10
    assert [s.path.rpartition(".")[2] for s in swings] == ["n_input", "clock_hz", "width_bytes"]
    assert [round(s.span(value), 9) for s in swings] == [0.4, 0.2, 0.1]
    assert (swings[0].low, swings[0].high, swings[0].low_value) == (None, 14, 51)


# -- what it would take ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("enough", "edge"),
    [
        (lambda v: v >= 700, 700),  # more is needed
        (lambda v: v <= 30, 30),  # less is
        (lambda v: v >= 20, 20),  # it is met: so little would do
        (lambda v: v <= 900, 900),  # and so much
        (lambda v: 50 <= v <= 400, 50),  # of two edges that which asks for less
        (lambda v: v <= 30 or v >= 700, 700),  # and of two ways out that which goes up
    ],
)
def test_the_value_that_is_just_enough(enough, edge):
    found = _edge(100.0, enough)
    assert enough(found)
    assert found == pytest.approx(edge, rel=2e-4)


def test_where_every_value_will_do_the_present_one_is_the_answer():
    assert _edge(100.0, lambda v: True) == 100
    assert _edge(100.0, lambda v: False) is None
    assert _bisect(8.0, 2.0, lambda v: v > 4.0) == pytest.approx(4, rel=2e-4)


def test_the_better_end_of_a_field():
    def rate(value):
        return 5.0 if value > 1 else 3.0

    assert _extreme(2.0, rate, "decode_tok_per_s") == 2e6
    assert _extreme(2.0, rate, "latency_ms") == 2e-6
    assert _extreme(2.0, lambda v: None if v > 1 else 3.0, "latency_ms") == 2e-6
    assert _extreme(2.0, lambda v: None if v > 1 else 3.0, "decode_tok_per_s") == 2e-6


@pytest.mark.parametrize(
    ("metric", "target", "needed"),
    # a rate of 100 per GHz, a time of 10 over GHz; the clock is at 1 GHz
    [("decode_tok_per_s", 250, 2.5e9), ("decode_tok_per_s", 50, 0.5e9), ("latency_ms", 4, 2.5e9)],
)
def test_more_is_better_for_a_rate_and_less_for_a_time(monkeypatch, metric, target, needed):
    def at(clock_hz):
        return {"decode_tok_per_s": clock_hz / 1e7, "latency_ms": 1e10 / clock_hz}[metric]

    monkeypatch.setattr(searching, "evaluate_base", lambda scenario, m, fidelity: at(1e9))
    monkeypatch.setattr(
        searching, "evaluate_changed", lambda scenario, changes, m, f: at(changes["npu.clock_hz"])
    )
    answer = solve(base(), "clock", metric, target)
    assert answer.needed == pytest.approx(needed, rel=2e-4)
    assert (answer.now, answer.now_metric, answer.limit) == (1e9, at(1e9), "")
    assert answer.best_metric == pytest.approx(target, rel=2e-4)
    hopeless = solve(base(), "clock", metric, {"latency_ms": 1e-9}.get(metric, 1e12))
    assert hopeless.needed is None
    assert hopeless.best_metric == pytest.approx(at(1e15))


# -- side by side ----------------------------------------------------------------------------------


def test_only_what_differs_is_listed_with_what_it_costs():
    a, b = base(n_input=4, n_output=2), base(n_input=4, n_output=2).with_fields(
        {"npu.per_op_overhead_cycles": 3_000}
    )  # fmt: skip
    found = compare(a, b)
    assert found.fields == {"npu.per_op_overhead_cycles": (1_000, 3_000)}
    # two microseconds more for each operation that does something
    for phase, n_calls in (("encode", 1), ("decode", 2)):
        ops = [op for op in scenario_program(a).ops if op.phase == phase and not op.is_layout]
        mine, other = found.costs[phase, "overhead"]
        assert mine == pytest.approx(len(ops) * 0.001 + n_calls * 0.1)
        assert other - mine == pytest.approx(len(ops) * 0.002)
        assert found.costs[phase, "memory"][0] == found.costs[phase, "memory"][1]
    data = found.to_json()
    assert data["b_ms"] - data["a_ms"] == pytest.approx(
        sum(row["difference_ms"] for row in data["costs"])
    )
    assert all(row["difference_ms"] == row["b_ms"] - row["a_ms"] for row in data["costs"])
    alone = compare(a, replace(a, description=DECODER.description)).fields
    assert alone["model.encoder.n_layers"] == (2, None)


# -- requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scenario", [base(n_input=5), DECODER, WINDOWED], ids=["both", "decoder", "windowed"]
)
@pytest.mark.parametrize("n_output", [1, 2, 3, 4, 5, 9])
def test_columns_of_a_request_price_what_is_recorded_step_by_step(scenario, n_output):
    scenario = scenario.with_fields({"workload.n_output": n_output})
    program = record_request(scenario.description.model, 5, n_output, Precision())
    report = simulate_program(program, scenario.npu, fidelity="roofline")
    found = request_columns(scenario)
    assert found.stored_bytes == program.stored_weight_bytes + program.stored_kv_bytes
    assert found.n_later_tokens == n_output - 1
    metrics = evaluate(scenario)
    expected = (report.ttft_ms, report.tpot_ms, report.decode_tok_per_s, report.latency_ms,
                report.dram_bytes, 1000 * report.energy_joules, program.stored_weight_bytes,
                program.stored_kv_bytes, report.stored_bytes, report.budget.margin)  # fmt: skip
    for name, value in zip(METRICS, expected, strict=True):
        assert metrics[name] == pytest.approx(nan if value is None else value, nan_ok=True)


def test_at_tile_fidelity_tokens_are_those_of_the_workload():
    drafted = base(n_input=5, n_output=8).with_fields(
        {"drafter.beam_width": 2, "drafter.draft_len": 3, "drafter.tokens_per_step": 2.5}
    )
    report = simulate_program(scenario_program(drafted), drafted.npu, fidelity="tile")
    metrics = evaluate(drafted, "tile")
    assert metrics["tpot_ms"] == pytest.approx((report.latency_ms - report.ttft_ms) / 7)
    assert metrics["decode_tok_per_s"] == pytest.approx(1000 / metrics["tpot_ms"])
    assert np.isnan(evaluate(base(n_output=1), "tile")["tpot_ms"])


@pytest.mark.parametrize(
    ("scenario", "context"), [(base(n_input=5), 8 // 2), (DECODER, 8 // 2 + 5)],
    ids=["both", "decoder"],
)  # fmt: skip
def test_a_drafting_request_takes_whole_steps_at_the_mean_context(scenario, context):
    scenario = replace(
        scenario, workload=Workload(n_input=5, n_output=8),
        drafter=Drafter(beam_width=2, draft_len=3, tokens_per_step=2.5, packed_share=0.5),
    )  # fmt: skip
    program = scenario_program(scenario)
    both = scenario.description.model.encoder is not None
    n_steps = ceil(7 / 2.5)  # seven tokens after the first
    assert [call.phase for call in program.calls] == [
        *(["encode", "decode"] if both else ["prefill"]), *["verify"] * n_steps,
    ]  # fmt: skip
    assert (program.n_output, program.n_first_calls) == (n_steps + 1, 2 if both else 1)
    scores = [op.gemm.n for op in program.calls[-1].ops
              if op.site == "decoder.0.self_attention.scores"]  # fmt: skip
    assert scores == [context + 1 + 3]  # the root, and half of six drafted tokens
    cross = {op.gemm.n for op in program.calls[-1].ops if "cross_attention.scores" in op.site}
    assert cross == ({5} if both else set())
    padded = scenario.with_fields({"workload.static_context": 32})
    (slots,) = {op.gemm.n for op in scenario_program(padded).calls[-1].ops
                if op.site == "decoder.0.self_attention.scores"}  # fmt: skip
    assert slots == 32 + 4


def test_three_recordings_say_what_any_length_costs():
    scenario = base(n_output=6)
    known = columns_by_length(scenario)
    for n_input in (1, 2, 3, 4, 9, 30):
        one = request_columns(scenario.with_fields({"workload.n_input": n_input}))
        many = known.at(n_input)
        assert many.stored_bytes == one.stored_bytes
        values = scenario.npu.values()
        for name in ("ttft_cycles", "latency_cycles", "dram_bytes"):
            got, expected = (getattr(price(r.columns, values), name) for r in (many, one))
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"workload.n_output": 3}, {"workload.static_context": 64}, {"drafter.beam_width": 2},
        {"precision.weight_bits": 4, "model.encoder.d_model": 15, "model.decoder.d_model": 15},
    ],
)  # fmt: skip
def test_where_lengths_change_more_than_sizes_each_is_recorded(changes):
    assert columns_by_length(base(n_output=6).with_fields(changes)) is None


def test_one_odd_stack_is_enough_to_round_half_bytes():
    model = replace(tiny(), shared_embedding=False)
    odd = replace(model, encoder=replace(model.encoder, d_model=15))
    scenario = replace(base(n_output=6), description=describe(odd))
    assert columns_by_length(scenario) is not None
    assert columns_by_length(scenario.with_fields({"precision.weight_bits": 4})) is None
