"""Read checkpoints of Hugging Face LLaMA, transformers 5.24 `models/llama`: ReDrafter's models.

A decoder alone, which `mu-ref generate --ids` runs, with a drafter of Apple's code if there is one.
"""

import re

from mu_ref.border.ranges import LAYERS, SIZE, STACK_RANGES, TOKENS
from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import ConfigError, check_choice
from mu_ref.readers.fields import (
    ACTIVATIONS,
    NOTES,
    Fields,
    check_flag,
    check_numbers,
    check_text,
    warn_of_unknown,
)
from mu_ref.readers.ids import FIELDS, check_ids, special_ids
from mu_ref.readers.rope import rope_of

__all__ = ["config_of", "name_of"]

_DEFAULTS: Fields = {  # LlamaConfig, transformers 5.24
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": None,
    "head_dim": None, "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "tie_word_embeddings": False,
    "attention_bias": False, "mlp_bias": False, "pretraining_tp": 1,
}  # fmt: skip
_RANGES = {
    "vocab_size": SIZE, "hidden_size": SIZE, "intermediate_size": SIZE,
    "num_hidden_layers": LAYERS, "num_attention_heads": STACK_RANGES["n_heads"],
    "num_key_value_heads": STACK_RANGES["n_kv_heads"], "head_dim": SIZE,
    "max_position_embeddings": TOKENS, "rms_norm_eps": STACK_RANGES["norm_eps"],
}  # fmt: skip
_OPTIONAL = ("num_key_value_heads", "head_dim")
# `pretraining_tp` cuts products into parts, whose sum is the same
_KNOWN = {*_DEFAULTS, *NOTES, *FIELDS, "rope_parameters", "rope_scaling", "rope_theta",
          "partial_rotary_factor"}  # fmt: skip
_FIXED = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.norm.weight": "decoder.final_norm.weight",
    "lm_head.weight": "head.weight",
}
_IN_LAYER = {
    "input_layernorm": "self_attention.pre_norm", "post_attention_layernorm": "mlp.pre_norm",
    "self_attn.q_proj": "self_attention.q", "self_attn.k_proj": "self_attention.k",
    "self_attn.v_proj": "self_attention.v", "self_attn.o_proj": "self_attention.o",
    "mlp.gate_proj": "mlp.gate", "mlp.up_proj": "mlp.up", "mlp.down_proj": "mlp.down",
}  # fmt: skip


def config_of(
    fields: Fields, generation: Fields | None = None, where: str = "config.json: "
) -> ModelConfig:
    """Translate a `config.json`; missing fields take the defaults of LlamaConfig.

    Args:
        fields: of the file.
        generation: fields of `generation_config.json`, if there is one: then special tokens are
            those that it names.
        where: stands before a field in messages.

    Returns:
        The configuration of a decoder alone.

    Raises:
        ConfigError: a value is not supported.
    """
    warn_of_unknown(fields, _KNOWN, where)
    f: Fields = {**_DEFAULTS, **fields}
    check_numbers(f, _RANGES, where, _OPTIONAL)
    activation = check_choice(f"{where}hidden_act", f["hidden_act"], list(ACTIVATIONS), ConfigError)
    theta, factor = rope_of(f, where)
    n_heads = f["num_attention_heads"]
    kv_heads, d_head = f["num_key_value_heads"], f["head_dim"]
    d_head = f["hidden_size"] // n_heads if d_head is None else d_head
    decoder = StackConfig(
        n_layers=f["num_hidden_layers"], d_model=f["hidden_size"], d_ff=f["intermediate_size"],
        n_heads=n_heads, n_kv_heads=n_heads if kv_heads is None else kv_heads, d_head=d_head,
        kv_head_map="blocked", attention_scale=d_head**-0.5, attention_softcap=None,
        attention_bias=check_flag(f, "attention_bias", where),
        mlp_bias=check_flag(f, "mlp_bias", where), window=None,
        windowed_layers=(False,) * f["num_hidden_layers"], norm_kind="rms", norm_placement="pre",
        norm_eps=f["rms_norm_eps"], embed_norm=False, embed_scale=1.0,
        activation=ACTIVATIONS[activation],  # type: ignore[arg-type]
        gated=True, rope_theta=theta, rope_origin="start", rope_ntk_factor=1.0,
        rope_base_len=f["max_position_embeddings"], rope_length="row", rope_factor=factor,
    )  # fmt: skip
    vocab_size = f["vocab_size"]
    check_ids(f, vocab_size, where)
    if generation is not None:
        check_ids(generation, vocab_size, "generation_config.json: ")
    ids = special_ids([f] if generation is None else [generation], where)
    return ModelConfig(
        name=check_text(f, "_name_or_path", where, "llama"), encoder=None, decoder=decoder,
        vocab_size=vocab_size, encoder_vocab_size=vocab_size, shared_embedding=True,
        tied_head=check_flag(f, "tie_word_embeddings", where), head_bias=False,
        final_softcap=None, max_len=f["max_position_embeddings"], pad_id=ids.pad,
        bos_id=ids.start, eos_id=ids.eos[0] if ids.eos else None, more_eos_ids=ids.eos[1:],
        mask_decoder_pads=False, dropout=0.0,
    )  # fmt: skip


def name_of(name: str) -> str:
    """Translate the name of a tensor; the name itself if it is unknown."""
    if name in _FIXED:
        return _FIXED[name]
    found = re.fullmatch(r"model\.layers\.([0-9]+)\.(.+)\.(weight|bias)", name)
    if found is None or found[2] not in _IN_LAYER:
        return name
    return f"decoder.{found[1]}.{_IN_LAYER[found[2]]}.{found[3]}"
