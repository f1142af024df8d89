"""Matrix products of every width: each output is one dot product, its sum in one fixed order.

Weights stay row by row as in the file, padded with zeros to whole vectors and to four rows. With
few rows of x, lanes are features, and are summed at the end; with many, lanes are rows of x, and a
weight meets 64 of them. An output's sum does not depend on what is computed beside it: integers
have no order, and floats are only summed the first way. So one row or sixty-four, one thread or
two, give the same bits. How x is laid out: `packing.py`.
"""

import numba
import numpy as np

from mu_ref.kernels.packing import GROUP_BYTES, MANY
from mu_ref.kernels.simd import dot4, fetch4, fma4, nibbles4, spread4, store64, sum4, zeros4

__all__ = ["BYTES", "FLOATS", "products_f32", "products_i4", "products_i8", "products_i8_many"]

FLOATS, BYTES = 16, 64  # in one vector
AHEAD = 16  # rows between what is read and what is asked for


@numba.njit(cache=True, nogil=True)
def products_f32(x, w, out, n_rows, d, d_out, first, last):
    """Write out[r, n] = sum_k x[r, k] w[n, k], n in first..last-1.

    Contract: bound. 12 GB/s of weights with one row.

    All are flat. Rows of x and w are d long, a multiple of 16; w has four rows or a multiple.
    """
    for n in range(first, last, 4):
        at = n * d
        for r in range(0, n_rows, 2):
            a, b = zeros4(np.float32(0)), zeros4(np.float32(0))
            other = min(r + 1, n_rows - 1)  # a last row without partner is computed twice
            for k in range(0, d, FLOATS):
                a = fma4(a, x, r * d + k, w, at + k, d)
                b = fma4(b, x, other * d + k, w, at + k, d)
            store4(out, r * d_out, n, min(n + 4, last), sum4(a))
            store4(out, other * d_out, n, min(n + 4, last), sum4(b))


@numba.njit(cache=True, nogil=True)
def products_i8(x, w, out, n_rows, d, first, last, width):
    """Write out[r, n - first] = sum_k x[r, k] w[n, k], n in first..last-1.

    Contract: exact. 22 GB/s of weights with one row.

    x is uint8, w int8, out int32 with rows of `width`. Rows of x and w have d bytes, a multiple of
    64; w has four rows or a multiple. For few rows: the weights are read once for all of them.
    """
    for n in range(first, last, 4):
        at = n * d
        if n_rows <= 2:
            a, b = zeros4(np.int32(0)), zeros4(np.int32(0))
            other = n_rows - 1
            for k in range(0, d, BYTES):
                fetch4(w, at + AHEAD * d + k, d)
                a = dot4(a, x, k, w, at + k, d)
                b = dot4(b, x, other * d + k, w, at + k, d)
            store4(out, -first, n, min(n + 4, last), sum4(a))
            store4(out, other * width - first, n, min(n + 4, last), sum4(b))
            continue
        for k in range(0, d, BYTES):
            fetch4(w, at + 4 * d + k, d)
        for r in range(0, n_rows, 4):
            a, b, c, e = (
                zeros4(np.int32(0)), zeros4(np.int32(0)), zeros4(np.int32(0)), zeros4(np.int32(0)),
            )  # fmt: skip
            r1, r2, r3 = min(r + 1, n_rows - 1), min(r + 2, n_rows - 1), min(r + 3, n_rows - 1)
            for k in range(0, d, BYTES):
                a = dot4(a, x, r * d + k, w, at + k, d)
                b = dot4(b, x, r1 * d + k, w, at + k, d)
                c = dot4(c, x, r2 * d + k, w, at + k, d)
                e = dot4(e, x, r3 * d + k, w, at + k, d)
            store4(out, r * width - first, n, min(n + 4, last), sum4(a))
            store4(out, r1 * width - first, n, min(n + 4, last), sum4(b))
            store4(out, r2 * width - first, n, min(n + 4, last), sum4(c))
            store4(out, r3 * width - first, n, min(n + 4, last), sum4(e))


@numba.njit(cache=True, nogil=True)
def products_i8_many(x, w, out, n_rows, d, first, last, width):
    """Write the same as `products_i8`, for up to 64 rows of x in columns.

    Contract: exact. 180 G multiply-adds a second with 64 rows.
    """
    sums = np.empty(4 * MANY, np.int32)
    for n in range(first, last, 4):
        at = n * d
        a, b, c, e = (
            zeros4(np.int32(0)), zeros4(np.int32(0)), zeros4(np.int32(0)), zeros4(np.int32(0)),
        )  # fmt: skip
        for k in range(0, d, 4):
            a = spread4(a, x, MANY * k, w, at + k, d)
            b = spread4(b, x, MANY * k + BYTES, w, at + k, d)
            c = spread4(c, x, MANY * k + 2 * BYTES, w, at + k, d)
            e = spread4(e, x, MANY * k + 3 * BYTES, w, at + k, d)
        store64(sums, 0, a)
        store64(sums, MANY, b)
        store64(sums, 2 * MANY, c)
        store64(sums, 3 * MANY, e)
        for i in range(min(4, last - n)):
            for r in range(n_rows):
                out[r * width + n - first + i] = sums[(r >> 4) * MANY + i * 16 + (r & 15)]


@numba.njit(cache=True, nogil=True)
def products_i4(x, w, scales, out, n_rows, n_groups, d_out, first, last):
    """Write out[r, n] = sum_k x[r, k] scales[n, k / 128] (w[n, k] - 8) (9.4).

    Contract: bound. 27 GB/s of weights with one row.

    x is from `packing.halves_of`; w has 64 bytes for a group, two weights in each, and four rows or
    a multiple.
    """
    d = BYTES * n_groups
    for n in range(first, last, 4):
        for r in range(n_rows):
            total = zeros4(np.float32(0))
            for g in range(n_groups):
                at = (r * n_groups + g) * GROUP_BYTES
                if r == 0:
                    fetch4(w, (n + AHEAD) * d + g * BYTES, d)
                total = nibbles4(
                    total, x, at, w, n * d + g * BYTES, d, scales, n * n_groups + g, n_groups
                )
            store4(out, r * d_out, n, min(n + 4, last), sum4(total))


@numba.njit(cache=True, nogil=True)
def store4(out, at, first, last, values):
    """Write up to four neighbours, as many as there are."""
    if last - first == 4:
        out[at + first], out[at + first + 1] = values[0], values[1]
        out[at + first + 2], out[at + first + 3] = values[2], values[3]
    else:
        for n in range(first, last):
            out[at + n] = values[n - first]
