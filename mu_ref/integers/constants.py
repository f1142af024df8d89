"""What a site multiplies by: made once from its scales, and kept, so that a port needs no float.

`IntegerOps` asks for each constant by site and role; what was asked for can be written out
(`arrays`). Roles: `output` brings an accumulator to the site's scale, `argument` a value to the
units of a table, `x` and `y` are the two summands of an `add` or parts of a `concat`, `eps` is
what a norm adds to its sum of squares.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mu_ref.errors import QuantizationError
from mu_ref.integers.fixed_point import (
    Multiplier,
    quantize_multiplier,
    quantize_multipliers,
    sum_multipliers,
)

__all__ = ["Constants", "Summands"]


@dataclass(frozen=True, slots=True)
class Summands:
    """Multipliers of two summands that share one shift (5.5)."""

    m_x: int
    m_y: int
    t: int


class Constants:
    """Constants of sites, each made when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str, Any], Any] = {}

    def multiplier(self, site: str, role: str, d: float) -> Multiplier:
        """Return the multiplier of one factor; see `fixed_point.quantize_multiplier`.

        Raises:
            QuantizationError: names the site.
        """
        return self._once(site, role, d, lambda: quantize_multiplier(d))

    def channels(
        self, site: str, scales: np.ndarray, x_scale: float, out_scale: float
    ) -> Multiplier:
        """Return the multipliers $(s_n s_x) / s_{out}$ of a matrix's channels, [n] each."""
        make: Callable[[], Multiplier] = lambda: quantize_multipliers(scales * x_scale / out_scale)  # noqa: E731
        return self._once(site, "output", (x_scale, out_scale), make)

    def summands(self, site: str, d_x: float, d_y: float) -> Summands:
        """Return the multipliers of a sum of two scales."""
        return self._once(site, "sum", (d_x, d_y), lambda: Summands(*sum_multipliers(d_x, d_y)))

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
                    f"eps {eps} must stay below 2^61 squared steps, it is {steps:.3g}; "
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
            try:
                self._made[site, role, key] = make()
            except QuantizationError as error:
                raise QuantizationError(f"{site}: {error}") from error
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
