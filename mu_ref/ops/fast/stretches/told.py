"""Compiled code that finds one token after another, and tells of each as soon as it is there."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mu_ref.kernels.threads import start_on

__all__ = ["CAN_TELL", "Told"]

CAN_TELL = os.name == "posix"  # compiled code calls write, as POSIX has it


class Told:
    """A kernel that finds token after token beside Python, and tells of each through a pipe.

    Args:
        threads: how many; the caller's is none of them.
        run: a kernel without the interpreter lock, as `run_greedy` of the machines.
        most: tokens that it may find.
        args: its first arguments.
    """

    def __init__(self, threads: int, run: Callable[..., Any], most: int, *args: Any) -> None:
        self._read, write = os.pipe()
        self._write = write
        self.chosen = np.full(most, -1, np.int64)
        self._go_on = np.ones(2, np.int64)  # as the caller wishes, and as the threads agree
        self._counter = np.zeros(1, np.int64)
        self._args = args  # its arrays stay where they are
        told = (self.chosen, self._go_on, write, self._counter.ctypes.data)

        def ends(*args: Any) -> None:
            try:
                run(*args)
            finally:
                os.write(write, b"\0")  # behind the last token, and if something went wrong

        self._started = start_on([0], threads, ends, *args, *told)
        self._started += start_on(range(1, threads), threads, run, *args, *told)

    def tokens(self) -> Iterator[int]:
        """Yield each token as soon as it is found."""
        for i in range(len(self.chosen)):
            if not os.read(self._read, 1)[0]:  # 0 behind the last
                return
            yield int(self.chosen[i])

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
        return int((self.chosen >= 0).sum())
