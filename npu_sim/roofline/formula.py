r"""The `roofline` fidelity: one closed formula per operation, microseconds to evaluate.

$$t = \max(t_\mathrm{compute}, t_\mathrm{vector}, t_\mathrm{memory}) + t_\mathrm{overhead}$$

It is a lower bound for what the engines can do, plus overheads: no tiles, no waiting. Chapter:
`docs/04_npu.md`, equations 4.1 to 4.5.

Assumes:
    Weights are read from DRAM in every graph call, once per operation, also where all of them
    would fit SRAM: a call of another program may have replaced them.
    Activations stay in SRAM if inputs and outputs of the operation fit it together, or if the
    compiler fuses operations so that they always do; otherwise all of them move through DRAM.
    Weights and cached keys pass through SRAM without taking its room.
    Cached keys and values live in DRAM; attention reads all of them once, whatever the window or
    the mask; each kv head is read once for all query heads that share it.
    The matrix engine reaches the same rate for every shape, one-row products included.
    Within an operation the three engines overlap perfectly; between operations they do not.
    A layout operation costs nothing. All others cost one overhead, also tiny ones.
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal

from npu_sim.hardware.chip import Npu
from npu_sim.program.program import VECTOR_WORK, Op
from npu_sim.units import MILLION, ceil_div

__all__ = [
    "LIMITS",
    "Limit",
    "OpCost",
    "compute_cycles",
    "dma_cycles",
    "dram_bytes",
    "op_cost",
    "vector_cycles",
]


Limit = Literal["compute", "vector", "memory", "overhead"]

LIMITS: tuple[Limit, ...] = ("compute", "vector", "memory", "overhead")


@dataclass(frozen=True, kw_only=True, slots=True)
class OpCost:
    """What one operation costs on one NPU."""

    op: Op
    compute_cycles: int
    vector_cycles: int
    dma_cycles: int
    overhead_cycles: int
    dram_bytes: int

    @property
    def engine_cycles(self) -> int:
        """Cycles of the busiest engine."""
        return max(self.compute_cycles, self.vector_cycles, self.dma_cycles)

    @property
    def engine(self) -> Limit:
        """Which engine is the busiest; the first in the order of `LIMITS` on ties."""
        if self.compute_cycles == self.engine_cycles:
            return "compute"
        return "vector" if self.vector_cycles == self.engine_cycles else "memory"

    @property
    def cycles(self) -> int:
        """Total: the busiest engine and the overhead."""
        return self.engine_cycles + self.overhead_cycles

    @property
    def bound(self) -> Limit:
        """What most of the time goes to: the busiest engine, or the overhead if that is more."""
        return "overhead" if self.overhead_cycles > self.engine_cycles else self.engine


def op_cost(op: Op, npu: Npu) -> OpCost:
    """Price one operation.

    t = max(compute, vector, memory) + overhead                                        (4.1)

    Args:
        op: the operation.
        npu: the NPU.

    Returns:
        Its cost; all zero for a layout operation.
    """
    moved_bytes = dram_bytes(op, npu)
    return OpCost(
        op=op,
        compute_cycles=compute_cycles(op, npu),
        vector_cycles=vector_cycles(op, npu),
        dma_cycles=dma_cycles(moved_bytes, npu),
        overhead_cycles=0 if op.is_layout else npu.per_op_overhead_cycles,
        dram_bytes=moved_bytes,
    )


def compute_cycles(op: Op, npu: Npu) -> int:
    r"""Count the cycles of the matrix engine.

    $$t_\mathrm{compute} = \lceil \mathrm{macs} / (r \eta) \rceil$$                     (4.2)

    Args:
        op: the operation; 0 without a product.
        npu: its rate r (MACs/cycle) and the share η of it that large products reach depend on the
            widths of both operands, η also on whether one of them is a weight.

    Returns:
        Cycles.

    Assumes:
        The same share for every shape.
    """
    if op.gemm is None:
        return 0
    share = npu.matrix.efficiency(*op.operand_bits, attention=op.kind == "matmul")
    rate = npu.matrix.macs_per_cycle(*op.operand_bits)
    return ceil_div(op.macs * MILLION, round(rate * MILLION * share))


def vector_cycles(op: Op, npu: Npu) -> int:
    r"""Count the cycles of the vector engine.

    $$t_\mathrm{vector} = \lceil e (s + f c) / (\mathrm{lanes} \, \eta) \rceil$$        (4.3)

    Args:
        op: e elements, each with s simple operations and f special functions.
        npu: c cycles per special function, lanes by element width, the share η of them that real
            code keeps busy.

    Returns:
        Cycles.

    Assumes:
        Elements are worked on at the width of the operation's widest activation.
    """
    if not op.vector_elements:
        return 0
    work = VECTOR_WORK[op.vector_work]
    widths = [t.bits for t in (*op.inputs, op.output) if t.role != "weight"]
    steps = work.simple_operations + work.special_functions * npu.vector.special_function_cycles
    busy_lanes = npu.vector.lanes(max(widths)) * npu.vector.efficiency
    return ceil(ceil(op.vector_elements * steps) / busy_lanes)


def dram_bytes(op: Op, npu: Npu) -> int:
    """Count the bytes between DRAM and SRAM.

    b = weights + cached keys and values + activations that do not fit                 (4.4)

    Args:
        op: the operation.
        npu: uses sram.capacity_bytes and sram.fuses_operations.

    Returns:
        Bytes.

    Assumes:
        See the module: weights and cache always move, activations only if they do not fit.
    """
    stays = npu.sram.fuses_operations or op.activation_bytes <= npu.sram.capacity_bytes
    spilled = 0 if stays else op.activation_bytes
    return op.weight_bytes + op.kv_bytes + spilled


def dma_cycles(moved_bytes: int, npu: Npu) -> int:
    r"""Count the cycles that the DMA needs.

    $$t_\mathrm{memory} = \lceil b \, f_\mathrm{clock} / \mathrm{bandwidth} \rceil$$    (4.5)

    Args:
        moved_bytes: bytes, at least 0.
        npu: uses memory_bytes_per_s and clock_hz.

    Returns:
        Cycles, rounded up.

    Assumes:
        One stream at the effective rate; no set-up time, no refresh.
    """
    return ceil_div(moved_bytes * npu.clock_hz, npu.memory_bytes_per_s)
