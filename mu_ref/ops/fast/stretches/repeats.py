"""Stretches of operations that come again: captured, replayed, and run ahead of the model.

A step of decoding is the same stretch for every token, so its rows are replayed (`replay.py`), and
Python's work for a token does not grow with the layers; so it is with inputs of one length. While
the likeliest token follows whatever comes, even that much is not needed: `greedy` gives compiled
code several steps at once, which puts each token that it finds into the next step itself.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from mu_ref.kernels.machine import WIDTH
from mu_ref.kernels.threads import SMALL
from mu_ref.ops import Cached
from mu_ref.ops.fast.deferred import MOST_OPERATIONS, DeferredOps
from mu_ref.ops.fast.memory import Form, Pool, Tensor
from mu_ref.ops.fast.stretches.replay import Script, Scripts, Sizes
from mu_ref.ops.fast.stretches.told import CAN_TELL, Found, Told

__all__ = ["RepeatingOps", "changes_of", "form_of"]

MOST_ROWS = 16  # tokens of a step that is worth replaying; with more, the kernels take the time
MOST_INPUTS = 32  # batches and lengths of inputs that are known at a time


class RepeatingOps(DeferredOps):
    """Knows stretches that it has done before.

    Args:
        dtype: of the numbers of a value.
        run: the machine, `run` of `float_program` or `integer_program`.
        run_greedy: the same again and again, each time with the token found the time before.
        scratch_bytes: how many a thread needs for a product of so many features.
        weight_bytes: size of the model, for the number of threads.
    """

    def __init__(
        self,
        dtype: type,
        run: Callable[..., Any],
        run_greedy: Callable[..., Any],
        scratch_bytes: Callable[[int], int],
        weight_bytes: int,
    ) -> None:
        super().__init__(dtype, run, scratch_bytes, weight_bytes)
        self._run_greedy, self._small = run_greedy, weight_bytes < SMALL
        # Stretches that read no value and grow no cache, as encoders: all sizes are known from the
        # inputs, but values are large, so memory is used again within one.
        self._encoders = Scripts(MOST_INPUTS, Pool(dtype))

    def repeat(
        self,
        what: Hashable,
        grown: Sequence[Cached],
        read: Sequence[Tensor],
        inputs: Sequence[Any],
        compute: Callable[..., Any],
    ) -> Any:
        """Capture a stretch until its rows are known for any size, then replay it."""
        self._finish()
        found = self._script_of(what, grown, read, inputs)
        if found is None:
            return compute(*inputs)
        script, sizes = found
        if script.program == self._n_flushes:  # what waits to run reads its buffers
            self.flush()
        script.program = self._n_flushes
        if script.ready(inputs, sizes):
            script.n_replayed += 1
            self._grow(grown, script, sizes[0])
        else:
            result = self._capture(script, grown, read, inputs, sizes, compute)
            if script.broken:
                return result
        return self._replay(script, grown, read, sizes)

    def _script_of(
        self,
        what: Hashable,
        grown: Sequence[Cached],
        read: Sequence[Tensor],
        inputs: Sequence[Any],
    ) -> tuple[Script, Sizes] | None:
        """Find what is known of a stretch, and its sizes; None if it cannot be replayed."""
        caches = [x for layer in grown for x in (layer.k, layer.v) if x is not None]
        n_slots = (inputs[0].shape[1] if grown else 0) + (caches[0].shape[2] if caches else 0)
        room = caches[0].room if caches else 0
        if not grown and not read:
            shapes = tuple(getattr(x, "shape", ()) for x in inputs)
            known = self._encoders.of((what, self.n_threads, shapes))
            return None if self._script is not None else (known, (0, 0))
        # A cache that must move to larger memory, or of which there is a newer version, would be
        # copied: other operations than those of the steps before.
        fits = all(x.block.used == x.shape[2] and n_slots <= x.room == room for x in caches)
        if inputs[0].size > MOST_ROWS or not fits or self._script is not None:
            return None
        memory = read[0].shape[2] if read and read[0].room else 0  # keys of the encoder
        if any(x.room not in (0, memory) or (x.room and x.shape[2] != memory) for x in read):
            return None
        kinds = tuple((x.shape[:2] if x.room else x.shape, id(x.meaning)) for x in read)
        key = (what, self.n_threads, inputs[0].shape, room, kinds)
        return self._scripts.of(key), (n_slots, memory)

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
            for scripts in (self._scripts, self._encoders):
                scripts.forget()  # the result stays in memory that another would write to
            return result
        rows = np.array(self._program[at:], np.int64).reshape(-1, WIDTH)
        scalars = self._scalars[first:].tobytes()
        del self._program[at:], self._scalars[first:]
        results = result if isinstance(result, tuple) else (result,)
        kept = [x for layer in grown for x in (layer.k, layer.v)]
        script.results, script.kept = (tuple(map(form_of, v)) for v in (results, kept))
        script.read = tuple(x.meaning for x in read)
        bound = (*kept, *read, *results)
        script.end(rows, scalars, before, [x.block.address for x in bound])
        self._scripts.cut()
        self._encoders.cut()
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
        results = self._results(script)
        caches = [x for layer in grown for x in (layer.k, layer.v)]
        rows = script.at(sizes, [x.block.address for x in (*caches, *read, *results)])
        if len(self._scalars) + len(rows) > MOST_OPERATIONS:
            self.flush()
            script.program = self._n_flushes
        self._alive += [buffer.memory for buffer in script.buffers]
        self._program.frombytes(rows.tobytes())
        self._scalars.frombytes(script.scalars)
        return results if len(results) > 1 else results[0]

    def _results(self, script: Script) -> tuple[Tensor, ...]:
        """Make memory for what a script returns."""
        return tuple(self._like(x) for x in script.results)

    def _like(self, x: Tensor | Form) -> Tensor:
        return Tensor(self.pool.block(prod(x.shape)), x.shape, x.meaning, x.room)

    # -- several steps at once ---------------------------------------------------------------------

    def greedy(
        self,
        what: Hashable,
        grown: Sequence[Cached],
        read: Sequence[Tensor],
        steps: Sequence[Sequence[Any]],
        stops: Collection[int],
        fed: Mapping[int, int] = MappingProxyType({}),
    ) -> Iterator[tuple[int, Tensor]]:
        """Run a stretch that is known by now for all steps in one call into compiled code."""
        self._finish()
        found = self._script_of(what, grown, read, steps[0])
        caches = [x for layer in grown for x in (layer.k, layer.v)]
        if found is None or None in caches or not CAN_TELL:
            return
        script, (n_slots, memory) = found
        if caches:
            room = min([*script.most[:1], *(x.room for x in caches)])
            steps = steps[: max(0, room - n_slots + 1)]
        # first the last step: if the script is ready for it, it is for all
        most = n_slots + len(steps) - 1 if caches else n_slots
        if not steps or not script.ready(steps[-1], (most, memory)):
            return
        if any(form_of(read[to]) != script.results[i] for to, i in fed.items()):
            return
        self.flush()
        script.ready(steps[0], (n_slots, memory))
        made = [self._results(script) for _ in steps]
        # values that the rows are bound to, step by step
        bound = [[*caches, *read, *results] for results in made]
        for before, values in pairwise(bound):
            for to, i in fed.items():
                values[len(caches) + to] = before[len(caches) + len(read) + i]
        addresses = np.array([[x.block.address for x in values] for values in bound], np.int64)
        rows = script.at((n_slots, memory), addresses[0].tolist()).copy()
        call = self._begin(
            self._run_greedy, len(steps), rows, len(rows),
            np.frombuffer(script.scalars, np.float64), *_planned(script, steps, addresses),
            script.results[-1].shape[-1], np.array(sorted(stops), np.int64),
        )  # fmt: skip
        self._running = call
        try:
            yield from zip(call.tokens(), [results[-1] for results in made], strict=False)
        finally:
            n = call.end()
            if self._running is call:
                self._running = None
            script.n_replayed += n
            self._grow(grown, script, n_slots + n - 1)

    def _begin(self, run: Callable[..., Any], most: int, *args: Any) -> Found:
        """Start a kernel that finds up to `most` tokens."""
        if self._small and self.n_threads == 1:
            return Found(run, most, *args)
        return Told(self.n_threads, run, most, *args)


class _Plan(NamedTuple):
    """What changes from one step to the next, as `machine.renew` takes it."""

    places: np.ndarray  # [n] int64, in the flat rows of the program
    growth: np.ndarray  # [n] int64, what is added there at every step
    bound: np.ndarray  # [m] int64, where addresses of values stand that lie elsewhere each time
    addresses: np.ndarray  # [n_steps, m] int64
    results: np.ndarray  # [n_steps] int64, addresses of the scores
    buffers: np.ndarray  # [n_buffers, 2] int64, address and bytes of what is filled anew
    fills: np.ndarray  # [n_steps, bytes of all buffers together] uint8
    token: int  # address of the buffer with the token


def form_of(x: Tensor | Form) -> Form:
    """Return what a value is but for its memory; with equal ones, one may stand for the other."""
    return Form(x.shape, x.room, x.meaning)


def _planned(script: Script, steps: Sequence[Sequence[Any]], addresses: np.ndarray) -> _Plan:
    """Say what changes in a script from step to step; addresses: [n_steps, values bound]."""
    assert script.rows is not None
    moving = (addresses != addresses[0]).any(axis=0)[script.which]
    places, growth, buffers, fills = changes_of(script, steps)
    return _Plan(
        places=places,
        growth=growth,
        bound=script.where[moving],
        addresses=np.ascontiguousarray(addresses[:, script.which[moving]]),  # one type of array
        results=addresses[:, -1].copy(),
        buffers=buffers,
        fills=fills,
        token=script.token,
    )


def changes_of(
    script: Script, steps: Sequence[Sequence[Any]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Say what of a script changes with the keys in the cache, given inputs for each step.

    Returns:
        `places`, `growth`, `buffers` and `fills` as in `machine.renew`.
    """
    slope = script.slopes[0]
    grows = np.zeros(0, np.int64) if slope is None else np.flatnonzero(slope)
    growth = np.zeros(0, np.int64) if slope is None else slope.ravel()[grows]
    renewed = [
        buffer for buffer in script.buffers if buffer.source
        and any(step[buffer.source] is not steps[0][buffer.source] for step in steps)
    ]  # fmt: skip
    made = [[buffer.make(step[buffer.source]) for buffer in renewed] for step in steps]
    # of the last step, which has the largest: what is too much behind a buffer is never read
    sizes = [array.nbytes for array in made[-1]]
    fills = np.zeros((len(steps), sum(sizes)), np.uint8)
    for row, arrays in zip(fills, made, strict=True):
        at = 0
        for array, size in zip(arrays, sizes, strict=True):
            row[at : at + array.nbytes] = array.reshape(-1).view(np.uint8)
            at += size
    buffers = [(b.address, size) for b, size in zip(renewed, sizes, strict=True)]
    return grows, growth, np.array(buffers, np.int64).reshape(-1, 2), fills
