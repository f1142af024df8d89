"""How a weight matrix lies in memory, and which operation of the float machine multiplies with it.

A weight file stores matrices in float32, or in int4 with tables in int8 beside them. Each is laid
out once, when an executor is made, in the order in which its kernel reads it. What differs between
float32 and int4 ends here: `floats.py` asks its matrices, and knows no format.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mu_ref.border.memory import LINE, Arena
from mu_ref.config import INT4_GROUP
from mu_ref.kernels import float_program as machine
from mu_ref.kernels.products.linear import BLOCK

__all__ = [
    "REGION",
    "Matrix",
    "blocks_of",
    "matrix_of",
    "nibble_blocks_of",
    "sums_of",
    "whole_width",
]

REGION = 2**25  # bytes that are asked for at once, for several matrices
TOGETHER = 64  # blocks that are laid out at once


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight of two axes, as its kernels read it.

    float32 multiplies x as it is. int4 rounds x to steps of max |x| / 16383 first and int8 to steps
    of max |x| / 32767, each row of x by itself, so a row's bits do not depend on the others.
    """

    shape: tuple[int, int]  # d_out, d_in; int4 counts an odd d_in as one more
    width: int  # d_in in whole groups of features
    multiply: int  # operation of `linear`
    look_up: int | None  # operation of `embed`
    arrays: tuple[np.ndarray, ...]  # values, scales, sums of rows; kept alive for the addresses
    addresses: tuple[int, int, int]  # of the arrays, 0 for one that is not there


def matrix_of(name: str, tensors: Mapping[str, np.ndarray], arena: Arena) -> Matrix:
    """Lay out a weight of a float file or of an int4 file; its dtype says how it is stored.

    Args:
        name: key of the weight; its scales, if it has any, are `name` + "_scale".
        tensors: of the file, see `mu_ref/integers/int4_store.py`.
        arena: where it will lie.

    Returns:
        The matrix.
    """
    w = tensors[name]
    d_out, d_in = w.shape
    if w.dtype == np.uint8:  # two weights in each byte; int4 files keep what is looked up in int8
        scale = tensors[f"{name}_scale"]
        width, shape = scale.shape[1] * INT4_GROUP, (d_out, 2 * d_in)
        return _matrix(shape, width, machine.LINEAR4, None, nibble_blocks_of(w, scale, arena))
    shape = d_out, d_in
    if w.dtype == np.int8:
        values = blocks_of(w, arena)
        scales = np.ascontiguousarray(tensors[f"{name}_scale"][:, 0], np.float32)
        sums = w.sum(axis=1, dtype=np.int32)  # x as bytes has 128 added, times these too much
        arrays = values, scales, sums
        return _matrix(shape, whole_width(w), machine.LINEAR8, machine.EMBED8, arrays)
    values = blocks_of(np.asarray(w, np.float32), arena)
    return _matrix(shape, d_in, machine.LINEAR, machine.EMBED, (values,))


def _matrix(
    shape: tuple[int, int],
    width: int,
    multiply: int,
    look_up: int | None,
    arrays: tuple[np.ndarray, ...],
) -> Matrix:
    values, scales, sums = [*(array.ctypes.data for array in arrays), 0, 0][:3]
    return Matrix(shape, width, multiply, look_up, arrays, (values, scales, sums))


def whole_width(w: np.ndarray) -> int:
    """Features of a row as kernels read it: whole groups of four bytes."""
    group = 4 // w.itemsize
    return -(-w.shape[1] // group) * group


def blocks_of(w: np.ndarray, arena: Arena, *, in_place: bool = False) -> np.ndarray:
    """Lay out a matrix in blocks of 16 outputs, for `products`.

    Args:
        w: float32, int16 or int8 [d_out, d_in].
        arena: where it will lie.
        in_place: True if nobody else reads w from now on: then its own memory is laid out anew
            where that has room for it, so that a large model is not held twice.

    Returns:
        [blocks, d / group, 16, group], filled up with zeros, from a cache line on. A group has four
        bytes, as four of int8 are multiplied at once (9.2).
    """
    n_rows, width = -(-w.shape[0] // BLOCK) * BLOCK, whole_width(w)
    fits = w.shape == (n_rows, width) and w.flags.c_contiguous and w.ctypes.data % LINE == 0
    if in_place and fits and w.flags.writeable:
        whole = w
    else:
        whole = arena.array((n_rows, width), w.dtype)
        whole[: w.shape[0], : w.shape[1]] = w
    rows = whole.view(np.uint32).reshape(-1, BLOCK, width * w.itemsize // 4)  # a group is 4 bytes
    blocks = rows.reshape(len(rows), -1, BLOCK)
    for some in range(0, len(rows), TOGETHER):
        part = slice(some, some + TOGETHER)
        blocks[part] = rows[part].swapaxes(1, 2).copy()  # both are the same memory
    return blocks.view(w.dtype).reshape(*blocks.shape, -1)


def sums_of(blocks: np.ndarray) -> np.ndarray:
    """Sum the weights of each output: of `blocks_of`, with whole blocks, to int64 [outputs]."""
    n_blocks, _, n_outputs, group = blocks.shape
    by_lane = blocks.reshape(n_blocks, -1, n_outputs * group).sum(axis=1, dtype=np.int64)
    return by_lane.reshape(-1, group).sum(axis=1)


def nibble_blocks_of(
    w: np.ndarray, scale: np.ndarray, arena: Arena
) -> tuple[np.ndarray, np.ndarray]:
    """Lay out int4 weights and their scales in blocks of 16 outputs, for `products_i4`.

    Args:
        w: uint8 [d_out, d_in / 2], two weights in each, the even one in the low nibble.
        scale: [d_out, groups].
        arena: where both will lie.

    Returns:
        uint8 [blocks, d / 8, 16, 4], 8 added to each weight: byte m of an output holds weight 8 c +
        m, and in its high nibble weight 8 c + 4 + m; float32 scales [blocks, groups, 16]. Blocks
        are even in number.
    """
    (d_out, n_bytes), n_groups = w.shape, scale.shape[1]
    n_blocks = -(-d_out // 32) * 2
    packed = arena.array((n_blocks, n_groups * INT4_GROUP // 8, 16, 4), np.uint8)
    scales = arena.array((n_blocks, n_groups, 16), np.float32)
    for block in range(n_blocks):
        rows = np.full((16, n_groups * INT4_GROUP // 2), 0x88, np.uint8)  # two weights of 0
        given = w[16 * block : 16 * block + 16]
        rows[: len(given), :n_bytes] ^= given  # a nibble n becomes n + 8, as -8..-1 are 8..15
        both = np.stack([rows & 15, rows >> 4], axis=-1).reshape(16, -1, 2, 4)
        packed[block] = (both[:, :, 0] | both[:, :, 1] << 4).swapaxes(0, 1)
        scales[block, :, : len(given)] = scale[16 * block : 16 * block + 16].T
    return packed, scales
