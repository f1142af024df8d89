"""Errors that a user of the simulator can cause, and the checks that raise them.

Every message has the form `<what> must <rule>, got <value>; <likely fix>`. Inner layers do not
check: their callers have.
"""

from numbers import Integral

from mu_ref.border.text import short
from mu_ref.errors import MuRefError

__all__ = [
    "CapacityError",
    "HardwareError",
    "NpuSimError",
    "SweepError",
    "UnsupportedError",
    "WorkloadError",
    "check_at_least",
    "check_at_most",
]


class NpuSimError(MuRefError):
    """Base of every error that `npu_sim` raises on purpose; its text is for the user.

    >>> import npu_sim
    >>> try:
    ...     npu_sim.npu("abacus")
    ... except npu_sim.NpuSimError as error:
    ...     print(str(error)[-12:])
    got 'abacus'
    """


class HardwareError(NpuSimError):
    """A description of an NPU is incomplete, contradicts itself or does not exist."""


class WorkloadError(NpuSimError):
    """What should be simulated is not a request: lengths, widths or the model do not allow it."""


class SweepError(NpuSimError):
    """A sweep, a search or a table of cases asks for something that does not exist."""


class CapacityError(NpuSimError):
    """Something does not fit a memory of the NPU."""


class UnsupportedError(NpuSimError):
    """The NPU has no engine for an operation, or does not multiply its widths."""


def check_at_least(
    what: str, value: int, least: int, error: type[NpuSimError] = WorkloadError
) -> int:
    """Return `value` if it is a whole number of at least `least`.

    Args:
        what: name of the number, for the message.
        value: what was asked for.
        least: smallest value allowed.
        error: class to raise.

    Returns:
        `value`, unchanged.

    Raises:
        NpuSimError: (or the subclass `error`) not a whole number, or too small.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise error(f"{what} must be a whole number of at least {least}, got {short(value)}")
    return value


def check_at_most(what: str, value: int, most: int) -> None:
    """Check that a request is not too large to simulate.

    Args:
        what: name of the number, for the message.
        value: what was asked for.
        most: largest value allowed.

    Raises:
        WorkloadError: `value` is larger.
    """
    if value > most:
        raise WorkloadError(
            f"{what} must be at most {most}, got {short(value)}; simulate a shorter request"
        )
