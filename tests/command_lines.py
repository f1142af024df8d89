"""Run a program's command line inside a test, as its entry point does."""

import sys
from collections.abc import Callable
from typing import NoReturn

import pytest

__all__ = ["Run", "runner"]

Run = Callable[..., tuple[int, str, str]]
"""(arguments) -> (exit code, stdout, stderr)."""


def runner(
    program: str,
    main: Callable[[], NoReturn],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Return what runs a program in this process."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call
