"""One varied field of a sweep: a list, a range, a logarithmic range, or an interval to draw from.

    [4, 8]                                  these values; drawn: one of them
    ["46 GB/s", "63 GB/s"]                  the same, in another unit than the name's
    { values = [46, 63], unit = "GB/s" }    the same
    { range = [64, 512], step = 64 }        64, 128, ..., 512; or n = 8
    { log = [20, 200], n = 50 }             evenly spaced in the logarithm; drawn: without n
    { uniform = [30, 500] }                 drawn only

Chapter: `docs/whatif.md`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mu_ref.border.overrides import plain_value
from mu_ref.border.ranges import Range
from mu_ref.border.text import short
from mu_ref.errors import located
from npu_sim.errors import SweepError
from npu_sim.hardware.presets import npu
from npu_sim.hardware.units import convert_unit
from npu_sim.whatif.scenario import Scenario, field_value, full_path

__all__ = ["Axis", "read_axis"]

MAX_VALUES = 1_000_000
N_VALUES = Range(low=1, high=MAX_VALUES, why="no axis is longer than ten such sweeps")
LARGEST = 1e18  # no field holds more than 64 bits
STEP = Range(low=0, above=True, high=LARGEST, whole=False, why="no field holds more than 64 bits")


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One varied field: its values, or an interval to draw from."""

    path: str
    values: tuple[Any, ...] = ()
    interval: tuple[float, float] | None = None
    logarithmic: bool = False
    whole: bool = False  # draws are rounded

    def draw(self, rng: np.random.Generator) -> Any:
        """Draw a value of a random axis."""
        if self.interval is None:
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.interval
        if self.logarithmic:
            value = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        else:
            value = float(rng.uniform(low, high))
        return round(value) if self.whole else value


def read_axis(key: str, entry: Any, base: Scenario, *, drawn: bool = False) -> Axis:
    """Read one entry of [vary] or [sample].

    Args:
        key: the field, by its path or alias.
        entry: its value in the file.
        base: whose fields there are.
        drawn: it stands in [sample].

    Returns:
        The axis.

    Raises:
        NpuSimError: an unknown field, an empty list or range, values of another kind than the
            field's, or a wrong unit; names the key.
    """
    path = full_path(key, base)
    now = base.npu.name if path == "npu" else base.paths()[path]
    if isinstance(entry, list):
        return Axis(path=path, values=_values(key, path, entry, base))
    if not isinstance(entry, dict):
        raise SweepError(
            f"{key} must be a list or a table such as {{ log = [a, b] }}, got {entry!r}"
        )
    kinds = [kind for kind in ("values", "range", "log", "uniform") if kind in entry]
    unknown = set(entry) - {"values", "range", "log", "uniform", "n", "step", "unit"}
    if len(kinds) != 1 or unknown:
        raise SweepError(
            f"{key} must have one of values, range, log and uniform, and n, step or unit; "
            f"got {', '.join(entry)}"
        )
    numbers = entry[kinds[0]]
    if not isinstance(numbers, list):
        raise SweepError(f"{key}.{kinds[0]} must be a list, got {numbers!r}")
    if "unit" in entry:
        numbers = [_in_unit(key, path, number, entry["unit"]) for number in numbers]
    if kinds[0] == "values":
        unused = [name for name in ("n", "step") if name in entry]
        if unused:
            raise SweepError(f"{key}.{unused[0]} must come with range or log, got values")
        return Axis(path=path, values=_values(key, path, numbers, base))
    if isinstance(now, bool | str):
        raise SweepError(f"{key} must be a list of values, got {kinds[0]}; it is no number")
    # a field without a value now (a static context) counts something
    whole = now is None or isinstance(now, int)
    return _interval(key, path, kinds[0], numbers, entry, whole=whole, drawn=drawn)


def _values(key: str, path: str, values: list[Any], base: Scenario) -> tuple[Any, ...]:
    """Check listed values against the kind of the field; whether each is allowed shows later."""
    if not values:
        raise SweepError(f"{key} must have at least one value, got an empty list")
    if len(values) > MAX_VALUES:
        N_VALUES.check(f"values of {key}", len(values), SweepError)
    if path == "npu":
        return tuple(_chip(key, name) for name in values)
    now = base.paths()[path]
    if isinstance(now, bool):
        kind, fits = "true or false", lambda value: isinstance(value, bool)
    elif isinstance(now, str):
        kind, fits = "a text", lambda value: isinstance(value, str)
    else:
        kind, fits = "a finite number of at most 64 bits", _is_number
    meant = [_meant(key, path, value, base) for value in values]
    for value, given in zip(meant, values, strict=True):
        none = value is None and given is not None and path in _or_none(base)
        if not none and not fits(value):
            raise SweepError(f"each value of {key} must be {kind}, got {short(given)}")
    return tuple(meant)


def _meant(key: str, path: str, value: Any, base: Scenario) -> Any:
    """A listed value as what it means; a number is no text unless it has a unit."""
    if isinstance(value, str) and isinstance(plain_value(value), bool | int | float):
        return value
    with located(f"{key}: "):
        return field_value(path, value, base)


def _or_none(base: Scenario) -> set[str]:
    """Fields that "none" is a value of: those without one, windows, caps and the head's width."""
    ends = ("window", "softcap", "context", "head_weight_bits")
    return {path for path, value in base.paths().items() if value is None or path.endswith(ends)}


def _chip(key: str, name: Any) -> str:
    """The name of an NPU, which is read once to see that it is one."""
    if not isinstance(name, str):
        raise SweepError(f"each value of {key} must be the name of an NPU, got {short(name)}")
    npu(name)
    return name


def _in_unit(key: str, path: str, number: Any, unit: Any) -> Any:
    if not isinstance(unit, str):
        raise SweepError(f'{key}.unit must be a text such as "GB/s", got {short(unit)}')
    if not _is_number(number):
        raise SweepError(
            f"each number of {key} must be finite and fit 64 bits, got {short(number)}"
        )
    return convert_unit(path.removeprefix("npu."), number, unit, key)


def _interval(
    key: str, path: str, kind: str, numbers: list[Any], entry: dict[str, Any],
    *, whole: bool, drawn: bool,
) -> Axis:  # fmt: skip
    """Read a range, an interval or a logarithmic one."""
    if len(numbers) != 2 or not all(_is_number(number) for number in numbers):
        raise SweepError(
            f"{key}.{kind} must be two numbers, finite and of at most 64 bits, got {short(numbers)}"
        )
    low, high = numbers
    if high < low or (kind == "log" and low <= 0):
        rule = "two positive numbers in rising order" if kind == "log" else "in rising order"
        raise SweepError(f"{key}.{kind} must be {rule}, got {numbers!r}: the range is empty")
    if kind == "uniform" or (drawn and "n" not in entry and "step" not in entry):
        if not drawn:
            raise SweepError(f"{key} must stand in [sample] to be drawn, got uniform in [vary]")
        if "n" in entry or "step" in entry:
            raise SweepError(f"{key} must be drawn without n and step, got {', '.join(entry)}")
        return Axis(path=path, interval=(low, high), logarithmic=kind == "log", whole=whole)
    return Axis(path=path, values=_spaced(key, kind, low, high, entry, whole=whole))


def _spaced(
    key: str, kind: str, low: float, high: float, entry: dict[str, Any], *, whole: bool
) -> tuple[Any, ...]:
    if ("n" in entry) == ("step" in entry) or ("step" in entry and kind == "log"):
        raise SweepError(
            f"{key} must have {'n' if kind == 'log' else 'either n or step'}, "
            f"got {', '.join(entry)}"
        )
    if "n" in entry:
        n = N_VALUES.check(f"{key}.n", entry["n"], SweepError)
        values = np.geomspace(low, high, n) if kind == "log" else np.linspace(low, high, n)
    else:
        step = STEP.check(f"{key}.step", entry["step"], SweepError)
        if (high - low) / step > MAX_VALUES:
            raise SweepError(
                f"{key}.step must give at most {MAX_VALUES:,} values, got {step!r}; take a larger"
            )
        # the end belongs to the range also where the steps miss it by a rounding
        values = low + step * np.arange(int((high - low) / step + 1e-9) + 1)
    numbers = [round(float(v)) if whole else float(v) for v in values]
    return tuple(dict.fromkeys(numbers))  # rounding may make neighbours equal


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= LARGEST  # NaN is not, and neither is an infinity
