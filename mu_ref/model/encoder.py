"""The encoder: reads the whole input once, every token seeing every other."""

import numpy as np

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.model.attention import attention_mask, mlp, residual, self_attention
from mu_ref.model.rope import positions_of, rope_lengths, rope_theta
from mu_ref.ops import Ops, Value
from mu_ref.ops.rotation import Rotation

__all__ = ["embed", "encode", "encoder_block"]


def embed(ops: Ops, tokens: np.ndarray, model: ModelConfig, stack: str) -> Value:
    """Turn token ids into the first residual stream of a stack.

    Args:
        ops: the executor.
        tokens: [batch, n_tok] int.
        model: uses the embedding's site, embed_scale and embed_norm.
        stack: "encoder" or "decoder".

    Returns:
        [batch, n_tok, d_model].
    """
    config = model.stacks[stack]
    x = ops.embed(tokens, model.embedding_site(stack))
    if config.embed_scale != 1:
        x = ops.scale(x, config.embed_scale, f"{stack}.embed_scale")
    if config.embed_norm:
        x = ops.norm(x, f"{stack}.embed_norm", config.norm_kind, config.norm_eps)
    return ops.dropout(x, model.dropout, f"{stack}.embed_dropout")


def encoder_block(
    ops: Ops,
    x: Value,
    turn: Rotation,
    mask: np.ndarray,
    config: StackConfig,
    rate: float,
    site: str,
) -> Value:
    """Run one layer: self-attention, then the MLP, each around the residual stream.

    Args:
        ops: the executor.
        x: [batch, n_src, d_model].
        turn: rotation of every token.
        mask: [batch, 1, n_src, n_src] bool.
        config: of the encoder.
        rate: dropout rate, in training.
        site: for example "encoder.0".

    Returns:
        [batch, n_src, d_model].
    """
    kind, eps = config.norm_kind, config.norm_eps
    h = ops.norm(x, f"{site}.self_attention.pre_norm", kind, eps)
    h = self_attention(ops, h, turn, mask, config, f"{site}.self_attention")
    x = residual(ops, x, h, config, rate, f"{site}.self_attention")
    h = mlp(ops, ops.norm(x, f"{site}.mlp.pre_norm", kind, eps), config, f"{site}.mlp")
    return residual(ops, x, h, config, rate, f"{site}.mlp")


def encode(ops: Ops, tokens: np.ndarray, valid: np.ndarray, model: ModelConfig) -> Value:
    """Read the input.

    Args:
        ops: the executor.
        tokens: [batch, n_src] int.
        valid: [batch, n_src] bool, False at padding.
        model: its `encoder` must not be None.

    Returns:
        [batch, n_src, d_model]; rows at padding are never read.
    """
    config = model.stacks["encoder"]
    positions = positions_of(valid, config)  # [batch, n_src]
    theta = rope_theta(rope_lengths(valid, config), config)
    turn = Rotation(positions, theta, config.d_head)
    x = embed(ops, tokens, model, "encoder")
    for layer in range(config.n_layers):
        mask = attention_mask(
            positions, positions, valid, causal=False, window=config.layer_window(layer)
        )
        x = encoder_block(ops, x, turn, mask, config, model.dropout, f"encoder.{layer}")
    return ops.norm(x, "encoder.final_norm", config.norm_kind, config.norm_eps)
