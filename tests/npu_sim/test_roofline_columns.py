"""Many NPUs at once give what one simulation after another gives."""

from dataclasses import replace

import numpy as np
import pytest
from at_roofline import evaluate
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_strategies import configs, lengths, precisions
from strategies import model_configs

from mu_ref.presets import preset
from npu_sim.hardware.presets import NPUS, npu
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.program import RUNTIMES
from npu_sim.program.request import record_request, request_program
from npu_sim.report.fidelity import simulate_program
from npu_sim.roofline.columns import price, program_columns, program_rows
from npu_sim.speculate.drafter import Drafter
from npu_sim.whatif.input_lengths import columns_by_length
from npu_sim.whatif.metrics import METRICS
from npu_sim.whatif.request import request_columns, scenario_program
from npu_sim.whatif.scenario import Scenario, Workload

with_decoder = model_configs(("encoder-decoder", "decoder-only"))


def scenario(config, chip="teaching-npu", drafter=None, **workload):
    return Scenario(
        description=describe(config), npu=npu(chip), precision=Precision(),
        workload=Workload(**workload), drafter=drafter or Drafter(),
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    with_decoder,
    st.integers(1, 6),
    st.integers(1, 9),
    st.lists(st.integers(10**6, 10**11), min_size=1, max_size=3),
    st.lists(st.integers(0, 10**4), min_size=3, max_size=3),
    st.sampled_from([name for name in NPUS if name != "ethos-u85"]),  # no 16-bit cache there
)
def test_prices_of_many_npus_are_those_of_single_simulations(
    config, n_input, n_output, bandwidths, overheads, chip
):
    base = scenario(config, chip, n_input=n_input, n_output=n_output)
    request = request_columns(base)
    program = scenario_program(base)
    chips = [
        base.npu.with_changes({"dma.bytes_per_s": b, "per_op_overhead_cycles": o})
        for b, o in zip(bandwidths, overheads, strict=False)
    ]
    values = dict(chips[0].values())
    values["dma.bytes_per_s"] = [c.dma.bytes_per_s for c in chips]
    values["per_op_overhead_cycles"] = [c.per_op_overhead_cycles for c in chips]
    priced = price(request.columns, values)
    reports = [simulate_program(program, c, fidelity="roofline") for c in chips]
    assert priced.latency_cycles == pytest.approx(
        [r.latency_cycles for r in reports], rel=1e-9, abs=len(program.calls)
    )
    assert priced.ttft_cycles == pytest.approx([r.ttft_cycles for r in reports], rel=1e-9, abs=2)
    n = len(chips)
    assert np.broadcast_to(priced.dram_bytes, (n,)).tolist() == [r.dram_bytes for r in reports]


@settings(max_examples=25, deadline=None)
@given(configs, lengths, precisions, st.sampled_from(RUNTIMES))
def test_columns_give_the_cycles_of_the_operations_one_by_one(model, request, precision, runtime):
    program = record_request(model, *request[:2], precision, request[2])
    program = replace(program, runtime=runtime)
    columns = program_columns(program)
    for name in NPUS:
        for sram in (2000, npu(name).sram.capacity_bytes):
            chip = npu(name).with_value("sram.capacity_bytes", sram)
            if chip.matrix.w16a16_macs_per_cycle:
                report = simulate_program(program, chip, fidelity="roofline")
                priced = price(columns, chip.values(), runtime)
                assert priced.latency_cycles.tolist() == [report.latency_cycles]
                assert priced.ttft_cycles.tolist() == [report.ttft_cycles]
                assert priced.dram_bytes.tolist() == [report.dram_bytes]


def n_operations(model):
    ops = request_program(model, 20, 9, Precision()).ops
    return sum(not op.is_layout for op in ops)


@pytest.mark.parametrize("name", ["mu-330m", "decoder-only-330m"])
def test_steps_that_grow_are_those_that_are_recorded(name):
    model = describe(preset(name))
    whole = program_columns(request_program(model, 20, 9, Precision()))
    grown = program_columns(request_program(model, 20, 3, Precision()), 6)
    for columns in (whole, grown):  # equal operations of a call once, as many times as it has them
        n_entries = np.diff([*columns.starts, len(columns.row_of)])
        assert (columns.counts @ np.repeat(columns.calls, n_entries)) == n_operations(model)
    assert np.array_equal(whole.rows, grown.rows)
    assert np.array_equal(whole.row_of, grown.row_of)
    assert np.array_equal(whole.counts, grown.counts)
    assert whole.calls.tolist() == grown.calls.tolist()
    assert whole.positions.tolist() == grown.positions.tolist()
    n_calls = {"mu-330m": 1 + 9, "decoder-only-330m": 9}  # encode and nine steps; prefill and eight
    assert whole.calls.sum() == n_calls[name]


def test_steps_of_a_model_with_windows_are_recorded_one_by_one():
    alone = replace(preset("tiny"), encoder=None)
    decoder = replace(alone.decoder, window=6, windowed_layers=(True, False))
    base = scenario(replace(alone, decoder=decoder), n_input=3, n_output=9)
    request, program = request_columns(base), scenario_program(base)
    report = simulate_program(program, base.npu, fidelity="roofline")
    assert price(request.columns, base.npu.values()).latency_cycles == [report.latency_cycles]
    assert request.stored_bytes == report.stored_bytes


def test_a_metric_is_that_of_the_report():
    base = scenario(preset("tiny"), n_input=5, n_output=4)
    report = simulate_program(scenario_program(base), base.npu, fidelity="roofline")
    metrics = evaluate(base)
    expected = report.to_json() | {
        "stored_bytes": report.stored_bytes, "budget_left_ms": report.budget.margin,
    }  # fmt: skip
    for name in METRICS:
        assert metrics[name] == pytest.approx(expected[name], rel=1e-12)


def test_a_drafter_that_is_never_right_costs_and_one_that_is_right_pays():
    plain = scenario(preset("mu-330m"), "h100", n_input=64, n_output=33)
    speeds = {
        tokens: evaluate(
            replace(plain, drafter=Drafter(beam_width=4, draft_len=4, tokens_per_step=tokens))
        )["decode_tok_per_s"]
        for tokens in (1.0, 4.0)
    }
    alone = evaluate(plain)["decode_tok_per_s"]
    assert speeds[1.0] < alone < speeds[4.0]
    assert speeds[4.0] == pytest.approx(4 * speeds[1.0], rel=1e-9)  # 32 steps against 8


def test_a_step_verifies_the_packed_tree_and_drafts_every_beam():
    drafter = Drafter(beam_width=3, draft_len=4, tokens_per_step=2.0, packed_share=0.5)
    base = scenario(replace(preset("tiny"), encoder=None), n_input=5, n_output=9, drafter=drafter)
    program = scenario_program(base)
    assert [call.phase for call in program.calls] == ["prefill"] + ["verify"] * 4
    step = program.calls[1]
    assert {op.gemm.m for op in step.ops if op.site == "head"} == {7}  # 1 + 3 * 4 / 2
    heads = [op.gemm for op in step.ops if op.site.startswith("drafter") and "head" in op.site]
    assert [gemm.m for gemm in heads] == [1, 3, 3, 3]
    assert {(gemm.n, gemm.k) for gemm in heads} == {(61, 2 * 16)}


@settings(max_examples=40, deadline=None)
@given(
    model_configs(("encoder-decoder", "decoder-only"), rope_ntk_factor=1.0),
    st.integers(4, 9),
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.integers(1, 2),
    st.sampled_from([4, 8, 16]),
)
def test_three_recordings_tell_every_input_length(config, n_output, lengths, batch, weight_bits):
    base = scenario(config, n_output=n_output, batch=batch)
    base = replace(base, precision=Precision(weight_bits=weight_bits))
    family = columns_by_length(base)
    if weight_bits == 4 and any(s.d_model % 2 for s in config.stacks.values()):
        assert family is None  # half bytes are rounded up
        return
    if any(any(s.windowed_layers) for s in config.stacks.values()):
        assert family is None  # a window stops growing
        return
    for n in lengths:
        told = family.at(n)
        alone = request_columns(replace(base, workload=replace(base.workload, n_input=n)))
        assert told.stored_bytes == alone.stored_bytes
        a, b = (price(r.columns, base.npu.values(), "geniex") for r in (told, alone))
        assert a.latency_cycles == pytest.approx(b.latency_cycles, rel=1e-12)
        assert a.ttft_cycles == pytest.approx(b.ttft_cycles, rel=1e-12)
        assert a.dram_bytes == pytest.approx(b.dram_bytes, rel=1e-12)


def test_lengths_change_more_than_sizes_with_a_static_context_or_a_drafter():
    base = scenario(preset("tiny"), n_output=9)
    assert columns_by_length(base) is not None
    static = replace(base, workload=replace(base.workload, context=64))
    assert columns_by_length(static) is None
    assert columns_by_length(replace(base, drafter=Drafter(beam_width=2))) is None


def test_a_call_that_is_repeated_reads_its_weights_as_unknown_once_only():
    """A chip may keep weights in SRAM: the same call costs less when it comes again."""
    program = request_program(describe(preset("tiny")), 3, 2, Precision())
    call = program.calls[-1]
    first, second, third = program_rows(replace(program, calls=(call,) * 3))
    assert sum(row.known_bytes for row in first) == 0
    assert sum(row.known_bytes for row in second) > 0
    assert second is third
