"""The compiled arithmetic of the tape beside NumPy's: formulas, gradients, whole runs, bytes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import KINDS, model_configs, random_weights, rows_of, seeds

from mu_ref.model import mu
from mu_ref.ops.arithmetic import Arithmetic
from mu_ref.ops.fast.arithmetic import FastArithmetic
from mu_ref.ops.tape import TapeOps
from mu_ref.presets import tiny
from mu_ref.training.datasets import Example
from mu_ref.training.losses import cross_entropy
from mu_ref.training.trainer import TrainConfig, Trainer

F32 = np.float32
PLAIN, FAST = Arithmetic(), FastArithmetic()
sizes = st.integers(1, 40)


def both_ways(name: str, arrays: list, more: tuple, seed: int) -> None:
    """Compare the compiled formula in float32 with NumPy's in float64, there and back."""
    wide = [None if a is None else a.astype(np.float64) for a in arrays]
    value, back = getattr(FAST, name)(*arrays, *more)
    expected, back_64 = getattr(PLAIN, name)(*wide, *more)
    assert value.dtype == F32
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-5)
    grad = np.random.default_rng(seed).normal(size=value.shape).astype(F32)
    found, right = back(grad), back_64(grad.astype(np.float64))
    assert len(found) == len(right)
    for one, other in zip(found, right, strict=True):
        assert one.dtype == F32
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@settings(max_examples=40)
@given(st.sampled_from(["rms", "rms_plus_one", "layer"]), sizes, sizes, st.booleans(), seeds)
def test_a_norm_there_and_back(kind: str, n: int, d: int, bare: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, gain, bias = (rng.normal(size=s).astype(F32) for s in ((2, n, d), d, d))
    both_ways("norm", [x, gain, bias if kind == "layer" and not bare else None], (kind, 0.1), seed)


@settings(max_examples=40)
@given(st.sampled_from(["gelu_tanh", "gelu", "silu", "relu"]), sizes, sizes, st.booleans(), seeds)
def test_an_activation_there_and_back(kind: str, m: int, n: int, turned: bool, seed: int) -> None:
    x = 3 * np.random.default_rng(seed).normal(size=(m, n)).astype(F32)
    both_ways("activation", [x.T if turned else x], (kind,), seed)


@settings(max_examples=40)
@given(sizes, st.integers(1, 4), st.integers(1, 20), st.booleans(), seeds)
def test_a_turn_there_and_back_whichever_way_heads_lie(
    n: int, n_heads: int, half: int, by_token: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, n, n_heads, 2 * half) if by_token else (2, n_heads, n, 2 * half))
    x = x.astype(F32).transpose(0, 2, 1, 3) if by_token else x.astype(F32)
    angle = rng.uniform(0, 7, (int(rng.integers(1, 3)), 1, n, half))
    cos, sin = np.cos(angle).astype(F32), np.sin(angle).astype(F32)
    both_ways("rope", [x], (cos, sin), seed)


@settings(max_examples=40)
@given(sizes, sizes, st.sampled_from([0.0, 0.1]), st.sampled_from([0.1, 5.0, 100.0]), seeds)
def test_a_cross_entropy_there_and_back(
    n: int, vocab: int, smoothing: float, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    z, y = (scale * rng.normal(size=(2, n, vocab))).astype(F32), rng.integers(0, vocab, (2, n))
    counted = rng.random((2, n)) < 0.7
    counted[0, 0] = True
    both_ways("cross_entropy", [z], (y, counted, smoothing), seed)


@given(sizes, sizes, seeds)
def test_rows_of_a_table_there_and_back(n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table, tokens = rng.normal(size=(5, d)).astype(F32), rng.integers(0, 5, (2, n))
    both_ways("embed", [table], (tokens,), seed)


@pytest.mark.parametrize("kind", ["gelu_tanh", "gelu", "silu", "relu"])
def test_far_from_zero_an_activation_is_0_or_x(kind: str) -> None:
    x = np.array([-1e30, -3e4, -60, 60, 3e4, 1e30], F32)
    y, back = FAST.activation(x, kind)
    np.testing.assert_allclose(y, np.maximum(x, 0), atol=2e-8)
    np.testing.assert_allclose(back(np.ones(6, F32))[0], (x > 0).astype(F32), atol=1e-6)


def test_scores_far_apart_are_weighed_without_an_overflow() -> None:
    z = np.array([[1e30, 0, -1e30]], F32)
    loss, back = FAST.cross_entropy(z, np.array([0]), np.array([True]), 0.0)
    assert loss == 0
    np.testing.assert_array_equal(back(np.float32(1))[0], [[0, 0, 0]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_makes_the_loss_none(wrong: float, smoothing: float) -> None:
    z = np.zeros((3, 40), F32)
    z[1, 7] = wrong
    with np.errstate(invalid="ignore"):
        loss, _ = FAST.cross_entropy(z, np.zeros(3, int), np.ones(3, bool), smoothing)
    assert not np.isfinite(loss)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_value_that_is_no_number_goes_through(wrong: float) -> None:
    x = np.ones((2, 40), F32)
    x[1, 7] = wrong
    with np.errstate(invalid="ignore"):
        y, _ = FAST.norm(x, np.ones(40, F32), None, "rms", 1e-6)
        act = [FAST.activation(x, kind)[0] for kind in ("gelu_tanh", "gelu", "silu", "relu")]
    for result in (y, *act):
        assert np.isfinite(result[0]).all()
        assert not np.isfinite(result[1]).all()


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_gradients_of_a_model_are_those_of_numpy(data: st.DataObject) -> None:
    model = data.draw(model_configs(KINDS, d_model=6))
    if model.decoder is None:
        return
    seed = data.draw(seeds)
    source_vocab = model.encoder_vocab_size
    source = data.draw(rows_of(source_vocab, 2, max_len=4)) if model.encoder else None
    target = data.draw(rows_of(model.vocab_size, 2, max_len=4))
    labels = np.random.default_rng(seed).integers(0, model.vocab_size, target.tokens.shape)
    weights = {name: w.astype(F32) for name, w in random_weights(model, seed).items()}

    def found(arrays: dict, arithmetic: Arithmetic) -> tuple:
        ops = TapeOps(arrays, arithmetic=arithmetic)
        read = (None, None) if source is None else (source.tokens, source.valid)
        scores = mu.forward(ops, model, *read, target.tokens, target.valid)
        loss = cross_entropy(ops, scores, labels, target.valid, 0.1)
        return float(loss.value), ops.backward(loss)

    loss, grads = found(weights, FAST)
    right, expected = found({n: w.astype(np.float64) for n, w in weights.items()}, PLAIN)
    assert loss == pytest.approx(right, rel=1e-4)
    assert grads.keys() == expected.keys()
    largest = max(float(np.abs(grad).max()) for grad in expected.values())
    for name, grad in expected.items():
        assert grads[name].dtype == F32
        np.testing.assert_allclose(grads[name], grad, rtol=2e-3, atol=2e-3 * largest, err_msg=name)


# -- whole runs ------------------------------------------------------------------------------------


def examples(rng: np.random.Generator) -> list[Example]:
    lengths = [tuple(rng.integers(1, 6, 2)) for _ in range(12)]
    return [Example(*(rng.integers(3, 61, n).tolist() for n in pair)) for pair in lengths]


def trainer(arithmetic: Arithmetic, **changes) -> Trainer:
    run = TrainConfig(epochs=2, batch_size=4, seed=5, **changes)
    return Trainer(tiny(), run, examples, arithmetic=arithmetic)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_run_learns_what_it_learns_with_numpy(optimizer) -> None:
    losses = [
        [p.loss for p in trainer(arithmetic, matrix_optimizer=optimizer).run()]
        for arithmetic in (PLAIN, FAST)
    ]
    assert len(losses[0]) == 6
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_a_run_that_went_on_has_the_same_bytes(tmp_path) -> None:
    whole = trainer(FAST)
    list(whole.run())
    first = trainer(FAST)
    for progress in first.run():
        if progress.step == 2:
            break
    first.save(tmp_path / "checkpoint")
    second = trainer(FAST)
    second.resume(tmp_path / "checkpoint")
    list(second.run())
    for name, weight in whole.weights.items():
        assert weight.tobytes() == second.weights[name].tobytes(), name


def test_other_floats_are_left_to_numpy() -> None:
    weights = {name: w.astype(np.float64) for name, w in trainer(FAST).weights.items()}
    found = []
    for arithmetic in (PLAIN, FAST):
        run = trainer(arithmetic)
        run.weights = {name: w.copy() for name, w in weights.items()}
        list(run.run())
        found.append(run.weights)
    for name, weight in found[0].items():
        assert weight.dtype == np.float64
        np.testing.assert_array_equal(weight, found[1][name])


def test_a_model_keeps_the_gradient_of_heads_that_are_their_own() -> None:
    model = replace(tiny(n_kv_heads=4))
    ops = TapeOps(random_weights(model, 0))
    x = ops.scale(ops.weights["encoder.0.self_attention.q.weight"], 1.0, "")
    assert model.encoder is not None
    heads = ops.record(np.ones((1, 4, 2, 3)), (x,), lambda grad: (None,))
    assert ops.share_heads(heads, model.encoder.kv_head_of, "") is heads
