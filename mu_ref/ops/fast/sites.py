"""What the integer kernels need of a site beside activations: weights, multipliers and limits.

Scales are known before the first token. So all that they decide is worked out once, when a site is
first met by inputs of an encoding, and stands in arrays that rows of the program point to. A table
of constants is int64: low, high, mode, then what `mu_ref/kernels/integer_program.py` lists for the
operation. One method for each operation returns the encoding of its result and the table's address.
"""

from collections.abc import Callable
from functools import wraps
from math import e as euler
from math import log2, sqrt
from typing import Any, NamedTuple, cast

import numpy as np

from mu_ref.border.memory import Arena
from mu_ref.errors import QuantizationError
from mu_ref.integers.constants import between, between_sum
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.fixed_point import Multiplier, check_accumulator, integer_range
from mu_ref.integers.nonlinear import ARGUMENT_BITS
from mu_ref.integers.store import IntegerModel
from mu_ref.integers.tables import table
from mu_ref.kernels.rounding import DOUBLE, EVEN, SINGLE
from mu_ref.ops.fast.matrices import REGION, blocks_of, sums_of, whole_width

__all__ = ["Site", "Sites", "Weight"]

MODES = {"tflite_single": SINGLE, "tflite_double": DOUBLE, "half_even": EVEN}
LARGEST = {8: 255, 16: 2**15}  # |q - z| of an activation of so many bits

Site = tuple[Encoding, int]  # of the result, and the address of the constants


def remembered(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method of `Sites` work out once what it returns for the same arguments."""

    @wraps(method)
    def once(self: "Sites", *args: Any) -> Any:
        key = method, args
        if key not in self._found:
            self._found[key] = method(self, *args)
        return self._found[key]

    return once


class Weight(NamedTuple):
    """Where blocks of int8 lie."""

    address: int
    d_out: int
    d_in: int
    width: int  # d_in in whole groups


class Sites:
    """The sites of an integer model, as kernels need them.

    Args:
        model: integer weights, their scales and the encoding of every site.
        alone: nobody else reads the model's matrices: they are taken out of it, and laid out anew
            where they lie.
    """

    def __init__(self, model: IntegerModel, *, alone: bool = False) -> None:
        self.model, self._alone, self._arena = model, alone, Arena(REGION)
        self._mode = MODES[model.rounding]
        self._kept: dict[tuple[Any, ...], tuple[np.ndarray, int]] = {}  # and their addresses
        self._found: dict[tuple[Any, ...], Any] = {}  # by method and arguments

    def keep(self, key: tuple[Any, ...], make: Callable[[], np.ndarray]) -> int:
        """Return the address of an array that is made once, and stays where it is."""
        if key not in self._kept:
            values = make()
            self._kept[key] = values, values.ctypes.data
        return self._kept[key][1]

    def _constants(
        self,
        key: tuple[Any, ...],
        site: str,
        make: Callable[[Encoding], list[Any]],
        *,
        wide: bool = False,
    ) -> Site:
        """Keep low, high, mode and what `make` returns for the site's encoding.

        A wide accumulator is always rounded once (5.4), whatever the model's rounding.
        """
        encoding = self.model.encoding(site)

        def values() -> np.ndarray:
            # Kernels hold q - z in int16, which 16 bits and a zero point could exceed.
            low, high = (q - encoding.zero_point for q in integer_range(encoding.bits))
            if not -(2**15) <= low <= high < 2**15:
                raise QuantizationError(
                    f"{site}: the fast executor needs a zero point of 0 at 16 bits, "
                    f"got {encoding.zero_point}"
                )
            parts = (low, high, SINGLE if wide else self._mode, *make(encoding))
            return np.concatenate([np.ravel(x).astype(np.int64) for x in parts])

        return encoding, self.keep((site, *key), values)

    # -- weights -----------------------------------------------------------------------------------

    @remembered
    def weight(self, source: str) -> Weight:
        """Lay out int8 rows in blocks."""
        given = self.model.weight(source)
        d_out, d_in = given.shape
        if self._alone:
            del cast("dict[str, np.ndarray]", self.model.tensors)[f"{source}.weight"]
        blocks = blocks_of(given, self._arena, in_place=self._alone)
        address = self.keep(("blocks", source), lambda: blocks)
        return Weight(address, d_out, d_in, whole_width(given))

    def vector(self, name: str, values: np.ndarray, dtype: type) -> int:
        """Keep a gain or a bias."""
        return self.keep(("vector", name), lambda: np.ascontiguousarray(values, dtype))

    def table(self, name: str) -> tuple[int, int]:
        """Return where the points of a function lie, and how many they are."""
        points = table(name)
        return self.keep(("table", name), lambda: points), len(points)

    @remembered
    def embed(self, site: str) -> Site:
        """Each row of a table has a scale of its own, and so m and t."""

        def make(out: Encoding) -> list[Any]:
            return _narrow(between(site, self.model.weight_scale(site), out.scale))

        return self._constants(("embed",), site, make)

    @remembered
    def linear(self, site: str, source: str, x: Encoding) -> tuple[Encoding, int, int]:
        """Return the address of each output's m and t too, and of starts that int32 holds."""
        wide = x.bits == 16

        def by(out: Encoding) -> list[Any]:
            scales = self.model.weight_scale(source) * x.scale
            found = between(site, scales, out.scale, wide=wide)
            return _wide(found) if wide else _narrow(found)

        offset = x.zero_point + 128  # kernels read x as unsigned bytes

        def starts() -> np.ndarray:
            weight, bias = self.weight(source), self.model.bias(site)
            start = np.zeros(weight.d_out, np.int64) if bias is None else bias.astype(np.int64)
            largest = int(np.abs(start).max())
            check_accumulator(site, weight.d_in, LARGEST[x.bits], 128, wide=wide, start=largest)
            # so every sum is too large by as much per weight
            too_much = 128 << 8 if wide else offset
            blocks, _ = self._kept["blocks", source]
            return start - too_much * sums_of(blocks)[: weight.d_out]

        def make(_: Encoding) -> list[Any]:
            return [offset, starts()] if wide else [offset]

        encoding, constants = self._constants(("linear", source, x), site, make, wide=wide)

        def more() -> np.ndarray:
            every = np.broadcast_arrays(*by(encoding), *(() if wide else (starts(),)))
            return np.array(every, np.int32)

        return encoding, constants, self.keep(("multipliers", site, source, x), more)

    @remembered
    def norm(self, site: str, x: Encoding, d: int, kind: str, eps: float) -> Site:
        """Eps comes in units of the sum of d squares, which for "layer" are of d (x - mean)."""
        layer = kind == "layer"

        def make(out: Encoding) -> list[Any]:
            eps_steps = eps * d / x.scale**2 * (d * d if layer else 1)
            if not eps_steps < 2**61:
                raise QuantizationError(
                    f"{site}: eps {eps} must stay below 2^61 squared steps of {x.scale:.3g}; "
                    "calibrate with data that reaches this site"
                )
            gain_scale = float(self.model.weight_scale(site)[0])
            by = between(site, gain_scale * sqrt(d), out.scale)
            return [*_narrow(by), int(layer), round(eps_steps), self.table("rsqrt")[1]]

        return self._constants(("norm", x), site, make)

    @remembered
    def of_factor(self, meaning: Encoding, factor: float) -> Encoding:
        """Return what the same integers mean when they stand for numbers `factor` as large."""
        return Encoding(meaning.bits, meaning.scale * factor, meaning.zero_point)

    # -- activations -------------------------------------------------------------------------------

    @remembered
    def scaled(self, site: str, factor: float, *rest: int) -> Site:
        """Bring steps to the site, each of which is worth `factor`; the rest is kept as it is."""

        def make(out: Encoding) -> list[Any]:
            return [*_narrow(between(site, factor, out.scale)), *rest]

        return self._constants(("scaled", factor, *rest), site, make)

    def matmul(self, site: str, a: Encoding, b: Encoding, n_terms: int) -> Site:
        """Wide if either operand has 16 bits; int32 must hold other sums."""
        wide = 16 in (a.bits, b.bits)

        def make(out: Encoding) -> list[Any]:
            by = between(site, a.scale * b.scale, out.scale, wide=wide)
            return [*(_wide(by) if wide else _narrow(by)), int(not wide)]

        check_accumulator(site, n_terms, LARGEST[a.bits], LARGEST[b.bits], wide=wide)
        return self._constants(("matmul", a, b), site, make, wide=wide)

    @remembered
    def softmax(self, site: str, x: Encoding) -> Site:
        """Scores become exponents of 2, in units of a table's argument."""

        def make(out: Encoding) -> list[Any]:
            by = between(site, x.scale * log2(euler) * 2**ARGUMENT_BITS, 1.0)
            bits = 8 if out.bits == 8 else 15
            return [*_narrow(by), bits, self.table("exp2")[1], int(x.bits == 8)]

        return self._constants(("softmax", x), site, make)

    @remembered
    def gate(self, site: str, name: str, argument: float, factor: float, code: int) -> Site:
        """Bring a step, worth `argument`, to a table and a result, worth `factor`, to the site."""

        def make(out: Encoding) -> list[Any]:
            by = between(site, argument * 2**ARGUMENT_BITS, 1.0)
            scaled = _narrow(between(site, factor, out.scale))
            return [*scaled, code, *_narrow(by), self.table(name)[1]]

        return self._constants(("gate", name, argument, factor, code), site, make)

    @remembered
    def add(self, site: str, x: Encoding, y: Encoding) -> Site:
        """Both summands have one shift, that of the larger factor, so the sum is rounded once."""

        def make(out: Encoding) -> list[Any]:
            m_x, m_y, t = between_sum(site, x.scale, y.scale, out.scale)
            return [m_x, t, m_y]

        return self._constants(("add", x, y), site, make)


def _narrow(by: Multiplier) -> list[Any]:
    """Return m and t of `requantize`."""
    return [by.m, 31 - by.shift]


def _wide(by: Multiplier) -> list[Any]:
    """Return m and t of `requantize_wide`."""
    return [np.minimum((np.asarray(by.m) + 2**15) >> 16, 0x7FFF), 15 - by.shift]
