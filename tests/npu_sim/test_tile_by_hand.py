"""Rows, plans, pieces and the choice among plans, worked out by hand."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from npu_sim.errors import CapacityError, HardwareError
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import PRECISIONS, Precision
from npu_sim.program.program import Call, Gemm, Op, Program, Tensor
from npu_sim.program.rows import LINEAR, MATMUL, SCORES, STREAM, VECTOR, WIDE, Row, program_table
from npu_sim.report.execute import _keys_of
from npu_sim.show.sram import sram_bytes
from npu_sim.tile.bottleneck import row_limits
from npu_sim.tile.engine_kernel import TIMES
from npu_sim.tile.plan import Plan, pin_choices, plans
from npu_sim.tile.simulate import Bench, CallRun, call_tasks, simulate_tiles
from npu_sim.tile.tiling import (
    block_rows,
    cache_moved,
    chip_numbers,
    key_piece,
    layout_cycles,
    matrix_cycles,
    share_of,
    vector_cycles,
    weight_piece,
    whole_rows,
)

CHIP, W8A16 = npu("teaching-npu"), Precision()
PLAN = Plan(
    piece_bytes=40, kept_classes=3, rows_outer=False, panel=1, kept_bytes=0, weight_ring_bytes=150,
    activation_ring_bytes=80, out_ring_bytes=80, weights_pinned=False, cache_pinned=False,
)  # fmt: skip


def activation(name: str, *shape: int) -> Tensor:
    return Tensor(name=name, shape=shape, bits=16, role="activation")


def weight(name: str, *shape: int, bits: int = 8) -> Tensor:
    return Tensor(name=name, shape=shape, bits=bits, role="weight")


def op(kind: str, output: Tensor, *inputs: Tensor, **more) -> Op:
    return Op(site=output.name, kind=kind, phase="decode", inputs=inputs, output=output, **more)


def table_of(*calls: tuple[Op, ...], stored: int = 0, precision: Precision = W8A16):
    program = Program(
        model="by hand", precision=precision, n_input=1, n_output=1, batch=1,
        stored_weight_bytes=stored, calls=tuple(Call(phase="decode", ops=ops) for ops in calls),
    )  # fmt: skip
    return program_table(program)


# -- rows ------------------------------------------------------------------------------------------

# Two tokens of a stream of 8 features, an MLP of 12, two query heads on one kv head of 4.
X, UP = activation("x", 1, 2, 8), activation("up", 1, 2, 12)
KEYS = Tensor(name="k_cache", shape=(1, 1, 2, 4), bits=4, role="kv")
OPS = (
    op("embed", X, weight("table", 1, 2, 8), vector_elements=16, vector_work="copy"),
    op("norm", activation("n", 1, 2, 8), X, weight("gain", 8, bits=16), weight("b", 8, bits=32),
       vector_elements=16, vector_work="layer"),
    op("linear", UP, activation("n", 1, 2, 8), weight("up.weight", 12, 8, bits=4),
       weight("up.bias", 12, bits=32), gemm=Gemm(count=1, m=2, n=12, k=8)),
    op("append", KEYS, activation("n", 1, 2, 8), vector_elements=8, vector_work="copy"),
    op("matmul", activation("scores", 1, 2, 2, 2), activation("q", 1, 2, 2, 4), KEYS,
       gemm=Gemm(count=2, m=2, n=2, k=4)),
    op("softmax", activation("p", 1, 2, 2, 2), activation("scores", 1, 2, 2, 2),
       vector_elements=8, vector_work="softmax"),
    op("add", activation("sum", 1, 2, 8), X, activation("n", 1, 2, 8), vector_elements=16,
       vector_work="add"),
)  # fmt: skip


def rows(calls=(OPS,), **more) -> list[list[Row]]:
    return [[Row(*row.item()) for row in call.rows] for call in table_of(*calls, **more).calls]


def test_what_a_row_says_of_each_operation():
    embed, norm, up, append, scores, softmax, add = rows()[0]
    assert [row.form for row in rows()[0]] == [
        VECTOR, VECTOR, LINEAR, VECTOR, MATMUL, VECTOR, VECTOR,
    ]  # fmt: skip
    # a table of 2 x 8 bytes, and 4 B for the scale of each of its rows
    assert (embed.beside, embed.weight, embed.out, embed.simple) == (16 + 2 * 4, 0, 32, 16)
    assert (norm.beside, norm.simple, norm.special) == (16 + 32, 16 * 7, 0)
    assert (norm.a, norm.a_class, norm.a_from, norm.b) == (32, STREAM, 0, 0)
    # 48 B of weights; beside them 12 scales of 2 B, a bias of 48 B
    assert (up.weight, up.weight_bits, up.beside, up.unpack) == (48, 4, 24 + 48, 96)
    assert (up.products, up.m, up.n, up.k, up.precision) == (1, 2, 12, 8, PRECISIONS.index("w4a16"))
    # 12 features are half as many again as 8, and not more
    assert (up.out, up.out_class, up.laid_out) == (48, STREAM, 0)
    assert (append.kv_written, append.out, append.out_class) == (4, 0, -1)
    # both query heads read the one head that is stored, which this call has written
    assert (scores.b_heads, scores.keys_are_k, scores.kv, scores.kv_after) == (1, 0, 4, 3)
    assert (scores.laid_out, scores.unpack, scores.out_class) == (4, 8, SCORES)
    assert (scores.a, scores.a_class, scores.a_from) == (32, -1, -1)  # an input of the graph
    assert (softmax.simple, softmax.special, softmax.a_class) == (8 * 4, 8, SCORES)
    assert (add.a_from, add.b_from, add.b) == (0, 1, 32)


def test_what_is_wider_than_half_as_wide_again_is_wide():
    wider = replace(OPS[2], output=activation("up", 1, 2, 13))
    assert rows(((*OPS[:2], wider, *OPS[3:]),))[0][2].out_class == WIDE


def test_a_result_that_is_read_later_is_laid_out():
    later = op("relu", activation("r", 1, 2, 12), UP, vector_elements=24, vector_work="relu")
    assert rows(((*OPS, later),))[0][2].laid_out == 1


def test_weights_of_an_earlier_call_are_known_but_not_rows_of_a_table():
    first, second = rows((OPS, OPS))
    assert [row.known for row in first] == [0, 0, 0, 1, 1, 1, 1]  # without weights all are known
    assert [row.known for row in second] == [0, 1, 1, 1, 1, 1, 1]


def test_keys_of_earlier_calls_wait_for_nobody():
    older = replace(KEYS, shape=(1, 1, 5, 4))
    scores = replace(OPS[4], inputs=(OPS[4].inputs[0], older), gemm=Gemm(count=2, m=2, n=5, k=4))
    assert rows(((*OPS[:4], scores, *OPS[5:]),))[0][4].kv_after == -1


def test_values_are_summed_over_keys():
    """Also where there are as many slots as dimensions: what a softmax made is summed over."""
    values = Tensor(name="v", shape=(1, 1, 5, 4), bits=16, role="kv")
    made = op("multiply", activation("s", 1, 2, 2, 5), activation("z", 1, 2, 2, 5))
    soft = op("softmax", activation("p", 1, 2, 2, 5), activation("s", 1, 2, 2, 5))
    mix = op("matmul", activation("mix", 1, 2, 2, 4), activation("p", 1, 2, 2, 5), values,
             gemm=Gemm(count=2, m=2, n=4, k=5))  # fmt: skip
    row = rows(((made, soft, mix),))[0][2]
    assert (row.keys_are_k, row.b_heads, row.unpack) == (1, 1, 0)
    square = replace(mix, gemm=Gemm(count=2, m=2, n=4, k=4),
                     inputs=(mix.inputs[0], replace(values, shape=(1, 1, 4, 4))))  # fmt: skip
    assert rows(((made, soft, square),))[0][2].keys_are_k == 1
    apart = replace(mix, gemm=Gemm(count=3, m=2, n=4, k=5),
                    inputs=(mix.inputs[0], replace(values, shape=(1, 2, 5, 4))))  # fmt: skip
    assert rows(((apart,),))[0][0].b_heads == 3  # 2 stored heads do not divide 3 products


@pytest.mark.parametrize(("bits", "floats"), [((16, 16), 1), ((8, 16), 0), ((16, 8), 0)])
def test_numbers_are_floats_where_weights_and_activations_have_16_bits(bits, floats):
    widths = Precision(weight_bits=bits[0], activation_bits=bits[1])
    assert rows(precision=widths)[0][0].floats == floats


def test_bytes_that_live_from_the_first_to_the_last_use():
    call = table_of(OPS).calls[0]
    # x lives to the sum, n too; up is read by nobody; scores die with the softmax
    stream = [32, 64, 64 + 48, 64, 64, 64, 64 + 32]
    scores = [0, 0, 0, 0, 16, 32, 0]
    assert call.live[:, 0].tolist() == [0] * 7
    assert call.live[:, 1].tolist() == call.live[:, 2].tolist() == stream
    assert call.live[:, 3].tolist() == [a + b for a, b in zip(stream, scores, strict=True)]
    assert call.peaks.tolist() == [0, 112, 112, 112]


# -- pieces and cycles -----------------------------------------------------------------------------


def numbers(**changes):
    return chip_numbers(CHIP.with_changes({k.replace("__", "."): v for k, v in changes.items()}))


BLOCKS = numbers(matrix__dataflow="blocks", matrix__tile_m=4, matrix__tile_n=4, matrix__tile_k=10)


@pytest.mark.parametrize(
    ("n", "k", "bits", "limit", "piece"),
    [
        (12, 10, 8, 100, (8, 10)),  # ten columns fit, two arrays of four are taken
        (12, 10, 8, 120, (12, 10)),
        (3, 10, 8, 100, (3, 10)),
        (12, 40, 8, 100, (4, 20)),  # not one array of whole columns: two deep
        (12, 40, 8, 39, (3, 10)),  # not even one array
        (12, 40, 8, 7, (1, 7)),
        (12, 40, 4, 20, (4, 10)),
    ],
)
def test_a_piece_of_weights(n, k, bits, limit, piece):
    assert weight_piece(n, k, bits, limit, BLOCKS) == piece


def test_a_piece_of_weights_for_a_systolic_array():
    ws = numbers(matrix__dataflow="ws", matrix__rows=8, matrix__columns=6)
    assert weight_piece(20, 16, 8, 16 * 13, ws) == (12, 16)  # 13 columns fit, two arrays of six
    assert weight_piece(20, 64, 8, 6 * 20, ws) == (6, 16)  # 20 deep fit, two arrays of eight


def test_rows_that_are_computed_together():
    plan = PLAN._replace(piece_bytes=64)
    assert block_rows(10, 0, 0, plan, BLOCKS) == 10
    assert block_rows(10, 100, 0, plan, BLOCKS) == 4  # six rows of 10 B fit: one tile of four
    assert block_rows(10, 0, 300, plan, BLOCKS) == 2  # two results of 30 B: less than a tile
    assert block_rows(10, 6400, 0, plan, BLOCKS) == 1
    outer = plan._replace(rows_outer=True, panel=2)
    assert block_rows(15, 150, 0, outer, BLOCKS) == 12  # of two pieces


def test_keys_of_a_piece_where_attention_leaves_sram():
    row = Row(*rows()[0][4])._replace(n=20, b_heads=2)
    # 2 heads of 20 keys, 160 B: 4 B a key, ten keys in 40 B
    assert key_piece(row, 160, 0, PLAN, BLOCKS) == (10, 4, 4)
    # a row of 60 B has 30 for ten keys: one of four rows fits
    assert key_piece(row, 160, 60, PLAN, BLOCKS) == (10, 4, 1)
    assert key_piece(row, 0, 20, PLAN, BLOCKS) == (20, 1, 2)


def test_what_streams_is_cut_in_proportion():
    assert [share_of(100, at, 3, 7) for at in (0, 3)] == [42, 85 - 42]
    total = 1 << 33  # halves, though a product of both would pass 63 bits
    assert share_of(1 << 40, 0, total // 2, total) == 1 << 39
    assert share_of(1 << 40, total // 2, total // 2, total) == 1 << 39


@pytest.mark.parametrize(("rows", "whole"), [(1, 4), (3, 4), (4, 4), (5, 8), (8, 8), (17, 24)])
def test_few_rows_lie_in_a_tile_and_more_in_whole_blocks(rows, whole):
    assert whole_rows(rows, numbers(sram__tile_rows=4, sram__block_rows=8)) == whole
    assert whole_rows(4, numbers(sram__tile_rows=4, sram__block_rows=64)) == 4


@pytest.mark.parametrize(("empty", "share", "moved"), [(0, 0.5, 80), (10, 0.5, 60), (20, 0.25, 20)])
def test_an_empty_slot_takes_its_share_of_time(empty, share, moved):
    row = Row(*rows()[0][4])._replace(kv=20, empty=empty)
    assert cache_moved(80, row, numbers(dma__empty_slot_share=share)) == moved


def test_layouts_and_products_are_rounded_up():
    assert layout_cycles(7, 2_000_000_000, numbers()) == 4  # two elements a cycle
    assert layout_cycles(7, 0, numbers()) == 0
    assert layout_cycles(7, 1, numbers()) == 7_000_000_000
    # 2 x 4 x 10 slots of 3 products at 7 MACs a cycle
    assert matrix_cycles(3, 1, 1, 1, 7_000_000, BLOCKS) == -(-3 * 160 // 7)


def test_cycles_of_vector_work():
    chip = CHIP.with_changes(
        {"vector.special_function_cycles": 2.5, "vector.width_bytes": 8, "vector.efficiency": 0.5,
         "vector.float_efficiency": 0.25}
    )  # fmt: skip
    call = table_of(OPS).calls[0]
    # 8 elements of 4 simple steps and one of 2.5 cycles: 52, on 4 lanes of 2 B, half of them busy
    assert vector_cycles(call.rows, chip)[5] == 26
    assert vector_cycles(call.rows, chip)[1] == 56  # 16 x 7
    call.rows["floats"] = 1
    assert vector_cycles(call.rows, chip)[5] == 52


# -- plans -----------------------------------------------------------------------------------------


def test_what_may_stay_between_calls_is_less_than_sram():
    table = table_of(OPS, stored=100)  # and 4 B of keys
    with_sram = {
        100: [(0, 4)], 101: [(100, 0), (0, 4)], 104: [(100, 0), (0, 4)],
        105: [(100, 0), (0, 4), (100, 4)],
    }  # fmt: skip
    for capacity, pins in with_sram.items():
        chip = CHIP.with_value("sram.capacity_bytes", capacity)
        assert pin_choices(table, chip) == [(0, 0), *pins]
        assert pin_choices(table, chip.with_value("sram.keeps_between_calls", False)) == [(0, 0)]


def test_a_plan_divides_what_pins_leave():
    call = table_of(OPS).calls[0]
    chip = CHIP.with_changes({"dma.transfer_bytes": 160, "sram.capacity_bytes": 100_000})
    found = list(plans(call, chip, (1_000, 0)))
    first = found[0]
    assert (first.kept_classes, first.kept_bytes, first.piece_bytes) == (3, 112, 160)
    assert first.rings == (99_000 - 112 - 2 * 160, 0, 2 * 160)
    assert (first.weights_pinned, first.cache_pinned) == (True, False)
    # pieces of 160 and 10 bytes; orders are tried where the stream itself leaves
    assert [(p.kept_classes, p.piece_bytes) for p in found] == [
        (3, 160), (3, 10), (2, 160), (2, 10), *[(1, 160)] * 6, (1, 10), *[(0, 160)] * 6, (0, 10),
    ]  # fmt: skip
    outside = next(p for p in found if p.rows_outer and p.panel == 4 and p.kept_classes == 0)
    assert outside.activation_ring_bytes == (1 + 4) * 160
    inside = next(p for p in found if not p.rows_outer and p.panel == 4)
    assert inside.activation_ring_bytes == 2 * 160


def test_a_compiler_that_fuses_keeps_all_activations_in_half_of_sram():
    call = table_of(OPS).calls[0]
    chip = CHIP.with_changes(
        {"dma.transfer_bytes": 16, "sram.capacity_bytes": 200, "sram.fuses_operations": True}
    )
    found = list(plans(call, chip, (0, 0)))
    assert {p.kept_classes for p in found} == {3}
    assert (found[0].kept_bytes, found[0].weight_ring_bytes) == (100, 100 - 2 * 16)


# -- runs ------------------------------------------------------------------------------------------


def test_where_the_time_of_an_operation_goes():
    table = table_of(tuple(OPS[:5])).calls[0]
    times = np.zeros(5, TIMES)
    times["begin"], times["end"] = np.arange(0, 500, 100), np.arange(100, 600, 100)
    times["busy_cycles"] = [  # start, reads, matrix, vector, writes
        [20, 30, 50, 10, 0],  # 20 of 100 are left: it waits for memory
        [20, 70, 30, 60, 0],  # the vector engine fills the rest
        [20, 70, 30, 10, 0],  # pieces stream, and the DMA is slowest
        [20, 40, 30, 35, 0],  # of what streams
        [20, 31, 30, 31, 0],  # the DMA is no slower than the vector engine
    ]
    run = CallRun(table=table, plan=PLAN, cycles=507, overhead_cycles=0, times=times)
    assert row_limits(run).tolist() == [
        [50, 10, 20, 20], [30, 50, 0, 20], [0, 0, 80, 20], [0, 0, 80, 20],
        [30, 31, 100 + 7 - 20 - 61, 20],  # the last result is still written for 7 cycles
    ]  # fmt: skip


def test_a_call_takes_the_fastest_of_its_plans():
    chip = CHIP.with_changes({"dma.transfer_bytes": 64, "sram.capacity_bytes": 1_200})
    call, bench = table_of(OPS).calls[0], Bench(chip)
    tried = []
    for plan in plans(call, chip, (0, 0)):
        found = bench.time(call, vector_cycles(call.rows, chip), plan)
        if found is not None:
            tried.append(found[0])
    assert bench.fastest(call, (0, 0)).cycles == min(tried) < max(tried)


def test_a_runtime_takes_its_time_for_each_call_and_position():
    chip = CHIP.with_changes({"geniex_overhead_us": 3.0, "geniex_position_us": 2.0})
    table = table_of(OPS, OPS)
    hosted = replace(table, program=replace(table.program, runtime="geniex"))
    run = simulate_tiles(hosted, chip)
    # 100 us of the call, 3 of the runtime and 2 for each of two positions
    assert [call.overhead_cycles for call in run.calls] == [107_000] * 2
    assert run.cycles == sum(call.cycles for call in run.calls) + 214_000


def test_what_stays_between_calls_is_read_once():
    table = table_of(OPS, OPS, stored=300)
    slow = CHIP.with_value("dma.bytes_per_s", 1_000_000)  # 1,000 cycles for each byte
    run = simulate_tiles(table, slow)
    assert run.pins == (300, 4)  # one cache, written in both calls
    # gains, weights and biases: 48 + 48 + 72 B; rows of the table, 24 B, are read in each call
    assert [call.times["dram_bytes"][:, 0].sum() for call in run.calls] == [168 + 24, 24]
    assert run.peak_sram_bytes == max(call.sram_bytes for call in run.calls) + 304
    once = simulate_tiles(table, slow.with_value("sram.keeps_between_calls", False))
    assert [call.times["dram_bytes"][:, 0].sum() for call in once.calls] == [192, 192]


def test_sram_of_a_run_holds_what_its_tasks_hold():
    chip = CHIP.with_changes({"dma.transfer_bytes": 16, "per_op_overhead_cycles": 10})
    call = simulate_tiles(table_of(OPS), chip).calls[0]
    tasks = call_tasks(call, chip)
    used = sram_bytes(call, tasks)
    at = [cycle for cycle, _ in used]
    assert at == sorted(set(at))
    # brute force: at each change, the tasks that hold something and the activations that live
    for cycle, n_bytes in used:
        begun = np.flatnonzero(call.times["begin"] <= cycle)
        live = call.table.live[begun[-1], call.plan.kept_classes] if len(begun) else 0
        held = sum(
            int(t["held_bytes"]) for t in tasks
            if t["held_bytes"] and t["start"] <= cycle < tasks[t["last_user"]]["end"]
        )  # fmt: skip
        assert n_bytes == held + live
    assert call.sram_bytes == sum(call.plan.rings) + call.plan.kept_bytes


def test_what_tried_a_plan_in_vain_is_let_go(monkeypatch):
    """Circles of objects are looked for rarely, and tasks of a long input take much memory."""
    benches: list[weakref.ref] = []
    timed = Bench.time

    def refused(self, call, work, plan):
        if not benches:
            benches.append(weakref.ref(self))
            raise HardwareError("too many tasks")
        return timed(self, call, work, plan)

    monkeypatch.setattr(Bench, "time", refused)
    gc.collect()
    gc.disable()
    try:
        simulate_tiles(table_of(OPS), CHIP)
        (bench,) = benches
        assert bench() is None
    finally:
        gc.enable()


def test_what_no_plan_can_hold_is_refused():
    # the smallest pieces have 1,000 B: five and all activations would do, or seven
    chip = CHIP.with_changes({"dma.transfer_bytes": 16_000, "sram.capacity_bytes": 5_112})
    simulate_tiles(table_of(OPS), chip)
    with pytest.raises(
        CapacityError, match=r"hold 7 pieces .* together 7000 bytes, got 5111, 1889"
    ):
        simulate_tiles(table_of(OPS), chip.with_value("sram.capacity_bytes", 5_111))


@pytest.mark.parametrize(
    ("first", "last", "found"),
    [
        (0, 5, [(0, 0, 5)]),
        (3, 5, [(0, 3, 5)]),
        (3, 7, [(0, 3, 5), (1, 0, 2)]),
        (5, 10, [(1, 0, 5)]),
        (4, 11, [(0, 4, 5), (1, 0, 5), (2, 0, 1)]),
    ],
)
def test_keys_of_a_piece_count_on_from_head_to_head(first, last, found):
    assert _keys_of(-1, first, last, 5, 3) == found
    assert _keys_of(2, first, last, 5, 3) == [(2, first, last)]
