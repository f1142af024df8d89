"""Plant small faults, one at a time, and see whether the tests of their room notice.

    python -m tests.mutants [--room NAME ...] [--processes 2] [--seconds 180] [--list]

`mutants.toml` lists the faults by room: file, a piece of code, and what is put in its place. Each
process plants them in a copy of the tree of its own, never here, and runs the test files of the
room with `pytest -x`: a failing test, a crash or a run beyond the time limit notices the fault.
First every room's tests run without a fault: where they fail, nothing could be told from them.
The exit code is 1 if less than `WANTED` of all are noticed, 2 if the list does not fit the code.
"""

import argparse
import ast
import multiprocessing
import os
import queue
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("mutants.toml")
COPIED = ("mu_ref", "npu_sim", "tests", "docs", "pyproject.toml", "README.md")
WANTED = 0.92
# Numba keeps compiled functions; it does not see that a function which they call has changed.
COMPILED = re.compile(r"\bimport (?:kernel|dividing)\b|\bkernel_of\(compiled_folder\(")
# by somebody else, or for memory, or with the process that it is a fork of: says nothing
STOPPED = (-signal.SIGTERM, -signal.SIGKILL, 255)
# Tests run in forks of a process that has imported these, which takes as long as many a test file.
FORKS = multiprocessing.get_context("forkserver")
IMPORTED = (
    "pytest", "hypothesis", "numpy", "numba", "typer", "rich.progress", "safetensors.numpy",
    "tokenizers", "matplotlib.figure",
)  # fmt: skip
FIRST_FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Fault:
    """One change of a piece of code that stands in its file exactly once."""

    room: str
    file: str  # from the root of the project
    code: str
    fault: str
    excuse: str = ""  # why no test can notice it, if none can

    def __str__(self) -> str:
        code, fault = (" ".join(text.split()) for text in (self.code, self.fault))
        return f"{self.file}: {code}  ->  {fault or 'nothing'}"


@dataclass(frozen=True, slots=True)
class Room:
    """Faults of one room and the test files that should notice them, the quickest first."""

    name: str
    tests: tuple[str, ...]
    faults: tuple[Fault, ...]
    environment: Mapping[str, str] = field(default_factory=dict)  # for the tests


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the tests said to one fault."""

    fault: Fault
    noticed: bool
    why: str
    seconds: float


# -- the list --------------------------------------------------------------------------------------


def read_list(path: Path = LIST) -> list[Room]:
    """Read the rooms and their faults."""
    rooms = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["room"]:
        name, folder = entry["name"], entry.get("folder", entry["name"])
        faults = [Fault(name, f"{folder}/{line[0]}", *line[1:]) for line in entry["faults"]]
        environment = entry.get("environment", {})
        rooms.append(Room(name, tuple(entry["tests"]), tuple(faults), environment))
    return rooms


def with_fault(text: str, fault: Fault) -> str:
    """Return the text of a file with a fault in it.

    Raises:
        ValueError: the code does not stand there exactly once, or the fault is no other program.
    """
    if text.count(fault.code) != 1:
        raise ValueError(f"{fault}: the code must stand exactly once, got {text.count(fault.code)}")
    if fault.code.split() == fault.fault.split():
        raise ValueError(f"{fault}: the fault must change what the code does")
    at = text.index(fault.code)
    start, end = _statement(text, at, at + len(fault.code))
    changed = text[start:at] + fault.fault + text[at + len(fault.code) : end]
    try:
        (tomllib.loads if fault.file.endswith(".toml") else ast.parse)(changed)
    except (SyntaxError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{fault}: the file must still be readable ({error})") from error
    return text[:start] + changed + text[end:]


def _statement(text: str, start: int, end: int) -> tuple[int, int]:
    """The statement of a Python file that holds a place: quicker to read than the whole file."""
    for first, last in _statements(text):
        if first <= start and end <= last:
            return first, last
    return 0, len(text)


@cache
def _statements(text: str) -> list[tuple[int, int]]:
    """Where the statements of a file of Python stand; nothing of a file of another kind."""
    try:
        nodes = ast.parse(text).body
    except SyntaxError:
        return []
    starts = [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]
    return [
        (starts[min(x.lineno for x in (node, *getattr(node, "decorator_list", ()))) - 1],
         starts[node.end_lineno or 0])
        for node in nodes
    ]  # fmt: skip


def complaints(rooms: Sequence[Room], root: Path = ROOT) -> list[str]:
    """Say what in the list does not fit the code."""
    found = [
        f"{room.name}: {test} must be a test file; there is none"
        for room in rooms
        for test in room.tests
        if not (root / test.partition("::")[0]).is_file()
    ]
    seen: set[tuple[str, str, str]] = set()
    for fault in (fault for room in rooms for fault in room.faults):
        key = (fault.file, fault.code, fault.fault)
        if key in seen:
            found.append(f"{fault}: must be listed once")
        seen.add(key)
        try:
            with_fault((root / fault.file).read_text(encoding="utf-8"), fault)
        except (OSError, ValueError) as error:
            found.append(str(error))
    return found


# -- planting and running --------------------------------------------------------------------------


def copy_tree(to: Path, root: Path = ROOT) -> None:
    """Copy what the tests need, compiled files and times of change included."""
    for name in COPIED:
        if (root / name).is_dir():
            shutil.copytree(root / name, to / name, ignore=shutil.ignore_patterns(".hypothesis"))
        else:
            shutil.copy2(root / name, to / name)


@contextmanager
def planted(tree: Path, fault: Fault) -> Iterator[None]:
    """Put a fault into a copy, and take it out again."""
    path = tree / fault.file
    text, stat = path.read_text(encoding="utf-8"), path.stat()
    path.write_text(with_fault(text, fault), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # compiled files stay valid


def run_tests(tree: Path, tests: Sequence[str], seconds: float, **more: str) -> tuple[bool, str]:
    """Run test files in a copy until the first failure: whether one failed, and which."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "said")
        more |= {"PYTEST_DEBUG_TEMPROOT": folder}  # pytest clears away what others have left
        for _ in range(3):
            run = FORKS.Process(target=_run_pytest, args=(tree, tests, said, more))
            run.start()
            run.join(seconds)
            if run.exitcode is None:
                with suppress(ProcessLookupError):
                    os.killpg(run.pid or 0, signal.SIGKILL)  # programs that a test has started too
                run.join()
                return True, f"still running after {seconds:.0f} s"
            if run.exitcode not in STOPPED:
                break
        text = said.read_text(encoding="utf-8", errors="replace")
    if run.exitcode == 0:
        return False, "all tests pass"
    first = FIRST_FAILURE.search(text)
    if run.exitcode in (1, 2) and first:
        return True, first[1]
    if run.exitcode not in (*STOPPED, *range(6)):
        return True, f"the interpreter ends with {run.exitcode}"
    raise RuntimeError(f"pytest cannot run {' '.join(tests)}:\n{text}")


def _run_pytest(tree: Path, tests: Sequence[str], said: Path, more: Mapping[str, str]) -> None:
    """Be a process of its own that knows the packages of others already, but none of ours."""
    os.setsid()
    os.chdir(tree)
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(PYTHONPATH=str(tree), **more)
    sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    sys.dont_write_bytecode = True
    sys.modules["numba"].config.reload_config()  # type: ignore[attr-defined]  # for `more`
    options = [
        "-x", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", "--hypothesis-profile=mutants",
        "-W", "ignore:Module already imported",
    ]  # fmt: skip
    code = sys.modules["pytest"].main([*options, *tests])
    sys.stdout.flush()
    os._exit(code)  # threads of the executors need not end


def try_fault(tree: Path, room: Room, fault: Fault, seconds: float) -> Outcome:
    """Plant one fault, run the tests of its room, and say what they said."""
    started = time.perf_counter()
    # The compiled code of a folder is kept under a name of all its files.
    folder = (tree / fault.file).parent.glob("*.py")
    compiled = any(COMPILED.search(path.read_text(encoding="utf-8")) for path in folder)
    with planted(tree, fault), tempfile.TemporaryDirectory() as empty:
        fresh = dict.fromkeys(("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"), empty) if compiled else {}
        noticed, why = run_tests(tree, room.tests, seconds, **fresh, **room.environment)
    return Outcome(fault, noticed, why, time.perf_counter() - started)


def try_all(rooms: Sequence[Room], n_processes: int, seconds: float) -> Iterator[Outcome]:
    """Yield the outcome of every fault, in the order of the list.

    Raises:
        RuntimeError: the tests of a room fail without a fault.
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    FORKS.set_forkserver_preload(list(IMPORTED))
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(n_processes):
            tree = Path(folder, str(number))
            tree.mkdir()
            copy_tree(tree)
            trees.put(tree)

        def sound(room: Room) -> tuple[bool, str]:
            tree = trees.get()
            try:
                return run_tests(tree, room.tests, 10 * seconds, **room.environment)
            finally:
                trees.put(tree)

        def tried(room: Room, fault: Fault) -> Outcome:
            tree = trees.get()
            try:
                return try_fault(tree, room, fault, seconds)
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(n_processes) as pool:
            for room, (failed, why) in zip(rooms, pool.map(sound, rooms), strict=True):
                if failed:
                    raise RuntimeError(f"{room.name}: the tests fail without a fault: {why}")
            waiting = [pool.submit(tried, room, fault) for room in rooms for fault in room.faults]
            try:
                for future in waiting:
                    yield future.result()
            finally:
                for future in waiting:
                    future.cancel()


# -- what is printed -------------------------------------------------------------------------------


def report(outcomes: Iterator[Outcome]) -> float:
    """Print every outcome and a table of rooms; return the share that was noticed."""
    counts: dict[str, list[int]] = {}
    quiet: list[Outcome] = []
    for outcome in outcomes:
        fault = outcome.fault
        word = "noticed  " if outcome.noticed else "UNNOTICED"
        print(f"{word} {outcome.seconds:5.1f} s  {fault}\n{'':18}{outcome.why}", flush=True)
        room = counts.setdefault(fault.room, [0, 0])
        room[0] += 1
        room[1] += outcome.noticed
        if not outcome.noticed:
            quiet.append(outcome)
    print(f"\n{'room':<26} faults noticed")
    for name, (n, noticed) in counts.items():
        print(f"{name:<26} {n:6} {noticed:7}  {noticed / n:6.0%}")
    n, noticed = (sum(room[i] for room in counts.values()) for i in (0, 1))
    print(f"{'all':<26} {n:6} {noticed:7}  {noticed / n:6.1%}")
    for outcome in quiet:
        print(f"\nunnoticed: {outcome.fault}\n  {outcome.fault.excuse or 'no reason is known'}")
    return noticed / n


def main() -> None:
    """Do what the docstring of this file says."""
    parser = argparse.ArgumentParser(description="Plant small faults; see whether tests notice.")
    parser.add_argument("--room", action="append", help="only this room; may be repeated")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=180, help="limit of one run of tests")
    parser.add_argument("--list", action="store_true", help="print the faults, plant none")
    options = parser.parse_args()
    rooms = read_list()
    unknown = set(options.room or ()) - {room.name for room in rooms}
    if unknown:
        parser.error(f"no room {', '.join(sorted(unknown))}; {', '.join(r.name for r in rooms)}")
    rooms = [room for room in rooms if options.room is None or room.name in options.room]
    wrong = complaints(rooms)
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong:
        raise SystemExit(2)
    if options.list:
        for room in rooms:
            print(f"{room.name}: {len(room.faults)}")
            for fault in room.faults:
                print(f"  {fault}")
        return
    started = time.perf_counter()
    share = report(try_all(rooms, options.processes, options.seconds))
    print(f"\n{(time.perf_counter() - started) / 60:.1f} minutes")
    raise SystemExit(0 if share >= WANTED else 1)


if __name__ == "__main__":
    main()
