"""What the two machines share; a machine runs a program of deferred operations in one call.

A program is a table of integers, a row for each operation: its code, the addresses of its arrays,
its sizes. All threads walk through the same rows, take their share of each, and wait for each
other before a row that reads what another thread wrote. A share never splits a sum. Who writes the
rows: `mu_ref/ops/fast/deferred.py`; who runs them: `float_program.py` and `integer_program.py`.
"""

import os
import time

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mu_ref.border.memory import LINE
from mu_ref.kernels.compiled import kernel

__all__ = [
    "ALONE", "COPY", "FEW", "NOBODY", "N_ROWS", "TAKE", "UNREAD", "WHOLE", "WIDTH", "array_at",
    "elements_moved", "leave_out", "move", "next_part", "places", "renew", "settle", "share",
    "tell", "wait", "wait_reading", "work_of",
]  # fmt: skip

WIDTH = 16  # integers in a row of the program
N_ROWS, UNREAD = 5, 12  # places in a product's row: rows of x, and how many nobody will read
COPY, TAKE = range(2)  # operations of both machines; each goes on counting for its own
FEW = 2048  # elements that one thread has done before two have met
NEXT = 2**19  # bytes that a waiting thread reads ahead
WHOLE = np.int64(2**62)  # elements of a product, as more than a few: all threads share it
NOBODY = -1  # no pipe
ALONE = 0, 0  # no work that threads share, see `work_of`
# of one call at most, for the parts of an operation to be shared out as threads come
MEETINGS, LINES, PARTS = 2**26, 2**13, 2**24
PATIENCE = 2000  # looks at the counter before another thread may have the core
YIELDS = 100  # after which this one sleeps between looks
NAP_US = 20
TELL_NS = 10**7  # nobody reads faster
MOST_TOLD = 255  # at a time, as a byte says how many

if os.name == "posix":
    # With more threads than free cores, spinning would starve the thread that is waited for.
    _give_way = types.ExternalFunction("sched_yield", types.int32())
    # Only a core without work takes over a thread that waits for another core.
    _sleep = types.ExternalFunction("usleep", types.int32(types.uint32))
    _write = types.ExternalFunction("write", types.intp(types.int32, types.intp, types.intp))
    _clock = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))
    _MONOTONIC = time.CLOCK_MONOTONIC

    @kernel
    def tell(pipe, go_on):
        """Count one more that is found; write to a pipe how many, if somebody listens.

        That is at the end, at `MOST_TOLD`, and else when `TELL_NS` have passed: who is woken takes
        a core for 0.1 ms, in which nothing is found. What stands in memory before a write to the
        pipe is there for whoever reads that; of what came since, a processor may show parts.
        """
        if pipe == NOBODY:
            return
        go_on[3] += 1
        clock, byte = np.zeros(2, np.int64), np.empty(1, np.uint8)  # seconds, ns
        _clock(np.int32(_MONOTONIC), clock.ctypes.data)
        now = 10**9 * clock[0] + clock[1]
        if go_on[1] == 0 or now - go_on[2] >= TELL_NS or go_on[3] == MOST_TOLD:
            byte[0], go_on[2], go_on[3] = go_on[3], now, 0
            _write(np.int32(pipe), byte.ctypes.data, 1)

else:

    @kernel
    def tell(pipe, go_on):
        """Nothing: nobody listens."""

    @kernel
    def _give_way():
        """Nothing: the scheduler takes the core away by itself."""

    @kernel
    def _sleep(microseconds):
        """Nothing, as above."""


@intrinsic
def _pointer(typingctx, address):
    """The number as a pointer."""
    return types.voidptr(address), lambda c, b, s, a: b.inttoptr(a[0], ir.IntType(8).as_pointer())


@numba.njit(inline="always")
def array_at(address, n, dtype):
    """Return n elements of memory as an array."""
    return numba.carray(_pointer(address), n, dtype)


@kernel
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
def _replace(typingctx, address, old, new):
    """Write to memory that threads share if it still holds `old`; say whether it did."""

    def codegen(context, builder, signature, args):
        address, old, new = args
        pointer = builder.inttoptr(address, ir.IntType(64).as_pointer())
        found = builder.cmpxchg(pointer, old, new, "seq_cst", "seq_cst")
        return builder.extract_value(found, 1)

    return types.boolean(types.int64, types.int64, types.int64), codegen


@intrinsic
def _read(typingctx, address):
    """Read memory that threads share."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


@kernel
def work_of(counter, met, line, n_threads):
    """Where threads note what they took of an operation, and its number among all; 0: nowhere.

    They have met `met` times, and line is its row.
    """
    if n_threads == 1 or met >= MEETINGS or line >= LINES:
        return 0, 0
    return counter + LINE, (met * LINES + line) * PARTS


@kernel
def next_part(work, block, turn, at, thread, n_threads, n, step, size):
    """The next part of 0..n-1 that this thread does: of its own share, then of what others left.

    So a thread that is held up, or whose memory is far, holds nobody up for long. Each share is
    taken from first to last, by whoever comes. Without `work` each thread does its own.

    Args:
        work: from `work_of`.
        block: how often all of 0..n-1 was shared before in this operation.
        turn: shares that are taken, 0 at first.
        at: where the part before ended, 0 at first.
        thread: this one.
        n_threads: how many there are.
        n: what is shared.
        step: see `share`.
        size: of a part, whole steps.

    Returns:
        Where the part begins and ends, in the same place if nothing is left, and the next `turn`.
    """
    most = -(-n // size)
    if work[0] == 0 or (block + 1) * most >= PARTS:
        first, last = share(n, thread, n_threads, step)
        at = max(at, first)
        return at, max(at, min(at + size, last)), 0
    number = work[1] + block * most
    while turn < n_threads:
        whose = (thread + turn) % n_threads
        first, last = share(n, whose, n_threads, step)
        place, parts = work[0] + LINE * whose, -(-(last - first) // size)
        word = _read(place)
        while parts and word < number + parts:  # else all is taken, or its thread is further
            new = max(word, number) + 1
            if _replace(place, word, new):
                at = first + (new - 1 - number) * size
                return at, min(at + size, last), turn
            word = _read(place)
        turn += 1
    return n, n, turn


@kernel
def wait(counter, meeting, n_threads):
    """Return when every thread has called this `meeting` times."""
    wait_reading(counter, meeting, n_threads, 0, 0)


@kernel
def wait_reading(counter, meeting, n_threads, at, end):
    """As `wait`; read meanwhile memory from address `at` to `end`, and return how far that came.

    What comes next reads it, and a thread that waits has nothing better to do. What has come must
    stay in the second cache until then, so it is no more than `NEXT` at a time. Nothing is done
    with it; but if it were only asked for, most would not come: the processor forgets what it is
    asked for faster than memory answers.
    """
    if n_threads == 1:
        return at
    _add_one(counter)  # it only grows: setting it back would need a meeting of its own
    looks, last = 0, min(end, at + NEXT) - 4 * LINE
    while _read(counter) < meeting * n_threads:
        if at <= last:
            for line in range(4):
                _read(at + line * LINE)
            at += 4 * LINE
            continue
        looks += 1
        if looks > PATIENCE + YIELDS:
            _sleep(np.uint32(NAP_US))
        elif looks > PATIENCE:
            _give_way()
    return at


@kernel
def leave_out(row, out, thread):
    """Return how many rows a product computes; those at its end that nobody reads are zeros.

    Numbers all the same: a key without weight would turn others into NaN if it were one.
    """
    n_rows = row[N_ROWS] - row[UNREAD]
    if thread == 0 and row[UNREAD]:
        out[n_rows * row[8] :] = 0
    return n_rows


@kernel
def move(row, thread, n_threads, dtype):
    """out, x, index, batch, tokens of x, tokens of out, d; COPY: first place in out, and how many.

    TAKE picks the tokens of x that index names, for each row of the batch by itself.
    """
    batch, n_x, n_out, d = row[4], row[5], row[6], row[7]
    x, out = array_at(row[2], batch * n_x * d, dtype), array_at(row[1], batch * n_out * d, dtype)
    if row[0] == COPY:
        at, n = row[8], row[9]  # out may have room for more tokens than come
        first, last = share(batch * n, thread, n_threads)
        for i in range(first, last):
            to, source = (i // n * n_out + at + i % n) * d, (i // n * n_x + i % n) * d
            out[to : to + d] = x[source : source + d]
        return
    index = array_at(row[3], batch * n_out, np.int64)
    first, last = share(batch * n_out, thread, n_threads)
    for i in range(first, last):
        source = (i // n_out * n_x + index[i]) * d
        out[i * d : i * d + d] = x[source : source + d]


@kernel
def elements_moved(row):
    """Elements that COPY or TAKE writes."""
    return row[4] * row[7] * (row[9] if row[0] == COPY else row[6])


@kernel
def renew(program, step, token, at_token, places, growth, bound, addresses, buffers, fills):
    """Turn the program of one step into that of `step`, which reads `token`.

    Args:
        program: [n_rows, WIDTH].
        step: which one it becomes; they follow each other.
        token: what it reads.
        at_token: address where it is read.
        places: in the flat program, where a size stands that grows with every step.
        growth: by how much.
        bound: [m], where addresses stand of values that lie elsewhere each time.
        addresses: [n_steps, m], those.
        buffers: [n, 2], address and bytes of each input that changes.
        fills: [n_steps, bytes of all of them], what they become.
    """
    array_at(at_token, 1, np.int64)[0] = token
    flat = program.ravel()
    for i in range(len(places)):
        flat[places[i]] += growth[i]
    for i in range(len(bound)):
        flat[bound[i]] = addresses[step, i]
    at = 0
    for i in range(len(buffers)):
        to = array_at(buffers[i, 0], buffers[i, 1], np.uint8)
        to[:] = fills[step, at : at + len(to)]
        at += len(to)


@kernel
def settle(step, token, chosen, stops, go_on, pipe):
    """Note a token, tell of it (`tell`), and say in go_on[1] whether another one follows.

    go_on[0] is 0 when no more are wanted; go_on[2] is when somebody was told last, in ns, and
    go_on[3] of how many nobody was told yet.
    """
    chosen[step] = token
    if go_on[0] == 0 or token in stops or step + 1 == len(chosen):
        go_on[1] = 0
    tell(pipe, go_on)


@kernel
def places(row, head_of, n_heads, n_kv, n_query, room, d_head):
    """Where attention finds what a row (batch, head, query) reads.

    Returns:
        The place of its query (and of its result), of its first key or value, and how far it is
        from one key to the next: heads lie beside each other, token by token.
    """
    batch, head, query = row // (n_heads * n_query), row // n_query % n_heads, row % n_query
    at = ((batch * n_query + query) * n_heads + head) * d_head
    return at, (batch * room * n_kv + head_of[head]) * d_head, n_kv * d_head
