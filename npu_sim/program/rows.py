"""A program as rows of integers: what is cut into tiles (`schedule.py`); no hardware is known here.

One row per operation that does something; layout operations have none.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np

from npu_sim.program.precision import PRECISIONS, precision_name
from npu_sim.program.program import VECTOR_WORK, Call, Gemm, Op, Program, Tensor

__all__ = [
    "LINEAR", "MATMUL", "ROW", "VECTOR", "CallTable", "ProgramTable", "Row", "program_table",
]  # fmt: skip

LINEAR, MATMUL, VECTOR = 1, 2, 3
# Classes of activations, in the order in which they stay in SRAM: the stream that layers add to,
# what is wider than it, and attention matrices, which grow with the square of the tokens.
STREAM, WIDE, SCORES = 0, 1, 2


class Row(NamedTuple):
    """One operation; bytes unless a comment says otherwise."""

    form: int  # LINEAR, MATMUL or VECTOR
    products: int
    m: int
    n: int
    k: int
    precision: int  # index into PRECISIONS
    b_heads: int  # MATMUL: independent right operands; products / b_heads share each
    keys_are_k: int  # MATMUL: 1 if the sum runs over keys, 0 if the columns are keys
    weight: int  # the matrix alone, packed
    weight_bits: int  # bits
    beside: int  # biases, scales, gains, rows of a table
    known: int  # 1 if an earlier call has read the weight
    kv: int  # cached keys or values read
    kv_after: int  # row whose output they are, if this call computed all of them; else -1
    kv_written: int
    a: int  # first activation read
    a_class: int  # STREAM, WIDE, SCORES; -1 if there is none
    a_from: int  # row that made it; -1 if there is none
    b: int  # second activation read
    b_class: int
    b_from: int
    out: int  # activation written
    out_class: int
    simple: int  # vector operations, in all
    special: int  # special functions, in all
    stored_bytes: int  # of one element of the vector work
    unpack: int  # 4-bit elements to unpack
    laid_out: int  # LINEAR: 1 if a later operation reads the result; MATMUL: bytes of the right
    rows: int  # VECTOR: rows of what it works on, of one head; MATMUL: of the right operand
    empty: int  # of the cached keys or values read, slots without a token
    floats: int  # 1 if activations are 16-bit floats


ROW = np.dtype((np.record, [(name, np.int64) for name in Row._fields]))  # the same for kernels


@dataclass(frozen=True, eq=False)
class CallTable:
    """One graph call."""

    call: Call
    ops: tuple[Op, ...]  # one per row
    rows: np.ndarray  # [n_rows] ROW
    live: np.ndarray  # [n_rows, 4] int64, bytes of activations below class c that live in a row

    @cached_property
    def peaks(self) -> np.ndarray:
        """Most bytes that live at once if classes below c = 0..3 stay in SRAM: [4] int64."""
        peaks: np.ndarray = self.live.max(axis=0, initial=0)
        return peaks


@dataclass(frozen=True, eq=False)
class ProgramTable:
    """A whole program."""

    program: Program
    calls: tuple[CallTable, ...]


def program_table(program: Program) -> ProgramTable:
    """Turn a program into rows.

    Args:
        program: any.

    Returns:
        Its table.
    """
    read: set[str] = set()  # weights that an earlier call has read whole
    widths = program.precision
    floats = widths.weight_bits == 16 and widths.activation_bits == 16
    calls: list[CallTable] = []
    tables: dict[tuple[int, int], CallTable] = {}  # a request may repeat a call
    before: tuple[_Names, CallTable] | None = None
    goes_on: bool | None = None  # rows of continued calls are continued rows; None: to be tried
    for call in program.calls:
        if call.is_continued and goes_on:
            calls.append(_continued(call, *calls[-2:]))
            continue  # it reads no other weights than the call before
        key, n_read = (id(call), len(read)), len(read)  # what has been read only grows
        if key not in tables:
            names = _Names.of(tuple(op for op in call.ops if not op.is_layout))
            tables[key] = _call_table(call, names, read, floats, before)
            before = names, tables[key]
        if call.is_continued and goes_on is None:
            guess = _continued(call, *calls[-2:])
            goes_on = np.array_equal(guess.rows, tables[key].rows) and np.array_equal(
                guess.live, tables[key].live
            )
        calls.append(tables[key])
        read |= {
            t.name
            for op in call.ops
            for t in op.inputs
            if t.role == "weight" and op.kind != "embed"
        }
        before = before if len(read) == n_read else None
    return ProgramTable(program=program, calls=tuple(calls))


def _continued(call: Call, a: CallTable, b: CallTable) -> CallTable:
    """Return the table behind two others, each number of which is on the line through theirs."""
    numbers = 2 * b.rows.view(np.int64) - a.rows.view(np.int64)
    ops = tuple(op for op in call.ops if not op.is_layout)
    return CallTable(call=call, ops=ops, rows=numbers.view(ROW), live=2 * b.live - a.live)


@dataclass(frozen=True)
class _Names:
    """What a row knows of the other operations of its call."""

    ops: tuple[Op, ...] = field(compare=False)
    made: dict[str, int]  # {name: row of the operation whose output it is}
    classes: dict[str, int]  # {name: class of an activation}
    later: set[str]  # what is read

    @classmethod
    def of(cls, ops: tuple[Op, ...]) -> "_Names":
        made = {op.output.name: i for i, op in enumerate(ops)}
        return cls(ops, made, _classes(ops), {t.name for op in ops for t in op.inputs})


def _call_table(
    call: Call,
    names: _Names,
    read: set[str],
    floats: bool,
    before: tuple[_Names, CallTable] | None,
) -> CallTable:
    """Return the table of a call; `before` has read as much, and shares the rows that are equal."""
    ops = names.ops
    rows = np.zeros(len(ops), ROW)
    known: tuple[Op, ...] = ()
    if before and before[0] == names:
        known = before[1].ops
        rows[:] = before[1].rows
    for i, op in enumerate(ops):
        # a cache that is as long as before may still hold more of this call
        if not known or op is not known[i] or any(t.role == "kv" for t in op.inputs):
            row = _row(op, names.made, names.classes, ops, read)
            laid_out = _laid_out(op, names.later)
            rows[i] = tuple(row._replace(laid_out=laid_out, floats=int(floats)))
    return CallTable(call=call, ops=ops, rows=rows, live=_liveness(ops, names.classes))


def _classes(ops: tuple[Op, ...]) -> dict[str, int]:
    """Sort activations: attention matrices leave SRAM first, then wide ones, then the stream.

    The class depends on what a tensor is, never on the number of tokens.
    """
    narrow = min((_width(op.output) for op in ops if op.kind == "add"), default=1 << 62)
    classes = {op.output.name: STREAM for op in ops if op.output.role == "activation"}
    for op in ops:
        if op.output.role == "activation" and 2 * _width(op.output) > 3 * narrow:
            classes[op.output.name] = WIDE
    scores: set[str] = set()
    for op in reversed(ops):
        if op.kind == "softmax":
            scores |= {op.output.name, op.inputs[0].name}
        elif op.kind in ("scale", "softcap") and op.output.name in scores:
            scores.add(op.inputs[0].name)
    return classes | dict.fromkeys(scores, SCORES)


def _width(tensor: Tensor) -> int:
    return tensor.shape[-1] if len(tensor.shape) == 3 else 0


def _liveness(ops: tuple[Op, ...], classes: dict[str, int]) -> np.ndarray:
    """Bytes of activations that live while each operation runs, by class limit."""
    last = {t.name: i for i, op in enumerate(ops) for t in op.inputs}
    made = [
        (i, last.get(op.output.name, i) + 1, op.output.n_bytes, classes[op.output.name])
        for i, op in enumerate(ops)
        if op.output.role == "activation"
    ]
    first, after, n_bytes, kept = np.array(made, np.int64).reshape(-1, 4).T
    amounts = n_bytes[:, None] * (np.arange(4) > kept[:, None])
    change = np.zeros((len(ops) + 1, 4), np.int64)
    np.add.at(change, first, amounts)
    np.add.at(change, after, -amounts)
    live: np.ndarray = np.cumsum(change, axis=0)[:-1]
    return live


def _row(
    op: Op, made: dict[str, int], classes: dict[str, int], ops: tuple[Op, ...], read: set[str]
) -> Row:
    matrix = op.inputs[1] if op.kind == "linear" else None
    beside = [t for t in op.inputs if t.role == "weight" and t is not matrix]
    moving = [t for t in op.inputs if t.role == "activation"]
    moving_and_none = (*moving, None, None)[:2]
    (a, a_class, a_from), (b, b_class, b_from) = (
        _activation(t, classes, made) for t in moving_and_none
    )
    writes = op.output.role == "activation"
    gemm, work = op.gemm, VECTOR_WORK[op.vector_work]
    widths = [t.bits for t in (*op.inputs, op.output) if t.role != "weight"]
    right = op.inputs[1] if op.kind == "matmul" else None
    stationary = op.inputs[1] if gemm is not None else None
    elements = 0 if stationary is None or stationary.bits > 4 else prod(stationary.shape)
    precision = precision_name(*op.operand_bits) if gemm is not None else PRECISIONS[-1]
    return Row(
        form=VECTOR if gemm is None else LINEAR if op.kind == "linear" else MATMUL,
        products=gemm.count if gemm else 0, m=gemm.m if gemm else 0,
        n=gemm.n if gemm else 0, k=gemm.k if gemm else 0,
        precision=PRECISIONS.index(precision),
        b_heads=_heads(right, gemm) if right is not None and gemm else 0,
        keys_are_k=int(right is not None and a_class == SCORES),
        weight=matrix.n_bytes if matrix is not None else 0,
        weight_bits=matrix.bits if matrix is not None else 0,
        beside=sum(t.n_bytes + t.scale_bytes for t in beside)
        + (matrix.scale_bytes if matrix is not None else 0),
        known=int(all(t.name in read for t in op.inputs if t.role == "weight")),
        kv=sum(t.n_bytes for t in op.inputs if t.role == "kv"),
        kv_after=_computed_here(right, made, ops),
        kv_written=op.output.n_bytes if op.output.role == "kv" else 0,
        a=a, a_class=a_class, a_from=a_from, b=b, b_class=b_class, b_from=b_from,
        out=op.output.n_bytes if writes else 0,
        out_class=classes[op.output.name] if writes else -1,
        simple=op.vector_elements * work.simple_operations,
        special=op.vector_elements * work.special_functions,
        stored_bytes=_stored_bytes(widths), unpack=elements, laid_out=0, floats=0,
        rows=_rows(right or next(iter(moving), op.output)), empty=op.empty_kv_bytes,
    )  # fmt: skip


def _rows(tensor: Tensor) -> int:
    """Rows that lie together: tokens, of one head where each has its own."""
    return max(1, tensor.shape[-2] if len(tensor.shape) == 4 else prod(tensor.shape[:-1]))


def _laid_out(op: Op, later: set[str]) -> int:
    """Whether a linear result is laid out for later operations; bytes of a right operand."""
    if op.kind == "matmul":
        return op.inputs[1].n_bytes
    return int(op.kind == "linear" and op.output.name in later)


def _heads(right: Tensor, gemm: Gemm) -> int:
    """Right operands that are stored; each serves several products where query heads share it."""
    d_head = gemm.k if gemm.n == right.shape[-2] else gemm.n
    stored = max(1, prod(right.shape) // (right.shape[-2] * d_head))
    return stored if gemm.count % stored == 0 else gemm.count


def _activation(
    tensor: Tensor | None, classes: dict[str, int], made: dict[str, int]
) -> tuple[int, int, int]:
    if tensor is None or tensor.name not in classes:  # none, or an input of the graph
        return (0 if tensor is None else tensor.n_bytes), -1, -1
    return tensor.n_bytes, classes[tensor.name], made[tensor.name]


def _computed_here(right: Tensor | None, made: dict[str, int], ops: tuple[Op, ...]) -> int:
    """Row of the append that made all of a cached tensor in this call; -1 if some is older."""
    if right is None or right.role != "kv" or right.name not in made:
        return -1
    written = ops[made[right.name]].output
    return made[right.name] if prod(written.shape) == prod(right.shape) else -1


def _stored_bytes(widths: Iterable[int]) -> int:
    bits = max(widths)
    return 1 if bits <= 8 else 2 if bits <= 16 else 4
