"""Vectors of 16 lanes, four rows at a time: with `steps.py`, the only file with such intrinsics.

Numba makes wide multiplications of int8 products; the processor's dot-product instructions (VNNI)
do four at once. Functions say their scalar meaning, for row 0..3, lane 0..15.
"""

from llvmlite import ir
from numba import types
from numba.core.cgutils import unpack_tuple
from numba.extending import intrinsic

from mu_ref.kernels.vector import lanes as vec
from mu_ref.kernels.vector.dots import dot, fma, pairs
from mu_ref.kernels.vector.lanes import (
    BYTES,
    F32,
    F32_4,
    I8,
    I16,
    I32,
    I32_4,
    LANES,
    ROWS,
    SHORTS,
    WIDE,
)  # fmt: skip


@intrinsic
def zeros4(typingctx, out):
    """total[row][lane] = 0, as float32 or int32, the type of what is in out."""
    kind = F32_4 if out.dtype == types.float32 else I32_4
    rows = [ir.Constant(kind.dtype.llvm, None)] * ROWS
    return kind(out), lambda context, builder, s, args: context.make_tuple(builder, kind, rows)


@intrinsic
def fma4(typingctx, total, x, i, w, j, stride):
    """total[row][lane] + x[i + lane] * w[j + row * stride + lane], rounded once; float32."""
    return vec.rowwise(F32_4, x, w, F32, LANES, fma)


@intrinsic
def mix_f32(typingctx, total, p, i, v, j, stride):
    """total[row][lane] + p[i] * v[j + row * stride + lane], rounded once; float32."""
    return vec.rowwise(F32_4, p, v, F32, LANES, fma, spread_x=1)


@intrinsic
def zeros1(typingctx, out):
    """One row of zeros4."""
    kind = (F32_4 if out.dtype == types.float32 else I32_4).dtype
    zeros = ir.Constant(kind.llvm, None)
    return kind(out), lambda context, builder, signature, args: zeros


@intrinsic
def add1(typingctx, a, b):
    """a[lane] + b[lane]."""
    is_float = a == F32_4.dtype
    return a(a, b), lambda c, builder, s, args: _plus(builder, is_float)(*args)


def _plus(builder, is_float):
    return builder.fadd if is_float else builder.add


@intrinsic
def group1(typingctx, w):
    """How many numbers of w four bytes hold; a constant for the compiler, as w.itemsize is not."""
    group = ir.Constant(ir.IntType(64), 32 // w.dtype.bitwidth)
    return types.intp(w), lambda context, builder, signature, args: group


@intrinsic
def vector1(typingctx, w, j):
    """The 64 bytes from w[j] on."""
    kind, lane, count = {
        types.float32: (F32_4.dtype, F32, LANES),
        types.int32: (I32_4.dtype, I32, LANES),
        types.int16: (SHORTS, I16, 2 * LANES),
        types.int8: (BYTES, I8, 4 * LANES),
        types.uint8: (BYTES, I8, 4 * LANES),
    }[w.dtype]

    def codegen(context, builder, signature, args):
        return vec.load(context, builder, signature.args[0], *args, lane, count)

    return kind(w, types.intp), codegen


@intrinsic
def pairs4(typingctx, total, x, i, w, j, stride):
    """total[row][lane] + sum over m = 0, 1 of x[i + 2 lane + m] * w[j + row * stride + 2 lane + m].

    x and w are int16; the caller sees to it that int32 holds the sums.
    """
    return vec.rowwise(I32_4, x, w, I16, 2 * LANES, pairs)


@intrinsic
def mix_i16(typingctx, total, p, i, v, j, other):
    """total[row][lane] + p[i] * v[j + 16 row + lane] + p[i + 1] * v[other + 16 row + lane].

    p and v are int16; the caller sees to it that int32 holds the sums.
    """

    def codegen(context, builder, signature, args):
        total, p, i, v, j, other = args
        weights = vec.load(context, builder, signature.args[1], p, i, I16, 2)
        weights = vec.repeated(builder, weights, 2 * LANES)
        place = context, builder, signature.args[3], v
        one, two = (vec.loads(*place, at, LANES, I16, LANES) for at in (j, other))
        # A pair is two keys of one feature, so the vectors of two keys are put together like a zip.
        in_turn = [lane + LANES * key for lane in range(LANES) for key in (0, 1)]
        keys = [vec.lanes(builder, *of_row, in_turn) for of_row in zip(one, two, strict=True)]
        sums = zip(unpack_tuple(builder, total, ROWS), keys, strict=True)
        return context.make_tuple(builder, I32_4, [pairs(builder, *x, weights) for x in sums])

    return I32_4(I32_4, p, types.intp, v, types.intp, types.intp), codegen


@intrinsic
def nibbles2(typingctx, w, j):
    """Two vectors of bytes 0..15: the low halves of w[j + 0..63], and the high halves."""

    def codegen(context, builder, signature, args):
        both = vec.load(context, builder, signature.args[0], *args, I8, 4 * LANES)
        low = builder.and_(both, vec.everywhere(both.type, 15))
        high = builder.lshr(both, vec.everywhere(both.type, 4))
        return context.make_tuple(builder, signature.return_type, [low, high])

    return types.UniTuple(BYTES, 2)(w, types.intp), codegen


@intrinsic
def each4(typingctx, x, i, stride):
    """total[row][lane] = x[i + row * stride]; int32."""
    return vec.spread(I32_4, x, I32, LANES)


def _spread_step(x):
    """What a vector of weights does with spread elements of x: sums, lane, elements, lanes, step.

    Each lane adds four products of bytes, of which one is unsigned and the other is not, two of
    int16, or one of float32, rounded once with the sum.
    """
    return {
        types.float32: (F32_4, F32, 1, LANES, fma),
        types.int16: (I32_4, I16, 2, 2 * LANES, pairs),
        types.int8: (I32_4, I8, 4, 4 * LANES, dot),  # weights are unsigned
        types.uint8: (I32_4, I8, 4, 4 * LANES, lambda b, sums, w, x: dot(b, sums, x, w)),
    }[x.dtype]


@intrinsic
def spread4(typingctx, total, w, x, i, stride):
    """total[row][lane] + sum over m of w[n lane + m] * x[i + row * stride + m], m in 0..n-1.

    n is how many elements four bytes hold: (9.2) for bytes. A step of bytes adds at most
    4 * 255 * 128, so int32 holds 16,000 of them.
    """
    kind, lane, few, count, step = _spread_step(x)
    return vec.spread(kind, x, lane, count, few, vector=w, step=step)


@intrinsic
def spread1(typingctx, total, w, x, i):
    """One row of spread4."""
    kind, lane, few, count, step = _spread_step(x)

    def codegen(context, builder, signature, args):
        some = vec.load(context, builder, signature.args[2], *args[2:], lane, few)
        return step(builder, args[0], args[1], vec.repeated(builder, some, count))

    return kind.dtype(kind.dtype, w, x, types.intp), codegen


@intrinsic
def scaled1(typingctx, total, high, low, scales, s):
    """One row of scaled4: total[lane] + scales[s + lane] * (128 high[lane] + low[lane])."""

    def codegen(context, builder, signature, args):
        scale = vec.load(context, builder, signature.args[3], *args[3:], F32, LANES)
        return _scaled(builder, *args[:3], scale)

    return total(total, high, low, scales, types.intp), codegen


def _scaled(builder, total, high, low, scale):
    # Shifted and added as integers: so the sum of a group is rounded once, and not twice.
    steps = builder.add(builder.shl(high, vec.everywhere(WIDE, 7)), low)
    return fma(builder, total, builder.sitofp(steps, scale.type), scale)


@intrinsic
def scaled4(typingctx, total, a, b, scales, s):
    """total[row][lane] + scales[s + lane] * (128 high[lane] + low[lane]), rounded once; float32.

    high and low are a[0], a[1] for row 0, then a[2], a[3], and those of b.
    """

    def codegen(context, builder, signature, args):
        sums, a, b = (unpack_tuple(builder, x, ROWS) for x in args[:3])
        scale = vec.load(context, builder, signature.args[3], *args[3:], F32, LANES)
        rows = zip(sums, (*a[::2], *b[::2]), (*a[1::2], *b[1::2]), strict=True)
        return context.make_tuple(builder, F32_4, [_scaled(builder, *x, scale) for x in rows])

    return F32_4(F32_4, I32_4, I32_4, scales, types.intp), codegen


@intrinsic
def fetch4(typingctx, w, j, stride):
    """Ask for w[j + row * stride] to be near soon; it may lie beyond the end.

    Near is the second cache: more lines can be on their way there than to the first.
    """

    def codegen(context, builder, signature, args):
        for place in vec.rows(builder, *args[1:]):
            vec.fetch(context, builder, signature.args[0], args[0], place)
        return context.get_dummy_value()

    return types.none(w, types.intp, types.intp), codegen


@intrinsic
def fetch1(typingctx, w, j):
    """One row of fetch4."""

    def codegen(context, builder, signature, args):
        vec.fetch(context, builder, signature.args[0], *args)
        return context.get_dummy_value()

    return types.none(w, types.intp), codegen


@intrinsic
def store4(typingctx, out, at, stride, total):
    """out[at + row * stride + lane] = total[row][lane]; out has the type of the lanes."""

    def codegen(context, builder, signature, args):
        vectors = unpack_tuple(builder, args[3], ROWS)
        return vec.store(context, builder, signature.args[0], *args[:3], vectors)

    return types.none(out, types.intp, types.intp, total), codegen


@intrinsic
def add4(typingctx, out, at, stride, total):
    """out[at + row * stride + lane] += total[row][lane]."""
    lane = F32 if total == F32_4 else I32

    def codegen(context, builder, signature, args):
        out, at, stride, total = args
        before = vec.loads(context, builder, signature.args[0], out, at, stride, lane, LANES)
        both = zip(before, unpack_tuple(builder, total, ROWS), strict=True)
        sums = [_plus(builder, lane is F32)(*x) for x in both]
        return vec.store(context, builder, signature.args[0], out, at, stride, sums)

    return types.none(out, types.intp, types.intp, total), codegen


@intrinsic
def store1(typingctx, out, at, total):
    """out[at + lane] = total[lane]."""

    def codegen(context, builder, signature, args):
        return vec.store(context, builder, signature.args[0], *args[:2], LANES, [args[2]])

    return types.none(out, types.intp, total), codegen


@intrinsic
def sums4(typingctx, out, at, total):
    """out[at + row] = the sum of the row's lanes, in the order of `lanes.tree`."""

    def codegen(context, builder, signature, args):
        add = _plus(builder, total == F32_4)
        four = vec.tree(builder, add, unpack_tuple(builder, args[2], ROWS))
        return vec.store(context, builder, signature.args[0], *args[:2], ROWS, [four])

    return types.none(out, types.intp, total), codegen
