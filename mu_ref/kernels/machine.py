"""Runs a recorded program: one call for a whole step, on one thread or several.

A program is a table of integers, a row for each operation: its code, the addresses of its arrays,
its sizes. All threads walk through the same rows, take their share of each, and wait for each
other before a row that reads what another thread wrote. A share never splits a sum.
"""

import os

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["WIDTH", "array_at", "share", "wait"]

WIDTH = 16  # integers in a row of the program
PATIENCE = 2000  # looks at the counter before another thread may have the core
_give_way = types.ExternalFunction("sched_yield", types.int32()) if os.name == "posix" else None


@intrinsic
def _pointer(typingctx, address):
    """The number as a pointer."""
    return types.voidptr(address), lambda c, b, s, a: b.inttoptr(a[0], ir.IntType(8).as_pointer())


@numba.njit(inline="always")
def array_at(address, n, dtype):
    """Return n elements of memory as an array."""
    return numba.carray(_pointer(address), n, dtype)


@numba.njit(cache=True, nogil=True)
def share(n, thread, n_threads, step=1):
    """The part of 0..n-1 that is this thread's, in whole steps."""
    steps = -(-n // step)
    return min(steps * thread // n_threads * step, n), min(
        steps * (thread + 1) // n_threads * step, n
    )


@intrinsic
def _add_one(typingctx, address):
    """Count up in memory that threads share; returns what was there."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(types.int64), codegen


@intrinsic
def _read(typingctx, address):
    """Read memory that threads share."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


if os.name == "posix":

    @numba.njit(cache=True, nogil=True)
    def yield_core():
        """Let another thread run: with more threads than free cores, spinning would starve it."""
        _give_way()

else:

    @numba.njit(cache=True, nogil=True)
    def yield_core():
        """Nothing: the scheduler takes the core away by itself."""


@numba.njit(cache=True, nogil=True)
def wait(counter, meeting, n_threads):
    """Return when every thread has called this `meeting` times."""
    if n_threads == 1:
        return
    _add_one(counter)
    looks = 0
    while _read(counter) < meeting * n_threads:
        looks += 1
        if looks > PATIENCE:
            yield_core()
