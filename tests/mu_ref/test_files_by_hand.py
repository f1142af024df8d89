"""The ground: where compiled code is kept, and what a mistake looks like."""

import sys

import pytest
import typer

from mu_ref.command_line import run_app
from mu_ref.compiled import compiled_folder
from mu_ref.errors import ConfigError, InputError, check_choice


def test_code_is_kept_below_a_name_of_all_its_sources(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = [tmp_path / name for name in ("b.py", "a.py", "c.py")]
    for file in files:
        file.write_text(file.name)
    folder = compiled_folder("mu-ref", files)
    assert folder.parent == tmp_path / "cache" / "mu-ref"
    assert compiled_folder("mu-ref", files[::-1]) == folder
    assert compiled_folder("mu-ref", files, "other instructions") != folder
    for file in files:
        file.write_text("changed")
        assert compiled_folder("mu-ref", files) != folder
        file.write_text(file.name)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "given"))
    assert compiled_folder("mu-ref", files).parent == tmp_path / "given"


def test_a_choice_is_one_of_those_there_are() -> None:
    assert check_choice("x", 2, (1, 2)) == 2
    with pytest.raises(InputError, match="x must be one of 1, 2; got 3"):
        check_choice("x", 3, (1, 2))
    with pytest.raises(ConfigError):
        check_choice("x", None, ["a"], ConfigError)


def failing(error: BaseException) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def command() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("x must\n  be y"), 2, "error: x must be y\n"),
        (FileNotFoundError(2, "No such file", "a.json"), 2, "error: a.json: No such file\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)
def test_a_program_ends_with_one_line_and_its_code(monkeypatch, capsys, error, code, text) -> None:
    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as stop:
        run_app(failing(error))
    assert (stop.value.code, capsys.readouterr().err) == (code, text)
