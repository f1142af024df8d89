"""Words for `augment.py`: what may be said for what without changing the call.

The words stand in `mu_ref/settings/data/phrases.toml`. Each rule is a pattern over lower-case text
with its replacements, and says for which calls it is safe: "display" is a screen in "the display"
but not in "display settings for apps", and "laptop" and "monitor" are opposites where several
screens are arranged.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from mu_ref.settings.catalog import DATA

__all__ = ["Phrases", "Swap", "phrases"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Swap:
    """Hold one rule: wherever the pattern matches, any of the words may stand."""

    pattern: re.Pattern[str]
    words: tuple[str, ...]
    calls: str = ""  # the call must start with this
    unless: frozenset[str] = frozenset()  # setting ids for which the rule would change the call


@dataclass(frozen=True, kw_only=True, slots=True)
class Phrases:
    """Hold all rules and words; the file says what each is for."""

    synonyms: tuple[Swap, ...]
    contractions: tuple[Swap, ...]
    spellings: tuple[Swap, ...]
    fillers_before: tuple[str, ...]
    fillers_before_verb: tuple[str, ...]
    fillers_after: tuple[str, ...]
    imperatives: frozenset[str]
    protected: frozenset[str]
    weak_words: frozenset[str]
    key_neighbours: Mapping[str, str]


@cache
def phrases() -> Phrases:
    """Read the words, once."""
    data = tomllib.loads((DATA / "phrases.toml").read_text(encoding="utf-8"))
    fillers = ("fillers_before", "fillers_before_verb", "fillers_after")
    sets = ("imperatives", "protected", "weak_words")
    words: dict[str, Any] = {name: tuple(data[name]) for name in fillers}
    words |= {name: frozenset(data[name].split()) for name in sets}
    return Phrases(
        synonyms=tuple(_swap(**rule) for rule in data["synonyms"]),
        contractions=tuple(_swap(**rule) for rule in data["contractions"]),
        spellings=tuple(_swap(rf"\b(?:{row})", row.split("|")) for row in data["spellings"]),
        key_neighbours=data["key_neighbours"],
        **words,
    )


def _swap(pattern: str, words: list[str], calls: str = "", unless: str = "") -> Swap:
    ids = frozenset(unless.split())
    return Swap(pattern=re.compile(pattern), words=tuple(words), calls=calls, unless=ids)
