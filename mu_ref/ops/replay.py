"""The same step again: a program that was recorded twice runs on without asking the model.

Two recordings of one step differ only where the cache has grown: the number of keys, and the place
of the new ones. Both are linear in it, so the program for any other number of keys is known. What
the step reads from outside (tokens, masks, rotation) lies in buffers of its own, which are filled
anew. Whenever something does not fit (room, sizes, another cache), the step is recorded again; the
answer is the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mu_ref.memory import aligned

__all__ = ["Buffer", "Script"]

Make = Callable[[Any], np.ndarray]
LEAST_ADDRESS = 2**32  # no array of a 64-bit process lies below it, and no size reaches it
SPARE = 4  # times what a block or buffer that grows with the cache needs when it is made


@dataclass(slots=True)
class Buffer:
    """Memory for one input of a step, and how it is made of what the model passed."""

    source: int  # place among the inputs of the step
    make: Make
    memory: np.ndarray  # bytes

    def fill(self, given: Any) -> bool:
        """Make it anew; False if there is no room."""
        array = self.make(given)
        if array.nbytes > self.memory.size:
            return False
        self.memory[: array.nbytes] = array.reshape(-1).view(np.uint8)
        return True


@dataclass(slots=True)
class Script:
    """What is known of steps of one number of tokens, with one cache."""

    blocks: list[Any] = field(default_factory=list)  # memory of its values, in order of use
    buffers: list[Buffer] = field(default_factory=list)  # in order of use
    inputs: Sequence[Any] = ()  # of the step that is being recorded
    rows: np.ndarray | None = None  # the last program
    slope: np.ndarray | None = None  # what one key more adds to it
    scalars: bytes = b""
    n_slots: int = 0  # keys in the cache after the last step
    most_slots: int = 0  # for which the blocks have room
    kept: tuple[Any, ...] = ()  # blocks of the cache
    result: Any = None  # the value that the step returned
    n_replayed: int = 0  # steps that needed no recording
    n_blocks: int = 0  # used in this recording
    n_buffers: int = 0
    broken: bool = False  # something happened that a replay would not repeat
    program: int = -1  # number of the program that the last step is part of

    def begin(self, inputs: Sequence[Any], n_slots: int) -> None:
        """Start a recording; the cache will have n_slots keys after it."""
        self.inputs, self.n_slots = inputs, n_slots
        self.n_blocks = self.n_buffers = 0
        self.most_slots, self.broken = 2**62, False

    def block(self, pool: Any, shape: tuple[int, ...], n: int) -> Any:
        """Return the next value's block, that of the last recording if it is large enough."""
        i = self.n_blocks
        self.n_blocks += 1
        grows = len(shape) == 4 and shape[-1] == self.n_slots  # scores: one number for each key
        if i == len(self.blocks) or len(self.blocks[i].memory) < n:
            self.blocks[i : i + 1] = [pool.block(SPARE * n if grows else n)]
        if grows:
            self.most_slots = min(self.most_slots, len(self.blocks[i].memory) * self.n_slots // n)
        return self.blocks[i]

    def buffer(self, source: Any, make: Make) -> int | None:
        """Return the address of an input, or None if it is none of the step's."""
        places = [i for i, given in enumerate(self.inputs) if given is source]
        if not places:
            self.broken = True
            return None
        i = self.n_buffers
        self.n_buffers += 1
        made = make(source)
        if i == len(self.buffers) or self.buffers[i].memory.size < made.nbytes:
            new = Buffer(places[0], make, aligned((max(SPARE * made.nbytes, 64),), np.uint8))
            self.buffers[i : i + 1] = [new]
        self.buffers[i].source, self.buffers[i].make = places[0], make
        self.buffers[i].fill(source)
        return self.buffers[i].memory.ctypes.data

    def end(self, rows: np.ndarray, scalars: bytes, before: int, result: Any, kept: Any) -> None:
        """Compare a recording with the one before it, which had `before` keys."""
        earlier, growth, self.slope = self.rows, self.n_slots - before, None
        same = scalars == self.scalars and len(kept) == len(self.kept) and not self.broken
        if earlier is not None and same and earlier.shape == rows.shape and growth:
            difference = rows - earlier
            only_sizes = ((difference == 0) | (rows < LEAST_ADDRESS)).all()
            if only_sizes and not (difference % growth).any():
                self.slope = difference // growth
        self.rows, self.scalars, self.result, self.kept = rows.copy(), scalars, result, kept
        if self.broken:  # the result stays where it is, so nothing may be used again
            self.blocks, self.buffers, self.rows = [], [], None

    def memory(self) -> list[np.ndarray]:
        """Return what the program of a step reads."""
        return [buffer.memory for buffer in self.buffers]

    def ready(self, inputs: Sequence[Any], n_slots: int, kept: Sequence[Any]) -> bool:
        """Say whether the next step can be replayed; if so its inputs are in place."""
        if self.slope is None or n_slots > self.most_slots or len(inputs) != len(self.inputs):
            return False
        filled = {buffer.source for buffer in self.buffers}
        others = [i for i in range(len(inputs)) if i not in filled]  # such as the memory
        now, then = [*kept], [*self.kept]
        now, then = now + [inputs[i] for i in others], then + [self.inputs[i] for i in others]
        if len(now) != len(then) or any(a is not b for a, b in zip(now, then, strict=True)):
            return False
        return all(buffer.fill(inputs[buffer.source]) for buffer in self.buffers)

    def at(self, n_slots: int) -> np.ndarray:
        """Return the program for a cache that has n_slots keys after the step."""
        assert self.rows is not None
        assert self.slope is not None
        self.rows += self.slope * (n_slots - self.n_slots)
        self.n_slots = n_slots
        self.n_replayed += 1
        return self.rows
