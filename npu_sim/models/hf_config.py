"""Descriptions from the `config.json` of Hugging Face models: one small function per family.

Missing fields take the defaults of transformers. Counts of parameters are checked against published
ones. Not here: what a field means for the cost (`npu_sim/program/`). Chapter:
`docs/validation.md`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mu_ref.border.ranges import SIZE, TOKENS
from mu_ref.border.reading import read_json
from mu_ref.border.text import warn
from mu_ref.errors import MuRefError, check_choice
from mu_ref.readers import t5gemma
from npu_sim.errors import WorkloadError
from npu_sim.models.hf_fields import check_kinds, unread_fields
from npu_sim.models.shorthand import ACTIVATIONS, model_of, stack_of
from npu_sim.program.description import Description

__all__ = ["FAMILIES", "describe_fields", "read_hf_config"]

Fields = Mapping[str, Any]
POST_NORM = frozenset({"encoder.final_norm", "decoder.final_norm"})  # it belongs to the last layer


def read_hf_config(path: Path) -> Description:
    """Read the description of a model from its `config.json`.

    Args:
        path: the file, or the folder that holds it.

    Returns:
        The description.

    Raises:
        WorkloadError: no such file, not JSON, an unknown family, or a field missing or wrong.
    """
    file = path / "config.json" if path.is_dir() else path
    fields = read_json(file, "a config.json", WorkloadError)
    try:
        found = describe_fields(fields, str(file.parent.name or "model"))
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from error
    unread = unread_fields(fields)
    if unread:
        warn(f"{file}: not read, may change costs: {', '.join(unread)[:200]}")
    return found


def describe_fields(fields: Any, name: str) -> Description:
    """Translate the fields of a `config.json`.

    Args:
        fields: the JSON object.
        name: of the model, where the file does not say.

    Returns:
        The description.

    Raises:
        WorkloadError: an unknown family, or a field missing or wrong.
    """
    if not isinstance(fields, dict):
        raise WorkloadError(f"config.json must hold an object, got {type(fields).__name__}")
    check_kinds(fields)
    check_choice("model_type of config.json", fields.get("model_type"), FAMILIES, WorkloadError)
    try:
        return FAMILIES[fields["model_type"]](fields, fields.get("_name_or_path") or name)
    except KeyError as error:
        raise WorkloadError(f"config.json must have the field {error}; it has not") from error
    except (MuRefError, TypeError, ArithmeticError, AttributeError, ValueError) as error:
        raise WorkloadError(f"config.json of {name} must be consistent: {error}") from error


def _activation(name: str) -> str:
    check_choice("activation", name, ACTIVATIONS, WorkloadError)
    return ACTIVATIONS[name]


def _llama(f: Fields, name: str, **more: Any) -> Description:
    """LLaMA, Mistral, and what differs from them by a few fields."""
    absent, qk_norm = more.pop("absent", frozenset()), more.pop("qk_norm", False)
    softcap = more.pop("final_softcap", None)
    decoder = stack_of(
        f["num_hidden_layers"], f["hidden_size"], f["intermediate_size"], f["num_attention_heads"],
        n_kv_heads=f.get("num_key_value_heads"), d_head=f.get("head_dim"),
        **({"norm_kind": "rms", "gated": True, "attention_bias": f.get("attention_bias", False),
            "mlp_bias": f.get("mlp_bias", False),
            "activation": _activation(f.get("hidden_act", "silu"))} | more),
    )  # fmt: skip
    model = model_of(
        name, None, decoder, f["vocab_size"], tied_head=f.get("tie_word_embeddings", False),
        max_len=f.get("max_position_embeddings", 2048), final_softcap=softcap,
    )  # fmt: skip
    return Description(model=model, lm_head="last", qk_norm=qk_norm, absent=absent)


def _qwen2(f: Fields, name: str) -> Description:
    # queries, keys and values have a bias, the output projection has none
    return _llama(f, name, attention_bias=True, absent=frozenset({"self_attention.o.bias"}))


def _qwen3(f: Fields, name: str) -> Description:
    # heads may be wider than d_model / n_heads, so the default is a number and not a quotient
    return _llama({"head_dim": 128, **f}, name, qk_norm=True)


def _gemma2(f: Fields, name: str) -> Description:
    f = {"tie_word_embeddings": True, "head_dim": 256, **f}
    return _llama(
        f, name, norm_kind="rms_plus_one", norm_placement="dual",
        embed_scale=float(f["hidden_size"]) ** 0.5,
        activation=_activation(f.get("hidden_activation", "gelu_pytorch_tanh")),
        attention_softcap=f.get("attn_logit_softcapping", 50.0),
        final_softcap=f.get("final_logit_softcapping", 30.0),
    )  # fmt: skip


def _gemma3(f: Fields, name: str) -> Description:
    # the file of a model that sees pictures keeps the fields of its decoder in a table of their own
    text = f.get("text_config", f)
    text = {"tie_word_embeddings": True, "head_dim": 256, **text}
    return _llama(
        text, name, norm_kind="rms_plus_one", norm_placement="dual", qk_norm=True,
        embed_scale=float(text["hidden_size"]) ** 0.5,
        activation=_activation(text.get("hidden_activation", "gelu_pytorch_tanh")),
    )  # fmt: skip


def _bert(f: Fields, name: str) -> Description:
    """BERT and ELECTRA's discriminator, without pooler or task head."""
    encoder = stack_of(
        f["num_hidden_layers"], f["hidden_size"], f["intermediate_size"], f["num_attention_heads"],
        embed_norm=True, activation=_activation(f.get("hidden_act", "gelu")),
    )  # fmt: skip
    max_len = f.get("max_position_embeddings", 512)
    model = model_of(name, encoder, None, f["vocab_size"], tied_head=True, max_len=max_len)
    return Description(
        model=model, lm_head="none", positions="table", absent=POST_NORM,
        extra_embeddings=f.get("type_vocab_size", 2),
    )  # fmt: skip


def _distilbert(f: Fields, name: str) -> Description:
    encoder = stack_of(
        f["n_layers"], f["dim"], f["hidden_dim"], f["n_heads"], embed_norm=True,
        activation=_activation(f.get("activation", "gelu")),
    )  # fmt: skip
    max_len = f.get("max_position_embeddings", 512)
    model = model_of(name, encoder, None, f["vocab_size"], tied_head=True, max_len=max_len)
    return Description(model=model, lm_head="none", positions="table", absent=POST_NORM)


def _vit(f: Fields, name: str) -> Description:
    """ViT: patches instead of tokens; the class token is one more position."""
    encoder = stack_of(
        f["num_hidden_layers"], f["hidden_size"], f["intermediate_size"], f["num_attention_heads"],
        activation=_activation(f.get("hidden_act", "gelu")),
    )  # fmt: skip
    patch = f.get("patch_size", 16)
    n_patches = (f.get("image_size", 224) // patch) ** 2
    features = f.get("num_channels", 3) * patch * patch
    TOKENS.check("(image_size / patch_size)^2", n_patches, WorkloadError)
    SIZE.check("num_channels x patch_size^2", features, WorkloadError)
    # a projection of patches takes the place of the table, so its rows do not matter
    model = model_of(name, encoder, None, 1, tied_head=True, max_len=n_patches + 1)
    return Description(
        model=model, lm_head="none", positions="table", extra_embeddings=1,  # the class token
        input_features=features,
    )  # fmt: skip


def _two_stacks(f: Fields, **more: Any) -> tuple[Any, Any]:
    """The stacks of Marian and Whisper, which name their fields as BART does."""
    activation = _activation(f.get("activation_function", "gelu"))
    encoder, decoder = (
        stack_of(f[f"{side}_layers"], f["d_model"], f[f"{side}_ffn_dim"],
                 f[f"{side}_attention_heads"], activation=activation, **more)
        for side in ("encoder", "decoder")
    )  # fmt: skip
    return encoder, decoder


def _marian(f: Fields, name: str) -> Description:
    encoder, decoder = _two_stacks(f, embed_scale=f["d_model"] ** 0.5)
    model = model_of(name, encoder, decoder, f["vocab_size"], tied_head=True, head_bias=True,
                     max_len=f.get("max_position_embeddings", 1024))  # fmt: skip
    return Description(model=model, lm_head="last", positions="table", absent=POST_NORM)


def _whisper(f: Fields, name: str) -> Description:
    """Whisper: its two convolutions are priced as the second, 3 x d_model features per slot."""
    encoder, decoder = _two_stacks(f)
    # a projection of sound takes the place of the encoder's table, so its rows do not matter
    model = model_of(name, encoder, decoder, f["vocab_size"], tied_head=True,
                     shared_embedding=False, encoder_vocab_size=1,
                     max_len=f.get("max_source_positions", 1500))  # fmt: skip
    return Description(model=model, lm_head="last", positions="table",
                       absent=frozenset({"attention.k.bias"}),  # keys alone have no bias
                       input_features=3 * f["d_model"])  # fmt: skip


def _t5(f: Fields, name: str) -> Description:
    # one field says gating and function; "gated-gelu" means the tanh form, whatever its name says
    form = f.get("feed_forward_proj", "relu")
    kind = form.removeprefix("gated-")
    fields = {
        "d_head": f["d_kv"], "norm_kind": "rms", "attention_bias": False, "mlp_bias": False,
        "gated": form.startswith("gated-"),
        "activation": _activation("gelu_new" if form == "gated-gelu" else kind),
    }  # fmt: skip
    encoder, decoder = (
        stack_of(n, f["d_model"], f["d_ff"], f["num_heads"], **fields)
        for n in (f["num_layers"], f.get("num_decoder_layers") or f["num_layers"])
    )
    tied = f.get("tie_word_embeddings", True)
    model = model_of(name, encoder, decoder, f["vocab_size"], tied_head=tied)
    return Description(model=model, lm_head="last", positions="bias")


def _t5gemma(f: Fields, name: str) -> Description:
    return Description(model=t5gemma.config_of({"_name_or_path": name, **f}), lm_head="last")


FAMILIES: Mapping[str, Callable[[Fields, str], Description]] = MappingProxyType({
    "bert": _bert, "distilbert": _distilbert, "electra": _bert, "gemma2": _gemma2,
    "gemma3": _gemma3, "gemma3_text": _gemma3, "llama": _llama, "marian": _marian,
    "mistral": _llama, "phi3": _llama, "qwen2": _qwen2, "qwen3": _qwen3, "t5": _t5,
    "t5gemma": _t5gemma, "vit": _vit, "whisper": _whisper,
})  # fmt: skip
