"""Exact lists of events, worked out by hand, and two clocks that must agree."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu_ref.presets import tiny
from npu_sim.errors import CapacityError
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.program import Call, Gemm, Op, Program, Tensor
from npu_sim.program.request import record_request
from npu_sim.program.rows import program_table
from npu_sim.tile.engine import run
from npu_sim.tile.schedule import schedule
from npu_sim.tile.simulate import call_tasks, simulate_tiles
from npu_sim.tile.tasks import ENGINES, PARTS

TEACHING = npu("teaching-npu")  # 10 B/cycle + 100, 1000 per operation, 32 x 32 cells at half rate


def activation(name, *shape):
    return Tensor(name=name, shape=(1, *shape), bits=16, role="activation")


def linear(site, x, d_out, bits=8):
    n_tok, d_in = x.shape[-2:]
    weight = Tensor(name=f"{site}.weight", shape=(d_out, d_in), bits=bits, role="weight")
    return Op(
        site=site, kind="linear", phase="decode", inputs=(x, weight),
        output=activation(site, n_tok, d_out), gemm=Gemm(count=1, m=n_tok, n=d_out, k=d_in),
    )  # fmt: skip


def program(*ops):
    return Program(
        model="by hand", precision=Precision(), n_input=1, n_output=1, batch=1,
        stored_weight_bytes=sum(op.weight_bytes for op in ops),
        calls=(Call(phase="decode", ops=ops),),
    )  # fmt: skip


def events(ops, chip):
    """(engine, what, start, end) by start, then by engine; nothing of length zero."""
    found = simulate_tiles(program_table(program(*ops)), chip)
    tasks = call_tasks(found.calls[0], chip)
    listed = [
        (int(task.start), int(task.engine), PARTS[task.part], int(task.end))
        for task in tasks
        if task.end > task.start
    ]
    return [(ENGINES[engine], part, start, end) for start, engine, part, end in sorted(listed)]


def two_products():
    first = linear("up", activation("x", 1, 64), 128)
    return first, linear("down", first.output, 64)


def test_weights_of_the_second_product_are_read_during_the_first():
    # up: 8,192 B + 128 scales of 4 B: 100 + 871; 4 folds x (64 + 62) cycles at half rate
    # down: 8,192 B + 64 scales: 100 + 845; 2 folds x (128 + 62) at half rate
    assert events(two_products(), TEACHING) == [
        ("control", "start", 0, 1000),
        ("dma_in", "weights", 0, 971),
        ("dma_in", "weights", 971, 1916),
        ("matrix", "product", 1000, 2008),
        ("control", "start", 2008, 3008),
        ("matrix", "product", 3008, 3768),
    ]


def test_a_matrix_in_two_pieces_computes_while_the_second_is_read():
    chip = TEACHING.with_changes({"dma.transfer_bytes": 4096, "per_op_overhead_cycles": 0})
    assert events(two_products()[:1], chip) == [
        ("dma_in", "weights", 0, 561),  # 4,096 B and all 512 B of scales
        ("dma_in", "weights", 561, 1071),
        ("matrix", "product", 561, 1065),
        ("matrix", "product", 1071, 1575),
    ]


def test_reading_waits_until_sram_has_room_again():
    # three pieces of 4,096 B fit the ring; the fourth waits for the product of the first
    op = linear("up", activation("x", 1, 64), 256)
    x, y = 128, 512
    chip = TEACHING.with_changes({
        "dma.transfer_bytes": 4096, "per_op_overhead_cycles": 5000,
        "sram.capacity_bytes": 3 * 4096 + 1024 + 2 * 4096 + x + y,
        "sram.keeps_between_calls": False,
    })  # fmt: skip
    found = events([op], chip)
    reads = [(start, end) for engine, _, start, end in found if engine == "dma_in"]
    products = [(start, end) for engine, _, start, end in found if engine == "matrix"]
    assert reads[:3] == [(0, 612), (612, 1122), (1122, 1632)]
    assert products[0] == (5000, 5504)
    assert reads[3] == (5504, 6014)
    assert products[-1] == (6512, 7016)


def test_four_bit_weights_are_unpacked_before_they_multiply():
    chip = TEACHING.with_value("per_op_overhead_cycles", 0)
    op = linear("up", activation("x", 1, 64), 128, bits=4)
    # 4,096 B + 128 scales of one group, 2 B; 8,192 elements at 64 per cycle
    assert events([op], chip) == [
        ("dma_in", "weights", 0, 536),
        ("vector", "unpack", 536, 664),
        ("matrix", "product", 664, 1672),
    ]


def test_an_elementwise_operation_waits_for_its_operation_to_begin():
    x = activation("x", 1, 3200)
    op = Op(
        site="act", kind="activation", phase="decode", inputs=(x,), output=activation("y", 1, 3200),
        vector_elements=3200, vector_work="silu",
    )  # fmt: skip
    assert events([op], TEACHING) == [
        ("control", "start", 0, 1000), ("vector", "elements", 1000, 2400),
    ]  # fmt: skip


def small_runs(n_input, n_output, sram, transfer, overhead, keeps):
    chip = TEACHING.with_changes(
        {
            "sram.capacity_bytes": sram, "dma.transfer_bytes": transfer,
            "per_op_overhead_cycles": overhead, "sram.keeps_between_calls": keeps,
        }
    )  # fmt: skip
    table = program_table(record_request(tiny(), n_input, n_output, Precision(weight_bits=4)))
    try:
        return simulate_tiles(table, chip), chip
    except CapacityError:
        return None, chip


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 2), st.integers(1500, 30_000),
    st.sampled_from([128, 1024]), st.sampled_from([0, 30]), st.booleans(),
)  # fmt: skip
def test_the_clock_and_the_loop_over_events_agree(n_input, n_output, sram, transfer, over, keeps):
    found, chip = small_runs(n_input, n_output, sram, transfer, over, keeps)
    for call in found.calls if found else ():
        timed = call_tasks(call, chip)
        if len(timed) > 1500:
            continue
        by_events = run(list(schedule(call.table, call.plan, chip)), call.plan)
        assert list(zip(timed["start"].tolist(), timed["end"].tolist(), strict=True)) == by_events
        assert max(end for _, end in by_events) == call.cycles


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sram.capacity_bytes": 2000}, "sram.capacity_bytes must hold 7 pieces .* too few"),
        ({"sram.capacity_bytes": 80_000, "dma.transfer_bytes": 65_536},
         r"x must fit the 80.0 kB SRAM .* got 200000 bytes in a row .* 195904 too much; at least"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_the_bytes_over(changes, message):
    op = linear("up", activation("x", 1, 100_000), 4)
    made = Op(
        site="x", kind="activation", phase="decode", inputs=(), output=activation("x", 1, 100_000),
        vector_elements=1, vector_work="relu",
    )  # fmt: skip
    with pytest.raises(CapacityError, match=message):
        simulate_tiles(program_table(program(made, op)), TEACHING.with_changes(changes))


def test_a_long_text_on_a_small_chip_streams_its_embeddings():
    chip = TEACHING.with_value("sram.capacity_bytes", 16_384).with_value("dma.transfer_bytes", 2048)
    request = record_request(tiny(), 1500, 1, Precision())  # 1,500 rows of 20 B are read
    found = simulate_tiles(program_table(request), chip)
    moved = found.calls[0].times[0].dram_bytes[0]
    assert moved == 1500 * (16 + 4)
