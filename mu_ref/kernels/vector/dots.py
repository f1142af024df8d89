"""Dot products: the processor's instruction, or the same integers in plain LLVM.

Plain LLVM serves processors without VNNI, and every processor with MU_REF_NO_VNNI=1: LLVM may not
find the instructions by itself then. Tables of bytes in registers (VBMI) go the same way.
"""

import os

import llvmlite.binding as llvm
import numba
from llvmlite import ir

from mu_ref.kernels.vector.lanes import I32, LANES, PAIRS, WIDE, call, everywhere, lanes

__all__ = ["HAS_BYTE_TABLES", "HAS_VNNI", "byte_of", "dot", "fma", "pairs"]


def _may_use(*names):
    """Say which features kernels may use, and tell Numba."""
    features = dict(llvm.get_host_cpu_features())
    if os.environ.get("MU_REF_NO_VNNI"):
        features |= dict.fromkeys(("avx512vnni", "avxvnni", "avx512vbmi"), False)
        numba.config.CPU_FEATURES = ",".join("-+"[has] + name for name, has in features.items())
    return [features.get(name, False) for name in names]


HAS_VNNI, HAS_BYTE_TABLES = _may_use("avx512vnni", "avx512vbmi")


def _instruction(name, builder, total, a, b):
    """Add the sums of neighbouring products, in one instruction."""
    if llvm.llvm_version_info < (21,):  # older signatures count in int32
        a, b = builder.bitcast(a, WIDE), builder.bitcast(b, WIDE)
    return call(builder, f"llvm.x86.avx512.{name}.512", WIDE, total, a, b)


def dot(builder, total, a, b):
    """total[lane] + sum over m = 0..3 of a[4 lane + m] * b[4 lane + m]; a is uint8, b int8."""
    if HAS_VNNI:
        return _instruction("vpdpbusd", builder, total, a, b)
    # Two bytes lie in each 16 bits: the lower is masked, or shifted up and down for its sign.
    a, b = builder.bitcast(a, PAIRS), builder.bitcast(b, PAIRS)
    eight = everywhere(PAIRS, 8)
    lower = builder.and_(a, everywhere(PAIRS, 255)), builder.ashr(builder.shl(b, eight), eight)
    upper = builder.lshr(a, eight), builder.ashr(b, eight)
    return _sums_of_two(builder, _sums_of_two(builder, total, *lower), *upper)


def _sums_of_two(builder, total, a, b):
    """Add a[2 lane] * b[2 lane] + a[2 lane + 1] * b[2 lane + 1], in words that LLVM knows.

    Most processors multiply and add two numbers of 16 bits in one instruction.
    """
    wide = ir.VectorType(I32, 2 * LANES)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    even, odd = (lanes(builder, products, products, list(range(m, 2 * LANES, 2))) for m in (0, 1))
    return builder.add(total, builder.add(even, odd))


def pairs(builder, total, a, b):
    """total[lane] + a[2 lane] * b[2 lane] + a[2 lane + 1] * b[2 lane + 1]; both int16."""
    if HAS_VNNI:
        return _instruction("vpdpwssd", builder, total, a, b)
    return _sums_of_two(builder, total, a, b)


def fma(builder, total, a, b):
    """total[lane] + a[lane] * b[lane], rounded once; float32."""
    return call(builder, "llvm.fma.v16f32", a.type, a, b, total)


def byte_of(builder, table, at):
    """The byte of a table of four vectors that each unsigned byte of `at` says; only with VBMI."""
    name = "llvm.x86.avx512.vpermi2var.qi.512"
    low, high = (call(builder, name, at.type, one, at, two) for one, two in (table[:2], table[2:]))
    return builder.select(builder.icmp_signed("<", at, everywhere(at.type, 0)), high, low)
