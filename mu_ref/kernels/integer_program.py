"""The integer machine: which kernel each row of a program calls, and with which arrays.

What a site needs beside arrays and sizes (multipliers, limits) stands in a table of constants,
whose address is part of the row; `mu_ref/ops/fast/sites.py` makes it once per site. Each function
says what stands in its rows from row[1] on; who writes them: `mu_ref/ops/fast/integers.py`.
"""

import numpy as np

from mu_ref.kernels import integer_attention, integers
from mu_ref.kernels.compiled import kernel
from mu_ref.kernels.machine import (
    ALONE,
    COPY,
    FEW,
    TAKE,
    UNREAD,
    WHOLE,
    array_at,
    elements_moved,
    leave_out,
    move,
    renew,
    settle,
    share,
    wait,
    wait_reading,
    work_of,
)  # fmt: skip
from mu_ref.kernels.products import heads
from mu_ref.kernels.products.linear import BLOCK, place_of, products, together
from mu_ref.kernels.products.packing import bytes_of
from mu_ref.kernels.products.parts import n_blocks, next_rows, outputs_read
from mu_ref.kernels.rounding import rescale, rescale_block, rescale_channels

__all__ = ["run", "run_greedy", "scratch_bytes", "walk"]

I16, I64 = np.int16, np.int64
EMBED, LINEAR, NORM, ROPE, SCORES, SOFTMAX, MIX, ACTIVATION, ADD, MUL, LOOKUP = range(2, 13)
CHUNK = 96  # outputs that a thread takes at a time; their sums stay in the nearest cache
MANY = 64  # rows of bytes that pass over the weights together


def scratch_bytes(d: int) -> int:
    """Bytes that a thread needs to lay out rows of d bytes and to hold sums."""
    return MANY * (d + 4 * CHUNK)


@kernel
def run(program, n_rows, scalars, counter, thread, n_threads):
    """Run a program; every thread calls this with its own number."""
    walk(program, n_rows, scalars, 0, counter, thread, n_threads)


@kernel
def run_greedy(
    program, n_rows, scalars, places, growth, bound, addresses, results, buffers, fills, at_token,
    n_tokens, stops, chosen, go_on, pipe, counter, thread, n_threads,
):  # fmt: skip
    """Run a program as often as `chosen` has room, each time with the token that was chosen last.

    Its last result is the scores of n_tokens; the likeliest, the lowest on ties, is chosen. One of
    `stops` is the last, or the one at which go_on[0] became 0. Through the pipe:
    `machine.tell`. What else changes from step to step: see `machine.renew`.
    """
    met = 0
    for step in range(len(chosen)):
        if step and thread == 0:
            renew(
                program, step, chosen[step - 1], at_token, places, growth, bound, addresses,
                buffers, fills,
            )  # fmt: skip
        met = walk(program, n_rows, scalars, met, counter, thread, n_threads) + 1
        wait(counter, met, n_threads)
        if thread == 0:
            token = integers.likeliest(array_at(results[step], n_tokens, I16))
            settle(step, token, chosen, stops, go_on, pipe)
        met += 1
        wait(counter, met, n_threads)
        if go_on[1] == 0:
            break


@kernel
def walk(program, n_rows, scalars, met, counter, thread, n_threads):
    """Do this thread's share of all operations; `met` is how often threads have met, and will have.

    They meet before an operation that may read what another thread wrote: not between two so small
    that thread 0 does them alone, nor between two products of one x.
    """
    was_small, before = False, program[0]
    product, at, end = -1, 0, 0  # the next one, and its weights that were not read ahead yet
    for line in range(n_rows):
        row = program[line]
        small = n_threads > 1 and _elements(row) <= FEW
        same = line > 0 and _elements(row) == _elements(before) == WHOLE
        same = same and row[2] == before[2] and row[1] != before[1]
        if not (same or (small and was_small)):
            met += 1
            if n_threads > 1 and product < line:
                product, at, end = _next_product(program, line, n_rows, thread, n_threads)
            at = wait_reading(counter, met, n_threads, at, end)
        if not small:
            _operate(row, work_of(counter, met, line, n_threads), thread, n_threads)
        elif thread == 0:
            _operate(row, ALONE, 0, 1)
        was_small, before = small, row
    return met


@kernel
def _next_product(program, line, n_rows, thread, n_threads):
    """The next product from a line on, and where its weights of this thread begin and end."""
    while line < n_rows and program[line, 0] != LINEAR:
        line += 1
    if line == n_rows:
        return line, 0, 0
    row = program[line]
    d, d_out = row[7], row[8]
    n_rows = row[5] - row[UNREAD]
    step = together(2 * n_rows if row[9] else n_rows)
    first, last = outputs_read(n_rows, d_out, step, thread, n_threads)
    return line, row[3] + first * d, row[3] + min(last, d_out // BLOCK * BLOCK) * d


@kernel
def _elements(row):
    """Elements that an operation works on; WHOLE for a product, which all threads share."""
    op = row[0]
    if op == LINEAR:
        return WHOLE
    if op == SOFTMAX:
        return 4 * row[6] * row[7] * row[9] * row[10]
    if op in (SCORES, MIX):
        return row[6] * row[7] * row[9] * row[10] * row[12] // 16
    if op in (COPY, TAKE):
        return elements_moved(row)
    if op in (NORM, ROPE):
        return row[4] * row[5] * (row[6] if op == ROPE else 1)
    return row[5] * (row[6] if op == EMBED else 1)


@kernel
def _operate(row, work, thread, n_threads):
    """Do this thread's share of one operation."""
    op = row[0]
    if op == LINEAR:
        _linear(row, work, thread, n_threads)
    elif op == EMBED:
        _embed(row, thread, n_threads)
    elif op in (SCORES, SOFTMAX, MIX):
        _attention(row, thread, n_threads)
    elif op in (COPY, TAKE):
        move(row, thread, n_threads, I16)
    elif op in (NORM, ROPE):
        _by_token(row, thread, n_threads)
    else:
        _elementwise(row, thread, n_threads)


@kernel
def _rescaling(constants):
    """low, high, mode, m, t, as `rounding.rescale_row` takes them."""
    return constants[0], constants[1], constants[2], constants[3], constants[4]


@kernel
def _linear(row, work, thread, n_threads):
    """out, x, w, constants, rows, d_in, d_in in whole vectors, d_out, wide, scratch, m.

    Constants: low, high, mode, offset of x. m: int32, of each output, and behind them t. Then the
    start of the sum for each output, where wide behind the constants, else in int32 behind t.
    The sum over q + 128 and over high bytes + 128 is too large by a multiple of the sum of the
    weights, which the start takes away.
    """
    d_in, d, d_out, wide = row[6], row[7], row[8], row[9]
    constants, by = (
        array_at(row[4], 4 + wide * d_out, I64),
        array_at(row[11], (3 - wide) * d_out, np.int32),
    )
    low, high, mode = constants[0], constants[1], constants[2]
    ms, ts, starts = by[:d_out], by[d_out : 2 * d_out], by[2 * d_out :]
    x, out = array_at(row[2], row[5] * d_in, I16), array_at(row[1], row[5] * d_out, I16)
    n_rows = leave_out(row, out, thread)
    w = array_at(row[3], -(-d_out // BLOCK) * BLOCK * d, np.int8)
    # Memory that stays: so large an array made anew would be mapped page by page each time.
    mine = row[10] + thread * MANY * (d + 4 * CHUNK)
    bytes_ = array_at(mine, MANY * d, np.uint8)
    sums = array_at(mine + MANY * d, MANY * CHUNK, np.int32)
    accs = np.empty(CHUNK, I64)
    block = MANY // 2 if wide else MANY  # a row of 16 bits is two rows of bytes (9.3)
    step = together(2 * n_rows if wide else n_rows)
    shared = thread, n_threads, d_out, step, CHUNK, n_rows, block
    for number in range(n_blocks(n_rows, n_threads, block)):
        laid = np.int64(-1)
        some, turn, at, top, n, c, end = next_rows(work, number, 0, 0, *shared)
        while some:
            if top != laid:
                bytes_of(x[top * d_in :], bytes_, n, d_in, d, wide, constants[3])
                laid = top
            if n:
                products(bytes_, d, w, sums, 2 * n if wide else n, d, c, end, CHUNK)
            m, t = ms[c:end], ts[c:end]
            if not wide:  # 32 bits are enough here
                y = out[top * d_out + c :]
                rescale_block(sums, CHUNK, n, starts[c:end], m, t, mode, low, high, y, d_out)
            begin = constants[4 + c :]
            for r in range(n if wide else 0):
                to, of = (top + r) * d_out + c, 2 * r * CHUNK
                lows, highs = sums[of : of + CHUNK], sums[of + CHUNK : of + 2 * CHUNK]
                for i in range(end - c):
                    accs[i] = begin[i] + lows[i] + (np.int64(highs[i]) << 8)
                rescale_channels(accs, m, t, mode, low, high, out[to : to + end - c])
            some, turn, at, top, n, c, end = next_rows(work, number, turn, at, *shared)


@kernel
def _attention(row, thread, n_threads):
    """out, a, b (k, v or mask), constants, head_of or table, then sizes.

    Sizes: batch, heads, kv heads, queries, keys, room, d_head.

    Constants: low, high, mode, m, t, 1 if both have 8 bits; SOFTMAX: bits of the result, size of
    the table, 1 if scores have 8 bits.
    """
    batch, n_heads, n_kv, n_query, n_key = row[6], row[7], row[8], row[9], row[10]
    room, d_head = row[11], row[12]
    constants = array_at(row[4], 8, I64)
    by = _rescaling(constants)
    first, last = share(batch * n_heads * n_query, thread, n_threads)
    n_scores, n_mixed = batch * n_heads * n_query * n_key, batch * n_heads * n_query * d_head
    if row[0] == SOFTMAX:
        x, out = array_at(row[2], n_scores, I16), array_at(row[1], n_scores, I16)
        mask = array_at(row[3], batch * n_query * n_key, np.uint8)
        exp2, bits = array_at(row[5], constants[6], I64), constants[5]
        sizes = (n_heads, n_query, n_key, first, last)
        integer_attention.probabilities(x, mask, out, exp2, bits, constants[7] == 1, by, *sizes)
        return
    head_of, narrow = array_at(row[5], n_heads, I64), constants[5] == 1
    memory = array_at(row[3], batch * room * n_kv * d_head, I16)
    sizes, mixes = (n_heads, n_kv, n_query, n_key, room, d_head), row[0] == MIX
    x = array_at(row[2], n_scores if mixes else n_mixed, I16)
    out = array_at(row[1], n_mixed if mixes else n_scores, I16)
    if n_query >= heads.MANY_QUERIES:
        heads.attend(x, memory, head_of, out, mixes, *sizes, narrow, by, first, last)
    elif mixes:
        integer_attention.mix(x, memory, head_of, out, *sizes, narrow, by, first, last)
    else:
        integer_attention.scores(x, memory, head_of, out, *sizes, narrow, by, first, last)


@kernel
def _embed(row, thread, n_threads):
    """out, table, tokens, constants, n tokens, d, d in whole vectors, rows of the table.

    Constants: low, high, mode, then m and t for each row of the table, as each has its own scale.
    """
    n, d, width, n_rows = row[5], row[6], row[7], row[8]
    table = array_at(row[2], -(-n_rows // BLOCK) * BLOCK * width, np.int8)
    tokens = array_at(row[3], n, I64)
    constants, out = array_at(row[4], 3 + 2 * n_rows, I64), array_at(row[1], n * d, I16)
    first, last = share(n, thread, n_threads)
    for i in range(first, last):
        m, t = constants[3 + tokens[i]], constants[3 + n_rows + tokens[i]]
        for k in range(d):
            step = np.int64(table[place_of(tokens[i], k, width, 4)])
            y = rescale(step, m, t, constants[2])
            out[i * d + k] = min(max(y, constants[0]), constants[1])


@kernel
def _by_token(row, thread, n_threads):
    """out, x, constants, tokens; NORM: d, gain, bias (or 0), rsqrt; ROPE: heads, d_head, cos, sin.

    Constants: low, high, mode, m, t; NORM: layer, eps and the size of the table too.
    """
    n_tok = row[4]
    first, last = share(n_tok, thread, n_threads)
    constants = array_at(row[3], 8, I64)
    by = _rescaling(constants)
    if row[0] == NORM:
        d = row[5]
        x, out = array_at(row[2], n_tok * d, I16), array_at(row[1], n_tok * d, I16)
        gain, rsqrt = array_at(row[6], d, I16), array_at(row[8], constants[7], I64)
        bias = array_at(row[7], d if row[7] else 0, np.int32)
        layer, eps = constants[5] == 1, constants[6]
        integers.norm(x, gain, bias, out, rsqrt, d, layer, eps, by, first, last)
    else:
        n_heads, d_head = row[5], row[6]
        d, n_turns = n_heads * d_head, n_tok * d_head // 2
        x, out = array_at(row[2], n_tok * d, I16), array_at(row[1], n_tok * d, I16)
        cos, sin = array_at(row[7], n_turns, I64), array_at(row[8], n_turns, I64)
        integers.rope(x, cos, sin, out, n_heads, d_head, by, first, last)


@kernel
def _elementwise(row, thread, n_threads):
    """out, x, y or table, constants, n.

    Constants: low, high, mode, m, t; ADD: m of y; ACTIVATION: kind, m and t of its argument, and
    the size of the table.
    """
    n = row[5]
    constants = array_at(row[4], 9, I64)
    by = _rescaling(constants)
    x, out = array_at(row[2], n, I16), array_at(row[1], n, I16)
    first, last = share(n, thread, n_threads, 32)  # a cache line: no two threads write to one
    if row[0] == ADD:
        integers.add(x, array_at(row[3], n, I16), out, constants[5], by, first, last)
    elif row[0] == MUL:
        integers.mul(x, array_at(row[3], n, I16), out, by, first, last)
    elif row[0] == LOOKUP:
        integers.lookup(x, array_at(row[3], 256, I16), out, constants[0], first, last)
    else:
        points = array_at(row[3], constants[8], I64)
        kind, argument_m, argument_t = constants[5], constants[6], constants[7]
        integers.activation(x, out, points, kind, argument_m, argument_t, by, first, last)
