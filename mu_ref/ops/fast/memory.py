"""Memory of the compiled executors: blocks from a pool, and the values that lie in them."""

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from mu_ref.border.memory import LINE, aligned

__all__ = ["Block", "Form", "Pool", "Tensor", "as_integers", "as_marks", "check_tokens"]

LEAST = 1024  # elements of the smallest block


class Pool:
    """Memory for values, kept for the next step: blocks of 1024, 1536, 2048, 3072, ... elements."""

    def __init__(self, dtype: type) -> None:
        self.dtype = dtype
        self.free: dict[int, list[tuple[np.ndarray, int]]] = defaultdict(list)

    def block(self, n: int) -> "Block":
        """Return memory for n elements."""
        # Few sizes, so that the blocks of one step fit the next, whose values are a little longer.
        whole = 1 << (n - 1).bit_length()
        size = max(LEAST, whole * 3 // 4 if n <= whole * 3 // 4 else whole)
        if self.free[size]:
            return Block(self, *self.free[size].pop())
        memory = aligned((size + LINE,), self.dtype)  # kernels may read a vector past the end
        return Block(self, memory[:size], memory.ctypes.data)


class Block:
    """Memory of one value; it returns to the pool when no value uses it.

    An operation that was written down may still read it then. That is safe: whatever writes to the
    memory next stands later in the same program.
    """

    __slots__ = ("address", "memory", "pool", "used")

    def __init__(self, pool: Pool, memory: np.ndarray, address: int) -> None:
        self.pool, self.memory, self.address = pool, memory, address
        self.used = 0  # tokens of a cache that were written

    def __del__(self) -> None:
        """Give the memory back."""
        self.pool.free[len(self.memory)].append((self.memory, self.address))


class Tensor:
    """A value: memory, a shape, and what an executor knows about the numbers.

    With `room`, the shape is [batch, heads, n_tok, d_head] and the memory [batch, room, heads,
    d_head]: heads stay beside each other, as the matrix product wrote them. `shared` is the address
    of the head map, and how many kv heads the memory holds.
    """

    __slots__ = ("block", "meaning", "room", "shape", "shared")  # made at every operation

    def __init__(
        self,
        block: Block,
        shape: tuple[int, ...],
        meaning: Any = None,
        room: int = 0,
        shared: tuple[int, int] | None = None,
    ) -> None:
        self.block, self.shape, self.meaning = block, shape, meaning
        self.room, self.shared = room, shared


class Form(NamedTuple):
    """A value without its memory."""

    shape: tuple[int, ...]
    room: int
    meaning: Any


def check_tokens(tokens: np.ndarray, n_rows: int, site: str) -> np.ndarray:
    """Return tokens; one outside the table would be read from memory that is not there."""
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < n_rows:
        raise IndexError(f"{site}: tokens must lie in 0..{n_rows - 1}, got {tokens.tolist()}")
    return tokens


def as_integers(x: np.ndarray) -> np.ndarray:
    """Lay out token ids or places."""
    return np.ascontiguousarray(x, np.int64)


def as_marks(mask: np.ndarray, n_query: int) -> np.ndarray:
    """Lay out a mask [batch, 1, n_query or 1, n_key] as [batch, n_query, n_key] bytes."""
    marks = np.empty((len(mask), n_query, mask.shape[-1]), np.uint8)
    marks[:] = mask[:, 0]
    return marks
