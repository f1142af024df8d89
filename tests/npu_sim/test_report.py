import json
from dataclasses import replace

import pytest

from mu_ref.presets import tiny
from npu_sim.errors import HardwareError, WorkloadError
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate, simulate_program
from npu_sim.roofline.formula import op_cost

DECODER_ONLY = replace(tiny(), encoder=None)


def report(config=None, n_input=6, n_output=4, **options):
    return simulate(
        config or tiny(),
        "teaching-npu",
        n_input,
        n_output,
        Precision(),
        **{"fidelity": "roofline"} | options,
    )


@pytest.mark.parametrize("config", [tiny(), DECODER_ONLY], ids=["mu", "decoder-only"])
@pytest.mark.parametrize("n_output", [2, 3, 7])
def test_latency_is_first_token_plus_the_others(config, n_output):
    found = report(config, n_output=n_output)
    assert found.latency_ms == pytest.approx(found.ttft_ms + (n_output - 1) * found.tpot_ms)
    assert found.decode_tok_per_s == pytest.approx(1000 / found.tpot_ms)


def test_the_first_token_of_mu_needs_the_encoder_and_one_step():
    found = report(n_output=1)
    assert [(phase.phase, phase.n_calls) for phase in found.phases] == [
        ("encode", 1),
        ("decode", 1),
    ]
    assert found.ttft_ms == found.latency_ms
    assert found.tpot_ms is None
    assert found.decode_tok_per_s is None
    assert report(n_output=5).ttft_cycles == found.ttft_cycles


def test_the_first_token_of_a_decoder_only_model_needs_the_prefill_alone():
    found = report(DECODER_ONLY, n_output=3)
    assert [(phase.phase, phase.n_calls) for phase in found.phases] == [
        ("prefill", 1),
        ("decode", 2),
    ]
    assert found.ttft_cycles == found.phases[0].cycles


def test_totals_are_the_sums_over_operations_and_calls():
    program = record_request(tiny(), 6, 4, Precision())
    chip = npu("teaching-npu").with_changes(
        {"dma.runs_ahead": False, "sram.keeps_between_calls": False}
    )
    found = simulate_program(program, chip, fidelity="roofline")
    costs = [op_cost(op, chip) for op in program.ops]
    calls_cycles = len(program.calls) * 100_000  # 100 us at 1 GHz
    assert found.latency_cycles == sum(cost.cycles for cost in costs) + calls_cycles
    assert found.dram_bytes == sum(cost.dram_bytes for cost in costs)
    assert found.macs == program.total("macs")
    assert found.latency_cycles == sum(phase.cycles for phase in found.phases)
    assert 0 < found.utilization < 1


@pytest.mark.parametrize("fidelity", ["roofline", "tile"])
def test_an_llm_runtime_adds_its_work_per_call_and_per_position(fidelity):
    chip = npu("teaching-npu").with_changes(  # microseconds are thousands of cycles here
        {"geniex_overhead_us": 3.0, "geniex_position_us": 2.0}
    )
    program = record_request(DECODER_ONLY, 6, 4, Precision())
    native, hosted = (
        simulate_program(replace(program, runtime=runtime), chip, fidelity=fidelity)
        for runtime in ("native", "geniex")
    )
    prefill, steps = 3_000 + 6 * 2_000, 3 * (3_000 + 2_000)  # six positions, then one a step
    assert hosted.latency_cycles - native.latency_cycles == prefill + steps
    assert hosted.ttft_cycles - native.ttft_cycles == prefill
    more = [b.limit_cycles["overhead"] - a.limit_cycles["overhead"]
            for a, b in zip(native.phases, hosted.phases, strict=True)]  # fmt: skip
    assert more == [prefill, steps]


@pytest.mark.parametrize("fidelity", ["roofline", "tile"])
def test_a_phase_is_the_sum_of_its_calls_and_its_limits(fidelity):
    found = report(n_output=3, fidelity=fidelity)
    assert [phase.phase for phase in found.phases] == ["encode", "decode"]
    assert found.ttft_cycles + found.phases[1].cycles * 2 / 3 == pytest.approx(
        found.latency_cycles, rel=0.01
    )  # two of three steps come after the first token, and steps differ little
    for phase in found.phases:
        ops = [op for op in found.program.ops if op.phase == phase.phase]
        assert phase.macs == sum(op.macs for op in ops)
        assert phase.cycles == sum(phase.limit_cycles.values())
        assert phase.to_json()["energy_mj"] == pytest.approx(1000 * phase.energy_joules)
    idle_w, seconds = found.npu.energy.idle_watts, found.latency_ms / 1000
    assert found.to_json()["energy_mj"] / 1000 == pytest.approx(found.energy_joules)
    assert found.energy_joules > idle_w * seconds > 0


def test_a_budget_is_met_or_missed_with_its_margin():
    met = report(budget_ms=1000.0).budget
    assert met.met
    assert met.margin == 1000 - met.used
    assert met.line().startswith("1000 ms met, ")
    missed = report(budget_ms=0.5).budget
    assert not missed.met
    assert missed.line().startswith("0.50 ms missed, ")
    assert missed.line().endswith(" over")


def test_a_budget_of_exactly_the_latency_is_met():
    assert report(budget_ms=report().latency_ms).budget.met


def test_the_summary_has_what_a_reader_wants():
    names = [name for name, _ in report().summary_rows()]
    assert names == [
        "time to first token", "time per token", "decode", "latency", "DRAM traffic", "energy",
        "budget",
    ]  # fmt: skip
    assert [name for name, _ in report(n_output=1).summary_rows()] == [
        "time to first token", "latency", "DRAM traffic", "energy", "budget",
    ]  # fmt: skip
    tiles = report(fidelity="tile", budget_mb=1.0, cycle_budgets={"encode": 9}).summary_rows()
    assert [name for name, _ in tiles][-5:] == [
        "engines busy", "energy", "budget", "memory budget", "encode budget",
    ]  # fmt: skip


def test_json_says_that_it_is_simulated_and_adds_up():
    data = json.loads(json.dumps(report().to_json()))
    assert data["simulated"] is True
    assert data["fidelity"] == "roofline"
    for phase in data["phases"]:
        assert sum(phase["limit_cycles"].values()) == phase["cycles"]
    for total in ("cycles", "macs", "dram_bytes"):
        assert data[total] == sum(phase[total] for phase in data["phases"])
    assert data["budget"]["margin_ms"] == 500 - data["latency_ms"]


def test_an_unknown_npu_or_a_senseless_budget_is_refused():
    with pytest.raises(HardwareError, match="NPU must be one of"):
        simulate(tiny(), "abacus", 1, 1, Precision())
    with pytest.raises(WorkloadError, match="budget_ms must be a number above 0"):
        report(budget_ms=0)
