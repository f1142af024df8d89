"""LLVM's vectors as Numba types: the parts that `simd.py` is made of. Nothing here computes."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import models, register_model
from numba.np.arrayobj import make_array

__all__ = [
    "BYTES", "F32", "F32_4", "I8", "I16", "I32", "I32_4", "LANES", "PAIRS", "ROWS", "SHORTS",
    "WIDE", "call", "everywhere", "fetch", "lanes", "load", "loads", "pointer", "repeated", "rows",
    "rowwise", "spread", "store", "tree",
]  # fmt: skip

# 16 lanes of 32 bits are a register of 512 bits; where those are missing, LLVM takes two or four.
# Four rows at a time: one vector of x is loaded once for four of w.
LANES, ROWS = 16, 4
F32, I8, I16, I32 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32)
WIDE, PAIRS = ir.VectorType(I32, LANES), ir.VectorType(I16, 2 * LANES)


class _Vector(types.Type):
    """Lanes of one type; lives in registers only."""

    def __init__(self, name, lane, n=LANES):
        self.llvm = ir.VectorType(lane, n)
        super().__init__(name=name)


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, fe_type.llvm)


F32_4 = types.UniTuple(_Vector("f32x16", F32), ROWS)  # one vector of sums for each of four rows
I32_4 = types.UniTuple(_Vector("i32x16", I32), ROWS)
BYTES = _Vector("i8x64", I8, 4 * LANES)
SHORTS = _Vector("i16x32", I16, 2 * LANES)


def call(builder, name, result, *args):
    """Call a function of LLVM by its name."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def everywhere(kind, value):
    """The constant vector with one value in every lane."""
    return ir.Constant(kind, [value] * kind.count)


def fetch(context, builder, kind, array, index):
    """Ask for the line of an element."""
    at = pointer(context, builder, kind, array, index, I8)
    # to read (0), to be kept from the second cache on (2), as data (1)
    call(builder, "llvm.prefetch.p0", ir.VoidType(), at, I32(0), I32(2), I32(1))


def lanes(builder, a, b, picked):
    """The picked lanes of a and b, those of b counted on."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(picked)), picked))


def pointer(context, builder, kind, array, index, content):
    """Where an element of a flat array lies, as a pointer to `content`."""
    at = builder.gep(make_array(kind)(context, builder, array).data, [index])
    return builder.bitcast(at, content.as_pointer())


def load(context, builder, kind, array, index, lane, count):
    """`count` neighbours of a flat array from `index` on, at any alignment."""
    at = pointer(context, builder, kind, array, index, ir.VectorType(lane, count))
    return builder.load(at, align=1)  # weights start at a line, but heads in a cache anywhere


def loads(context, builder, kind, array, index, stride, lane, count, n=ROWS):
    """Vectors of `count` neighbours from n places, `stride` apart."""
    places = rows(builder, index, stride, n)
    return [load(context, builder, kind, array, at, lane, count) for at in places]


def rowwise(kind, x, w, lane, count, step, *, spread_x=0):
    """The intrinsic that does total[row] = step(total[row], x[i..], w[j + row * stride..]).

    `count` elements are taken of each; of x as many as `spread_x` says, and repeated.
    """

    def codegen(context, builder, signature, args):
        total, x, i, w, j, stride = args
        a, sums = load(context, builder, signature.args[1], x, i, lane, spread_x or count), []
        a = repeated(builder, a, count) if spread_x else a
        ws = loads(context, builder, signature.args[3], w, j, stride, lane, count)
        for so_far, b in zip(cgutils.unpack_tuple(builder, total, ROWS), ws, strict=True):
            sums.append(step(builder, so_far, a, b))
        return context.make_tuple(builder, kind, sums)

    return kind(kind, x, types.intp, w, types.intp, types.intp), codegen


def rows(builder, index, stride, n=ROWS):
    """Yield n indices, `stride` apart; stride is a number or a value of LLVM."""
    stride = ir.Constant(index.type, stride) if isinstance(stride, int) else stride
    for _ in range(n):
        yield index
        index = builder.add(index, stride)


def repeated(builder, few, count=LANES):
    """The lanes of a short vector again and again, `count` in all."""
    return lanes(builder, few, few, list(range(few.type.count)) * (count // few.type.count))


def spread(kind, x, lane, count, few=1, *, vector=None, step=None):
    """The intrinsic that repeats `few` elements of x, from i + row * stride on, in each row.

    With the type of a vector and a step it does total[row] = step(total[row], vector, repeated).
    """

    def codegen(context, builder, signature, args):
        *before, array, index, stride = args
        some = loads(context, builder, x, array, index, stride, lane, few)
        made = [repeated(builder, one, count) for one in some]
        if step:
            totals = zip(cgutils.unpack_tuple(builder, before[0], ROWS), made, strict=True)
            made = [step(builder, total, before[1], one) for total, one in totals]
        return context.make_tuple(builder, kind, made)

    before = (kind, vector) if step else ()
    return kind(*before, x, types.intp, types.intp), codegen


def store(context, builder, kind, array, index, stride, vectors):
    """Write vectors to a flat array, at places `stride` apart."""
    places = rows(builder, index, stride, len(vectors))
    for vector, at in zip(vectors, places, strict=True):
        to = pointer(context, builder, kind, array, at, vector.type)
        builder.store(vector, to, align=1)
    return context.get_dummy_value()


def tree(builder, add, vectors):
    """Four lanes, the sums of four vectors: of lane pairs, of pairs of pairs, of quarters."""

    def merged(x, y, width):
        """Sums of neighbouring groups of lanes, those of x and y in turn."""
        groups = range(0, LANES, 2 * width)
        even = [g + at + i for g in groups for at in (0, LANES) for i in range(width)]
        return add(lanes(builder, x, y, even), lanes(builder, x, y, [n + width for n in even]))

    a, b, c, d = vectors
    x = merged(merged(a, b, 1), merged(c, d, 1), 2)  # a, b, c, d in each quarter
    x = add(*(lanes(builder, x, x, list(range(at, at + 8))) for at in (0, 8)))
    return add(*(lanes(builder, x, x, list(range(at, at + 4))) for at in (0, 4)))
