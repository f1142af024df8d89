"""How the input of a product is laid out: as bytes, in columns, or as halves for int4 weights."""

import numba
import numpy as np

__all__ = ["GROUP", "GROUP_BYTES", "MANY", "bytes_of", "columns_of", "halves_of", "steps_of"]

MANY = 64  # rows of x that pass over the weights together
GROUP = 128  # int4 weights that share a scale
GROUP_BYTES = 5 * 64  # four times 64 halves of x, and 16 int32 to start the sums


@numba.njit(cache=True, nogil=True)
def bytes_of(x, out, n_rows, d_in, d, wide, offset):
    """Turn rows of int16 steps into uint8: q + offset, or for 16 bits two bytes (9.3), high + 128.

    out has rows of d bytes; with wide, two for each row of x.
    """
    for r in range(n_rows):
        steps = x[r * d_in : (r + 1) * d_in]
        if wide:
            low, high = out[2 * r * d : (2 * r + 1) * d], out[(2 * r + 1) * d : 2 * (r + 1) * d]
            for k in range(d_in):
                low[k] = np.uint8(steps[k] & 255)
                high[k] = np.uint8((steps[k] >> 8) + 128)
        else:
            low = out[r * d : (r + 1) * d]
            for k in range(d_in):
                low[k] = np.uint8(steps[k] + offset)


@numba.njit(cache=True, nogil=True)
def columns_of(x, out, n_rows, d):
    """Turn up to 64 rows of d bytes into columns: four bytes of each row beside each other."""
    words, columns = x.view(np.int32), out.view(np.int32)
    for k in range(d // 4):
        for r in range(n_rows):
            columns[k * MANY + r] = words[r * (d // 4) + k]


@numba.njit(cache=True, nogil=True)
def steps_of(x, out, high):
    """Write out = x / scale, rounded half to even, with scale = max |x| / high; return the scale.

    A row is measured by itself, so its steps do not depend on the rows beside it.
    """
    largest = np.float32(0)
    for k in range(len(x)):
        largest = max(largest, abs(x[k]))
    scale = largest / np.float32(high) if largest > 0 else np.float32(1)
    for k in range(len(x)):
        out[k] = np.int16(np.rint(x[k] / scale))
    return scale


@numba.njit(cache=True, nogil=True)
def halves_of(steps, out, n_groups):
    """Lay out steps of 15 bits for `nibbles4`; steps has whole groups, filled up with zeros.

    steps = 128 high + low; the sums start at -8 times the sum of the steps, as weights are stored
    with 8 added.
    """
    starts = out.view(np.int32)
    for g in range(n_groups):
        at, total = g * GROUP_BYTES, np.int32(0)
        group = steps[g * GROUP : (g + 1) * GROUP]
        for t in range(GROUP // 2):
            even, odd = np.int32(group[2 * t]), np.int32(group[2 * t + 1])
            out[at + t], out[at + 64 + t] = np.int8(even >> 7), np.int8(odd >> 7)
            out[at + 128 + t], out[at + 192 + t] = np.int8(even & 127), np.int8(odd & 127)
            total = np.int32(total + even + odd)
        starts[at // 4 + 64] = np.int32(-8 * total)
