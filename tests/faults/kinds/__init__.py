"""What is tried, by kind: each module has `cases(rng)`, and every case names what must come of it."""

import random
from collections.abc import Callable, Iterator, Mapping

from ..case import Case
from . import numbers

__all__ = ["KINDS"]

KINDS: Mapping[str, Callable[[random.Random], Iterator[Case]]] = {
    "numbers": numbers.cases,
}
