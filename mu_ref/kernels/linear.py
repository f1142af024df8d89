"""Matrix products of every width: each output is one dot product, its sum in one fixed order.

Weights stay row by row as in the file, padded with zeros to whole vectors and to four rows. Four
outputs of two rows of x go through the registers together, which changes the speed only: the sum
of an output runs over its own lanes, whatever is computed beside it. So one row or sixty-four, one
thread or two, give the same bits.
"""

import numba

from mu_ref.kernels.simd import dot4, f32_zeros, fetch4, fma4, i32_zeros, sum4

__all__ = ["BYTES", "FLOATS", "products_f32", "products_i8"]

FLOATS, BYTES = 16, 64  # in one vector
AHEAD = 16  # rows between what is read and what is asked for


@numba.njit(cache=True, nogil=True)
def products_f32(x, w, out, n_rows, d, d_out, first, last):
    """Write out[r, n] = sum_k x[r, k] w[n, k], n in first..last-1. Contract: bound.

    All are flat. Rows of x and w are d long, a multiple of 16; w has four rows or a multiple.
    """
    for n in range(first, last, 4):
        at = n * d
        for r in range(0, n_rows, 2):
            a, b = f32_zeros(), f32_zeros()
            other = min(r + 1, n_rows - 1)  # a last row without partner is computed twice
            for k in range(0, d, FLOATS):
                a = fma4(a, x, r * d + k, w, at + k, d)
                b = fma4(b, x, other * d + k, w, at + k, d)
            store4(out, r * d_out, n, min(n + 4, last), sum4(a))
            store4(out, other * d_out, n, min(n + 4, last), sum4(b))


@numba.njit(cache=True, nogil=True)
def products_i8(x, w, out, n_rows, d, first, last, width):
    """Write out[r, n - first] = sum_k x[r, k] w[n, k], n in first..last-1. Contract: exact.

    x is uint8, w int8, out int32 with rows of `width`. Rows of x and w have d bytes, a multiple of
    64; w has four rows or a multiple.
    """
    for n in range(first, last, 4):
        at = n * d
        if n_rows <= 2:
            a, b = i32_zeros(), i32_zeros()
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
            a, b, c, e = i32_zeros(), i32_zeros(), i32_zeros(), i32_zeros()
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
def store4(out, at, first, last, values):
    """Write up to four neighbours, as many as there are."""
    if last - first == 4:
        out[at + first], out[at + first + 1] = values[0], values[1]
        out[at + first + 2], out[at + first + 3] = values[2], values[3]
    else:
        for n in range(first, last):
            out[at + n] = values[n - first]
