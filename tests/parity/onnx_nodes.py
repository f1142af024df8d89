"""`python -m tests.parity.onnx_nodes`: ONNX's own node cases, computed by our functions.

For each operator that we share: how many cases the installed package `onnx` has, how many run, how
many pass, and why the others do not apply. Exit code 1 if one of those that run does not pass.
"""

import importlib
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.case import node as node_cases

from mu_ref.integers.fixed_point import (
    dequantize,
    quantize,
    quantize_multiplier,
    requantize,
    saturate,
)
from mu_ref.model.attention import attend, attention_mask
from mu_ref.ops.integer import whole_product
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.traced import Traced, TracedOps
from mu_ref.presets import tiny

Arrays = dict[str, np.ndarray]
INTEGERS = {"int4": 4, "uint4": 4, "int8": 8, "uint8": 8, "int16": 16, "uint16": 16, "int32": 32}


class NotApplicableError(Exception):
    """Says why a case does not apply to us."""


@dataclass
class Case:
    """One node of ONNX with inputs and the outputs that its authors expect."""

    name: str
    attributes: dict[str, Any]
    inputs: Arrays  # by the names of the operator's own description
    outputs: Arrays
    rtol: float
    atol: float


@dataclass
class Tally:
    """Of one operator."""

    n: int = 0
    n_run: int = 0
    n_passed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)


# -- floats ----------------------------------------------------------------------------------------


def reference(weights: Arrays | None = None) -> ReferenceOps:
    return ReferenceOps(weights or {}, np.float32)


def only_float32(case: Case) -> None:
    kinds = {str(x.dtype) for x in case.inputs.values()} & {"float16", "bfloat16", "float64"}
    if kinds:
        raise NotApplicableError(f"{kinds.pop()}: our activations are float32 or float64")


def softmax(case: Case) -> Arrays:
    axis = case.attributes.get("axis", -1)
    x = np.moveaxis(case.inputs["input"], axis, -1)
    y = reference().softmax(x, np.ones(1, bool), "softmax")
    return {"output": np.moveaxis(y, -1, axis)}


def gelu(case: Case) -> Arrays:
    kind = {b"tanh": "gelu_tanh", b"none": "gelu"}[case.attributes.get("approximate", b"none")]
    return {"Y": reference().activation(case.inputs["X"], kind, "gelu")}


def norm(case: Case, kind: str, names: tuple[str, str]) -> Arrays:
    """Several axes are normalised as one: the same numbers in one row."""
    x, axis = case.inputs["X"], case.attributes.get("axis", -1)
    weights = {
        f"norm.{ours}": case.inputs[theirs].ravel()
        for ours, theirs in (("weight", names[0]), ("bias", names[1]))
        if theirs in case.inputs
    }
    rows = x.reshape(*x.shape[: axis % x.ndim], -1)
    y = reference(weights).norm(rows, "norm", kind, case.attributes.get("epsilon", 1e-5))
    return {"Y": y.reshape(x.shape)}


def layer_norm(case: Case) -> Arrays:
    return norm(case, "layer", ("Scale", "B"))


def rms_norm(case: Case) -> Arrays:
    return norm(case, "rms", ("scale", ""))


@dataclass
class Turned:
    """A rotation of which the cosines and sines are given."""

    cos: np.ndarray
    sin: np.ndarray


def rotary_embedding(case: Case) -> Arrays:
    if case.attributes.get("interleaved", 0):
        raise NotApplicableError("interleaved: it turns neighbours, ours are halves")
    if case.attributes.get("rotary_embedding_dim", 0):
        raise NotApplicableError("part of a head is turned: ours are whole heads")
    given, ops = case.inputs, reference()
    x, cos, sin = given["X"], given["cos_cache"], given["sin_cache"]
    if "position_ids" in given:
        cos, sin = cos[given["position_ids"]], sin[given["position_ids"]]
    if x.ndim == 4:
        return {"Y": ops.rope(x, Turned(cos, sin), "rope")}  # type: ignore[arg-type]
    heads = ops.split_heads(x, case.attributes["num_heads"], "split")
    return {"Y": ops.merge_heads(ops.rope(heads, Turned(cos, sin), "rope"), "merge")}  # type: ignore[arg-type]


def attention(case: Case) -> Arrays:
    given, attributes = case.inputs, case.attributes
    seen: Arrays = {}
    ops = TracedOps(reference(), lambda site, *rest: seen.update({site: rest[-1]}))
    q, k, v = (ops.inner.read(given[name]) for name in "QKV")
    flat = q.ndim == 3
    if flat:
        n_heads, n_kv_heads = attributes["q_num_heads"], attributes["kv_num_heads"]
        q = ops.inner.split_heads(q, n_heads, "q")
        k, v = (ops.inner.split_heads(x, n_kv_heads, "kv") for x in (k, v))
    k = ops.inner.append(given.get("past_key"), k, "k")
    v = ops.inner.append(given.get("past_value"), v, "v")
    scale = attributes.get("scale", q.shape[-1] ** -0.5)
    stack = replace(
        tiny().stacks["decoder"], n_heads=q.shape[1], n_kv_heads=k.shape[1], kv_head_map="blocked",
        attention_scale=scale, attention_softcap=attributes.get("softcap") or None,
    )  # fmt: skip
    mask = mask_of(case, q.shape, k.shape[2])
    values = (Traced(x, name) for x, name in ((q, "q"), (k, "k"), (v, "v")))
    y = attend(ops, stack, *values, mask, None, "a")
    found = {"Y": y.value, "present_key": k, "present_value": v}
    if not flat:
        found["Y"] = reference().split_heads(y.value, q.shape[1], "y")
    if "qk_matmul_output" in case.outputs:
        found["qk_matmul_output"] = scores_of(case, seen, scale)
    return found


def scores_of(case: Case, seen: Arrays, scale: float) -> np.ndarray:
    """What the node shows of its inside: scores, capped ones, or their softmax."""
    mode = case.attributes.get("qk_matmul_output_mode", 0)
    if mode == 2:
        raise NotApplicableError("shows scores with a mask added: ours adds none")
    if mode == 3:
        return seen["a.softmax"]
    capped = mode == 1 and "a.softcap" in seen
    return seen["a.softcap"] if capped else seen["a.scores"] * np.float32(scale)


def mask_of(case: Case, q_shape: tuple[int, ...], n_key: int) -> np.ndarray:
    """[batch, heads or 1, n_query, n_key] bool, from all that hides a key in ONNX."""
    given, attributes = case.inputs, case.attributes
    batch, _, n_query, _ = q_shape
    before = np.zeros(batch, np.int64)  # keys that precede the queries
    filled = np.full(batch, n_key)
    if "past_key" in given:
        before += given["past_key"].shape[2]
    elif "nonpad_kv_seqlen" in given:
        filled = given["nonpad_kv_seqlen"]
        before = filled - n_query
    queries, keys = before[:, None] + np.arange(n_query), np.arange(n_key)[None]
    valid = np.arange(n_key) < filled[:, None]
    causal = bool(attributes.get("is_causal", 0))
    left, right = attributes.get("left_window_size", -1), attributes.get("right_window_size", -1)
    if not causal and (left >= 0 or right >= 0) and left != right:
        raise NotApplicableError("a window of unequal sides: ours are equal, or causal")
    window = None if left < 0 else left + causal  # a causal window counts the query itself
    keys = np.broadcast_to(keys, (batch, n_key))
    mask = attention_mask(queries, keys, valid, causal=causal, window=window)
    if "attn_mask" not in given:
        return mask
    theirs = given["attn_mask"]
    if theirs.dtype != bool:
        if not np.isin(theirs, (0, -np.inf)).all():
            raise NotApplicableError("adds numbers to the scores: our masks are True or False")
        theirs = theirs == 0
    missing = n_key - theirs.shape[-1]
    theirs = np.pad(theirs, [(0, 0)] * (theirs.ndim - 1) + [(0, missing)])
    return mask & theirs


# -- integers --------------------------------------------------------------------------------------


def our_accumulator(a: np.ndarray, a_zero: Any, b: np.ndarray, b_zero: Any) -> np.ndarray:
    return whole_product(a.astype(np.int64) - a_zero, b.astype(np.int64) - b_zero, "product")


def our_qlinear_matmul(
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero, *, signed: bool = True
) -> np.ndarray:
    by = quantize_multiplier(a_scale * b_scale / y_scale)
    acc = our_accumulator(a, a_zero, b, b_zero)
    return saturate(requantize(acc, by, "half_even") + y_zero, 8, signed=signed)


def matmul_integer(case: Case) -> Arrays:
    a, b = case.inputs["A"], case.inputs["B"]
    zeros = [case.inputs.get(f"{n}_zero_point", np.zeros(1)).astype(np.int64) for n in "ab"]
    return {"Y": our_accumulator(a, zeros[0], b, zeros[1]).astype(np.int32)}


def qlinear_matmul(case: Case) -> Arrays:
    given = case.inputs
    numbers = {n: given[n].astype(np.float64 if n.endswith("scale") else np.int64) for n in given}
    arguments = []
    for name in "ab":
        arguments += [given[name]]
        arguments += [numbers[f"{name}_{what}"].item() for what in ("scale", "zero_point")]
    y_scale, y_zero = numbers["y_scale"].item(), numbers["y_zero_point"].item()
    signed = given["y_zero_point"].dtype == np.int8
    return {"y": our_qlinear_matmul(*arguments, y_scale, y_zero, signed=signed)}


def per_channel(case: Case, x: np.ndarray, name: str) -> np.ndarray:
    """A scale or zero point, brought to the shape of x: for all, for a channel, or for a block."""
    array, axis = case.inputs[name], case.attributes.get("axis", 1)
    block = case.attributes.get("block_size", 0)
    if block:
        return np.repeat(array, block, axis=axis).take(range(x.shape[axis]), axis=axis)
    if array.ndim == 0 or array.size == 1:
        return array.reshape(())
    shape = [1] * x.ndim
    shape[axis] = -1
    return array.reshape(shape)


def width_of(kind: str) -> tuple[int, bool]:
    if kind not in INTEGERS:
        raise NotApplicableError(f"{kind}: our integers have 4, 8, 16 or 32 bits")
    return INTEGERS[kind], not kind.startswith("u")


def quantize_linear(case: Case) -> Arrays:
    x, y = case.inputs["x"], case.outputs["y"]
    bits, signed = width_of(str(y.dtype))
    scale = per_channel(case, x, "y_scale")
    zero = np.int64(0)
    if "y_zero_point" in case.inputs:
        zero = per_channel(case, x, "y_zero_point").astype(np.int64)
    return {"y": quantize(x, scale, zero, bits, signed=signed).astype(y.dtype)}


def dequantize_linear(case: Case) -> Arrays:
    x = case.inputs["x"]
    width_of(str(x.dtype))
    zero: Any = 0
    if "x_zero_point" in case.inputs:
        zero = per_channel(case, x, "x_zero_point").astype(np.int64)
    y = dequantize(x.astype(np.int64), per_channel(case, x, "x_scale"), zero)
    return {"y": y.astype(case.outputs["y"].dtype)}


# -- the list --------------------------------------------------------------------------------------

OPERATORS: dict[str, tuple[Callable[[Case], Arrays], str]] = {  # {operator: (ours, ONNX's module)}
    "Attention": (attention, "attention"),
    "RotaryEmbedding": (rotary_embedding, "rotaryembedding"),
    "RMSNormalization": (rms_norm, "rmsnormalization"),
    "LayerNormalization": (layer_norm, "layernormalization"),
    "QuantizeLinear": (quantize_linear, "quantizelinear"),
    "DequantizeLinear": (dequantize_linear, "dequantizelinear"),
    "MatMulInteger": (matmul_integer, "matmulinteger"),
    "QLinearMatMul": (qlinear_matmul, "qlinearmatmul"),
    "Gelu": (gelu, "gelu"),
    "Softmax": (softmax, "softmax"),
}


def cases_of(operator: str) -> list[Case]:
    """Every case of an operator that is one node; the `_expanded` ones say the same in others."""
    module = OPERATORS[operator][1]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        # `collect_testcases` would make the cases of all operators, which takes a minute
        importlib.import_module(f"onnx.backend.test.case.node.{module}")
        found = [case for case in node_cases._NodeTestCases if case.model.graph.node]
    schema = onnx.defs.get_schema(operator)
    cases = []
    for case in found:
        (node, *others) = case.model.graph.node
        if others or node.op_type != operator or node.domain:
            continue
        inputs, outputs = case.data_sets[0]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        cases.append(
            Case(
                case.name,
                attributes,
                named(node.input, schema.inputs, inputs),
                named(node.output, schema.outputs, outputs),
                case.rtol,
                case.atol,
            )
        )
    return cases


def named(present: Any, formal: Any, arrays: list[np.ndarray]) -> Arrays:
    """Give arrays the names of the operator's description; an empty name is left out."""
    names = [f.name for name, f in zip(present, formal, strict=False) if name]
    return {name: as_array(array) for name, array in zip(names, arrays, strict=True)}


def as_array(array: Any) -> np.ndarray:
    """An array; of types that NumPy does not know, ONNX gives a tensor of its own."""
    proto = isinstance(array, onnx.TensorProto)
    return onnx.numpy_helper.to_array(array) if proto else np.asarray(array)


def agrees(case: Case, ours: np.ndarray, theirs: np.ndarray) -> bool:
    if theirs.dtype.kind in "iu" or str(theirs.dtype) in INTEGERS:
        return ours.dtype == theirs.dtype and bool((ours == theirs).all())
    return ours.shape == theirs.shape and np.allclose(ours, theirs, case.rtol, case.atol)


def tally(operator: str) -> Tally:
    """Run every case of an operator that applies."""
    result, compute = Tally(), OPERATORS[operator][0]
    for case in cases_of(operator):
        result.n += 1
        try:
            if operator not in ("QuantizeLinear", "DequantizeLinear", "QLinearMatMul"):
                only_float32(case)
            found = compute(case)
        except NotApplicableError as reason:
            result.reasons[str(reason)] += 1
            continue
        result.n_run += 1
        # of LayerNormalization only Y: its mean and deviation are no values of ours
        shown = {name: array for name, array in case.outputs.items() if name in found}
        if shown and all(agrees(case, found[name], array) for name, array in shown.items()):
            result.n_passed += 1
        else:
            result.failed.append(case.name)
    return result


def main() -> int:
    print(f"node cases of onnx {onnx.__version__}: how many there are, run, pass")
    total = [0, 0, 0]
    failed = []
    for operator in OPERATORS:
        found = tally(operator)
        print(f"{operator:20}{found.n:5}{found.n_run:5}{found.n_passed:5}")
        for reason, n in sorted(found.reasons.items()):
            print(f"{n:25} x {reason}")
        for name in found.failed:
            print(f"{'':25}   FAILED {name}")
        total = [a + b for a, b in zip(total, (found.n, found.n_run, found.n_passed), strict=True)]
        failed += found.failed
    print(f"{'all':20}{total[0]:5}{total[1]:5}{total[2]:5}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
