"""The decoder: writes one token at a time, reading what it wrote and, in Mu, the encoder output."""

from typing import Any

import numpy as np

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.model.attention import attention_mask, cross_attention, mlp, residual, self_attention
from mu_ref.model.cache import Cache, LayerCache, Memory, Placement
from mu_ref.model.encoder import embed
from mu_ref.model.rope import positions_of, rope_lengths, rope_theta
from mu_ref.ops import Ops, Value
from mu_ref.ops.rotation import Rotation

__all__ = ["decode", "decoder_block"]


def decoder_block(
    ops: Ops,
    x: Value,
    turn: Rotation,
    mask: np.ndarray,
    config: StackConfig,
    rate: float,
    site: str,
    cache: LayerCache | None,
    memory: LayerCache | None,
    memory_mask: np.ndarray | None,
) -> Value:
    """Run one layer: self-attention, cross-attention (if there is a memory), MLP.

    Args:
        ops: the executor.
        x: [batch, n_tok, d_model].
        turn: rotation of the n_tok tokens.
        mask: [batch, 1, n_tok, n_key] bool.
        config: of the decoder.
        rate: dropout rate, in training.
        site: for example "decoder.0".
        cache: this layer's keys and values, or None.
        memory: this layer's keys and values of the encoder output, or None.
        memory_mask: [batch, 1, 1, n_src] bool, or None.

    Returns:
        [batch, n_tok, d_model].
    """
    kind, eps = config.norm_kind, config.norm_eps
    h = ops.norm(x, f"{site}.self_attention.pre_norm", kind, eps)
    h = self_attention(ops, h, turn, mask, config, f"{site}.self_attention", cache)
    x = residual(ops, x, h, config, rate, f"{site}.self_attention")
    if memory is not None and memory_mask is not None:
        h = ops.norm(x, f"{site}.cross_attention.pre_norm", kind, eps)
        h = cross_attention(ops, h, memory, memory_mask, config, f"{site}.cross_attention")
        x = residual(ops, x, h, config, rate, f"{site}.cross_attention")
    h = mlp(ops, ops.norm(x, f"{site}.mlp.pre_norm", kind, eps), config, f"{site}.mlp")
    return residual(ops, x, h, config, rate, f"{site}.mlp")


def decode(
    ops: Ops,
    tokens: np.ndarray,
    valid: np.ndarray,
    model: ModelConfig,
    memory: Memory | None,
    cache: Cache | None = None,
    placement: Placement | None = None,
) -> Value:
    """Compute the hidden state of each new token.

    Args:
        ops: the executor.
        tokens: [batch, n_tok] int, the tokens not yet in the cache.
        valid: [batch, n_tok] bool, False at padding.
        model: its `decoder` must not be None.
        memory: from `mu.remember`, or None for a decoder-only model.
        cache: earlier tokens; updated. None computes without one.
        placement: for tokens that do not simply follow the cached ones.

    Returns:
        [batch, n_tok, d_model], after the final norm.
    """
    config = model.stacks["decoder"]
    cache = Cache.empty(len(tokens), config.n_layers) if cache is None else cache
    n_new = tokens.shape[1]
    tokens = np.concatenate([cache.tokens, tokens], axis=1)  # [batch, n_slots]
    valid = np.concatenate([cache.valid, valid], axis=1)
    if placement is None:
        positions, lengths = positions_of(valid, config), rope_lengths(valid, config)
    else:
        positions = np.concatenate([cache.positions, placement.positions], axis=1)
        lengths = placement.lengths
    theta = rope_theta(lengths, config)
    if cache.theta is None or np.any(theta != cache.theta):  # see Cache: compute all again
        cache.layers = [LayerCache() for _ in range(config.n_layers)]
        n_compute = tokens.shape[1]
    else:
        n_compute = n_new
    cache.tokens, cache.valid, cache.positions, cache.theta = tokens, valid, positions, theta

    new = positions[:, -n_compute:]
    masks = {
        window: attention_mask(new, positions, valid, causal=True, window=window)
        for window in dict.fromkeys(map(config.layer_window, range(config.n_layers)))
    }
    if placement is not None:
        for mask in masks.values():
            mask[:, 0, -n_new:, -n_new:] &= placement.sees
    turn = Rotation(new, theta, config.d_head)
    memory_mask = None if memory is None else memory.mask[:, None, None, :]

    def compute(
        tokens: np.ndarray,
        turn: Rotation,
        memory_mask: np.ndarray | None,
        *masks_: np.ndarray,
    ) -> Value:
        by_window = dict(zip(masks, masks_, strict=True))
        return _layers(ops, tokens, turn, by_window, model, memory, memory_mask, cache)

    inputs: tuple[Any, ...] = (tokens[:, -n_compute:], turn, memory_mask, *masks.values())
    if n_compute == n_new:
        read = [] if memory is None else [x for kept in memory.layers for x in (kept.k, kept.v)]
        return ops.repeat(("decode", model), cache.layers, read, inputs, compute)
    x = compute(*inputs)
    if n_compute == n_new:
        return x
    last = np.broadcast_to(np.arange(n_compute - n_new, n_compute), (len(tokens), n_new))
    return ops.take_tokens(x, last, "decoder.new_tokens")


def _layers(
    ops: Ops,
    tokens: np.ndarray,
    turn: Rotation,
    masks: dict[int | None, np.ndarray],
    model: ModelConfig,
    memory: Memory | None,
    memory_mask: np.ndarray | None,
    cache: Cache,
) -> Value:
    """Run all layers; masks by window."""
    config = model.stacks["decoder"]
    x = embed(ops, tokens, model, "decoder")
    for layer, layer_cache in enumerate(cache.layers):
        layer_memory = None if memory is None else memory.layers[layer]
        x = decoder_block(
            ops, x, turn, masks[config.layer_window(layer)], config, model.dropout,
            f"decoder.{layer}", layer_cache, layer_memory, memory_mask,
        )  # fmt: skip
    return ops.norm(x, "decoder.final_norm", config.norm_kind, config.norm_eps)
