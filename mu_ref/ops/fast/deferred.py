"""What both fast executors share: operations are deferred, and values are places in memory.

An operation that the model calls computes nothing yet. What becomes of `ops.linear(x, site)`:

1. `floats.py` or `integers.py` finds out where the weight lies, takes memory for the result, and
   **defers** the operation: a row of integers, its code, addresses and sizes, joins the program.
2. When somebody wants to see a number (`argmax`, `read`), the program is **flushed**: given to
   compiled code in one call, which several threads share (`mu_ref/kernels/threads.py`).
3. A machine (`mu_ref/kernels/float_program.py`, `integer_program.py`) walks through the rows,
   makes arrays of the addresses, and calls the kernel, here one of `mu_ref/kernels/linear.py`.

So a step of decoding costs one call into compiled code, whatever the number of layers, and its time
is that of reading the weights (9.1). A stretch of operations that comes again is not even written
down anew: its rows are **captured**, and **replayed** (`replay.py`).
"""

from array import array
from collections.abc import Callable, Hashable, Sequence
from math import gcd, prod
from typing import Any

import numpy as np

from mu_ref.kernels.machine import COPY, TAKE, WIDTH
from mu_ref.kernels.threads import load_kernels, n_threads, run_on
from mu_ref.ops import Cached, Ops
from mu_ref.ops.fast.memory import Pool, Tensor, as_integers
from mu_ref.ops.fast.replay import Make, Script, Scripts, Sizes

__all__ = ["DeferredOps"]

MOST_OPERATIONS = 4096  # a longer program runs in parts
MOST_ROWS = 16  # tokens of a step that is worth replaying; with more, the kernels take the time


class DeferredOps(Ops):
    """An executor that defers operations; a subclass says which row stands for each.

    Args:
        dtype: of the numbers of a value.
        run: the machine, `run` of `float_program` or `integer_program`.
        weight_bytes: size of the model, for the number of threads.
    """

    compiled = True

    def __init__(self, dtype: type, run: Callable[..., Any], weight_bytes: int) -> None:
        self.pool = Pool(dtype)
        self.n_threads = n_threads(weight_bytes)
        self._run = run
        self._program, self._scalars = array("q"), array("d")  # rows, and a real number for each
        self._alive: list[np.ndarray] = []  # arrays that the program reads
        self._head_maps: dict[tuple[int, ...], tuple[np.ndarray, int]] = {}
        self._made: dict[tuple[int, str], tuple[Any, int]] = {}  # inputs of this program
        self._script: Script | None = None  # of the stretch that is being captured
        self._scripts = Scripts()
        self._n_flushes = 0
        self._slots: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
        load_kernels(run)  # now, and not with the first token

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
        if not self._scalars:
            return
        program = np.frombuffer(self._program, np.int64).reshape(-1, WIDTH)
        scalars = np.frombuffer(self._scalars, np.float64)
        run_on(self.n_threads, self._run, program, len(scalars), scalars)
        self._program, self._scalars = array("q"), array("d")
        self._alive.clear()
        self._made.clear()
        self._n_flushes += 1

    def _new(self, shape: tuple[int, ...], meaning: Any = None, room: int = 0) -> Tensor:
        """Take memory for a value; with room, for as many tokens (see `Tensor`)."""
        n = shape[0] * shape[1] * room * shape[3] if room else prod(shape)
        if self._script is not None:
            block = self._script.block(self._scripts.blocks, self.pool, shape, n)
            return Tensor(block, shape, meaning, room)
        return Tensor(self.pool.block(n), shape, meaning, room)

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

    # -- a step again ------------------------------------------------------------------------------

    def repeat(
        self,
        what: Hashable,
        grown: Sequence[Cached],
        read: Sequence[Tensor],
        inputs: Sequence[Any],
        compute: Callable[..., Any],
    ) -> Any:
        """Capture a stretch until its rows are known for any size, then replay it."""
        caches = [x for layer in grown for x in (layer.k, layer.v) if x is not None]
        n_slots = (inputs[0].shape[1] if grown else 0) + (caches[0].shape[2] if caches else 0)
        room = caches[0].room if caches else 0
        # A cache that must move to larger memory, or of which there is a newer version, would be
        # copied: other operations than those of the steps before.
        fits = all(x.block.used == x.shape[2] and n_slots <= x.room == room for x in caches)
        if inputs[0].size > MOST_ROWS or not fits or self._script is not None:
            return compute(*inputs)
        memory = read[0].shape[2] if read and read[0].room else 0  # keys of the encoder
        if any(x.room not in (0, memory) or (x.room and x.shape[2] != memory) for x in read):
            return compute(*inputs)
        kinds = tuple((x.shape[:2] if x.room else x.shape, id(x.meaning)) for x in read)
        script = self._scripts.of((what, self.n_threads, inputs[0].shape, room, kinds))
        if script.program == self._n_flushes:  # what waits to run reads its buffers
            self.flush()
        script.program = self._n_flushes
        sizes = n_slots, memory
        if script.ready(inputs, sizes):
            script.n_replayed += 1
            self._grow(grown, script, n_slots)
        else:
            result = self._capture(script, grown, read, inputs, sizes, compute)
            if script.broken:
                return result
        return self._replay(script, grown, read, sizes)

    def _capture(
        self,
        script: Script,
        grown: Sequence[Cached],
        read: Sequence[Tensor],
        inputs: Sequence[Any],
        sizes: Sizes,
        compute: Callable[..., Any],
    ) -> Any:
        """Let a stretch defer its operations, and move their rows from the program to the script.

        They come back with `_replay`, which gives the results memory of their own: the script's
        will be written to again.
        """
        at, first, before = len(self._program), len(self._scalars), script.sizes
        self._made.clear()  # inputs of the stretch lie in buffers of its own
        self._script = script
        try:
            script.begin(inputs, sizes)
            result = compute(*inputs)
        finally:
            self._script = None
            self._made.clear()
        if script.broken:
            self._alive += [buffer.memory for buffer in script.buffers]
            script.forget()
            self._scripts.blocks = []  # the result stays in one of them
            return result
        rows = np.array(self._program[at:], np.int64).reshape(-1, WIDTH)
        scalars = self._scalars[first:].tobytes()
        del self._program[at:], self._scalars[first:]
        script.results = result if isinstance(result, tuple) else (result,)
        kept = [x for layer in grown for x in (layer.k, layer.v)]
        script.kept = tuple((x.shape, x.room, x.meaning) for x in kept)
        script.read = tuple(x.meaning for x in read)
        bound = (*kept, *read, *script.results)
        script.end(rows, scalars, before, [x.block.address for x in bound])
        self._scripts.cut()
        return result

    def _grow(self, grown: Sequence[Cached], script: Script, n_slots: int) -> None:
        """Note in a cache what a replay will add to it."""
        like = iter(script.kept)
        for layer in grown:
            for name in ("k", "v"):
                x, ((batch, heads, _, d_head), room, meaning) = getattr(layer, name), next(like)
                block = self.pool.block(batch * heads * room * d_head) if x is None else x.block
                block.used, shape = n_slots, (batch, heads, n_slots, d_head)
                setattr(layer, name, Tensor(block, shape, meaning, room))

    def _replay(
        self, script: Script, grown: Sequence[Cached], read: Sequence[Tensor], sizes: Sizes
    ) -> Any:
        """Add a script's rows to the program, for these caches and for results of their own."""
        results = tuple(
            Tensor(self.pool.block(prod(x.shape)), x.shape, x.meaning, x.room)
            for x in script.results
        )
        caches = [x for layer in grown for x in (layer.k, layer.v)]
        rows = script.at(sizes, [x.block.address for x in (*caches, *read, *results)])
        if len(self._scalars) + len(rows) > MOST_OPERATIONS:
            self.flush()
            script.program = self._n_flushes
        self._alive += [buffer.memory for buffer in script.buffers]
        self._program.frombytes(rows.tobytes())
        self._scalars.frombytes(script.scalars)
        return results if len(results) > 1 else results[0]

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
