"""Amounts of the roofline: numbers stay whole and exact, columns are float64 and fast."""

import math
from typing import Any

import numpy as np

from npu_sim.units import ceil_div

__all__ = [
    "Amount", "larger", "nearest_whole", "round_down", "round_up", "round_up_div", "smaller",
]  # fmt: skip

# A number, or a float64 column: [n_rows] of operations, [N, 1] of NPUs, [N, n_rows] of both.
Amount = Any


def _is_column(*amounts: Amount) -> bool:
    return any(isinstance(amount, np.ndarray) for amount in amounts)


def round_up_div(amount: Amount, per: Amount) -> Amount:
    """Divide and round up."""
    return np.ceil(amount / per) if _is_column(amount, per) else ceil_div(amount, per)


def round_up(amount: Amount) -> Amount:
    """Round up."""
    return np.ceil(amount) if _is_column(amount) else math.ceil(amount)


def round_down(amount: Amount) -> Amount:
    """Round down."""
    return np.floor(amount) if _is_column(amount) else math.floor(amount)


def nearest_whole(amount: Amount) -> Amount:
    """Round to the nearest whole number, halves to even."""
    return np.round(amount) if _is_column(amount) else round(amount)


def larger(a: Amount, b: Amount) -> Amount:
    """The larger of two, element by element."""
    return np.maximum(a, b) if _is_column(a, b) else max(a, b)


def smaller(a: Amount, b: Amount) -> Amount:
    """The smaller of two, element by element."""
    return np.minimum(a, b) if _is_column(a, b) else min(a, b)
