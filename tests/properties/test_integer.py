"""Laws of the integer executor over random models: exact, integers only, and near the floats."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from strategies import Rows, model_configs, quantized, random_weights, rows_of, seeds

from mu_ref.config import ModelConfig
from mu_ref.model import mu
from mu_ref.model.cache import Cache
from mu_ref.model.decoder import decode
from mu_ref.ops.integer import IntegerOps, Quantized
from mu_ref.ops.reference import ReferenceOps
from mu_ref.presets import tiny
from mu_ref.quantize.bound import margin_bound

DECODERS = ("encoder-decoder", "decoder-only")


@st.composite
def cases(draw: Any, **fixed: Any) -> tuple[ModelConfig, IntegerOps, Rows | None, Rows]:
    model = draw(model_configs(DECODERS, **fixed))
    seed = draw(seeds)
    scheme = draw(st.sampled_from(["w8a16", "w8a8"]))
    rounding = draw(st.sampled_from(["tflite_single", "tflite_double", "half_even"]))
    integers = quantized(model, random_weights(model, seed), seed, scheme=scheme, rounding=rounding)
    n_rows = draw(st.integers(1, 3))
    source = draw(rows_of(model.encoder_vocab_size, n_rows)) if model.encoder else None
    return model, IntegerOps(integers), source, draw(rows_of(model.vocab_size, n_rows))


def logits(model: ModelConfig, ops: IntegerOps, source: Rows | None, target: Rows) -> np.ndarray:
    memory = None
    if source is not None:
        memory = mu.remember(ops, model, source.tokens, source.valid)
    return mu.logits(ops, model, decode(ops, model, target.tokens, target.valid, memory)).q


def rows(source: Rows | None, index: Any) -> Rows | None:
    return None if source is None else Rows(source.tokens[index], source.valid[index])


@given(cases(rope_length="row"))
def test_a_row_of_a_batch_gives_the_integers_of_the_row_alone(case: Any) -> None:
    model, ops, source, target = case
    batch = logits(model, ops, source, target)
    for row, n in enumerate(target.lengths):
        alone = Rows(target.tokens[[row], :n], target.valid[[row], :n])
        one = rows(source, [row])
        if one is not None:
            one = Rows(one.tokens[:, : one.lengths[0]], one.valid[:, : one.lengths[0]])
        np.testing.assert_array_equal(logits(model, ops, one, alone)[0], batch[row, :n])


@given(cases(), seeds)
def test_permuting_the_rows_permutes_the_integers(case: Any, seed: int) -> None:
    model, ops, source, target = case
    order = np.random.default_rng(seed).permutation(len(target.tokens))
    permuted = logits(model, ops, rows(source, order), rows(target, order))  # type: ignore[arg-type]
    np.testing.assert_array_equal(permuted, logits(model, ops, source, target)[order])


@given(cases(), st.lists(st.integers(1, 3), min_size=7, max_size=7))
def test_cached_decoding_gives_the_integers_of_full_recomputation(
    case: Any, chunks: list[int]
) -> None:
    model, ops, source, target = case
    memory = mu.remember(ops, model, source.tokens, source.valid) if source else None
    cache = Cache.empty(len(target.tokens), model.stacks["decoder"].n_layers)
    done = 0
    for chunk in chunks:
        end = min(done + chunk, target.tokens.shape[1])
        if end == done:
            break
        new = (target.tokens[:, done:end], target.valid[:, done:end])
        step = mu.logits(ops, model, decode(ops, model, *new, memory, cache))
        full = logits(model, ops, source, Rows(target.tokens[:, :end], target.valid[:, :end]))
        np.testing.assert_array_equal(step.q, full[:, done:end])
        done = end


class NoFloat(np.ndarray):
    """An array that refuses floating-point numbers in whatever is done with it."""

    def __array_finalize__(self, obj: object) -> None:
        if self.dtype.kind not in "iub":
            raise TypeError(f"a float entered: {self.dtype}")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return _checked(getattr(ufunc, method), inputs, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _checked(func, args, kwargs)


def _checked(function: Any, args: Any, kwargs: Any) -> Any:
    """Call with plain arrays; the result must be integers, and refuses floats again."""

    def plain(x: Any) -> Any:
        if isinstance(x, (list, tuple)):
            return type(x)(plain(y) for y in x)
        if isinstance(x, (float, np.floating)) or getattr(x, "dtype", np.dtype(int)).kind == "f":
            raise TypeError(f"a float entered {function.__name__}")
        return np.asarray(x) if isinstance(x, NoFloat) else x

    result = function(*plain(tuple(args)), **{k: plain(v) for k, v in kwargs.items()})
    if isinstance(result, (list, tuple)):
        return [np.asarray(r).view(NoFloat) for r in result]
    return np.asarray(result).view(NoFloat)


class Watched(IntegerOps):
    """Checks that every value that it stores is still of the refusing type."""

    stored = 0

    def _stored(self, steps: np.ndarray, site: str) -> Quantized:
        assert isinstance(steps, NoFloat), site
        self.stored += 1
        return super()._stored(steps, site)


def test_the_refusing_type_refuses() -> None:
    x = np.arange(3).view(NoFloat)
    for attempt in (lambda: x * 0.5, lambda: np.sqrt(x), lambda: x / 2, lambda: x.astype(float)):
        with pytest.raises(TypeError, match="float"):
            attempt()


@given(cases())
def test_no_float_touches_an_activation(case: Any) -> None:
    model, ops, source, target = case
    integers = ops.model
    tensors = {
        name: tensor if name.endswith("_scale") else tensor.view(NoFloat)
        for name, tensor in integers.tensors.items()
    }
    watched = Watched(replace(integers, tensors=tensors))
    result = logits(model, watched, source, target)
    assert isinstance(result, NoFloat)
    assert watched.stored > 5
    np.testing.assert_array_equal(np.asarray(result), logits(model, ops, source, target))


SMALL: dict[str, Any] = {"attention_softcap": None, "window": None, "rope_ntk_factor": 1.0}


@given(
    model_configs(DECODERS, **SMALL, n_layers=1, windowed_layers=(False,)),
    seeds,
    st.sampled_from(["w8a16", "w8a8"]),
)
@settings(deadline=None)
def test_a_margin_above_the_bound_decides_the_token(
    model: ModelConfig, seed: int, scheme: str
) -> None:
    model = replace(model, final_softcap=None)
    weights = random_weights(model, seed)
    ops = IntegerOps(quantized(model, weights, seed, scheme=scheme))
    rng = np.random.default_rng(seed + 1)
    source = rng.integers(0, model.encoder_vocab_size, (2, 5)) if model.encoder else None
    target = rng.integers(0, model.vocab_size, (2, 5))
    result = margin_bound(model, weights, ops, source, target)
    valid = None if source is None else np.ones(source.shape, bool)
    scores = mu.forward(ops, model, source, valid, target, np.ones(target.shape, bool))
    token = ops.argmax(scores, "head.argmax")
    np.testing.assert_array_equal(token[result.covered], result.best[result.covered])
    event(f"{scheme}: {10 * round(10 * result.covered.mean())} % of the steps covered")
    # the bound holds for every pair, not only for the argmax
    real = ops.read(scores)
    over = np.take_along_axis(real, result.best[..., None], axis=-1) - real
    assert (np.abs(over - result.margin) <= result.bound + 1e-9).all()


@pytest.mark.parametrize(("scheme", "least"), [("w8a16", 0.5), ("w8a8", 0.25)])
def test_the_bound_covers_many_steps_of_random_models(scheme: str, least: float) -> None:
    covered = []
    for seed in range(12):
        model = tiny()
        weights = random_weights(model, seed)
        ops = IntegerOps(quantized(model, weights, seed, scheme=scheme))
        rng = np.random.default_rng(seed)
        source, target = rng.integers(3, 61, (2, 6)), rng.integers(3, 61, (2, 6))
        covered.append(margin_bound(model, weights, ops, source, target).covered.mean())
    share = float(np.mean(covered))
    print(f"{scheme}: the bound covers {100 * share:.0f} % of the steps of 12 random models")
    assert least < share <= 1


@pytest.mark.parametrize("kind", ["rms", "rms_plus_one", "layer"])
@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu", "silu", "relu"])
def test_integers_are_near_the_floats(kind: str, activation: str) -> None:
    """A wrong sign or scale anywhere would leave about 0 dB; 8-bit weights alone leave 26 to 30."""
    more = {"norm_placement": "dual", "gated": True, "attention_bias": True, "mlp_bias": True}
    model = tiny(norm_kind=kind, activation=activation, attention_softcap=5.0, **more)
    weights = random_weights(model, 1)
    source, target = (np.random.default_rng(2).integers(3, 61, (4, 7)) for _ in range(2))
    full = np.ones(source.shape, bool)
    exact = mu.forward(ReferenceOps(weights, np.float64), model, source, full, target, full)
    for scheme, least_db in (("w8a16", 22), ("w8a8", 14)):
        ops = IntegerOps(quantized(model, weights, 3, scheme=scheme))
        noise = ops.read(mu.forward(ops, model, source, full, target, full)) - exact
        assert 10 * np.log10((exact**2).sum() / (noise**2).sum()) > least_db
