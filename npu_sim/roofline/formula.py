r"""The `roofline` fidelity: one closed formula per operation, microseconds to evaluate.

$$t = \max(t_\mathrm{compute}, t_\mathrm{vector}, t_\mathrm{memory}) + t_\mathrm{overhead}$$

It is a lower bound for what the engines can do, plus overheads: no tiles, no waiting. Each limb is
stated once, for numbers and for NumPy columns alike: `op_cost` prices one operation on one NPU,
`columns.py` all operations of a program on many NPUs. Chapter: `docs/11_machine.md`, equations
4.1 to 4.5.

Assumes:
    Weights are read from DRAM in every graph call, once per operation. On a chip that keeps SRAM
    between calls, weights or caches that fit it are not read again.
    Activations stay in SRAM if inputs and outputs of the operation fit it together, or if the
    compiler fuses operations so that they always do; otherwise all of them move through DRAM.
    Weights and cached keys pass through SRAM without taking its room.
    Cached keys and values live in DRAM; attention reads once all slots that one of its queries
    sees, whatever the mask; each kv head is read once for all query heads that share it.
    The matrix engine reaches the same rate for every shape, one-row products included.
    Within an operation the three engines overlap perfectly; between operations they do not, but
    that a DMA which runs ahead reads what later operations of the call need.
    A layout operation costs nothing. All others cost one overhead, also tiny ones.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from npu_sim.hardware.chip import Npu
from npu_sim.program.precision import PRECISIONS, precision_name
from npu_sim.program.program import VECTOR_WORK, Op
from npu_sim.roofline.amounts import (
    Amount,
    larger,
    nearest_whole,
    round_down,
    round_up,
    round_up_div,
    smaller,
)
from npu_sim.units import MILLION, element_bytes

__all__ = [
    "LIMITS",
    "Amount",
    "Limit",
    "NpuValues",
    "OpCost",
    "Work",
    "call_cycles",
    "compute_cycles",
    "dram_bytes",
    "kept_values",
    "memory_cycles",
    "op_cost",
    "roofline",
    "spared_bytes",
    "vector_cycles",
    "work_of",
]


Limit = Literal["compute", "vector", "memory", "overhead"]

LIMITS: tuple[Limit, ...] = ("compute", "vector", "memory", "overhead")

NpuValues = Mapping[str, Amount]  # {path of `Npu.values`: amount}


class Work(NamedTuple):
    """What one operation asks of an NPU, in whole numbers, or many operations in columns."""

    macs: Amount  # multiply-accumulates
    precision: Amount  # widths of their operands, an index into PRECISIONS; -1: no product
    attention: Amount  # 1 if both operands are activations, else 0
    elements: Amount  # worked on by the vector engine
    simple_operations: Amount  # on each element
    special_functions: Amount  # of each element
    element_bytes: Amount  # of an element in a lane: 1, 2 or 4
    weight_bytes: Amount  # read
    kv_bytes: Amount  # cached keys and values, read or written
    activation_bytes: Amount  # read and written
    known_bytes: Amount = 0  # of the weights, those that an earlier call has read
    empty_bytes: Amount = 0  # of the cache, slots of a padded graph that hold no token


@dataclass(frozen=True, kw_only=True, slots=True)
class OpCost:
    """What one operation costs on one NPU, or many operations on many NPUs."""

    compute_cycles: Amount
    vector_cycles: Amount
    memory_cycles: Amount
    overhead_cycles: Amount
    dram_bytes: Amount

    @property
    def engine_cycles(self) -> Amount:
        """Cycles of the busiest engine."""
        return larger(larger(self.compute_cycles, self.vector_cycles), self.memory_cycles)

    @property
    def busy_cycles(self) -> Amount:
        """Cycles without memory: what computes longest, and the overhead."""
        return larger(self.compute_cycles, self.vector_cycles) + self.overhead_cycles

    @property
    def cycles(self) -> Amount:
        """Total: the busiest engine and the overhead."""
        return self.engine_cycles + self.overhead_cycles

    @property
    def engine(self) -> Limit:
        """Which engine of one NPU is the busiest; the first in the order of `LIMITS` on ties."""
        if self.compute_cycles == self.engine_cycles:
            return "compute"
        return "vector" if self.vector_cycles == self.engine_cycles else "memory"

    @property
    def bound(self) -> Limit:
        """What most of the time goes to: the busiest engine, or the overhead if that is more."""
        return "overhead" if self.overhead_cycles > self.engine_cycles else self.engine


NOTHING = OpCost(
    compute_cycles=0, vector_cycles=0, memory_cycles=0, overhead_cycles=0, dram_bytes=0
)


def op_cost(op: Op, npu: Npu) -> OpCost:
    """Price one operation.

    Args:
        op: the operation.
        npu: an NPU that has an engine for it (`hardware/fits.py` checks).

    Returns:
        Its cost in whole numbers; all zero for a layout operation.
    """
    return NOTHING if op.is_layout else roofline(work_of(op), npu.values())


def work_of(op: Op, known: Collection[str] = ()) -> Work:
    """Count what an operation asks of any NPU, given the weights that earlier calls have read."""
    work = VECTOR_WORK[op.vector_work]
    # elements are worked on at the width of the widest activation
    widest = max(t.bits for t in (*op.inputs, op.output) if t.role != "weight")
    return Work(
        macs=op.macs,
        precision=-1 if op.gemm is None else PRECISIONS.index(precision_name(*op.operand_bits)),
        attention=int(op.kind == "matmul"),
        elements=op.vector_elements,
        simple_operations=work.simple_operations,
        special_functions=work.special_functions,
        element_bytes=element_bytes(widest),
        weight_bytes=op.weight_bytes,
        kv_bytes=op.kv_bytes,
        activation_bytes=op.activation_bytes,
        known_bytes=sum(t.n_bytes for t in op.inputs if t.role == "weight" and t.name in known),
        empty_bytes=op.empty_kv_bytes,
    )


def roofline(work: Work, values: NpuValues) -> OpCost:
    """Price work.

    t = max(compute, vector, memory) + overhead                                        (4.1)

    Args:
        work: of an operation that is no layout, or columns of many.
        values: values of an NPU, or columns of many.

    Returns:
        The cost: whole numbers from numbers, float64 columns from columns. Both agree to the
        cycle where every product in a numerator stays below 2**53.
    """
    moved_bytes = dram_bytes(work, values)
    return OpCost(
        compute_cycles=compute_cycles(work, values),
        vector_cycles=vector_cycles(work, values),
        memory_cycles=memory_cycles(moved_bytes - spared_bytes(work, values), values),
        overhead_cycles=values["per_op_overhead_cycles"],
        dram_bytes=moved_bytes,
    )


def call_cycles(
    serial: Amount, memory: Amount, busy: Amount, engine: Amount, encodes: Amount, values: NpuValues
) -> Amount:
    r"""Count the cycles of all operations of a call together.

    $$t_\mathrm{call} = \max(\sum t_\mathrm{memory}, \sum (\max(t_\mathrm{compute},
      t_\mathrm{vector}) + t_\mathrm{overhead}))$$                                      (4.8)

    where the DMA runs ahead; else the sum of (4.1). Where operations stream, a call that encodes
    takes at least what its busiest engine does in all of them together.

    Args:
        serial: sum of `OpCost.cycles`.
        memory: sum of `OpCost.memory_cycles`.
        busy: sum of `OpCost.busy_cycles`.
        engine: the largest of the sums of the cycles of each engine and of the starts.
        encodes: 1 if the call encodes, else 0.
        values: uses dma.runs_ahead, sram.streams_encode and sram.fuses_operations.

    Returns:
        Cycles: no order of the operations' pieces takes fewer.
    """
    ahead = larger(memory, busy)
    found = serial + (ahead - serial) * (values["dma.runs_ahead"] != 0)
    streams = encodes * (values["sram.streams_encode"] * values["sram.fuses_operations"] != 0)
    return found + (engine - found) * streams


def kept_values(values: NpuValues, weight_bytes: Amount, kv_bytes: Amount) -> dict[str, Amount]:
    """Add to an NPU whether the weights, and the caches, of a request may stay in its SRAM.

    Args:
        values: uses sram.keeps_between_calls and its capacity.
        weight_bytes: stored.
        kv_bytes: stored.

    Returns:
        The values, and "kept.weights" and "kept.cache": 1 if they may.
    """
    keeps = values["sram.keeps_between_calls"] != 0
    room = values["sram.capacity_bytes"]
    return {
        **values,
        "kept.weights": 1 * (keeps & (weight_bytes < room)),
        "kept.cache": 1 * (keeps & (kv_bytes < room)),
    }


def compute_cycles(work: Work, values: NpuValues) -> Amount:
    r"""Count the cycles of the matrix engine.

    $$t_\mathrm{compute} = \lceil \mathrm{macs} / (r \eta) \rceil$$                     (4.2)

    Args:
        work: its multiply-accumulates; 0 without a product.
        values: the rate r (MACs/cycle) and the share η of it that large products reach depend on
            the widths of both operands, η also on whether one of them is a weight.

    Returns:
        Cycles.

    Assumes:
        The same share for every shape.
    """
    rate, share = (
        _of_precision(work.precision, [values[f"matrix.{name}_{what}"] for name in PRECISIONS])
        for what in ("macs_per_cycle", "efficiency")
    )
    share = work.attention * values["matrix.attention_efficiency"] + (1 - work.attention) * share
    # r η in millionths is a whole number, so that numbers divide exactly; without a product it is 0
    return round_up_div(work.macs * MILLION, larger(nearest_whole(rate * MILLION * share), 1))


def vector_cycles(work: Work, values: NpuValues) -> Amount:
    r"""Count the cycles of the vector engine.

    $$t_\mathrm{vector} = \lceil e (s + f c) / (\mathrm{lanes} \, \eta) \rceil$$        (4.3)

    Args:
        work: e elements, each with s simple operations and f special functions.
        values: c cycles per special function, lanes by element width, the share η of them that real
            code keeps busy.

    Returns:
        Cycles.

    Assumes:
        Elements are worked on at the width of the operation's widest activation.
    """
    special_cycles = work.special_functions * values["vector.special_function_cycles"]
    steps = round_up(work.elements * (work.simple_operations + special_cycles))
    lanes = larger(values["vector.width_bytes"] // work.element_bytes, 1)
    return round_up(steps / (lanes * values["vector.efficiency"]))


def dram_bytes(work: Work, values: NpuValues) -> Amount:
    """Count the bytes between DRAM and SRAM.

    b = weights + cached keys and values + what exceeds SRAM of the activations        (4.4)

    Args:
        work: its bytes.
        values: uses sram.capacity_bytes and sram.fuses_operations, and of `kept_values` what
            stays in SRAM between calls; nothing without them.

    Returns:
        Bytes.

    Assumes:
        See the module: weights and cache move unless they stay, activations beyond what fits.
    """
    beyond = work.activation_bytes - values["sram.capacity_bytes"]  # the rest may stay
    spilled = beyond * ((beyond > 0) & (values["sram.fuses_operations"] == 0))
    weights = work.weight_bytes - work.known_bytes * values.get("kept.weights", 0)
    return weights + work.kv_bytes * (1 - values.get("kept.cache", 0)) + spilled


def spared_bytes(work: Work, values: NpuValues) -> Amount:
    r"""Count the bytes of empty slots that take no time.

    $$b_\mathrm{spared} = b_\mathrm{empty} - \lfloor s \, b_\mathrm{empty} \rfloor$$ (4.9)

    Args:
        work: bytes of the slots of a padded graph that hold no token.
        values: the share s of a slot's time that an empty one costs.

    Returns:
        Bytes.
    """
    spared = work.empty_bytes - round_down(work.empty_bytes * values["dma.empty_slot_share"])
    return spared * (1 - values.get("kept.cache", 0))


def memory_cycles(moved_bytes: Amount, values: NpuValues) -> Amount:
    r"""Count the cycles that the DMA needs.

    $$t_\mathrm{memory} = \lceil b \, f_\mathrm{clock} / \mathrm{bandwidth} \rceil$$    (4.5)

    Args:
        moved_bytes: bytes, at least 0.
        values: uses clock_hz, and of its DMA and its DRAM the slower one.

    Returns:
        Cycles, rounded up.

    Assumes:
        One stream at the effective rate; no set-up time, no refresh.
    """
    bytes_per_s = smaller(values["dma.bytes_per_s"], values["dram.bytes_per_s"])
    return round_up_div(moved_bytes * values["clock_hz"], bytes_per_s)


def _of_precision(precision: Amount, choices: list[Amount]) -> Amount:
    """The choice for a pair of widths; 0 without a product."""
    # a sum of which one term at most is not 0: exact, and the same for numbers and columns
    return sum((precision == index) * choice for index, choice in enumerate(choices))
