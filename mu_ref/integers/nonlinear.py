r"""The integer forms of softmax, norms, activations, tanh and RoPE; see `docs/integer.md`.

Inputs and outputs are integers; scales have already become multipliers (`fixed_point.py`). Each
function returns int64 that the caller saturates to the width of the site.
"""

from typing import Any

import numpy as np

from mu_ref.integers.fixed_point import Multiplier, requantize, rounding_shift
from mu_ref.integers.tables import interpolate

__all__ = [
    "ARGUMENT_BITS",
    "BIAS_BITS",
    "center",
    "exp2_weights",
    "gate",
    "norm_multiplier",
    "probabilities",
    "turn",
    "unit_phase",
]

ARGUMENT_BITS = 16  # a table's argument x is given as round(2^16 x)
LARGEST_ARGUMENT = 16 << ARGUMENT_BITS  # the tables end at 16
BIAS_BITS = 8  # a LayerNorm's bias is added in 2^-8 steps of the output


def gate(kind: str, x: np.ndarray) -> np.ndarray:
    r"""The factor that an activation gives its argument, or tanh: $g(x)$ in units of $2^{-15}$.

    gelu(x) = x g(x) and silu(x) = x g(x) have $g(-x) = 1 - g(x)$; $\tanh(-x) = -\tanh(x)$.

    Args:
        kind: "gelu_tanh", "gelu", "silu" or "tanh".
        x: argument in units of $2^{-16}$; beyond ±16 it counts as ±16.

    Returns:
        0..2^15 (tanh: -2^15..2^15).
    """
    size = np.minimum(np.abs(x), LARGEST_ARGUMENT)
    name = "tanh" if kind == "tanh" else f"gate_{kind}"
    g = interpolate(name, size, ARGUMENT_BITS - 7, drop_bits=1)  # 128 points per unit
    mirrored = -g if kind == "tanh" else (1 << 15) - g
    return np.where(x < 0, mirrored, g)


def exp2_weights(scores: np.ndarray, mask: np.ndarray, by: Multiplier) -> np.ndarray:
    r"""Return $2^{-u}$ in units of $2^{-30}$, u the distance below the row's largest score.

    $u = \mathrm{requantize}(\max_j q_j - q)$ in units of $2^{-16}$, by $s \log_2(e) \, 2^{16}$;
    $e = \lfloor T(u \bmod 1) / 2^{\lfloor u \rfloor} \rfloor$, 0 from u = 31 on.

    Args:
        scores: [..., n] q, at most 16 bits.
        mask: bool, broadcast to scores; False weighs 0.
        by: multiplier of $s \log_2(e) \, 2^{16}$.

    Returns:
        [..., n], 0..2^30.
    """
    least = np.int64(-(2**16))
    largest = np.where(mask, scores, least).max(axis=-1, keepdims=True)
    below = np.where(mask, largest - scores, 0)  # 0..2^16
    u = np.minimum(requantize(below, by), 31 << ARGUMENT_BITS)
    fraction = u & ((1 << ARGUMENT_BITS) - 1)
    e = interpolate("exp2", fraction, ARGUMENT_BITS - 8) >> (u >> ARGUMENT_BITS)
    return np.where(mask, e, 0)


def probabilities(weights: np.ndarray, bits: int) -> np.ndarray:
    r"""Divide weights by their sum: $\lfloor (2^{b} e + S / 2) / S \rfloor$, S the sum; else 0.

    Args:
        weights: [..., n] from `exp2_weights`.
        bits: b, 8 or 15: a probability's unit is $2^{-b}$.

    Returns:
        [..., n], 0..2^b.
    """
    total = weights.sum(axis=-1, keepdims=True)
    return ((weights << bits) + (total >> 1)) // np.maximum(total, 1)


def norm_multiplier(square_sum: np.ndarray, by: Multiplier) -> Multiplier:
    r"""Multiplier $m / \sqrt{R}$ of a row, R its sum of squares.

    R is brought into $[2^{30}, 2^{32})$ by $4^k$ and its inverse root read from the table. R = 0
    gives 0.

    Args:
        square_sum: R >= 0, at most 62 bits.
        by: the row-independent part.

    Returns:
        m and shift, of R's shape.
    """
    r_sum = np.maximum(square_sum, 1)
    length = _bit_length(r_sum)
    k = (length - 31) >> 1  # floor, so that the rest has 31 or 32 bits
    mantissa = np.where(k > 0, r_sum >> np.maximum(2 * k, 0), r_sum << np.maximum(-2 * k, 0))
    root = interpolate("rsqrt", mantissa - (1 << 30), 22)  # 2^29..2^30, 256 points per 2^30
    m = (root * by.m) >> 30
    return Multiplier(np.where(square_sum > 0, m, 0), by.shift - 15 - k)


def center(x: np.ndarray, shift_to_bits: int = 15) -> tuple[np.ndarray, np.ndarray]:
    r"""Subtract the mean for LayerNorm: $n x - \sum x$, shifted right until the row fits.

    Args:
        x: [..., n] at most 17 bits.
        shift_to_bits: magnitude bits that are kept.

    Returns:
        The differences [..., n], and the shift of each row [..., 1].
    """
    n = x.shape[-1]
    difference = n * x - x.sum(axis=-1, keepdims=True)
    largest = np.maximum(np.abs(difference).max(axis=-1, keepdims=True), 1)
    shift = np.maximum(_bit_length(largest) - shift_to_bits, 0)
    return rounding_shift(difference, shift), shift


def unit_phase(positions: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Angle of each position and pair, in units of 2^-64 turns: the product wraps by itself.

    Args:
        positions: [batch, n_tok] int64; negative ones turn backwards.
        steps: [batch, d_head / 2] uint64, from `turn_steps`.

    Returns:
        [batch, n_tok, d_head / 2] uint64.
    """
    return positions.astype(np.uint64)[:, :, None] * steps[:, None, :]


def turn(phase: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Cosine and sine of a phase, in units of $2^{-15}$.

    The upper two bits of the phase are the quadrant, the next 30 the place in the sine's table.

    Args:
        phase: uint64, in units of 2^-64 turns.

    Returns:
        Cosine and sine, int64 in -2^15..2^15.
    """
    place = (phase >> np.uint64(32)).astype(np.int64)  # 32 bits of a turn
    return _sine(place + (1 << 30)), _sine(place)


def _sine(place: Any) -> np.ndarray:
    quadrant = (place >> 30) & 3
    within = place & ((1 << 30) - 1)
    within = np.where((quadrant & 1) == 1, (1 << 30) - within, within)  # 1024 points per quadrant
    size = interpolate("sine", within, 20, drop_bits=15)
    return np.where(quadrant >= 2, -size, size)


def _bit_length(x: np.ndarray) -> np.ndarray:
    """Number of bits of x >= 1; by halving, since a float logarithm could round up."""
    length = np.ones_like(x)
    for step in (32, 16, 8, 4, 2, 1):
        big = x >= (np.int64(1) << step)
        length += np.where(big, step, 0)
        x = np.where(big, x >> step, x)
    return length
