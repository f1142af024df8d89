"""Runs a sweep: points in chunks on any executor, results in order, and resumable.

Each finished chunk is a small file beside the result (`resume/parts.py`), so a sweep that is killed
goes on where it stopped and ends with the same bytes. The result is a CSV with units in its column
names, and a JSON sidecar with the specification and the versions. Chapter: `docs/whatif.md`.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

from mu_ref.border.files import written_whole
from mu_ref.border.ranges import Range
from mu_ref.border.text import csv_cell, csv_line
from npu_sim.errors import SweepError
from npu_sim.whatif.metrics import METRICS
from npu_sim.whatif.resume.outputs import check_sweep_outputs, write_sidecar
from npu_sim.whatif.resume.parts import input_digests, opened_parts, sweep_identity
from npu_sim.whatif.sweep_points import evaluate_points
from npu_sim.whatif.varied.sweep_toml import SweepSpec, spec_from

__all__ = ["CHUNK", "dask_executor", "evaluate_chunk", "local_executor", "run_sweep", "sweep"]

# Points per task, and tasks: few enough that recordings are shared, many enough that a killed sweep
# loses little.
LEAST_CHUNK, MOST_CHUNK, N_CHUNKS = 500, 20_000, 20
NONE = [""] * len(METRICS)
CHUNK = Range(low=1, high=10_000_000, why="no sweep has more points")
Progress = Callable[[int, int], None]  # points done, points in all


def sweep(text: str) -> list[dict[str, Any]]:
    """Simulate every point of a small sweep in this process; `run_sweep` writes large ones.

        >>> import npu_sim
        >>> rows = npu_sim.sweep("model = 'mu-nano'\\nvary.weight_bits = [4, 8]")
        >>> [row["precision.weight_bits"] for row in rows]
        [4, 8]
        >>> rows[0]["dram_bytes"] < rows[1]["dram_bytes"]
        True

    Args:
        text: of a sweep's TOML file, see `docs/whatif.md`.

    Returns:
        A row for each point: the varied fields, the metrics, and the reason where there are none.

    Raises:
        NpuSimError: not TOML, or a key that is wrong; names it.
    """
    spec = spec_from(text)
    rows = evaluate_points(spec, 0, spec.n_points)
    return [{**changes, **(metrics or {}), "reason": why} for _, changes, metrics, why in rows]


def run_sweep(
    spec: SweepSpec,
    out: Path,
    executor: Executor | None = None,
    progress: Progress | None = None,
    chunk: int | None = None,
) -> int:
    """Simulate every point of a sweep.

    Args:
        spec: what is varied.
        out: the CSV; its parts lie in a folder beside it until all are there. A device or a pipe
            gets the bytes, and has neither parts nor a JSON file.
        executor: any `concurrent.futures.Executor`; None computes in this process.
        progress: called after each chunk.
        chunk: points per task; by default a twentieth, but not too few and not too many.

    Returns:
        How many points there are.

    Raises:
        SweepError: the parts beside `out` belong to another sweep, or another run has them.
        InputError: `out`, or the JSON file beside it, would replace what was read.
    """
    if chunk is None:
        chunk = min(max(spec.n_points // N_CHUNKS, LEAST_CHUNK), MOST_CHUNK)
    CHUNK.check("chunk", chunk, SweepError)
    check_sweep_outputs(spec, out)
    identity = sweep_identity(spec, chunk)
    starts = range(0, spec.n_points, chunk)
    with opened_parts(out, identity) as parts:
        todo = [start for start in starts if parts.read(start) is None]
        done = spec.n_points - sum(min(chunk, spec.n_points - start) for start in todo)
        if progress is not None:
            progress(done, spec.n_points)
        for start, text in _texts(spec, todo, chunk, executor, identity["inputs"]):
            parts.write(start, text)
            done += min(chunk, spec.n_points - start)
            if progress is not None:
                progress(done, spec.n_points)
        header = ",".join(["point", *spec.paths, *METRICS, "reason"]) + "\n"
        with written_whole(out) as part, part.open("wb") as file:
            file.write(header.encode())
            for start in starts:
                lines = parts.read(start)
                if lines is None:  # damaged since
                    stop = min(start + chunk, spec.n_points)
                    lines = evaluate_chunk(spec.text, start, stop, identity["inputs"]).encode()
                file.write(lines)
        write_sidecar(spec, out)
        parts.remove()
    return spec.n_points


def _texts(
    spec: SweepSpec,
    todo: list[int],
    chunk: int,
    executor: Executor | None,
    inputs: Mapping[str, str],
) -> Iterator[tuple[int, str]]:
    """Yield (start, CSV text) of each chunk, in the order in which they are finished."""
    tasks = {start: (spec.text, start, min(start + chunk, spec.n_points), inputs) for start in todo}
    if executor is None:
        for start, task in tasks.items():
            yield start, evaluate_chunk(*task)
        return
    futures: dict[Future[str], int] = {
        executor.submit(evaluate_chunk, *task): start for start, task in tasks.items()
    }
    try:
        for future in as_completed(futures):
            yield futures.pop(future), future.result()  # nobody holds its text any longer
    finally:  # a sweep that stops must not compute the rest first
        for future in futures:
            future.cancel()


def evaluate_chunk(
    text: str, start: int, stop: int, inputs: Mapping[str, str] | None = None
) -> str:
    """Simulate some points; runs in a worker, so it takes and returns texts.

    Args:
        text: of the sweep's TOML file.
        start: first point.
        stop: one behind the last.
        inputs: checksums of what the sweep reads, if that may have changed since.

    Returns:
        CSV lines without a header; a point that fails has a reason instead of numbers.

    Raises:
        SweepError: an input has changed.
    """
    spec = spec_from(text)
    found = {} if inputs is None else input_digests(spec)
    changed = [name for name, digest in (inputs or {}).items() if found.get(name) != digest]
    if changed:
        names = ", ".join(changed)
        raise SweepError(
            f"{names} must stay as it is while a sweep runs, got another; begin the sweep again"
        )
    lines = []
    for index, changes, metrics, reason in evaluate_points(spec, start, stop):
        numbers = NONE if metrics is None else [_number(metrics[name]) for name in METRICS]
        varied = [_shown(changes[path]) for path in spec.paths]
        lines.append(csv_line([str(index), *varied, *numbers, csv_cell(reason)]))
    return "".join(lines)


def _number(value: float) -> str:
    """Write a number with nine significant digits; nothing for NaN."""
    return f"{value:.9g}" if value == value else ""  # noqa: PLR0124 (ten times as fast as isnan)


def _shown(value: Any) -> str:
    """Write a number with nine significant digits; nothing for one that does not exist."""
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return csv_cell(value)
    return "" if value is None else str(value)


@contextmanager
def local_executor(n_processes: int | None = None) -> Iterator[Executor]:
    """Start processes on this machine for as long as a `with` lasts.

    They end with it, whatever they compute, and when this process ends, even if it is killed.

    Args:
        n_processes: how many; one per processor by default.

    Yields:
        The executor.

    Raises:
        SweepError: one of them was killed.
    """
    # spawned, not forked: a fork would copy the locks of threads that compiled code has started
    context = get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    n = n_processes or os.cpu_count() or 1
    pool = ProcessPoolExecutor(
        n, mp_context=context, initializer=_end_with_parent, initargs=(theirs,)
    )
    try:
        with _interrupts_held():  # also those that come before a worker has begun to listen
            for _ in range(n):
                pool.submit(os.getpid)
        yield pool
        pool.shutdown()
    except BrokenProcessPool as error:
        raise SweepError(
            "a process of the sweep was killed, perhaps for want of memory; the same command goes "
            "on, --processes 1 needs least"
        ) from error
    finally:
        ours.close()  # whoever still computes ends at once
        pool.shutdown(cancel_futures=True)
        theirs.close()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back; processes that are started meanwhile never get it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(pipe: Connection) -> None:
    """Let a worker leave Ctrl-C to its parent, and end when the parent's end of a pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        with suppress(EOFError, OSError):
            pipe.recv_bytes()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


@contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """Connect to a Dask cluster for as long as a `with` lasts; needs `pip install mu-ref[dask]`.

    Args:
        address: of the scheduler, for example "tcp://10.0.0.1:8786".

    Yields:
        An executor on the cluster.

    Raises:
        SweepError: Dask is not installed, or no scheduler answers.
    """
    try:
        from distributed import Client, KilledWorker
        from distributed.comm.core import CommClosedError
    except ImportError as error:
        raise SweepError("--dask must have dask installed; pip install 'mu-ref[dask]'") from error
    rule = f"--dask must be the address of a scheduler that answers, got {address!r}"
    if not address:  # without one, distributed would start a cluster of its own
        raise SweepError(rule)
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise SweepError(rule) from error
    with client:
        try:
            yield client.get_executor()
        except (KilledWorker, CommClosedError) as error:
            raise SweepError(
                "the Dask cluster must stay while a sweep runs; the same command goes on"
            ) from error
