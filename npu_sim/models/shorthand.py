"""Short ways to write a `StackConfig` and a `ModelConfig` of which only the cost matters.

Fields that change results but no cost (epsilons, rotation speeds, ids) get a usual value here, so
these configurations describe a model and must not run one.
"""

from typing import Any

from mu_ref.border.ranges import LAYERS, SIZE
from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import ConfigError

__all__ = ["model_of", "stack_of"]

ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "silu": "silu", "swish": "silu",
    "quick_gelu": "silu", "relu": "relu",
}  # fmt: skip


def stack_of(
    n_layers: int, d_model: int, d_ff: int, n_heads: int, *, n_kv_heads: int | None = None,
    d_head: int | None = None, **changes: Any,
) -> StackConfig:  # fmt: skip
    """Describe a stack; by default pre-norm LayerNorm, biases, GELU, not gated.

    Args:
        n_layers: layers.
        d_model: width.
        d_ff: inner width of the MLP.
        n_heads: query heads.
        n_kv_heads: key/value heads; as many as query heads by default.
        d_head: width of a head; d_model / n_heads by default.
        **changes: other fields of `StackConfig`.

    Returns:
        The stack.

    Raises:
        ConfigError: two fields contradict each other, or one is out of its range.
    """
    LAYERS.check("n_layers", n_layers, ConfigError)  # before there is an entry for each
    SIZE.check("n_heads", n_heads, ConfigError)
    fields: dict[str, Any] = {
        "n_layers": n_layers, "d_model": d_model, "d_ff": d_ff, "n_heads": n_heads,
        "n_kv_heads": n_heads if n_kv_heads is None else n_kv_heads,
        "d_head": d_model // n_heads if d_head is None else d_head,
        "kv_head_map": "blocked", "attention_scale": 1.0, "attention_softcap": None,
        "attention_bias": True, "mlp_bias": True, "window": None,
        "windowed_layers": (False,) * n_layers, "norm_kind": "layer", "norm_placement": "pre",
        "norm_eps": 1e-6, "embed_norm": False, "embed_scale": 1.0, "activation": "gelu",
        "gated": False, "rope_theta": 1e4, "rope_origin": "start", "rope_ntk_factor": 1.0,
        "rope_base_len": 1, "rope_length": "padded",
    }  # fmt: skip
    return StackConfig(**(fields | changes))


def model_of(
    name: str, encoder: StackConfig | None, decoder: StackConfig | None, vocab_size: int,
    *, tied_head: bool, max_len: int = 512, **changes: Any,
) -> ModelConfig:  # fmt: skip
    """Describe a model of one or two stacks; two share one embedding.

    Args:
        name: of the model.
        encoder: its encoder, or None.
        decoder: its decoder, or None.
        vocab_size: rows of the embedding.
        tied_head: whether the head is the embedding.
        max_len: longest sequence, the rows of a table of positions.
        **changes: other fields of `ModelConfig`.

    Returns:
        The configuration.

    Raises:
        ConfigError: two fields contradict each other.
    """
    fields: dict[str, Any] = {
        "name": name, "encoder": encoder, "decoder": decoder, "vocab_size": max(vocab_size, 1),
        "encoder_vocab_size": max(vocab_size, 1), "shared_embedding": True,
        "tied_head": tied_head, "head_bias": False, "final_softcap": None, "max_len": max_len,
        "pad_id": 0, "bos_id": 0, "eos_id": 0, "mask_decoder_pads": False, "dropout": 0.0,
    }  # fmt: skip
    return ModelConfig(**(fields | changes))
