r"""Fit a few positive constants to measured times: damped Gauss-Newton in logarithms.

Minimised is

$$\sum_i \left( \frac{\ln (p_i / m_i)}{\sigma} \right)^2 +
  \sum_j \left( \frac{\ln (\theta_j / \pi_j)}{s_j} \right)^2$$                         (4.6)

over constants $\theta_j$ within bounds: predictions $p_i$ of measured $m_i$, and a mild prior
$\pi_j$ from data sheets. Errors count in proportion, so a millisecond of a short call weighs as
much as a second of a long one. Chapter: `docs/validation.md`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Constant", "Fit", "fit_constants"]

SIGMA = 0.1  # expected scatter of a measurement, in logarithms: 10 %
STEP = 0.02  # of a logarithm, for derivatives
Predict = Callable[[np.ndarray], np.ndarray]  # [n_constants] logarithms -> [n_rows] logarithms


@dataclass(frozen=True, kw_only=True, slots=True)
class Constant:
    """One number to fit."""

    name: str
    unit: str
    meaning: str
    prior: float  # from data sheets or microbenchmarks
    spread: float  # how far it may stray, in logarithms: about this share
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Fitted constants and how well they predict."""

    values: np.ndarray  # [n_constants]
    uncertainty: np.ndarray  # [n_constants] standard deviation, in logarithms
    residuals: np.ndarray  # [n_rows] predicted / measured - 1
    left_out: np.ndarray  # [n_rows] the same, each row predicted without itself
    informed: np.ndarray  # [n_constants] share of its precision that comes from data, not the prior


def fit_constants(
    constants: Sequence[Constant],
    predict: Predict,
    measured: np.ndarray,
    groups: Sequence[object],
    n_steps: int = 12,
) -> Fit:
    """Fit constants, and predict each group of rows by a fit without it.

    Args:
        constants: what is fitted.
        predict: logarithms of the constants -> logarithms of the predictions.
        measured: [n_rows], positive.
        groups: of each row; rows of a group are left out together.
        n_steps: of Gauss-Newton, at most.

    Returns:
        The fit. Left-out fits start at the full one and take two steps with its derivatives.
    """
    prior = np.log([c.prior for c in constants])
    spread = np.array([c.spread for c in constants])
    low, high = (np.log([getattr(c, end) for c in constants]) for end in ("low", "high"))
    target = np.log(measured)

    def cost(theta: np.ndarray, rows: np.ndarray, keep: np.ndarray) -> float:
        wrong = ((rows - target) / SIGMA)[keep]
        return float(wrong @ wrong + np.sum(((theta - prior) / spread) ** 2))

    def step(
        theta: np.ndarray, rows: np.ndarray, slope: np.ndarray, keep: np.ndarray, damping: float
    ) -> np.ndarray:
        a, wrong = slope[keep] / SIGMA, ((rows - target) / SIGMA)[keep]
        curve = a.T @ a + np.diag(1 / spread**2)
        slant = a.T @ wrong + (theta - prior) / spread**2
        change = -np.linalg.solve(curve + damping * np.diag(np.diag(curve)), slant)
        return np.clip(theta + change, low, high)

    everything = np.ones(len(measured), bool)
    theta = np.clip(prior, low, high)
    rows, damping = predict(theta), 1e-2
    slope = _slope(predict, theta, rows)
    for _ in range(n_steps):
        trial = step(theta, rows, slope, everything, damping)
        trial_rows = predict(trial)
        gain = cost(theta, rows, everything) - cost(trial, trial_rows, everything)
        if gain > 0:
            theta, rows, damping = trial, trial_rows, damping / 4
            if gain < 1e-3:
                break
            slope = _slope(predict, theta, rows)
        else:
            damping *= 8
    left_out = np.zeros(len(measured))
    for group in dict.fromkeys(groups):
        held = np.array([g == group for g in groups])
        other, other_rows = theta, rows
        for _ in range(2):
            other = step(other, other_rows, slope, ~held, 0.0)
            other_rows = predict(other)
        left_out[held] = np.exp(other_rows - target)[held] - 1
    data = (slope / SIGMA).T @ (slope / SIGMA)
    covariance = np.linalg.inv(data + np.diag(1 / spread**2))
    return Fit(
        values=np.exp(theta),
        uncertainty=np.sqrt(np.diag(covariance)),
        residuals=np.exp(rows - target) - 1,
        left_out=left_out,
        informed=1 - np.diag(covariance) / spread**2,
    )


def _slope(predict: Predict, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Derivatives by one-sided differences: [n_rows, n_constants]."""
    slope = np.empty((len(rows), len(theta)))
    for j in range(len(theta)):
        moved = theta.copy()
        moved[j] += STEP
        slope[:, j] = (predict(moved) - rows) / STEP
    return slope
