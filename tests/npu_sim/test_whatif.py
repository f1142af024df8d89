"""Sensitivity, search and comparison: laws that hold for any simulator."""

import pytest
from at_roofline import compare, evaluate, sensitivity, solve

from npu_sim.errors import NpuSimError
from npu_sim.whatif.scenario_toml import base_scenario


def base(**changes):
    return base_scenario({"model": "mu-nano", "npu": "teaching-npu", **changes})


def test_a_tornado_is_sorted_and_moves_in_the_right_direction():
    value, swings = sensitivity(base(), "latency_ms", 0.3)
    spans = [swing.span(value) for swing in swings]
    assert spans == sorted(spans, reverse=True)
    bandwidth = next(swing for swing in swings if swing.path == "npu.dma.bytes_per_s")
    assert bandwidth.high < value < bandwidth.low
    overhead = next(swing for swing in swings if swing.path == "npu.per_op_overhead_cycles")
    assert overhead.low < value < overhead.high
    assert overhead.high_value == 1300


@pytest.mark.parametrize(
    ("name", "metric", "factor"),
    [
        ("dma_bandwidth", "decode_tok_per_s", 1.05),
        ("dma_bandwidth", "latency_ms", 1.1),
        ("op_overhead", "latency_ms", 0.8),
        ("clock", "ttft_ms", 0.9),
    ],
)
def test_a_search_finds_a_value_that_just_reaches_the_target(name, metric, factor):
    # where the DMA runs ahead, most starts are hidden behind it
    chip = "hexagon-x-elite" if name == "op_overhead" else "teaching-npu"
    scenario = base(npu=chip)
    target = evaluate(scenario)[metric] * factor
    answer = solve(scenario, name, metric, target)
    assert answer.needed is not None
    whole = round(answer.needed)
    assert evaluate(scenario.with_fields({answer.path: whole}))[metric] == pytest.approx(
        target, rel=1e-2
    )


def test_a_target_out_of_reach_is_said_to_be():
    answer = solve(base(), "dma_bandwidth", "decode_tok_per_s", 1e9)
    assert answer.needed is None
    assert answer.best_metric < 1e9
    assert "other parts" in answer.limit


def test_costs_of_a_comparison_add_up_to_the_requests():
    a, b = base(), base(npu="hexagon-x-elite")
    found = compare(a, b)
    assert found.totals_ms[0] == pytest.approx(evaluate(a)["latency_ms"], rel=1e-9)
    assert found.totals_ms[1] == pytest.approx(evaluate(b)["latency_ms"], rel=1e-9)
    assert found.fields["npu.clock_hz"] == (a.npu.clock_hz, b.npu.clock_hz)
    assert compare(a, a).fields == {}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: solve(base(), "warp", "latency_ms", 1), "field must be one of"),
        (lambda: solve(base(), "clock", "beauty", 1), "metric must be one of"),
        (lambda: solve(base(), "clock", "latency_ms", -1), "the target must be a number above 0"),
        (lambda: evaluate(base(), "guess"), "fidelity must be one of tile, roofline; got 'guess'"),
        (lambda: sensitivity(base(), fidelity="cycle"), "fidelity must be one of"),
        (lambda: sensitivity(base(), share=2), "share must be a number above 0"),
    ],
)
def test_a_wrong_question_is_refused(call, message):
    with pytest.raises(NpuSimError, match=message):
        call()
