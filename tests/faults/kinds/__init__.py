"""What is tried, by kind: each module yields cases, each with what must come of it."""

import random
from collections.abc import Callable, Iterator, Mapping

from faults.case import Case
from faults.kinds import (
    damaged,
    disks,
    environment,
    fields,
    flags,
    jsons,
    numbers,
    outputs,
    resume,
    tables,
    tensors,
    texts,
)

__all__ = ["KINDS", "SEVERAL_RUNS"]

SEVERAL_RUNS = ("resume", "kills", "together", "caches")  # each case takes seconds

KINDS: Mapping[str, Callable[[random.Random], Iterator[Case]]] = {
    "numbers": numbers.cases, "texts": texts.cases, "flags": flags.cases, "json": jsons.cases,
    "outputs": outputs.cases, "damaged": damaged.cases, "fields": fields.cases,
    "tables": tables.cases, "tensors": tensors.cases, "environment": environment.cases,
    "resume": resume.cases, "kills": resume.kills, "together": disks.together,
    "full disk": disks.cases, "caches": disks.caches,
}  # fmt: skip
