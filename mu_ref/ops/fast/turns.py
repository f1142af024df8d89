"""Cosines and sines by which queries and keys are turned, as kernels read them."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from mu_ref.ops.rotation import Rotation

__all__ = ["turns_of"]

FEW = 16  # tokens, as a step or a check of drafts has
Make = Callable[[Rotation], tuple[np.ndarray, np.ndarray]]
Shape = tuple[int, int, int]


def turns_of(rotation: Rotation, shape: Shape, make: Make) -> np.ndarray:
    """Make one array of both, known for a few tokens: each text has some at these places.

    Args:
        rotation: what is asked for.
        shape: batch, tokens, d_head / 2.
        make: the executor's cosines and sines of a rotation, [batch or 1, tokens, d_head / 2].

    Returns:
        [2, *shape], C-contiguous; nobody writes to it.
    """
    if shape[1] > FEW:
        return _both(rotation, shape, make)
    places, theta = rotation.positions.ravel().tolist(), rotation.theta.tolist()
    return _of_few(tuple(places), tuple(theta), rotation.factor, shape, make)


@lru_cache(maxsize=2048)
def _of_few(
    places: tuple[int, ...], theta: tuple[float, ...], factor: float, shape: Shape, make: Make
) -> np.ndarray:
    positions = np.array(places, np.int64).reshape(-1, shape[1])
    return _both(Rotation(positions, np.array(theta), 2 * shape[-1], factor), shape, make)


def _both(rotation: Rotation, shape: Shape, make: Make) -> np.ndarray:
    # a stack of broadcast arrays has its axes in memory in another order
    turns = np.stack([np.broadcast_to(x, shape) for x in make(rotation)]).copy(order="C")
    turns.flags.writeable = False
    return turns
