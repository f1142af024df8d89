"""Read checkpoints of Hugging Face T5Gemma, transformers 5.24 `models/t5gemma`."""

import re

from mu_ref.border.ranges import (
    FACTOR,
    LAYERS,
    MODEL_RANGES,
    SIZE,
    STACK_RANGES,
    TOKENS,
)  # fmt: skip
from mu_ref.border.text import short
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
)  # fmt: skip
from mu_ref.readers.ids import FIELDS, SpecialIds, check_ids, special_ids
from mu_ref.readers.rope import rope_of

__all__ = ["config_of", "name_of"]

_DEFAULTS: Fields = {  # T5GemmaModuleConfig, transformers 5.24
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
_RANGES = {
    "vocab_size": SIZE, "hidden_size": SIZE, "intermediate_size": SIZE,
    "num_hidden_layers": LAYERS, "num_attention_heads": STACK_RANGES["n_heads"],
    "num_key_value_heads": STACK_RANGES["n_kv_heads"], "head_dim": SIZE,
    "max_position_embeddings": TOKENS, "rms_norm_eps": STACK_RANGES["norm_eps"],
    "query_pre_attn_scalar": FACTOR, "sliding_window": TOKENS, "final_logit_softcapping": FACTOR,
    "attn_logit_softcapping": FACTOR, "cross_attention_hidden_size": SIZE,
}  # fmt: skip
_OPTIONAL = ("head_dim", "sliding_window", "final_logit_softcapping", "attn_logit_softcapping",
             "cross_attention_hidden_size")  # fmt: skip
TIED = "tie_word_embeddings"
_OF_STACK = {*_DEFAULTS, *NOTES, *FIELDS, "cross_attention_hidden_size", "rope_scaling",
             "rope_theta", "partial_rotary_factor"}  # fmt: skip
# Of the whole: those that its stacks have too are theirs.
_OF_WHOLE = {*NOTES, *FIELDS, "encoder", "decoder", "vocab_size"}


def _layer_kinds(f: Fields, where: str) -> list[str]:
    """Which kind of attention each layer has."""
    n_layers, kinds = f["num_hidden_layers"], f["layer_types"]
    if kinds is None:
        # By default the first layer sees a window, the second everything, and so on in turn.
        return ["full_attention" if i % 2 else "sliding_attention" for i in range(n_layers)]
    if not isinstance(kinds, list) or len(kinds) != n_layers:
        raise ConfigError(f"{where}layer_types must be a list that names each of the {n_layers} "
                          "layers; it is not")  # fmt: skip
    known = ("sliding_attention", "full_attention")
    return [check_choice(f"{where}layer_types", kind, known, ConfigError) for kind in kinds]


def _stack(f: Fields, where: str, *, inclusive: bool) -> StackConfig:
    warn_of_unknown(f, _OF_STACK, where)
    check_flag({TIED: True, **f}, TIED, where)  # that of the whole counts
    check_numbers({"cross_attention_hidden_size": None, **f}, _RANGES, where, _OPTIONAL)
    n_layers, kinds = f["num_hidden_layers"], _layer_kinds(f, where)
    name = f"{where}hidden_activation"
    activation = check_choice(name, f["hidden_activation"], list(ACTIVATIONS), ConfigError)
    theta, factor = rope_of(f, where)
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
        attention_bias=check_flag(f, "attention_bias", where),
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
        activation=ACTIVATIONS[activation],  # type: ignore[arg-type]
        gated=True,
        rope_theta=theta,
        rope_origin="start",
        rope_ntk_factor=1.0,
        rope_base_len=f["max_position_embeddings"],
        rope_length="padded",  # its positions are slots of the tensor
        rope_factor=factor,
        window_inclusive=inclusive,
    )


def config_of(
    fields: Fields, generation: Fields | None = None, where: str = "config.json: "
) -> ModelConfig:
    """Translate a `config.json`.

    Args:
        fields: of T5GemmaConfig; those of its stacks that are missing take the defaults.
        generation: fields of `generation_config.json`, if there is one: then special tokens are
            those that it names.
        where: stands before a field in messages.

    Returns:
        The configuration.

    Raises:
        ConfigError: a stack is missing, or a value is not supported.
    """
    for name in ("encoder", "decoder"):
        if not isinstance(fields.get(name), dict):
            raise ConfigError(f"{where}a T5Gemma must have an object {name!r}; it has none")
    warn_of_unknown(fields, _OF_WHOLE, where)
    decoder: Fields = {**_DEFAULTS, **fields["decoder"]}
    encoder: Fields = {**_DEFAULTS, **fields["encoder"]}
    stacks = {
        "encoder": _stack(encoder, f"{where}encoder.", inclusive=_inclusive(fields, where)),
        "decoder": _stack(decoder, f"{where}decoder.", inclusive=True),
    }
    read = decoder.get("cross_attention_hidden_size")
    if read not in (None, encoder["hidden_size"]):
        raise ConfigError(
            f"{where}decoder.cross_attention_hidden_size must be the encoder's hidden_size "
            f"{encoder['hidden_size']}, got {read}"
        )
    ids = _ids(fields, encoder, decoder, generation, where)
    encoder_pad = -1 if encoder["pad_token_id"] is None else encoder["pad_token_id"]
    whole = {TIED: True, "dropout_rate": 0.0, **fields}
    check_numbers(whole, {"dropout_rate": MODEL_RANGES["dropout"]}, where)
    check_numbers({"vocab_size": None, **fields}, {"vocab_size": SIZE}, where, ["vocab_size"])
    return ModelConfig(
        name=check_text(fields, "_name_or_path", where, "t5gemma"),
        **stacks,
        vocab_size=decoder["vocab_size"],
        encoder_vocab_size=encoder["vocab_size"],
        shared_embedding=False,
        tied_head=check_flag(whole, TIED, where),
        head_bias=False,
        final_softcap=decoder["final_logit_softcapping"],
        max_len=decoder["max_position_embeddings"],
        pad_id=ids.pad,
        bos_id=ids.start,
        eos_id=ids.eos[0] if ids.eos else None,
        more_eos_ids=ids.eos[1:],
        mask_decoder_pads=False,
        dropout=whole["dropout_rate"],
        encoder_pad_id=None if encoder_pad == ids.pad else encoder_pad,
        mask_cross_pads=False,  # without a mask its cross-attention gets none
        unseeing="mean",  # a hidden key has the lowest score there is, and so have all
    )


def _ids(
    fields: Fields, encoder: Fields, decoder: Fields, generation: Fields | None, where: str
) -> SpecialIds:
    """Check all special tokens, and choose those of the decoder."""
    check_ids(encoder, encoder["vocab_size"], f"{where}encoder.")
    check_ids(decoder, decoder["vocab_size"], f"{where}decoder.")
    check_ids(fields, decoder["vocab_size"], where)
    if generation is None:
        return special_ids([fields, decoder], where)
    check_ids(generation, decoder["vocab_size"], "generation_config.json: ")
    return special_ids([generation], "generation_config.json: ")


def _inclusive(fields: Fields, where: str) -> bool:
    """Does an encoder's window of w hold tokens w away? In transformers 5; in 4, one less."""
    version = check_text(fields, "transformers_version", where, "5")
    major = re.match(r"\d+", version)
    if major is None:
        raise ConfigError(f"{where}transformers_version must be a version such as 5.24.0, got "
                          f"{short(version)}; it decides which tokens a window holds")  # fmt: skip
    return int(major[0]) >= 5


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
