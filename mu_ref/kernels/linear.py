"""Matrix products of every width: each output is one dot product, its sum in one fixed order.

Weights of 8 and 32 bits stay row by row as in the file, padded with zeros to whole vectors and to
eight rows; lanes are features, and are summed at the end. Weights of 4 bits lie in blocks of 16
outputs, and lanes are outputs. An output's sum does not depend on what is computed beside it, so
one row or sixty-four, one thread or two, give the same bits. How weights are laid out:
`mu_ref/ops/fast/matrices.py`; how x is: `packing.py`.
"""

import numpy as np

from mu_ref.config import INT4_GROUP
from mu_ref.kernels.compiled import kernel
from mu_ref.kernels.vector.simd import (
    dot1,
    dot4,
    each4,
    fetch1,
    fetch4,
    fma4,
    nibbles2,
    scaled4,
    spread4,
    store4,
    sums4,
    zeros1,
    zeros4,
)  # fmt: skip

__all__ = ["BYTES", "FLOATS", "products_f32", "products_i4", "products_i8"]

FLOATS, BYTES = 16, 64  # in one vector
AHEAD = 8  # rows of weights between what is read and what is asked for
NEAR = 4096  # bytes, the same where weights are read from first to last
AHEAD4 = 8192  # bytes, the same for int4


@kernel
def products_f32(x, w, out, n_rows, d, d_out, first, last):
    """Write out[r, n] = sum_k x[r, k] w[n, k], n in first..last-1.

    Contract: bound. 22 GB/s of weights with one row; 50 G multiply-adds a second with 64.

    All are flat. Rows of x and w are d long, a multiple of 16; w has eight rows or a multiple, and
    is read once for all rows of x, which should not be more than the second cache holds.
    """
    rest = np.empty(16, np.float32)
    together = 8 if n_rows <= 2 else 4
    for n in range(first, last, together):
        end = min(together, last - n)
        for r in range(0, n_rows, 4):
            # fewer outputs than a tile writes go through `rest`
            whole, to = end == together, r * d_out + n
            sums, at, step = (out, to, d_out) if whole else (rest, 0, together)
            if n_rows <= 2:
                _few_f32(x, w, n * d, sums, at, step, n_rows, d)
            else:
                _tile_f32(x, w, n * d, sums, at, step, r, n_rows, d)
            for i in range(0 if whole else min(4, n_rows - r)):
                out[to + i * d_out : to + i * d_out + end] = rest[step * i : step * i + end]


@kernel
def _few_f32(x, w, j, out, to, step, n_rows, d):
    """One or two rows of x, times eight of w from j; rows of out are `step` apart.

    Eight outputs at a time, as the time is that of reading w, and the end of a sum is rarer so.
    """
    # not `a = b = ...`: LLVM keeps sums that were one value in memory, at half the speed
    a, b = zeros4(np.float32(0)), zeros4(np.float32(0))
    e, f = zeros4(np.float32(0)), zeros4(np.float32(0))
    other = j + 4 * d  # e and f are sums of the last four of w
    for k in range(0, d, FLOATS):
        fetch4(w, j + AHEAD * d + k, d)
        fetch4(w, other + AHEAD * d + k, d)
        a = fma4(a, x, k, w, j + k, d)
        e = fma4(e, x, k, w, other + k, d)
        if n_rows > 1:
            b = fma4(b, x, d + k, w, j + k, d)
            f = fma4(f, x, d + k, w, other + k, d)
    sums4(out, to, a)
    sums4(out, to + 4, e)
    if n_rows > 1:
        sums4(out, to + step, b)
        sums4(out, to + step + 4, f)


@kernel
def _tile_f32(x, w, j, out, to, step, r, n_rows, d):
    """Four rows of x from row r on, times four of w from j; past the end the last row again."""
    a, b = zeros4(np.float32(0)), zeros4(np.float32(0))
    c, e = zeros4(np.float32(0)), zeros4(np.float32(0))
    r1, r2, r3 = min(r + 1, n_rows - 1), min(r + 2, n_rows - 1), min(r + 3, n_rows - 1)
    # Each four rows of x pass over the same weights, and ask for a share of the next.
    share = -(-d // (-(-n_rows // 4) * FLOATS)) * FLOATS
    ask, enough = r // 4 * share, (r // 4 + 1) * share
    for k in range(0, d, FLOATS):
        if ask <= k < enough:
            fetch4(w, j + AHEAD * d + k, d)
        a = fma4(a, x, r * d + k, w, j + k, d)
        b = fma4(b, x, r1 * d + k, w, j + k, d)
        c = fma4(c, x, r2 * d + k, w, j + k, d)
        e = fma4(e, x, r3 * d + k, w, j + k, d)
    sums4(out, to, a)
    sums4(out, to + (r1 - r) * step, b)
    sums4(out, to + (r2 - r) * step, c)
    sums4(out, to + (r3 - r) * step, e)


@kernel
def products_i8(x, w, out, n_rows, d, first, last, width):
    """Write out[r, n - first] = sum_k x[r, k] w[n, k], n in first..last-1.

    Contract: exact. 22 GB/s of weights with one row; 200 G multiply-adds a second with 64.

    x is uint8, w int8, out int32 with rows of `width`, room for whole fours. Rows of x and w have
    d bytes, a multiple of 64; w has eight rows or a multiple, and is read once for all rows of x.
    """
    for n in range(first, last, 4):
        at, to = n * d, n - first
        if n_rows <= 2:
            # The time is that of reading w, which is fastest from first to last.
            other = (n_rows - 1) * d
            a, a1 = _sums_i8(x, other, w, at, d)
            b, b1 = _sums_i8(x, other, w, at + d, d)
            c, c1 = _sums_i8(x, other, w, at + 2 * d, d)
            e, e1 = _sums_i8(x, other, w, at + 3 * d, d)
            sums4(out, to, (a, b, c, e))
            if other:
                sums4(out, to + width, (a1, b1, c1, e1))
            continue
        for r in range(0, n_rows, 4):
            _tile_i8(x, w, at, out, to, width, r, n_rows, d)


@kernel
def _sums_i8(x, other, w, j, d):
    """Lanes of two sums: of the first row of x, and of one from `other`, times a row of w from j.

    The second is 0 where `other` is.
    """
    a, b = zeros1(), zeros1()
    for k in range(0, d, BYTES):
        fetch1(w, j + NEAR + k)
        a = dot1(a, x, k, w, j + k)
        if other:
            b = dot1(b, x, other + k, w, j + k)
    return a, b


@kernel
def _tile_i8(x, w, j, out, to, step, r, n_rows, d):
    """Four rows of x from row r on, times four of w from j; as _tile_f32."""
    # Sixteen sums are on their way at a time, so none waits for the product before it.
    a, b = zeros4(np.int32(0)), zeros4(np.int32(0))
    c, e = zeros4(np.int32(0)), zeros4(np.int32(0))
    r1, r2, r3 = min(r + 1, n_rows - 1), min(r + 2, n_rows - 1), min(r + 3, n_rows - 1)
    share = -(-d // (-(-n_rows // 4) * BYTES)) * BYTES
    ask, enough = r // 4 * share, (r // 4 + 1) * share
    for k in range(0, d, BYTES):
        if ask <= k < enough:
            fetch4(w, j + AHEAD * d + k, d)
        a = dot4(a, x, r * d + k, w, j + k, d)
        b = dot4(b, x, r1 * d + k, w, j + k, d)
        c = dot4(c, x, r2 * d + k, w, j + k, d)
        e = dot4(e, x, r3 * d + k, w, j + k, d)
    sums4(out, to + r * step, a)
    sums4(out, to + r1 * step, b)
    sums4(out, to + r2 * step, c)
    sums4(out, to + r3 * step, e)


@kernel
def products_i4(x, starts, w, scales, out, n_rows, n_groups, first, last):
    """Write out[r, n - first] = sum_k x[r, k] scales[n, k / 128] (w[n, k] - 8) (9.4).

    Contract: bound. 27 GB/s of weights with one row; 150 G multiply-adds a second with eight.

    x and starts are from `packing.halves_of`, of two rows or, with n_rows above two, of eight; out
    has eight rows of last - first. w and scales are from `matrices.blocks_of`; first and last are
    multiples of 32.
    """
    if n_rows <= 2:
        _two_rows(x, starts, w, scales, out, n_groups, first, last)
    else:
        _eight_rows(x, starts, w, scales, out, n_groups, first, last)


@kernel
def _two_rows(x, starts, w, scales, out, n_groups, first, last):
    """Two blocks of outputs at a time, as with one the sums would wait for themselves."""
    d, width = n_groups * INT4_GROUP, last - first
    for n in range(first, last, 32):
        at, other = n * d // 2, (n + 16) * d // 2
        t, u = zeros4(np.float32(0)), zeros4(np.float32(0))
        for g in range(n_groups):
            a = b = each4(starts, g, n_groups)
            for part in range(g * INT4_GROUP, (g + 1) * INT4_GROUP, 32):
                fetch4(w, at + 8 * part + AHEAD4, BYTES)
                fetch4(w, other + 8 * part + AHEAD4, BYTES)
                for k in range(part, part + 32, 8):
                    low, high = nibbles2(w, at + 8 * k)
                    a = spread4(spread4(a, low, x, 4 * k, 8), high, x, 4 * k + 4, 8)
                    low, high = nibbles2(w, other + 8 * k)
                    b = spread4(spread4(b, low, x, 4 * k, 8), high, x, 4 * k + 4, 8)
            t = scaled4(t, a, a, scales, n * n_groups + 16 * g)
            u = scaled4(u, b, b, scales, (n + 16) * n_groups + 16 * g)
        store4(out, n - first, width, t)  # its rows 2 and 3 are 0 and 1 again
        store4(out, n + 16 - first, width, u)


@kernel
def _eight_rows(x, starts, w, scales, out, n_groups, first, last):
    """Nibbles are taken apart once for all rows; a .. e: two rows each, two halves in each."""
    d, width = n_groups * INT4_GROUP, last - first
    for n in range(first, last, 16):
        at = n * d // 2
        t, u = zeros4(np.float32(0)), zeros4(np.float32(0))
        for g in range(n_groups):
            a, b = each4(starts, g, n_groups), each4(starts, g + 4 * n_groups, n_groups)
            c, e = (
                each4(starts, g + 8 * n_groups, n_groups),
                each4(starts, g + 12 * n_groups, n_groups),
            )
            for part in range(g * INT4_GROUP, (g + 1) * INT4_GROUP, 32):
                fetch4(w, at + 8 * part + AHEAD4, BYTES)
                for k in range(part, part + 32, 8):
                    low, high = nibbles2(w, at + 8 * k)
                    i = 16 * k
                    a = spread4(spread4(a, low, x, i, 8), high, x, i + 4, 8)
                    b = spread4(spread4(b, low, x, i + 32, 8), high, x, i + 36, 8)
                    c = spread4(spread4(c, low, x, i + 64, 8), high, x, i + 68, 8)
                    e = spread4(spread4(e, low, x, i + 96, 8), high, x, i + 100, 8)
            t = scaled4(t, a, b, scales, n * n_groups + 16 * g)
            u = scaled4(u, c, e, scales, n * n_groups + 16 * g)
        store4(out, n - first, width, t)
        store4(out, n - first + 4 * width, width, u)
