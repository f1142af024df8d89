"""Runs a sweep: points in chunks on any executor, results in order, and resumable.

Each finished chunk is a small file beside the result, so a sweep that is killed goes on where it
stopped and ends with the same bytes. The result is a CSV with units in its column names, and a JSON
sidecar with the specification and the versions. Chapter: `docs/whatif.md`.
"""

import csv
import io
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.files import write_text, written_whole
from npu_sim.errors import SweepError, check_at_least
from npu_sim.whatif.metrics import METRICS
from npu_sim.whatif.sweep_points import evaluate_points
from npu_sim.whatif.sweep_toml import SweepSpec, spec_from

__all__ = ["dask_executor", "evaluate_chunk", "local_executor", "run_sweep", "sweep"]

# Points per task, and tasks: few enough that recordings are shared, many enough that a killed sweep
# loses little.
LEAST_CHUNK, MOST_CHUNK, N_CHUNKS = 500, 20_000, 20
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
        out: the CSV; its parts lie in a folder beside it until all are there.
        executor: any `concurrent.futures.Executor`; None computes in this process.
        progress: called after each chunk.
        chunk: points per task; by default a twentieth, but not too few and not too many.

    Returns:
        How many points there are.

    Raises:
        SweepError: the parts beside `out` belong to another sweep.
    """
    if chunk is None:
        chunk = min(max(spec.n_points // N_CHUNKS, LEAST_CHUNK), MOST_CHUNK)
    check_at_least("chunk", chunk, 1, SweepError)
    parts = _parts_folder(spec, out, chunk)
    starts = range(0, spec.n_points, chunk)
    todo = [start for start in starts if not _part(parts, start).exists()]
    done = spec.n_points - sum(min(chunk, spec.n_points - start) for start in todo)
    if progress is not None:
        progress(done, spec.n_points)
    for start, text in _texts(spec, todo, chunk, executor):
        write_text(_part(parts, start), text)
        done += min(chunk, spec.n_points - start)
        if progress is not None:
            progress(done, spec.n_points)
    header = ",".join(["point", *spec.paths, *METRICS, "reason"]) + "\n"
    with written_whole(out) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.write(header)
        for start in starts:
            file.write(_part(parts, start).read_text(encoding="utf-8"))
    _write_sidecar(spec, out)
    shutil.rmtree(parts)
    return spec.n_points


def _texts(spec: SweepSpec, todo: list[int], chunk: int, executor: Executor | None) -> Any:
    """Yield (start, CSV text) of each chunk, in the order in which they are finished."""
    if executor is None:
        for start in todo:
            yield start, evaluate_chunk(spec.text, start, min(start + chunk, spec.n_points))
        return
    futures: dict[Future[str], int] = {
        executor.submit(evaluate_chunk, spec.text, start, min(start + chunk, spec.n_points)): start
        for start in todo
    }
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:  # a sweep that stops must not compute the rest first
        for future in futures:
            future.cancel()


def evaluate_chunk(text: str, start: int, stop: int) -> str:
    """Simulate some points; runs in a worker, so it takes and returns texts.

    Args:
        text: of the sweep's TOML file.
        start: first point.
        stop: one behind the last.

    Returns:
        CSV lines without a header; a point that fails has a reason instead of numbers.
    """
    spec = spec_from(text)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    for index, changes, metrics, reason in evaluate_points(spec, start, stop):
        numbers = ["" if metrics is None else _shown(metrics[name]) for name in METRICS]
        varied = [_shown(changes[path]) for path in spec.paths]
        writer.writerow([index, *varied, *numbers, reason])
    return lines.getvalue()


def _shown(value: Any) -> str:
    """Write a number with nine significant digits; nothing for one that does not exist."""
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.9g}"
    return "" if value is None else str(value)


def _parts_folder(spec: SweepSpec, out: Path, chunk: int) -> Path:
    """Return the folder of finished chunks, and check that they belong to this sweep."""
    parts = out.with_name(out.name + ".parts")
    # other versions may round otherwise: parts of two would not be one sweep
    identity = json.dumps({"spec": spec.text, "chunk": chunk, **_versions()}, indent=1)
    mark = parts / "sweep.json"
    if mark.exists():
        if mark.read_text(encoding="utf-8") != identity:
            raise SweepError(
                f"{parts} must hold parts of this sweep, got another specification, chunk or "
                f"version; delete the folder or choose another --out"
            )
        return parts
    parts.mkdir(parents=True, exist_ok=True)
    write_text(mark, identity)
    return parts


def _part(parts: Path, start: int) -> Path:
    return parts / f"{start:09d}.csv"


def _versions() -> dict[str, str]:
    return {
        "mu_ref": version("mu-ref"),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _write_sidecar(spec: SweepSpec, out: Path) -> None:
    chip = spec.base.npu
    sidecar = {
        "simulated": True,
        "fidelity": spec.fidelity,
        "n_points": spec.n_points,
        "varied": list(spec.paths),
        "metrics": list(METRICS),
        "versions": _versions(),
        "npu": {"name": chip.name, "values": chip.values(), "sources": dict(chip.sources)},
        "spec": spec.text,
    }
    write_text(out.with_suffix(".json"), json.dumps(sidecar, indent=1) + "\n")


def local_executor(n_processes: int | None = None) -> Executor:
    """Return an executor of processes on this machine.

    Args:
        n_processes: how many; one per processor by default.

    Returns:
        The executor; close it with `with`.
    """
    # spawned, not forked: a fork would copy the locks of threads that compiled code has started
    return ProcessPoolExecutor(n_processes or os.cpu_count() or 1, mp_context=get_context("spawn"))


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
        from distributed import Client
    except ImportError as error:
        raise SweepError("--dask must have dask installed; pip install 'mu-ref[dask]'") from error
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise SweepError(f"--dask must be the address of a scheduler, got {address}") from error
    with client:
        yield client.get_executor()
