"""The same stretch again: rows that were captured before are replayed, without asking the model.

The rows of one stretch, captured twice, differ only in where its values come from and go to (the
cache, the encoder's keys, the result), whose places are known, and in two sizes, in which the rest
is linear: the keys in the cache, and those of the encoder. So the rows for any other cache and
input are known. What the stretch reads of the model (tokens, masks, rotation) lies in buffers of
its own, which are filled anew. Whenever something does not fit, the stretch is captured again; the
answer is the same. Who captures and replays: `repeats.py`.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mu_ref.border.memory import aligned
from mu_ref.ops.fast.memory import Form, Pool

__all__ = ["Buffer", "Make", "Script", "Scripts", "Sizes"]

Make = Callable[[Any], np.ndarray]
LEAST_ADDRESS = 2**32  # no array of a 64-bit process lies below it, and no size reaches it
SPARE = 4  # times what a block or buffer that grows with a size needs when it is made
MOST_SCRIPTS = 256
Sizes = tuple[int, int]  # keys in the cache after the stretch, and keys of the encoder


@dataclass(slots=True)
class Buffer:
    """Memory for one input of a stretch, and how it is made of what the model passed."""

    source: int  # place among the inputs
    make: Make
    memory: np.ndarray  # bytes
    given: Any = None  # what was passed last, if nobody writes to it
    made: np.ndarray | None = None  # of it
    address: int = field(init=False)  # of the memory

    def __post_init__(self) -> None:
        """Ask once: NumPy takes microseconds to say it."""
        self.address = self.memory.ctypes.data

    def fill(self, given: Any, *, keeps: bool = False) -> bool:
        """Make it anew; False if there is no room. With `keeps`, nobody else writes to the memory.

        What cannot be written to, and comes again, is not made again.
        """
        known = self.made is not None and given is self.given
        if known and keeps:
            return True
        array = self.made if known and self.made is not None else self.make(given)
        if array.nbytes > self.memory.size:
            return False
        self.memory[: array.nbytes] = array.reshape(-1).view(np.uint8)
        constant = not given.flags.writeable if isinstance(given, np.ndarray) else True
        self.given, self.made = (given, array) if constant else (None, None)
        return True


@dataclass(slots=True)
class Script:
    """What is known of a stretch of operations on values of certain sizes."""

    blocks: list[Any] = field(default_factory=list)  # memory of its values, in order of use
    buffers: list[Buffer] = field(default_factory=list)  # in order of use
    inputs: Sequence[Any] = ()  # of the last capture
    rows: np.ndarray | None = None  # of the program, as last captured or replayed
    slopes: list[np.ndarray | None] = field(default_factory=lambda: [None, None])  # of each size
    scalars: bytes = b""
    sizes: Sizes = (0, 0)  # that the rows are for
    most: list[int] = field(default_factory=list)  # for which the blocks have room
    where: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # addresses in rows
    which: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # of which value
    results: tuple[Form, ...] = ()  # of what it returned
    kept: tuple[Form, ...] = ()  # of keys and values of a cache after it
    pool: Pool | None = None  # gives memory of a stretch whose sizes never change, again and again
    read: tuple[Any, ...] = ()  # what else it read; kept so that no other gets their names
    n_replayed: int = 0  # times that needed no capture
    n_blocks: int = 0  # used in this capture
    n_buffers: int = 0
    broken: bool = False  # something happened that a replay would not repeat
    program: int = -1  # number of the program that its rows joined last

    @property
    def token(self) -> int:
        """Address of the buffer with the first input, the tokens; 0 if nothing reads them."""
        return next((buffer.address for buffer in self.buffers if buffer.source == 0), 0)

    def begin(self, inputs: Sequence[Any], sizes: Sizes) -> None:
        """Start a capture."""
        self.inputs, self.sizes = inputs, sizes
        self.n_blocks = self.n_buffers = 0
        self.most, self.broken = [2**62, 2**62], False

    def block(self, shared: list[Any], pool: Any, shape: tuple[int, ...], n: int) -> Any:
        """Return the next value's block, that of the last capture if it is large enough.

        With a pool of its own, a stretch uses memory again as soon as no value needs it; the same
        operations on the same sizes find the same.

        Scripts run one after the other and leave nothing behind in their values, so the n-th value
        of all of them lies in one place, `shared`.
        """
        if self.pool is not None:
            return self.pool.block(n)
        i = self.n_blocks
        self.n_blocks += 1
        scores = len(shape) == 4  # one number for each key
        # A width that equals a size by chance asks for more memory than it needs, and that is all.
        grows = [i for i, size in enumerate(self.sizes) if scores and shape[-1] == size]
        if i == len(self.blocks) or len(self.blocks[i].memory) < n:
            least = SPARE * n if grows else n
            if i >= len(shared) or len(shared[i].memory) < least:
                shared[i : i + 1] = [pool.block(least)]
            self.blocks[i : i + 1] = [shared[i]]
        for which in grows:
            room = len(self.blocks[i].memory) * self.sizes[which] // n
            self.most[which] = min(self.most[which], room)
        return self.blocks[i]

    def buffer(self, source: Any, make: Make) -> int | None:
        """Return the address of an input, or None if it is none of the stretch's."""
        places = [i for i, given in enumerate(self.inputs) if given is source]
        if not places:
            self.broken = True
            return None
        i = self.n_buffers
        self.n_buffers += 1
        made = make(source)
        if i == len(self.buffers) or self.buffers[i].memory.size < made.nbytes:
            room = max(made.nbytes * (SPARE if self.pool is None else 1), 64)
            new = Buffer(places[0], make, aligned((room,), np.uint8))
            self.buffers[i : i + 1] = [new]
        buffer = self.buffers[i]
        buffer.source, buffer.make, buffer.made = places[0], make, None  # made in another way
        buffer.fill(source)
        return buffer.address

    def end(self, rows: np.ndarray, scalars: bytes, before: Sizes, bound: Sequence[int]) -> None:
        """Compare the captured rows with those before them, which were for other sizes.

        `bound` are the addresses of values that will lie elsewhere next time.
        """
        places = [np.flatnonzero(rows == address) for address in bound]
        where = np.concatenate([np.zeros(0, np.int64), *places])
        earlier = self.rows
        same = scalars == self.scalars and np.array_equal(where, self.where)
        if earlier is None or not same or earlier.shape != rows.shape:
            self.slopes = [None, None]
        else:
            earlier.flat[where] = rows.flat[where]  # these places say nothing about sizes
            growth = [a - b for a, b in zip(self.sizes, before, strict=True)]
            self._find_slope(rows - earlier, rows, growth)
        self.rows, self.scalars, self.where = rows, scalars, where
        self.which = np.repeat(np.arange(len(places)), [len(found) for found in places])

    def _find_slope(self, difference: np.ndarray, rows: np.ndarray, growth: Sequence[int]) -> None:
        """Find the slope of the size that has grown, if only one is not known yet."""
        unknown = [i for i in (0, 1) if growth[i] and self.slopes[i] is None]
        for i, slope in enumerate(self.slopes):
            if growth[i] and slope is not None:
                difference = difference - slope * growth[i]
        # An address that differs belongs to a value that lies elsewhere, not to a size.
        only_sizes = ((difference == 0) | (rows < LEAST_ADDRESS)).all()
        if not only_sizes or len(unknown) != 1 or (difference % growth[unknown[0]]).any():
            if not only_sizes or (not unknown and difference.any()):
                self.slopes = [None, None]  # the blocks have moved, or it was not linear
            return
        self.slopes[unknown[0]] = difference // growth[unknown[0]]

    def ready(self, inputs: Sequence[Any], sizes: Sizes) -> bool:
        """Say whether it can be replayed; if so its inputs are in place."""
        if len(inputs) != len(self.inputs) or not self.knows(sizes):
            return False
        keeps = self.pool is not None  # steps that compiled code goes ahead with write to theirs
        return all(buffer.fill(inputs[buffer.source], keeps=keeps) for buffer in self.buffers)

    def knows(self, sizes: Sizes) -> bool:
        """Say whether its rows are known for sizes."""
        if self.rows is None:
            return False
        for size, last, slope, most in zip(sizes, self.sizes, self.slopes, self.most, strict=True):
            if size > most or (size != last and slope is None):
                return False
        return True

    def at(self, sizes: Sizes, bound: Sequence[int]) -> np.ndarray:
        """Return the program for other sizes, and values at these addresses."""
        assert self.rows is not None
        for size, last, slope in zip(sizes, self.sizes, self.slopes, strict=True):
            if size != last:
                assert slope is not None
                self.rows += slope * (size - last)
        self.sizes = sizes
        self.rows.flat[self.where] = np.array(bound, np.int64)[self.which]
        return self.rows


@dataclass(slots=True)
class Scripts:
    """The scripts of an executor; those not used for longest are given up.

    Args:
        most: how many are kept.
        pool: of stretches whose sizes never change; see `Script`.
    """

    most: int = MOST_SCRIPTS
    pool: Pool | None = None
    known: dict[Hashable, Script] = field(default_factory=dict)
    blocks: list[Any] = field(default_factory=list)  # that they share

    def of(self, key: Hashable) -> Script:
        """Return the script of a key, new if there is none."""
        script = self.known.pop(key, None) or Script(pool=self.pool)
        self.known[key] = script
        return script

    def forget(self) -> None:
        """Give up all: their values stay where they are, and may be read."""
        self.known, self.blocks = {}, []

    def cut(self) -> None:
        """Give up the oldest."""
        while len(self.known) > self.most:
            del self.known[next(iter(self.known))]
