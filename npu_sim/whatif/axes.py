"""One varied field of a sweep: a list, a range, a logarithmic range, or an interval to draw from.

    [4, 8]                                  these values; drawn: one of them
    { values = [46, 63], unit = "GB/s" }    the same, in another unit than the name's
    { range = [64, 512], step = 64 }        64, 128, ..., 512; or n = 8
    { log = [20, 200], n = 50 }             evenly spaced in the logarithm; drawn: without n
    { uniform = [30, 500] }                 drawn only

Chapter: `docs/whatif.md`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from npu_sim.errors import SweepError
from npu_sim.hardware.presets import convert_unit
from npu_sim.whatif.scenario import Scenario, full_path

__all__ = ["Axis", "read_axis"]

MAX_VALUES = 1_000_000


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
        NpuSimError: an unknown field, an empty list or range, or a wrong unit; names the key.
    """
    path = full_path(key, base)
    whole = isinstance(base.paths()[path], int)
    if isinstance(entry, list):
        return Axis(path=path, values=_not_empty(key, tuple(entry)))
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
        at = path.removeprefix("npu.")
        numbers = [convert_unit(at, number, entry["unit"], key) for number in numbers]
    if kinds[0] == "values":
        return Axis(path=path, values=_not_empty(key, tuple(numbers)))
    return _interval(key, path, kinds[0], numbers, entry, whole=whole, drawn=drawn)


def _not_empty(key: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise SweepError(f"{key} must have at least one value, got an empty list")
    return values


def _interval(
    key: str, path: str, kind: str, numbers: list[Any], entry: dict[str, Any],
    *, whole: bool, drawn: bool,
) -> Axis:  # fmt: skip
    """Read a range, an interval or a logarithmic one."""
    if len(numbers) != 2 or not all(_is_number(number) for number in numbers):
        raise SweepError(f"{key}.{kind} must be two numbers, got {numbers!r}")
    low, high = numbers
    if high < low or (kind == "log" and low <= 0):
        rule = "two positive numbers in rising order" if kind == "log" else "in rising order"
        raise SweepError(f"{key}.{kind} must be {rule}, got {numbers!r}: the range is empty")
    if kind == "uniform" or (drawn and "n" not in entry and "step" not in entry):
        if not drawn:
            raise SweepError(f"{key} must stand in [sample] to be drawn, got uniform in [vary]")
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
        n = entry["n"]
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MAX_VALUES:
            raise SweepError(f"{key}.n must be a whole number of at least 1, got {n!r}")
        values = np.geomspace(low, high, n) if kind == "log" else np.linspace(low, high, n)
    else:
        step = entry["step"]
        if not _is_number(step) or step <= 0 or (high - low) / step > MAX_VALUES:
            raise SweepError(f"{key}.step must be a positive number, got {step!r}")
        # the end belongs to the range also where the steps miss it by a rounding
        values = low + step * np.arange(int((high - low) / step + 1e-9) + 1)
    numbers = [round(float(v)) if whole else float(v) for v in values]
    return tuple(dict.fromkeys(numbers))  # rounding may make neighbours equal


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
