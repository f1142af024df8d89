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
STEP = 0.05  # of a logarithm, for derivatives: predictions have kinks where engines change places
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
    start: np.ndarray | None = None,
) -> Fit:
    """Fit constants, and predict each group of rows by a fit without it.

    Args:
        constants: what is fitted.
        predict: logarithms of the constants -> logarithms of the predictions.
        measured: [n_rows], positive.
        groups: of each row; rows of a group are left out together.
        n_steps: of Gauss-Newton, at most.
        start: values to begin with, [n_constants]; by default the priors.

    Returns:
        The fit. Left-out fits start at the full one and take two steps with its derivatives.
    """
    problem = _Problem(constants, np.log(measured))
    everything = np.ones(len(measured), bool)
    begin = problem.prior if start is None else np.log(start)
    theta = np.clip(begin, problem.low, problem.high)
    rows, damping = predict(theta), 1e-2
    slope = _slope(predict, theta, rows)
    for _ in range(n_steps):
        trial = problem.step(theta, rows, slope, everything, damping)
        trial_rows = predict(trial)
        gain = problem.cost(theta, rows) - problem.cost(trial, trial_rows)
        if gain > 0:
            theta, rows, damping = trial, trial_rows, damping / 4
            if gain < 0.02:  # a fiftieth of what one row may err
                break
            # a pass over all rows for each constant: only where a step has helped
            slope = _slope(predict, theta, rows)
        else:
            damping *= 8
    # without one group the fit moves little: the derivatives of the full one still hold
    left_out = np.zeros(len(measured))
    for group in dict.fromkeys(groups):
        held = np.array([g == group for g in groups])
        other, other_rows = theta, rows
        for _ in range(2):
            other = problem.step(other, other_rows, slope, ~held, 0.0)
            other_rows = predict(other)
        left_out[held] = np.exp(other_rows - problem.target)[held] - 1
    # curvature of 4.6 at its least value: what the rows say, and the prior on top
    data = (slope / SIGMA).T @ (slope / SIGMA)
    covariance = np.linalg.inv(data + np.diag(1 / problem.spread**2))
    return Fit(
        values=np.exp(theta),
        uncertainty=np.sqrt(np.diag(covariance)),
        residuals=np.exp(rows - problem.target) - 1,
        left_out=left_out,
        informed=1 - np.diag(covariance) / problem.spread**2,
    )


class _Problem:
    """Equation 4.6, and one step towards its least value."""

    def __init__(self, constants: Sequence[Constant], target: np.ndarray) -> None:
        self.target = target
        self.prior = np.log([c.prior for c in constants])
        self.spread = np.array([c.spread for c in constants])
        self.low, self.high = (
            np.log([getattr(c, end) for c in constants]) for end in ("low", "high")
        )

    def cost(self, theta: np.ndarray, rows: np.ndarray) -> float:
        wrong, astray = (rows - self.target) / SIGMA, (theta - self.prior) / self.spread
        return float(wrong @ wrong + astray @ astray)

    def step(
        self,
        theta: np.ndarray,
        rows: np.ndarray,
        slope: np.ndarray,
        keep: np.ndarray,
        damping: float,
    ) -> np.ndarray:
        a, wrong = slope[keep] / SIGMA, ((rows - self.target) / SIGMA)[keep]
        curve = a.T @ a + np.diag(1 / self.spread**2)
        curve += damping * np.diag(np.diag(curve))
        slant = a.T @ wrong + (theta - self.prior) / self.spread**2
        # what would pass a bound stays on it, and the others make the best of that
        inside, change, within = np.ones(len(theta), bool), np.zeros(len(theta)), theta
        while inside.any():
            pull = slant[inside] + curve[np.ix_(inside, ~inside)] @ change[~inside]
            change[inside] = -np.linalg.solve(curve[np.ix_(inside, inside)], pull)
            within = np.clip(theta + change, self.low, self.high)
            passed = inside & (within != theta + change)
            if not passed.any():
                break
            change[passed] = (within - theta)[passed]
            inside &= ~passed
        return within


def _slope(predict: Predict, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Derivatives by one-sided differences: [n_rows, n_constants]."""
    slope = np.empty((len(rows), len(theta)))
    for j in range(len(theta)):
        moved = theta.copy()
        moved[j] += STEP
        slope[:, j] = (predict(moved) - rows) / STEP
    return slope
