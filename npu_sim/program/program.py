"""What ran: the operations of a request, in order, with the bytes and the arithmetic of each.

A `Program` knows nothing of any hardware; `recorder.py` makes one from the forward pass, and
`npu_sim/roofline/` and `npu_sim/tile/` price one. A request is a list of graph calls: `encode` or
`prefill` once, then `decode` once per token. Chapter: `docs/11_machine.md`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Literal

from mu_ref.config import INT4_GROUP
from npu_sim.program.precision import Precision
from npu_sim.units import ceil_div

__all__ = [
    "LAYOUT_KINDS",
    "RUNTIMES",
    "VECTOR_WORK",
    "Call",
    "Gemm",
    "Op",
    "Program",
    "Tensor",
    "VectorWork",
]


RUNTIMES = ("native", "geniex")  # who calls the graph: the vendor's runtime, or an LLM runtime

ROW_SCALE_BYTES = 4  # of a row of 8-bit weights: a float32, or a multiplier and its shift

INT4_SCALE_BYTES = (
    2  # a float16 for each group of 4-bit weights, as `mu_ref/integers/int4.py` stores it
)

Shape = tuple[int, ...]

Role = Literal["weight", "activation", "kv"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """Stored numbers: what an operation reads or writes, not how it looks at them."""

    name: str  # site of the operation that made it, or the name in the weight file
    shape: Shape
    bits: int  # of one element
    role: Role

    @property
    def n_bytes(self) -> int:
        """Bytes when packed without gaps; scales are counted apart."""
        return ceil_div(prod(self.shape) * self.bits, 8)

    @property
    def scale_bytes(self) -> int:
        """Bytes of the scales of a weight matrix of 8 bits (per row) or 4 bits (per group)."""
        if self.role != "weight" or len(self.shape) < 2 or self.bits > 8:
            return 0
        rows, columns = prod(self.shape[:-1]), self.shape[-1]
        if self.bits == 8:
            return rows * ROW_SCALE_BYTES
        return rows * ceil_div(columns, INT4_GROUP) * INT4_SCALE_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class Gemm:
    """`count` independent products [m, k] x [k, n]; attention has one per head."""

    count: int
    m: int  # rows: tokens
    n: int  # columns: output features, or keys
    k: int  # summed over

    @property
    def macs(self) -> int:
        """Multiply-accumulates: count * m * n * k."""
        return self.count * self.m * self.n * self.k


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorWork:
    """Cost of one element: sums and products, and functions such as exp."""

    simple_operations: int
    special_functions: int = 0


VECTOR_WORK: Mapping[str, VectorWork] = MappingProxyType({
    "none": VectorWork(simple_operations=0),
    "copy": VectorWork(simple_operations=1),
    "add": VectorWork(simple_operations=1),
    "mul": VectorWork(simple_operations=1),
    "scale": VectorWork(simple_operations=1),
    "compare": VectorWork(simple_operations=1),  # argmax
    "rope": VectorWork(simple_operations=3),  # two products, one sum
    "rms": VectorWork(simple_operations=4),  # square, sum, times 1/root, times gain
    "rms_plus_one": VectorWork(simple_operations=4),
    "layer": VectorWork(simple_operations=7),  # sum, subtract, then as rms, plus bias
    "softmax": VectorWork(simple_operations=4, special_functions=1),  # max, -, exp, sum, times
    "softcap": VectorWork(simple_operations=2, special_functions=1),
    "gelu_tanh": VectorWork(simple_operations=8, special_functions=1),
    "gelu": VectorWork(simple_operations=4, special_functions=1),
    "silu": VectorWork(simple_operations=4, special_functions=1),
    "relu": VectorWork(simple_operations=1),
    "tanh": VectorWork(simple_operations=0, special_functions=1),
})  # fmt: skip

# These only say how stored numbers are looked at; a compiler turns them into addresses.
LAYOUT_KINDS = frozenset({"split_heads", "merge_heads", "share_heads", "view"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Op:
    """One operation of one graph call.

    Everything counted in bytes follows from the tensors: a weight or a cached tensor among the
    inputs is read whole; `append` has the new keys (or values) alone as its output.
    """

    site: str
    kind: str  # operation of `mu_ref.ops.Ops`, or "view"
    phase: str
    inputs: tuple[Tensor, ...]  # matrix operations: moving operand first, stationary second
    output: Tensor
    gemm: Gemm | None = None
    vector_elements: int = 0
    vector_work: str = "none"  # key of VECTOR_WORK
    kept_bytes: int | None = None  # of the cache behind an append; all that is read, if not said
    empty_kv_bytes: int = 0  # of the cache that it reads, slots of a padded graph without a token

    @property
    def is_layout(self) -> bool:
        """Whether the operation moves and computes nothing, and so costs nothing."""
        return self.kind in LAYOUT_KINDS

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the matrix engine."""
        return 0 if self.gemm is None else self.gemm.macs

    @property
    def operand_bits(self) -> tuple[int, int]:
        """Widths of the stationary and the moving operand of a matrix operation."""
        return self.inputs[1].bits, self.inputs[0].bits

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights read."""
        return self._read_bytes("weight")

    @property
    def kv_bytes(self) -> int:
        """Bytes of cached keys and values read, or written by `append`."""
        return self._read_bytes("kv") + self._written_bytes("kv")

    @property
    def activation_bytes(self) -> int:
        """Bytes of activations read and written; they move only if they do not fit SRAM."""
        return self._read_bytes("activation") + self._written_bytes("activation")

    def _read_bytes(self, role: Role) -> int:
        return 0 if self.is_layout else sum(t.n_bytes for t in self.inputs if t.role == role)

    def _written_bytes(self, role: Role) -> int:
        return self.output.n_bytes if self.output.role == role and not self.is_layout else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call of a graph on the NPU: encode, prefill, or one decode step."""

    phase: str
    ops: tuple[Op, ...]
    # every number in it is on the line through the two calls before it; see `steps.py`
    is_continued: bool = field(default=False, compare=False)

    @property
    def n_positions(self) -> int:
        """Positions that the call computes: the rows of its embedding."""
        rows = [prod(op.output.shape[:-1]) for op in self.ops if op.kind == "embed"]
        return sum(rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """All graph calls of one request."""

    model: str
    precision: Precision
    n_input: int  # tokens read
    n_output: int  # tokens written
    batch: int
    stored_weight_bytes: int  # the whole model, each tensor once
    calls: tuple[Call, ...]
    runtime: str = "native"  # who calls the graphs: one of `RUNTIMES`

    @property
    def ops(self) -> Iterable[Op]:
        """Every operation, in order."""
        return (op for call in self.calls for op in call.ops)

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases, in order."""
        return tuple(dict.fromkeys(call.phase for call in self.calls))

    @property
    def n_first_calls(self) -> int:
        """Calls up to the first written token: encode and one step, or one prefill."""
        return len(self.calls) - (self.n_output - 1)

    @property
    def stored_kv_bytes(self) -> int:
        """Bytes of DRAM that the KV caches need: their slots, padded ones too, at their most."""
        kept: dict[str, int] = {}  # by cache, as its appends say
        seen: dict[str, int] = {}  # by cache, the most that an operation reads or writes
        calls = {id(call): call for call in self.calls}.values()  # a request may repeat one call
        for op in (op for call in calls for op in call.ops if op.kind in ("append", "matmul")):
            if op.kept_bytes is not None:
                kept[op.output.name] = max(op.kept_bytes, kept.get(op.output.name, 0))
            for t in (*op.inputs, op.output):
                if t.role == "kv":
                    seen[t.name] = max(t.n_bytes, seen.get(t.name, 0))
        return sum((seen | kept).values())

    def total(self, quantity: str, phase: str | None = None) -> int:
        """Sum one quantity over the operations.

        Args:
            quantity: "macs", "weight_bytes", "kv_bytes", "activation_bytes" or "vector_elements".
            phase: only this one; all by default.

        Returns:
            The sum.
        """
        return sum(getattr(op, quantity) for op in self.ops if phase in (None, op.phase))
