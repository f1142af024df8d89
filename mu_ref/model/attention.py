"""Attention and the other sub-layers: what one block of Mu is made of.

`attend` is the formula; `self_attention` and `cross_attention` say where its q, k and v come from.
Masks are True where a query may attend to a key. Chapter: `docs/01_mu.md`.
"""

import numpy as np

from mu_ref.config import StackConfig
from mu_ref.model.cache import LayerCache
from mu_ref.ops import Ops, Value
from mu_ref.ops.rotation import Rotation

__all__ = ["attend", "attention_mask", "cross_attention", "mlp", "residual", "self_attention"]


def attention_mask(
    query_positions: np.ndarray,
    key_positions: np.ndarray,
    key_valid: np.ndarray,
    *,
    causal: bool,
    window: int | None,
) -> np.ndarray:
    """Say which query may read which key, from positions alone.

    Args:
        query_positions: [batch, n_query] int.
        key_positions: [batch, n_key] int.
        key_valid: [batch, n_key] bool, False at padding.
        causal: a query sees itself and what precedes it.
        window: None, or how far a query sees. Causal: the last `window` tokens, itself included.
            Not causal: `window` tokens to each side.

    Returns:
        [batch, 1, n_query, n_key] bool; the 1 stands for the heads.

    Source:
        Hugging Face transformers 5.23 `masking_utils.py`: `sliding_window_overlay` (k > q - window)
        and `sliding_window_bidirectional_overlay` (|q - k| <= window).
    """
    distance = query_positions[:, :, None] - key_positions[:, None, :]  # [batch, n_query, n_key]
    allowed = np.broadcast_to(key_valid[:, None, :], distance.shape)
    if causal:
        allowed = allowed & (distance >= 0)
    if window is not None:
        allowed = allowed & ((distance < window) if causal else (np.abs(distance) <= window))
    return allowed[:, None]


def attend(
    ops: Ops, q: Value, k: Value, v: Value, mask: np.ndarray, config: StackConfig, site: str
) -> Value:
    r"""Let every query read a weighted sum of the values.

    $$o_i = \sum_j \mathrm{softmax}_j(s \, q_i \cdot k_j) \, v_j$$                       (1.1)

    with the score capped by $c \tanh(\cdot / c)$ before the softmax where the config says so.

    Args:
        ops: the executor.
        q: [batch, n_heads, n_query, d_head].
        k: [batch, n_kv_heads, n_key, d_head].
        v: [batch, n_kv_heads, n_key, d_head].
        mask: [batch, 1, n_query, n_key] bool.
        config: uses attention_scale (s), attention_softcap (c), kv_head_of.
        site: for example "decoder.3.self_attention".

    Returns:
        [batch, n_query, n_heads * d_head].

    Source:
        Vaswani et al. 2017, arXiv:1706.03762, Eq. 1; grouped heads: arXiv:2305.13245.
    """
    k = ops.share_heads(k, config.kv_head_of, f"{site}.k_heads")  # [batch, n_heads, n_key, d_head]
    v = ops.share_heads(v, config.kv_head_of, f"{site}.v_heads")
    # [batch, n_heads, n_query, n_key]
    scores = ops.matmul(q, k, f"{site}.scores", transpose_b=True)
    scores = ops.scale(scores, config.attention_scale, f"{site}.scale")
    if config.attention_softcap is not None:
        scores = ops.softcap(scores, config.attention_softcap, f"{site}.softcap")
    weights = ops.softmax(scores, mask, f"{site}.softmax")
    mixed = ops.matmul(weights, v, f"{site}.mix")  # [batch, n_heads, n_query, d_head]
    return ops.merge_heads(mixed, f"{site}.merge")


def self_attention(
    ops: Ops,
    x: Value,
    turn: Rotation,
    mask: np.ndarray,
    config: StackConfig,
    site: str,
    cache: LayerCache | None = None,
) -> Value:
    """Let tokens read each other; with a cache, also the tokens of earlier steps.

    Args:
        ops: the executor.
        x: [batch, n_tok, d_model].
        turn: rotation of the n_tok new tokens.
        mask: [batch, 1, n_tok, n_key] bool, n_key counts cached and new tokens.
        config: of the stack.
        site: for example "decoder.3.self_attention".
        cache: receives the new keys (already rotated) and values.

    Returns:
        [batch, n_tok, d_model].
    """
    q = ops.split_heads(ops.linear(x, f"{site}.q"), config.n_heads, f"{site}.q_split")
    k = ops.split_heads(ops.linear(x, f"{site}.k"), config.n_kv_heads, f"{site}.k_split")
    v = ops.split_heads(ops.linear(x, f"{site}.v"), config.n_kv_heads, f"{site}.v_split")
    q = ops.rope(q, turn, f"{site}.q_rope")
    k = ops.rope(k, turn, f"{site}.k_rope")
    if cache is not None:
        k = cache.k = ops.append(cache.k, k, f"{site}.k_cache")
        v = cache.v = ops.append(cache.v, v, f"{site}.v_cache")
    return ops.linear(attend(ops, q, k, v, mask, config, site), f"{site}.o")


def project_memory(ops: Ops, hidden: Value, config: StackConfig, site: str) -> LayerCache:
    """Compute the keys and values that one decoder layer reads of the encoder output.

    Args:
        ops: the executor.
        hidden: [batch, n_src, d_model of the encoder].
        config: of the decoder.
        site: for example "decoder.3.cross_attention".

    Returns:
        k and v, [batch, n_kv_heads, n_src, d_head]; no RoPE: the encoder has placed its tokens.
    """
    k = ops.split_heads(ops.linear(hidden, f"{site}.k"), config.n_kv_heads, f"{site}.k_split")
    v = ops.split_heads(ops.linear(hidden, f"{site}.v"), config.n_kv_heads, f"{site}.v_split")
    return LayerCache(k, v)


def cross_attention(
    ops: Ops, x: Value, memory: LayerCache, mask: np.ndarray, config: StackConfig, site: str
) -> Value:
    """Let decoder tokens read the encoder output.

    Args:
        ops: the executor.
        x: [batch, n_tok, d_model].
        memory: from `project_memory`.
        mask: [batch, 1, 1, n_src] bool, False at padding.
        config: of the decoder.
        site: for example "decoder.3.cross_attention".

    Returns:
        [batch, n_tok, d_model].
    """
    q = ops.split_heads(ops.linear(x, f"{site}.q"), config.n_heads, f"{site}.q_split")
    return ops.linear(attend(ops, q, memory.k, memory.v, mask, config, site), f"{site}.o")


def mlp(ops: Ops, x: Value, config: StackConfig, site: str) -> Value:
    """Apply down(act(up(x))), or down(act(gate(x)) * up(x)) where gated.

    Args:
        ops: the executor.
        x: [batch, n_tok, d_model].
        config: uses gated and activation.
        site: for example "encoder.0.mlp".

    Returns:
        [batch, n_tok, d_model].
    """
    up = ops.linear(x, f"{site}.up")  # [batch, n_tok, d_ff]
    if config.gated:
        gate = ops.activation(
            ops.linear(x, f"{site}.gate"), config.activation, f"{site}.activation"
        )
        return ops.linear(ops.mul(gate, up, f"{site}.gated"), f"{site}.down")
    return ops.linear(ops.activation(up, config.activation, f"{site}.activation"), f"{site}.down")


def residual(
    ops: Ops, x: Value, update: Value, config: StackConfig, rate: float, site: str
) -> Value:
    """Add a sub-layer's output to the stream, normalised first where placement is dual.

    $x \\leftarrow x + \\mathrm{Post}(F(\\mathrm{Pre}(x)))$                               (1.2)

    Args:
        ops: the executor.
        x: [batch, n_tok, d_model], the residual stream.
        update: [batch, n_tok, d_model], F(Pre(x)).
        config: uses norm_placement, norm_kind, norm_eps.
        rate: dropout rate, in training.
        site: for example "encoder.0.mlp".

    Returns:
        [batch, n_tok, d_model].
    """
    if config.norm_placement == "dual":
        update = ops.norm(update, f"{site}.post_norm", config.norm_kind, config.norm_eps)
    return ops.add(x, ops.dropout(update, rate, f"{site}.dropout"), f"{site}.residual")
