"""Disks that are full, two processes with one output, and damaged caches of compiled code."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from faults.bases import BASES, with_value
from faults.boxes import ROOT, ended, started
from faults.case import DONE, REFUSED, SANE, Case, Outcome
from faults.commands import commands
from faults.files import outputs
from faults.kinds.resume import RUNS, Run, equal_to_uninterrupted

__all__ = ["caches", "cases", "together"]

CELLS = (*BASES["npu-sim systolic"].arguments, "--fidelity", "cycle", "--json")


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield what is written to a disk that is full; nothing where mounting is not allowed."""
    if not _may_mount():
        print("no full disk: mounting is not allowed here", file=sys.stderr)
        return
    for output in outputs():
        if output.command == "npu-sim headline":
            continue
        command = commands()[output.command]
        for size in ("4k", "8k"):
            yield Case(
                kind="full disk", command=output.command, prepare=partial(_small, size),
                arguments=with_value(command, output.option, f"small/{output.name}"),
                expect=REFUSED if size == "4k" else SANE, late=True,
                leaves=("new*", "small/*.parts", "small/*.parts/*"),
                note=f"small is a file system of {size}", writes=("small/*", "small/*/*", "new*"),
            )  # fmt: skip


def _may_mount() -> bool:
    with tempfile.TemporaryDirectory() as place:
        return (
            _mounted(Path(place), "4k")
            and not subprocess.run(["umount", place], check=False).returncode
        )


def _mounted(folder: Path, size: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    return not subprocess.run(command, check=False, capture_output=True).returncode


def _small(size: str, folder: Path) -> None:
    (folder / "small").mkdir()
    _mounted(folder / "small", size)
    if size == "4k":
        (folder / "small/full").write_bytes(bytes(4096))


def _sweep_spec(folder: Path) -> None:
    from faults.kinds.resume import SWEEP

    (folder / "sweep.toml").write_text(SWEEP)


def together(rng: random.Random) -> Iterator[Case]:
    """Yield runs that begin while another with the same output goes on."""
    for run in RUNS.values():
        for i in range(3):
            yield run.case(
                "together", resumed=False, expect=DONE, writes=("new*", "new*/*"),
                prepare=partial(_two, run), note=f"two of these have run at the same time ({i})",
                after=partial(_both_well, run),
            )  # fmt: skip


def _two(run: Run, folder: Path) -> None:
    _sweep_spec(folder)
    case = run.case("together", resumed=False)
    processes = [started(case, folder, folder.parent / f"run-{i}") for i in range(2)]
    codes = [ended(process) for process in processes]
    (folder.parent / "codes").write_text(repr(codes))


def _both_well(run: Run, folder: Path, outcome: Outcome) -> str:
    codes = (folder.parent / "codes").read_text()
    for i in range(2):
        text = (folder.parent / f"run-{i}" / "err").read_text(errors="replace")
        if "Traceback" in text:
            return f"one of two had a traceback: {text.strip().splitlines()[-1]}"
    if codes not in ("[0, 0]", "[0, 2]", "[2, 0]"):
        return f"the two ended with {codes}"
    return equal_to_uninterrupted(run, folder, outcome)


def caches(rng: random.Random) -> Iterator[Case]:
    """Yield damaged caches of compiled code."""
    for note, change in _damages():
        for pattern in ("*.nbi", "*.nbc"):
            yield _cached(partial(_damaged, pattern, change), f"{pattern} of it: {note}")
    yield _cached(lambda folder: shutil.rmtree(folder / "cache"), "it is not there")
    yield _cached(_as_file, "it is a file")
    for place in ("/dev/null", "/proc/nowhere", "/nonexistent/\n", "x" * 300, "cache", ""):
        yield Case(kind="caches", command="npu-sim systolic", arguments=CELLS, alone=True,
                   environment={"NUMBA_CACHE_DIR": place, "HOME": "{folder}"}, seconds=60.0,
                   expect=DONE, writes=("*/*", "*/*/*", "*/*/*/*", "*/*/*/*/*", "*"),
                   after=_counted)  # fmt: skip


def _damages() -> Iterator[tuple[str, Callable[[Path], object]]]:
    yield "empty", lambda path: path.write_bytes(b"")
    yield "cut", lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    yield "random", lambda path: path.write_bytes(os.urandom(2000))
    yield "a byte more", lambda path: path.write_bytes(path.read_bytes() + b"x")
    yield "a byte changed", _flip
    yield "folders", lambda path: (path.unlink(), path.mkdir())
    yield "links to nothing", lambda path: (path.unlink(), path.symlink_to("nowhere"))
    yield "not for reading", lambda path: path.chmod(0)
    yield "pickles of something else", lambda path: path.write_bytes(b"\x80\x04K\x01.")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _cached(change: Callable[[Path], None], note: str) -> Case:
    def prepare(folder: Path) -> None:
        from npu_sim.systolic import cells_kernel

        source = Path(cells_kernel.compiled_folder(
            "npu-sim", Path(cells_kernel.__file__).parent.glob("*.py")))  # fmt: skip
        shutil.copytree(source, folder / "cache" / source.name)
        change(folder)

    return Case(
        kind="caches", command="npu-sim systolic", arguments=CELLS, alone=True, seconds=60.0,
        expect=DONE, environment={"NUMBA_CACHE_DIR": "{folder}/cache"}, prepare=prepare,
        note=f"the cache is damaged, {note}", after=_healed,
        writes=("cache", "cache/*", "cache/*/*", "cache/*/*/*"),
    )  # fmt: skip


def _damaged(pattern: str, change: Callable[[Path], object], folder: Path) -> None:
    for path in (folder / "cache").rglob(pattern):
        change(path)


def _as_file(folder: Path) -> None:
    shutil.rmtree(folder / "cache")
    (folder / "cache").write_text("no folder")


def _counted(folder: Path, outcome: Outcome) -> str:
    """Complain unless the product is right, after one warning at most."""
    lines = outcome.err.splitlines()
    if len(lines) > 2 or not all(line.startswith("warning: ") for line in lines):
        return f"stderr has {len(lines)} lines: {outcome.err[:200]!r}"
    return "" if '"product_equals_matmul": true' in outcome.out else "the product is wrong"


def _healed(folder: Path, outcome: Outcome) -> str:
    complaint = _counted(folder, outcome)
    if complaint or (folder / "cache").is_file() or outcome.err.count("cannot be written"):
        return complaint
    code = "from npu_sim.cli import main; main()"
    again = subprocess.run(
        [sys.executable, "-c", code, "systolic", *CELLS], cwd=folder, capture_output=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(ROOT)},
        text=True, check=False,
    )  # fmt: skip
    return f"the second run says {again.stderr[:200]!r}" if again.stderr else ""
