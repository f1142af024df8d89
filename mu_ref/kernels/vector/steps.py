"""Vectors of 16 lanes beside products: integers rescaled, looked up and laid out.

With `simd.py`, the only file with such intrinsics; functions say their scalar meaning.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mu_ref.kernels.vector import lanes as vec
from mu_ref.kernels.vector.dots import byte_of
from mu_ref.kernels.vector.lanes import I8, I16, I32, I32_4, LANES, WIDE

__all__ = ["all1", "clip1", "high1", "left1", "look_up64", "shift1", "store_i16", "turn16", "zip16"]


@intrinsic
def zip16(typingctx, x, i, j, out, at):
    """out[at + 2 n] = x[i + n] and out[at + 2 n + 1] = x[j + n], n in 0..15; both are int16."""

    def codegen(context, builder, signature, args):
        x, i, j, out, at = args
        both = [vec.load(context, builder, signature.args[0], x, k, I16, LANES) for k in (i, j)]
        in_turn = [lane + LANES * which for lane in range(LANES) for which in (0, 1)]
        pairs = vec.lanes(builder, *both, in_turn)
        return vec.store(context, builder, signature.args[3], out, at, LANES, [pairs])

    return types.none(x, types.intp, types.intp, out, types.intp), codegen


@intrinsic
def turn16(typingctx, x, i, stride, out, at):
    """out[at + 32 n + 2 row + m] = x[i + row stride + 2 n + m]; row in 0..15, n in 0..7, m in 0, 1.

    Both are int16: pairs of 16 rows, which lie behind each other, come to lie beside each other.
    """

    def codegen(context, builder, signature, args):
        x, i, stride, out, at = args
        half = LANES // 2
        rows = vec.loads(context, builder, signature.args[0], x, i, stride, I32, half, LANES)
        # Rows 0..7 in the lower half of a vector, 8..15 in the upper: each is turned by itself.
        turned = [
            vec.lanes(builder, rows[row], rows[row + half], list(range(LANES)))
            for row in range(half)
        ]
        for step in (1, 2, 4):
            for a in (row for row in range(half) if not row & step):
                low = [n if not n & step else n - step + LANES for n in range(LANES)]
                two = turned[a], turned[a + step]
                turned[a] = vec.lanes(builder, *two, low)
                turned[a + step] = vec.lanes(builder, *two, [n + step for n in low])
        return vec.store(context, builder, signature.args[3], out, at, 2 * LANES, turned)

    return types.none(x, types.intp, types.intp, out, types.intp), codegen


# -- lane by lane ----------------------------------------------------------------------------------


@intrinsic
def all1(typingctx, x):
    """Return x in every lane; int32."""

    def codegen(context, builder, signature, args):
        one = builder.insert_element(ir.Constant(WIDE, ir.Undefined), args[0], I32(0))
        return vec.lanes(builder, one, one, [0] * LANES)

    return I32_4.dtype(types.int32), codegen


@intrinsic
def high1(typingctx, a, b):
    """floor(a[lane] * b[lane] / 2^32); int32."""

    def codegen(context, builder, signature, args):
        kind = ir.VectorType(ir.IntType(64), LANES // 2)
        half = vec.everywhere(kind, 32)
        a, b = (builder.bitcast(x, kind) for x in args)
        # Lanes 0, 2, .. as numbers of 64 bits, then 1, 3, ..: one instruction multiplies either.
        even, odd = (
            [builder.ashr(x, half) for x in pair]
            for pair in ([builder.shl(x, half) for x in (a, b)], (a, b))
        )
        products = [builder.bitcast(builder.mul(*x), WIDE) for x in (even, odd)]
        in_turn = [lane + LANES * which for lane in range(1, LANES, 2) for which in (0, 1)]
        return vec.lanes(builder, *products, in_turn)

    return a(a, b), codegen


@intrinsic
def shift1(typingctx, a, t):
    """floor(a[lane] / 2^t[lane]); int32."""
    return a(a, t), lambda context, builder, signature, args: builder.ashr(*args)


@intrinsic
def left1(typingctx, a, t):
    """a[lane] * 2^t[lane]; int32."""
    return a(a, t), lambda context, builder, signature, args: builder.shl(*args)


@intrinsic
def clip1(typingctx, a, low, high):
    """a[lane], not below low[lane] and not above high[lane]; int32."""

    def codegen(context, builder, signature, args):
        a, low, high = args
        a = builder.select(builder.icmp_signed(">", a, low), a, low)
        return builder.select(builder.icmp_signed("<", a, high), a, high)

    return a(a, low, high), codegen


@intrinsic
def store_i16(typingctx, out, at, a):
    """out[at + lane] = a[lane], which 16 bits hold; out is int16."""

    def codegen(context, builder, signature, args):
        shorts = builder.trunc(args[2], ir.VectorType(I16, LANES))
        return vec.store(context, builder, signature.args[0], *args[:2], LANES, [shorts])

    return types.none(out, types.intp, a), codegen


@intrinsic
def look_up64(typingctx, first, second, third, last, x, i, low, out):
    """out[i + n] = low + the byte x[i + n] & 255 of a table, n in 0..63; x and out are int16.

    The table is four vectors of unsigned bytes, one behind the other. Needs HAS_BYTE_TABLES.
    """

    def codegen(context, builder, signature, args):
        *table, x, i, low, out = args
        n, shorts = 2 * LANES, ir.VectorType(I16, 2 * LANES)
        given = vec.loads(context, builder, signature.args[4], x, i, n, I16, n, 2)
        few = [builder.trunc(v, ir.VectorType(I8, n)) for v in given]
        at = vec.lanes(builder, *few, list(range(2 * n)))
        found = byte_of(builder, table, at)
        one = builder.insert_element(ir.Constant(shorts, ir.Undefined), low, I32(0))
        lows = vec.lanes(builder, one, one, [0] * n)
        halves = (vec.lanes(builder, found, found, list(range(s, s + n))) for s in (0, n))
        values = [builder.add(builder.zext(half, shorts), lows) for half in halves]
        return vec.store(context, builder, signature.args[7], out, i, n, values)

    vectors = first, second, third, last
    return types.none(*vectors, x, types.intp, types.int16, out), codegen
