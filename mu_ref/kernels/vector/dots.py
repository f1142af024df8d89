"""Dot products: the processor's instruction, or the same integers in plain LLVM.

Plain LLVM serves processors without VNNI, and every processor with MU_REF_NO_VNNI=1. Tables of
bytes in registers (VBMI) go the same way.
"""

import os

import llvmlite.binding as llvm

from mu_ref.kernels.vector.lanes import PAIRS, WIDE, call, everywhere

__all__ = ["HAS_BYTE_TABLES", "HAS_VNNI", "byte_of", "dot", "fma", "pairs"]


def _has(feature):
    return bool(llvm.get_host_cpu_features().get(feature) and not os.environ.get("MU_REF_NO_VNNI"))


HAS_VNNI, HAS_BYTE_TABLES = _has("avx512vnni"), _has("avx512vbmi")


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
    low_a, high_a = builder.and_(a, everywhere(PAIRS, 255)), builder.lshr(a, eight)
    low_b, high_b = builder.ashr(builder.shl(b, eight), eight), builder.ashr(b, eight)
    for products in (builder.mul(low_a, low_b), builder.mul(high_a, high_b)):  # 16 bits hold them
        wide = builder.bitcast(products, WIDE)
        even = builder.ashr(builder.shl(wide, everywhere(WIDE, 16)), everywhere(WIDE, 16))
        total = builder.add(total, builder.add(even, builder.ashr(wide, everywhere(WIDE, 16))))
    return total


def pairs(builder, total, a, b):
    """total[lane] + a[2 lane] * b[2 lane] + a[2 lane + 1] * b[2 lane + 1]; both int16."""
    if HAS_VNNI:
        return _instruction("vpdpwssd", builder, total, a, b)
    a, b = builder.bitcast(a, WIDE), builder.bitcast(b, WIDE)
    sixteen = everywhere(WIDE, 16)
    low_a, low_b = (builder.ashr(builder.shl(v, sixteen), sixteen) for v in (a, b))
    a, b = (builder.ashr(v, sixteen) for v in (a, b))
    return builder.add(total, builder.add(builder.mul(low_a, low_b), builder.mul(a, b)))


def fma(builder, total, a, b):
    """total[lane] + a[lane] * b[lane], rounded once; float32."""
    return call(builder, "llvm.fma.v16f32", a.type, a, b, total)


def byte_of(builder, table, at):
    """The byte of a table of four vectors that each unsigned byte of `at` says; only with VBMI."""
    name = "llvm.x86.avx512.vpermi2var.qi.512"
    low, high = (call(builder, name, at.type, one, at, two) for one, two in (table[:2], table[2:]))
    return builder.select(builder.icmp_signed("<", at, everywhere(at.type, 0)), high, low)
