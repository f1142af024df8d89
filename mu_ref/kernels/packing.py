"""How a product finds its input, as bytes or as halves of steps, and int4 weights, in blocks.

Loops are kept free of branches and of 64-bit numbers, so that the compiler can use vectors.
"""

import numba
import numpy as np

from mu_ref.config import INT4_GROUP
from mu_ref.memory import aligned

__all__ = ["BIG", "TOGETHER", "blocks_of", "bytes_of", "halves_of", "steps_of"]

TOGETHER = 8  # rows of x that pass over int4 weights together
BIG = np.float32(12582912)  # 1.5 * 2^23: adding it rounds a float32 to an integer, half to even


@numba.njit(cache=True, nogil=True)
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
            for k in range(d_in):
                low[k] = np.uint8((steps[k] + offset) & 255)


@numba.njit(cache=True, nogil=True)
def steps_of(x, out, high):
    """Write out = x / scale, rounded half to even, with scale = max |x| / high; return the scale.

    A row is measured by itself, so its steps do not depend on the rows beside it.
    """
    bits, largest = x.view(np.int32), np.int32(0)
    for k in range(len(x)):  # without its sign a float32 is ordered like the integer of its bits
        largest = max(largest, bits[k] & np.int32(0x7FFFFFFF))
    one = np.empty(1, np.int32)
    one[0] = largest
    most = one.view(np.float32)[0]
    scale = most / np.float32(high) if most > 0 else np.float32(1)
    for k in range(len(x)):
        out[k] = np.int16(np.int32((x[k] / scale + BIG) - BIG))
    return scale


@numba.njit(cache=True, nogil=True)
def halves_of(steps, out, starts, row, n_rows):
    """Lay out one of n_rows rows of 15-bit steps for `products_i4`, 2 rows or `TOGETHER`.

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


def blocks_of(w: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay out int4 weights and their scales in blocks of 16 outputs, for `products_i4`.

    Args:
        w: uint8 [d_out, d_in / 2], two weights in each, the even one in the low nibble.
        scale: [d_out, groups].

    Returns:
        uint8 [blocks, d / 8, 16, 4], 8 added to each weight: byte m of an output holds weight 8 c +
        m, and in its high nibble weight 8 c + 4 + m; float32 scales [blocks, groups, 16]. Blocks
        are even in number.
    """
    (d_out, n_bytes), n_groups = w.shape, scale.shape[1]
    n_blocks = -(-d_out // 32) * 2
    packed = aligned((n_blocks, n_groups * INT4_GROUP // 8, 16, 4), np.uint8)
    scales = aligned((n_blocks, n_groups, 16), np.float32)
    for block in range(n_blocks):
        rows = np.full((16, n_groups * INT4_GROUP // 2), 0x88, np.uint8)  # two weights of 0
        given = w[16 * block : 16 * block + 16]
        rows[: len(given), :n_bytes] ^= given
        both = np.stack([rows & 15, rows >> 4], axis=-1).reshape(16, -1, 2, 4)
        packed[block] = (both[:, :, 0] | both[:, :, 1] << 4).swapaxes(0, 1)
        scales[block, :, : len(given)] = scale[16 * block : 16 * block + 16].T
    return packed, scales
