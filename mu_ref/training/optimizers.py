"""Muon for the matrices inside layers, AdamW for everything else, as in the public Mu code."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mu_ref.ops.arithmetic import Arithmetic

__all__ = [
    "AdamW", "Muon", "clip_factor", "clip_gradients", "is_muon_weight", "orthogonalize",
]  # fmt: skip

Arrays = dict[str, np.ndarray]


def is_muon_weight(name: str, array: np.ndarray) -> bool:
    """Say whether Muon trains a weight: matrices of layers, not embeddings, head, gains, biases.

    The two thin matrices of a LoRA are AdamW's: their product is the step that counts, and what
    is near orthogonal in each of them is not so in the product.
    """
    if "embedding" in name or name.startswith("head") or ".lora_" in name:
        return False
    return array.ndim == 2


def orthogonalize(gradient: np.ndarray, n_steps: int = 5) -> np.ndarray:
    r"""Push the singular values of a matrix towards 1 by a Newton-Schulz iteration.

    $$A = X X^T, \quad X \leftarrow (a I + b A + c A^2) X$$                            (3.2)

    Args:
        gradient: [rows, columns] float.
        n_steps: iterations.

    Returns:
        [rows, columns], singular values in about [0.7, 1.2].

    Source:
        Jordan 2024, Muon, with (a, b, c) = (3.4445, -4.7750, 2.0315).

    Differs from the source:
        float32 instead of bfloat16.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    # X X^T on the short side: the same singular values, fewer products.
    tall = gradient.shape[0] > gradient.shape[1]
    x = gradient.T if tall else gradient
    x = x / (np.linalg.norm(x) + 1e-7)  # no singular value above 1, or the iteration diverges
    for _ in range(n_steps):
        gram = x @ x.T  # [short, short], A
        # A is its own transpose; written so, NumPy asks BLAS for half the product. And a is added
        # to the diagonal, not a X to the product.
        factor = b * gram + c * (gram @ gram.T)
        factor.flat[:: len(factor) + 1] += a
        x = factor @ x
    return x.T if tall else x


@dataclass(kw_only=True, slots=True)
class Muon:
    r"""Momentum, orthogonalised, rescaled to the root mean square that AdamW's updates have.

    $$W \leftarrow (1 - \eta \lambda) W - 0.2 \eta \sqrt{\max(m, n)} \, O$$              (3.3)

    Source:
        Jordan 2024; the factor 0.2 sqrt(max(m, n)) is Moonshot's (arXiv:2502.16982), so that one
        learning rate serves Muon and AdamW.

    Differs from the source:
        The public Mu code scales the update to a root mean square of 1 and takes a tenth of
        AdamW's rate, half of this one's step.
    """

    momentum: float = 0.95
    weight_decay: float = 0.1

    def update(self, weight: np.ndarray, grad: np.ndarray, state: Arrays, rate: float) -> None:
        """Step one weight in place; `state` holds its momentum."""
        m = state.setdefault("momentum", np.zeros_like(weight))
        m *= self.momentum
        m += grad
        step = orthogonalize(grad + self.momentum * m)  # Nesterov: one step of momentum ahead
        weight *= 1 - rate * self.weight_decay
        weight -= (rate * 0.2 * max(weight.shape) ** 0.5) * step


@dataclass(kw_only=True, slots=True)
class AdamW:
    """Adam with decoupled weight decay (arXiv:1711.05101); decay acts on matrices only."""

    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.01
    arithmetic: Arithmetic = field(default_factory=Arithmetic)  # does the work

    def update(
        self, weight: np.ndarray, grad: np.ndarray, state: Arrays, rate: float, step: int
    ) -> None:
        """Step one weight in place; `step` counts from 1."""
        for name in ("mean", "square"):
            if name not in state:
                state[name] = np.zeros_like(weight)
        # Both means start at 0; divided by what they have seen of the whole, they are unbiased.
        known = 1 - self.beta1**step, 1 - self.beta2**step
        left = 1 - rate * self.weight_decay if weight.ndim == 2 else 1.0
        by = (1 - self.beta1, 1 - self.beta2, *known, rate, self.eps, left)
        self.arithmetic.adamw(weight, grad, state["mean"], state["square"], by)


def clip_factor(grads: Mapping[str, np.ndarray], limit: float) -> tuple[float, float]:
    """Find by how much all gradients must be scaled for their common norm to be at most `limit`.

    Args:
        grads: {name: gradient}.
        limit: largest norm.

    Returns:
        A factor of at most 1, and the norm.
    """
    norm = float(np.sqrt(sum(float(np.vdot(g, g)) for g in grads.values())))
    return min(1.0, limit / (norm + 1e-12)), norm


def clip_gradients(grads: Mapping[str, np.ndarray], limit: float) -> tuple[Arrays, float]:
    """Scale all gradients by `clip_factor`.

    Args:
        grads: {name: gradient}.
        limit: largest norm.

    Returns:
        The gradients and the norm before clipping.
    """
    factor, norm = clip_factor(grads, limit)
    return {name: g * g.dtype.type(factor) for name, g in grads.items()}, norm
