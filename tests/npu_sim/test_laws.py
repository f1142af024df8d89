"""What must hold for every request on every chip."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from npu_strategies import WIDTHS, precisions

from mu_ref.presets import tiny
from npu_sim.hardware.presets import NPUS, npu
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate_program
from npu_sim.roofline.formula import op_cost


def small_model(gated, placement, both, d_ff):
    model = tiny(gated=gated, norm_placement=placement)
    encoder, decoder = (replace(stack, d_ff=d_ff) for stack in (model.encoder, model.decoder))
    return replace(model, encoder=encoder if both else None, decoder=decoder)


configs = st.builds(
    small_model,
    st.booleans(), st.sampled_from(["pre", "dual"]), st.booleans(), st.integers(1, 64),
)  # fmt: skip
lengths = st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(1, 3))  # in, out, batch
ALL_WIDTHS = tuple(name for name in NPUS if npu(name).matrix.w16a16_macs_per_cycle)
tight = st.sampled_from(ALL_WIDTHS).map(  # little SRAM, so that activations spill
    lambda name: npu(name).with_value("sram.capacity_bytes", 2000)
)
chips = st.one_of(st.sampled_from(ALL_WIDTHS).map(npu), tight)


def cycles(config, request, precision, chip):
    n_input, n_output, batch = request
    return simulate_program(
        record_request(config, n_input, n_output, precision, batch), chip, fidelity="roofline"
    ).latency_cycles


@settings(max_examples=40, deadline=None)
@given(configs, lengths, precisions, chips, st.integers(0, 2))
def test_a_longer_or_larger_request_never_gets_faster(config, request, precision, chip, axis):
    longer = tuple(n + (i == axis) for i, n in enumerate(request))
    assert cycles(config, longer, precision, chip) >= cycles(config, request, precision, chip)


@settings(max_examples=40, deadline=None)
@given(configs, lengths, precisions, chips, st.sampled_from(sorted(WIDTHS)))
def test_wider_numbers_never_get_faster(config, request, precision, chip, field):
    times = [
        cycles(config, request, replace(precision, **{field: bits}), chip) for bits in WIDTHS[field]
    ]
    assert times == sorted(times)


@settings(max_examples=60, deadline=None)
@given(
    configs, lengths, precisions, chips,
    st.sampled_from([
        "dma.bytes_per_s", "dram.bytes_per_s", "sram.capacity_bytes", "vector.width_bytes",
        "matrix.w4a8_macs_per_cycle", "matrix.w4a16_macs_per_cycle", "matrix.w8a8_macs_per_cycle",
        "matrix.w8a16_macs_per_cycle", "matrix.w16a16_macs_per_cycle",
    ]),
)  # fmt: skip
def test_a_better_chip_is_never_slower(config, request, precision, chip, path):
    better = chip.with_value(path, 2 * chip.numbers()[path])
    assert cycles(config, request, precision, better) <= cycles(config, request, precision, chip)


def may_stay(program, chip):
    """Weights or cache may live in SRAM between calls, where one of them fits."""
    least = min(program.stored_weight_bytes, program.stored_kv_bytes)
    return chip.sram.keeps_between_calls and least < chip.sram.capacity_bytes


@settings(max_examples=40, deadline=None)
@given(configs, lengths, precisions, chips)
def test_time_is_at_least_what_each_engine_needs_alone(config, request, precision, chip):
    n_input, n_output, batch = request
    program = record_request(config, n_input, n_output, precision, batch)
    report = simulate_program(program, chip, fidelity="roofline")
    peak = max(
        chip.matrix.w8a8_macs_per_cycle,
        chip.matrix.w8a16_macs_per_cycle,
        chip.matrix.w16a16_macs_per_cycle,
    )
    assert report.latency_cycles * peak >= report.macs
    moved = report.dram_bytes * chip.clock_hz
    assert report.latency_cycles * chip.memory_bytes_per_s >= moved
    compulsory = program.total("weight_bytes") + program.total("kv_bytes")
    if may_stay(program, chip):  # between calls, in SRAM
        compulsory = sum(op.weight_bytes for op in program.calls[0].ops)
    assert report.dram_bytes >= compulsory


@settings(max_examples=40, deadline=None)
@given(configs, lengths, precisions, chips)
def test_the_operations_add_up_to_the_report(config, request, precision, chip):
    n_input, n_output, batch = request
    program = record_request(config, n_input, n_output, precision, batch)
    report = simulate_program(program, chip, fidelity="roofline")
    costs = [[op_cost(op, chip) for op in call.ops] for call in program.calls]
    overhead = len(program.calls) * chip.call_overhead_cycles("native")
    # where the DMA runs ahead, a call takes what its busier side does (equation 4.8)
    each = [
        max(sum(cost.memory_cycles for cost in call), sum(cost.busy_cycles for cost in call))
        if chip.dma.runs_ahead
        else sum(cost.cycles for cost in call)
        for call in costs
    ]
    # where encoders stream, an encode call takes what its busiest engine does in all of it
    limits = ("compute_cycles", "vector_cycles", "memory_cycles", "overhead_cycles")
    for at, (call, cost) in enumerate(zip(program.calls, costs, strict=True)):
        if chip.sram.streams_encode and chip.sram.fuses_operations and call.phase == "encode":
            each[at] = max(sum(getattr(one, limit) for one in cost) for limit in limits)
    whole = sum(each) + overhead, sum(cost.dram_bytes for call in costs for cost in call)
    if may_stay(program, chip):
        assert report.latency_cycles <= whole[0]
        assert report.dram_bytes <= whole[1]
    else:
        assert (report.latency_cycles, report.dram_bytes) == whole
    assert report.macs == sum(op.macs for op in program.ops)


@settings(max_examples=20, deadline=None)
@given(configs, lengths, precisions, chips)
def test_the_same_request_gives_the_same_report(config, request, precision, chip):
    n_input, n_output, batch = request
    first, second = (
        simulate_program(
            record_request(config, n_input, n_output, precision, batch), chip, fidelity="roofline"
        ).to_json()
        for _ in range(2)
    )
    assert first == second
