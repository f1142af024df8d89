"""Help of every command of both programs: it fits 80 columns, cuts no word, and has an example."""

import shlex
from typing import Any

import pytest
import typer
from faults.commands import app_of, commands
from typer.testing import CliRunner

WIDTH = 80


def shown(name: str) -> str:
    program, *words = name.split()
    found = CliRunner().invoke(app_of(program), [*words, "--help"], env={"COLUMNS": str(WIDTH)})
    assert found.exit_code == 0, found.output
    return found.output


@pytest.mark.parametrize("name", ["mu-ref", "npu-sim", "npu-sim hardware", *commands()])
def test_help_fits_the_screen_cuts_nothing_and_has_an_example(name: str) -> None:
    text = shown(name)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    assert "..." not in text.replace("COMMAND [ARGS]...", "")
    if name in commands():
        words = text.split()
        cut = [p.name for p in commands()[name].parameters if p.is_option and p.name not in words]
        assert not cut
        check_example(name, " ".join(words))


def check_example(name: str, text: str) -> None:
    """There is one, and the program understands it: every option is there, every argument given."""
    assert f"Example: {name}" in text
    _, *words = shlex.split(text.split("Example: ")[1].split(" ╭", maxsplit=1)[0])
    command: Any = typer.main.get_command(app_of(name.split(maxsplit=1)[0]))
    for word in name.split()[1:]:
        command, words = command.commands[word], words[1:]
    command.make_context(name, words)
