"""Look words up: bare names, which open, and short queries that are no clear wish."""

import difflib
import re
from collections.abc import Iterator

from mu_ref.settings.catalog import Catalog, Setting
from mu_ref.settings.queries.labelled import folded_text, split_key
from mu_ref.settings.queries.templates import WISHES, names_of

__all__ = ["MOST_WORDS", "bare_names", "look_up"]

MOST_WORDS = 2  # of a query that is looked up; a longer one says what it wants
NEAR = 0.8  # likeness of a misspelled word: one letter of five
_WORD = re.compile(r"[a-z]+")  # numbers are no names


def look_up(query: str, catalog: Catalog, n: int = 5) -> list[Setting]:
    """Find the settings whose title or id has the words of a short query.

        >>> from mu_ref.settings.catalog import load_catalog
        >>> [found.title for found in look_up("bluetoth", load_catalog())][:1]
        ['Bluetooth']

    Args:
        query: any text.
        catalog: where to look.
        n: at most so many.

    Returns:
        The settings that have most of the words, those with the shortest title first; none for a
        query of more than two words.
    """
    words = _WORD.findall(folded_text(query))
    if not 1 <= len(words) <= MOST_WORDS:
        return []
    scored = [(sum(_likeness(word, setting) for word in words), setting) for setting in catalog]
    kept = [(score, setting) for score, setting in scored if score > 0]
    kept.sort(key=lambda pair: (-pair[0], len(pair[1].title), pair[1].id))
    return [setting for _, setting in kept[:n]]


def bare_names(catalog: Catalog) -> dict[str, str]:
    """Return {folded name: id} of all names that say which setting, and no wish.

    A setting that is named without saying what to change is opened, by the rules of labelling. A
    name of two settings is left out, and so is one that is a wish, such as "do not disturb".
    """
    found: dict[str, set[str]] = {}
    for setting in catalog:
        for name in names_of(setting):
            key = split_key(name)
            if key not in WISHES and key.partition(" ")[0] not in WISHES:
                found.setdefault(key, set()).add(setting.id)
    return {key: next(iter(ids)) for key, ids in found.items() if len(ids) == 1}


def _likeness(word: str, setting: Setting) -> float:
    """Return 1 for a word of the setting, less for a beginning or a misspelling, or 0."""
    best = 0.0
    for known in _words(setting):
        if known == word:
            return 1.0
        if len(word) >= 3 and known.startswith(word):
            best = max(best, 0.9)
        elif len(word) >= 4 and best < NEAR:
            likeness = difflib.SequenceMatcher(None, word[:60], known).ratio()
            best = max(best, likeness if likeness >= NEAR else 0.0)
    return best


def _words(setting: Setting) -> Iterator[str]:
    yield from _WORD.findall(setting.title.lower())
    yield from _WORD.findall(setting.id.replace("_", " "))
