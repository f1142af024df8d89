"""What `ops.rope` is told: how far each token turns. `mu_ref/model/rope.py` decides it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["Rotation"]


@dataclass(frozen=True)
class Rotation:
    r"""How far tokens are turned: by the angle of every position p and pair i.

    $$\alpha_{pi} = p \, \theta^{-2i/d} / f$$                                          (2.3)

    Executors in floats read `cos` and `sin`; the integer executor computes its own from positions.

    Source:
        RoFormer, arXiv:2104.09864, with the "rotate half" pairing of (i, i + d/2).

    Differs from the source:
        RoFormer pairs neighbours (2i, 2i + 1); the weights decide which is right, and those of
        Mu's public code and of T5Gemma are trained with halves.
    """

    positions: np.ndarray  # [batch, n_tok] int; batch may be 1
    theta: np.ndarray  # [batch] float64, from `rope_theta`
    d_head: int  # even width of a head, d in the formula
    factor: float = 1.0  # f: positions are read as f times closer together

    @cached_property
    def angles(self) -> np.ndarray:
        """Radians, [batch, n_tok, d_head / 2] float64."""
        exponents = np.arange(0, self.d_head, 2) / self.d_head  # [d_head / 2]
        speeds = self.theta[:, None] ** -exponents[None, :] / self.factor  # [batch, d_head / 2]
        return self.positions[:, :, None] * speeds[:, None, :]

    @cached_property
    def cos(self) -> np.ndarray:
        """Cosines, [batch, n_tok, d_head / 2] float64."""
        return np.cos(self.angles)

    @cached_property
    def sin(self) -> np.ndarray:
        """Sines, [batch, n_tok, d_head / 2] float64."""
        return np.sin(self.angles)
