"""What a site multiplies by: made once from its scales, and kept, so that a port needs no float.

`IntegerOps` asks for each constant by site and role; what was asked for can be written out
(`arrays`). Roles: `output` brings an accumulator to the site's scale, `argument` a value to the
units of a table, `x` and `y` are the two summands of an `add` or parts of a `concat`, `eps` is
what a norm adds to its sum of squares.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mu_ref.errors import QuantizationError, located
from mu_ref.integers.fixed_point import (
    Multiplier,
    check_wide,
    quantize_multiplier,
    quantize_multipliers,
    sum_multipliers,
)

__all__ = ["Constants", "Summands", "between", "between_sum"]


@dataclass(frozen=True, slots=True)
class Summands:
    """Multipliers of two summands that share one shift (5.5)."""

    m_x: int
    m_y: int
    t: int


def between(site: str, scale: Any, out_scale: float, *, wide: bool = False) -> Multiplier:
    """Return the multiplier that brings steps of one scale to another.

    Args:
        site: for the message.
        scale: of the accumulator, a float or one for each channel, [n].
        out_scale: of what the site gives.
        wide: the accumulator has 64 bits (5.4).

    Returns:
        See `fixed_point.quantize_multiplier`.

    Raises:
        QuantizationError: no multiplier can do it; names the site and both scales.
    """
    make: Callable[[Any], Multiplier] = (
        quantize_multiplier if isinstance(scale, float) else quantize_multipliers
    )
    with located(_from_to(site, (scale,), out_scale)):
        by = make(scale / out_scale)
        if wide:
            check_wide(by)
    return by


def between_sum(
    site: str, x_scale: float, y_scale: float, out_scale: float
) -> tuple[int, int, int]:
    """Return m_x, m_y and t of (5.5) for two scales, as `between` does for one."""
    with located(_from_to(site, (x_scale, y_scale), out_scale)):
        return sum_multipliers(x_scale / out_scale, y_scale / out_scale)


def _from_to(site: str, scales: Sequence[Any], out_scale: float) -> str:
    largest = " and ".join(f"{np.max(scale):.3g}" for scale in scales if np.any(scale))
    return f"{site}: from scale {largest} to {out_scale:.3g}: "


class Constants:
    """Constants of sites, each made when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str, Any], Any] = {}

    def multiplier(
        self, site: str, role: str, scale: float, out_scale: float, *, wide: bool = False
    ) -> Multiplier:
        """Return the multiplier from one scale to another; see `between`."""
        make = lambda: between(site, scale, out_scale, wide=wide)  # noqa: E731
        return self._once(site, role, (scale, out_scale), make)

    def channels(
        self,
        site: str,
        scales: np.ndarray,
        x_scale: float,
        out_scale: float,
        *,
        wide: bool = False,
    ) -> Multiplier:
        """Return the multipliers $(s_n s_x) / s_{out}$ of a matrix's channels, [n] each."""
        make = lambda: between(site, scales * x_scale, out_scale, wide=wide)  # noqa: E731
        return self._once(site, "output", (x_scale, out_scale), make)

    def summands(self, site: str, x_scale: float, y_scale: float, out_scale: float) -> Summands:
        """Return the multipliers of a sum of two scales; see `between_sum`."""
        make = lambda: Summands(*between_sum(site, x_scale, y_scale, out_scale))  # noqa: E731
        return self._once(site, "sum", (x_scale, y_scale, out_scale), make)

    def eps(self, site: str, eps: float, steps: float) -> int:
        """Return a norm's eps in units of its sum of squares, rounded half to even.

        Args:
            site: of the norm.
            eps: of the configuration.
            steps: the same in units of the sum of squares, computed in the specified order.

        Raises:
            QuantizationError: 2^61 or more, which 64 bits could not add to the sum.
        """

        def make() -> int:
            if not steps < 2**61:
                raise QuantizationError(
                    f"{site}: eps {eps} must stay below 2^61 squared steps, it is {steps:.3g}; "
                    "calibrate with data that reaches this site"
                )
            return round(steps)

        return self._once(site, "eps", steps, make)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return every constant that was asked for: int32, and int64 for eps.

        Returns:
            {"site.output.multiplier": [1] or [n_channels], "site.output.shift", ...}; of a sum
            `site.x.multiplier`, `site.y.multiplier` and the shift t of (5.5), `site.sum.shift`. A
            site that reads values of two scales, as the drafter's state does, has a second set:
            `site#2`.
        """
        found: dict[str, np.ndarray] = {}
        for (site, role, _), value in self._made.items():
            named = _named(role, value)
            number = 1
            while f"{_numbered(site, number)}.{named[0][0]}" in found:
                number += 1
            for name, constant in named:
                kind = np.int64 if role == "eps" else np.int32
                array = np.atleast_1d(np.asarray(constant)).astype(kind)
                found[f"{_numbered(site, number)}.{name}"] = array
        return found

    def _once(self, site: str, role: str, key: Any, make: Callable[[], Any]) -> Any:
        if (site, role, key) not in self._made:
            self._made[site, role, key] = make()
        return self._made[site, role, key]


def _numbered(site: str, number: int) -> str:
    return site if number == 1 else f"{site}#{number}"


def _named(role: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Multiplier):
        return [(f"{role}.multiplier", value.m), (f"{role}.shift", value.shift)]
    if isinstance(value, Summands):
        return [
            ("x.multiplier", value.m_x), ("y.multiplier", value.m_y), ("sum.shift", value.t),
        ]  # fmt: skip
    return [(role, value)]
