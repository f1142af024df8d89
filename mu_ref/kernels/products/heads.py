"""Integer attention of many queries: the same integers as row by row, as products of matrices.

What a head reads of the memory, keys or values, is laid out in blocks once for all of its queries.
Integers have no order of sums, so nothing ties this way to that of `integer_attention.scores` and
`integer_attention.mix`, which are better for few queries. Floats have one, and no second way.
"""

import numpy as np

from mu_ref.kernels.compiled import kernel
from mu_ref.kernels.integer_attention import split_bytes
from mu_ref.kernels.machine import places
from mu_ref.kernels.products.linear import BLOCK, ROWS, TILE, products
from mu_ref.kernels.rounding import SINGLE, rescale_int32, rescale_row
from mu_ref.kernels.vector.steps import turn16, zip16

__all__ = ["MANY_QUERIES", "attend", "lay_out"]

MANY_QUERIES = 16  # of a head, from which laying out pays
PART, NARROW_PART = 256, 2**14  # features whose products int32 holds, of a byte by 16 or 9 bits
TOGETHER = 64  # rows of x that pass over the blocks together
WIDTH = 4 * TILE  # outputs that wait to be rescaled


@kernel
def attend(
    x, memory, head_of, out, mixes, n_heads, n_kv, n_query, n_key, room, d_head, narrow, by, first,
    last,
):  # fmt: skip
    """Twin of `scores` in `integer_attention.py`, or where it mixes of `mix`, rows first..last-1.

    Contract: exact. 0.8 ns an element of scores where narrow, as there; with `scores` 2.5.
    """
    low, high, mode, m, t = by
    n_features, n_out = (n_key, d_head) if mixes else (d_head, n_key)
    part = NARROW_PART if narrow else PART
    blocks = np.empty(-(-n_out // BLOCK) * BLOCK * -(-n_features // 2) * 2, np.int16)
    packed = np.zeros(TOGETHER * (min(part, n_features) + 1), np.int16)
    sums, totals = np.empty(TOGETHER * WIDTH, np.int32), np.empty(TOGETHER * WIDTH, np.int64)
    together = TOGETHER if narrow else TOGETHER // 2  # 16 bits are two rows of bytes
    token, laid, row = n_heads * d_head, np.int64(-1), first
    while row < last:
        n = min(together, (row // n_query + 1) * n_query - row, last - row)  # of one head
        at, start, stride = places(row, head_of, n_heads, n_kv, n_query, room, d_head)
        if start != laid:
            steps = (1, stride) if mixes else (stride, 1)
            lay_out(memory[start:], *steps, n_out, n_features, part, blocks)
            laid = start
        given, of_x = (x[row * n_key :], n_key) if mixes else (x[at:], token)
        to, of_out = (out[at:], token) if mixes else (out[row * n_key :], n_key)
        for c in range(0, n_out, WIDTH):
            end = min(c + WIDTH, n_out)
            if narrow and n_features <= part and n_features % 2 == n % ROWS == 0:
                products(given, of_x, blocks, sums, n, n_features, c, end, WIDTH)
                for r in range(n):
                    y = to[r * of_out + c : r * of_out + end]
                    if mode == SINGLE:
                        rescale_int32(sums[r * WIDTH :], m, t, low, high, y)
                    else:
                        rescale_row(sums[r * WIDTH :], by, y)
                continue
            totals[: n * WIDTH] = 0
            for k in range(0, n_features, part):
                width = min(part, n_features - k)
                d = -(-width // 2) * 2
                whole = -(-n_out // BLOCK) * BLOCK
                w = blocks[whole * k : whole * (k + d)]  # of a part, behind that of the one before
                _pack(given[k:], of_x, packed, n, width, d, narrow)
                products(packed, d, w, sums, n if narrow else 2 * n, d, c, end, WIDTH)
                _add(sums, totals, n, narrow)
            for r in range(n):
                rescale_row(totals[r * WIDTH :], by, to[r * of_out + c : r * of_out + end])
        row += n


@kernel
def _pack(given, step, packed, n, width, d, narrow):
    """Write n rows of x with d features each, of which `width` count; 16 bits as two rows."""
    for r in range(n):
        row = given[r * step : r * step + width]
        if narrow:
            packed[r * d : r * d + width] = row
        else:
            to = packed[2 * r * d : 2 * (r + 1) * d]
            split_bytes(row, to[:width], to[d : d + width])


@kernel
def _add(sums, totals, n, narrow):
    """Add to the totals of n rows what a part has."""
    for r in range(n):
        total = totals[r * WIDTH : (r + 1) * WIDTH]
        if narrow:
            one = sums[r * WIDTH : (r + 1) * WIDTH]
            for i in range(len(total)):
                total[i] += one[i]
        else:
            high, low = sums[2 * r * WIDTH :], sums[(2 * r + 1) * WIDTH :]
            for i in range(len(total)):
                total[i] += (np.int64(high[i]) << 8) + low[i]


@kernel
def lay_out(memory, of_output, of_feature, n_out, n_features, part, blocks):
    """Lay out memory[n of_output + k of_feature] as `matrices.blocks_of` does, each part by itself.

    Contract: exact. A last feature without partner, and outputs that fill the last block, are 0.
    """
    whole = -(-n_out // BLOCK) * BLOCK
    for start in range(0, n_features, part):
        n = min(part, n_features - start)
        d = -(-n // 2) * 2
        to = blocks[whole * start : whole * (start + d)]
        if n < d or n_out < whole:
            to[:] = 0
        for output in range(0, n_out, BLOCK):
            of, at = output * of_output + start * of_feature, output * d
            few, done = min(BLOCK, n_out - output), 0
            if few == BLOCK and of_feature == 1:
                done = n // BLOCK * BLOCK
                for k in range(0, done, BLOCK):
                    turn16(memory, of + k, of_output, to, at + k * BLOCK)
            elif few == BLOCK and of_output == 1:
                done = n // 2 * 2
                for k in range(0, done, 2):
                    place = of + k * of_feature
                    zip16(memory, place, place + of_feature, to, at + k * BLOCK)
            for k in range(done, n):
                for i in range(few):
                    value = memory[of + i * of_output + k * of_feature]
                    to[at + k // 2 * 2 * BLOCK + 2 * i + k % 2] = value
