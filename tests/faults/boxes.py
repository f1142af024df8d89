"""Where cases run: each in a fresh folder, in a fork of a process that has everything loaded.

A case that takes too long is ended with all its children. The folder is looked at before and
after: every file by its bytes, every link by its target, and all by their modes.
"""

import contextlib
import hashlib
import os
import resource
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import mu_ref
from faults.case import Case, Outcome
from faults.commands import app_of
from faults.warm import warm

__all__ = ["ROOT", "Boxes", "ended", "started", "state_of"]

ROOT = Path(mu_ref.__file__).resolve().parent.parent  # of the programs that are tried
MEMORY = 8 * 2**30  # bytes of addresses that a case may have
WALL_FACTOR = 6  # other work on the machine makes seconds longer than those of a processor
MOST_SHOWN = 20_000  # characters of output that are kept
PACKAGES = [ROOT / "mu_ref", ROOT / "npu_sim"]


@dataclass(frozen=True, slots=True)
class _Run:
    case: Case
    pid: int
    box: Path
    before: dict[str, str]
    ends: float

    @property
    def folder(self) -> Path:
        return self.box / "work"


class Boxes:
    """Runs cases, some at a time."""

    def __init__(self, samples: Path, processes: int = 1, *, fast: bool = True) -> None:
        self.samples, self.processes = samples, processes
        self.place = Path(tempfile.mkdtemp(prefix="faults-"))
        self.count = 0
        warm(fast=fast)

    def close(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)

    def run(self, cases: Iterable[Case]) -> Iterator[tuple[Case, Outcome]]:
        """Run cases; yield each with its outcome as it ends."""
        waiting, running = iter(cases), dict[int, _Run]()
        more = True
        while more or running:
            while more and len(running) < self.processes:
                case = next(waiting, None)
                if case is None:
                    more = False
                    break
                started = self._start(case)
                running[os.pidfd_open(started.pid)] = started
            ready, _, _ = select.select(list(running), [], [], 0.2)
            late = [fd for fd, run in running.items() if time.monotonic() > run.ends]
            for fd in {*ready, *late}:
                run = running.pop(fd)
                os.close(fd)
                yield run.case, self._finish(run, stopped=fd not in ready)

    def one(self, case: Case) -> Outcome:
        """Run one case."""
        return next(outcome for _, outcome in self.run([case]))

    def prepared(self, case: Case, folder: Path) -> None:
        """Make the folder of a case as it is before the command."""
        shutil.copytree(self.samples, folder, symlinks=True)
        case.prepare(folder)

    def _start(self, case: Case) -> _Run:
        self.count += 1
        box = self.place / f"{self.count:05d}"
        box.mkdir()
        (box / "tmp").mkdir()
        (box / "samples").symlink_to(self.samples.resolve())
        self.prepared(case, box / "work")
        before = state_of(box / "work") | packages_state()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _child(case, box / "work", box)
        return _Run(case, pid, box, before, time.monotonic() + WALL_FACTOR * case.seconds)

    def _finish(self, run: _Run, *, stopped: bool) -> Outcome:
        if stopped:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
        _, status, used = os.wait4(run.pid, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)  # children that it left behind
        code = None if stopped else os.waitstatus_to_exitcode(status)
        if code == -signal.SIGXCPU:
            code = None
        out, err = (_read(run.box / name) for name in ("out", "err"))
        after = state_of(run.folder) | packages_state()
        changed = _changes(run.before, after)
        files = {name: text for name, text in after.items() if run.before.get(name) != text}
        changed += [f"left {path.name} in the temporary folder" for path in _left(run.box)]
        outcome = Outcome(code, out, err, used.ru_utime + used.ru_stime, tuple(changed), files)
        if run.case.after is not None and outcome.code in run.case.codes:
            complaint = run.case.after(run.folder, outcome)
            if complaint:
                outcome = replace(outcome, err=f"{err}\nCOMPLAINT: {complaint}")
        _removed(run.box)
        return outcome


def _left(box: Path) -> list[Path]:
    return [p for p in (box / "tmp").iterdir() if not p.name.startswith("pymp-")]


def _removed(box: Path) -> None:
    mounts = Path("/proc/mounts").read_text(encoding="utf-8")
    for line in mounts.splitlines():
        if line.split()[1].startswith(f"{box}/"):
            subprocess.run(["umount", "-l", line.split()[1]], check=False)
    for path in (box, *box.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.chmod(0o700)
    shutil.rmtree(box, ignore_errors=True)


def _read(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return file.read(2**24).decode("utf-8", "backslashreplace")


def state_of(folder: Path) -> dict[str, str]:
    """Describe everything in a folder: {relative path: what, mode, and content}."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            info = path.lstat()
            text = f"{stat.filemode(info.st_mode)} "
            if stat.S_ISLNK(info.st_mode):
                text += os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                with contextlib.suppress(OSError):
                    text += hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
            found[str(path.relative_to(folder))] = text
    return found


def packages_state() -> dict[str, str]:
    """Describe the files of both packages, by size and time."""
    found = {}
    for package in PACKAGES:
        for path in package.rglob("*"):
            if "__pycache__" not in path.parts and path.is_file():
                info = path.stat()
                found[str(path)] = f"{info.st_size} {info.st_mtime_ns} {info.st_mode}"
    return found


def _changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    changes = [f"removed {name}" for name in sorted(before.keys() - after.keys())]
    changes += [f"made {name}" for name in sorted(after.keys() - before.keys())]
    changes += [f"changed {n}" for n in sorted(before.keys() & after.keys())
                if before[n] != after[n]]  # fmt: skip
    return changes


def started(case: Case, folder: Path, logs: Path) -> int:
    """Begin a command in a folder, beside whatever a case does; return its process."""
    logs.mkdir(exist_ok=True)
    (logs / "tmp").mkdir(exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _child(case, folder, logs)
    return pid


def ended(pid: int, *, kill: bool = False) -> int:
    """Wait for a command that was begun, or kill it; return its exit code."""
    if kill:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _child(case: Case, folder: Path, box: Path) -> NoReturn:
    """Become the program, in a process of its own."""
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        _redirect(case, box)
        seconds = int(case.seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        changes = {"TMPDIR": str(box / "tmp"), "PYTHONUNBUFFERED": None, **case.environment}
        for name, value in changes.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value.replace("{folder}", str(folder))
        tempfile.tempdir = None
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if case.alone:
            _become(case)
        code = _call(case)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _redirect(case: Case, box: Path) -> None:
    out = case.stdout or str(box / "out")
    if out == "broken pipe":
        reader, writer = os.pipe()
        os.close(reader)
        out = f"/proc/self/fd/{writer}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, name, how in (
        (0, "/dev/null", os.O_RDONLY),
        (1, str(box / "out") if out == "closed" else out, flags),
        (2, str(box / "err"), flags),
    ):
        handle = os.open(name, how, 0o600)
        os.dup2(handle, number)
        if handle > 2:
            os.close(handle)
    if out == "closed":
        os.close(1)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = None  # type: ignore[assignment]
    if out != "closed":
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]


def _become(case: Case) -> NoReturn:
    module = case.words[0].replace("-", "_")
    code = f"import sys; sys.argv[0] = {case.words[0]!r}; from {module}.cli import main; main()"
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in paths if p)
    os.execv(sys.executable, [sys.executable, "-c", code, *case.words[1:]])


def _call(case: Case) -> int:
    """Call the program as its entry point would; return its exit code."""
    from mu_ref.command_line import run_app

    sys.argv = list(case.words)
    try:
        run_app(app_of(case.words[0]))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # what the interpreter does at its end
        print("Exception ignored while flushing sys.stdout", file=sys.stderr)
        code = 120
    return code
