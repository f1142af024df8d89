"""Values of a command line: converted where they are not yet of their type, and only there."""

from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["convert_less"]

PLAIN: set[Any] = {bool, int, float, str}


def convert_less(app: typer.Typer) -> None:
    """Let the commands of a program convert only what is not yet of its type.

    Args:
        app: the commands; changed.
    """
    app.info.cls = _Group
    for command in app.registered_commands:
        command.cls = _Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            convert_less(group.typer_instance)


class _Command(TyperCommand):
    """A command whose values are converted only where they are not yet of their type.

    Typer makes a validator for every option, given or not, and imports Pydantic for it: a tenth of
    a second before any work. Texts and defaults need none.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, the option --help among them."""
        return _sparing(super().get_params(ctx), self.callback)


class _Group(TyperGroup):
    """A group that does so too."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, the option --help among them."""
        return _sparing(super().get_params(ctx), self.callback)


def _sparing(params: list[Any], function: Callable[..., Any] | None) -> list[Any]:
    """Let parameters of a function convert only what must be."""
    new = [param for param in params if "process_value" not in vars(param)]
    hints = get_type_hints(function) if new and function else {}
    for param in new:
        hint = hints.get(param.name, bool)  # --help is no parameter of the function
        param.process_value = _process(param, PLAIN & {*(get_args(hint) or (hint,))})
    return params


def _process(param: Any, kinds: set[type]) -> Callable[[Any, Any], Any]:
    """Return what does the work of `param.process_value`, without Typer where nothing is to do."""
    convert, is_many = param.process_value, param.multiple or param.nargs == -1

    def process(ctx: Any, value: Any) -> Any:
        if value is None and not param.required:
            value = () if is_many else None
        elif is_many or type(value) not in kinds:
            return convert(ctx, value)
        return value if param.callback is None else param.callback(ctx, param, value)

    return process
