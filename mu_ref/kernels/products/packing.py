"""How a product finds its input: as bytes, or as halves of steps.

Loops are kept free of branches and of 64-bit numbers, so that the compiler can use vectors.
"""

import numpy as np

from mu_ref.config import INT4_GROUP
from mu_ref.kernels.compiled import kernel

__all__ = ["BIG", "TOGETHER", "bytes_of", "halves_of", "steps_of"]

TOGETHER = 8  # rows of x that pass over int4 weights together
BIG = np.float32(12582912)  # 1.5 * 2^23: adding it rounds a float32 to an integer, half to even


@kernel
def bytes_of(x, out, n_rows, d_in, d, wide, offset):
    """Turn rows of int16 steps into uint8: q + offset, or for 16 bits two bytes (9.3), high + 128.

    out has rows of d bytes; with wide, two for each row of x.
    """
    for r in range(n_rows):
        steps = x[r * d_in : (r + 1) * d_in]
        if wide:
            low = out[2 * r * d : 2 * r * d + d_in]
            high = out[(2 * r + 1) * d : (2 * r + 1) * d + d_in]
            for k in range(d_in):
                low[k] = np.uint8(steps[k] & 255)
            for k in range(d_in):
                high[k] = np.uint8((steps[k] >> 8) + 128)
        else:
            low = out[r * d : r * d + d_in]
            more = np.int16(offset)  # in 16 bits, twice as many fit a vector as in 32
            for k in range(d_in):
                low[k] = np.uint8(np.int16(steps[k] + more))


@kernel
def steps_of(x, out, high):
    """Write out = x / scale, rounded half to even, with scale = max |x| / high; return the scale.

    A row is measured by itself, so its steps do not depend on the rows beside it.
    """
    # Without its sign a float32 is ordered like the integer of its bits; a largest float would be
    # found one by one, as the compiler must think of NaN.
    bits, largest = x.view(np.int32), np.int32(0)
    for k in range(len(x)):
        largest = max(largest, bits[k] & np.int32(0x7FFFFFFF))
    one = np.empty(1, np.int32)
    one[0] = largest
    most = one.view(np.float32)[0]
    scale = most / np.float32(high) if most > 0 else np.float32(1)
    for k in range(len(x)):
        out[k] = np.int16(np.int32((x[k] / scale + BIG) - BIG))
    return scale


@kernel
def halves_of(steps, out, starts, row, n_rows):
    """Lay out one of n_rows rows of 15-bit steps for `products_i4`: 1, 2 or `TOGETHER`.

    steps = 128 high + low, whole groups, filled up with zeros. For every eight steps out has, row
    by row, eight highs and eight lows. The sums of highs start at 0, those of lows at -8 times the
    sum of a group's steps, as weights are stored with 8 added; starts are [n_rows, 2, groups].
    """
    d, n_groups = len(steps), len(steps) // INT4_GROUP
    high, low = np.empty(d, np.int8), np.empty(d, np.int8)
    for k in range(d):
        high[k] = np.int8(steps[k] >> 7)
    for k in range(d):
        low[k] = np.int8(steps[k] & 127)
    # Eight bytes move as one word.
    highs, lows, words = high.view(np.int64), low.view(np.int64), out.view(np.int64)
    for c in range(d // 8):
        at = 2 * (c * n_rows + row)
        words[at], words[at + 1] = highs[c], lows[c]
    for g in range(n_groups):
        total = np.int32(0)
        for k in range(g * INT4_GROUP, (g + 1) * INT4_GROUP):
            total += np.int32(steps[k])
        starts[2 * row * n_groups + g] = 0
        starts[(2 * row + 1) * n_groups + g] = np.int32(-8 * total)
