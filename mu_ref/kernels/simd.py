"""Vectors of 16 lanes, four rows at a time: the only file with intrinsics.

Numba turns a loop over int8 products into wide multiplications; the processor's dot-product
instructions (VNNI) do four at once. Functions say their scalar meaning, for row 0..3, lane 0..15.
"""

from llvmlite import ir
from numba import types
from numba.core.cgutils import unpack_tuple
from numba.extending import intrinsic

from mu_ref.kernels import vectors as vec
from mu_ref.kernels.dots import dot, fma, pairs
from mu_ref.kernels.vectors import F32, F32_4, I8, I16, I32, I32_4, LANES, ROWS, WIDE


@intrinsic
def zeros4(typingctx, zero):
    """total[row][lane] = 0, as float32 or int32, the type of zero."""
    return vec.zeros(zero, F32_4 if zero == types.float32 else I32_4)


@intrinsic
def fma4(typingctx, total, x, i, w, j, stride):
    """total[row][lane] + x[i + lane] * w[j + row * stride + lane], rounded once; float32."""
    return vec.rowwise(F32_4, x, w, F32, LANES, fma)


@intrinsic
def mix_f32(typingctx, total, p, i, v, j, stride):
    """total[row][lane] + p[i] * v[j + row * stride + lane], rounded once; float32."""
    return vec.rowwise(F32_4, p, v, F32, LANES, fma, spread_x=1)


@intrinsic
def dot4(typingctx, total, x, i, w, j, stride):
    """total[row][lane] + sum over m = 0..3 of x[i + 4 lane + m] * w[j + row * stride + 4 lane + m].

    (9.2); x is uint8, w int8; a step adds at most 4 * 255 * 128, so int32 holds 16,000 of them.
    """
    return vec.rowwise(I32_4, x, w, I8, 4 * LANES, dot)


@intrinsic
def spread4(typingctx, total, x, i, w, j, stride):
    """total[row][lane] + sum over m = 0..3 of x[i + 4 lane + m] * w[j + row * stride + m]."""
    return vec.rowwise(I32_4, x, w, I8, 4 * LANES, dot, spread_w=4)


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
        two = vec.load(context, builder, signature.args[1], p, i, I16, 2)
        weights, sums = vec.repeated(builder, two, 2 * LANES), []
        in_turn = [lane + LANES * key for lane in range(LANES) for key in (0, 1)]
        pieces = (vec.rows(builder, at, LANES) for at in (j, other))
        for so_far, *two in zip(unpack_tuple(builder, total, ROWS), *pieces, strict=True):
            keys = (vec.load(context, builder, signature.args[3], v, at, I16, LANES) for at in two)
            sums.append(pairs(builder, so_far, weights, vec.lanes(builder, *keys, in_turn)))
        return context.make_tuple(builder, I32_4, sums)

    return I32_4(I32_4, p, types.intp, v, types.intp, types.intp), codegen


@intrinsic
def nibbles4(typingctx, total, x, i, w, j, stride, scales, s, s_stride):
    """total[row][lane] + scales[s + row * s_stride] * the lane's part of 128 products x w.

    w is uint8, 64 bytes in a row, two weights + 8 in each: the even one in the low nibble. x is
    int8, x = 128 high + low: 64 even and 64 odd high parts, as many low parts, and 16 int32 to
    start the sums with, which take away what the 8 adds.
    """

    def codegen(context, builder, signature, args):
        total, x, i, w, j, stride, scales, s, s_stride = args
        kinds, starts = signature.args, vec.rows(builder, i, 4 * LANES, 5)
        parts = [vec.load(context, builder, kinds[1], x, at, I8, 4 * LANES) for at in starts]
        nothing, start, sums = vec.everywhere(WIDE, 0), builder.bitcast(parts[4], WIDE), []
        places = vec.rows(builder, j, stride), vec.rows(builder, s, s_stride)
        for so_far, at, s in zip(unpack_tuple(builder, total, ROWS), *places, strict=True):
            both = vec.load(context, builder, signature.args[3], w, at, I8, 4 * LANES)
            even = builder.and_(both, vec.everywhere(both.type, 15))
            odd = builder.lshr(both, vec.everywhere(both.type, 4))
            high = dot(builder, dot(builder, nothing, even, parts[0]), odd, parts[1])
            low = dot(builder, dot(builder, start, even, parts[2]), odd, parts[3])
            steps = builder.add(builder.shl(high, vec.everywhere(WIDE, 7)), low)
            scale = vec.repeated(builder, vec.load(context, builder, kinds[6], scales, s, F32, 1))
            sums.append(fma(builder, so_far, builder.sitofp(steps, scale.type), scale))
        return context.make_tuple(builder, F32_4, sums)

    at = types.intp
    return F32_4(F32_4, x, at, w, at, at, scales, at, at), codegen


@intrinsic
def fetch4(typingctx, w, j, stride):
    """Ask for w[j + row * stride] to be near soon; it may lie beyond the end."""

    def codegen(context, builder, signature, args):
        w, j, stride = args
        for index in vec.rows(builder, j, stride):
            at = vec.pointer(context, builder, signature.args[0], w, index, I8)
            vec.call(builder, "llvm.prefetch.p0", ir.VoidType(), at, I32(0), I32(3), I32(1))
        return context.get_dummy_value()

    return types.none(w, types.intp, types.intp), codegen


@intrinsic
def store64(typingctx, out, at, total):
    """out[at + 16 row + lane] = total[row][lane]; out has the type of the lanes."""

    def codegen(context, builder, signature, args):
        out, at, total = args
        places = vec.rows(builder, at, LANES)
        for vector, index in zip(unpack_tuple(builder, total, ROWS), places, strict=True):
            to = vec.pointer(context, builder, signature.args[0], out, index, vector.type)
            builder.store(vector, to, align=1)
        return context.get_dummy_value()

    return types.none(out, types.intp, total), codegen


@intrinsic
def sum4(typingctx, total):
    """Return the sum of each row's lanes, in the order of `vectors.tree`."""

    def codegen(context, builder, signature, args):
        add = builder.fadd if total == F32_4 else builder.add
        x = vec.tree(builder, add, unpack_tuple(builder, args[0], ROWS))
        sums = [builder.extract_element(x, I32(row)) for row in range(ROWS)]
        return context.make_tuple(builder, signature.return_type, sums)

    kind = types.UniTuple(types.float32 if total == F32_4 else types.int32, ROWS)
    return kind(total), codegen
