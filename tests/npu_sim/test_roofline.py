import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mu_ref.presets import preset, tiny
from npu_sim.errors import CapacityError
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.program import VECTOR_WORK, Gemm, Op, Tensor
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate_program
from npu_sim.roofline.formula import (
    OpCost,
    Work,
    call_cycles,
    compute_cycles,
    dram_bytes,
    kept_values,
    memory_cycles,
    op_cost,
    roofline,
    vector_cycles,
    work_of,
)

TEACHING = npu("teaching-npu")  # 1 GHz, 512 MACs/cycle at W8A16, 10 bytes/cycle, 32 lanes at 16 bit


def activation(*shape, bits=16):
    return Tensor(name="x", shape=shape, bits=bits, role="activation")


def linear(n_tok, d_in, d_out):
    weight = Tensor(name="w", shape=(d_out, d_in), bits=8, role="weight")
    return Op(
        site="up", kind="linear", phase="decode", inputs=(activation(n_tok, d_in), weight),
        output=activation(n_tok, d_out), gemm=Gemm(count=1, m=n_tok, n=d_out, k=d_in),
    )  # fmt: skip


def elementwise(work, n, bits=16):
    x = activation(n, bits=bits)
    return Op(
        site="v", kind="activation", phase="decode", inputs=(x,), output=x,
        vector_elements=n, vector_work=work,
    )  # fmt: skip


def test_one_row_is_bound_by_memory():
    cost = op_cost(linear(1, 1000, 1000), TEACHING)
    assert (cost.compute_cycles, cost.vector_cycles) == (1954, 0)  # 1e6 / 512 = 1953.1
    assert cost.memory_cycles == 100_000  # 1e6 bytes at 10 per cycle
    assert cost.overhead_cycles == 1000
    assert cost.cycles == 101_000
    assert cost.bound == "memory"


def test_many_rows_are_bound_by_compute():
    cost = op_cost(linear(100, 1000, 1000), TEACHING)
    assert (cost.compute_cycles, cost.memory_cycles) == (195_313, 100_000)
    assert cost.bound == "compute"


def test_a_small_op_is_bound_by_its_overhead():
    cost = op_cost(linear(1, 10, 10), TEACHING)
    assert (cost.compute_cycles, cost.memory_cycles, cost.cycles) == (1, 10, 1010)
    assert cost.bound == "overhead"


def test_a_function_costs_its_simple_and_its_special_operations():
    # silu: 4 simple and 1 special of 10 cycles; 32 lanes at 16 bits
    cost = op_cost(elementwise("silu", 3200), TEACHING)
    assert (cost.vector_cycles, cost.memory_cycles, cost.bound) == (1400, 0, "vector")
    assert op_cost(elementwise("silu", 3200, bits=8), TEACHING).vector_cycles == 700


def test_narrow_elements_fill_more_lanes():
    costs = [op_cost(elementwise("relu", 6400, bits=bits), TEACHING) for bits in (4, 8, 16, 32)]
    assert [cost.vector_cycles for cost in costs] == [100, 100, 200, 400]  # 64, 64, 32, 16 lanes


def test_activations_that_do_not_fit_move_through_dram():
    fits = op_cost(elementwise("relu", 131_072), TEACHING)  # 2 x 256 KiB = all of SRAM
    assert fits.dram_bytes == 0
    spills = op_cost(elementwise("relu", 200_000), TEACHING)
    assert spills.dram_bytes == 2 * 2 * 200_000 - 524_288  # what fits may stay
    assert spills.memory_cycles == 27_572  # 275,712 / 10, rounded up


def test_layout_costs_nothing_at_all():
    program = record_request(tiny(), 3, 1, Precision())
    costs = [op_cost(op, TEACHING) for op in program.ops if op.is_layout]
    assert costs
    assert all(cost.cycles == 0 for cost in costs)


def test_every_kind_of_vector_work_in_a_program_has_a_price():
    for name in ("mu-330m", "decoder-only-330m", "tiny"):
        program = record_request(preset(name), 2, 1, Precision())
        assert {op.vector_work for op in program.ops} <= set(VECTOR_WORK)


def test_a_model_larger_than_dram_is_refused_with_the_bytes_over():
    small = TEACHING.with_value("dram.capacity_bytes", 300_000_000)
    program = record_request(preset("mu-330m"), 8, 1, Precision())
    with pytest.raises(CapacityError, match=r"mu-330m must fit the 300 MB DRAM .* too much; use"):
        simulate_program(program, small)


def test_a_model_that_fills_dram_to_the_last_byte_fits():
    program = record_request(tiny(), 3, 2, Precision())
    needed = program.stored_weight_bytes + program.stored_kv_bytes
    simulate_program(
        program, TEACHING.with_value("dram.capacity_bytes", needed), fidelity="roofline"
    )
    with pytest.raises(CapacityError, match="1 B too much"):
        simulate_program(
            program, TEACHING.with_value("dram.capacity_bytes", needed - 1), fidelity="roofline"
        )


# -- each equation, on numbers and on columns ---------------------------------------------------

VALUES = {  # round numbers that no two fields share
    "clock_hz": 1000, "per_op_overhead_cycles": 7,
    "dma.bytes_per_s": 300, "dram.bytes_per_s": 400,
    "sram.capacity_bytes": 50, "sram.fuses_operations": False, "dma.empty_slot_share": 0.4,
    "vector.width_bytes": 10, "vector.special_function_cycles": 2.5, "vector.efficiency": 0.5,
    "matrix.attention_efficiency": 0.25,
    "matrix.w4a8_macs_per_cycle": 16, "matrix.w4a8_efficiency": 0.5,
    "matrix.w4a16_macs_per_cycle": 12, "matrix.w4a16_efficiency": 0.75,
    "matrix.w8a8_macs_per_cycle": 8, "matrix.w8a8_efficiency": 1.0,
    "matrix.w8a16_macs_per_cycle": 4, "matrix.w8a16_efficiency": 0.625,
    "matrix.w16a16_macs_per_cycle": 2, "matrix.w16a16_efficiency": 0.875,
}  # fmt: skip
LINEAR = Work(
    macs=101, precision=3, attention=0, elements=0, simple_operations=0, special_functions=0,
    element_bytes=2, weight_bytes=200, kv_bytes=0, activation_bytes=51,
)  # fmt: skip
SCORES = LINEAR._replace(attention=1, precision=4, weight_bytes=0, kv_bytes=90, activation_bytes=50)
SOFTMAX = LINEAR._replace(
    macs=0, precision=-1, elements=9, simple_operations=4, special_functions=1, weight_bytes=0,
    activation_bytes=36,
)  # fmt: skip


def columns_of(*works):
    return Work(*np.array(works, float).T)


def many(*chips):
    return {path: np.array([[float(chip[path])] for chip in chips]) for path in chips[0]}


def test_the_matrix_engine_takes_the_rate_and_the_share_of_its_operands():
    found = [compute_cycles(LINEAR._replace(precision=p), VALUES) for p in range(5)]
    # 101 over 16 x 0.5, 12 x 0.75, 8 x 1, 4 x 0.625 and 2 x 0.875
    assert found == [13, 12, 13, 41, 58]
    assert compute_cycles(SCORES, VALUES) == 202  # 101 / (2 x 0.25)
    assert compute_cycles(SOFTMAX, VALUES) == 0
    both = compute_cycles(columns_of(LINEAR, SCORES, SOFTMAX), many(VALUES))
    assert both.tolist() == [[41, 202, 0]]


def test_elements_take_their_steps_over_the_busy_lanes():
    # 9 x (4 + 2.5) = 58.5, rounded up 59; 5 lanes of two bytes, half of them busy: 23.6
    assert vector_cycles(SOFTMAX, VALUES) == 24
    # two lanes of four bytes, and one where an element is wider than the engine
    assert vector_cycles(SOFTMAX._replace(element_bytes=4), VALUES) == 59
    narrow = VALUES | {"vector.width_bytes": 3}
    assert vector_cycles(SOFTMAX._replace(element_bytes=4), narrow) == 118
    found = vector_cycles(columns_of(SOFTMAX, LINEAR), many(VALUES, narrow))
    assert found.tolist() == [[24, 0], [118, 0]]


def test_bytes_are_weights_cache_and_what_does_not_fit():
    assert [dram_bytes(work, VALUES) for work in (LINEAR, SCORES, SOFTMAX)] == [201, 90, 0]
    fused = VALUES | {"sram.fuses_operations": True}
    assert dram_bytes(LINEAR, fused) == 200
    found = dram_bytes(columns_of(LINEAR, SCORES), many(VALUES, fused))
    assert found.tolist() == [[201, 90], [200, 90]]


def test_memory_is_as_slow_as_the_slower_of_dma_and_dram():
    assert memory_cycles(251, VALUES) == 837  # 251,000 / 300 = 836.7
    assert memory_cycles(251, VALUES | {"dma.bytes_per_s": 500}) == 628  # 251,000 / 400 = 627.5
    assert memory_cycles(300, VALUES) == 1000  # exactly
    assert memory_cycles(np.array([251.0, 300.0]), many(VALUES)).tolist() == [[837, 1000]]


def test_an_operation_takes_its_busiest_engine_and_its_start():
    costs = [roofline(work, VALUES) for work in (LINEAR, SCORES, SOFTMAX)]
    assert [cost.cycles for cost in costs] == [670 + 7, 300 + 7, 24 + 7]
    assert [cost.bound for cost in costs] == ["memory", "memory", "vector"]
    slow = VALUES | {"per_op_overhead_cycles": 25}
    assert roofline(SOFTMAX, slow).bound == "overhead"
    found = roofline(columns_of(LINEAR, SCORES, SOFTMAX), many(VALUES, slow)).cycles
    assert found.tolist() == [[677, 307, 31], [695, 325, 49]]


def test_numbers_are_exact_where_floats_are_not():
    work = LINEAR._replace(weight_bytes=2**60 + 1, activation_bytes=0)
    assert memory_cycles(work.weight_bytes, VALUES | {"dma.bytes_per_s": 400}) == (
        -(-(2**60 + 1) * 10 // 4)
    )
    assert dram_bytes(work, VALUES) == 2**60 + 1


def test_what_stays_in_sram_is_not_read_again():
    work = LINEAR._replace(known_bytes=LINEAR.weight_bytes, kv_bytes=70)
    chip = VALUES | {"sram.keeps_between_calls": True, "sram.capacity_bytes": 1000}
    everything = dram_bytes(work, VALUES)
    for weights, cache, saved in (
        (999, 1000, LINEAR.weight_bytes), (1000, 999, 70), (1000, 1000, 0),
        (999, 999, LINEAR.weight_bytes + 70),
    ):  # fmt: skip
        moved = dram_bytes(work._replace(activation_bytes=0), kept_values(chip, weights, cache))
        assert moved == dram_bytes(work._replace(activation_bytes=0), VALUES) - saved
    forgets = kept_values(chip | {"sram.keeps_between_calls": False}, 1, 1)
    assert dram_bytes(work, forgets | {"sram.capacity_bytes": 2**40}) <= everything


def test_a_call_takes_what_is_busiest_where_the_dma_runs_ahead():
    # together 9 cycles one after another, 7 of the DMA, 5 of everything else
    never = {"sram.streams_encode": False, "sram.fuses_operations": True}
    assert call_cycles(9, 7, 5, 3, 1, {"dma.runs_ahead": True} | never) == 7
    assert call_cycles(9, 5, 7, 3, 1, {"dma.runs_ahead": True} | never) == 7
    assert call_cycles(9, 7, 5, 3, 1, {"dma.runs_ahead": False} | never) == 9


def test_a_call_that_encodes_and_streams_takes_what_its_busiest_engine_does():
    streams = {"dma.runs_ahead": False, "sram.streams_encode": True, "sram.fuses_operations": True}
    assert call_cycles(9, 7, 5, 6, 1, streams) == 6
    assert call_cycles(9, 7, 5, 6, 0, streams) == 9
    assert call_cycles(9, 7, 5, 6, 1, streams | {"sram.fuses_operations": False}) == 9


shares = st.floats(0.001, 1)
works = st.builds(
    Work,
    macs=st.integers(0, 10**9), precision=st.integers(-1, 4), attention=st.integers(0, 1),
    elements=st.integers(0, 10**6), simple_operations=st.integers(0, 8),
    special_functions=st.integers(0, 1), element_bytes=st.sampled_from([1, 2, 4]),
    weight_bytes=st.integers(0, 10**6), kv_bytes=st.integers(0, 10**6),
    activation_bytes=st.integers(0, 10**6), known_bytes=st.just(0), empty_bytes=st.just(0),
).map(lambda work: work if work.precision >= 0 else work._replace(macs=0))  # fmt: skip
npu_values = st.fixed_dictionaries({
    path: st.booleans() if path == "sram.fuses_operations"
    else shares if path.endswith(("efficiency", "_share"))
    else st.floats(0, 20) if path == "vector.special_function_cycles"
    else st.integers(1, 10**9)
    for path in VALUES
})  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(works, min_size=1, max_size=4), st.lists(npu_values, min_size=1, max_size=3))
def test_columns_are_the_numbers_of_one_operation_on_one_npu_after_another(works, chips):
    together = roofline(columns_of(*works), many(*chips))
    for i, chip in enumerate(chips):
        for j, work in enumerate(works):
            alone = roofline(work, chip)
            for field in ("compute_cycles", "vector_cycles", "memory_cycles", "dram_bytes"):
                found = np.broadcast_to(getattr(together, field), (len(chips), len(works)))[i, j]
                assert found == getattr(alone, field)
                assert isinstance(getattr(alone, field), int)
            assert np.broadcast_to(together.cycles, (len(chips), len(works)))[i, j] == alone.cycles


@settings(max_examples=200, deadline=None)
@given(works, npu_values)
def test_each_limb_is_the_smallest_whole_number_that_does_the_work(work, chip):
    cost = roofline(work, chip)
    slower = min(chip["dma.bytes_per_s"], chip["dram.bytes_per_s"])
    needed = cost.dram_bytes * chip["clock_hz"]
    assert (cost.memory_cycles - 1) * slower < needed <= cost.memory_cycles * slower
    if work.precision >= 0:
        name = ("w4a8", "w4a16", "w8a8", "w8a16", "w16a16")[work.precision]
        path = "matrix.attention_efficiency" if work.attention else f"matrix.{name}_efficiency"
        rate = round(chip[f"matrix.{name}_macs_per_cycle"] * 1_000_000 * chip[path])
        assume(rate > 0)
        assert (cost.compute_cycles - 1) * rate < work.macs * 1_000_000
        assert work.macs * 1_000_000 <= cost.compute_cycles * rate
    assert cost.cycles == chip["per_op_overhead_cycles"] + max(
        cost.compute_cycles, cost.vector_cycles, cost.memory_cycles
    )
    assert math.isfinite(cost.cycles)


def test_a_product_of_activations_is_attention_and_one_with_weights_is_not():
    scores = Op(
        site="scores", kind="matmul", phase="decode", inputs=(activation(4, 8), activation(4, 8)),
        output=activation(4, 4), gemm=Gemm(count=1, m=4, n=4, k=8),
    )  # fmt: skip
    assert (work_of(scores).attention, work_of(linear(4, 8, 8)).attention) == (1, 0)


def test_elements_are_as_wide_as_activations_whatever_the_weights_are():
    x, w = activation(4, 8, bits=8), Tensor(name="w", shape=(8, 8), bits=16, role="weight")
    op = Op(
        site="up", kind="linear", phase="decode", inputs=(x, w), output=activation(4, 8, bits=8),
        gemm=Gemm(count=1, m=4, n=8, k=8),
    )  # fmt: skip
    assert work_of(op).element_bytes == 1


@pytest.mark.parametrize(("overhead", "bound"), [(4, "compute"), (5, "compute"), (6, "overhead")])
def test_overhead_bounds_what_it_outlasts(overhead, bound):
    cost = OpCost(compute_cycles=5, vector_cycles=5, memory_cycles=1, overhead_cycles=overhead,
                  dram_bytes=0)  # fmt: skip
    assert cost.bound == bound
