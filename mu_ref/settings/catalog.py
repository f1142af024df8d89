"""Read the catalog of Settings: which settings exist, of what kind, with what range or choices.

This file knows nothing of queries or of the text form of a call (see `calls.py`), and it never
touches the machine it runs on: a URI is only reported.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from mu_ref.border.files import DATA
from mu_ref.border.ranges import Range
from mu_ref.border.reading import read_json
from mu_ref.border.text import short
from mu_ref.errors import CallError, InputError, check_choice

__all__ = ["DATA", "NONE_ID", "Catalog", "Kind", "Setting", "load_catalog"]

Kind = Literal["toggle", "level", "choice", "page"]

NONE_ID = "none"  # stands for a setting id in the call none(), so no setting may have it

_ID = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_CHOICE = re.compile(r"[a-z0-9_]+")
LEVEL = Range(low=0, high=999_999_999, why="a call writes a number in at most nine digits")
_COMMON_KEYS = {"id", "title", "kind", "uri"}
_EXTRA_KEYS = {
    "toggle": set[str](),
    "page": set[str](),
    "level": {"unit", "min", "max"},
    "choice": {"choices"},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Describe one setting of the catalog."""

    id: str  # dotted lower-case name, as it stands in a call
    title: str  # what Windows calls it, for people
    kind: Kind
    uri: str  # ms-settings: address of the page that holds it
    unit: str = ""  # level only: percent, minutes, step, lines, weeks
    minimum: int = 0  # level only, in `unit`
    maximum: int = 0  # level only, in `unit`
    choices: tuple[str, ...] = ()  # choice only, in the order of the catalog

    @property
    def span(self) -> int:
        """Largest possible change of a level, in its unit."""
        return self.maximum - self.minimum


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """Hold all settings by id."""

    settings: Mapping[str, Setting]

    def __len__(self) -> int:
        return len(self.settings)

    def __iter__(self) -> Iterator[Setting]:
        return iter(self.settings.values())

    def __contains__(self, setting_id: object) -> bool:
        return setting_id in self.settings

    def lookup(self, setting_id: str) -> Setting:
        """Return the setting with this id.

        Args:
            setting_id: an id such as `display.brightness`.

        Returns:
            The setting.

        Raises:
            CallError: no setting has this id; the message lists the nearest ids.
        """
        found = self.settings.get(setting_id)
        if found is None:
            # difflib is quadratic in the length, and the text may come from anyone
            nearest = difflib.get_close_matches(setting_id[:60], self.settings, n=3, cutoff=0.4)
            fix = f"; nearest: {', '.join(nearest)}" if nearest else ""
            raise CallError(f"setting id must be in the catalog, got {setting_id[:60]!r}{fix}")
        return found


def load_catalog(path: Path | None = None) -> Catalog:
    """Read and validate a catalog file.

    Args:
        path: JSON file; without it, the catalog shipped with the package.

    Returns:
        The catalog, settings in the order of the file.

    Raises:
        InputError: the file cannot be read, is not JSON, or describes a setting wrongly.
    """
    path = path or DATA / "catalog.json"
    document = read_json(path, "a catalog in JSON", InputError)
    entries = document.get("settings") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"catalog must have a non-empty list 'settings', got {path} without one")
    settings: dict[str, Setting] = {}
    for index, entry in enumerate(entries):
        setting = _read_setting(f"{path.name}: settings[{index}]", entry)
        if setting.id in settings:
            raise InputError(
                f"{path.name}: setting ids must be unique, got {short(setting.id)} twice"
            )
        settings[setting.id] = setting
    return Catalog(settings=settings)


def _read_setting(where: str, entry: Any) -> Setting:
    if not isinstance(entry, dict):
        raise InputError(f"{where} must be an object, got {type(entry).__name__}")
    kind = check_choice(f"{where}: kind", _text(where, entry, "kind"), get_args(Kind), InputError)
    wanted = _COMMON_KEYS | _EXTRA_KEYS[kind]
    if set(entry) != wanted:
        raise InputError(
            f"{where} must have exactly the keys {', '.join(sorted(wanted))} for a {kind}, "
            f"got {short(sorted(entry))}"
        )
    setting_id = _text(where, entry, "id")
    if not _ID.fullmatch(setting_id) or setting_id == NONE_ID:
        raise InputError(
            f"{where}: id must be dotted lower-case words other than {NONE_ID!r}, "
            f"got {short(setting_id)}"
        )
    uri = _text(where, entry, "uri")
    if not uri.startswith("ms-settings:"):
        raise InputError(f"{where}: uri must start with 'ms-settings:', got {short(uri)}")
    minimum, maximum = _read_range(where, entry) if kind == "level" else (0, 0)
    return Setting(
        id=setting_id,
        title=_text(where, entry, "title"),
        kind=cast(Kind, kind),
        uri=uri,
        unit=_text(where, entry, "unit") if kind == "level" else "",
        minimum=minimum,
        maximum=maximum,
        choices=_read_choices(where, entry) if kind == "choice" else (),
    )


def _text(where: str, entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InputError(f"{where}: {key} must be a non-empty string, got {short(value)}")
    return value


def _read_range(where: str, entry: dict[str, Any]) -> tuple[int, int]:
    low, high = entry["min"], entry["max"]
    for name in ("min", "max"):
        LEVEL.check(f"{where}: {name}", entry[name])
    if low >= high:
        raise InputError(f"{where}: min must be below max, got {low} and {high}")
    return low, high


def _read_choices(where: str, entry: dict[str, Any]) -> tuple[str, ...]:
    choices = entry["choices"]
    fits = (
        isinstance(choices, list)
        and len(choices) >= 2
        and all(isinstance(choice, str) and _CHOICE.fullmatch(choice) for choice in choices)
        and len(set(choices)) == len(choices)
    )
    if not fits:
        raise InputError(
            f"{where}: choices must be two or more distinct words of a-z, 0-9 and _, "
            f"got {short(choices)}"
        )
    return tuple(choices)
