"""Names and arithmetic for bytes, cycles and seconds, and how people read them.

KiB and MiB count in 1,024s and are used for memories on the chip; MB and GB/s count in 1,000s.
Cycles are integers of one clock; seconds appear only in reports.
"""

from decimal import Decimal

__all__ = [
    "GB",
    "GIB",
    "KIB",
    "MB",
    "MIB",
    "MILLION",
    "ceil_div",
    "cycles_from_us",
    "element_bytes",
    "format_bytes",
    "format_count",
    "format_exact",
    "format_ms",
    "ms_from_cycles",
]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
MB = 1_000_000
GB = 1_000_000_000
MILLION = 1_000_000  # efficiencies are counted in millionths, so that cycles stay integers


def ceil_div(amount: int, per: int) -> int:
    """Divide and round up, in integers.

    Args:
        amount: at least 0.
        per: at least 1.

    Returns:
        The smallest n with n * per >= amount.
    """
    return -(-amount // per)


def element_bytes(bits: int) -> int:
    """Return the bytes that an element takes while it is worked on.

    Args:
        bits: its width, at most 32.

    Returns:
        1, 2 or 4: lanes of vector engines hold whole 8-, 16- or 32-bit elements.
    """
    return 1 if bits <= 8 else 2 if bits <= 16 else 4


def ms_from_cycles(cycles: int, clock_hz: int) -> float:
    """Convert cycles to milliseconds.

    Args:
        cycles: of one clock.
        clock_hz: its rate.

    Returns:
        Milliseconds.
    """
    return 1000 * cycles / clock_hz


def cycles_from_us(duration_us: float, clock_hz: int) -> int:
    """Convert microseconds to cycles, to the nearest one.

    Args:
        duration_us: microseconds, at least 0.
        clock_hz: rate of the clock.

    Returns:
        Cycles.
    """
    return round(duration_us * clock_hz / 1_000_000)


def format_bytes(n_bytes: float) -> str:
    """Write a number of bytes with a decimal prefix: 117_000_000 is "117 MB".

    Args:
        n_bytes: bytes, at least 0.

    Returns:
        Three significant digits and the unit.
    """
    return _with_prefix(n_bytes) + "B"


def format_count(count: float) -> str:
    """Write a count with a decimal prefix: 24_300_000_000 is "24.3 G".

    Args:
        count: at least 0.

    Returns:
        Three significant digits and the prefix.
    """
    return _with_prefix(count).rstrip()


def format_exact(amount: float, unit: str = "") -> str:
    """Write a number with a decimal prefix and all of its digits: 58_860_000_000 is "58.86 G".

    Args:
        amount: at least 0.
        unit: behind the prefix.

    Returns:
        What stands for the very same number; thousands have commas where there is no prefix.
    """
    exact = Decimal(str(amount))
    for prefix, power in (("T", 12), ("G", 9), ("M", 6)):
        if amount >= 10**power:
            return f"{exact.scaleb(-power).normalize():f} {prefix}{unit}"
    return f"{amount:,} {unit.strip()}".strip()


def format_ms(duration_ms: float) -> str:
    """Write milliseconds with three significant digits, whole ones from 100 up.

    Args:
        duration_ms: milliseconds.

    Returns:
        For example "3.06 ms" or "1234 ms".
    """
    return f"{_three_digits(duration_ms)} ms"


def _with_prefix(amount: float) -> str:
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if amount >= size:
            return f"{_three_digits(amount / size)} {prefix}"
    return f"{_three_digits(amount) if amount % 1 else int(amount)} "


def _three_digits(amount: float) -> str:
    decimals = 0 if abs(amount) >= 99.95 else 1 if abs(amount) >= 9.995 else 2
    return f"{amount:.{decimals}f}"
