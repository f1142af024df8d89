"""The encoder: reads the whole input once, every token seeing every other."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.model.attention import Sight, attention_mask, level_mask, self_attention
from mu_ref.model.block import mlp, residual
from mu_ref.model.rope import positions_of, rope_lengths, rope_theta
from mu_ref.ops import Ops, Value
from mu_ref.ops.rotation import Rotation

__all__ = ["Survey", "embed", "encode", "encoder_block", "run_encoder", "survey"]


def embed(ops: Ops, model: ModelConfig, tokens: np.ndarray, site: str) -> Value:
    """Turn token ids into the first residual stream of a stack.

    Args:
        ops: the executor.
        model: uses the embedding's site, and embed_scale and embed_norm of the stack.
        tokens: [batch, n_tok] int.
        site: "encoder" or "decoder", the name of the stack.

    Returns:
        [batch, n_tok, d_model].
    """
    stack = model.stacks[site]
    x = ops.embed(tokens, model.embedding_site(site))  # [batch, n_tok] -> [batch, n_tok, d_model]
    if stack.embed_scale != 1:
        x = ops.scale(x, stack.embed_scale, f"{site}.embed_scale")
    if stack.embed_norm:
        x = ops.norm(x, f"{site}.embed_norm", stack.norm_kind, stack.norm_eps)
    return ops.dropout(x, f"{site}.embed_dropout")


def encoder_block(ops: Ops, stack: StackConfig, x: Value, sight: Sight, site: str) -> Value:
    """Run one layer: self-attention, then the MLP, each around the residual stream.

    Args:
        ops: the executor.
        stack: of the encoder.
        x: [batch, n_src, d_model].
        sight: where the tokens stand and which they see.
        site: for example "encoder.0".

    Returns:
        [batch, n_src, d_model].
    """
    own, inner = f"{site}.self_attention", f"{site}.mlp"
    x = residual(ops, stack, x, lambda h: self_attention(ops, stack, h, sight, own), own)
    return residual(ops, stack, x, lambda h: mlp(ops, stack, h, inner), inner)


def encode(ops: Ops, model: ModelConfig, tokens: np.ndarray, valid: np.ndarray) -> Value:
    """Read the input.

    Args:
        ops: the executor.
        model: its `encoder` must not be None.
        tokens: [batch, n_src] int.
        valid: [batch, n_src] bool, False at padding.

    Returns:
        [batch, n_src, d_model]; rows at padding are never read, unless the memory is told to.
    """
    seen = survey(model, valid)
    return run_encoder(ops, model, tokens, seen.turn, seen.masks, seen.levels)


@dataclass(frozen=True, slots=True)
class Survey:
    """Where the tokens of an input stand, and what each may read."""

    turn: Rotation
    masks: Mapping[int | None, np.ndarray]  # by window, [batch, 1, n_src, n_src] bool
    # of the masks where some token sees nothing, from `level_mask`
    levels: Mapping[int | None, np.ndarray] = field(default_factory=dict)


def survey(model: ModelConfig, valid: np.ndarray) -> Survey:
    """Find where the tokens of an input stand, and what each may read.

    Args:
        model: its `encoder` must not be None.
        valid: [batch, n_src] bool, False at padding.

    Returns:
        What `run_encoder` reads beside the tokens.
    """
    stack = model.stacks["encoder"]
    positions = positions_of(stack, valid)  # [batch, n_src]
    theta = rope_theta(stack, rope_lengths(stack, valid))  # [batch]
    masks = {
        window: attention_mask(
            positions, positions, valid,
            causal=False, window=window, inclusive=stack.window_inclusive,
        )
        for window in stack.windows
    }  # fmt: skip
    turn = Rotation(positions, theta, stack.d_head, stack.rope_factor)
    levels = {window: level_mask(model, mask) for window, mask in masks.items()}
    blind = {window: level for window, level in levels.items() if level is not None}
    return Survey(turn, masks, blind)


def run_encoder(
    ops: Ops,
    model: ModelConfig,
    tokens: np.ndarray,
    turn: Rotation,
    masks: Mapping[int | None, np.ndarray],
    levels: Mapping[int | None, np.ndarray] | None = None,
) -> Value:
    """Compute the encoder of tokens whose places are known: embed, all layers, final norm.

    Args:
        ops: the executor.
        model: its `encoder` must not be None.
        tokens: [batch, n_src] int.
        turn: where they stand.
        masks: by window, [batch, 1, n_src, n_src] bool; layers with the same window share one.
        levels: of those masks where a token sees nothing, from `level_mask`.

    Returns:
        [batch, n_src, d_model].
    """
    stack = model.stacks["encoder"]
    x = embed(ops, model, tokens, "encoder")  # [batch, n_src, d_model]
    for layer in range(stack.n_layers):
        window = stack.layer_window(layer)
        sight = Sight(turn, masks[window], level=(levels or {}).get(window))
        x = encoder_block(ops, stack, x, sight, f"encoder.{layer}")
    return ops.norm(x, "encoder.final_norm", stack.norm_kind, stack.norm_eps)
