"""What is tried, by kind: each module has `cases(rng)`, and every case names what must come of it."""

import random
from collections.abc import Callable, Iterator, Mapping

from ..case import Case
from . import damaged, environment, fields, flags, jsons, numbers, outputs, tables, tensors, texts

__all__ = ["KINDS"]

KINDS: Mapping[str, Callable[[random.Random], Iterator[Case]]] = {
    "numbers": numbers.cases, "texts": texts.cases, "flags": flags.cases, "json": jsons.cases,
    "outputs": outputs.cases, "damaged": damaged.cases, "fields": fields.cases,
    "tables": tables.cases, "tensors": tensors.cases, "environment": environment.cases,
}  # fmt: skip
