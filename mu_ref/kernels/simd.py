"""Vectors of 16 lanes, four at a time: the only file that speaks LLVM.

Numba turns a loop over int8 products into wide multiplications; the processor's dot-product
instruction (VNNI, `vpdpbusd`) does four at once. Each function here says its scalar meaning.
Lanes are summed in one fixed tree, and a multiply-add rounds once on every machine. Where VNNI is
missing, or MU_REF_NO_VNNI=1, `dot4` computes the same integers from 16-bit products.
"""

import os

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import make_array

__all__ = ["HAS_VNNI", "dot4", "f32_zeros", "fma4", "i32_zeros", "pairs4", "sum4"]

LANES, ROWS = 16, 4
F32, I8, I16, I32 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32)
WIDE = ir.VectorType(I32, LANES)
HAS_VNNI = bool(
    llvm.get_host_cpu_features().get("avx512vnni") and not os.environ.get("MU_REF_NO_VNNI")
)


class _Vector(types.Type):
    """16 lanes of one type; lives in registers only."""

    def __init__(self, name: str, lane: ir.Type) -> None:
        self.llvm = ir.VectorType(lane, LANES)
        super().__init__(name=name)


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: object, fe_type: _Vector) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


F32_4 = types.UniTuple(_Vector("f32x16", F32), ROWS)  # one vector of sums for each of four rows
I32_4 = types.UniTuple(_Vector("i32x16", I32), ROWS)


def _call(builder, name, result, *args):
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _vnni(name):
    """One VNNI instruction: total + the sums of neighbouring products."""

    def step(builder, total, a, b):
        if llvm.llvm_version_info < (21,):  # older signatures count in int32
            a, b = builder.bitcast(a, WIDE), builder.bitcast(b, WIDE)
        return _call(builder, f"llvm.x86.avx512.{name}.512", WIDE, total, a, b)

    return step


def _load(context, builder, kind, array, index, lane, count):
    """`count` neighbours of a flat array from `index` on, at any alignment."""
    pointer = builder.gep(make_array(kind)(context, builder, array).data, [index])
    loaded = builder.load(builder.bitcast(pointer, ir.VectorType(lane, count).as_pointer()))
    loaded.align = 1
    return loaded


def _rows(context, builder, signature, args, lane, count):
    """Load x[i..], then for each of the four rows its sum so far and w[j + stride * row..]."""
    total, x, i, w, j, stride = args
    a = _load(context, builder, signature.args[1], x, i, lane, count)
    for so_far in cgutils.unpack_tuple(builder, total, ROWS):
        yield so_far, a, _load(context, builder, signature.args[3], w, j, lane, count)
        j = builder.add(j, stride)


def _zeros(kind):
    def codegen(context, builder, signature, args):
        zero = ir.Constant(kind.dtype.llvm, None)
        return context.make_tuple(builder, kind, [zero] * ROWS)

    return kind(), codegen


@intrinsic
def f32_zeros(typingctx):
    """Four rows of float32 sums, 0."""
    return _zeros(F32_4)


@intrinsic
def i32_zeros(typingctx):
    """Four rows of int32 sums, 0."""
    return _zeros(I32_4)


@intrinsic
def fma4(typingctx, total, x, i, w, j, stride):
    """total[row][lane] + x[i + lane] * w[j + row * stride + lane], rounded once; float32."""

    def codegen(context, builder, signature, args):
        rows = _rows(context, builder, signature, args, F32, LANES)
        sums = [_call(builder, "llvm.fma.v16f32", a.type, a, b, s) for s, a, b in rows]
        return context.make_tuple(builder, F32_4, sums)

    return F32_4(F32_4, x, types.intp, w, types.intp, types.intp), codegen


@intrinsic
def dot4(typingctx, total, x, i, w, j, stride):
    """total[row][lane] + sum over m = 0..3 of x[i + 4 lane + m] * w[j + row * stride + 4 lane + m].

    x is uint8, w int8; a step adds at most 4 * 255 * 128, so int32 holds 16,000 of them.
    """

    def portable(builder, total, a, b):
        pairs = ir.VectorType(I16, 2 * LANES)
        eight, sixteen = ir.Constant(pairs, [8] * 2 * LANES), ir.Constant(WIDE, [16] * LANES)
        a, b = builder.bitcast(a, pairs), builder.bitcast(b, pairs)
        low_a, low_b = (builder.shl(v, eight) for v in (a, b))
        low = builder.mul(builder.lshr(low_a, eight), builder.ashr(low_b, eight))
        high = builder.mul(builder.lshr(a, eight), builder.ashr(b, eight))  # 255 * 128 < 2^15
        for products in (builder.bitcast(p, WIDE) for p in (low, high)):
            even = builder.ashr(builder.shl(products, sixteen), sixteen)
            total = builder.add(total, builder.add(even, builder.ashr(products, sixteen)))
        return total

    def codegen(context, builder, signature, args):
        rows = _rows(context, builder, signature, args, I8, 4 * LANES)
        step = _vnni("vpdpbusd") if HAS_VNNI else portable
        return context.make_tuple(builder, I32_4, [step(builder, *row) for row in rows])

    return I32_4(I32_4, x, types.intp, w, types.intp, types.intp), codegen


@intrinsic
def pairs4(typingctx, total, x, i, w, j, stride):
    """total[row][lane] + sum over m = 0, 1 of x[i + 2 lane + m] * w[j + row * stride + 2 lane + m].

    x and w are int16; the caller sees to it that int32 holds the sums.
    """

    def portable(builder, total, a, b):
        sixteen = ir.Constant(WIDE, [16] * LANES)
        a, b = builder.bitcast(a, WIDE), builder.bitcast(b, WIDE)
        low = builder.mul(*(builder.ashr(builder.shl(v, sixteen), sixteen) for v in (a, b)))
        high = builder.mul(builder.ashr(a, sixteen), builder.ashr(b, sixteen))
        return builder.add(total, builder.add(low, high))

    def codegen(context, builder, signature, args):
        rows = _rows(context, builder, signature, args, I16, 2 * LANES)
        step = _vnni("vpdpwssd") if HAS_VNNI else portable
        return context.make_tuple(builder, I32_4, [step(builder, *row) for row in rows])

    return I32_4(I32_4, x, types.intp, w, types.intp, types.intp), codegen


def _tree(builder, lanes, add):
    """Lane[i] + lane[i + 8], then those 4, 2 and 1 apart."""
    for width in (8, 4, 2, 1):
        none = ir.Constant(lanes.type, ir.Undefined)
        starts = (list(range(width)), list(range(width, 2 * width)))
        picks = (ir.Constant(ir.VectorType(I32, width), lane) for lane in starts)
        lanes = add(*[builder.shuffle_vector(lanes, none, pick) for pick in picks])
    return builder.extract_element(lanes, I32(0))


@intrinsic
def sum4(typingctx, total):
    """Return the sum of each row's lanes, in the order of `_tree`."""

    def codegen(context, builder, signature, args):
        add = builder.fadd if total == F32_4 else builder.add
        sums = [_tree(builder, x, add) for x in cgutils.unpack_tuple(builder, args[0], ROWS)]
        return context.make_tuple(builder, signature.return_type, sums)

    scalar = types.float32 if total == F32_4 else types.int32
    return types.UniTuple(scalar, ROWS)(total), codegen
