"""The numbers that a query names, in digits or words, and those that the rules of labelling add.

A call may bear no other number. Whether a number lies in a level's range is decided afterwards, in
`trie.py`: a number that stands in the query and leaves the range makes the call none().
"""

import re
from dataclasses import dataclass

from mu_ref.settings.catalog import Setting
from mu_ref.settings.queries.labelled import folded_text
from mu_ref.settings.queries.number_words import word_values

__all__ = ["Numbers", "read_numbers"]

_DIGITS = re.compile(r"(?<![a-z0-9.,])[0-9]{1,9}(?:[.,][0-9]+)?(?![0-9])")
_DOZEN = re.compile(r"\bdozen\b")
_PARTS = re.compile(r"(?: and)?(?: a)? (half|quarter)\b")
_HOURS = re.compile(r"\s*-?(?:hours?|hrs?|h)\b")
_DAYS = re.compile(r"\s*-?days?\b")
_TIMES = re.compile(r"\s*-?(?:x|times|fold)\b")
_MINUTES_MORE = re.compile(r"\bhours? and ")
_PHRASES = (  # minutes
    (re.compile(r"\bhour and (?:a )?half\b"), 90),
    (re.compile(r"\bhalf (?:an |a |of an )?(?:hours?|hr)\b"), 30),
    (re.compile(r"\bthree quarters? (?:of an )?hour\b"), 45),
    (re.compile(r"\bquarter(?: of an)? hour\b|\bquarter\b"), 15),
    (re.compile(r"\bcouple of hours\b"), 120),
    (re.compile(r"\bhour\b"), 60),
    (re.compile(r"\bcouple\b"), 2),
    (re.compile(r"\bminute\b"), 1),
)
_WEEKS = ((re.compile(r"\bweek\b"), 1), (re.compile(r"\bcouple\b|\bfortnight\b"), 2),
          (re.compile(r"\bmonth\b"), 4))  # fmt: skip
_MAXIMUM = re.compile(
    r"\b(?:max\w*|full\w*|most|\w+est|top|all the way|way up|as \w+ as|whole|completely|limit|"
    r"crank\w*|blast|peak|total\w*|ceiling|possible|ultimate|huge\w*|everything|hundred)\b"
)
_MINIMUM = re.compile(r"\b(?:min\w*|least|\w+est|tiny|all the way|way down|as \w+ as|bottom|floor|"
                      r"possible|single|one|line)\b")  # fmt: skip
_SHARES = ((re.compile(r"\b(?:half\w*|middle|mid\w*|medium|cent(?:er|re))\b"), 50),
           (re.compile(r"\bthree.quarters?\b"), 75), (re.compile(r"\bquarter\b"), 25),
           (re.compile(r"\bfifth\b"), 20), (re.compile(r"\bthird\b"), 33))  # fmt: skip
_MULTIPLES = ((re.compile(r"\b(?:double|twice)\b"), 200), (re.compile(r"\btriple\b"), 300),
              (re.compile(r"\bquadruple\b"), 400),
              (re.compile(r"\b(?:normal|default|usual|standard|regular|original|native|actual|"
                          r"reset|back)\b"), 100))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a query says about amounts; each number once, in the order of the query."""

    text: str  # folded
    named: tuple[int, ...]
    minutes: tuple[int, ...]  # of levels in minutes: hours are read, and phrases such as "an hour"
    weeks: tuple[int, ...]  # of levels in weeks: days are read
    times: tuple[int, ...]  # percent of what is named as "2x" or "one and a half times"

    def of_level(self, setting: Setting) -> tuple[int, ...]:
        """Return what `set` of a level may bear, out of its range or not, ascending.

        0 is always among it where a level has it: it stands for off and never.
        """
        low, high = setting.minimum, setting.maximum
        found = set(self._own(setting))
        if low == 0 or _MINIMUM.search(self.text):
            found.add(low)
        if _MAXIMUM.search(self.text):
            found.add(high)
        if (low, high) == (0, 100):
            found |= _cued(_SHARES, self.text)
        elif setting.unit == "percent":
            found |= _cued(_MULTIPLES, self.text) | set(self.times)
        return tuple(sorted(found))

    def amounts(self, setting: Setting) -> tuple[int, ...]:
        """Return the amounts that `increase` and `decrease` may bear, in range, ascending."""
        found = set(self._own(setting))
        if (setting.minimum, setting.maximum) == (0, 100):
            found |= _cued(_SHARES, self.text)
        found |= {1} if re.search(r"\b(?:single|one|notch|step)\b", self.text) else set()
        return tuple(sorted(value for value in found if 1 <= value <= setting.span))

    def _own(self, setting: Setting) -> tuple[int, ...]:
        return {"minutes": self.minutes, "weeks": self.weeks}.get(setting.unit, self.named)


def _cued(cues: tuple[tuple[re.Pattern[str], int], ...], text: str) -> set[int]:
    return {value for pattern, value in cues if pattern.search(text)}


def read_numbers(query: str) -> Numbers:
    """Read the numbers of a query.

        >>> read_numbers("Sleep after two hours, not 45 minutes").minutes
        (120, 45)

    Args:
        query: any text.

    Returns:
        Its numbers.
    """
    text = folded_text(query)
    named: list[float] = []
    minutes: list[float] = []
    weeks: list[float] = []
    times: list[float] = []
    for end, number in sorted(_spans(text)):
        named.append(number)
        part = _PARTS.match(text, end)
        more = 0.0 if part is None else {"half": 0.5, "quarter": 0.25}[part[1]]
        behind = end if part is None else part.end()
        hours = _HOURS.match(text, behind) or _HOURS.match(text, end)
        minutes.append(60 * (number + more) if hours else number)
        if hours and _MINUTES_MORE.match(text, hours.end() - len(hours.group().lstrip(" -"))):
            minutes += [60 * number + other for _, other in _spans(text[hours.end() :])[:1]]
        weeks.append(number / 7 if _DAYS.match(text, end) else number)
        if _TIMES.match(text, behind):
            times.append(100 * (number + more))
    if re.search(r"\b(?:an|one) hour and ", text):
        minutes += [60 + other for _, other in _spans(text[text.index("hour and ") :])[:1]]
    minutes += [value for pattern, value in _PHRASES if pattern.search(text)]
    weeks += [value for pattern, value in _WEEKS if pattern.search(text)]
    return Numbers(text, _whole(named), _whole(minutes), _whole(weeks), _whole(times))


def _whole(numbers: list[float]) -> tuple[int, ...]:
    """Return those that a call can bear, each once."""
    return tuple(dict.fromkeys(int(n) for n in numbers if n == int(n) and n <= 999_999_999))


def _spans(text: str) -> list[tuple[int, float]]:
    """Return (end, value) of every number in digits or words."""
    found = [(m.end(), _number(m.group())) for m in _DIGITS.finditer(text)]
    found += [(m.end(), 6.0 if text[: m.start()].endswith("half a ") else 12.0)
              for m in _DOZEN.finditer(text)]  # fmt: skip
    return sorted([*found, *word_values(text)])


def _number(digits: str) -> float:
    whole = re.sub(",(?=[0-9]{3}$)", "", digits)
    return float(whole.replace(",", "."))
