"""Programs that run beside the suite, which keeps one core busy, for tests that wait for them.

`@pytest.mark.beside("-m", "pytest", FILE)` names the arguments of a Python program, and the
environment of it; the fixture `beside` is what became of it. All start with the session, one after
the other. Whole files of tests go that way too: `APART`, where `test_beside.py` runs with them.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

__all__ = ["APART", "Beside", "Program", "bounds_checked"]

ROOT = Path(__file__).resolve().parents[1]
APART = (
    "tests/test_options_act.py", "tests/properties/test_command_lines.py", "tests/ports",
    "tests/test_docs.py", "tests/npu_sim/test_sweep_files.py", "tests/test_help.py",
    "tests/npu_sim/test_whatif_border.py", "tests/npu_sim/test_question.py",
    "tests/npu_sim/test_tables_whole.py", "tests/npu_sim/test_cli_sweep.py",
)  # fmt: skip
Ended = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Program:
    """A Python program: its arguments, and variables of its environment."""

    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


def bounds_checked(*tests: str) -> pytest.MarkDecorator:
    """Mark a test that waits for others, run where kernels check the bounds of their arrays.

    They use no dot-product instruction there, so that what serves other processors is run too.
    """
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    return pytest.mark.beside(*arguments, NUMBA_BOUNDSCHECK="1", MU_REF_NO_VNNI="1")


@dataclass(slots=True)
class Beside:
    """The programs of a session."""

    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    waiting: dict[Program, Future[Ended]] = field(default_factory=dict)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def start(self, programs: Iterable[Program]) -> None:
        """Run programs, each when those before it have ended."""
        for program in programs:
            if program not in self.waiting:
                self.waiting[program] = self.pool.submit(self._run, program)

    def outcome(self, program: Program) -> Ended:
        """Wait for a program."""
        return self.waiting[program].result()

    def close(self) -> None:
        """Stop what still runs."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        for process in self.running:
            with suppress(OSError):
                process.kill()

    def _run(self, program: Program) -> Ended:
        command = [sys.executable, *program.arguments]
        with tempfile.TemporaryDirectory() as folder:
            # a pytest clears away what others have left in its folder for temporary files
            environment = os.environ | {"PYTEST_DEBUG_TEMPROOT": folder} | dict(program.environment)
            if program.environment:  # Numba ignores its flags for what it finds compiled
                environment["NUMBA_CACHE_DIR"] = folder
            out = Path(folder, "out")
            with (
                out.open("wb") as file,
                subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
                ) as process,
            ):
                self.running.append(process)
                code = process.wait()
            said = out.read_text(encoding="utf-8", errors="replace")
        return subprocess.CompletedProcess(command, code, said, "")
