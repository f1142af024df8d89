"""Each layer by itself, on random inputs that fill its whole range: a port's second step.

A run of the whole model shows a layer what the layers before it make of real text; here integers
saturate, rows are padded, and an error in one layer cannot hide behind another's.
"""

from dataclasses import replace

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.golden.record import Entry, Recorder
from mu_ref.model.attention import Sight, attention_mask
from mu_ref.model.cache import Cache, LayerMemory
from mu_ref.model.decoder import decoder_block, place
from mu_ref.model.encoder import embed, encoder_block
from mu_ref.model.rope import positions_of, rope_lengths, rope_theta
from mu_ref.ops import Ops, Value
from mu_ref.ops.integer import IntegerOps, Quantized
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.rotation import Rotation
from mu_ref.ops.traced import Traced

__all__ = ["record_layers"]

N_TOKENS, N_SOURCE = 6, 7  # of the longer of two rows; the other is padded


def record_layers(inner: Ops, model: ModelConfig, seed: int) -> Recorder:
    """Run every layer of a model on inputs of its own.

    Args:
        inner: the reference or the integer executor.
        model: the configuration.
        seed: of the inputs.

    Returns:
        The recorder; keys are `layer/encoder.0/SITE`, inputs `layer/encoder.0/x`.
    """
    recorder = Recorder(inner)
    for name, stack in model.stacks.items():
        for layer in range(stack.n_layers):
            site = f"{name}.{layer}"
            recorder.call = f"layer/{site}"
            rng = np.random.default_rng([seed, layer, len(name)])
            n = N_SOURCE if name == "encoder" else N_TOKENS
            x = _given(
                recorder, "x", _stream(inner, model, name, layer), (2, n, stack.d_model), rng
            )
            valid = np.arange(n) < np.array([[n], [n - 2]])
            if name == "encoder":
                positions = positions_of(stack, valid)
                theta = rope_theta(stack, rope_lengths(stack, valid))
                turn = Rotation(positions, theta, stack.d_head, stack.rope_factor)
                window = stack.layer_window(layer)
                mask = attention_mask(positions, positions, valid, causal=False, window=window,
                                      inclusive=stack.window_inclusive)  # fmt: skip
                encoder_block(recorder.ops, stack, x, Sight(turn, mask), site)
                continue
            cache = Cache.empty(2, stack.n_layers)
            placed = place(model, np.zeros((2, n), np.int64), valid, cache)
            sight = Sight(placed.turn, placed.masks[stack.layer_window(layer)])
            memory = _memory(recorder, model, layer, rng) if model.encoder else None
            decoder_block(recorder.ops, stack, x, sight, memory, site)
    return recorder


def _stream(inner: Ops, model: ModelConfig, stack: str, layer: int) -> Value:
    """A value of the kind that a layer reads: what the one before writes, or the embedding."""
    start = embed(inner, model, np.zeros((1, 1), np.int64), stack)
    if layer and isinstance(inner, IntegerOps):
        return replace(start, encoding=inner.model.encoding(f"{stack}.{layer - 1}.mlp.residual"))
    return start


def _memory(
    recorder: Recorder, model: ModelConfig, layer: int, rng: np.random.Generator
) -> LayerMemory:
    """Keys and values of an encoder output, random too."""
    stack, site = model.stacks["decoder"], f"decoder.{layer}.cross_attention"
    shape = 2, stack.n_kv_heads, N_SOURCE, stack.d_head
    like = _stream(recorder.inner, model, "decoder", 0)
    k, v = (
        _given(recorder, f"memory.{name}", _at(recorder.inner, like, f"{site}.{name}"), shape, rng)
        for name in ("k", "v")
    )
    valid = np.arange(N_SOURCE) < np.array([[N_SOURCE], [N_SOURCE - 3]])
    return LayerMemory(k, v, valid[:, None, None, :])


def _at(inner: Ops, like: Value, site: str) -> Value:
    if isinstance(inner, IntegerOps):
        return replace(like, encoding=inner.model.encoding(site))
    return like


def _given(
    recorder: Recorder, name: str, like: Value, shape: tuple[int, ...], rng: np.random.Generator
) -> Traced:
    """Record a random value and hand it out as something that a site computed."""
    encoding = None
    if isinstance(like, Quantized):
        encoding = like.encoding
        half = 2 ** (encoding.bits - 1)
        array = rng.integers(-half, half, shape).astype(f"i{encoding.bits // 8}")
        value: Value = Quantized(array, encoding)
    else:
        assert isinstance(recorder.inner, ReferenceOps)
        array = value = rng.standard_normal(shape).astype(like.dtype)
    recorder.entries[f"{recorder.call}/{name}"] = Entry(array, "input", (), encoding)
    return recorder.stand_for(value, name)
