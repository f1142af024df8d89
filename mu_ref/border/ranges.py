"""Numbers that a user gives: what they may be, one check, one error text.

A `Range` has no open end: a number that no machine could serve is refused before any work, and the
message says why the ceiling is where it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real
from typing import Any

from mu_ref.errors import InputError, MuRefError

__all__ = [
    "BEAMS", "BLOCKS", "COUNT", "DRAFTED", "LAYERS", "RATE", "SEED", "SHARE", "SIZE", "TOKENS",
    "Range", "check_fields", "got",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """What a number may be; NaN, infinities, texts and booleans never fit.

    >>> from mu_ref.border.ranges import Range
    >>> beams = Range(low=1, high=64, why="each beam is a row of every product")
    >>> beams.check("--beam-width", 4)
    4
    >>> beams.check("--beam-width", 100)
    Traceback (most recent call last):
    mu_ref.errors.InputError: --beam-width must be a whole number from 1 to 64, got 100; each beam \
is a row of every product
    """

    low: float
    high: float
    why: str = ""  # the ceiling is where it is
    whole: bool = True
    above: bool = False  # `low` itself does not fit

    def __str__(self) -> str:
        """The rule, as it stands after "must be"."""
        kind = "a whole number" if self.whole else "a number"
        if self.above:
            return f"{kind} above {_shown(self.low)} and at most {_shown(self.high)}"
        return f"{kind} from {_shown(self.low)} to {_shown(self.high)}"

    def check(self, what: str, value: Any, error: type[MuRefError] = InputError) -> Any:
        """Return `value` if it fits.

        Args:
            what: the field or option, with its file, for the message.
            value: anything.
            error: class to raise.

        Returns:
            `value`, unchanged.

        Raises:
            MuRefError: (or `error`) `value` does not fit; says the rule and the reason.
        """
        if type(value) is int and self.low <= value <= self.high and not self.above:
            return value  # what most are, without a look at abstract classes
        kind = Integral if self.whole else Real
        fits = isinstance(value, kind) and not isinstance(value, bool)
        # an integer is finite, and may be too large for isfinite
        fits = fits and (isinstance(value, Integral) or isfinite(value))
        if not (fits and self.low <= value <= self.high and not (self.above and value == self.low)):
            why = f"; {self.why}" if self.why and fits and value > self.high else ""
            raise error(f"{what} must be {self}, got {got(value)}{why}")
        return value


SHARE = Range(low=0, high=1, whole=False)
SEED = Range(low=0, high=2**63 - 1, why="seeds are 64-bit integers")
COUNT = Range(low=1, high=10**9, why="no run does a thousand million things")
RATE = Range(low=0, above=True, high=10, whole=False, why="larger steps leave every minimum")

# of models
LAYERS = Range(low=1, high=1024, why="the deepest models have some hundred layers")
SIZE = Range(low=1, high=2**24, why="widths and vocabularies of models stay below 16 million")
TOKENS = Range(low=1, high=2**20, why="a million tokens is the longest context there is")

# of drafters
BEAMS = Range(low=1, high=64, why="every beam is a row of every product of a step")
DRAFTED = Range(low=1, high=64, why="drafts so long are never kept whole")
BLOCKS = Range(low=0, high=64, why="a drafter with so many layers is no draft")


def check_fields(
    values: object, ranges: Mapping[str, Range], error: type[MuRefError], where: str = ""
) -> None:
    """Check fields of an object; one that is None is not given.

    Args:
        values: with these attributes.
        ranges: {attribute: what it may be}.
        error: class to raise.
        where: stands before the attribute in the message: a file and ": ".

    Raises:
        MuRefError: `error`, for the first that does not fit.
    """
    for name, allowed in ranges.items():
        value = getattr(values, name)
        if value is not None:
            allowed.check(f"{where}{name}", value, error)


def _shown(number: float) -> str:
    if number == int(number) and abs(number) < 2**63:
        return f"{int(number):,}"
    return f"{number:g}"


def got(value: Any) -> str:
    """Return a value as it stands after "got" in a message, cut where it would fill the screen."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "an integer of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
