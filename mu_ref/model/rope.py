"""Rotary position embedding: where each token stands, and the base of its turning speeds.

`ops/rotation.py` makes the angles of both, and `ops.rope` turns. The tables are plain NumPy and
depend on integer positions only. Chapter: `docs/05_positions.md`.
"""

from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np

from mu_ref.config import StackConfig

__all__ = ["positions_of", "rope_lengths", "rope_theta"]


def positions_of(stack: StackConfig, valid: np.ndarray) -> np.ndarray:
    """Number the tokens of each row, padding not counted.

    $p_i = i$, or $p_i = i - \\lfloor (n - 1) / 2 \\rfloor$ with the origin in the centre (2.1)

    Args:
        stack: uses rope_origin and rope_length: n is the row's own token count, or the padded
            length of the batch.
        valid: [batch, n_tok] bool, False at padding.

    Returns:
        [batch, n_tok] int64. A pad gets the position of the last token before it.

    Source:
        microsoft/encoder-decoder-slm `mu_utils.py`, `generate_sin_cos_pos_emb`.

    Differs from the source:
        With rope_length "row" pads do not move the centre; the source always uses the padded
        length. Attention sees differences of positions only, so scores agree up to rounding.
    """
    if stack.rope_length == "padded":
        index = np.broadcast_to(np.arange(valid.shape[1]), valid.shape)  # a pad counts as a token
    else:
        index = np.maximum(np.cumsum(valid, axis=1) - 1, 0)
    if stack.rope_origin == "start":
        return index
    length = rope_lengths(stack, valid)  # [batch]
    return index - (length[:, None] - 1) // 2


def rope_lengths(stack: StackConfig, valid: np.ndarray) -> np.ndarray:
    """Length of each row as RoPE counts it: [batch, n_tok] bool -> [batch] int64."""
    if stack.rope_length == "padded":
        return np.full(valid.shape[0], valid.shape[1])
    return valid.sum(axis=1)


def rope_theta(stack: StackConfig, lengths: np.ndarray) -> np.ndarray:
    r"""Base of the rotation speeds, which NTK scaling raises with the length.

    $$\theta' = \theta \, (s \max(L, L_0) / L_0 - (s - 1))^{d / (d - 2)}$$              (2.2)

    Args:
        stack: rope_theta is $\theta$, rope_ntk_factor is s, rope_base_len is L_0, d_head is d.
        lengths: [batch] int, L of each row.

    Returns:
        [batch] float64; all equal to rope_theta when s <= 1.

    Source:
        microsoft/encoder-decoder-slm `mu_utils.py`.

    Differs from the source:
        The power is rounded to the nearest float64: of those of two libraries, or of NumPy on two
        processors, the last bit may differ, and every bit of an integer model follows from it.
    """
    theta = np.full(len(lengths), float(stack.rope_theta))
    s, base_len, d = stack.rope_ntk_factor, stack.rope_base_len, stack.d_head
    if s <= 1:
        return theta
    # Below L_0 the stretch is exactly 1: a short text turns as in training.
    stretch = s * np.maximum(lengths, base_len) / base_len - (s - 1)
    return theta * np.array([_power(float(x), d / (d - 2)) for x in stretch])


@lru_cache(maxsize=4096)  # a decode step asks again
def _power(base: float, exponent: float) -> float:
    with localcontext(prec=40):
        return float(Decimal(base) ** Decimal(exponent))
