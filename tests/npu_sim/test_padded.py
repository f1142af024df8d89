"""Filled slots, whole tiles of rows, and encoders whose operations stream: by hand and by law."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu_ref.presets import preset, tiny
from npu_sim.errors import WorkloadError
from npu_sim.hardware.presets import NPUS, npu
from npu_sim.program.call import call_program
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.request import described_program, request_program
from npu_sim.program.rows import program_table
from npu_sim.report.fidelity import simulate_program
from npu_sim.tile.simulate import simulate_tiles

DECODER = describe(preset("decoder-only-330m"))
BOTH = describe(tiny())
NARROW = Precision(activation_bits=8, kv_bits=8)  # that every chip multiplies
TEACHING = npu("teaching-npu")
TILED = TEACHING.with_changes({"sram.tile_rows": 4, "sram.block_rows": 8})


def step(n_context, n_filled, chip, fidelity):
    program = call_program(DECODER, "decode", 1, n_context, 0, Precision(), 1, n_filled)
    return simulate_program(program, chip, fidelity=fidelity)


@pytest.mark.parametrize("fidelity", ["tile", "roofline"])
def test_an_empty_slot_costs_its_share_of_time_and_all_of_its_bytes(fidelity):
    """Where memory is all that counts, half-empty at a half costs three quarters of the cache."""
    free = {"per_op_overhead_cycles": 0, "dma.setup_cycles": 0, "dma.empty_slot_share": 0.5}
    slow = npu("hexagon-x-elite").with_changes(
        free | {"dma.bytes_per_s": 10**8, "dma.cache_bytes_per_s": 0, "sram.tile_rows": 1,
                "sram.block_rows": 1, "matrix.output_elements_per_s": 0}
    )  # fmt: skip
    full, half, short = (
        step(*slots, slow, fidelity) for slots in ((2048, 2048), (2048, 1024), (1024, 1024))
    )
    assert full.dram_bytes == half.dram_bytes > short.dram_bytes
    cache = full.latency_cycles - short.latency_cycles  # of 1,024 slots
    assert half.latency_cycles - short.latency_cycles == pytest.approx(cache / 2, rel=1e-3)


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 60), st.sampled_from(NPUS))
def test_time_never_falls_as_slots_are_added_or_filled(a, b, more, name):
    low, high = sorted((a, b))
    for fidelity in ("tile", "roofline"):
        times = [
            simulate_program(
                call_program(BOTH, "decode", 1, n, 3, NARROW, 1, filled), npu(name),
                fidelity=fidelity,
            ).latency_cycles
            for n, filled in ((high, low), (high, high), (high + more, high))
        ]  # fmt: skip
        assert times == sorted(times)


def test_a_request_of_compiled_graphs_fills_what_it_has_written():
    def empty(**more):
        program = request_program(DECODER, 4, 5, Precision(), 1, 20, **more)
        scores = next(op for op in program.calls[-1].ops if op.site.endswith(".scores"))
        return scores.empty_kv_bytes / scores.inputs[1].n_bytes

    # the mean of 5, 6, 7 and 8 slots, rounded up
    assert empty() == pytest.approx(13 / 20)
    assert empty(n_filled=15) == pytest.approx(5 / 20)
    with pytest.raises(WorkloadError, match="n_filled must come with a static context"):
        request_program(DECODER, 4, 5, Precision(), n_filled=9)


@pytest.mark.parametrize(("rows", "whole"), [(1, 4), (4, 4), (5, 8), (8, 8), (9, 16)])
def test_elements_are_worked_on_in_whole_tiles(rows, whole):
    """A norm of 16 features takes 4 operations each: 64 lanes of 8 bits, 32 of 16."""
    program = call_program(BOTH, "encode", rows, rows, 0, Precision())
    tables = program_table(program)
    cycles = []
    for chip in (TEACHING, TILED):
        call = simulate_tiles(tables, chip).calls[0]
        at = [op.site for op in call.table.ops].index("encoder.0.self_attention.pre_norm")
        cycles.append(int(call.times[at].busy_cycles[3]))
    assert cycles == [math.ceil(rows * 16 * 4 / 32), math.ceil(whole * 16 * 4 / 32)]


def test_streaming_hides_the_shorter_engine_and_nothing_less():
    """Never above one operation after another, never below the busiest engine; only encoding."""
    plain, streams = (
        TEACHING.with_changes({"sram.streams_encode": on, "sram.fuses_operations": True})
        for on in (False, True)
    )
    for phase, memory in (("encode", 0), ("decode", 24)):
        program = call_program(BOTH, phase, 24 if phase == "encode" else 1, 24, memory, Precision())
        one, other = (simulate_tiles(program_table(program), chip) for chip in (plain, streams))
        if phase == "decode":
            assert other.cycles == one.cycles
            continue
        assert one.cycles > other.cycles >= max(one.engine_cycles.values())
        bound = simulate_program(program, streams, fidelity="roofline")
        assert other.cycles >= bound.latency_cycles


@pytest.mark.parametrize("name", NPUS)
def test_no_chip_passes_its_peak_or_its_memory(name):
    chip = npu(name)
    values = chip.values()
    shares = {path: v for path, v in values.items() if path.endswith("efficiency")}
    assert all(0 < share <= 1 for share in shares.values())
    assert chip.memory_bytes_per_s <= chip.dram.bytes_per_s
    if name.startswith("hexagon"):
        assert chip.dma.bytes_per_s <= chip.dram.bytes_per_s
    if name.startswith("hexagon-x-elite"):
        assert chip.int8_tops == pytest.approx(45)
    program = call_program(DECODER, "prefill", 128, 128, 0, NARROW)
    report = simulate_program(program, chip)
    seconds = report.latency_ms / 1000
    assert program.total("macs") / seconds <= chip.int8_tops * 1e12 / 2
    assert report.dram_bytes / seconds <= chip.dram.bytes_per_s


def test_a_model_that_caches_nothing_has_no_slots_to_fill():
    reads = describe(replace(tiny(), decoder=None))
    with pytest.raises(WorkloadError, match="n_filled must be left out"):
        described_program(reads, 4, 1, Precision(), static_context=9, n_filled=5)
