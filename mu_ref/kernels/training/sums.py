"""Sixteen sums or largest numbers side by side in one register; their order is fixed.

Without these the compiler adds a row up number by number: a sum in another order is another sum.
Functions say their scalar meaning, for lane 0..15.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mu_ref.kernels.compiled import dividing
from mu_ref.kernels.vector import lanes as vec
from mu_ref.kernels.vector.dots import fma
from mu_ref.kernels.vector.lanes import F32, F32_4, LANES

__all__ = ["dot", "largest", "total"]

VECTOR = F32_4.dtype
LOWEST = -3.4e38


@intrinsic
def _everywhere(typingctx, value):
    """total[lane] = value."""

    def codegen(context, builder, signature, args):
        one = builder.insert_element(ir.Constant(VECTOR.llvm, ir.Undefined), args[0], vec.I32(0))
        return vec.lanes(builder, one, one, [0] * LANES)

    return VECTOR(types.float32), codegen


@intrinsic
def _fma(typingctx, total, x, i, y, j):
    """total[lane] + x[i + lane] * y[j + lane], rounded once."""

    def codegen(context, builder, signature, args):
        total, x, i, y, j = args
        a = vec.load(context, builder, signature.args[1], x, i, F32, LANES)
        b = vec.load(context, builder, signature.args[3], y, j, F32, LANES)
        return fma(builder, total, a, b)

    return VECTOR(VECTOR, x, types.intp, y, types.intp), codegen


@intrinsic
def _plus(typingctx, total, x, i):
    """total[lane] + x[i + lane]."""

    def codegen(context, builder, signature, args):
        total, x, i = args
        return builder.fadd(total, vec.load(context, builder, signature.args[1], x, i, F32, LANES))

    return VECTOR(VECTOR, x, types.intp), codegen


@intrinsic
def _larger(typingctx, most, x, i):
    """The larger of most[lane] and x[i + lane]; NaN is passed over."""

    def codegen(context, builder, signature, args):
        most, x, i = args
        other = vec.load(context, builder, signature.args[1], x, i, F32, LANES)
        return _larger_of(builder, other, most)

    return VECTOR(VECTOR, x, types.intp), codegen


def _larger_of(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _folded(step):
    """The intrinsic that joins lanes by halves, until one is left."""

    def codegen(context, builder, signature, args):
        vector, width = args[0], LANES
        while width > 1:
            width //= 2
            low, high = (
                vec.lanes(builder, vector, vector, list(range(at, at + width))) for at in (0, width)
            )
            vector = step(builder, low, high)
        return builder.extract_element(vector, vec.I32(0))

    return types.float32(VECTOR), codegen


@intrinsic
def _added(typingctx, total):
    """Sum of the lanes, halves first."""
    return _folded(lambda builder, a, b: builder.fadd(a, b))


@intrinsic
def _most(typingctx, most):
    """Largest of the lanes."""
    return _folded(_larger_of)


@dividing
def dot(x, y):
    """Sum of x y: number k goes to sum k mod 16, a rest goes to the end. Contract: bound."""
    sums, whole = _everywhere(np.float32(0)), len(x) // LANES * LANES
    for k in range(0, whole, LANES):
        sums = _fma(sums, x, k, y, k)
    result = _added(sums)
    for k in range(whole, len(x)):
        result += x[k] * y[k]
    return result


@dividing
def total(x):
    """Sum of x: number k goes to sum k mod 16, a rest goes to the end. Contract: bound."""
    sums, whole = _everywhere(np.float32(0)), len(x) // LANES * LANES
    for k in range(0, whole, LANES):
        sums = _plus(sums, x, k)
    result = _added(sums)
    for k in range(whole, len(x)):
        result += x[k]
    return result


@dividing
def largest(x):
    """Largest of x, at least -3.4e38; NaN is passed over. Contract: exact."""
    most, whole = _everywhere(np.float32(LOWEST)), len(x) // LANES * LANES
    for k in range(0, whole, LANES):
        most = _larger(most, x, k)
    result = _most(most)
    for k in range(whole, len(x)):
        result = x[k] if x[k] > result else result
    return result
