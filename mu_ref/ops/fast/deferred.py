"""What both fast executors share: operations are deferred, and values are places in memory.

An operation that the model calls computes nothing yet. What becomes of `ops.linear(x, site)`:

1. `floats.py` or `integers.py` finds out where the weight lies, takes memory for the result, and
   **defers** the operation: a row of integers, its code, addresses and sizes, joins the program.
2. When somebody wants to see a number (`argmax`, `read`), the program is **flushed**: given to
   compiled code in one call, which several threads share (`mu_ref/kernels/threads.py`).
3. A machine (`mu_ref/kernels/float_program.py`, `integer_program.py`) walks through the rows,
   makes arrays of the addresses, and calls the kernel, here of `mu_ref/kernels/products/linear.py`.

So a step of decoding costs one call into compiled code, whatever the number of layers, and its time
is that of reading the weights (9.1). A stretch of operations that comes again is not even written
down anew: its rows are **captured**, and **replayed** (`stretches/repeats.py`).
"""

from array import array
from collections.abc import Callable
from math import gcd, prod
from typing import Any

import numpy as np

from mu_ref.border.memory import aligned
from mu_ref.kernels.machine import COPY, TAKE, WIDTH
from mu_ref.kernels.threads import load_kernel, n_threads, run_on
from mu_ref.ops import Ops
from mu_ref.ops.fast.memory import Pool, Tensor, as_integers
from mu_ref.ops.fast.stretches.replay import Make, Script, Scripts
from mu_ref.ops.fast.stretches.told import Found

__all__ = ["MOST_OPERATIONS", "DeferredOps"]

MOST_OPERATIONS = 4096  # a longer program runs in parts


class DeferredOps(Ops):
    """An executor that defers operations; a subclass says which row stands for each.

    Args:
        dtype: of the numbers of a value.
        run: the machine, `run` of `float_program` or `integer_program`.
        scratch_bytes: how many a thread needs for a product of so many features.
        weight_bytes: size of the model, for the number of threads.
    """

    compiled = True

    def __init__(
        self,
        dtype: type,
        run: Callable[..., Any],
        scratch_bytes: Callable[[int], int],
        weight_bytes: int,
    ) -> None:
        self.pool = Pool(dtype)
        self.n_threads = n_threads(weight_bytes)
        self._run, self._scratch_bytes = run, scratch_bytes
        self._scratch = [(aligned((0,), np.uint8), 0)]  # and its address; the last one is used
        self._program, self._scalars = array("q"), array("d")  # rows, and a real number for each
        self._alive: list[np.ndarray] = []  # arrays that the program reads
        self._head_maps: dict[tuple[int, ...], tuple[np.ndarray, int]] = {}
        self._made: dict[tuple[int, str], tuple[Any, int]] = {}  # inputs of this program
        self._script: Script | None = None  # of the stretch that is being captured
        self._scripts = Scripts()
        self._n_flushes = 0
        self._running: Found | None = None
        self._slots: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
        load_kernel(run)  # now, and not with the first token
        run_on(1, run, np.zeros((0, WIDTH), np.int64), 0, np.zeros(0))

    # -- the program -------------------------------------------------------------------------------

    def _defer(self, *fields: int, scalar: float = 0.0) -> None:
        """Write an operation down: its code, then what its kernel wants to know."""
        self._program.extend(fields + (0,) * (WIDTH - len(fields)))
        self._scalars.append(scalar)
        if len(self._scalars) == MOST_OPERATIONS:
            self.flush()

    def flush(self) -> None:
        """Compute everything that was deferred."""
        if self._script is not None:  # what follows depends on numbers, which a replay cannot know
            self._script.broken = True
        self._finish()
        if not self._scalars:
            return
        program = np.frombuffer(self._program, np.int64).reshape(-1, WIDTH)
        scalars = np.frombuffer(self._scalars, np.float64)
        run_on(self.n_threads, self._run, program, len(scalars), scalars)
        self._program, self._scalars = array("q"), array("d")
        self._alive.clear()
        self._made.clear()
        self._n_flushes += 1

    def _finish(self) -> None:
        """Wait for steps that compiled code goes ahead with: it uses memory that others would."""
        if self._running is not None:
            self._running.wait()

    def _new(self, shape: tuple[int, ...], meaning: Any = None, room: int = 0) -> Tensor:
        """Take memory for a value; with room, for as many tokens (see `Tensor`)."""
        n = shape[0] * shape[1] * room * shape[3] if room else prod(shape)
        if self._script is not None:
            block = self._script.block(self._scripts.blocks, self.pool, shape, n)
            return Tensor(block, shape, meaning, room)
        return Tensor(self.pool.block(n), shape, meaning, room)

    def _scratch_for(self, d: int) -> int:
        """Address of what threads need to lay out rows of d features and to hold sums."""
        n = self.n_threads * self._scratch_bytes(d)
        if n > self._scratch[-1][0].size:  # a replay may still use the smaller ones
            array = aligned((n,), np.uint8)
            self._scratch.append((array, array.ctypes.data))
        return self._scratch[-1][1]

    def _input(self, source: Any, what: str, make: Make) -> int:
        """Address of an array made of what the model passed; made once for all who ask."""
        key = (id(source), what)  # the source is kept below, so nobody else gets its id
        if key not in self._made:
            address = None if self._script is None else self._script.buffer(source, make)
            if address is None:
                values = make(source)
                self._alive.append(values)
                address = values.ctypes.data
            self._made[key] = source, address
        return self._made[key][1]

    # -- numbers in and out ------------------------------------------------------------------------

    def _numbers(self, x: Tensor) -> np.ndarray:
        """Compute, and return what is in a value's memory, in the order of its shape; a view."""
        self.flush()
        if not x.room:
            return x.block.memory[: prod(x.shape)].reshape(x.shape)
        batch, heads, n_tok, d_head = x.shape
        held = heads if x.shared is None else x.shared[1]
        rows = x.block.memory[: batch * x.room * held * d_head]
        numbers = rows.reshape(batch, x.room, held, d_head)[:, :n_tok].transpose(0, 2, 1, 3)
        if x.shared is None:
            return numbers
        maps = {address: head_map for head_map, address in self._head_maps.values()}
        return numbers[:, maps[x.shared[0]]]

    def _stored(self, numbers: np.ndarray, meaning: Any = None) -> Tensor:
        """Make a value of numbers; the program must not still use the memory."""
        self.flush()
        value = self._new(numbers.shape, meaning)
        value.block.memory[: numbers.size] = numbers.ravel()
        return value

    # -- layout ------------------------------------------------------------------------------------

    def split_heads(self, x: Tensor, n_heads: int, site: str) -> Tensor:
        """[batch, n_tok, n_heads * d_head] -> [batch, n_heads, n_tok, d_head]; nothing moves."""
        batch, n_tok, width = x.shape
        return Tensor(x.block, (batch, n_heads, n_tok, width // n_heads), x.meaning, n_tok)

    def merge_heads(self, x: Tensor, site: str) -> Tensor:
        """[batch, n_heads, n_tok, d_head] -> [batch, n_tok, n_heads * d_head]; nothing moves."""
        batch, n_heads, n_tok, d_head = x.shape
        if x.room != n_tok:
            x = self.append(None, x, site, n_tok)
        return Tensor(x.block, (batch, n_tok, n_heads * d_head), x.meaning)

    def share_heads(self, x: Tensor, head_of: tuple[int, ...], site: str) -> Tensor:
        """Note which kv head serves which query head; nothing moves."""
        if head_of not in self._head_maps:
            head_map = np.array(head_of, np.int64)
            self._head_maps[head_of] = head_map, head_map.ctypes.data
        batch, n_kv, n_tok, d_head = x.shape
        shared = (self._head_maps[head_of][1], n_kv)
        return Tensor(x.block, (batch, len(head_of), n_tok, d_head), x.meaning, x.room, shared)

    def append(self, past: Tensor | None, new: Tensor, site: str, room: int = 0) -> Tensor:
        """Join along the token axis: in place, if past is the newest version and there is room."""
        batch, heads, n_new, d_head = new.shape
        n_past = 0 if past is None else past.shape[2]
        n_tok = n_past + n_new
        joined = past
        # Two versions may share a beginning; only the newest can go on where it lies.
        if past is None or past.block.used != n_past or n_tok > past.room:
            room = room or max(64, 1 << (n_tok * 5 // 4).bit_length())
            block = self.pool.block(batch * heads * room * d_head)  # outlives a step
            joined = Tensor(block, (batch, heads, n_tok, d_head), new.meaning, room)
            if past is not None:
                self._copy(joined, past, 0)
        assert joined is not None
        joined = Tensor(joined.block, (batch, heads, n_tok, d_head), new.meaning, joined.room)
        self._copy(joined, new, n_past)
        joined.block.used = n_tok
        return joined

    def _copy(self, to: Tensor, source: Tensor, at: int) -> None:
        """Defer copying all tokens of a value to place `at` of another."""
        batch, heads, n_tok, d_head = source.shape
        self._defer(
            COPY, to.block.address, source.block.address, 0,
            batch, source.room, to.room, heads * d_head, at, n_tok,
        )  # fmt: skip

    def take_tokens(self, x: Tensor, index: np.ndarray, site: str) -> Tensor:
        """[batch, n_tok, d], [batch, n] -> [batch, n, d]."""
        batch, n_tok, d = x.shape
        n = index.shape[1]
        taken = self._new((batch, n, d), x.meaning)
        self._defer(
            TAKE, taken.block.address, x.block.address,
            self._input(index, "index", as_integers), batch, n_tok, n, d,
        )  # fmt: skip
        return taken

    def _join(self, x: Tensor, y: Tensor, meaning: Any) -> Tensor:
        """Join along the last axis: rows are cut into pieces that divide both widths.

        So joining is copying of tokens of `piece` numbers, which the machines know already.
        """
        (*lead, d), e = x.shape, y.shape[-1]
        piece, n_rows = gcd(d, e), prod(lead)
        joined = self._new((*lead, d + e), meaning)
        for part, width, at in ((x, d, 0), (y, e, d)):
            n = width // piece
            self._defer(
                COPY, joined.block.address, part.block.address, 0,
                n_rows, n, (d + e) // piece, piece, at // piece, n,
            )  # fmt: skip
        return joined

    def keep_slots(self, x: Tensor, n_kept: int, index: np.ndarray, site: str) -> Tensor:
        """[batch, heads, n, d], [batch, m] -> n_kept + m slots, in place."""
        batch, heads, _, d_head = x.shape
        if self._slots[0] is not index:  # every layer of a step asks for the same
            stay = bool((index == np.arange(n_kept, n_kept + index.shape[1])).all())
            self._slots = index, None if stay else np.ascontiguousarray(index, np.int64)
        moved, n = self._slots[1], index.shape[1]
        kept = Tensor(x.block, (batch, heads, n_kept + n, d_head), x.meaning, x.room)
        if moved is not None:
            self._alive.append(moved)
            chosen = self._new((batch, heads, n, d_head), x.meaning, n)
            self._defer(
                TAKE, chosen.block.address, x.block.address, moved.ctypes.data,
                batch, x.room, n, heads * d_head,
            )  # fmt: skip
            self._copy(kept, chosen, n_kept)
        kept.block.used = n_kept + n
        return kept

    # -- decisions ---------------------------------------------------------------------------------

    def argmax(self, x: Tensor, site: str) -> np.ndarray:
        """Lowest index of the largest element."""
        return np.argmax(self._numbers(x), axis=-1)

    def top_k(self, x: Tensor, k: int, site: str) -> np.ndarray:
        """Indices of the k largest, lowest index first on ties."""
        numbers = self._numbers(x)
        negated = -(numbers if numbers.dtype.kind == "f" else numbers.astype(np.int64))
        return np.argsort(negated, axis=-1, kind="stable")[..., :k]
