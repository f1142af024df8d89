"""Gradients of the tape equal finite differences in float64, op by op and for whole models."""

import inspect
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import KINDS, model_configs, random_weights, rows_of, seeds

from mu_ref.errors import ConfigError
from mu_ref.model import mu
from mu_ref.model.encoder import encode
from mu_ref.ops import Ops
from mu_ref.ops.rotation import Rotation
from mu_ref.ops.tape import Node, TapeOps
from mu_ref.training.losses import cross_entropy

Arrays = dict[str, np.ndarray]
# From the sizes (m, n, d) and random numbers: the inputs by name, and what to do with them.
MakeCase = Callable[[int, int, int, np.random.Generator], tuple[Arrays, Callable[[TapeOps], Node]]]

CASES: dict[str, list[MakeCase]] = {}
NO_GRADIENT = {"argmax", "drafted", "greedy", "read", "repeat", "top_k"}


def case_of(op: str) -> Callable[[MakeCase], MakeCase]:
    def add(make: MakeCase) -> MakeCase:
        CASES.setdefault(op, []).append(make)
        return make

    return add


@case_of("embed")
def _embed(m, n, d, rng):
    tokens = rng.integers(0, 3, (m, n))  # few rows, so that some are read twice
    return {"t.weight": rng.normal(size=(3, d))}, lambda ops: ops.embed(tokens, "t")


@case_of("linear")
def _linear(m, n, d, rng):
    inputs = {"x": rng.normal(size=(2, m, d)), "l.weight": rng.normal(size=(n, d))}
    return inputs, lambda ops: ops.linear(ops.weights["x"], "l")


@case_of("linear")
def _linear_with_bias(m, n, d, rng):
    inputs, apply = _linear(m, n, d, rng)
    return inputs | {"l.bias": rng.normal(size=n)}, apply


@case_of("linear")
def _linear_with_the_weight_of_another_site(m, n, d, rng):
    inputs, _ = _linear(m, n, d, rng)
    return inputs | {"head.bias": rng.normal(size=n)}, lambda ops: ops.linear(
        ops.weights["x"], "head", "l"
    )


def _norm(kind):
    def make(m, n, d, rng):
        inputs = {"x": rng.normal(size=(m, n, d + 2)), "g.weight": rng.normal(size=d + 2)}
        if kind == "layer":
            inputs["g.bias"] = rng.normal(size=d + 2)
        return inputs, lambda ops: ops.norm(ops.weights["x"], "g", kind, 0.1)

    return make


for _kind in ("rms", "rms_plus_one", "layer"):
    case_of("norm")(_norm(_kind))


@case_of("rope")
def _rope(m, n, d, rng):
    turn = Rotation(rng.integers(-5, 5, (2, n)), np.array([10.0, 50.0]), 2 * d)
    inputs = {"x": rng.normal(size=(2, m, n, 2 * d))}
    return inputs, lambda ops: ops.rope(ops.weights["x"], turn, "")


@case_of("matmul")
def _matmul(m, n, d, rng):
    inputs = {"a": rng.normal(size=(2, 1, m, d)), "b": rng.normal(size=(2, 1, d, n))}
    return inputs, lambda ops: ops.matmul(ops.weights["a"], ops.weights["b"], "")


@case_of("matmul")
def _matmul_transposed(m, n, d, rng):
    inputs = {"a": rng.normal(size=(2, m, d)), "b": rng.normal(size=(2, n, d))}
    return inputs, lambda ops: ops.matmul(ops.weights["a"], ops.weights["b"], "", transpose_b=True)


@case_of("softmax")
def _softmax(m, n, d, rng):
    mask = rng.random((2, 1, m, n)) < 0.7  # now and then a row without any True
    inputs = {"x": rng.normal(size=(2, d, m, n))}
    return inputs, lambda ops: ops.softmax(ops.weights["x"], mask, "")


def _activation(kind):
    def make(m, n, d, rng):
        x = rng.normal(size=(m, n, d)) * 2
        x += np.where(x < 0, -0.01, 0.01)  # relu has no derivative at 0
        return {"x": x}, lambda ops: ops.activation(ops.weights["x"], kind, "")

    return make


for _kind in ("gelu_tanh", "gelu", "silu", "relu"):
    case_of("activation")(_activation(_kind))


@case_of("add")
def _add(m, n, d, rng):
    inputs = {"x": rng.normal(size=(m, n, d)), "y": rng.normal(size=(m, n, d))}
    return inputs, lambda ops: ops.add(ops.weights["x"], ops.weights["y"], "")


@case_of("add")
def _add_to_itself(m, n, d, rng):
    return {"x": rng.normal(size=(m, n, d))}, lambda ops: ops.add(
        ops.weights["x"], ops.weights["x"], ""
    )


@case_of("mul")
def _mul(m, n, d, rng):
    inputs = {"x": rng.normal(size=(m, n, d)), "y": rng.normal(size=(m, n, d))}
    return inputs, lambda ops: ops.mul(ops.weights["x"], ops.weights["y"], "")


@case_of("mul")
def _mul_by_itself(m, n, d, rng):
    return {"x": rng.normal(size=(m, n, d))}, lambda ops: ops.mul(
        ops.weights["x"], ops.weights["x"], ""
    )


@case_of("scale")
def _scale(m, n, d, rng):
    return {"x": rng.normal(size=(m, n, d))}, lambda ops: ops.scale(ops.weights["x"], -1.7, "")


@case_of("softcap")
def _softcap(m, n, d, rng):
    return {"x": rng.normal(size=(m, n, d))}, lambda ops: ops.softcap(ops.weights["x"], 1.3, "")


@case_of("dropout")
def _dropout(m, n, d, rng):
    seed = int(rng.integers(1 << 30))

    def apply(ops):
        ops.dropout_rate = 0.4
        ops.rng = np.random.default_rng(seed)  # the same mask at every evaluation
        return ops.dropout(ops.weights["x"], "")

    return {"x": rng.normal(size=(m, n, d))}, apply


@case_of("split_heads")
def _split_heads(m, n, d, rng):
    inputs = {"x": rng.normal(size=(2, n, m * d))}
    return inputs, lambda ops: ops.split_heads(ops.weights["x"], m, "")


@case_of("merge_heads")
def _merge_heads(m, n, d, rng):
    inputs = {"x": rng.normal(size=(2, m, n, d))}
    return inputs, lambda ops: ops.merge_heads(ops.weights["x"], "")


@case_of("share_heads")
def _share_heads(m, n, d, rng):
    head_of = tuple(int(h) for h in rng.integers(0, m, m + 2))
    inputs = {"x": rng.normal(size=(2, m, n, d))}
    return inputs, lambda ops: ops.share_heads(ops.weights["x"], head_of, "")


@case_of("append")
def _append(m, n, d, rng):
    inputs = {"past": rng.normal(size=(2, 2, m, d)), "new": rng.normal(size=(2, 2, n, d))}
    return inputs, lambda ops: ops.append(ops.weights["past"], ops.weights["new"], "")


@case_of("append")
def _append_to_nothing(m, n, d, rng):
    inputs = {"new": rng.normal(size=(2, m, n, d))}
    return inputs, lambda ops: ops.scale(ops.append(None, ops.weights["new"], ""), 1.0, "")


@case_of("take_tokens")
def _take_tokens(m, n, d, rng):
    index = rng.integers(0, n, (2, m))  # may pick a token twice
    inputs = {"x": rng.normal(size=(2, n, d))}
    return inputs, lambda ops: ops.take_tokens(ops.weights["x"], index, "")


@case_of("concat")
def _concat(m, n, d, rng):
    inputs = {"x": rng.normal(size=(2, m, d)), "y": rng.normal(size=(2, m, n))}
    return inputs, lambda ops: ops.concat(ops.weights["x"], ops.weights["y"], "")


@case_of("keep_slots")
def _keep_slots(m, n, d, rng):
    index = rng.integers(m, m + n, (2, m))  # may pick a slot twice
    inputs = {"x": rng.normal(size=(2, 2, m + n, d))}
    return inputs, lambda ops: ops.keep_slots(ops.weights["x"], m, index, "")


ALL_CASES = [pytest.param(make, id=f"{op}-{i}") for op in CASES for i, make in enumerate(CASES[op])]


def weighted_sum(ops: TapeOps, x: Node, factors: np.ndarray) -> Node:
    """Return a scalar that depends on every element of x differently."""
    return ops.record(np.asarray((x.value * factors).sum()), (x,), lambda g: (g * factors,))


def slope_along(loss: Callable[[Arrays], float], inputs: Arrays, direction: Arrays) -> float:
    """Slope from four points: its error falls with the fourth power of the step."""
    step, slope = 1e-5, 0.0
    for steps, factor in ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)):
        moved = {name: inputs[name] + steps * step * way for name, way in direction.items()}
        slope += factor * loss(inputs | moved)
    return slope / step


def finite_difference(loss: Callable[[Arrays], float], inputs: Arrays, name: str, at: int) -> float:
    way = np.zeros_like(inputs[name])
    way.reshape(-1)[at] = 1
    return slope_along(loss, inputs, {name: way})


def test_every_op_of_the_vocabulary_has_a_case() -> None:
    ops = {n for n, _ in inspect.getmembers(Ops, inspect.isfunction) if not n.startswith("_")}
    assert set(CASES) == ops - NO_GRADIENT
    assert ops >= NO_GRADIENT


@pytest.mark.parametrize("make", ALL_CASES)
@settings(max_examples=12)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), seeds)
def test_the_gradient_of_an_op_equals_finite_differences(
    make: MakeCase, m: int, n: int, d: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    inputs, apply = make(m, n, d, rng)
    factors = rng.normal(size=apply(TapeOps(inputs)).shape)

    def loss(arrays: Arrays) -> float:
        return float((apply(TapeOps(arrays)).value * factors).sum())

    ops = TapeOps(inputs)
    grads = ops.backward(weighted_sum(ops, apply(ops), factors))
    assert grads.keys() == inputs.keys()
    for name, array in inputs.items():
        assert grads[name].shape == array.shape
        expected = [finite_difference(loss, inputs, name, at) for at in range(array.size)]
        np.testing.assert_allclose(grads[name].reshape(-1), expected, rtol=1e-6, atol=1e-7)


@given(st.data(), st.sampled_from([0.0, 0.1]))
def test_the_gradient_of_a_model_equals_finite_differences(
    data: st.DataObject, smoothing: float
) -> None:
    model = data.draw(model_configs(KINDS, d_model=6))
    stacks = {  # relu has kinks, which finite differences step over; the op has its own case
        name: replace(stack, activation="gelu") if stack.activation == "relu" else stack
        for name, stack in model.stacks.items()
    }
    model = replace(model, **stacks)
    seed = data.draw(seeds)
    rng = np.random.default_rng(seed)
    source_vocab = model.encoder_vocab_size if model.decoder else model.vocab_size
    source = data.draw(rows_of(source_vocab, 2, max_len=4)) if model.encoder else None
    target = data.draw(rows_of(model.vocab_size, 2, max_len=4)) if model.decoder else None
    labels = None if target is None else rng.integers(0, model.vocab_size, target.tokens.shape)

    def loss_on(ops: TapeOps) -> Node:
        if target is None:
            x = encode(ops, model, source.tokens, source.valid)
            factors = np.random.default_rng(seed).normal(size=x.shape) * source.valid[..., None]
            return weighted_sum(ops, x, factors)
        arrays = (None, None) if source is None else (source.tokens, source.valid)
        scores = mu.forward(ops, model, *arrays, target.tokens, target.valid)
        return cross_entropy(ops, scores, labels, target.valid, smoothing)

    weights = random_weights(model, seed)
    ops = TapeOps(weights)
    grads = ops.backward(loss_on(ops))
    assert grads.keys() == weights.keys()

    def loss(some: Arrays) -> float:
        return float(loss_on(TapeOps(some)).value)

    # all numbers at once: a wrong one among them shows in the sum
    ways = {name: rng.choice([-1.0, 1.0], array.shape) for name, array in weights.items()}
    total = sum(float((grads[name] * way).sum()) for name, way in ways.items())
    scale = sum(float(np.abs(grad).sum()) for grad in grads.values())
    assert abs(slope_along(loss, weights, ways) - total) <= 1e-5 * scale + 1e-7
    # and one number of each of a few arrays
    for name in rng.choice(list(weights), min(8, len(weights)), replace=False).tolist():
        at = int(rng.integers(weights[name].size))
        expected = finite_difference(loss, weights, name, at)
        np.testing.assert_allclose(
            grads[name].reshape(-1)[at], expected, rtol=1e-5, atol=1e-7, err_msg=name
        )


def test_scores_far_apart_are_weighed_without_an_overflow() -> None:
    ops = TapeOps({"x": np.array([[0.0, 2000.0, -2000.0]])})
    p = ops.softmax(ops.weights["x"], np.ones((1, 3), bool), "softmax")
    np.testing.assert_array_equal(p.value, [[0.0, 1.0, 0.0]])


def test_the_tangent_form_of_gelu_has_its_published_constant() -> None:
    x = np.array([-2.5, -0.3, 0.7, 3.0])
    ops = TapeOps({"x": x})
    found = ops.activation(ops.weights["x"], "gelu_tanh", "gelu").value
    # arXiv:1606.08415, section 2, of which e^2u = (1 + tanh u) / (1 - tanh u)
    u = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    np.testing.assert_allclose(found, x / (1 + np.exp(-2 * u)), rtol=1e-13)


def test_backward_starts_at_a_scalar_only() -> None:
    ops = TapeOps({"x": np.ones(2)})
    with pytest.raises(ConfigError, match="scalar"):
        ops.backward(ops.scale(ops.weights["x"], 2.0, ""))


def test_a_second_backward_does_not_remember_the_first() -> None:
    ops = TapeOps({"x": np.array([3.0])})
    for _ in range(2):
        grads = ops.backward(ops.mul(ops.weights["x"], ops.weights["x"], ""))
        assert grads["x"].tolist() == [6.0]  # d(x²)/dx = 2x


def test_backward_forgets_the_tape_and_leaves_out_what_the_loss_does_not_depend_on() -> None:
    ops = TapeOps({"x": np.array([3.0]), "y": np.array([5.0])})
    ops.scale(ops.weights["y"], 2.0, "")  # is on the tape, but not below the loss
    assert ops.backward(ops.scale(ops.weights["x"], 2.0, "")).keys() == {"x"}
    assert ops.nodes == []


# -- dropout ---------------------------------------------------------------------------------------


def test_dropout_is_the_identity_at_rate_zero_with_and_without_a_generator() -> None:
    x = np.random.default_rng(0).normal(size=(3, 4))
    for ops in (TapeOps({"x": x}), TapeOps({"x": x}, 0.0, np.random.default_rng(0))):
        assert ops.dropout(ops.weights["x"], "") is ops.weights["x"]


def test_dropout_without_a_generator_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dropout 0\.5 .*generator"):
        TapeOps({"x": np.ones(3)}, 0.5)


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5])
def test_dropout_keeps_the_mean_and_drops_its_share(rate: float) -> None:
    n = 100_000
    ops = TapeOps({"x": np.ones(n)}, rate, np.random.default_rng(7))
    y = ops.dropout(ops.weights["x"], "").value
    deviation = np.sqrt(rate * (1 - rate) / n)
    assert abs((y == 0).mean() - rate) < 5 * deviation
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate))
    assert abs(y.mean() - 1) < 5 * deviation / (1 - rate)


def test_dropout_draws_the_same_mask_from_the_same_seed() -> None:
    def mask(seed: int) -> np.ndarray:
        ops = TapeOps({"x": np.ones((20, 20))}, 0.5, np.random.default_rng(seed))
        return ops.dropout(ops.weights["x"], "").value

    np.testing.assert_array_equal(mask(1), mask(1))
    assert not np.array_equal(mask(1), mask(2))


def test_large_scores_and_a_curve_by_hand() -> None:
    """Where a softmax without its largest score would be no number, and the curve of GELU."""
    x, v = np.array([[-2000.0, 0.0, 2000.0]]), np.linspace(-4, 4, 9)
    ops = TapeOps({"x": x, "v": v})
    mask = np.array([[True, True, True]])
    np.testing.assert_array_equal(ops.softmax(ops.weights["x"], mask, "s").value, [[0, 0, 1]])
    found = ops.activation(ops.weights["v"], "gelu_tanh", "a").value
    curve = [x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2 for x in v]
    np.testing.assert_allclose(found, curve, rtol=1e-12, atol=1e-15)
