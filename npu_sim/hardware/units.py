"""Values of an NPU with their units: "100 GB/s" is 100,000,000,000 bytes per second, and back.

The unit of a path is the end of its name (`npu_sim/hardware/engines.py`).
"""

import re
from collections.abc import Mapping
from math import isclose
from types import MappingProxyType
from typing import Any

from mu_ref.border.overrides import NUMBER, kind_of_field, plain_value
from mu_ref.border.ranges import Range
from mu_ref.border.text import short
from npu_sim.errors import HardwareError
from npu_sim.hardware.chip import SWITCHES, FieldValue
from npu_sim.hardware.ranges import range_of
from npu_sim.units import GB, GIB, KIB, MB, MIB

__all__ = ["convert_unit", "npu_value", "with_unit"]

UNITS: Mapping[str, Mapping[str, float]] = MappingProxyType({
    "_hz": {"Hz": 1, "kHz": 1000, "MHz": MB, "GHz": GB},
    "bytes_per_s": {"B/s": 1, "kB/s": 1000, "MB/s": MB, "GB/s": GB, "TB/s": 1000 * GB},
    "_bytes": {"B": 1, "kB": 1000, "MB": MB, "GB": GB, "KiB": KIB, "MiB": MIB, "GiB": GIB},
    "_cycles": {"cycles": 1},
    "_us": {"us": 1, "ms": 1000, "s": MB},
    "_pj": {"pJ": 1, "nJ": 1000},
    "_watts": {"W": 1, "mW": 1e-3},
})  # fmt: skip
TEXTS = ("matrix.dataflow", "unsupported_ops")  # paths whose values are words

AMOUNT = Range(low=-1e18, high=1e18, whole=False, why="no unit is so small")  # before conversion


def _units(path: str) -> Mapping[str, float]:
    return next((units for end, units in UNITS.items() if path.endswith(end)), {})


def convert_unit(path: str, value: Any, unit: Any, where: str) -> FieldValue:
    """Convert a number to the unit at the end of its path.

    Args:
        path: for example "dma.bytes_per_s".
        value: the number.
        unit: for example "GB/s".
        where: the file or key, for messages.

    Returns:
        The number in bytes per second, or whatever the path says.

    Raises:
        HardwareError: not a number, or a unit that does not fit the path.
    """
    known = _units(path)
    if not isinstance(unit, str) or unit not in known:
        allowed = ", ".join(known) or "none: it is a plain number"
        raise HardwareError(
            f"{where}: the unit of {path} must be one of {allowed}; got {short(unit)}"
        )
    AMOUNT.check(f"{where}: {path}", value, HardwareError)
    converted = value * known[unit]
    # 1.07 GHz are 1_070_000_000.0000001 Hz in binary64, and mean a whole number
    near = isclose(converted, round(converted), rel_tol=1e-12)
    whole = near and not path.endswith(("_us", "_pj", "_watts"))
    return round(converted) if whole else converted


def npu_value(path: str, value: Any, where: str) -> Any:
    """Return what a person wrote for a value of an NPU as what it means.

        >>> from npu_sim.hardware.units import npu_value
        >>> npu_value("dma.bytes_per_s", "100 GB/s", "x"), npu_value("clock_hz", 1e9, "x")
        (100000000000, 1000000000)

    Args:
        path: of `Npu.values`.
        value: a number, a text with or without a unit, or a table of value and unit.
        where: the file or key, for messages.

    Returns:
        The value; whether it is allowed is checked by the NPU.

    Raises:
        HardwareError: a unit that does not fit, or a table with something else in it.
    """
    if isinstance(value, dict):
        if set(value) != {"value", "unit"}:
            raise HardwareError(
                f"{where}: {path} must have value and unit, got {', '.join(value)[:60]}"
            )
        value, unit = value["value"], value["unit"]
        return convert_unit(path, plain_value(value) if isinstance(value, str) else value, unit,
                            where)  # fmt: skip
    if path in TEXTS:
        return value
    if path in SWITCHES:
        return plain_value(value) if isinstance(value, str) else value
    if isinstance(value, str):
        parts = re.fullmatch(rf"({NUMBER})\s*([A-Za-z][A-Za-z/]*)", value.strip(), re.ASCII)
        number = plain_value(parts[1]) if parts else value
        if parts and isinstance(number, int | float):
            return convert_unit(path, number, parts[2], where)
    return kind_of_field(value, 0 if range_of(path).whole else 0.0)


def with_unit(path: str, value: Any) -> str:
    """Write a value of an NPU as a person would.

    >>> from npu_sim.hardware.units import with_unit
    >>> with_unit("dma.bytes_per_s", 58_860_000_000), with_unit("sram.capacity_bytes", 8_388_608)
    ('58.86 GB/s', '8 MiB')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    units = sorted(_units(path).items(), key=lambda item: -item[1])
    for unit, factor in units:
        if abs(value) >= factor and isclose(float(f"{value / factor:.4g}"), value / factor):
            return f"{value / factor:.4g} {unit}"
    for unit, factor in units:  # none writes it in four digits
        if abs(value) >= factor and not unit.endswith("iB"):
            return f"{value / factor:.6g} {unit}"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
