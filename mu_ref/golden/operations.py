"""Each operation on its edge cases: what whole-model runs never reach, and ports get wrong.

A case is one operation with its inputs, encodings and parameters; `run_case` computes it. What
comes out is not only the result, but every multiplier: a port that multiplies its scales in another
order is found there. Which fault each group of cases is for stands beside it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mu_ref.golden.record import Entry
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.store import IntegerModel
from mu_ref.integers.tables import turn_steps
from mu_ref.ops.integer import IntegerOps, Quantized
from mu_ref.ops.rotation import Rotation
from mu_ref.presets import tiny

__all__ = ["INPUTS", "SITE", "Case", "arguments_of", "model_of", "record_operations", "run_case"]

SITE = "site"
INPUTS = ("x", "y")
WEIGHTS = ("weight", "weight_scale", "bias")


@dataclass(frozen=True, slots=True)
class Case:
    """One operation on given integers."""

    name: str
    op: str
    arrays: Mapping[str, np.ndarray]  # x and y; weight, weight_scale, bias; tokens, mask, positions
    encodings: Mapping[str, Encoding]  # of x, y and out
    parameters: Mapping[str, Any] = field(default_factory=dict)  # as of the vocabulary
    rounding: str = "tflite_single"


def run_case(case: Case) -> dict[str, np.ndarray]:
    """Compute a case.

    Args:
        case: the operation and its inputs.

    Returns:
        {"out": the result, "output.multiplier": ..., and every other constant by its role}; of
        "rope" also "turns", uint64.
    """
    ops = IntegerOps(model_of(case))
    values = [Quantized(case.arrays[k], case.encodings[k]) for k in INPUTS if k in case.arrays]
    result = getattr(ops, case.op)(*values, site=SITE, **arguments_of(case))
    array = result.q if isinstance(result, Quantized) else np.asarray(result, np.int32)
    constants = {k.removeprefix(f"{SITE}."): a for k, a in ops.constants.arrays().items()}
    turns = {}
    if case.op == "rope":
        turns["turns"] = turn_steps(float(case.parameters["theta"]), case.arrays["x"].shape[-1])
    return {"out": array} | constants | turns


def model_of(case: Case) -> IntegerModel:
    """Return an integer model that holds the weights and the encoding of a case's site."""
    weights = {f"{SITE}.{k}": a for k, a in case.arrays.items() if k in WEIGHTS}
    out = {SITE: case.encodings["out"]} if "out" in case.encodings else {}
    rounding: Any = case.rounding
    return IntegerModel(tiny(), "w8a16", rounding, weights, out)


def arguments_of(case: Case) -> dict[str, Any]:
    """Return what an operation is given besides values and site, as the vocabulary wants it."""
    given: dict[str, Any] = dict(case.parameters)
    if case.op == "rope":
        theta = np.array([given.pop("theta")], np.float64)
        given["rotation"] = Rotation(case.arrays["positions"], theta, case.arrays["x"].shape[-1])
    if "mask" in case.arrays:
        given["mask"] = case.arrays["mask"].astype(bool)
    if case.op == "embed":
        given["tokens"] = case.arrays["tokens"]
    return given


def record_operations(
    cases: Iterable[Case],
) -> tuple[dict[str, Entry], list[dict[str, Any]]]:
    """Run every case.

    Args:
        cases: from `edge_cases`.

    Returns:
        Entries under `CASE/NAME`, inputs first; and of each case what a manifest says: its
        operation, parameters, encodings and rounding.
    """
    entries: dict[str, Entry] = {}
    said = []
    for case in cases:
        for name, array in case.arrays.items():
            entries[f"{case.name}/{name}"] = Entry(array, "input", (), case.encodings.get(name))
        inputs = tuple(f"{case.name}/{name}" for name in case.arrays)
        for name, array in run_case(case).items():
            encoding = case.encodings.get(name)
            op = case.op if name == "out" else "constant"
            entries[f"{case.name}/{name}"] = Entry(array, op, inputs, encoding)
        said.append(
            {
                "name": case.name,
                "op": case.op,
                "rounding": case.rounding,
                "parameters": dict(case.parameters),
            }
        )
    return entries, said
