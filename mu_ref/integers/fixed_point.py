"""Fixed-point arithmetic: the only place in the project that rounds a real number to an integer.

A real number is carried as q with $x = s (q - z)$. An integer result is brought to another scale
by a **multiplier** $d \\approx m \\, 2^{shift - 31}$, m a 31-bit integer. How the product is
rounded has a name, since three engines do it three ways. Chapter: `docs/integer.md`.

Every function takes NumPy integer arrays (or Python ints) and computes in int64; the comments say
why nothing overflows.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mu_ref.errors import QuantizationError, check_choice

__all__ = [
    "ROUNDINGS",
    "Multiplier",
    "Rounding",
    "check_accumulator",
    "check_wide",
    "dequantize",
    "integer_range",
    "quantize",
    "quantize_multiplier",
    "quantize_multipliers",
    "requantize",
    "requantize_sum",
    "requantize_wide",
    "round_half_away",
    "round_half_even",
    "rounding_shift",
    "saturate",
    "sum_multipliers",
    "weighted_sum",
]

Rounding = Literal["tflite_double", "tflite_single", "half_even"]
ROUNDINGS: tuple[Rounding, ...] = ("tflite_double", "tflite_single", "half_even")
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True, slots=True)
class Multiplier:
    """The factor $m \\, 2^{shift - 31}$; both are ints, or int64 arrays [n] of n channels."""

    m: Any  # 2^30 <= m < 2^31, or 0
    shift: Any  # -31..30


def integer_range(bits: int, *, signed: bool = True) -> tuple[int, int]:
    """Return the smallest and the largest integer of a width."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def saturate(x: np.ndarray, bits: int, *, signed: bool = True) -> np.ndarray:
    """Clip integers to a width and store them in it.

    Args:
        x: integers.
        bits: 4 (one to a byte), 8, 16 or 32.
        signed: two's complement, or unsigned.

    Returns:
        The same shape, as int8, uint8, int16, ...
    """
    low, high = integer_range(bits, signed=signed)
    return np.clip(x, low, high).astype(f"{'i' if signed else 'u'}{max(bits, 8) // 8}")


def round_half_even(x: Any) -> Any:
    """Round real numbers to the nearest integer, ties to the even one; int64 (or int)."""
    return round(x) if isinstance(x, float) else np.rint(x).astype(np.int64)


def round_half_away(x: Any) -> Any:
    """Round real numbers to the nearest integer, ties away from zero; int64 (or int)."""
    whole = np.floor(np.abs(x))  # floor(|x| + 0.5) would be wrong just below 0.5
    rounded = np.copysign(whole + (np.abs(x) - whole >= 0.5), x)
    return int(rounded) if isinstance(x, float) else rounded.astype(np.int64)


# -- the border between real numbers and integers --------------------------------------------------


def quantize(
    x: np.ndarray, scale: Any, zero_point: Any, bits: int, *, signed: bool = True
) -> np.ndarray:
    r"""Turn real numbers into integers.

    $q = \mathrm{saturate}(\mathrm{round\_half\_even}(x / s) + z)$                       (5.1)

    Args:
        x: real numbers, divided by s in float64; infinities saturate, NaN is an error.
        scale: s > 0, broadcast to x.
        zero_point: z, an integer, broadcast to x.
        bits: 4 (one to a byte), 8, 16 or 32.
        signed: two's complement, or unsigned.

    Returns:
        Integers of the width.

    Raises:
        QuantizationError: a scale that is not positive, or a NaN.

    Source:
        ONNX QuantizeLinear.
    """
    scale = np.asarray(scale, np.float64)
    wrong = scale[~((scale > 0) & np.isfinite(scale))]
    if wrong.size:
        raise QuantizationError(f"a scale must be positive and finite, got {wrong[0]}")
    x = np.asarray(x, np.float64)
    if np.isnan(x).any():
        raise QuantizationError("numbers to quantize must be numbers, got NaN")
    with np.errstate(over="ignore"):  # an infinite quotient saturates like any other large one
        steps = np.clip(np.rint(x / scale), -(2.0**62), 2.0**62)  # int64 holds it, and adding z
    return saturate(steps.astype(np.int64) + zero_point, bits, signed=signed)


def dequantize(q: np.ndarray, scale: Any, zero_point: Any = 0) -> np.ndarray:
    """Return the real numbers $x = s (q - z)$ that integers stand for, float64."""
    return (np.asarray(q).astype(np.int64) - zero_point) * np.asarray(scale, np.float64)


# -- bringing an accumulator to another scale ------------------------------------------------------


def quantize_multiplier(d: float) -> Multiplier:
    r"""Write a real factor as an integer and a shift.

    $d = q \, 2^{shift}$ with $1/2 \le q < 1$ (frexp); $m = \mathrm{round\_half\_away}(2^{31} q)$.
    If $m = 2^{31}$, halve it and add one to the shift; below shift -31 both are 0.      (5.2)

    Args:
        d: at least 0, finite.

    Returns:
        m and shift.

    Raises:
        QuantizationError: d is negative, not finite, or 2^30 or more, which int32 cannot follow.

    Source:
        TensorFlow Lite `quantization_util.cc`, QuantizeMultiplier.
    """
    by = quantize_multipliers(np.array([d]))
    return Multiplier(int(by.m[0]), int(by.shift[0]))


def quantize_multipliers(d: np.ndarray) -> Multiplier:
    """Apply `quantize_multiplier` to every element: [n] -> two int64 arrays [n]."""
    d = np.ravel(np.asarray(d, np.float64))
    for wrong in d[~((d >= 0) & np.isfinite(d))]:
        raise QuantizationError(f"a multiplier must be finite and at least 0, got {wrong}")
    q, shift = np.frexp(d)
    m = round_half_away(q * 2**31)
    full = m == 2**31
    m, shift = np.where(full, m // 2, m), shift.astype(np.int64) + full
    for wrong in d[shift > 30]:
        raise QuantizationError(
            f"a multiplier must be below 2^30 so that int32 holds the result, got {wrong:.3g}; "
            "the two scales do not belong together"
        )
    small = shift < -31
    return Multiplier(np.where(small, 0, m), np.where(small, 0, shift))


def requantize(acc: np.ndarray, by: Multiplier, rounding: Rounding = "tflite_single") -> np.ndarray:
    r"""Multiply int32 accumulators by a multiplier and round, in the named way.

    With $t = 31 - shift$:

    * tflite_single: $\lfloor (a m + 2^{t-1}) / 2^t \rfloor$, ties up                    (5.3)
    * half_even: $a m / 2^t$ rounded, ties to the even integer
    * tflite_double: $h = \lfloor a' m / 2^{31} + 1/2 \rfloor$ with $a' = a \, 2^{\max(shift, 0)}$,
      then $h / 2^{\max(-shift, 0)}$, ties away from zero. $h$ is INT32_MAX if both are INT32_MIN.

    Args:
        acc: int32 range.
        by: m and shift, broadcast to acc.
        rounding: which.

    Returns:
        int64; not saturated.

    Source:
        TensorFlow Lite `common.h`, MultiplyByQuantizedMultiplier, with and without
        TFLITE_SINGLE_ROUNDING; half_even as in ONNX QLinearMatMul.

    Differs from the source:
        tflite_double saturates $a'$ to int32, where the source's shift is undefined.
    """
    check_choice("rounding", rounding, ROUNDINGS, QuantizationError)
    acc = _wide(acc)
    if rounding == "tflite_double":
        left = _shift_left(acc, np.maximum(by.shift, 0)).clip(INT32_MIN, INT32_MAX)
        return _shift_away(_doubling_high(left, by.m), np.maximum(-_wide(by.shift), 0))
    product = acc * by.m  # |acc| <= 2^31, m <= 2^31: at most 2^62
    t = 31 - _wide(by.shift)  # 1..62, so that adding 2^(t-1) <= 2^61 cannot overflow
    return _shift_even(product, t) if rounding == "half_even" else rounding_shift(product, t)


def requantize_wide(acc: np.ndarray, by: Multiplier) -> np.ndarray:
    r"""Multiply int64 accumulators by a multiplier cut to 15 bits.

    $m_{16} = \min(\lfloor (m + 2^{15}) / 2^{16} \rfloor, \mathtt{0x7FFF})$,
    $t = 15 - shift$: $\lfloor (a \, m_{16} + 2^{t-1}) / 2^t \rfloor$                    (5.4)

    Args:
        acc: |acc| < 2^47.
        by: m and shift, broadcast to acc; shift at most 14.

    Returns:
        int64; not saturated.

    Raises:
        QuantizationError: a shift above 14.

    Source:
        TensorFlow Lite `common.h`, MultiplyByQuantizedMultiplier for int64 accumulators.
    """
    check_wide(by)
    m16 = np.minimum((_wide(by.m) + 2**15) >> 16, 0x7FFF)
    return rounding_shift(_wide(acc) * m16, 15 - _wide(by.shift))  # product below 2^62


def check_wide(by: Multiplier) -> None:
    """Raise QuantizationError if a multiplier is too large for `requantize_wide`."""
    if np.any(np.asarray(by.shift) > 14):
        raise QuantizationError(
            "a multiplier of a 64-bit accumulator must be below 2^14; "
            "the two scales do not belong together"
        )


def requantize_sum(x: np.ndarray, x_factor: float, y: np.ndarray, y_factor: float) -> np.ndarray:
    r"""Add two integers of different scales with one rounding.

    The larger factor gives $t = 31 - shift$ by (5.2); both give
    $m = \mathrm{round\_half\_away}(d \, 2^t)$:
    $\lfloor (x m_x + y m_y + 2^{t-1}) / 2^t \rfloor$                                  (5.5)

    Args:
        x: at most 17 bits.
        x_factor: d of x, scale of x over scale of the sum.
        y: at most 17 bits.
        y_factor: d of y.

    Returns:
        int64, not saturated.

    Raises:
        QuantizationError: a factor that `quantize_multiplier` refuses.
    """
    return weighted_sum(x, y, *sum_multipliers(x_factor, y_factor))


def sum_multipliers(x_factor: float, y_factor: float) -> tuple[int, int, int]:
    """Return m_x, m_y and t of (5.5); raises what `quantize_multiplier` raises."""
    for factor in (x_factor, y_factor):  # max() below would let a NaN pass
        quantize_multiplier(factor)
    t = 31 - quantize_multiplier(max(x_factor, y_factor)).shift
    return round_half_away(x_factor * 2**t), round_half_away(y_factor * 2**t), t


def weighted_sum(x: np.ndarray, y: np.ndarray, m_x: int, m_y: int, t: int) -> np.ndarray:
    r"""Return $\lfloor (x m_x + y m_y + 2^{t-1}) / 2^t \rfloor$ (5.5); x and y at most 17 bits."""
    return rounding_shift(_wide(x) * m_x + _wide(y) * m_y, t)  # 17 + 31 + 1 bits


def rounding_shift(x: np.ndarray, t: Any) -> np.ndarray:
    r"""Return $\lfloor (x + 2^{t-1}) / 2^t \rfloor$ for |x| < 2^62; x itself for t = 0."""
    x, t = _wide(x), np.asarray(t)
    small = np.minimum(t, 62)
    half = np.where(small > 0, np.left_shift(np.int64(1), np.maximum(small - 1, 0)), 0)
    return np.where(t > 62, 0, (x + half) >> small)


def check_accumulator(
    what: str, n_terms: int, x_max: int, y_max: int, *, wide: bool, start: int = 0
) -> int:
    """Prove that a sum of products fits its accumulator.

    Args:
        what: site, for the message.
        n_terms: products added.
        x_max: largest magnitude of one operand, its zero point subtracted.
        y_max: of the other.
        wide: the accumulator is 48 bits wide (5.4), not 32 (5.3).
        start: largest magnitude that the sum starts from, a bias.

    Returns:
        The largest magnitude that the sum can reach.

    Raises:
        QuantizationError: too many terms.
    """
    largest, limit = start + n_terms * x_max * y_max, 2**47 if wide else 2**31
    if largest >= limit:
        raise QuantizationError(
            f"{what}: a sum of {n_terms} products of up to {x_max} x {y_max} must stay below "
            f"{limit}, it can reach {largest}; split the sum or narrow the operands"
        )
    return largest


def _wide(x: Any) -> Any:
    return np.asanyarray(x).astype(np.int64)


def _shift_left(x: np.ndarray, n: Any) -> np.ndarray:
    return np.left_shift(x, n)  # 32 + 30 bits


def _doubling_high(a: np.ndarray, m: Any) -> np.ndarray:
    high = rounding_shift(a * _wide(m), 31)
    return np.where((a == INT32_MIN) & (_wide(m) == INT32_MIN), INT32_MAX, high)


def _shift_away(x: np.ndarray, n: Any) -> np.ndarray:
    size = rounding_shift(np.abs(x), n)
    return np.where(x < 0, -size, size)


def _shift_even(x: np.ndarray, t: Any) -> np.ndarray:
    floor = x >> t
    twice_rest = (x - (floor << t)) << 1  # 0 <= rest < 2^t <= 2^62
    unit = np.left_shift(np.int64(1), t)
    up = (twice_rest > unit) | ((twice_rest == unit) & ((floor & 1) == 1))
    return floor + up
