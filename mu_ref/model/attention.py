"""Attention: every token asks, the tokens that it may see answer.

`attend` is the formula; `self_attention` and `cross_attention` say where its q, k and v come from.
Masks are True where a query may attend to a key. Chapter: `docs/08_mu.md`.
"""

from dataclasses import dataclass

import numpy as np

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.model.cache import LayerCache, LayerMemory
from mu_ref.ops import Ops, Value
from mu_ref.ops.rotation import Rotation

__all__ = [
    "Sight", "attend", "attention_mask", "cross_attention", "level_mask", "project_memory",
    "self_attention",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sight:
    """What the tokens of one pass see of each other, and of earlier ones, in one layer."""

    turn: Rotation  # where the n_tok tokens stand
    mask: np.ndarray  # [batch, 1, n_tok, n_key] bool, n_key counts cached and new tokens
    cache: LayerCache | None = None  # earlier tokens; receives the new keys and values
    level: np.ndarray | None = None  # as the mask, from `level_mask`


def attention_mask(
    query_positions: np.ndarray,
    key_positions: np.ndarray,
    key_valid: np.ndarray,
    *,
    causal: bool,
    window: int | None,
    inclusive: bool = True,
) -> np.ndarray:
    """Say which query may read which key, from positions alone.

    Args:
        query_positions: [batch, n_query] int.
        key_positions: [batch, n_key] int.
        key_valid: [batch, n_key] bool, False at padding.
        causal: a query sees itself and what precedes it.
        window: None, or how far a query sees. Causal: the last `window` tokens, itself included.
            Not causal: `window` tokens to each side, or one less.
        inclusive: False: one less, as transformers 4 has it.

    Returns:
        [batch, 1, n_query, n_key] bool; the 1 stands for the heads.

    Source:
        Hugging Face transformers 5.24 `masking_utils.py`: `sliding_window_overlay` (k > q - window)
        and `sliding_window_bidirectional_overlay` (|q - k| <= window); of version 4.57
        `models/t5gemma`: `sliding_window_bidirectional_mask_function` (|q - k| < window).
    """
    distance = query_positions[:, :, None] - key_positions[:, None, :]  # [batch, n_query, n_key]
    allowed = np.broadcast_to(key_valid[:, None, :], distance.shape)
    if causal:
        allowed = allowed & (distance >= 0)
    if window is not None:
        reach = window if inclusive and not causal else window - 1
        allowed = allowed & ((distance if causal else np.abs(distance)) <= reach)
    return allowed[:, None]  # [batch, 1, n_query, n_key]


def level_mask(model: ModelConfig, mask: np.ndarray) -> np.ndarray | None:
    """Find the queries that may read no key, where the model lets them read all keys alike.

    The projects whose checkpoints we read hide a key by a huge negative score; where all scores
    are alike, so are the weights. What such a token computes is seen in its own logits, and where
    the decoder reads the encoder's pads.

    Args:
        model: uses unseeing.
        mask: [batch, 1, n_query, n_key] bool, from `attention_mask`.

    Returns:
        True in their rows, in the shape of `mask`; None if there are none.
    """
    if model.unseeing == "zero":
        return None
    blind = ~mask.any(axis=-1, keepdims=True)
    return np.broadcast_to(blind, mask.shape).copy() if blind.any() else None


def attend(
    ops: Ops,
    stack: StackConfig,
    q: Value,
    k: Value,
    v: Value,
    mask: np.ndarray,
    level: np.ndarray | None,
    site: str,
) -> Value:
    r"""Let every query read a weighted sum of the values.

    $$o_i = \sum_j \mathrm{softmax}_j(s \, q_i \cdot k_j) \, v_j$$                       (1.1)

    with the score capped by $c \tanh(\cdot / c)$ before the softmax where the stack says so.

    Args:
        ops: the executor.
        stack: uses attention_scale (s), attention_softcap (c), kv_head_of.
        q: [batch, n_heads, n_query, d_head].
        k: [batch, n_kv_heads, n_key, d_head].
        v: [batch, n_kv_heads, n_key, d_head].
        mask: [batch, 1, n_query, n_key] bool.
        level: from `level_mask`.
        site: for example "decoder.3.self_attention".

    Returns:
        [batch, n_query, n_heads * d_head].

    Source:
        Vaswani et al. 2017, arXiv:1706.03762, Eq. 1; grouped heads: arXiv:2305.13245.
    """
    # Several query heads read one key head: [batch, n_kv_heads, ...] -> [batch, n_heads, ...].
    k = ops.share_heads(k, stack.kv_head_of, f"{site}.k_heads")
    v = ops.share_heads(v, stack.kv_head_of, f"{site}.v_heads")
    # [batch, n_heads, n_query, n_key]
    scores = ops.matmul(q, k, f"{site}.scores", transpose_b=True)
    scores = ops.scale(scores, stack.attention_scale, f"{site}.scale")
    if stack.attention_softcap is not None:
        scores = ops.softcap(scores, stack.attention_softcap, f"{site}.softcap")
    # The mask comes after the cap: a key that is not seen weighs exactly nothing.
    weights = ops.softmax(scores, mask, f"{site}.softmax")
    if level is not None:  # in these rows the weights are 0 so far
        weights = ops.add(weights, _alike(ops, scores, level, site), f"{site}.level_weights")
    mixed = ops.matmul(weights, v, f"{site}.mix")  # [batch, n_heads, n_query, d_head]
    return ops.merge_heads(mixed, f"{site}.merge")  # [batch, n_query, n_heads * d_head]


def _alike(ops: Ops, scores: Value, level: np.ndarray, site: str) -> Value:
    """Weigh all keys alike in the rows of `level`, and none in others."""
    return ops.softmax(ops.scale(scores, 0.0, f"{site}.level_scores"), level, f"{site}.level")


def self_attention(ops: Ops, stack: StackConfig, x: Value, sight: Sight, site: str) -> Value:
    """Let tokens read each other; with a cache, also the tokens of earlier steps.

    Args:
        ops: the executor.
        stack: uses n_heads, n_kv_heads and what `attend` uses.
        x: [batch, n_tok, d_model].
        sight: where the tokens stand and which they see; its cache receives the new keys (already
            rotated) and values.
        site: for example "decoder.3.self_attention".

    Returns:
        [batch, n_tok, d_model].
    """
    # [batch, n_tok, d_model] -> [batch, n_heads, n_tok, d_head], k and v with n_kv_heads
    q = ops.split_heads(ops.linear(x, f"{site}.q"), stack.n_heads, f"{site}.q_split")
    k = ops.split_heads(ops.linear(x, f"{site}.k"), stack.n_kv_heads, f"{site}.k_split")
    v = ops.split_heads(ops.linear(x, f"{site}.v"), stack.n_kv_heads, f"{site}.v_split")
    # Turned by their positions, q and k meet at an angle that tells how far apart they stand.
    q = ops.rope(q, sight.turn, f"{site}.q_rope")
    k = ops.rope(k, sight.turn, f"{site}.k_rope")
    cache = sight.cache
    if cache is not None:  # n_tok new keys and values join those of earlier tokens: n_key
        k = cache.k = ops.append(cache.k, k, f"{site}.k_cache")
        v = cache.v = ops.append(cache.v, v, f"{site}.v_cache")
    mixed = attend(ops, stack, q, k, v, sight.mask, sight.level, site)
    return ops.linear(mixed, f"{site}.o")


def project_memory(
    ops: Ops, stack: StackConfig, hidden: Value, mask: np.ndarray, site: str
) -> LayerMemory:
    """Compute the keys and values that one decoder layer reads of the encoder output.

    Args:
        ops: the executor.
        stack: of the decoder; uses n_kv_heads.
        hidden: [batch, n_src, d_model of the encoder].
        mask: [batch, 1, 1, n_src] bool, False at padding.
        site: for example "decoder.3.cross_attention".

    Returns:
        The layer's memory; its keys are not rotated: the encoder has placed its tokens.
    """
    # [batch, n_src, d_model of the encoder] -> [batch, n_kv_heads, n_src, d_head]
    k = ops.split_heads(ops.linear(hidden, f"{site}.k"), stack.n_kv_heads, f"{site}.k_split")
    v = ops.split_heads(ops.linear(hidden, f"{site}.v"), stack.n_kv_heads, f"{site}.v_split")
    return LayerMemory(k, v, mask)


def cross_attention(
    ops: Ops, stack: StackConfig, x: Value, memory: LayerMemory, site: str
) -> Value:
    """Let decoder tokens read the encoder output.

    Args:
        ops: the executor.
        stack: of the decoder; uses n_heads and what `attend` uses.
        x: [batch, n_tok, d_model].
        memory: from `project_memory`.
        site: for example "decoder.3.cross_attention".

    Returns:
        [batch, n_tok, d_model].
    """
    # [batch, n_heads, n_tok, d_head]; not rotated, as the keys are not
    q = ops.split_heads(ops.linear(x, f"{site}.q"), stack.n_heads, f"{site}.q_split")
    mixed = attend(ops, stack, q, memory.k, memory.v, memory.mask, None, site)
    return ops.linear(mixed, f"{site}.o")
