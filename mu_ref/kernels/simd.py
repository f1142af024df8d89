"""Vectors of 16 lanes, four rows at a time: the only file that speaks LLVM.

Numba turns a loop over int8 products into wide multiplications; the processor's dot-product
instructions (VNNI) do four at once. Each function here says its scalar meaning. Lanes are summed in
one fixed tree, and a multiply-add rounds once on every machine. Where VNNI is missing, or with
MU_REF_NO_VNNI=1, the same integers come from plain LLVM.
"""

import os

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import make_array

__all__ = ["HAS_VNNI", "dot4", "f32_zeros", "fetch4", "fma4", "i32_zeros", "pairs4", "sum4"]

LANES, ROWS = 16, 4
F32, I8, I16, I32 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32)
WIDE, PAIRS = ir.VectorType(I32, LANES), ir.VectorType(I16, 2 * LANES)
HAS_VNNI = bool(
    llvm.get_host_cpu_features().get("avx512vnni") and not os.environ.get("MU_REF_NO_VNNI")
)


class _Vector(types.Type):
    """16 lanes of one type; lives in registers only."""

    def __init__(self, name, lane):
        self.llvm = ir.VectorType(lane, LANES)
        super().__init__(name=name)


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, fe_type.llvm)


F32_4 = types.UniTuple(_Vector("f32x16", F32), ROWS)  # one vector of sums for each of four rows
I32_4 = types.UniTuple(_Vector("i32x16", I32), ROWS)


def _call(builder, name, result, *args):
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _all(kind, value):
    return ir.Constant(kind, [value] * kind.count)


def _load(context, builder, kind, array, index, lane, count):
    """`count` neighbours of a flat array from `index` on, at any alignment."""
    pointer = builder.gep(make_array(kind)(context, builder, array).data, [index])
    loaded = builder.load(builder.bitcast(pointer, ir.VectorType(lane, count).as_pointer()))
    loaded.align = 1
    return loaded


def _rowwise(kind, x, w, lane, count, step):
    """The intrinsic that does total[row] = step(total[row], x[i..], w[j + stride * row..])."""

    def codegen(context, builder, signature, args):
        total, x, i, w, j, stride = args
        a, sums = _load(context, builder, signature.args[1], x, i, lane, count), []
        for so_far in cgutils.unpack_tuple(builder, total, ROWS):
            b = _load(context, builder, signature.args[3], w, j, lane, count)
            sums.append(step(builder, so_far, a, b))
            j = builder.add(j, stride)
        return context.make_tuple(builder, kind, sums)

    return kind(kind, x, types.intp, w, types.intp, types.intp), codegen


def _vnni(name):
    """One instruction: total + the sums of neighbouring products."""

    def step(builder, total, a, b):
        if llvm.llvm_version_info < (21,):  # older signatures count in int32
            a, b = builder.bitcast(a, WIDE), builder.bitcast(b, WIDE)
        return _call(builder, f"llvm.x86.avx512.{name}.512", WIDE, total, a, b)

    return step


def _zeros(kind):
    zero = ir.Constant(kind.dtype.llvm, None)
    return kind(), lambda context, b, s, a: context.make_tuple(b, kind, [zero] * ROWS)


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

    def step(builder, total, a, b):
        return _call(builder, "llvm.fma.v16f32", a.type, a, b, total)

    return _rowwise(F32_4, x, w, F32, LANES, step)


@intrinsic
def dot4(typingctx, total, x, i, w, j, stride):
    """total[row][lane] + sum over m = 0..3 of x[i + 4 lane + m] * w[j + row * stride + 4 lane + m].

    x is uint8, w int8; a step adds at most 4 * 255 * 128, so int32 holds 16,000 of them.
    """

    def portable(builder, total, a, b):
        a, b = builder.bitcast(a, PAIRS), builder.bitcast(b, PAIRS)
        low_a, low_b = (builder.shl(v, _all(PAIRS, 8)) for v in (a, b))
        low_a, high_a = (builder.lshr(v, _all(PAIRS, 8)) for v in (low_a, a))
        low_b, high_b = (builder.ashr(v, _all(PAIRS, 8)) for v in (low_b, b))
        for products in (builder.mul(low_a, low_b), builder.mul(high_a, high_b)):  # 15 bits
            wide = builder.bitcast(products, WIDE)
            even = builder.ashr(builder.shl(wide, _all(WIDE, 16)), _all(WIDE, 16))
            total = builder.add(total, builder.add(even, builder.ashr(wide, _all(WIDE, 16))))
        return total

    return _rowwise(I32_4, x, w, I8, 4 * LANES, _vnni("vpdpbusd") if HAS_VNNI else portable)


@intrinsic
def pairs4(typingctx, total, x, i, w, j, stride):
    """total[row][lane] + sum over m = 0, 1 of x[i + 2 lane + m] * w[j + row * stride + 2 lane + m].

    x and w are int16; the caller sees to it that int32 holds the sums.
    """

    def portable(builder, total, a, b):
        a, b = builder.bitcast(a, WIDE), builder.bitcast(b, WIDE)
        low_a, low_b = (builder.shl(v, _all(WIDE, 16)) for v in (a, b))
        a, b, low_a, low_b = (builder.ashr(v, _all(WIDE, 16)) for v in (a, b, low_a, low_b))
        return builder.add(total, builder.add(builder.mul(low_a, low_b), builder.mul(a, b)))

    return _rowwise(I32_4, x, w, I16, 2 * LANES, _vnni("vpdpwssd") if HAS_VNNI else portable)


@intrinsic
def fetch4(typingctx, w, j, stride):
    """Ask for w[j + row * stride] to be near soon; it may lie beyond the end."""

    def codegen(context, builder, signature, args):
        w, j, stride = args
        data = make_array(signature.args[0])(context, builder, w).data
        for _ in range(ROWS):
            pointer = builder.bitcast(builder.gep(data, [j]), I8.as_pointer())
            how = (I32(0), I32(3), I32(1))  # to read, into the nearest cache, data
            _call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, *how)
            j = builder.add(j, stride)
        return context.get_dummy_value()

    return types.none(w, types.intp, types.intp), codegen


@intrinsic
def sum4(typingctx, total):
    """Return the sum of each row's lanes, in one fixed tree: pairs, pairs of pairs, quarters."""

    def codegen(context, builder, signature, args):
        add = builder.fadd if total == F32_4 else builder.add

        def picked(x, y, lanes):
            return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))

        def merged(x, y, width):
            """Sums of neighbouring groups of lanes, those of x and y in turn."""
            groups = range(0, LANES, 2 * width)
            even = [g + at + i for g in groups for at in (0, LANES) for i in range(width)]
            return add(picked(x, y, even), picked(x, y, [lane + width for lane in even]))

        a, b, c, d = cgutils.unpack_tuple(builder, args[0], ROWS)
        x = merged(merged(a, b, 1), merged(c, d, 1), 2)  # a, b, c, d in each quarter
        x = add(*(picked(x, x, list(range(at, at + 8))) for at in (0, 8)))
        x = add(*(picked(x, x, list(range(at, at + 4))) for at in (0, 4)))
        sums = [builder.extract_element(x, I32(row)) for row in range(ROWS)]
        return context.make_tuple(builder, signature.return_type, sums)

    scalar = types.float32 if total == F32_4 else types.int32
    return types.UniTuple(scalar, ROWS)(total), codegen
