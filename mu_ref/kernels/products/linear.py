"""Matrix products of every width: each output is one sum over features, in one fixed order.

Weights lie in blocks of 16 outputs, feature by feature, and lanes are outputs: what goes to all
lanes is a feature of x. So no sum runs across lanes, and a matrix is read from first to last. An
output's sum does not depend on what is computed beside it, so one row or sixty-four, one thread or
two, give the same bits. How weights are laid out: `mu_ref/ops/fast/matrices.py`; how x is:
`packing.py`.
"""

from mu_ref.config import INT4_GROUP
from mu_ref.kernels.compiled import kernel
from mu_ref.kernels.vector.simd import (
    add1,
    add4,
    each4,
    fetch1,
    fetch4,
    group1,
    nibbles2,
    scaled1,
    scaled4,
    spread1,
    spread4,
    store1,
    store4,
    vector1,
    zeros1,
    zeros4,
)  # fmt: skip
from mu_ref.kernels.vector.steps import all1

__all__ = [
    "BLOCK", "ROWS", "TILE", "place_of", "products", "products_i4", "together",
]  # fmt: skip

BLOCK = 16  # outputs: the lanes of a vector
TILE = 3 * BLOCK  # outputs that are computed together for
ROWS = 8  # rows of x: 24 sums fill most of the 32 registers, and none waits for the one before
HALF = 4  # rows at the end, for which half of the sums are computed
FEW_ROWS = 2  # rows with which the time is that of reading weights
PART = 128  # products of floats that are added one by one
NEAR = 1024  # bytes between what is read and what is asked for
AHEAD4 = 8192  # the same for int4


@kernel
def place_of(n, k, d, group):
    """Where weight k of output n lies, of d; a block has `group` features of each output together.

    Contract: exact.
    """
    block, of_features = n // BLOCK * BLOCK * d, k // group * group * BLOCK
    return block + of_features + n % BLOCK * group + k % group


@kernel
def together(n_rows):
    """Outputs that a product of so many rows computes at a time; threads share them in such steps.

    Contract: exact.
    """
    return BLOCK if n_rows <= FEW_ROWS else TILE


@kernel
def products(x, step, w, out, n_rows, d, first, last, width):
    """Write out[r, n - first] = sum_k x[r, k] w[n, k], n in first..last-1.

    Contract: bound. Exact for integers. 30 GB/s of weights with one row; with 64, 220 G
    multiply-adds a second of bytes, 55 of float32.

    x, w and out are float32; or uint8, int8 and int32, with d a multiple of 4; or int16, int16 and
    int32, with d even. All are flat. Rows of x begin `step` apart, rows of out `width`, room for
    whole tiles; with more than `FEW_ROWS` rows both have whole `ROWS`, of which those past n_rows
    are of no use. w is from `matrices.blocks_of`, first a multiple of BLOCK. w is read once for all
    rows of x, which should not be more than the second cache holds.
    """
    # Sums of floats are sums of parts: added one by one they would lose digits.
    part = PART if group1(w) == 1 else d
    if n_rows <= FEW_ROWS:
        for n in range(first, last, BLOCK):
            if n_rows == 1:
                _one_row(x, w, n * d, out, n - first, d, part)
            else:
                _two_rows(x, step, w, n * d, out, n - first, width, d, part)
        return
    final = len(w) - BLOCK * d  # where the last block begins; past it, it is computed again
    for n in range(first, last, TILE):
        blocks = n * d, min((n + BLOCK) * d, final), min((n + 2 * BLOCK) * d, final)
        # A part of these blocks is in the first cache for all rows; the next part is asked for.
        for k in range(0, d, part):
            ahead = BLOCK * part if k + part < d else TILE * d - BLOCK * k
            for r in range(0, n_rows, ROWS):
                at, to = r * step, r * width + n - first
                if last - n <= BLOCK:
                    _last_tile(x, at, step, w, n * d, out, to, width, k, min(k + part, d))
                elif n_rows - r <= HALF:
                    _half_tile(x, at, step, w, blocks, out, to, width, k, min(k + part, d), ahead)
                else:
                    _tile(x, at, step, w, blocks, out, to, width, k, min(k + part, d), ahead)


@kernel
def _one_row(x, w, j, out, to, d, part):
    """One row of x times the block of w from j, which is read from first to last."""
    group, a = group1(w), zeros1(out)
    for start in range(0, d, part):
        c = zeros1(out)
        for k in range(start, min(start + part, d), group):
            fetch1(w, j + BLOCK * k + NEAR // 4 * group)
            c = spread1(c, vector1(w, j + BLOCK * k), x, k)
        a = add1(a, c)
    store1(out, to, a)


@kernel
def _two_rows(x, step, w, j, out, to, width, d, part):
    """As _one_row, for two rows; with a branch in one loop for both it would be slower."""
    # not `a = b = ...`: LLVM keeps sums that were one value in memory, at half the speed
    group, a, b = group1(w), zeros1(out), zeros1(out)
    for start in range(0, d, part):
        c, e = zeros1(out), zeros1(out)
        for k in range(start, min(start + part, d), group):
            fetch1(w, j + BLOCK * k + NEAR // 4 * group)
            weights = vector1(w, j + BLOCK * k)
            c, e = spread1(c, weights, x, k), spread1(e, weights, x, step + k)
        a, b = add1(a, c), add1(b, e)
    store1(out, to, a)
    store1(out, to + width, b)


@kernel
def _ask(w, blocks, ahead, at, group):
    """Ask for the weights that a tile reads `ahead` from here."""
    j, second, third = blocks
    if group == 1:
        fetch1(w, j + ahead + at)
        fetch1(w, second + ahead + at)
        fetch1(w, third + ahead + at)
    else:  # of all three blocks, in the order of memory, which is not that of use
        fetch1(w, j + ahead + 3 * at)
        fetch1(w, j + ahead + 3 * at + BLOCK * group)
        fetch1(w, j + ahead + 3 * at + 2 * BLOCK * group)


@kernel
def _tile(x, i, step, w, blocks, out, to, width, first, last, ahead):
    """Eight rows of x from i on, times three blocks of w: what features first..last-1 have.

    The first part writes to out, others add to it.
    """
    j, second, third = blocks
    group, half = group1(w), i + 4 * step
    a, b, c, e, f, g = zeros4(out), zeros4(out), zeros4(out), zeros4(out), zeros4(out), zeros4(out)
    for k in range(first, last, group):
        at = BLOCK * k
        _ask(w, blocks, ahead, at, group)
        u, v, y = vector1(w, j + at), vector1(w, second + at), vector1(w, third + at)
        # four rows, then four: x in eight more registers would leave none for a vector of w
        a, b = spread4(a, u, x, i + k, step), spread4(b, v, x, i + k, step)
        c, e = spread4(c, y, x, i + k, step), spread4(e, u, x, half + k, step)
        f, g = spread4(f, v, x, half + k, step), spread4(g, y, x, half + k, step)
    low = to + 4 * width
    if first == 0:
        store4(out, to, width, a)
        store4(out, to + BLOCK, width, b)
        store4(out, to + 2 * BLOCK, width, c)
        store4(out, low, width, e)
        store4(out, low + BLOCK, width, f)
        store4(out, low + 2 * BLOCK, width, g)
    else:
        add4(out, to, width, a)
        add4(out, to + BLOCK, width, b)
        add4(out, to + 2 * BLOCK, width, c)
        add4(out, low, width, e)
        add4(out, low + BLOCK, width, f)
        add4(out, low + 2 * BLOCK, width, g)


@kernel
def _half_tile(x, i, step, w, blocks, out, to, width, first, last, ahead):
    """As _tile, for four rows; with a branch in one loop for both, LLVM keeps sums in memory."""
    j, second, third = blocks
    group, a, b, c = group1(w), zeros4(out), zeros4(out), zeros4(out)
    for k in range(first, last, group):
        at = BLOCK * k
        _ask(w, blocks, ahead, at, group)
        a = spread4(a, vector1(w, j + at), x, i + k, step)
        b = spread4(b, vector1(w, second + at), x, i + k, step)
        c = spread4(c, vector1(w, third + at), x, i + k, step)
    if first == 0:
        store4(out, to, width, a)
        store4(out, to + BLOCK, width, b)
        store4(out, to + 2 * BLOCK, width, c)
    else:
        add4(out, to, width, a)
        add4(out, to + BLOCK, width, b)
        add4(out, to + 2 * BLOCK, width, c)


@kernel
def _last_tile(x, i, step, w, j, out, to, width, first, last):
    """Eight rows of x from i on, times one block of w; as _tile, which would compute it thrice.

    Not a case of it: with a branch in its loop LLVM keeps sums in memory.
    """
    group, half = group1(w), i + 4 * step
    a, e = zeros4(out), zeros4(out)
    for k in range(first, last, group):
        weights = vector1(w, j + BLOCK * k)
        a = spread4(a, weights, x, i + k, step)
        e = spread4(e, weights, x, half + k, step)
    if first == 0:
        store4(out, to, width, a)
        store4(out, to + 4 * width, width, e)
    else:
        add4(out, to, width, a)
        add4(out, to + 4 * width, width, e)


@kernel
def products_i4(x, starts, w, scales, out, n_rows, n_groups, first, last):
    """Write out[r, n - first] = sum_k x[r, k] scales[n, k / 128] (w[n, k] - 8) (9.4).

    Contract: bound. 30 GB/s of weights with one row; 210 G multiply-adds a second with eight.

    x and starts are from `packing.halves_of`, of one or two rows or, with n_rows above two, of
    eight; out has eight rows of last - first. w and scales are from `matrices.nibble_blocks_of`;
    first and last are multiples of 32.
    """
    if n_rows == 1:
        _one_row_i4(x, starts, w, scales, out, n_groups, first, last)
    elif n_rows == 2:
        _two_rows_i4(x, starts, w, scales, out, n_groups, first, last)
    else:
        _eight_rows_i4(x, starts, w, scales, out, n_groups, first, last)


@kernel
def _one_row_i4(x, starts, w, scales, out, n_groups, first, last):
    """Weights are read from first to last; a sum for every other eight features waits less."""
    d = n_groups * INT4_GROUP
    for n in range(first, last, 16):
        at, t = n * d // 2, zeros1(out)
        for g in range(n_groups):
            a, b = all1(starts[g]), all1(starts[n_groups + g])  # of highs, and of lows
            c, e = zeros1(starts), zeros1(starts)
            for k in range(g * INT4_GROUP, (g + 1) * INT4_GROUP, 16):
                i, j = 2 * k, at + 8 * k
                fetch1(w, j + AHEAD4)
                low, high = nibbles2(w, j)
                a = spread1(spread1(a, low, x, i), high, x, i + 4)
                b = spread1(spread1(b, low, x, i + 8), high, x, i + 12)
                fetch1(w, j + 64 + AHEAD4)
                low, high = nibbles2(w, j + 64)
                c = spread1(spread1(c, low, x, i + 16), high, x, i + 20)
                e = spread1(spread1(e, low, x, i + 24), high, x, i + 28)
            t = scaled1(t, add1(a, c), add1(b, e), scales, n * n_groups + 16 * g)
        store1(out, n - first, t)


@kernel
def _two_rows_i4(x, starts, w, scales, out, n_groups, first, last):
    """As _one_row_i4; two rows have four sums, which is enough."""
    d, width = n_groups * INT4_GROUP, last - first
    for n in range(first, last, 16):
        at, t = n * d // 2, zeros4(out)
        for g in range(n_groups):
            a = each4(starts, g, n_groups)
            for k in range(g * INT4_GROUP, (g + 1) * INT4_GROUP, 8):
                fetch1(w, at + 8 * k + AHEAD4)
                low, high = nibbles2(w, at + 8 * k)
                a = spread4(spread4(a, low, x, 4 * k, 8), high, x, 4 * k + 4, 8)
            t = scaled4(t, a, a, scales, n * n_groups + 16 * g)
        store4(out, n - first, width, t)  # its rows 2 and 3 are 0 and 1 again


@kernel
def _eight_rows_i4(x, starts, w, scales, out, n_groups, first, last):
    """Nibbles are taken apart once for all rows; a .. e: two rows each, two halves in each."""
    d, width = n_groups * INT4_GROUP, last - first
    for n in range(first, last, 16):
        at = n * d // 2
        t, u = zeros4(out), zeros4(out)
        for g in range(n_groups):
            a, b = each4(starts, g, n_groups), each4(starts, g + 4 * n_groups, n_groups)
            c, e = (
                each4(starts, g + 8 * n_groups, n_groups),
                each4(starts, g + 12 * n_groups, n_groups),
            )
            for part in range(g * INT4_GROUP, (g + 1) * INT4_GROUP, 32):
                fetch4(w, at + 8 * part + AHEAD4, 64)
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
