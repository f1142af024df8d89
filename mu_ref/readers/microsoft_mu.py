"""Read checkpoints of microsoft/encoder-decoder-slm: its text2text model, class `MuConfig`."""

import math
import re
from typing import Literal

from mu_ref.border.ranges import (
    LAYERS,
    MODEL_RANGES,
    SIZE,
    STACK_RANGES,
    TOKENS,
    token_range,
)  # fmt: skip
from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import ConfigError
from mu_ref.readers.fields import (
    Fields,
    check_flag,
    check_numbers,
    check_text,
    warn_of_unknown,
)  # fmt: skip
from mu_ref.readers.ids import FIELDS, check_ids, special_ids

__all__ = ["config_of", "name_of"]

_DEFAULTS: Fields = {  # MuConfig in modeling_mu.py
    "n_encoder_layer": 20,
    "n_decoder_layer": 10,
    "n_embd": 1024,
    "qkv_embd": 384,
    "is_interleaved": False,
    "hidden_dim": 4096,
    "n_head": 6,
    "n_kv_head": 3,
    "block_size": 1024,
    "dropout": 0.1,
    "rope_theta": 10000,
    "rope_factor": 1.0,
    "pad_token_id": 0,
    "bos_token_id": 1,  # the Phi-3.5 tokenizer's <s>, which the original's generate is called with
    "vocab_size": 32128,
    "norm_eps": 1e-6,  # a default argument of MuRMSNorm, not in MuConfig
}
_RANGES = {
    "n_encoder_layer": LAYERS, "n_decoder_layer": LAYERS, "n_embd": SIZE, "qkv_embd": SIZE,
    "hidden_dim": SIZE, "n_head": STACK_RANGES["n_heads"], "n_kv_head": STACK_RANGES["n_kv_heads"],
    "block_size": TOKENS, "dropout": MODEL_RANGES["dropout"],
    "rope_theta": STACK_RANGES["rope_theta"], "rope_factor": STACK_RANGES["rope_ntk_factor"],
    "vocab_size": SIZE, "norm_eps": STACK_RANGES["norm_eps"],
}  # fmt: skip
# What says nothing of the result: where a file comes from and which code wrote it.
_NOTES = ("name", "source", "architectures", "model_type", "transformers_version", "torch_dtype",
          "dtype", "is_encoder_decoder", "use_cache", "initializer_range")  # fmt: skip
_EOS = 32000  # of the Phi-3.5 tokenizer


def config_of(
    fields: Fields, generation: Fields | None = None, where: str = "config.json: "
) -> ModelConfig:
    """Translate a `config.json`.

    Args:
        fields: of MuConfig; those that are missing take its defaults.
        generation: fields of `generation_config.json`, if there is one: then the tokens that start
            and end a text are those that it names.
        where: stands before a field in messages.

    Returns:
        The configuration.

    Raises:
        ConfigError: a field is out of its range, or the fields contradict each other.
    """
    f = {**_DEFAULTS, **fields}
    warn_of_unknown(f, {*_DEFAULTS, *_NOTES, *FIELDS}, where)
    check_numbers(f, _RANGES, where, optional=("qkv_embd",))
    f.setdefault("eos_token_id", _EOS if f["vocab_size"] > _EOS else None)
    tokens = token_range(f["vocab_size"])
    check_numbers(f, {"pad_token_id": tokens}, where)
    if "eos_token_id" in fields and not isinstance(f["eos_token_id"], list):
        check_numbers(f, {"eos_token_id": tokens}, where)
    check_ids(f, f["vocab_size"], where)
    objects: list[Fields] = [f]
    if generation is not None:
        where = "generation_config.json: "
        check_ids(generation, f["vocab_size"], where)
        objects = [generation]
    ids = special_ids(objects, where)
    return ModelConfig(
        name=check_text(f, "name", where, "microsoft-mu"),
        encoder=_stack_of(f, f["n_encoder_layer"], "centre", where),
        decoder=_stack_of(f, f["n_decoder_layer"], "start", where),
        vocab_size=f["vocab_size"],
        encoder_vocab_size=f["vocab_size"],
        shared_embedding=True,
        tied_head=True,
        head_bias=False,
        final_softcap=None,
        max_len=f["block_size"],
        pad_id=f["pad_token_id"],
        bos_id=ids.start,
        eos_id=ids.eos[0] if ids.eos else None,
        more_eos_ids=ids.eos[1:],
        mask_decoder_pads=True,
        dropout=f["dropout"],
        unseeing="mean",  # a hidden key has the lowest score there is, and so have all
    )


def _stack_of(
    f: Fields, n_layers: int, origin: Literal["start", "centre"], where: str
) -> StackConfig:
    """Describe one stack; both are alike but for depth and the origin of their positions."""
    d_attn = f["n_embd"] if f["qkv_embd"] is None else f["qkv_embd"]
    if d_attn % f["n_head"]:
        raise ConfigError(
            f"{where}qkv_embd must be a multiple of n_head={f['n_head']}, got {d_attn}"
        )
    d_head = d_attn // f["n_head"]
    return StackConfig(
        n_layers=n_layers,
        d_model=f["n_embd"],
        d_ff=f["hidden_dim"],
        n_heads=f["n_head"],
        n_kv_heads=f["n_kv_head"],
        d_head=d_head,
        kv_head_map="blocked" if check_flag(f, "is_interleaved", where) else "cyclic",
        attention_scale=1 / math.sqrt(d_head),
        attention_softcap=None,
        attention_bias=True,
        mlp_bias=True,
        window=None,
        windowed_layers=(False,) * n_layers,
        norm_kind="rms",
        norm_placement="pre",
        norm_eps=f["norm_eps"],
        embed_norm=False,
        embed_scale=1.0,
        activation="gelu_tanh",
        gated=False,
        rope_theta=f["rope_theta"],
        rope_origin=origin,
        rope_ntk_factor=f["rope_factor"],
        rope_base_len=f["block_size"],
        rope_length="padded",  # the original asks for the tensor's length, padding included
    )


# Their names and ours; "e" is a block of the encoder, "h" one of the decoder.
_SUBLAYERS = {
    "attn": "self_attention", "causal_attn": "self_attention", "cross_attn": "cross_attention",
    "mlp": "mlp",
}  # fmt: skip
_LINEARS = {
    "q_linear": "q", "k_linear": "k", "v_linear": "v", "out_linear": "o", "fc1": "up",
    "fc2": "down",
}  # fmt: skip
_NORMS = {
    ("e", "ln1"): "self_attention", ("e", "ln2"): "mlp", ("h", "ln1"): "self_attention",
    ("h", "ln2"): "cross_attention", ("h", "ln3"): "mlp",
}  # fmt: skip


def name_of(name: str) -> str | None:
    """Translate one tensor name.

    Args:
        name: theirs.

    Returns:
        Ours; None for the tied copy of the embedding; the name itself if it is unknown.
    """
    name = name.removeprefix("module.").removeprefix("transformer.")
    fixed = {"wte.weight": "embedding.weight", "ln_e.weight": "encoder.final_norm.weight",
             "ln_f.weight": "decoder.final_norm.weight", "lm_head.weight": None}  # fmt: skip
    if name in fixed:
        return fixed[name]
    layer = re.fullmatch(r"([eh])\.(\d+)\.(\w+)(?:\.(\w+))?\.(weight|bias)", name)
    if layer is None:
        return name
    stack, index, part, linear, kind = layer.groups()
    at = f"{'encoder' if stack == 'e' else 'decoder'}.{index}"
    if linear is None and (stack, part) in _NORMS:
        return f"{at}.{_NORMS[stack, part]}.pre_norm.{kind}"
    if part in _SUBLAYERS and linear in _LINEARS:
        return f"{at}.{_SUBLAYERS[part]}.{_LINEARS[linear]}.{kind}"
    return name
