"""What `mu-ref` and `npu-sim` share: options with ranges, the console, and how a program ends.

Exit codes: 0 done, 1 a comparison found a difference, 2 a mistake in what was asked for (one line
on stderr says which), 3 a budget missed with --strict, 130 interrupted.
"""

import atexit
import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from mu_ref.border.conversion import convert_less
from mu_ref.border.ranges import Range
from mu_ref.border.text import printable
from mu_ref.errors import MuRefError

__all__ = [
    "BUDGET_MISSED", "DIFFERENCE", "JsonOption", "SetOption", "in_range", "named_folder",
    "plain_console", "run_app",
]  # fmt: skip

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Another value of any field; repeatable."),
]

DIFFERENCE, MISTAKE, BUDGET_MISSED, INTERRUPTED = 1, 2, 3, 130


def in_range(allowed: Range, *names: str, help: str = "", **more: Any) -> Any:
    """Return a typer option (or, without names that begin with a dash, one named by its parameter).

    Args:
        allowed: what the number may be; each number, if the option is repeatable.
        *names: as of `typer.Option`.
        help: what it is; the range is added.
        **more: of `typer.Option`.

    Returns:
        What stands in `Annotated[int, ...]` or `Annotated[float, ...]`.
    """
    rule = str(allowed).replace(f"{2**63 - 1:,}", "2^63 - 1")  # longer than a column of help
    text = f"{help.rstrip('.')}; {rule}." if help else f"{rule}."
    return typer.Option(*names, help=text, callback=_checker(allowed), **more)


def _checker(allowed: Range) -> Callable[..., Any]:
    def check(param: typer.CallbackParam, value: Any) -> Any:
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is not None:
                allowed.check(param.opts[0], one)
        return value

    return check


def named_folder(text: str) -> Path:
    """Return the folder that an argument names; the parser of those that are folders.

    Raises:
        typer.BadParameter: it is empty, which `Path` would read as the working folder.
    """
    if not text:
        raise typer.BadParameter("a folder must have a name, got ''; the working folder is .")
    return Path(text)


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that shows texts as they are: no markup, no emoji, no highlighting."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def run_app(app: typer.Typer) -> NoReturn:
    """Run a program and leave with its exit code; a user's mistake never shows a traceback.

    Args:
        app: the commands.
    """
    convert_less(app)
    _prepare_streams()
    _end_soon()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()  # a disk that is full says so here, not after the exit code
    except MuRefError as error:  # of either package: its text is meant for the user
        _leave(str(error), MISTAKE)
    except SystemExit:  # Typer's answer to a reader that has closed the pipe: it had enough
        code = 0
        _forget_stdout()
    except OSError as error:
        _forget_stdout()
        _leave(f"{error.filename or 'output'}: {error.strerror or error}", MISTAKE)
    except MemoryError:
        _leave("this needs more memory than there is; ask for less", MISTAKE)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except typer.Abort as error:
        if isinstance(error.__cause__, EOFError):  # Typer takes it for an interrupt; it is a fault
            raise error.__cause__ from None
        code = INTERRUPTED
    except Exception as error:
        # Typer's own exceptions for a wrong command line have no base class that is public in
        # all of its versions; what marks them is this method.
        if not hasattr(error, "format_message"):
            raise
        _leave(error.format_message(), MISTAKE)
    if code == INTERRUPTED:
        _leave("interrupted", INTERRUPTED)
    sys.exit(code or 0)


@cache
def _end_soon() -> None:
    """Spare the last search for garbage: all ends with the process."""
    atexit.register(gc.freeze)


def _prepare_streams() -> None:
    """Let what a terminal cannot show be shown as an escape; a closed stdout takes anything."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _forget_stdout() -> None:
    """Drop what could not be printed, or Python tries again on its way out, and complains."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(message: str, code: int) -> NoReturn:
    if message:  # none after the help that a bare command prints
        typer.echo(f"error: {printable(' '.join(message.split()))}", err=True)
    sys.exit(code)
