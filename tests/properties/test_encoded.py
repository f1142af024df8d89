"""Laws of inputs whose length an executor knows: the bits of inputs that it sees first."""

from typing import Any
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Rows, model_configs, quantized, random_weights, rows_of, seeds

from mu_ref.config import INT4_GROUP, ModelConfig
from mu_ref.generate import decode_step, encode_step
from mu_ref.integers.int4 import quantize_weights_int4
from mu_ref.model import mu
from mu_ref.model.cache import Cache, Memory
from mu_ref.model.encoder import survey
from mu_ref.ops.fast import deferred
from mu_ref.ops.fast.floats import FastOps
from mu_ref.ops.fast.integers import FastIntegerOps
from mu_ref.ops.fast.stretches import repeats
from mu_ref.ops.fast.stretches.repeats import RepeatingOps

MODELS = model_configs(("encoder-decoder",))


def executor(model: ModelConfig, scheme: str, seed: int) -> RepeatingOps:
    weights = random_weights(model, seed, np.float32)
    if scheme == "float32":
        return FastOps(weights)
    if scheme == "w4a16":
        return FastOps(quantize_weights_int4(model, weights, INT4_GROUP))
    return FastIntegerOps(quantized(model, weights, seed, scheme=scheme))


def values_of(ops: RepeatingOps, memory: Memory) -> list[np.ndarray]:
    layers = [x for layer in memory.layers for x in (layer.k, layer.v)]
    return [ops.read(x).copy() for x in (memory.hidden, *layers)] + [memory.mask]


def step_on(ops: RepeatingOps, model: ModelConfig, memory: Memory) -> np.ndarray:
    """Write one token, which uses memory that encoding had."""
    n_rows = len(memory.mask)
    tokens, cache = np.full((n_rows, 1), 1), Cache.empty(n_rows, model.stacks["decoder"].n_layers)
    return ops.read(decode_step(ops, model, tokens, tokens > 0, memory, cache)).copy()


@st.composite
def inputs_in_turn(draw: Any) -> tuple[ModelConfig, list[tuple[Rows, bool]]]:
    """Some shapes that come again and again, and whether a result is looked at before the next."""
    model = draw(MODELS)
    shapes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    rows = [draw(rows_of(model.encoder_vocab_size, n)) for n in shapes for _ in range(3)]
    order = draw(st.permutations(rows))
    return model, [(given, draw(st.booleans())) for given in order]


@settings(max_examples=60)
@given(
    inputs_in_turn(), st.sampled_from(["float32", "w8a16", "w8a8", "w4a16"]), seeds,
    st.integers(1, 2), st.sampled_from([30, 200, 4096]), st.sampled_from([1, 2, 8]),
)  # fmt: skip
def test_inputs_of_known_lengths_give_the_bits_of_new_ones(
    case: Any, scheme: str, seed: int, n_threads: int, most_operations: int, most_inputs: int
) -> None:
    """However long a program may be, and however many lengths are known."""
    model, asked = case
    with (
        patch.object(deferred, "MOST_OPERATIONS", most_operations),
        patch.object(repeats, "MOST_OPERATIONS", most_operations),
        patch.object(repeats, "MOST_INPUTS", most_inputs),
    ):
        ops = executor(model, scheme, seed)
        ops.n_threads = n_threads
        memories = []
        for given_rows, look in asked:
            memories.append(encode_step(ops, model, given_rows.tokens, given_rows.valid))
            if look:
                step_on(ops, model, memories[-1])
        found = [(values_of(ops, memory), step_on(ops, model, memory)) for memory in memories]
    for (given_rows, _), (values, step) in zip(asked, found, strict=True):
        alone = executor(model, scheme, seed)
        memory = mu.remember(alone, model, given_rows.tokens, given_rows.valid)
        for got, expected in zip(values, values_of(alone, memory), strict=True):
            np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(step, step_on(alone, model, memory))


@given(MODELS, seeds, st.integers(1, 9), st.integers(2, 5))
def test_a_length_is_worked_out_once(
    model: ModelConfig, seed: int, length: int, times: int
) -> None:
    ops = executor(model, "float32", seed)
    rng = np.random.default_rng(seed)
    for _ in range(times):
        tokens = rng.integers(3, model.encoder_vocab_size, (1, length))
        assert not survey(model, tokens > 0).levels
        encode_step(ops, model, tokens, tokens > 0)
    (script,) = ops._encoders.known.values()
    assert script.n_replayed == times - 1


def test_an_input_that_is_known_asks_for_no_memory_but_for_its_results() -> None:
    """What encoding needs between is used again from layer to layer, and from input to input."""
    from mu_ref.presets import tiny

    model = tiny()
    ops = executor(model, "float32", 0)
    tokens = np.arange(3, 33)[None]

    def pooled() -> int:
        return sum(len(found) for found in ops._encoders.pool.free.values())  # type: ignore[union-attr]

    kept = encode_step(ops, model, tokens, tokens > 0)
    n_blocks = pooled()
    script = next(iter(ops._encoders.known.values()))
    assert script.rows is not None
    assert n_blocks < len(script.rows) / 2  # layers share them
    kept = encode_step(ops, model, tokens, tokens > 0)
    ops.flush()
    assert pooled() == n_blocks
    assert kept.layers
