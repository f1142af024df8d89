"""Readers of other projects' checkpoints: a folder with `config.json` and `model.safetensors`.

Two families: microsoft/encoder-decoder-slm (its text2text model) and Hugging Face T5Gemma. The maps
from their names and fields to ours live here and nowhere else.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import ConfigError, WeightsError, check_choice
from mu_ref.weights import Weights, check_names, read_safetensors, weight_shapes

__all__ = ["read_checkpoint", "read_config"]

Fields = Mapping[str, Any]


def read_checkpoint(folder: Path) -> tuple[ModelConfig, Weights]:
    """Read a model of another project.

    Args:
        folder: holds `config.json` and `model.safetensors` with the project's own names.

    Returns:
        The configuration and weights under our names.

    Raises:
        ConfigError: the family is unknown, or a field asks for what we do not have.
        WeightsError: tensors are missing, unknown or of another shape.
    """
    fields = _read_json(folder / "config.json")
    config = config_from_fields(fields)
    tensors, _ = read_safetensors(folder / "model.safetensors")
    rename = _microsoft_name if "n_encoder_layer" in fields else _t5gemma_name
    return config, _renamed(tensors, config, rename, str(folder))


def read_config(path: Path) -> ModelConfig:
    """Read the configuration of another project from its `config.json`.

    Args:
        path: the JSON file.

    Returns:
        The configuration.

    Raises:
        ConfigError: not JSON, unknown family, or an unsupported value.
    """
    return config_from_fields(_read_json(path))


def config_from_fields(fields: Fields) -> ModelConfig:
    """Translate the fields of a `config.json`, whichever of the two families it is."""
    if "n_encoder_layer" in fields:
        return _microsoft_config(fields)
    if fields.get("model_type") == "t5gemma" or {"encoder", "decoder"} <= set(fields):
        return _t5gemma_config(fields)
    raise ConfigError(
        "config.json must be of microsoft/encoder-decoder-slm (it has n_encoder_layer) or of "
        f"T5Gemma (model_type t5gemma); got model_type {fields.get('model_type')!r}"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} must be a JSON file; there is no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} must be a JSON file, got something else ({error})") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} must hold a JSON object, got {type(fields).__name__}")
    return fields


# -- microsoft/encoder-decoder-slm ---------------------------------------------------------------

_MICROSOFT_DEFAULTS: Fields = {  # MuConfig in modeling_mu.py
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
    "vocab_size": 32128,
}


def _microsoft_config(fields: Fields) -> ModelConfig:
    f = {**_MICROSOFT_DEFAULTS, **fields}
    d_attn = f["n_embd"] if f["qkv_embd"] is None else f["qkv_embd"]
    if d_attn % f["n_head"]:
        raise ConfigError(f"qkv_embd must be a multiple of n_head={f['n_head']}, got {d_attn}")
    d_head = d_attn // f["n_head"]

    def stack(n_layers: int, origin: str) -> StackConfig:
        return StackConfig(
            n_layers=n_layers,
            d_model=f["n_embd"],
            d_ff=f["hidden_dim"],
            n_heads=f["n_head"],
            n_kv_heads=f["n_kv_head"],
            d_head=d_head,
            kv_head_map="blocked" if f["is_interleaved"] else "cyclic",
            attention_scale=1 / math.sqrt(d_head),
            attention_softcap=None,
            attention_bias=True,
            mlp_bias=True,
            window=None,
            windowed_layers=(False,) * n_layers,
            norm_kind="rms",
            norm_placement="pre",
            norm_eps=f.get("norm_eps", 1e-6),  # a default argument of MuRMSNorm, not in MuConfig
            embed_norm=False,
            embed_scale=1.0,
            activation="gelu_tanh",
            gated=False,
            rope_theta=f["rope_theta"],
            rope_origin=origin,  # type: ignore[arg-type]
            rope_ntk_factor=f["rope_factor"],
            rope_base_len=f["block_size"],
            rope_length="padded",
        )

    return ModelConfig(
        name=f.get("name", "microsoft-mu"),
        encoder=stack(f["n_encoder_layer"], "centre"),
        decoder=stack(f["n_decoder_layer"], "start"),
        vocab_size=f["vocab_size"],
        encoder_vocab_size=f["vocab_size"],
        shared_embedding=True,
        tied_head=True,
        head_bias=False,
        final_softcap=None,
        max_len=f["block_size"],
        pad_id=f["pad_token_id"],
        bos_id=1,  # the Phi-3.5 tokenizer's <s>, which the original's generate is called with
        eos_id=f.get("eos_token_id", 32000),
        mask_decoder_pads=True,
        dropout=f["dropout"],
    )


_MICROSOFT_SUBLAYERS = {"attn": "self_attention", "causal_attn": "self_attention",
                        "cross_attn": "cross_attention", "mlp": "mlp"}  # fmt: skip
_MICROSOFT_LINEARS = {"q_linear": "q", "k_linear": "k", "v_linear": "v", "out_linear": "o",
                      "fc1": "up", "fc2": "down"}  # fmt: skip
_MICROSOFT_NORMS = {("e", "ln1"): "self_attention", ("e", "ln2"): "mlp",
                    ("h", "ln1"): "self_attention", ("h", "ln2"): "cross_attention",
                    ("h", "ln3"): "mlp"}  # fmt: skip


def _microsoft_name(name: str) -> str | None:
    """Translate one tensor name; None for the tied copy of the embedding."""
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
    if linear is None and (stack, part) in _MICROSOFT_NORMS:
        return f"{at}.{_MICROSOFT_NORMS[stack, part]}.pre_norm.{kind}"
    if part in _MICROSOFT_SUBLAYERS and linear in _MICROSOFT_LINEARS:
        return f"{at}.{_MICROSOFT_SUBLAYERS[part]}.{_MICROSOFT_LINEARS[linear]}.{kind}"
    return name


# -- Hugging Face T5Gemma ------------------------------------------------------------------------

_T5GEMMA_DEFAULTS: Fields = {  # T5GemmaModuleConfig, transformers 5.23
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
_HF_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu": "gelu",
                   "silu": "silu", "swish": "silu", "relu": "relu"}  # fmt: skip


def _t5gemma_stack(fields: Fields) -> StackConfig:
    f = {**_T5GEMMA_DEFAULTS, **fields}
    n_layers = f["num_hidden_layers"]
    kinds = f["layer_types"] or [
        "full_attention" if i % 2 else "sliding_attention" for i in range(n_layers)
    ]
    for kind in kinds:
        check_choice("layer_types", kind, ("sliding_attention", "full_attention"), ConfigError)
    activation = check_choice(
        "hidden_activation", f["hidden_activation"], _HF_ACTIVATIONS, ConfigError
    )
    rope = f["rope_parameters"] or f.get("rope_scaling") or {}
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
        norm_kind="rms_plus_one",
        norm_placement="dual",
        norm_eps=f["rms_norm_eps"],
        embed_norm=False,
        embed_scale=f["hidden_size"] ** 0.5,
        activation=_HF_ACTIVATIONS[activation],  # type: ignore[arg-type]
        gated=True,
        rope_theta=rope.get("rope_theta", f.get("rope_theta", 10000.0)),
        rope_origin="start",
        rope_ntk_factor=1.0,
        rope_base_len=f["max_position_embeddings"],
        rope_length="padded",
    )


def _t5gemma_config(fields: Fields) -> ModelConfig:
    for name in ("encoder", "decoder"):
        if not isinstance(fields.get(name), dict):
            raise ConfigError(f"a T5Gemma config.json must hold an object {name!r}; it does not")
    decoder: Fields = {**_T5GEMMA_DEFAULTS, **fields["decoder"]}
    encoder: Fields = {**_T5GEMMA_DEFAULTS, **fields["encoder"]}
    eos = decoder["eos_token_id"]
    return ModelConfig(
        name=fields.get("_name_or_path") or "t5gemma",
        encoder=_t5gemma_stack(encoder),
        decoder=_t5gemma_stack(decoder),
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


_T5GEMMA_SUBLAYERS = {"self_attn": "self_attention", "cross_attn": "cross_attention",
                      "feedforward": "mlp", "mlp": "mlp"}  # fmt: skip


def _t5gemma_name(name: str) -> str | None:
    """Translate one tensor name."""
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
        return f"{stack}.{index}.{_T5GEMMA_SUBLAYERS[norm[2]]}.{norm[1]}_norm.{kind}"
    sublayer, _, linear = part.partition(".")
    at = _T5GEMMA_SUBLAYERS.get(sublayer, sublayer)
    return f"{stack}.{index}.{at}.{linear.removesuffix('_proj')}.{kind}"


def _renamed(
    tensors: Weights, config: ModelConfig, rename: Callable[[str], str | None], what: str
) -> Weights:
    """Apply a name map; a copy of the tied embedding is checked to be one, then dropped."""
    weights: Weights = {}
    for name, tensor in tensors.items():
        ours = rename(name)
        if ours is not None and not (ours == "head.weight" and config.tied_head):
            weights[ours] = tensor
            continue
        embedding = next(t for n, t in tensors.items() if rename(n) == f"{config.head_site}.weight")
        if not np.array_equal(tensor, embedding):
            raise WeightsError(f"{what}: {name} must equal the tied embedding; it differs")
    check_names(what, weight_shapes(config), {n: w.shape for n, w in weights.items()})
    return weights
