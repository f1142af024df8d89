"""Reports of a run whose times, bytes and counts are made up: every sum and quotient by hand."""

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from mu_ref.presets import tiny
from npu_sim.errors import UnsupportedError, WorkloadError
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.program import Call, Gemm, Op, Program, Tensor
from npu_sim.program.request import record_request
from npu_sim.program.rows import ProgramTable, program_table
from npu_sim.report.fidelity import simulate, simulate_program
from npu_sim.report.phases import CallReport, phase_reports, roofline_calls, tile_calls
from npu_sim.report.report import Report
from npu_sim.report.shares import shares
from npu_sim.tile.engine_kernel import TIMES
from npu_sim.tile.plan import Plan
from npu_sim.tile.simulate import CallRun, TileRun

# 1 GHz: a microsecond is a thousand cycles, and 100 of them come with each call.
CHIP = npu("teaching-npu")


def activation(*shape: int) -> Tensor:
    return Tensor(name="x", shape=shape, bits=16, role="activation")


def norm(site: str, phase: str) -> Op:
    """1 x 4 values of two bytes, read and written."""
    return Op(
        site=site, kind="norm", phase=phase, inputs=(activation(1, 4),), output=activation(1, 4),
        vector_elements=4, vector_work="rms",
    )  # fmt: skip


def linear(site: str, phase: str) -> Op:
    """[1 x 4] times [4 x 8] of one byte: 32 multiply-accumulates."""
    weight = Tensor(name=f"{site}.weight", shape=(8, 4), bits=8, role="weight")
    return Op(
        site=site, kind="linear", phase=phase, inputs=(activation(1, 4), weight),
        output=activation(1, 8), gemm=Gemm(count=1, m=1, n=8, k=4),
    )  # fmt: skip


def append(site: str, phase: str) -> Op:
    kv = Tensor(name=site, shape=(1, 1, 2, 4), bits=16, role="kv")
    return Op(site=site, kind="append", phase=phase, inputs=(), output=kv, vector_elements=8,
              vector_work="copy")  # fmt: skip


SITES = ("encoder.0.mlp.up", "encoder.final_norm", "decoder.1.mlp.up", "decoder.1.k_cache")
PROGRAM = Program(
    model="by hand", precision=Precision(), n_input=3, n_output=3, batch=1,
    stored_weight_bytes=5_000_000,
    calls=(
        Call(phase="encode", ops=(linear(SITES[0], "encode"), norm(SITES[1], "encode"))),
        *[Call(phase="decode", ops=(linear(SITES[2], "decode"), append(SITES[3], "decode")))] * 3,
    ),
)  # fmt: skip


def call_report(phase: str, cycles: dict[str, int], *n_bytes: int) -> CallReport:
    call = next(call for call in PROGRAM.calls if call.phase == phase)
    limits = {"compute": 0, "vector": 0, "memory": 0, "overhead": 0} | cycles
    weight, kv, moved = n_bytes
    return CallReport(
        call=call, limit_cycles=limits, weight_bytes=weight, kv_bytes=kv, activation_bytes=moved
    )


ENCODE = call_report("encode", {"memory": 400_000, "overhead": 100_000}, 70, 0, 5)
DECODE = [
    call_report("decode", {"compute": 150_000, "overhead": 100_000}, 30, 16, 0),
    call_report("decode", {"memory": 160_000, "overhead": 100_000}, 30, 20, 2),
    call_report("decode", {"memory": 190_000, "overhead": 100_000}, 30, 24, 0),
]


def report(**changes) -> Report:
    known = {
        "npu": CHIP, "program": PROGRAM, "phases": phase_reports([ENCODE, *DECODE], CHIP),
        "ttft_cycles": 750_000, "budget_ms": 2.0,
    }  # fmt: skip
    return Report(**(known | changes))


# -- phases ----------------------------------------------------------------------------------------


def test_a_phase_adds_up_its_calls():
    encode, decode = report().phases
    assert (encode.phase, encode.n_calls, encode.macs, encode.cycles) == ("encode", 1, 32, 500_000)
    assert (decode.phase, decode.n_calls, decode.macs, decode.cycles) == (
        "decode", 3, 3 * 32, 250_000 + 260_000 + 290_000,
    )  # fmt: skip
    assert decode.to_json() | {"energy_mj": 0} == {
        "phase": "decode", "calls": 3, "macs": 96, "dram_bytes": 90 + 60 + 2, "weight_bytes": 90,
        "kv_bytes": 60, "activation_bytes": 2, "cycles": 800_000, "time_ms": 0.8, "energy_mj": 0,
        "limit_cycles": {"compute": 150_000, "vector": 0, "memory": 350_000, "overhead": 300_000},
        "bound": "memory", "utilization": 96 / (1024 * 800_000),
    }  # fmt: skip


def test_a_phase_waits_for_what_takes_most():
    assert [phase.bound for phase in report().phases] == ["memory", "memory"]
    equal = replace(
        report().phases[1], limit_cycles=MappingProxyType(dict.fromkeys(DECODE[0].limit_cycles, 5))
    )
    assert equal.bound == "compute"
    assert replace(equal, limit_cycles=MappingProxyType({})).utilization == 0


def test_a_call_of_the_roofline_by_hand():
    """Equal products, and keys and values written beside them, under an LLM runtime."""
    chip = CHIP.with_changes(
        {"geniex_overhead_us": 3.0, "geniex_position_us": 2.0, "dma.runs_ahead": False,
         "sram.keeps_between_calls": False}
    )  # fmt: skip
    table = Tensor(name="embedding.weight", shape=(5, 4), bits=8, role="weight")
    embed = Op(site="e", kind="embed", phase="decode", inputs=(table,), output=activation(5, 4))
    products = linear("a", "decode"), linear("b", "decode")
    ops = (*products, append("k", "decode"), append("v", "decode"), embed)
    calls = (Call(phase="decode", ops=ops),)
    (found,) = roofline_calls(replace(PROGRAM, calls=calls, runtime="geniex"), chip)
    # 32 B at 10 B a cycle are 4 cycles, more than 32 / 512 and than nothing; 16 B of keys are 2;
    # 20 B of the table are 2; five operations start in 1,000 cycles each, the call of five
    # positions in 100 us + 3 us + 5 x 2 us.
    assert dict(found.limit_cycles) == {
        "compute": 0, "vector": 0, "memory": 4 + 4 + 2 + 2 + 2, "overhead": 5_000 + 113_000,
    }  # fmt: skip
    assert (found.weight_bytes, found.kv_bytes, found.activation_bytes) == (
        32 + 32 + 20,
        16 + 16,
        0,
    )


def test_a_call_of_the_roofline_hides_what_the_dma_reads_ahead():
    """The same products twice: their weights come while operations start, or the other way."""
    call = Call(phase="decode", ops=(linear("a", "decode"), linear("b", "decode")))
    program = replace(PROGRAM, calls=(call, call), stored_weight_bytes=10**9)
    (found, _) = roofline_calls(program, CHIP)
    # two starts of 1,000 cycles and a cycle each hide 4 + 4 cycles of reading
    assert dict(found.limit_cycles) == {
        "compute": 2, "vector": 0, "memory": 0, "overhead": 2_000 + 100_000,
    }  # fmt: skip
    (found, _) = roofline_calls(program, CHIP.with_value("dma.bytes_per_s", 10**7))
    # 64 B at 100 cycles a byte; the starts are hidden in it
    assert found.cycles == 64 * 100 + 100_000
    assert found.limit_cycles["memory"] == 64 * 100 - 2_000
    # with few weights in a chip that keeps them, the second call reads none
    first, second = roofline_calls(replace(program, stored_weight_bytes=64), CHIP)
    assert (first.weight_bytes, second.weight_bytes) == (64, 0)


def test_activations_that_do_not_fit_are_what_is_left_of_the_traffic():
    small = CHIP.with_value("sram.capacity_bytes", 20)
    (found,) = roofline_calls(replace(PROGRAM, calls=PROGRAM.calls[:1]), small)
    # of the product 8 + 16 B 4 do not fit 20, of the norm 8 + 8 all do
    assert (found.weight_bytes, found.kv_bytes, found.activation_bytes) == (32, 0, 4)


# -- the request -----------------------------------------------------------------------------------


def test_times_of_a_request():
    found = report()
    assert (found.latency_cycles, found.latency_ms, found.ttft_ms) == (1_300_000, 1.3, 0.75)
    assert found.tpot_ms == pytest.approx((1.3 - 0.75) / 2)  # two tokens follow the first
    assert found.decode_tok_per_s == pytest.approx(1000 / 0.275)
    assert (found.macs, found.dram_bytes) == (128, 75 + 152)
    assert found.utilization == 128 / (1024 * 1_300_000)
    one = report(program=replace(PROGRAM, n_output=1, calls=PROGRAM.calls[:2]))
    assert one.tpot_ms is one.decode_tok_per_s is None
    two = report(program=replace(PROGRAM, n_output=2, calls=PROGRAM.calls[:3]))
    assert two.tpot_ms == pytest.approx(1.3 - 0.75)


def test_bytes_in_dram_are_weights_and_cache():
    found = report(budget_mb=5.000016)  # keys of 1 x 2 x 4 values of two bytes, written thrice
    assert found.stored_bytes == 5_000_016
    assert found.memory_budget.margin == pytest.approx(0, abs=1e-9)
    assert not report(budget_mb=4.9).memory_budget.met


@pytest.mark.parametrize(
    ("budgets", "met"),
    [
        ({}, True),
        ({"budget_ms": 1.2}, False),
        ({"budget_mb": 5.1}, True),
        ({"budget_mb": 4.9}, False),
        ({"cycle_budgets": {"decode": 800_000}}, True),
        ({"cycle_budgets": {"decode": 799_999}}, False),
        ({"cycle_budgets": {"encode": 499_999, "decode": 800_000}}, False),
    ],
)
def test_every_budget_counts(budgets, met):
    assert report(**budgets).budgets_met is met


def test_what_a_report_says_as_json():
    data = report(budget_mb=6.0, cycle_budgets={"encode": 600_000}).to_json()
    assert data["budget"] == {"budget_ms": 2.0, "met": True, "margin_ms": pytest.approx(0.7)}
    assert data["memory_budget"]["margin_mb"] == pytest.approx(0.999984)
    assert data["phase_budgets"] == {
        "encode": {"budget_cycles": 600_000, "met": True, "margin_cycles": 100_000}
    }
    assert (data["stored_weight_bytes"], data["stored_kv_bytes"]) == (5_000_000, 16)
    assert (data["peak_dram_bytes"], data["peak_sram_bytes"]) == (5_000_016, None)
    assert (data["cycles"], data["n_input"], data["n_output"]) == (1_300_000, 3, 3)


def test_the_first_token_needs_two_calls_of_an_encoder_decoder_and_one_of_a_decoder():
    program = record_request(tiny(), 3, 2, Precision())
    calls = roofline_calls(program, CHIP)
    found = simulate_program(program, CHIP, fidelity="roofline")
    assert found.ttft_cycles == calls[0].cycles + calls[1].cycles
    assert found.latency_cycles == found.ttft_cycles + calls[2].cycles


def test_a_budget_of_nothing_is_refused_and_so_is_what_no_engine_can_do():
    program = record_request(tiny(), 3, 2, Precision())
    for name in ("budget_ms", "budget_mb"):
        with pytest.raises(WorkloadError, match=f"{name} must be a number above 0"):
            simulate_program(program, CHIP, fidelity="roofline", **{name: 0.0})
    missing = CHIP.with_value("unsupported_ops", "softmax")
    for fidelity in ("roofline", "tile"):
        with pytest.raises(UnsupportedError, match="softmax"):
            simulate_program(program, missing, fidelity=fidelity)


def test_a_batch_computes_all_its_rows():
    one, three = (
        simulate(tiny(), "teaching-npu", 3, 2, batch=batch, fidelity="roofline").macs
        for batch in (1, 3)
    )
    assert three == 3 * one


# -- at tile fidelity ------------------------------------------------------------------------------

PLAN = Plan(
    piece_bytes=40, kept_classes=3, rows_outer=False, panel=1, kept_bytes=10, weight_ring_bytes=120,
    activation_ring_bytes=0, out_ring_bytes=80, weights_pinned=False, cache_pinned=False,
)  # fmt: skip


def tile_run() -> TileRun:
    """Each call takes 300 cycles: 20 + 80 of the first operation, 30 + 160 and a last write."""
    table = program_table(PROGRAM)
    calls = []
    for call in table.calls:
        times = np.zeros(2, TIMES)
        times["begin"], times["end"] = [0, 100], [100, 290]
        # control, reads, matrix, vector, writes
        times["busy_cycles"] = [[20, 60, 80, 0, 0], [30, 0, 0, 160, 10]]
        times["dram_bytes"] = [[32, 0, 8], [0, 16, 0]]
        calls.append(
            CallRun(table=call, plan=PLAN, cycles=300, overhead_cycles=100_000, times=times)
        )
    return TileRun(table=ProgramTable(PROGRAM, table.calls), npu=CHIP, pins=(7, 5),
                   calls=tuple(calls))  # fmt: skip


def test_calls_of_a_run_with_the_overhead_of_the_call():
    first = tile_calls(tile_run())[0]
    assert dict(first.limit_cycles) == {
        "compute": 80, "vector": 160, "memory": 10, "overhead": 20 + 30 + 100_000,
    }  # fmt: skip
    assert (first.weight_bytes, first.kv_bytes, first.activation_bytes) == (32, 16, 8)


def test_sums_of_a_run():
    run = tile_run()
    assert run.cycles == 4 * (300 + 100_000)
    assert run.engine_cycles == {"dma": 4 * 60, "matrix": 4 * 80, "vector": 4 * 160}
    assert run.peak_sram_bytes == 120 + 80 + 10 + 7 + 5
    busy = dict(report(tiles=run).summary_rows())["engines busy"]
    assert busy == "dma 0 % (writes 0 %), matrix 0 %, vector 0 %"  # of 1.3 million cycles
    few = report(tiles=run, phases=(replace(report().phases[0], limit_cycles={"memory": 1_600}),))
    busy = dict(few.summary_rows())["engines busy"]
    assert busy == "dma 15 % (writes 2 %), matrix 20 %, vector 40 %"


def test_shares_of_layers_kinds_and_sites():
    def rows(by):
        return [(s.name, s.cycles, s.macs, s.dram_bytes) for s in shares(tile_run(), by)]

    calls = ("(calls)", 400_000, 0, 0)
    assert rows("layer") == [
        ("encoder.0", 100, 32, 40), ("encoder", 200, 0, 16),
        ("decoder.1", 3 * 300, 3 * 32, 3 * 56), calls,
    ]  # fmt: skip
    assert rows("kind") == [
        calls, ("append", 3 * 200, 0, 3 * 16), ("linear", 4 * 100, 4 * 32, 4 * 40),
        ("norm", 200, 0, 16),
    ]  # fmt: skip
    assert [row[0] for row in rows("site")] == ["(calls)", *(SITES[i] for i in (3, 2, 1, 0))]


def test_equal_shares_stand_in_the_order_of_their_names_and_layers_in_their_own():
    run = tile_run()
    table = replace(run.calls[0].table, ops=(norm("b.1.x", "encode"), norm("a.1.x", "encode")))
    times = run.calls[0].times.copy()
    times["begin"], times["end"] = [0, 100], [100, 200]
    call = replace(run.calls[0], table=table, times=times, cycles=200)
    run = replace(run, calls=(call,))
    assert [share.name for share in shares(run, "site")] == ["(calls)", "a.1.x", "b.1.x"]
    assert [share.name for share in shares(run, "layer")] == ["b.1", "a.1", "(calls)"]


def test_the_speed_of_a_batch_is_that_of_a_row_and_of_all_together():
    alone, eight = report(), report()
    eight = replace(eight, program=replace(eight.program, batch=8))
    speed = alone.decode_tok_per_s
    assert dict(alone.summary_rows())["decode"] == f"{speed:.1f} tok/s"
    said = f"{speed:.1f} tok/s per row, {8 * speed:.1f} tok/s together"
    assert dict(eight.summary_rows())["decode"] == said
