"""English number words, and the replacement of a number in a query together with its call.

Used for training only: the model itself learns to read numbers, nothing parses them for it.
"""

import re
from collections.abc import Iterator
from functools import cache

import numpy as np

from mu_ref.settings.catalog import Catalog, Setting

__all__ = ["find_number", "number_words", "pick_level", "vary_number", "word_values"]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ONES = _listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_TENS = _listed("? ? twenty thirty forty fifty sixty seventy eighty ninety")
_MINUTES = (1, 2, 3, 5, 10, 15, 20, 25, 30, 40, 45, 50, 60, 90, 120, 150, 180, 240, 300)
_LARGEST = 1999  # above the largest range of the catalog, 1600

_LEVEL_CALL = re.compile(r"(set|increase|decrease)\(([a-z_.0-9]+), ([0-9]+)\)")
_DIGITS = re.compile(r"(?<![\w.,:/+-])[0-9]+(?![0-9]|[.,:/-][0-9]|k\b|x\b)")
_WORD = "|".join([*_ONES, *_TENS[2:], "hundred", "thousand"])
_WORDS = re.compile(rf"\b(?:a hundred|(?:{_WORD}))(?:(?:-| and | )(?:{_WORD}))*\b")
_PERCENT = re.compile(r" ?%| percent\b| per cent\b")
# words that say why the number is what it is, so that another number would contradict them
_FIXED = re.compile(
    r"\b(?:half|max|maximum|min|minimum|full|always|never|lowest|highest|whole|double|twice|as is"
    r"|triple|standard|default|normal|most|least|smallest|largest|slowest|fastest|all the way"
    r"|quarter|faint|tad)\b"
)


def number_words(value: int, joiner: str = "-") -> str:
    """Write an integer in words.

    Args:
        value: 0..1999.
        joiner: what stands between tens and ones.

    Returns:
        Words such as `one hundred and twenty-five`.
    """
    if value < 20:
        return _ONES[value]
    if value < 100:
        tens, ones = divmod(value, 10)
        return _TENS[tens] + (joiner + _ONES[ones] if ones else "")
    if value < 1000 or value % 1000 >= 100:
        hundreds, rest = divmod(value, 100)
        return f"{number_words(hundreds)} hundred" + (
            f" and {number_words(rest, joiner)}" if rest else ""
        )
    thousands, rest = divmod(value, 1000)
    return f"{_ONES[thousands]} thousand" + (f" and {number_words(rest, joiner)}" if rest else "")


@cache
def _values() -> dict[str, int]:
    """Return every accepted wording with its value."""
    values: dict[str, int] = {}
    for value in range(_LARGEST + 1):
        for joiner in ("-", " "):
            words = number_words(value, joiner)
            values[words] = values[words.replace(" and ", " ")] = value
            if words.startswith("one hundred"):
                values["a" + words[3:]] = value
                values[words[4:]] = value  # "hundred and fifty"
    return values


def find_number(query: str, value: int) -> tuple[int, int] | None:
    """Find the one place where a query names an integer.

    Args:
        query: lower-case text.
        value: the integer, 0..1999.

    Returns:
        (start, end) of the digits or words; None if the integer is named nowhere, more than once,
        or only as the word `one`, which more often is a pronoun.
    """
    spans = [match.span() for match in _DIGITS.finditer(query) if int(match.group()) == value]
    values = _values()
    spans += [
        match.span()
        for match in _WORDS.finditer(query)
        if values.get(match.group()) == value and match.group() != "one"
    ]
    return spans[0] if len(spans) == 1 else None


def word_values(text: str) -> Iterator[tuple[int, int]]:
    """Find the integers that a text names in words.

    Args:
        text: lower case.

    Yields:
        (where the words end, value), in order; of words that run on without being one number, each
        by itself.
    """
    values = _values()
    for match in _WORDS.finditer(text):
        whole = match.group()
        head, _, tail = whole.replace("-", " ").partition(" ")
        value = values.get(whole, values.get(f"one {whole}"))
        if value is None and values.get(head, 0) in range(1, 20) and values.get(tail, 0) >= 10:
            value = 100 * values[head] + values[tail]  # "one seventy-five"
        if value is not None:
            yield match.end(), value
            continue
        for word in re.finditer(r"[a-z]+", whole):
            if word.group() in values:
                yield match.start() + word.end(), values[word.group()]


def vary_number(
    query: str, call: str, catalog: Catalog, rng: np.random.Generator
) -> tuple[str, str]:
    """Replace the number of a level's call, in the query and in the call alike.

    Args:
        query: lower-case text.
        call: its call, canonical text.
        catalog: gives the range of the level.
        rng: makes the choices.

    Returns:
        (query, call), unchanged unless the call holds an integer for a level that the query
        names exactly once.
    """
    match = _LEVEL_CALL.fullmatch(call)
    if match is None or int(match[3]) > _LARGEST or _FIXED.search(query):
        return query, call
    setting = catalog.lookup(match[2])
    span = find_number(query, int(match[3])) if setting.kind == "level" else None
    if span is None:
        return query, call
    amount = match[1] != "set"
    value = _pick_amount(setting, rng) if amount else pick_level(setting, rng)
    head, tail = query[: span[0]], query[span[1] :]
    # letters right after the digits ("10min") leave no room for words
    as_words = rng.random() < 0.3 and not tail[:1].isalpha()
    shown = number_words(value, "-" if rng.random() < 0.5 else " ") if as_words else str(value)
    if head.endswith((" a ", " an ")):
        return query, call  # the article might no longer fit
    tail = _vary_percent(tail, as_words, rng)
    return head + shown + tail, f"{match[1]}({match[2]}, {value})"


def _vary_percent(tail: str, as_words: bool, rng: np.random.Generator) -> str:
    match = _PERCENT.match(tail)
    if match is None:
        return tail
    draw = rng.random()
    unit = " percent" if as_words or draw < 0.45 else "%" if draw < 0.9 else " %"
    return unit + tail[match.end() :]


def pick_level(setting: Setting, rng: np.random.Generator) -> int:
    """Choose a value that people are likely to ask of a level.

    Args:
        setting: a level.
        rng: makes the choice.

    Returns:
        An integer in [minimum, maximum]: for minutes often a usual one, for wide ranges mostly a
        multiple of 5, else any.
    """
    low, high = setting.minimum, setting.maximum
    draw = rng.random()
    if setting.unit == "minutes" and draw < 0.7:
        usual = [value for value in _MINUTES if low <= value <= high]
        return usual[int(rng.random() * len(usual))]
    if setting.unit != "minutes" and high - low > 50 and setting.unit != "lines" and draw < 0.8:
        step = 25 if high > 400 and draw < 0.4 else 5
        return low + step * int(rng.random() * ((high - low) // step + 1))
    low = max(low, 1) if setting.unit in ("minutes", "weeks") else low  # 0 is said otherwise
    return low + int(rng.random() * (high - low + 1))


def _pick_amount(setting: Setting, rng: np.random.Generator) -> int:
    most = min(setting.span, 400 if setting.maximum > 400 else 60)
    if most > 30 and rng.random() < 0.7:
        return 5 * (1 + int(rng.random() * (most // 5)))
    return 1 + int(rng.random() * min(most, 30))
