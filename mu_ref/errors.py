"""Errors that a user can cause, and the shape check used where data enters.

Every message has the form `<what> must <rule>, got <value>; <likely fix>`. Inner layers do not
check: their callers have.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = [
    "CallError",
    "ConfigError",
    "InputError",
    "MuRefError",
    "QuantizationError",
    "WeightsError",
    "check_choice",
    "located",
    "nearest",
]


T = TypeVar("T")
MANY = 24  # choices that no line holds


class MuRefError(ValueError):
    """Base of every error that `mu_ref` and `npu_sim` raise on purpose; its text is for the user.

    >>> import mu_ref
    >>> try:
    ...     mu_ref.preset("mu-331m")
    ... except mu_ref.MuRefError as error:
    ...     print(str(error)[:26])
    preset must be one of mu-3
    """


class ConfigError(MuRefError):
    """A model configuration contradicts itself or asks for what is not supported."""


class WeightsError(MuRefError):
    """A weight file is damaged, foreign, or does not fit its configuration."""


class InputError(MuRefError):
    """A file, flag or array given by the user cannot be used."""


class QuantizationError(MuRefError):
    """A scale, range or calibration set cannot be used for integer arithmetic."""


class CallError(MuRefError):
    """A text is not a call of the Settings grammar, or not one the catalog allows."""


def check_choice(
    what: str, value: T, choices: Iterable[T], error: type[MuRefError] = InputError
) -> T:
    """Return `value` if it is one of `choices`.

    Args:
        what: what is being chosen, for the message.
        value: what was asked for.
        choices: what exists.
        error: class to raise.

    Returns:
        `value`, unchanged.

    Raises:
        MuRefError: (or the subclass `error`) `value` is not among the choices; lists them, and
            names the nearest.
    """
    known = list(choices)
    if value not in known:
        near = nearest(value, known)
        listed = ", ".join(map(str, known if len(known) <= MANY else near or known))
        if len(known) > MANY and near:
            raise error(f"{what} must be one that there is, got {value!r}; the nearest: {listed}")
        hint = f"; perhaps {near[0]}" if near else ""
        raise error(f"{what} must be one of {listed}; got {value!r}{hint}")
    return value


def nearest(value: object, known: Iterable[object]) -> list[str]:
    """Return names that a slip may have been meant for, the nearest first.

    >>> from mu_ref.errors import nearest
    >>> nearest("dma.byte_per_s", ["dma.bytes_per_s", "clock_hz"])
    ['dma.bytes_per_s']
    """
    if not isinstance(value, str) or not value or len(value) > 200:
        return []
    from difflib import get_close_matches  # a cold import that good input does without

    names = [name for name in known if isinstance(name, str)]
    last = value.rpartition(".")[2]
    ends = [name for name in names if name.rpartition(".")[2] == last and "." in name]
    return list(dict.fromkeys([*get_close_matches(value, names, 3), *ends]))[:4]


@contextmanager
def located(place: str) -> Iterator[None]:
    """Put a place before the text of any user's error that is raised within.

    Args:
        place: as it stands before the text: "FILE: ", or "encoder.".

    Raises:
        MuRefError: of the same class, with the place.
    """
    try:
        yield
    except MuRefError as error:
        raise type(error)(f"{place}{error}") from error
