"""Schedules worked out by hand: what leaves SRAM, what is unpacked, what is pinned, odd sizes.

The chip of these tests moves 10 B per cycle after 5 cycles of set-up, starts an operation in 20,
unpacks 7 elements per cycle and multiplies 10 pairs per cycle in blocks of 2 x 4 x 10.
"""

import numpy as np
import pytest

from npu_sim.errors import CapacityError
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.program import Call, Gemm, Op, Program, Tensor
from npu_sim.program.rows import program_table
from npu_sim.tile import engine, schedule_kernel
from npu_sim.tile.engine_kernel import NO_MARKS, NO_RINGS, TIMES, find_room, run
from npu_sim.tile.least import least_cycles, least_tasks
from npu_sim.tile.plan import Plan, plans
from npu_sim.tile.schedule import schedule
from npu_sim.tile.tasks import ENGINES, PARTS, TASK
from npu_sim.tile.tiling import chip_numbers, vector_cycles

CHIP = npu("teaching-npu").with_changes(
    {
        "dma.setup_cycles": 5, "per_op_overhead_cycles": 20, "vector.width_bytes": 4,
        "vector.unpack_elements_per_cycle": 7, "matrix.dataflow": "blocks", "matrix.tile_m": 2,
        "matrix.tile_n": 4, "matrix.tile_k": 10, "matrix.w4a16_macs_per_cycle": 10,
        "matrix.w8a16_macs_per_cycle": 10,
    }
)  # fmt: skip
PLAN = Plan(
    piece_bytes=40, kept_classes=0, rows_outer=False, panel=1, kept_bytes=0, weight_ring_bytes=150,
    activation_ring_bytes=80, out_ring_bytes=80, weights_pinned=False, cache_pinned=False,
)  # fmt: skip


def activation(name, *shape):
    return Tensor(name=name, shape=(1, *shape), bits=16, role="activation")


def relu(name, *shape):
    """Makes [shape] from an input of the graph, which lies in SRAM."""
    source, n_elements = activation(f"{name}.in", *shape), int(np.prod(shape))
    return Op(
        site=name, kind="activation", phase="decode", inputs=(source,),
        output=activation(name, *shape), vector_elements=n_elements, vector_work="relu",
    )  # fmt: skip


def linear(site, x, d_out, bits):
    m, d_in = x.shape[-2:]
    weight = Tensor(name=f"{site}.weight", shape=(d_out, d_in), bits=bits, role="weight")
    return Op(
        site=site, kind="linear", phase="decode", inputs=(x, weight),
        output=activation(site, m, d_out), gemm=Gemm(count=1, m=m, n=d_out, k=d_in),
    )  # fmt: skip


def scores(q, keys):
    """Queries [heads, m, d] against cached keys [kv heads, n, d]."""
    heads, m, d = q.shape[1:]
    n = keys.shape[-2]
    return Op(
        site="scores", kind="matmul", phase="decode", inputs=(q, keys),
        output=activation("scores", heads, m, n), gemm=Gemm(count=heads, m=m, n=n, k=d),
    )  # fmt: skip


def call_of(*ops):
    program = Program(
        model="by hand", precision=Precision(), n_input=1, n_output=1, batch=1,
        stored_weight_bytes=0, calls=(Call(phase="decode", ops=ops),),
    )  # fmt: skip
    return program_table(program).calls[0]


def written(call, plan, chip=CHIP):
    """Tasks of the kernel with their times, which must be those of the plain versions."""
    tasks = np.zeros(1000, TASK)
    work = vector_cycles(call.rows, chip)
    tasks = tasks[: schedule_kernel.schedule(call.rows, work, plan, chip_numbers(chip), tasks)]
    plain = list(schedule(call, plan, chip))
    assert find_room(tasks, plan.rings, NO_MARKS, NO_RINGS)
    times = np.zeros(len(call.rows), TIMES)
    run(tasks, call.rows["kv_written"] > 0, False, times)
    spans = list(zip(tasks["start"].tolist(), tasks["end"].tolist(), strict=True))
    assert spans == engine.run(plain, plan)
    streamed = tasks.copy()
    run(streamed, call.rows["kv_written"] > 0, True, times.copy())
    spans = list(zip(streamed["start"].tolist(), streamed["end"].tolist(), strict=True))
    assert spans == engine.run(plain, plan, streams=True)
    for task, other in zip(tasks, plain, strict=True):
        assert (task.engine, task.part, task.n_bytes, task.held_bytes) == (
            other.engine, other.part, other.n_bytes, other.held_bytes,
        )  # fmt: skip
    return tasks, times


def lines(tasks):
    """(engine, part, bytes moved, bytes held, start, end) in the order of the list."""
    return [
        (ENGINES[t.engine], PARTS[t.part], t.n_bytes, t.held_bytes, t.start, t.end) for t in tasks
    ]


def spilling_product():
    """[3 10] through DRAM times 4-bit [12 10]: pieces of 8 and 4 columns, blocks of 2 and 1 rows.

    A piece has 40 B, which is 8 columns of 10 weights of half a byte. A row of x has 20 B and of 8
    results 16 B, so two rows fit. Scales of 2 B for each of 12 rows come with the first piece.
    """
    x = relu("x", 3, 10)
    return call_of(x, linear("up", x.output, 12, bits=4))


def test_a_product_whose_activations_leave_sram_with_weights_to_unpack():
    tasks, _ = written(spilling_product(), PLAN)
    assert lines(tasks) == [
        ("control", "start", 0, 0, 0, 20),
        # 30 elements, 2 at a time: 15 cycles, of which the first 40 of 60 B take 10
        ("vector", "elements", 0, 40, 20, 30),
        ("dma_out", "write", 40, 0, 30, 39),
        ("dma_in", "give way", 0, 0, 0, 9),
        ("vector", "elements", 0, 20, 30, 35),
        ("dma_out", "write", 20, 0, 39, 46),
        ("dma_in", "give way", 0, 0, 9, 16),
        ("control", "start", 0, 0, 35, 55),
        # two rows of x, as soon as all of x is written
        ("dma_in", "activation", 40, 40, 46, 55),
        # 40 B and 24 B of scales, and room for 80 weights of 8 bits, which take 12 cycles
        ("dma_in", "weights", 64, 64 + 80, 55, 67),
        ("vector", "unpack", 0, 0, 67, 79),
        # 1 x 2 x 1 blocks of 80: 160 / 10
        ("matrix", "product", 0, 32, 79, 95),
        ("dma_out", "write", 32, 0, 95, 104),
        ("dma_in", "give way", 0, 0, 67, 76),
        ("dma_in", "activation", 20, 20, 76, 83),
        ("matrix", "product", 0, 16, 95, 111),
        ("dma_out", "write", 16, 0, 111, 118),
        ("dma_in", "give way", 0, 0, 83, 90),
        # 40 + 20 + 40 B are more than the 80 of the ring: until the first product has ended
        ("dma_in", "activation", 40, 40, 95, 104),
        # 144 + 60 B are more than 150: until the last product with the first piece has ended
        ("dma_in", "weights", 20, 20 + 40, 111, 118),
        ("vector", "unpack", 0, 0, 118, 124),
        ("matrix", "product", 0, 16, 124, 132),
        ("dma_out", "write", 16, 0, 132, 139),
        ("dma_in", "give way", 0, 0, 118, 125),
        ("dma_in", "activation", 20, 20, 125, 132),
        ("matrix", "product", 0, 8, 132, 140),
        ("dma_out", "write", 8, 0, 140, 146),
        ("dma_in", "give way", 0, 0, 132, 138),
    ]  # fmt: skip


def test_what_each_operation_did_is_added_up():
    _, times = written(spilling_product(), PLAN)
    first, second = times
    assert (first.begin, first.end, second.begin, second.end) == (0, 35, 35, 140)
    assert first.busy_cycles.tolist() == [20, 16, 0, 15, 16]
    # reads 9 + 12 + 7 + 9 + 7 + 7, ways given 9 + 7 + 7 + 6
    assert second.busy_cycles.tolist() == [20, 51 + 29, 48, 18, 29]
    assert first.dram_bytes.tolist() == [0, 0, 60]
    assert second.dram_bytes.tolist() == [84, 0, 2 * 60 + 72]


def test_streaming_an_operation_begins_on_the_first_part_and_ends_behind_the_last():
    """Parts are sixteenths: of 20 cycles 2, of ten products of 16 cycles 10, of 80 cycles 5."""
    x = relu("x", 4, 10)
    up = linear("up", x.output, 40, bits=8)
    y = Op(
        site="y", kind="activation", phase="encode", inputs=(up.output,),
        output=activation("y", 4, 40), vector_elements=160, vector_work="relu",
    )  # fmt: skip
    call, plan = call_of(x, up, y), PLAN._replace(kept_classes=3, weight_ring_bytes=999)
    tasks, _ = written(call, plan)
    times = np.zeros(3, TIMES)
    # starts of 20 cycles: x from 20 to 40; up begins at 20 + 2, its products from 42 to 202;
    # y begins at 42 + 10 and has computed what there is by 152, its last part 5 behind 202
    assert run(tasks, call.rows["kv_written"] > 0, True, times) == 207
    assert times["begin"].tolist() == [0, 40, 202]
    assert times["end"].tolist() == [40, 202, 207]
    starts = [(t.start, t.end) for t in tasks if PARTS[t.part] == "start"]
    assert starts == [(0, 20), (22, 42), (52, 72)]
    assert (tasks[-1].start, tasks[-1].end) == (72, 152)


def test_a_matrix_too_deep_for_a_piece_is_summed_piece_by_piece():
    """Two columns of 40 bytes in pieces of 20: four times ten deep; only the last sum is a result.

    Scales of 2 x 4 B come with the first piece. A product of ten deep takes 80 / 10 cycles.
    """
    kept = PLAN._replace(piece_bytes=20)
    tasks, _ = written(call_of(linear("up", activation("x", 1, 40), 2, bits=8)), kept)
    moved = [(PARTS[t.part], t.n_bytes, t.sum_0, t.sum_1) for t in tasks if t.part > 0]
    expected = []
    for first in (0, 10, 20, 30):
        n_bytes = 20 + 8 if first == 0 else 20
        expected += [("weights", n_bytes, first, first + 10), ("product", 0, first, first + 10)]
    assert moved == [*expected, ("write", 4, 0, 0), ("give way", 0, 0, 0)]
    products = tasks[tasks["part"] == PARTS.index("product")]
    assert products["cycles"].tolist() == [8] * 4


def test_bundled_blocks_of_rows_read_their_weights_for_each():
    """[260 10] through DRAM times [8 10], two rows at a time: 130 blocks, 2 in a task."""
    x = relu("x", 260, 10)
    call = call_of(x, linear("up", x.output, 8, bits=8))
    tasks, _ = written(call, PLAN._replace(rows_outer=True))
    read = [t.n_bytes for t in tasks if PARTS[t.part] == "weights"]
    scales = 8 * 4  # of 4 B, with the first piece
    assert len(read) == 130
    assert sum(read) == pytest.approx(130 * 80, abs=130 * scales)
    once, _ = written(call, PLAN._replace(rows_outer=False))
    assert sum(t.n_bytes for t in once if PARTS[t.part] == "weights") < 80 + 2 * scales


def test_a_ring_that_is_just_full_holds_what_it_should():
    """28 and 20 B fill 48: the second piece comes at once, the third when the first is used up."""
    kept = PLAN._replace(piece_bytes=20, kept_classes=3, weight_ring_bytes=48)
    tasks, _ = written(call_of(linear("up", activation("x", 1, 40), 2, bits=8)), kept)
    reads = tasks[tasks["part"] == PARTS.index("weights")]
    # 5 + 3 and 5 + 2 cycles; products of 8 cycles begin with the operation, at 20
    assert reads["start"].tolist() == [0, 8, 28, 36]


def test_four_query_heads_read_two_stored_heads_twice_as_tall():
    keys = Tensor(name="keys", shape=(1, 2, 5, 8), bits=16, role="kv")
    call = call_of(scores(activation("q", 4, 1, 8), keys))
    tasks, _ = written(call, PLAN._replace(kept_classes=3, piece_bytes=1000, weight_ring_bytes=200))
    # two products of [2 8] x [8 5]: 1 x 2 x 1 blocks of 80 at 256 a cycle
    assert tasks["cycles"].tolist()[1:] == [5 + 16, 2]
    assert (tasks[-1]["row_1"], tasks[-1]["col_1"]) == (2, 2 * 5)


@pytest.mark.parametrize(("known", "read"), [(0, [64, 20]), (1, [0, 0])])
def test_pinned_weights_take_no_room_but_what_is_unpacked_of_them_does(known, read):
    call = spilling_product()
    call.rows["known"] = known
    tasks, _ = written(call, PLAN._replace(weights_pinned=True))
    weights = tasks[tasks["part"] == PARTS.index("weights")]
    assert weights["n_bytes"].tolist() == read
    assert weights["held_bytes"].tolist() == [80, 40]


def test_four_bit_weights_of_an_odd_size_are_rounded_up():
    # 3 x 5 weights: 7.5 B and 3 scales of 2 B; 15 elements at 7 per cycle
    kept = PLAN._replace(kept_classes=3)
    tasks, _ = written(call_of(linear("up", activation("x", 1, 5), 3, bits=4)), kept)
    assert lines(tasks) == [
        ("control", "start", 0, 0, 0, 20),
        ("dma_in", "weights", 8 + 6, 8 + 6 + 15, 0, 7),
        ("vector", "unpack", 0, 0, 20, 23),
        ("matrix", "product", 0, 0, 23, 31),
    ]  # fmt: skip


def cached_scores():
    """Two query heads share five cached keys of 8 x 4 bits: 20 B."""
    keys = Tensor(name="keys", shape=(1, 1, 5, 8), bits=4, role="kv")
    return call_of(scores(activation("q", 2, 1, 8), keys))


def test_cached_keys_of_four_bits_are_laid_out_and_unpacked_piece_by_piece():
    chip = CHIP.with_changes({"dma.cache_bytes_per_s": 250_000_000, "matrix.tile_k": 8})
    tasks, times = written(cached_scores(), PLAN._replace(kept_classes=3, piece_bytes=8), chip)
    # 2 keys of 8 elements, 8 B, at 4 cycles each; two rows: 1 x 2 x 1 blocks of 64, 128 / 10 in
    # all, of which two keys among many take 2 x 2 x 8 / 10
    assert lines(tasks) == [
        ("control", "start", 0, 0, 0, 20),
        ("dma_in", "cache", 8, 24, 0, 38),
        ("vector", "unpack", 0, 0, 38, 41),
        ("matrix", "product", 0, 0, 41, 44),
        ("dma_in", "cache", 8, 24, 38, 76),
        ("vector", "unpack", 0, 0, 76, 79),
        ("matrix", "product", 0, 0, 79, 82),
        ("dma_in", "cache", 4, 12, 76, 98),
        ("vector", "unpack", 0, 0, 98, 100),
        ("matrix", "product", 0, 0, 100, 107),
    ]  # fmt: skip
    products = tasks[tasks["part"] == PARTS.index("product")]
    keys = list(zip(products["col_0"].tolist(), products["col_1"].tolist(), strict=True))
    assert keys == [(0, 2), (2, 4), (4, 5)]
    assert times[0].dram_bytes.tolist() == [0, 20, 0]


def test_a_pinned_cache_is_not_read():
    tasks, times = written(cached_scores(), PLAN._replace(kept_classes=3, cache_pinned=True))
    assert [PARTS[t.part] for t in tasks] == ["start", "product"]
    assert times[0].dram_bytes.sum() == 0


def test_scores_that_leave_sram_are_written_head_by_head():
    # 2 heads of [1 5] 16-bit results: 10 B each; 2 kv heads of 20 B of keys
    keys = Tensor(name="keys", shape=(1, 2, 5, 8), bits=4, role="kv")
    call = call_of(scores(activation("q", 2, 1, 8), keys))
    tasks, _ = written(call, PLAN._replace(weight_ring_bytes=100))
    moved = [(PARTS[t.part], t.n_bytes, t.held_bytes, t.head) for t in tasks if t.part > 0]
    one_head = [("cache", 20, 60), ("unpack", 0, 0), ("product", 0, 10), ("write", 10, 0)]
    expected = []
    for head in (0, 1):
        expected += [(*line, head if line[0] == "product" else -1) for line in one_head]
        expected += [("give way", 0, 0, -1)]
    assert moved == expected


def test_what_is_written_to_the_cache_counts_as_cache():
    # 60 B of keys made of an input; they stay in the ring of results until they are written
    source = activation("k", 3, 10)
    append = Op(
        site="append", kind="append", phase="decode", inputs=(source,),
        output=Tensor(name="cache", shape=(1, 3, 10), bits=16, role="kv"),
    )  # fmt: skip
    tasks, times = written(call_of(append), PLAN)
    assert lines(tasks)[1:] == [
        ("vector", "elements", 0, 40, 20, 20),
        ("dma_out", "write", 60, 0, 20, 31),
        ("dma_in", "give way", 0, 0, 0, 11),
    ]
    assert times[0].dram_bytes.tolist() == [0, 60, 0]


def test_a_piece_without_room_stops_the_loop_over_events_and_the_kernel():
    call = spilling_product()
    small = PLAN._replace(activation_ring_bytes=39)  # two rows of x hold 40
    tasks = np.zeros(1000, TASK)
    work = vector_cycles(call.rows, CHIP)
    n_tasks = schedule_kernel.schedule(call.rows, work, small, chip_numbers(CHIP), tasks)
    assert not find_room(tasks[:n_tasks], small.rings, NO_MARKS, NO_RINGS)
    with pytest.raises(CapacityError, match="waits for SRAM"):
        engine.run(list(schedule(call, small, CHIP)), small)


def test_a_plan_takes_at_least_the_stream_and_the_set_up_of_each_piece():
    # 60 B of x are written in 2 pieces. Each of 2 panels of weights reads them again, in 2 blocks
    # of rows, and writes results in 2: 120 B in 4 transfers and 72 B in 4. 84 B of weights and
    # scales come in 2: 336 / 10 cycles, and 12 set-ups of 5
    chip = chip_numbers(CHIP)
    assert least_cycles(spilling_product(), np.zeros(2), PLAN, chip) == 33 + 12 * 5
    # 3 pieces of 4 columns, 3 blocks of a row: 60 + 180 + 72 + 84 B in 3 + 9 + 9 + 3 transfers
    halves = PLAN._replace(piece_bytes=20)
    assert least_cycles(spilling_product(), np.zeros(2), halves, chip) == 39 + 24 * 5
    # with rows outside weights come for both blocks: 60 + 60 + 72 + 168 B in 2 + 2 + 4 + 4
    outside = PLAN._replace(rows_outer=True)
    assert least_cycles(spilling_product(), np.zeros(2), outside, chip) == 36 + 12 * 5
    # a DMA that waits reads 60 + 168 B in 2 + 4, after each of 2 starts of 200: no less than that
    waits = chip._replace(runs_ahead=False, op_overhead_cycles=200)
    assert least_cycles(spilling_product(), np.zeros(2), outside, waits) == 2 * 200 + 22 + 6 * 5
    # 2 products and 2 reads of weights by each of 2 blocks, 1 read of x, 2 writes that give way
    assert least_tasks(spilling_product(), outside, chip) == 2 * (2 + 2 + 1 + 2 * 2)


def test_a_ring_of_exactly_three_pieces_is_a_plan_and_a_byte_less_is_none():
    call = call_of(linear("up", activation("x", 1, 5), 3, bits=4))
    live = 3 * 2  # of the result; the input of the graph is not counted
    chip = CHIP.with_changes({"dma.transfer_bytes": 1600, "sram.keeps_between_calls": False})
    exact = chip.with_value("sram.capacity_bytes", live + 3 * 1600 + 2 * 1600)
    first = next(plans(call, exact, (0, 0)))
    assert (first.piece_bytes, first.weight_ring_bytes, first.kept_bytes) == (1600, 4800, live)
    less = exact.with_value("sram.capacity_bytes", exact.sram.capacity_bytes - 1)
    assert next(plans(call, less, (0, 0))).piece_bytes == 100
