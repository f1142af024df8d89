"""Compiled code that finds one token after another, and tells Python of them meanwhile."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mu_ref.kernels.machine import NOBODY
from mu_ref.kernels.threads import load_kernel, new_counter, start_on

__all__ = ["CAN_TELL", "Found", "Told"]

CAN_TELL = os.name == "posix"  # compiled code calls write, as POSIX has it


class Found:
    """A kernel that has found all its tokens before Python sees the first of them.

    For models that write a dozen tokens in a few milliseconds: waking a thread takes as long.

    Args:
        run: a kernel, as `run_greedy` of the machines.
        most: tokens that it may find.
        args: its first arguments.
    """

    def __init__(self, run: Callable[..., Any], most: int, *args: Any) -> None:
        self.chosen = np.full(most, -1, np.int64)
        self._start(run, *args)

    def _start(self, run: Callable[..., Any], *args: Any) -> None:
        run(*args, self.chosen, np.array([1, 1, 0, 0], np.int64), NOBODY, 0, 0, 1)

    def tokens(self) -> Iterator[int]:
        """Yield each token as soon as it is found."""
        for token in self.chosen.tolist():
            if token < 0:
                return
            yield token

    def wait(self) -> None:
        """Return when it has found all that it will."""

    def end(self) -> int:
        """Stop it behind the token that it is at; return how many it found."""
        return int((self.chosen >= 0).sum())


class Told(Found):
    """A kernel that finds token after token beside Python, and tells of them through a pipe.

    The first is told of at once, others may come a few at a time (`machine.tell`).

    Args:
        threads: how many; the caller's is none of them.
        args: see `Found`; the kernel runs without the interpreter lock.
    """

    def __init__(self, threads: int, run: Callable[..., Any], most: int, *args: Any) -> None:
        self._threads = threads
        super().__init__(run, most, *args)

    def _start(self, run: Callable[..., Any], *args: Any) -> None:
        # here, and not on the worker, whose memory would not be given back
        load_kernel(run)
        self._read, write = os.pipe()
        self._write = write
        # as the caller wishes, as the threads agree, when they told last, and of how many not yet
        self._go_on = np.array([1, 1, 0, 0], np.int64)
        self._counter = new_counter(self._threads)
        self._args = args  # its arrays stay where they are
        told = (self.chosen, self._go_on, write, self._counter.ctypes.data)

        def ends(*args: Any) -> None:
            try:
                run(*args)
            finally:
                os.write(write, b"\0")  # behind the last token, and if something went wrong

        self._started = start_on([0], self._threads, ends, *args, *told)
        self._started += start_on(range(1, self._threads), self._threads, run, *args, *told)

    def tokens(self) -> Iterator[int]:
        """Yield each token that is found, as soon as it is told of."""
        known = 0
        while known < len(self.chosen) and (n := os.read(self._read, 1)[0]):  # 0 behind the last
            yield from self.chosen[known : known + n].tolist()
            known += n

    def wait(self) -> None:
        """Return when it has found all that it will."""
        for future in self._started:
            future.result()

    def end(self) -> int:
        """Stop it behind the token that it is at; return how many it found."""
        self._go_on[0] = 0
        self.wait()
        os.close(self._read)
        os.close(self._write)
        return super().end()
