"""The definitions of fixed point in Python's unbounded integers and exact fractions.

Nothing here can overflow or round by accident, and no line is shared with
`mu_ref.quantize.fixed_point`: tests compare the two.
"""

import math
from fractions import Fraction

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


def half_away(x: Fraction) -> int:
    return half_up(x) if x >= 0 else -half_up(-x)


def half_even(x: Fraction) -> int:
    return round(x)  # Fraction's round is exact and goes to the even integer


def clip(x: int, low: int, high: int) -> int:
    return min(max(x, low), high)


def single(a: int, m: int, shift: int) -> int:
    t = 31 - shift
    return (a * m + 2 ** (t - 1)) >> t


def double(a: int, m: int, shift: int) -> int:
    a = clip(a << max(shift, 0), INT32_MIN, INT32_MAX)
    h = INT32_MAX if a == m == INT32_MIN else half_up(Fraction(a * m, 2**31))
    return half_away(Fraction(h, 2 ** max(-shift, 0)))


def gemmlowp_double(a: int, m: int, shift: int) -> int:
    """gemmlowp's own steps: a nudge and a division that truncates, then mask, rest, threshold."""
    ab = clip(a << max(shift, 0), INT32_MIN, INT32_MAX) * m
    nudged = ab + (2**30 if ab >= 0 else 1 - 2**30)
    high = abs(nudged) // 2**31 * (1 if nudged >= 0 else -1)
    n = max(-shift, 0)
    mask = 2**n - 1
    rest, threshold = high & mask, (mask >> 1) + (high < 0)
    return (high >> n) + (rest > threshold)


def frexp(d: Fraction) -> tuple[Fraction, int]:
    shift = 0
    while d >= 2**shift:
        shift += 1
    while d < Fraction(2) ** (shift - 1):
        shift -= 1
    return d / Fraction(2) ** shift, shift


def multiplier(d: Fraction) -> tuple[int, int]:
    if d == 0:
        return 0, 0
    q, shift = frexp(d)
    m = half_away(q * 2**31)
    if m == 2**31:
        m, shift = m // 2, shift + 1
    return (0, 0) if shift < -31 else (m, shift)
