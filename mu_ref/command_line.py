"""What `mu-ref` and `npu-sim` share: how a program ends, and the option `--json`.

Exit codes: 0 done, 2 a mistake in what was asked for (one line on stderr says which), 130
interrupted; a command may add others.
"""

import sys
from typing import Annotated, NoReturn

import typer

from mu_ref.errors import MuRefError

__all__ = ["JsonOption", "run_app"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]

MISTAKE, INTERRUPTED = 2, 130


def run_app(app: typer.Typer) -> NoReturn:
    """Run a program and leave with its exit code; a user's mistake never shows a traceback.

    Args:
        app: the commands.
    """
    try:
        code = app(standalone_mode=False)
    except MuRefError as error:  # of either package: its text is meant for the user
        _leave(str(error), MISTAKE)
    except OSError as error:
        _leave(f"{error.filename or 'file'}: {error.strerror or error}", MISTAKE)
    except (KeyboardInterrupt, typer.Abort):
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


def _leave(message: str, code: int) -> NoReturn:
    if message:  # none after the help that a bare command prints
        typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(code)
