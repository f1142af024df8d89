"""The decoder: writes one token at a time, reading what it wrote and, in Mu, the encoder output.

`decode` is two steps. `place` finds where the new tokens stand, what each may read (masks) and how
far each is turned (RoPE); it is plain NumPy. `run_layers` computes: embed, all layers, final norm;
it calls `ops` and nothing else.
"""

from dataclasses import dataclass, field

import numpy as np

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.model.attention import (
    Sight,
    attention_mask,
    cross_attention,
    level_mask,
    self_attention,
)
from mu_ref.model.block import mlp, residual
from mu_ref.model.cache import Cache, LayerCache, LayerMemory, Memory, Placement
from mu_ref.model.encoder import embed
from mu_ref.model.rope import positions_of, rope_lengths, rope_theta
from mu_ref.ops import Ops, Value
from mu_ref.ops.rotation import Rotation

__all__ = ["Placed", "decode", "decoder_block", "place", "run_layers"]

Masks = dict[int | None, np.ndarray]
"""By window, [batch, 1, n_tok, n_slots] bool."""


def decoder_block(
    ops: Ops, stack: StackConfig, x: Value, sight: Sight, memory: LayerMemory | None, site: str
) -> Value:
    """Run one layer: self-attention, cross-attention (if there is a memory), MLP.

    Args:
        ops: the executor.
        stack: of the decoder.
        x: [batch, n_tok, d_model].
        sight: where the tokens stand, which they see, and this layer's cache.
        memory: what this layer reads of the encoder output, or None.
        site: for example "decoder.0".

    Returns:
        [batch, n_tok, d_model].
    """
    own, cross, inner = f"{site}.self_attention", f"{site}.cross_attention", f"{site}.mlp"
    # Each line adds to the stream x what a sub-layer makes of h, the normed stream (1.2).
    x = residual(ops, stack, x, lambda h: self_attention(ops, stack, h, sight, own), own)
    if memory is not None:
        x = residual(ops, stack, x, lambda h: cross_attention(ops, stack, h, memory, cross), cross)
    return residual(ops, stack, x, lambda h: mlp(ops, stack, h, inner), inner)


def decode(
    ops: Ops,
    model: ModelConfig,
    tokens: np.ndarray,
    valid: np.ndarray,
    memory: Memory | None,
    cache: Cache | None = None,
    placement: Placement | None = None,
) -> Value:
    """Compute the hidden state of each new token.

    Args:
        ops: the executor.
        model: its `decoder` must not be None.
        tokens: [batch, n_new] int, the tokens not yet in the cache.
        valid: [batch, n_new] bool, False at padding.
        memory: from `mu.remember`, or None for a decoder-only model.
        cache: earlier tokens; updated. None computes without one.
        placement: for tokens that do not simply follow the cached ones.

    Returns:
        [batch, n_new, d_model], after the final norm.
    """
    if cache is None:
        cache = Cache.empty(len(tokens), model.stacks["decoder"].n_layers)
    placed = place(model, tokens, valid, cache, placement)
    return run_layers(ops, model, placed, memory, cache)


@dataclass(frozen=True, slots=True)
class Placed:
    """Tokens to compute, and what the layers must know of where they stand."""

    tokens: np.ndarray  # [batch, n_tok] int
    turn: Rotation  # of the n_tok tokens
    masks: Masks
    n_new: int  # the last n_new of the n_tok are asked for
    levels: Masks = field(default_factory=dict)  # of windows where a token sees nothing


def place(
    model: ModelConfig,
    tokens: np.ndarray,
    valid: np.ndarray,
    cache: Cache,
    placement: Placement | None = None,
    *,
    masked: bool = True,
) -> Placed:
    r"""Give new tokens their slots in the cache, their positions, and what they may read.

    With NTK scaling the base $\theta'$ of all angles may change with the length (2.2). Keys that
    were turned under another one are wrong then, and so is every hidden state above the first
    layer: the cache's keys and values are dropped, and all tokens placed anew. So they are where a
    new token sees nothing and reads all alike.

    Args:
        model: its `decoder` must not be None.
        tokens: [batch, n_new] int.
        valid: [batch, n_new] bool, False at padding.
        cache: earlier tokens; its slots grow by n_new.
        placement: for tokens that do not simply follow the cached ones.
        masked: False leaves the masks empty, for an executor that counts and looks at none.

    Returns:
        What `run_layers` computes: the new tokens, or all of them.
    """
    stack = model.stacks["decoder"]
    n_cached, n_new = cache.tokens.shape[1], tokens.shape[1]
    tokens = np.concatenate([cache.tokens, tokens], axis=1)  # [batch, n_slots]
    valid = np.concatenate([cache.valid, valid], axis=1)  # [batch, n_slots]
    if placement is None:
        positions, lengths = positions_of(stack, valid), rope_lengths(stack, valid)
    else:
        positions = np.concatenate([cache.positions, placement.positions], axis=1)
        lengths = placement.lengths
    theta = rope_theta(stack, lengths)  # [batch]
    if cache.theta is None or np.any(theta != cache.theta):  # no cached key fits: compute all again
        n_cached = 0
    masks: Masks = dict.fromkeys(stack.windows, np.zeros((0, 1, 0, 0), bool))
    levels: Masks = {}
    if masked:
        masks, levels = _masks(model, positions, n_cached, valid, placement)
    if levels and n_cached:  # it reads tokens that read all as well, and then there were fewer
        n_cached = 0
        masks, levels = _masks(model, positions, n_cached, valid, placement)
    if n_cached == 0:
        cache.layers = [LayerCache() for _ in range(stack.n_layers)]
    cache.tokens, cache.valid, cache.positions, cache.theta = tokens, valid, positions, theta
    turn = Rotation(positions[:, n_cached:], theta, stack.d_head, stack.rope_factor)
    return Placed(tokens[:, n_cached:], turn, masks, n_new, levels)


def _masks(
    model: ModelConfig,
    positions: np.ndarray,
    n_cached: int,
    valid: np.ndarray,
    placement: Placement | None,
) -> tuple[Masks, Masks]:
    """Say what the tokens behind the first n_cached may read, and which of them read all alike."""
    masks = {  # layers with the same window share a mask
        window: attention_mask(
            positions[:, n_cached:], positions, valid, causal=True, window=window
        )
        for window in model.stacks["decoder"].windows
    }
    if placement is not None:
        n_new, n_told = placement.sees.shape[1:]
        for mask in masks.values():  # drafts of one position do not see each other
            mask[:, 0, -n_new:, -n_told:] &= placement.sees
    found = {window: level_mask(model, mask) for window, mask in masks.items()}
    return masks, {window: level for window, level in found.items() if level is not None}


def run_layers(
    ops: Ops, model: ModelConfig, placed: Placed, memory: Memory | None, cache: Cache
) -> Value:
    """Compute what was placed: embed, all layers, final norm.

    Args:
        ops: the executor.
        model: its `decoder` must not be None.
        placed: from `place`.
        memory: from `mu.remember`, or None for a decoder-only model.
        cache: its keys and values grow by those of the placed tokens.

    Returns:
        [batch, n_new, d_model], of the tokens that are asked for.
    """
    stack = model.stacks["decoder"]
    x = embed(ops, model, placed.tokens, "decoder")  # [batch, n_tok, d_model]
    for layer, layer_cache in enumerate(cache.layers):
        window = stack.layer_window(layer)
        sight = Sight(placed.turn, placed.masks[window], layer_cache, placed.levels.get(window))
        layer_memory = None if memory is None else memory.layers[layer]
        x = decoder_block(ops, stack, x, sight, layer_memory, f"decoder.{layer}")
    x = ops.norm(x, "decoder.final_norm", stack.norm_kind, stack.norm_eps)
    batch, n_tok = placed.tokens.shape
    if n_tok == placed.n_new:
        return x
    asked = np.arange(n_tok - placed.n_new, n_tok)  # [n_new]
    return ops.take_tokens(x, np.broadcast_to(asked, (batch, placed.n_new)), "decoder.new_tokens")
