"""Parse, validate and write the calls that the Settings agent answers with.

The grammar is that of `data/catalog.json`; only canonical text is a call: lower case, no quotes,
one space after the comma and nowhere else, integers without sign or leading zeros. This file does
not carry a call out, and it does not judge whether a call answers a query (see `evaluate.py`).
"""

import re
from dataclasses import dataclass
from typing import Literal, cast

from mu_ref.errors import CallError
from mu_ref.settings.catalog import NONE_ID, Catalog, Setting

__all__ = ["Call", "Verb", "format_call", "parse_call"]

Verb = Literal["set", "increase", "decrease", "open", "none"]

_SHAPE = re.compile(r"([a-z]+)\(([^()]*)\)")
_INTEGER = re.compile(r"0|[1-9][0-9]{0,8}")  # nine digits are more than any range needs
_TOGGLE_VALUES = ("on", "off")
_SHOWN = 80  # characters of a refused text that a message repeats


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """Hold one call; `parse_call` is what guarantees that it fits a catalog."""

    verb: Verb
    setting_id: str = NONE_ID  # "none" for none(), which names no setting
    value: int | str | None = None  # int for a level, str for a toggle or a choice

    def __str__(self) -> str:
        return format_call(self)


def format_call(call: Call) -> str:
    """Write a call as canonical text.

    Args:
        call: the call.

    Returns:
        Text such as `set(display.brightness, 40)`.
    """
    if call.verb == "none":
        return "none()"
    value = "" if call.value is None else f", {call.value}"
    return f"{call.verb}({call.setting_id}{value})"


def parse_call(text: str, catalog: Catalog) -> Call:
    """Read canonical text as a call and check it against a catalog.

    The value of `set` on a level lies in [min, max]; the amount of `increase` and `decrease` lies
    in [1, max - min], since a larger step could never be carried out in full.

    Args:
        text: the text, exactly; nothing is stripped or folded.
        catalog: says which ids exist and which values each takes.

    Returns:
        The call; `format_call` gives back `text`.

    Raises:
        CallError: the text is not canonical, or the catalog does not allow the call.
    """
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise CallError(
            f"call must have the form verb(id) or verb(id, value) in lower case, got {_show(text)}"
        )
    verb, inside = match.groups()
    if verb == "none":
        if inside:
            raise CallError(f"none() must have nothing in its parentheses, got {_show(text)}")
        return Call(verb="none")
    if verb not in ("set", "increase", "decrease", "open"):
        raise CallError(f"verb must be set, increase, decrease, open or none, got {_show(verb)}")
    setting_id, separator, value = inside.partition(", ")
    if "," in setting_id:
        raise CallError(f"id and value must be separated by ', ', got {_show(text)}")
    setting = catalog.lookup(setting_id)
    return Call(
        verb=cast(Verb, verb),
        setting_id=setting.id,
        value=_read_value(verb, setting, value if separator else None),
    )


def _read_value(verb: str, setting: Setting, value: str | None) -> int | str | None:
    if verb == "open":
        if value is not None:
            raise CallError(f"open({setting.id}) must have no value, got {_show(value)}")
        return None
    if verb == "set":
        return _read_set_value(setting, value)
    if setting.kind != "level":
        raise CallError(
            f"{verb} must name a level, got {setting.id!r}, a {setting.kind}; use set or open"
        )
    if value is None:
        return None
    return _read_integer(f"amount of {verb}({setting.id})", value, 1, setting.span)


def _read_set_value(setting: Setting, value: str | None) -> int | str:
    if setting.kind == "page":
        raise CallError(f"set must name a toggle, level or choice, got {setting.id!r}, a page")
    if value is None:
        raise CallError(f"set({setting.id}) must have a value, got none")
    if setting.kind == "level":
        return _read_integer(f"value of {setting.id}", value, setting.minimum, setting.maximum)
    allowed = _TOGGLE_VALUES if setting.kind == "toggle" else setting.choices
    if value not in allowed:
        raise CallError(
            f"value of {setting.id} must be one of {', '.join(allowed)}, got {_show(value)}"
        )
    return value


def _read_integer(what: str, text: str, low: int, high: int) -> int:
    if not _INTEGER.fullmatch(text):
        raise CallError(
            f"{what} must be an integer without sign or leading zeros, got {_show(text)}"
        )
    if not low <= int(text) <= high:
        raise CallError(f"{what} must lie in [{low}, {high}], got {text}")
    return int(text)


def _show(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
