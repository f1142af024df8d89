"""The float machine: which kernel each row of a program calls, and with which arrays.

Activations are float32. Weights may be float32, or int4 and int8 with scales; then the input of a
product is rounded to steps of its own largest number, row by row, and the rest is float32 as well.
Each function says what stands in its rows from row[1] on; who writes them:
`mu_ref/ops/fast/floats.py`.
"""

import numpy as np

from mu_ref.config import INT4_GROUP
from mu_ref.kernels import floats
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
    next_part,
    renew,
    settle,
    share,
    wait,
    wait_reading,
    work_of,
)  # fmt: skip
from mu_ref.kernels.products.linear import (
    BLOCK,
    ROWS,
    place_of,
    products,
    products_i4,
    together,
)  # fmt: skip
from mu_ref.kernels.products.packing import TOGETHER, bytes_of, halves_of, steps_of

__all__ = ["run", "run_greedy", "scratch_bytes", "walk"]

F32 = np.float32
EMBED, LINEAR, NORM, ROPE, SCORES, SOFTMAX, MIX, ACTIVATION, ADD, MUL, SCALE = range(2, 13)
LINEAR4, LINEAR8, EMBED8 = range(13, 16)
MANY = 64  # rows that pass over float weights together; more would not fit the second cache
PAIR = 2 * BLOCK  # outputs; so lie int4 weights
CHUNK = 96  # outputs that a thread takes at a time; they stay near until their bias is added


def scratch_bytes(d: int) -> int:
    """Bytes that a thread needs to lay out rows of d numbers and to hold sums."""
    return 4 * MANY * (d + CHUNK)


@kernel
def run(program, n_rows, scalars, counter, thread, n_threads):
    """Run a program; every thread calls this with its own number. scalars: one per row."""
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
            token = floats.likeliest(array_at(results[step], n_tokens, F32))
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
            work = work_of(counter, met, line, n_threads)
            _operate(row, scalars[line], work, thread, n_threads)
        elif thread == 0:
            _operate(row, scalars[line], ALONE, 0, 1)
        was_small, before = small, row
    return met


@kernel
def _next_product(program, line, n_rows, thread, n_threads):
    """The next product from a line on, and where its weights of this thread begin and end."""
    while line < n_rows and _elements(program[line]) != WHOLE:
        line += 1
    if line == n_rows:
        return line, 0, 0
    row = program[line]
    d, d_out, step = row[7], row[8], together(row[5] - row[UNREAD]) if row[0] == LINEAR else PAIR
    first, last = share(-(-d_out // step) * step, thread, n_threads, step)
    bits = 4 if row[0] == LINEAR4 else 8 if row[0] == LINEAR8 else 32
    whole = d_out if row[0] == LINEAR4 else d_out // BLOCK * BLOCK
    return line, row[3] + first * d * bits // 8, row[3] + min(last, whole) * d * bits // 8


@kernel
def _elements(row):
    """Elements that an operation works on; WHOLE for a product, which all threads share."""
    op = row[0]
    if op in (LINEAR, LINEAR4, LINEAR8):
        return WHOLE
    if op == SOFTMAX:
        return 4 * row[5] * row[6] * row[8] * row[9]
    if op in (SCORES, MIX):
        return row[5] * row[6] * row[8] * row[9] * row[11] // 16
    if op in (COPY, TAKE):
        return elements_moved(row)
    if op in (NORM, EMBED, EMBED8):
        return row[5] * row[6]
    return row[5] * row[6] * row[7] if op == ROPE else row[5]


@kernel
def _operate(row, scalar, work, thread, n_threads):
    """Do this thread's share of one operation."""
    op = row[0]
    if op == LINEAR:
        _linear(row, work, thread, n_threads)
    elif op in (LINEAR4, LINEAR8):
        _rounded_linear(row, work, thread, n_threads)
    elif op in (EMBED, EMBED8):
        _embed(row, thread, n_threads)
    elif op in (SCORES, SOFTMAX, MIX):
        _attention(row, thread, n_threads)
    elif op in (COPY, TAKE):
        move(row, thread, n_threads, F32)
    elif op in (NORM, ROPE):
        _by_token(row, scalar, thread, n_threads)
    else:
        _elementwise(row, scalar, thread, n_threads)


@kernel
def _linear(row, work, thread, n_threads):
    """out, x, w, bias (0: none), rows, d_in, d_in again, d_out, scratch."""
    d, d_out = row[6], row[8]
    x, out = array_at(row[2], row[5] * d, F32), array_at(row[1], row[5] * d_out, F32)
    n_rows = leave_out(row, out, thread)
    w = array_at(row[3], -(-d_out // BLOCK) * BLOCK * d, F32)
    bias = array_at(row[4], d_out if row[4] else 0, F32)
    mine = row[9] + thread * 4 * MANY * (d + CHUNK)
    packed, sums = array_at(mine, MANY * d, F32), array_at(mine + 4 * MANY * d, MANY * CHUNK, F32)
    place, sizes = (thread, n_threads), (d_out, together(n_rows), CHUNK)
    for top in range(0, n_rows, MANY):
        n = min(MANY, n_rows - top)
        rows = x[top * d : (top + n) * d]
        if together(n) > BLOCK and n % ROWS:  # the last tile reads whole rows
            packed[: n * d] = rows
            rows = packed
        # outputs, so each thread reads its own w
        c, end, turn = next_part(work, top // MANY, 0, 0, *place, *sizes)
        while c < end:
            products(rows, d, w, sums, n, d, c, end, CHUNK)
            for r in range(n):
                y = out[(top + r) * d_out + c : (top + r) * d_out + end]
                of_row = sums[r * CHUNK : (r + 1) * CHUNK]
                if row[4]:
                    added = bias[c:end]
                    for i in range(len(y)):
                        y[i] = of_row[i] + added[i]
                else:
                    y[:] = of_row[: len(y)]
            c, end, turn = next_part(work, top // MANY, turn, end, *place, *sizes)


@kernel
def _rounded_linear(row, work, thread, n_threads):
    """As _linear (LINEAR4: d_in in whole groups), then scales of w; LINEAR8: sums of rows of w."""
    d_in, d, d_out = row[6], row[7], row[8]
    x, out = array_at(row[2], row[5] * d_in, F32), array_at(row[1], row[5] * d_out, F32)
    n_rows = leave_out(row, out, thread)
    bias = array_at(row[4], d_out if row[4] else 0, F32)
    laid = n_rows if n_rows <= 2 else TOGETHER  # rows that are laid out beside each other
    steps, packed = np.zeros(d, np.int16), np.zeros(2 * laid * d, np.int8)
    starts = np.zeros(2 * laid * (d // INT4_GROUP), np.int32)
    products, scales = np.empty(TOGETHER * CHUNK, F32), np.empty(TOGETHER, F32)
    padded = -(-d_out // PAIR) * PAIR
    place, sizes = (thread, n_threads), (padded, PAIR, CHUNK)
    for top in range(0, n_rows, TOGETHER):
        n = min(TOGETHER, n_rows - top)
        for r in range(n):
            given = x[(top + r) * d_in : (top + r + 1) * d_in]
            # 15 bits are two halves of 7 bits and a sign; 16 bits are two bytes.
            if row[0] == LINEAR4:
                scales[r] = steps_of(given, steps, 2**14 - 1)
                halves_of(steps, packed, starts, r, n if n <= 2 else TOGETHER)
            else:
                scales[r] = steps_of(given, steps, 2**15 - 1)
                bytes_of(steps, packed[2 * r * d :].view(np.uint8), 1, d_in, d, True, 0)
        # outputs, so each thread reads its own w
        c, end, turn = next_part(work, top // TOGETHER, 0, 0, *place, *sizes)
        while c < end:
            width = end - c
            if row[0] == LINEAR4:
                n_groups = d // INT4_GROUP
                w = array_at(row[3], padded * d // 2, np.uint8)
                weight_scales = array_at(row[9], padded * n_groups, F32)
                products_i4(packed, starts, w, weight_scales, products, n, n_groups, c, end)
            else:
                _products_8(row, packed.view(np.uint8), products, n, c, width)
            for r in range(n):
                y = out[(top + r) * d_out + c : (top + r) * d_out + min(end, d_out)]
                of_row, scale = products[r * width : (r + 1) * width], scales[r]
                for i in range(len(y)):
                    y[i] = of_row[i] * scale
                added = bias[c : c + len(y)]  # none without a bias
                for i in range(len(added)):
                    y[i] += added[i]
            c, end, turn = next_part(work, top // TOGETHER, turn, end, *place, *sizes)


@kernel
def _products_8(row, x, out, n_rows, first, width):
    """Products with int8; high bytes of x have 128 added, which the sums of w take away."""
    d, d_out = row[7], row[8]
    w = array_at(row[3], -(-d_out // BLOCK) * BLOCK * d, np.int8)
    scales, w_sums = array_at(row[9], d_out, F32), array_at(row[10], d_out, np.int32)
    sums, n = np.empty(2 * TOGETHER * CHUNK, np.int32), min(width, d_out - first)
    products(x, d, w, sums, 2 * n_rows, d, first, first + n, CHUNK)
    for r in range(n_rows):
        lows, highs = sums[2 * r * CHUNK :], sums[(2 * r + 1) * CHUNK :]
        for i in range(n):
            high = np.int64(highs[i]) - 128 * np.int64(w_sums[first + i])
            out[r * width + i] = F32(lows[i] + (high << 8)) * scales[first + i]


@kernel
def _embed(row, thread, n_threads):
    """out, table, tokens, scales (EMBED8), n tokens, d, d in whole vectors, rows of the table."""
    n, d, width = row[5], row[6], row[7]
    tokens, out = array_at(row[3], n, np.int64), array_at(row[1], n * d, F32)
    first, last = share(n, thread, n_threads)
    n_weights = -(-row[8] // BLOCK) * BLOCK * width
    if row[0] == EMBED:
        table = array_at(row[2], n_weights, F32)
        for i in range(first, last):
            for k in range(d):
                out[i * d + k] = table[place_of(tokens[i], k, width, 1)]
        return
    steps, scales = array_at(row[2], n_weights, np.int8), array_at(row[4], row[8], F32)
    for i in range(first, last):
        for k in range(d):
            step = F32(steps[place_of(tokens[i], k, width, 4)])
            out[i * d + k] = step * scales[tokens[i]]


@kernel
def _attention(row, thread, n_threads):
    """out, a, b (k, v or mask), head_of, batch, heads, kv heads, queries, keys, room, d_head."""
    batch, n_heads, n_kv, n_query, n_key = row[5], row[6], row[7], row[8], row[9]
    room, d_head = row[10], row[11]
    first, last = share(batch * n_heads * n_query, thread, n_threads)
    n_scores, n_mixed = batch * n_heads * n_query * n_key, batch * n_heads * n_query * d_head
    if row[0] == SOFTMAX:
        x, out = array_at(row[2], n_scores, F32), array_at(row[1], n_scores, F32)
        mask = array_at(row[3], batch * n_query * n_key, np.uint8)
        floats.softmax(x, mask, out, n_heads, n_query, n_key, first, last)
        return
    head_of = array_at(row[4], n_heads, np.int64)
    memory = array_at(row[3], batch * room * n_kv * d_head, F32)
    sizes = (n_heads, n_kv, n_query, n_key, room, d_head, first, last)
    if row[0] == SCORES:
        q, out = array_at(row[2], n_mixed, F32), array_at(row[1], n_scores, F32)
        floats.scores(q, memory, head_of, out, *sizes)
    else:
        p, out = array_at(row[2], n_scores, F32), array_at(row[1], n_mixed, F32)
        floats.mix(p, memory, head_of, out, *sizes)


@kernel
def _by_token(row, scalar, thread, n_threads):
    """out, x, gain or cos, bias or sin, tokens, NORM: d, kind; ROPE: heads, d_head."""
    n_tok = row[5]
    first, last = share(n_tok, thread, n_threads)
    if row[0] == NORM:
        d = row[6]
        x, out = array_at(row[2], n_tok * d, F32), array_at(row[1], n_tok * d, F32)
        gain, bias = array_at(row[3], d, F32), array_at(row[4], d, F32)
        floats.norm(x, gain, bias, out, d, row[7], F32(scalar), first, last)
    else:
        n_heads, d_head = row[6], row[7]
        d, n_turns = n_heads * d_head, n_tok * d_head // 2
        x, out = array_at(row[2], n_tok * d, F32), array_at(row[1], n_tok * d, F32)
        cos, sin = array_at(row[3], n_turns, F32), array_at(row[4], n_turns, F32)
        floats.rope(x, cos, sin, out, n_heads, d_head, first, last)


@kernel
def _elementwise(row, scalar, thread, n_threads):
    """out, x, y or kind, n."""
    op, n = row[0], row[5]
    first, last = share(n, thread, n_threads, 16)  # a cache line: no two threads write to one
    x, out = array_at(row[2], n, F32), array_at(row[1], n, F32)
    if op == ACTIVATION:
        floats.activation(x, out, row[4], F32(scalar), first, last)
        return
    # parts of arrays, counted from 0: the compiler has vectors for these loops only
    a, to = x[first:last], out[first:last]
    if op == SCALE:
        factor = F32(scalar)
        for i in range(len(to)):
            to[i] = a[i] * factor
        return
    b = array_at(row[3], n, F32)[first:last]
    if op == ADD:
        for i in range(len(to)):
            to[i] = a[i] + b[i]
    else:
        for i in range(len(to)):
            to[i] = a[i] * b[i]
