"""Vectors of LLVM as Numba types, and intrinsics on them: what LLVM does not find by itself.

Imports nothing of the project. Read `simd.py` first: each function says its scalar meaning.
"""
