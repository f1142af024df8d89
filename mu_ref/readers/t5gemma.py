"""Read checkpoints of Hugging Face T5Gemma, transformers 5.23 `models/t5gemma`."""

import re
from collections.abc import Mapping
from typing import Any

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import ConfigError, check_choice

__all__ = ["config_of", "name_of"]

Fields = Mapping[str, Any]

_DEFAULTS: Fields = {  # T5GemmaModuleConfig, transformers 5.23
    "vocab_size": 256000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "rope_parameters": None,
    "attention_bias": False,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "layer_types": None,
    "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0,
}
_ACTIVATIONS = {
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu": "gelu", "silu": "silu",
    "swish": "silu", "relu": "relu",
}  # fmt: skip


def _stack(f: Fields) -> StackConfig:
    n_layers = f["num_hidden_layers"]
    # By default the first layer sees a window, the second everything, and so on in turn.
    kinds = f["layer_types"] or [
        "full_attention" if i % 2 else "sliding_attention" for i in range(n_layers)
    ]
    for kind in kinds:
        check_choice("layer_types", kind, ("sliding_attention", "full_attention"), ConfigError)
    activation = check_choice(
        "hidden_activation", f["hidden_activation"], _ACTIVATIONS, ConfigError
    )
    rope: Fields = f["rope_parameters"] or f.get("rope_scaling") or {}
    check_choice("rope_type", rope.get("rope_type", "default"), ("default",), ConfigError)
    return StackConfig(
        n_layers=n_layers,
        d_model=f["hidden_size"],
        d_ff=f["intermediate_size"],
        n_heads=f["num_attention_heads"],
        n_kv_heads=f["num_key_value_heads"],
        d_head=f["head_dim"] or f["hidden_size"] // f["num_attention_heads"],
        kv_head_map="blocked",
        attention_scale=f["query_pre_attn_scalar"] ** -0.5,
        attention_softcap=f["attn_logit_softcapping"],
        attention_bias=f["attention_bias"],
        mlp_bias=False,
        window=f["sliding_window"],
        windowed_layers=tuple(
            kind == "sliding_attention" and f["sliding_window"] is not None for kind in kinds
        ),
        norm_kind="rms_plus_one",  # its gains are stored without the 1
        norm_placement="dual",
        norm_eps=f["rms_norm_eps"],
        embed_norm=False,
        embed_scale=f["hidden_size"] ** 0.5,
        activation=_ACTIVATIONS[activation],  # type: ignore[arg-type]
        gated=True,
        rope_theta=rope.get("rope_theta", f.get("rope_theta", 10000.0)),
        rope_origin="start",
        rope_ntk_factor=1.0,
        rope_base_len=f["max_position_embeddings"],
        rope_length="padded",  # its positions are slots of the tensor
    )


def config_of(fields: Fields) -> ModelConfig:
    """Translate a `config.json`.

    Args:
        fields: of T5GemmaConfig; those of its stacks that are missing take the defaults.

    Returns:
        The configuration.

    Raises:
        ConfigError: a stack is missing, or a value is not supported.
    """
    for name in ("encoder", "decoder"):
        if not isinstance(fields.get(name), dict):
            raise ConfigError(f"a T5Gemma config.json must hold an object {name!r}; it does not")
    decoder: Fields = {**_DEFAULTS, **fields["decoder"]}
    encoder: Fields = {**_DEFAULTS, **fields["encoder"]}
    eos = decoder["eos_token_id"]
    return ModelConfig(
        name=fields.get("_name_or_path") or "t5gemma",
        encoder=_stack(encoder),
        decoder=_stack(decoder),
        vocab_size=decoder["vocab_size"],
        encoder_vocab_size=encoder["vocab_size"],
        shared_embedding=False,
        tied_head=fields.get("tie_word_embeddings", True),
        head_bias=False,
        final_softcap=decoder["final_logit_softcapping"],
        max_len=decoder["max_position_embeddings"],
        pad_id=decoder["pad_token_id"],
        bos_id=decoder["bos_token_id"],
        eos_id=eos[0] if isinstance(eos, list) else eos,
        mask_decoder_pads=False,
        dropout=fields.get("dropout_rate", 0.0),
    )


# Norms say "feedforward" where linears say "mlp".
_SUBLAYERS = {
    "self_attn": "self_attention", "cross_attn": "cross_attention", "feedforward": "mlp",
    "mlp": "mlp",
}  # fmt: skip


def name_of(name: str) -> str | None:
    """Translate one tensor name.

    Args:
        name: theirs.

    Returns:
        Ours; the name itself if it is unknown.
    """
    name = name.removeprefix("model.")
    if name == "lm_head.out_proj.weight":
        return "head.weight"
    name = name.replace(".embed_tokens.", ".embedding.").replace(".norm.", ".final_norm.")
    layer = re.fullmatch(r"(encoder|decoder)\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if layer is None:
        return name
    stack, index, part, kind = layer.groups()
    norm = re.fullmatch(r"(pre|post)_(self_attn|cross_attn|feedforward)_layernorm", part)
    if norm is not None:
        return f"{stack}.{index}.{_SUBLAYERS[norm[2]]}.{norm[1]}_norm.{kind}"
    sublayer, _, linear = part.partition(".")
    at = _SUBLAYERS.get(sublayer, sublayer)
    return f"{stack}.{index}.{at}.{linear.removesuffix('_proj')}.{kind}"
