"""A program on several threads: a few workers that live as long as the process."""

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.memory import LINE, aligned
from mu_ref.compiled import load_kept
from mu_ref.errors import InputError

__all__ = ["SMALL", "load_kernel", "n_threads", "new_counter", "release_code", "run_on", "start_on"]

SMALL = 32 * 2**20  # bytes of weights that one core reads from its caches in a millisecond or two
MOST = 256  # threads; each waits for all others after every operation
DONTNEED = 4  # the advice of madvise that a page may be dropped


def n_threads(weight_bytes: int) -> int:
    """Threads of a fast executor: MU_REF_THREADS, or every core this process may use.

    Without the setting a small model gets one: threads meet after every operation, and where these
    take microseconds, meeting costs more than it saves, much more when the machine is busy.

    Args:
        weight_bytes: size of the model.

    Returns:
        How many.

    Raises:
        InputError: MU_REF_THREADS is not such a number.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    text = os.environ.get("MU_REF_THREADS", str(cores if weight_bytes >= SMALL else 1))
    if not (text.isdecimal() and len(text) <= len(str(MOST)) and 0 < int(text) <= MOST):
        raise InputError(
            f"MU_REF_THREADS must be a whole number from 1 to {MOST}, got {text!r:.40}"
        )
    return int(text)


@cache
def load_kernel(kernel: Callable[..., Any]) -> None:
    """Load a compiled kernel that Python calls, and give back the memory of what loaded it.

    Args:
        kernel: a machine's `run`, or its loops of many steps.
    """
    load_kept(kernel)
    release_code()


@cache
def _workers(n: int) -> ThreadPoolExecutor:
    # Threads of Python's own: kernels give up the interpreter lock, and a new thread for every
    # program would take longer than many a program does.
    return ThreadPoolExecutor(n, thread_name_prefix="mu-ref")


def run_on(threads: int, run: Callable[..., Any], *args: Any) -> None:
    """Call run(*args, counter, thread, threads) on every thread and wait for all.

    Args:
        threads: how many; the caller's is one of them.
        run: a kernel without the interpreter lock.
        args: its first arguments.
    """
    if threads == 1:
        run(*args, 0, 0, 1)  # alone it meets nobody, and counts nothing
        return
    counter = new_counter(threads)
    address = counter.ctypes.data
    started = start_on(range(1, threads), threads, run, *args, address)
    _go_apart(_cores(), 0, threads)
    run(*args, address, 0, threads)
    for future in started:
        future.result()


def new_counter(threads: int) -> np.ndarray:
    """Return memory in which threads count meetings, and a line for what each took of its work."""
    return aligned((1 + threads, LINE // 8), np.int64)


def start_on(
    which: Iterable[int], threads: int, run: Callable[..., Any], *args: Any
) -> list[Future[None]]:
    """Call run(*args, thread, threads) on workers, beside the caller.

    Args:
        which: the threads that are workers.
        threads: how many there are in all.
        run: a kernel without the interpreter lock.
        args: its first arguments, the counter last.

    Returns:
        What to wait for.
    """
    cores = _cores()

    def begin(thread: int) -> None:
        _go_apart(cores, thread, threads)
        run(*args, thread, threads)

    return [_workers(threads).submit(begin, thread) for thread in which]


def _cores() -> list[int]:
    """The cores that the caller may use, if the system lets a thread choose."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []


def _go_apart(cores: list[int], thread: int, threads: int) -> None:
    """Move to a core that none of the other threads moves to.

    A thread that was just woken may lie on the core of the one that woke it, and stays there for
    milliseconds beside a core without work. Afterwards each may go where the system wants it.
    """
    mine = cores[thread::threads] if threads <= len(cores) else []
    for some in (mine, cores) if mine else ():
        with suppress(OSError):  # a core that was taken from this process meanwhile
            os.sched_setaffinity(0, some)


def release_code() -> None:
    """Give the pages of libraries back to the system, which reads a page again when it is used.

    Loading compiled kernels goes once through most of LLVM, 70 MB that would stay resident beside
    the weights. Only pages that equal their file are given back: those of mappings that cannot be
    written and of which this process has no copy. Other systems than Linux keep them.
    """
    maps = Path("/proc/self/smaps")
    if not sys.platform.startswith("linux") or not maps.is_file():
        return
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    text = maps.read_text(encoding="utf-8")
    mapping = r"^(\w+)-(\w+) r-.p [^\n]*\.so[\d.]*\n(.*?)^VmFlags"
    for start, end, fields in re.findall(mapping, text, re.MULTILINE | re.DOTALL):
        if not re.search(r"^(?:Anonymous|Swap): +[1-9]", fields, re.MULTILINE):
            libc.madvise(int(start, 16), int(end, 16) - int(start, 16), DONTNEED)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
