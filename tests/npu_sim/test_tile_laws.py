"""What must hold for every request on every chip, piece by piece."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_strategies import chips, configs, lengths, precisions, small_model

from mu_ref.presets import tiny
from npu_sim.errors import CapacityError
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.request import record_request
from npu_sim.program.rows import program_table
from npu_sim.report.fidelity import simulate_program
from npu_sim.tile.simulate import call_tasks, simulate_tiles
from npu_sim.tile.tasks import ENGINES, Engine

law = settings(max_examples=60, deadline=None)


def table(config, request, precision):
    return program_table(record_request(config, *request[:2], precision, request[2]))


def cycles(config, request, precision, chip):
    """Simulated cycles; infinite where it does not fit."""
    try:
        return simulate_tiles(table(config, request, precision), chip).cycles
    except CapacityError:
        return float("inf")


@law
@given(configs, lengths, precisions, chips, st.integers(0, 2))
def test_a_longer_or_larger_request_never_gets_faster(config, request, precision, chip, axis):
    longer = tuple(n + (i == axis) for i, n in enumerate(request))
    assert cycles(config, longer, precision, chip) >= cycles(config, request, precision, chip)


@law
@given(
    configs, lengths, precisions, chips,
    st.sampled_from([
        "dma.bytes_per_s", "dram.bytes_per_s", "sram.capacity_bytes", "vector.width_bytes",
        "vector.unpack_elements_per_cycle", "matrix.w4a8_macs_per_cycle",
        "matrix.w4a16_macs_per_cycle", "matrix.w8a8_macs_per_cycle",
        "matrix.w8a16_macs_per_cycle", "matrix.w16a16_macs_per_cycle",
    ]),
)  # fmt: skip
def test_a_better_chip_is_never_slower(config, request, precision, chip, path):
    better = chip.with_value(path, 2 * chip.numbers()[path])
    assert cycles(config, request, precision, better) <= cycles(config, request, precision, chip)


@law
@given(configs, lengths, precisions, chips, st.integers(1, 5_000))
def test_any_more_sram_is_never_slower(config, request, precision, chip, more):
    better = chip.with_value("sram.capacity_bytes", chip.sram.capacity_bytes + more)
    assert cycles(config, request, precision, better) <= cycles(config, request, precision, chip)


@law
@given(configs, lengths, precisions, chips)
def test_time_is_at_least_the_roofline_of_every_engine(config, request, precision, chip):
    program = record_request(config, *request[:2], precision, request[2])
    try:
        report = simulate_program(program, chip)
    except CapacityError:
        return
    bare = simulate_program(program, chip, fidelity="roofline")
    for phase, bound in zip(report.phases, bare.phases, strict=True):
        assert phase.macs == bound.macs
        assert phase.cycles >= bound.limit_cycles["overhead"]
    assert report.latency_cycles * chip.memory_bytes_per_s >= report.dram_bytes * chip.clock_hz
    busy = sum(call.times["busy_cycles"].sum(axis=0) for call in report.tiles.calls)
    for engine in (Engine.MATRIX, Engine.VECTOR):
        assert busy[engine] <= report.latency_cycles
    compute = sum(
        -(-op.macs // chip.matrix.macs_per_cycle(*op.operand_bits)) for op in program.ops if op.gemm
    )
    assert busy[Engine.MATRIX] >= compute
    if report.tiles.pins == (0, 0):
        assert report.dram_bytes >= program.total("weight_bytes") + program.total("kv_bytes")
    else:
        written = program.total("kv_bytes") if not report.tiles.pins[1] else 0
        assert report.dram_bytes >= written


@law
@given(configs, lengths, precisions, chips)
def test_engines_keep_their_order_and_sram_its_limit(config, request, precision, chip):
    try:
        run = simulate_tiles(table(config, request, precision), chip)
    except CapacityError:
        return
    for call in run.calls:
        tasks = call_tasks(call, chip)
        start, end = tasks["start"], tasks["end"]
        assert end.max() == call.cycles
        for engine in range(len(ENGINES)):
            own = tasks["engine"] == engine
            assert (start[own][1:] >= end[own][:-1]).all()
            assert tasks["cycles"][own].sum() <= call.cycles
        check_sram(call, tasks, start, end, chip, run.pins)


def check_sram(call, tasks, start, end, chip, pins):
    """Count bytes at every event, from the tasks alone."""
    change = {}
    for t in np.flatnonzero(tasks["held_bytes"] > 0):
        held = int(tasks[t].held_bytes)
        user = tasks[t].last_user
        assert user >= 0
        assert end[user] >= end[t]
        change[int(start[t])] = change.get(int(start[t]), 0) + held
        change[int(end[user])] = change.get(int(end[user]), 0) - held
    used, most = 0, 0
    for at in sorted(change):
        used += change[at]
        most = max(most, used)
    live = int(call.table.live[:, call.plan.kept_classes].max(initial=0))
    assert most + live + sum(pins) <= chip.sram.capacity_bytes


@settings(max_examples=20, deadline=None)
@given(configs, lengths, precisions, chips)
def test_the_same_request_gives_the_same_tasks(config, request, precision, chip):
    if cycles(config, request, precision, chip) == float("inf"):
        return
    first, second = (simulate_tiles(table(config, request, precision), chip) for _ in range(2))
    for one, other in zip(first.calls, second.calls, strict=True):
        assert call_tasks(one, chip).tobytes() == call_tasks(other, chip).tobytes()


def test_blocks_of_rows_do_not_depend_on_the_number_of_rows():
    chip = npu("teaching-npu").with_changes(
        {
            "sram.capacity_bytes": 1500, "dma.transfer_bytes": 512, "matrix.dataflow": "blocks",
            "sram.keeps_between_calls": False, "dma.setup_cycles": 0, "per_op_overhead_cycles": 0,
        }
    )  # fmt: skip
    config = replace(tiny(), encoder=None)
    narrow = Precision(weight_bits=4, kv_bits=4, head_weight_bits=4)
    times = [cycles(config, (n, 1, 2), narrow, chip) for n in range(1, 17)]
    assert times == sorted(times)


SMALL = {
    "sram.capacity_bytes": 1500, "dma.transfer_bytes": 512, "sram.keeps_between_calls": False,
    "matrix.tile_m": 4, "matrix.tile_n": 4, "matrix.tile_k": 4, "dma.setup_cycles": 7,
    "matrix.rows": 4, "per_op_overhead_cycles": 0,
}  # fmt: skip


def test_a_bundle_of_blocks_reads_its_weights_for_each():
    chip = npu("teaching-npu").with_changes(SMALL | {"matrix.dataflow": "os"})
    narrow = Precision(weight_bits=4, kv_bits=4, head_weight_bits=4)
    config = small_model(True, False, 65)
    runs = [simulate_tiles(table(config, (n, 1, 1), narrow), chip) for n in (12, 13)]
    up = [[op.site for op in run.calls[0].table.ops].index("decoder.0.mlp.up") for run in runs]
    reads = [run.calls[0].times[at].dram_bytes[0] for run, at in zip(runs, up, strict=True)]
    # 65 x 16 weights of half a byte and 65 x 6 bytes beside, once for every row; the pieces of 13
    # rows pass 256, so two rows are one bundle
    assert reads == [12 * 910, 13 * 910]
    assert runs[0].cycles <= runs[1].cycles


def test_wider_vectors_make_no_piece_longer():
    chip = npu("teaching-npu").with_changes(SMALL | {"matrix.dataflow": "blocks"})
    narrow = Precision(weight_bits=4, kv_bits=4, head_weight_bits=4)
    config = small_model(False, False, 1)
    wider = chip.with_value("vector.width_bytes", 2 * chip.vector.width_bytes)
    assert cycles(config, (10, 1, 2), narrow, wider) <= cycles(config, (10, 1, 2), narrow, chip)
