"""Numbers that a user gives: what they may be, one check, one error text.

A `Range` has no open end: a number that no machine could serve is refused before any work, and the
message says why the ceiling is where it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from numbers import Integral, Real
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from mu_ref.border.text import short
from mu_ref.errors import InputError, MuRefError

__all__ = [
    "BATCH", "BEAMS", "BLOCKS", "COUNT", "DRAFTED", "EPOCHS", "FACTOR", "HEADS", "LAYERS",
    "MODEL_RANGES", "NEW_TOKENS", "PORT", "RANK", "RATE", "SEED", "SHARE", "SIZE", "STACK_RANGES",
    "STRENGTH", "THETA", "TOKENS", "WEIGHTS", "Range", "check_fields", "check_kinds", "token_range",
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
            raise error(f"{what} must be {self}, got {short(value)}{why}")
        return value


SHARE = Range(low=0, high=1, whole=False)
SEED = Range(low=0, high=2**63 - 1, why="seeds are 64-bit integers")
COUNT = Range(low=1, high=10**9, why="no run does a thousand million things")
PORT = Range(low=0, high=65535, why="a port has 16 bits; 0 is any that is free")

# of training
EPOCHS = Range(low=1, high=10**6, why="no model reads its texts a million times")
BATCH = Range(low=1, high=2**16, why="the tape of a larger batch fits no memory")
STRENGTH = Range(low=0, high=1000, whole=False, why="it would drown everything else")
RATE = Range(low=0, above=True, high=10, whole=False, why="larger steps leave every minimum")
RANK = Range(low=1, high=1024, why="a change of so high a rank is no smaller than the layer")

# of models
LAYERS = Range(low=1, high=1024, why="the deepest models have some hundred layers")
SIZE = Range(low=1, high=2**24, why="widths and vocabularies of models stay below 16 million")
NEW_TOKENS = Range(
    low=0, high=2**14, why="each token reads all before it, so that many would take hours"
)
TOKENS = Range(low=1, high=2**20, why="a million tokens is the longest context there is")
WEIGHTS = Range(low=1, high=10**12, why="no machine holds a million million weights")
FACTOR = Range(low=0, above=True, high=10**6, whole=False, why="no factor or cap is so large")

# of the fields of a model
HEADS = Range(low=1, high=2**12, why="no layer has thousands of heads")
THETA = Range(
    low=0, above=True, high=10**12, whole=False, why="what turns more slowly stands still"
)
STACK_RANGES: Mapping[str, Range] = MappingProxyType({
    "n_layers": LAYERS, "d_model": SIZE, "d_ff": SIZE, "n_heads": HEADS, "n_kv_heads": HEADS,
    "d_head": SIZE, "attention_scale": FACTOR, "attention_softcap": FACTOR,
    "window": Range(low=0, high=TOKENS.high, why=TOKENS.why),
    "norm_eps": Range(low=0, high=1, whole=False, why="it only keeps a norm from dividing by 0"),
    "embed_scale": FACTOR, "rope_theta": THETA,
    "rope_ntk_factor": Range(low=1, high=1024, whole=False, why="no text grows by so much"),
    "rope_base_len": TOKENS, "rope_factor": FACTOR,
})  # fmt: skip
MODEL_RANGES: Mapping[str, Range] = MappingProxyType({
    "vocab_size": SIZE, "encoder_vocab_size": SIZE, "final_softcap": FACTOR, "max_len": TOKENS,
    "dropout": Range(low=0, high=0.99, whole=False, why="a rate of 1 leaves nothing"),
})  # fmt: skip

# of drafters
BEAMS = Range(low=1, high=64, why="every beam is a row of every product of a step")
DRAFTED = Range(low=1, high=64, why="drafts so long are never kept whole")
BLOCKS = Range(low=0, high=64, why="a drafter with so many layers is no draft")
REWORDINGS = Range(low=0, high=64, why="answering all queries so often takes hours")


def token_range(vocab_size: int) -> Range:
    """Return what a token id of a vocabulary may be."""
    return Range(low=0, high=vocab_size - 1, why=f"the vocabulary has {vocab_size:,} tokens")


def check_fields(
    values: object, ranges: Mapping[str, Range], error: type[MuRefError], where: str = ""
) -> None:
    """Check numbers of an object; one that is None is not given.

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


def check_kinds(values: Any, error: type[MuRefError], where: str = "") -> None:
    """Check that each field of a dataclass holds what its annotation says.

    Numbers are whole where an int belongs; no boolean is a number, and None stands only where the
    annotation allows it.

    Args:
        values: a dataclass of numbers, texts, booleans, choices (Literal), tuples and dataclasses.
        error: class to raise.
        where: stands before the field in the message: a file and ": ".

    Raises:
        MuRefError: `error`, for the first field that holds something else.
    """
    for field in fields(values):
        value = getattr(values, field.name)
        rule = _broken(field.type, value)
        if rule:
            raise error(f"{where}{field.name} must be {rule}, got {short(value)}")


def _broken(kind: Any, value: Any) -> str:
    """The rule that a value breaks; empty if it is of the kind."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if value is None:
        return "" if NoneType in kinds else f"{_rule(kinds[0])} and not null"
    rules = [_rule(k) for k in kinds if k is not NoneType]
    if any(_is_of(k, value) for k in kinds if k is not NoneType):
        return ""
    return " or ".join(rules) + (", or null" if NoneType in kinds else "")


def _rule(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        return f"a list, each {_rule(get_args(kind)[0])}"
    named = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return named.get(kind, f"a {getattr(kind, '__name__', kind)}")


def _is_of(kind: Any, value: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_of(get_args(kind)[0], v) for v in value)
    if get_origin(kind) is frozenset:
        return isinstance(value, frozenset)
    if kind in (int, float):
        number = Integral if kind is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, kind)


def _shown(number: float) -> str:
    if number == int(number) and abs(number) < 2**63:
        return f"{int(number):,}"
    return f"{number:g}"
