import pytest

from mu_ref.presets import preset, tiny
from npu_sim.errors import CapacityError
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.program import VECTOR_WORK, Gemm, Op, Tensor
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate
from npu_sim.roofline.formula import op_cost

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
    assert cost.dma_cycles == 100_000  # 1e6 bytes at 10 per cycle
    assert cost.overhead_cycles == 1000
    assert cost.cycles == 101_000
    assert cost.bound == "memory"


def test_many_rows_are_bound_by_compute():
    cost = op_cost(linear(100, 1000, 1000), TEACHING)
    assert (cost.compute_cycles, cost.dma_cycles) == (195_313, 100_000)
    assert cost.bound == "compute"


def test_a_small_op_is_bound_by_its_overhead():
    cost = op_cost(linear(1, 10, 10), TEACHING)
    assert (cost.compute_cycles, cost.dma_cycles, cost.cycles) == (1, 10, 1010)
    assert cost.bound == "overhead"


def test_a_function_costs_its_simple_and_its_special_operations():
    # silu: 4 simple and 1 special of 10 cycles; 32 lanes at 16 bits
    cost = op_cost(elementwise("silu", 3200), TEACHING)
    assert (cost.vector_cycles, cost.dma_cycles, cost.bound) == (1400, 0, "vector")
    assert op_cost(elementwise("silu", 3200, bits=8), TEACHING).vector_cycles == 700


def test_activations_that_do_not_fit_move_through_dram():
    fits = op_cost(elementwise("relu", 131_072), TEACHING)  # 2 x 256 KiB = all of SRAM
    assert fits.dram_bytes == 0
    spills = op_cost(elementwise("relu", 131_073), TEACHING)
    assert spills.dram_bytes == 2 * 2 * 131_073
    assert spills.dma_cycles == 52_430  # 524,292 / 10, rounded up


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
        simulate(program, small)
