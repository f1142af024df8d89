"""Laws of the fast executors: the integers of the reference, and floats near it; any threads."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Rows, model_configs, quantized, random_weights, rows_of, seeds

from mu_ref.config import INT4_GROUP, ModelConfig
from mu_ref.errors import QuantizationError
from mu_ref.generate import decode_step
from mu_ref.integers.int4 import (
    dequantize_groups,
    dequantize_weights_int4,
    pack_int4,
    quantize_groups,
    quantize_rows,
    quantize_weights_int4,
)
from mu_ref.model import mu
from mu_ref.model.cache import Cache
from mu_ref.model.decoder import decode
from mu_ref.ops import Ops
from mu_ref.ops.fast.floats import FastOps
from mu_ref.ops.fast.integers import FastIntegerOps
from mu_ref.ops.fast.stretches.repeats import MOST_ROWS
from mu_ref.ops.integer import IntegerOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.presets import tiny
from mu_ref.weights import Weights

DECODERS = ("encoder-decoder", "decoder-only")
# whole vectors, and sizes that leave a rest
WIDTHS: list[dict[str, Any]] = [{}, {"d_model": 64, "d_head": 32, "d_ff": 80}, {"d_head": 16}]


@st.composite
def cases(draw: Any, **fixed: Any) -> tuple[ModelConfig, Weights, Rows | None, Rows, int]:
    widths = draw(st.sampled_from(WIDTHS))
    model = draw(model_configs(DECODERS, **(fixed | widths)))
    n_rows = draw(st.integers(1, 4))
    source = draw(rows_of(model.encoder_vocab_size, n_rows)) if model.encoder else None
    target = draw(rows_of(model.vocab_size, n_rows))
    seed = draw(seeds)
    return model, random_weights(model, seed, np.float32), source, target, seed


def logits(model: ModelConfig, ops: Ops, source: Rows | None, target: Rows) -> np.ndarray:
    memory = None
    if source is not None:
        memory = mu.remember(ops, model, source.tokens, source.valid)
    hidden = decode(ops, model, target.tokens, target.valid, memory)
    return ops.read(mu.logits(ops, model, hidden))


def rows(source: Rows | None, index: Any) -> Rows | None:
    if source is None:
        return None
    n = source.valid[index].sum(axis=1).max()
    return Rows(source.tokens[index, :n], source.valid[index, :n])


def executors(model: ModelConfig, weights: Weights, seed: int, scheme: str) -> tuple[Ops, Ops]:
    if scheme == "float32":
        return ReferenceOps(weights), FastOps(weights)
    if scheme == "w4a16":
        tensors = quantize_weights_int4(model, weights, INT4_GROUP)
        return ReferenceOps(dequantize_weights_int4(model, tensors, INT4_GROUP)), FastOps(tensors)
    integers = quantized(model, weights, seed, scheme=scheme)
    return IntegerOps(integers), FastIntegerOps(integers)


schemes = st.sampled_from(["float32", "w8a16", "w8a8", "w4a16"])
roundings = st.sampled_from(["tflite_single", "tflite_double", "half_even"])


@settings(max_examples=30)
@given(
    st.sampled_from([1, 31, 32, 33, 64, 95, 96, 130, 150]), seeds,
    st.sampled_from(["float32", "w8a16", "w8a8"]),
)  # fmt: skip
def test_threads_with_rows_of_their_own_give_the_bits_of_one(
    n: int, seed: int, scheme: str
) -> None:
    """From 32 rows for each thread on; with fewer each has outputs of its own."""
    model = tiny()
    _, ops = executors(model, random_weights(model, seed, np.float32), seed, scheme)
    tokens = np.random.default_rng(seed).integers(3, model.encoder_vocab_size, (1, n))
    found = []
    for threads in (1, 2, 3, 4):
        ops.n_threads = threads  # type: ignore[attr-defined]
        found.append(ops.read(mu.remember(ops, model, tokens, tokens > 0).hidden).copy())
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


@given(cases(), st.sampled_from(["w8a16", "w8a8"]), roundings, st.integers(1, 3))
def test_fast_integers_are_those_of_the_integer_executor(
    case: Any, scheme: str, rounding: str, threads: int
) -> None:
    model, weights, source, target, seed = case
    integers = quantized(model, weights, seed, scheme=scheme, rounding=rounding)
    fast = FastIntegerOps(integers)
    fast.n_threads = threads
    expected = logits(model, IntegerOps(integers), source, target)
    np.testing.assert_array_equal(logits(model, fast, source, target), expected)


@given(cases())
def test_fast_floats_differ_from_the_reference_by_rounding_only(case: Any) -> None:
    model, weights, source, target, _ = case
    exact = logits(model, ReferenceOps(weights, np.float64), source, target)
    reference = logits(model, ReferenceOps(weights), source, target)
    fast = logits(model, FastOps(weights), source, target)
    assert fast.dtype == np.float32
    # as far from float64 as the reference is, up to a factor: both round at every operation
    allowed = 1e-4 * max(1.0, np.abs(exact).max()) + 10 * np.abs(reference - exact).max()
    np.testing.assert_allclose(fast, exact, rtol=0, atol=allowed)


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 20), seeds)
def test_int4_products_round_only_their_input(d_in: int, d_out: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, scale = quantize_groups(rng.standard_normal((d_out, d_in)), INT4_GROUP)
    table, row_scale = quantize_rows(rng.standard_normal((d_out, d_in)))
    fast = FastOps(
        {
            "x.weight": pack_int4(q), "x.weight_scale": scale,
            "head.weight": table, "head.weight_scale": row_scale,
        }
    )  # fmt: skip
    x = rng.standard_normal((1, n, d_in)).astype(np.float32)
    weights = {
        "x": dequantize_groups(q, scale).astype(np.float64),
        "head": table * row_scale.astype(np.float64),
    }
    for site, high in (("x", 2**14 - 1), ("head", 2**15 - 1)):
        w = weights[site]
        step = np.abs(x).max(axis=-1, keepdims=True) / high
        rounding = 0.5 * step * np.abs(w).sum(axis=1)
        order = 2.0**-20 * (np.abs(x) @ np.abs(w).T + 30 * step * high * np.abs(w).max())
        got = fast.read(fast.linear(fast._stored(x), site))
        assert (np.abs(got - x @ w.T) <= rounding + order).all()


def test_int4_in_other_groups_is_refused() -> None:
    with pytest.raises(QuantizationError, match="groups of 128, got 64"):
        FastOps({}, 64)


@given(cases(rope_length="row"), schemes, st.integers(1, 3))
def test_a_row_of_a_batch_gives_the_bits_of_the_row_alone(
    case: Any, scheme: str, threads: int
) -> None:
    model, weights, source, target, seed = case
    _, ops = executors(model, weights, seed, scheme)
    ops.n_threads = threads  # type: ignore[attr-defined]
    batch = logits(model, ops, source, target)
    ops.n_threads = 1  # type: ignore[attr-defined]
    for row, n in enumerate(target.lengths):
        alone = Rows(target.tokens[[row], :n], target.valid[[row], :n])
        one = logits(model, ops, rows(source, [row]), alone)
        np.testing.assert_array_equal(one[0], batch[row, :n])


@given(cases(), schemes, st.lists(st.integers(1, 3), min_size=7, max_size=7))
def test_cached_decoding_gives_the_bits_of_full_recomputation(
    case: Any, scheme: str, chunks: list[int]
) -> None:
    model, weights, source, target, seed = case
    _, ops = executors(model, weights, seed, scheme)
    memory = mu.remember(ops, model, source.tokens, source.valid) if source else None
    cache = Cache.empty(len(target.tokens), model.stacks["decoder"].n_layers)
    done = 0
    for chunk in chunks:
        end = min(done + chunk, target.tokens.shape[1])
        if end == done:
            break
        new = (target.tokens[:, done:end], target.valid[:, done:end])
        step = ops.read(mu.logits(ops, model, decode_step(ops, model, *new, memory, cache)))
        full = logits(model, ops, source, Rows(target.tokens[:, :end], target.valid[:, :end]))
        np.testing.assert_array_equal(step, full[:, done:end])
        done = end


@given(cases(), schemes, st.integers(1, 2), st.integers(0, 3))
def test_steps_that_are_replayed_give_the_bits_of_captured_ones(
    case: Any, scheme: str, n_new: int, switch: int
) -> None:
    """Many equal steps, with one of another length among them, and an answer that is read late."""
    model, weights, source, target, seed = case
    _, ops = executors(model, weights, seed, scheme)
    ops.n_threads = 1  # type: ignore[attr-defined]
    memory = mu.remember(ops, model, source.tokens, source.valid) if source else None
    rng = np.random.default_rng(seed)
    sizes = [n_new] * 7 + [switch] * (switch > 0) + [n_new] * 60
    tokens = rng.integers(0, model.vocab_size, (len(target.tokens), sum(sizes)))
    valid = rng.random(tokens.shape) < 0.9
    valid[:, 0] = True
    cache = Cache.empty(len(tokens), model.stacks["decoder"].n_layers)
    waiting, done = [], 0
    for number, size in enumerate(sizes):
        new = slice(done, done + size)
        waiting.append(decode_step(ops, model, tokens[:, new], valid[:, new], memory, cache))
        if number % 3 == 0:
            ops.read(waiting[-1])
        done += size
    got = np.concatenate([ops.read(x) for x in waiting], axis=1)
    if model.stacks["decoder"].rope_ntk_factor == 1:  # else theta grows, and earlier keys with it
        full = decode(ops, model, tokens, valid, memory)
        np.testing.assert_array_equal(got[valid], ops.read(full)[valid])
    replayed = sum(s.n_replayed for s in ops._scripts.known.values())  # type: ignore[attr-defined]
    few = tokens[:, :n_new].size <= MOST_ROWS and not _theta_moves(model)
    assert (replayed > 40) == few


@settings(max_examples=25)
@given(cases(), schemes, st.lists(st.integers(1, 7), min_size=2, max_size=6))
def test_requests_in_turn_share_what_is_known_and_nothing_else(
    case: Any, scheme: str, lengths: list[int]
) -> None:
    """Inputs of several lengths, a step of each in turn: a step is replayed on another's cache."""
    model, weights, _, _, seed = case
    _, ops = executors(model, weights, seed, scheme)
    rng = np.random.default_rng(seed)
    n_layers, n_steps = model.stacks["decoder"].n_layers, 9

    def start(length: int) -> tuple[Any, Cache]:
        tokens = np.arange(length)[None] % model.encoder_vocab_size
        memory = mu.remember(ops, model, tokens, tokens >= 0) if model.encoder else None
        return memory, Cache.empty(1, n_layers)

    requests = [start(length) for length in lengths]
    tokens = rng.integers(0, model.vocab_size, (len(lengths), n_steps))
    full = np.ones((1, 1), bool)
    got = [
        [
            ops.read(decode_step(ops, model, tokens[[i], step : step + 1], full, memory, cache))
            for i, (memory, cache) in enumerate(requests)
        ]
        for step in range(n_steps)
    ]
    _, alone = executors(model, weights, seed, scheme)
    ops = alone  # `start` encodes with it
    for i, length in enumerate(lengths):
        memory, cache = start(length)
        for step in range(n_steps):
            alone._scripts.known.clear()  # type: ignore[attr-defined]  # it captures every step
            new = tokens[[i], step : step + 1]
            expected = alone.read(decode_step(alone, model, new, full, memory, cache))
            np.testing.assert_array_equal(got[step][i], expected)


def _theta_moves(model: ModelConfig) -> bool:
    return model.stacks["decoder"].rope_ntk_factor > 1


@settings(max_examples=20)
@given(cases(), schemes)
def test_two_caches_that_share_a_beginning_do_not_disturb_each_other(
    case: Any, scheme: str
) -> None:
    model, weights, source, target, seed = case
    _, ops = executors(model, weights, seed, scheme)
    memory = mu.remember(ops, model, source.tokens, source.valid) if source else None
    n_layers = model.stacks["decoder"].n_layers
    tokens, valid = target.tokens, np.ones(target.tokens.shape, bool)

    def step(cache: Cache, new: np.ndarray) -> np.ndarray:
        full = np.ones(new.shape, bool)
        return ops.read(decode_step(ops, model, new, full, memory, cache))

    start = Cache.empty(len(tokens), n_layers)
    step(start, tokens)
    ends = [(tokens[:, :1] + shift) % model.vocab_size for shift in (0, 1)]
    results = []
    for end in ends:
        branch = Cache.empty(len(tokens), n_layers)
        branch.layers = [type(layer)(layer.k, layer.v) for layer in start.layers]
        branch.tokens, branch.valid = start.tokens, start.valid
        branch.positions, branch.theta = start.positions, start.theta
        results.append((branch, step(branch, end)))
    for end, (_, got) in zip(ends, results, strict=True):
        whole = Rows(
            np.concatenate([tokens, end], axis=1),
            np.pad(valid, ((0, 0), (0, 1)), constant_values=True),
        )
        hidden = decode(ops, model, whole.tokens, whole.valid, memory)
        np.testing.assert_array_equal(ops.read(hidden)[:, -1:], got)


@pytest.mark.parametrize("scheme", ["float32", "w8a16", "w8a8", "w4a16"])
def test_a_program_longer_than_its_limit_runs_in_parts(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mu_ref.ops.fast import deferred

    model = tiny()
    _, ops = executors(model, random_weights(model, 1, np.float32), 1, scheme)
    tokens = Rows(np.array([[1, 2, 3]]), np.ones((1, 3), bool))
    whole = logits(model, ops, tokens, tokens)
    monkeypatch.setattr(deferred, "MOST_OPERATIONS", 3)
    np.testing.assert_array_equal(logits(model, ops, tokens, tokens), whole)
