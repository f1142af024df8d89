"""How a program ends: its exit code, and nothing but one line on stderr."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mu_ref.border.ranges import Range
from mu_ref.command_line import in_range
from mu_ref.errors import InputError, WeightsError, located

APP = """
import sys, typer
from mu_ref.border.ranges import Range
from mu_ref.command_line import in_range, plain_console, run_app
from typing import Annotated

def work(what: str, n: Annotated[int, in_range(Range(low=1, high=9, why="so few"), "--n")] = 1):
    if what == "memory": raise MemoryError
    if what == "interrupt": raise KeyboardInterrupt
    if what == "eof": raise EOFError("a fault of ours")
    if what == "missed": raise typer.Exit(3)
    if what == "many":
        for _ in range(100_000): print("a line of text")
    plain_console().print(what)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(work)
run_app(app)
"""


def run(*args: str, stdout: object = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", APP, *args], stdout=stdout, stderr=subprocess.PIPE, text=True,
        check=False,
    )  # type: ignore[call-overload]  # fmt: skip


KINDS = """
import sys, typer
from mu_ref.command_line import run_app
from pathlib import Path
from typing import Annotated

def work(text: str, more: list[str] | None = None, n: int | None = None, x: float = 1, k: int = 2,
         share: float = 0.5, where: Path | None = None, loud: bool = False,
         pair: tuple[int, int] | None = None):
    print(repr([text, more, n, x, k, share, where, loud, pair]))
    print("pydantic" in sys.modules)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(work)
run_app(app)
"""


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (["a"], "['a', None, None, 1.0, 2, 0.5, None, False, None]"),
        (["", "--loud", "--k", "5"], "['', None, None, 1.0, 5, 0.5, None, True, None]"),
        (["a", "--more", "b", "--more", "c"],
         "['a', ['b', 'c'], None, 1.0, 2, 0.5, None, False, None]"),
        (["a", "--n", "3", "--x", "2", "--where", "b", "--pair", "1", "2"],
         "['a', None, 3, 2.0, 2, 0.5, PosixPath('b'), False, (1, 2)]"),
    ],
)  # fmt: skip
def test_a_value_has_the_type_of_its_parameter(args: list[str], found: str) -> None:
    code = [sys.executable, "-c", KINDS, *args]
    assert subprocess.check_output(code, text=True).splitlines()[0] == found


def test_texts_and_defaults_are_not_converted_and_wrong_numbers_refused() -> None:
    code = KINDS.replace("x: float = 1,", "x: float = 1.0,")
    command = [sys.executable, "-c", code, "a", "--loud"]
    assert subprocess.check_output(command, text=True).splitlines()[1] == "False"
    wrong = subprocess.run([*command, "--n", "b"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "'--n'" in wrong.stderr
    lacking = subprocess.run(command[:-2], capture_output=True, text=True, check=False)
    assert (lacking.returncode, lacking.stdout) == (2, "")
    assert "missing argument" in lacking.stderr.lower()


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (["memory"], 2, "error: this needs more memory than there is; ask for less\n"),
        (["interrupt"], 130, "error: interrupted\n"),
        (["missed"], 3, ""),
        (["x", "--n", "10"], 2, "error: --n must be a whole number from 1 to 9, got 10; so few\n"),
        (["x", "--n", "0"], 2, "error: --n must be a whole number from 1 to 9, got 0\n"),
        (["[b]x[/x] :smile:"], 0, ""),
    ],
)
def test_a_program_ends_with_a_code_and_at_most_one_line(
    args: list[str], code: int, line: str
) -> None:
    done = run(*args)
    assert (done.returncode, done.stderr) == (code, line)
    assert done.stdout == ("[b]x[/x] :smile:\n" if code == 0 else "")


def test_an_end_of_file_inside_is_no_interrupt() -> None:
    done = run("eof")
    assert done.returncode == 1
    assert "a fault of ours" in done.stderr


def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = run("many", stdout=full)
    assert (done.returncode, done.stderr) == (2, "error: output: No space left on device\n")


def test_a_reader_that_has_enough_is_no_fault() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", APP, "many"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_a_closed_stdout_is_no_fault() -> None:
    command = 'exec "$0" -c "$1" x >&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, APP], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_each_number_of_a_repeatable_option_is_checked() -> None:
    few = in_range(Range(low=0, high=3, why="so few"), "--n")
    asked = SimpleNamespace(opts=["--n"])
    assert few.callback(asked, [0, None, 3]) == [0, None, 3]
    with pytest.raises(InputError, match="--n must be a whole number from 0 to 3, got 5"):
        few.callback(asked, [0, 5])


def test_an_error_with_a_place_stays_of_its_kind() -> None:
    with pytest.raises(WeightsError, match="FILE: no"), located("FILE: "):
        raise WeightsError("no")
