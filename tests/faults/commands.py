"""Every command of both programs with its options, read from the programs themselves."""

import typing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

__all__ = ["Command", "Parameter", "app_of", "commands"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """An option, or an argument (without a name that begins with a dash)."""

    name: str  # "--beam-width", or "query"
    off: str  # "--no-rnn", or ""
    kind: str  # int, float, text, path or flag
    many: bool
    required: bool
    default: Any

    @property
    def is_option(self) -> bool:
        return self.name.startswith("-")


@dataclass(frozen=True, slots=True)
class Command:
    """A command: "mu-ref settings eval"."""

    name: str
    parameters: tuple[Parameter, ...]

    def of_kind(self, *kinds: str) -> list[Parameter]:
        return [p for p in self.parameters if p.kind in kinds]

    def find(self, name: str) -> Parameter:
        return next(p for p in self.parameters if p.name == name)


@cache
def app_of(program: str) -> typer.Typer:
    """Return the commands of a program."""
    from mu_ref.cli import app as mu_ref_app
    from npu_sim.cli import app as npu_sim_app

    return {"mu-ref": mu_ref_app, "npu-sim": npu_sim_app}[program]


@cache
def commands() -> dict[str, Command]:
    """Return {name: command} of both programs."""
    found: dict[str, Command] = {}
    for program in ("mu-ref", "npu-sim"):
        _walk(typer.main.get_command(app_of(program)), program, found)
    return found


def _walk(command: Any, name: str, found: dict[str, Command]) -> None:
    if hasattr(command, "commands"):
        for word, inner in command.commands.items():
            _walk(inner, f"{name} {word}", found)
        return
    types = typing.get_type_hints(command.callback)
    found[name] = Command(name, tuple(_parameter(p, types[p.name]) for p in command.params))


def _parameter(param: Any, hint: Any) -> Parameter:
    argument = param.param_type_name == "argument"
    kind, many = _kind(hint)
    default = param.default() if callable(param.default) else param.default
    off = param.secondary_opts[0] if param.secondary_opts else ""
    name = param.name if argument else param.opts[0]
    return Parameter(name, off, kind, many, bool(param.required), default)


def _kind(hint: Any) -> tuple[str, bool]:
    """int, float, text, path or flag; and whether there may be several."""
    if typing.get_origin(hint) is typing.Annotated:
        return _kind(typing.get_args(hint)[0])
    inner = [a for a in typing.get_args(hint) if a is not type(None)]
    if typing.get_origin(hint) is list:
        return _kind(inner[0])[0], True
    if inner:
        return _kind(inner[0])
    return {int: "int", float: "float", str: "text", Path: "path", bool: "flag"}[hint], False
