"""Every operation on arrays of several rows, by loops over single numbers, on three executors.

The shapes have no two equal axes, so that a sum, a mean or a largest element over a wrong axis is
noticed. The integer executor has 16 bits and steps of 1/512: two steps are the room it gets.
"""

import math
from typing import Any

import numpy as np
import pytest

from mu_ref.errors import QuantizationError
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.store import IntegerModel
from mu_ref.ops import Ops
from mu_ref.ops.integer import IntegerOps, Quantized
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.rotation import Rotation
from mu_ref.ops.tape import Node, TapeOps
from mu_ref.presets import tiny

STEP = 1 / 512
ROOM = 2 * STEP
RNG = np.random.default_rng(11)
NAMES = ("reference", "tape", "integer")
W = {
    "l.weight": np.array([[64, -32, 16, 8], [-127, 5, 0, 100]]) / 64,  # 64 steps are 1
    "l.bias": np.array([0.5, -1.25]),
    "g.weight": np.array([1.0, -0.5, 2.0, 0.25]),
    "g.bias": np.array([0.5, 0.0, -1.0, 0.25]),
    "t.weight": np.arange(-10, 10).reshape(5, 4) / 8,
}
SITES = ("l", "g", "t", "y")


def integers(softmax: bool) -> IntegerOps:
    bias = np.round(W["l.bias"] * 64 / STEP).astype(np.int32)
    tensors = {
        "l.weight": (W["l.weight"] * 64).astype(np.int8), "l.bias": bias,
        "l.weight_scale": np.full(2, 1 / 64, np.float32),
        "g.weight": (W["g.weight"] * 8192).astype(np.int16),
        "g.weight_scale": np.array([1 / 8192], np.float32),
        "g.bias": (W["g.bias"] / STEP * 256).astype(np.int32),
        "t.weight": (W["t.weight"] * 8).astype(np.int8),
        "t.weight_scale": np.full(5, 1 / 8, np.float32),
    }  # fmt: skip
    sites = dict.fromkeys(SITES, Encoding(16, 2**-15 if softmax else STEP))
    return IntegerOps(IntegerModel(tiny(), "w8a16", "tflite_single", tensors, sites))


def made(name: str, *, softmax: bool = False) -> Ops:
    if name == "integer":
        return integers(softmax)
    return ReferenceOps(W, np.float64) if name == "reference" else TapeOps(W)


def value(name: str, x: np.ndarray) -> Any:
    if name == "integer":
        return Quantized(np.round(x / STEP).astype(np.int16), Encoding(16, STEP))
    return x if name == "reference" else Node(x)


def numbers(*shape: int) -> np.ndarray:
    return RNG.integers(-8, 9, shape) / 4


X = numbers(2, 3, 4)  # [batch, n_tok, d]
HEADS = numbers(2, 2, 3, 4)  # [batch, heads, n_tok, d_head]


def close(ops: Ops, got: Any, expected: Any) -> None:
    assert got.shape == np.shape(expected)
    np.testing.assert_allclose(ops.read(got), expected, rtol=0, atol=ROOM)


def each_row(x: np.ndarray, function: Any) -> np.ndarray:
    """Apply a function of a plain list to every row of the last axis."""
    rows = [function(row) for row in x.reshape(-1, x.shape[-1]).tolist()]
    return np.array(rows).reshape(*x.shape[:-1], -1)


# -- operations that read a weight -----------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_linear_and_embed(name: str) -> None:
    ops, w, b = made(name), W["l.weight"].tolist(), W["l.bias"].tolist()

    def expected(row):
        return [
            sum(x * k for x, k in zip(row, w[n], strict=True)) + b[n] for n in range(2)
        ]  # fmt: skip

    close(ops, ops.linear(value(name, X), "l"), each_row(X, expected))
    table = [[W["t.weight"][token].tolist() for token in row] for row in ((4, 0, 2), (1, 1, 3))]
    close(ops, ops.embed(np.array([[4, 0, 2], [1, 1, 3]]), "t"), table)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["rms", "rms_plus_one", "layer"])
def test_norm(name: str, kind: str) -> None:
    ops = made(name)
    gain = W["g.weight"] + (kind == "rms_plus_one" and name != "integer")  # a file holds 1 + g

    def expected(row):
        mean = sum(row) / 4 if kind == "layer" else 0.0
        size = math.sqrt(sum((x - mean) ** 2 for x in row) / 4 + 0.25)
        bias = W["g.bias"] if kind == "layer" else np.zeros(4)
        return [(x - mean) / size * g + b for x, g, b in zip(row, gain, bias, strict=True)]

    close(ops, ops.norm(value(name, X), "g", kind, 0.25), each_row(X, expected))


# -- operations on activations ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_softmax(name: str) -> None:
    ops, x = made(name, softmax=True), numbers(2, 1, 3, 4)
    mask = np.array([[[[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]],
                     [[[1, 0, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1]]]], bool)  # fmt: skip
    expected = np.zeros(x.shape)
    for at in np.ndindex(*x.shape[:-1]):
        weights = [math.exp(s) * m for s, m in zip(x[at], mask[at], strict=True)]
        expected[at] = [w / (sum(weights) or 1) for w in weights]
    close(ops, ops.softmax(value(name, x), mask, "y"), expected)


@pytest.mark.parametrize("name", NAMES)
def test_matmul_over_features_and_over_keys(name: str) -> None:
    ops, q, k, p = made(name), HEADS, numbers(2, 2, 5, 4), numbers(2, 2, 3, 5)
    scores, mixed = np.zeros((2, 2, 3, 5)), np.zeros((2, 2, 3, 4))
    for b, h in np.ndindex(2, 2):
        for i, j in np.ndindex(3, 5):
            scores[b, h, i, j] = sum(q[b, h, i, d] * k[b, h, j, d] for d in range(4))
        for i, d in np.ndindex(3, 4):
            mixed[b, h, i, d] = sum(p[b, h, i, j] * k[b, h, j, d] for j in range(5))
    close(ops, ops.matmul(value(name, q), value(name, k), "y", transpose_b=True), scores)
    close(ops, ops.matmul(value(name, p), value(name, k), "y"), mixed)


@pytest.mark.parametrize("name", NAMES)
def test_rope(name: str) -> None:
    ops = made(name)
    turn = Rotation(np.array([[0, 1, 2], [-3, 5, 9]]), np.array([100.0, 16.0]), 4)
    expected = np.zeros(HEADS.shape)
    for b, h, t in np.ndindex(2, 2, 3):
        for i in range(2):
            angle = turn.positions[b, t] * (100.0, 16.0)[b] ** (-i / 2)
            x, y = HEADS[b, h, t, i], HEADS[b, h, t, i + 2]
            expected[b, h, t, i] = x * math.cos(angle) - y * math.sin(angle)
            expected[b, h, t, i + 2] = y * math.cos(angle) + x * math.sin(angle)
    close(ops, ops.rope(value(name, HEADS), turn, "y"), expected)


FUNCTIONS = {
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x / (1 + math.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "relu": lambda x: max(x, 0.0),
}


@pytest.mark.parametrize("name", NAMES)
def test_functions_and_arithmetic_of_elements(name: str) -> None:
    ops, y = made(name), numbers(2, 3, 4)
    x = value(name, X)
    for kind, function in FUNCTIONS.items():
        expected = each_row(X, lambda row, f=function: [f(v) for v in row])
        close(ops, ops.activation(x, kind, "y"), expected)
    capped = each_row(X, lambda row: [1.5 * math.tanh(v / 1.5) for v in row])
    close(ops, ops.softcap(x, 1.5, "y"), capped)
    close(ops, ops.add(x, value(name, y), "y"), X + y)
    close(ops, ops.mul(x, value(name, y), "y"), X * y)
    close(ops, ops.scale(x, 1.5, "y"), X * 1.5)
    joined = [[[*X[b, t], *y[b, t, :3]] for t in range(3)] for b in range(2)]
    close(ops, ops.concat(x, value(name, y[..., :3]), "y"), joined)


# -- layout and decisions --------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_layout(name: str) -> None:
    ops, h = made(name), value(name, HEADS)
    split = [[[X[b, t, 2 * i : 2 * i + 2] for t in range(3)] for i in range(2)] for b in range(2)]
    close(ops, ops.split_heads(value(name, X), 2, ""), split)
    merged = [[[*HEADS[b, 0, t], *HEADS[b, 1, t]] for t in range(3)] for b in range(2)]
    close(ops, ops.merge_heads(h, ""), merged)
    close(ops, ops.share_heads(h, (1, 1, 0), ""), HEADS[:, [1, 1, 0]])
    new = numbers(2, 2, 1, 4)
    longer = [[[*HEADS[b, i], *new[b, i]] for i in range(2)] for b in range(2)]
    close(ops, ops.append(h, value(name, new), ""), longer)
    assert ops.append(None, h, "") is h
    index = np.array([[2, 0], [1, 1]])
    picked = [[X[b, t] for t in index[b]] for b in range(2)]
    close(ops, ops.take_tokens(value(name, X), index, ""), picked)
    kept = [[[HEADS[b, i, 0], *HEADS[b, i, index[b]]] for i in range(2)] for b in range(2)]
    close(ops, ops.keep_slots(h, 1, index, ""), kept)
    close(ops, ops.keep_slots(h, 0, index, ""), np.array(kept)[:, :, 1:])


@pytest.mark.parametrize("name", NAMES)
def test_the_best_and_the_k_best_of_each_row(name: str) -> None:
    ops = made(name)
    x = np.array([[[1, 3, 3, 2], [0, -1, -2, 0], [5, 6, 7, 8]],
                  [[2, 2, 2, 2], [-8, -7, -8, -7], [4, 3, 2, 1]]]) / 4  # fmt: skip
    assert ops.argmax(value(name, x), "").tolist() == [[1, 0, 3], [0, 1, 0]]
    assert ops.top_k(value(name, x), 2, "").tolist() == [
        [[1, 2], [0, 3], [3, 2]], [[0, 1], [1, 3], [0, 1]],
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_ties_of_a_long_row_keep_their_order(name: str) -> None:
    x = np.tile([0.25, 0.5], (2, 50))
    order = [*range(1, 100, 2), *range(0, 100, 2)]
    assert made(name).top_k(value(name, x), 100, "").tolist() == [order] * 2


@pytest.mark.parametrize("name", ["reference", "tape"])
def test_each_row_of_a_softmax_has_its_own_largest_score(name: str) -> None:
    """exp(1000) is no number, and exp(-2000) is 0; rows without a key are 0."""
    ops, x = made(name), np.array([[1000.0, 1000.0], [-1000.0, -1001.0], [7.0, 8.0]])
    p = ops.read(ops.softmax(value(name, x), np.array([[1, 1], [1, 1], [0, 0]], bool), "y"))
    q = 1 / (1 + math.exp(-1))
    np.testing.assert_allclose(p, [[0.5, 0.5], [q, 1 - q], [0, 0]], rtol=1e-12)


# -- single precision ------------------------------------------------------------------------------


def test_single_precision_stays_single() -> None:
    weights = {name: w.astype(np.float16) for name, w in W.items()}
    ops, mask = ReferenceOps(weights), np.ones((2, 3, 4), bool)
    x, h = X.astype(np.float32), HEADS.astype(np.float32)
    results = [
        ops.linear(x, "l"), ops.norm(x, "g", "layer", 1e-6), ops.softmax(x, mask, ""),
        ops.norm(x, "g", "rms_plus_one", 1e-6), ops.matmul(h, h.swapaxes(2, 3), ""),
        ops.matmul(h, h, "", transpose_b=True), ops.scale(x, 0.1, ""), ops.softcap(x, 0.1, ""),
        ops.rope(h, Rotation(np.array([[1, 2, 3]]), np.array([9.0]), 4), ""),
        *(ops.activation(x, kind, "") for kind in FUNCTIONS),
    ]  # fmt: skip
    assert {y.dtype for y in results} == {np.dtype(np.float32)}
    assert ops.weight("l.weight").dtype == np.float32
    assert ops.read(ops.activation(np.zeros((0, 4), np.float32), "gelu", "")).shape == (0, 4)


# -- sums of many rows, and which accumulator they have --------------------------------------------


def test_a_narrow_sum_has_a_multiplier_of_31_bits_and_a_wide_one_of_15() -> None:
    """77,000 * 0.29 = 22,330; 0.29 cut to 15 bits makes 22,329."""
    sites = {"l": Encoding(16, 1.0), "y": Encoding(16, 1.0)}
    tensors = {"l.weight": np.full((1, 8), 77, np.int8), "l.weight_scale": np.ones(1, np.float32)}
    ops = IntegerOps(IntegerModel(tiny(), "w8a8", "tflite_single", tensors, sites))
    ones = Quantized(np.full((1, 8), 77, np.int8), Encoding(8, 1.0))
    for bits, expected in ((8, 22330), (16, 22329)):
        x = Quantized(np.full((1, 8), 125, f"i{bits // 8}"), Encoding(bits, 0.29))
        assert ops.linear(x, "l").q.tolist() == [[expected]]
        assert ops.matmul(x, ones, "y", transpose_b=True).q.tolist() == [[expected]]
        assert ops.matmul(ones, x, "y", transpose_b=True).q.tolist() == [[expected]]


def test_a_sum_may_start_from_the_largest_of_several_biases() -> None:
    """The second channel's bias alone leaves no room for 8 products of 255 x 128."""
    tensors = {
        "l.weight": np.ones((2, 8), np.int8), "l.weight_scale": np.ones(2, np.float32),
        "l.bias": np.array([3, -(2**31) + 1], np.int32),
    }  # fmt: skip
    model = IntegerModel(tiny(), "w8a8", "tflite_single", tensors, {"l": Encoding(16, 1.0)})
    with pytest.raises(QuantizationError, match="it can reach"):
        IntegerOps(model).linear(Quantized(np.ones((1, 8), np.int8), Encoding(8, 1.0)), "l")
