"""What the fields of a `config.json` may hold, and which of them are not understood.

Checked before any family reads them. A field that could change what a model costs and that no
family reads is named in a warning; one that cannot (ids, rates of dropout, notes) is not.
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from mu_ref.border.ranges import FACTOR, HEADS, LAYERS, SIZE, THETA, TOKENS, Range
from mu_ref.border.text import short
from npu_sim.errors import WorkloadError
from npu_sim.models.families import FAMILIES

__all__ = ["HEAD_WIDTH", "check_kinds", "unread_fields"]

HEAD_WIDTH = Range(low=1, high=4096, why="no head is so wide")
_CAP = Range(low=0, above=True, high=10**6, whole=False, why="no score is so large")
_IDS = Range(low=-1, high=SIZE.high, why=SIZE.why)  # -1: none, in some old files
_EXPERTS = Range(low=1, high=2**12, why="no layer has thousands of experts")
_OF_EXPERTS = frozenset({
    "num_local_experts", "num_experts", "num_experts_per_tok", "moe_intermediate_size",
    "decoder_sparse_step", "mlp_only_layers",
})  # fmt: skip
_NUMBERS: Mapping[str, Range] = MappingProxyType(
    dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size", "d_model", "d_ff", "dim",
                   "hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim", "n_embd", "n_inner",
                   "ffn_dim", "ffn_hidden_size", "word_embed_proj_dim", "embedding_size",
                   "moe_intermediate_size", "decoder_vocab_size", "pooler_output_size"), SIZE)
    | dict.fromkeys(("num_hidden_layers", "n_layers", "encoder_layers", "decoder_layers",
                     "num_layers", "num_decoder_layers", "n_layer",
                     "encoder_num_hidden_layers", "decoder_num_hidden_layers",
                     "sliding_window_pattern", "global_attn_every_n_layers", "decoder_sparse_step"),
                    LAYERS)
    | dict.fromkeys(("num_attention_heads", "n_heads", "encoder_attention_heads", "n_head",
                     "decoder_attention_heads", "num_heads", "num_key_value_heads",
                     "num_kv_heads",
                     "encoder_num_attention_heads", "decoder_num_attention_heads",
                     "encoder_num_key_value_heads", "decoder_num_key_value_heads"), HEADS)
    | dict.fromkeys(("max_position_embeddings", "max_source_positions", "max_target_positions",
                     "n_positions", "local_attention"), TOKENS)
    | dict.fromkeys(("num_local_experts", "num_experts", "num_experts_per_tok"), _EXPERTS)
    | {"head_dim": HEAD_WIDTH, "d_kv": HEAD_WIDTH, "attn_logit_softcapping": _CAP,
       "final_logit_softcapping": _CAP, "embedding_multiplier": FACTOR,
       "type_vocab_size": Range(low=0, high=1024, why="each type is a row that is added"),
       "image_size": Range(low=1, high=2**16, why="no picture is so wide"),
       "patch_size": Range(low=1, high=2**10, why="no patch is so wide"),
       "num_channels": Range(low=1, high=2**10, why="no picture has so many channels"),
       "num_mel_bins": Range(low=1, high=2**12, why="no sound has so many bands"),
       "relative_attention_num_buckets": Range(low=1, high=2**12, why="distances are few"),
       "sliding_window": Range(low=0, high=TOKENS.high, why=TOKENS.why),
       "max_window_layers": Range(low=0, high=TOKENS.high, why=TOKENS.why),
       "num_ln_in_parallel_attn": Range(low=1, high=2, why="one or two norms stand there"),
       "query_pre_attn_scalar": Range(low=0, above=True, high=10**6, whole=False, why="it scales"),
       "rope_theta": THETA}
)  # fmt: skip
_ENDINGS: Mapping[str, Range] = MappingProxyType({
    "_token_id": _IDS,
    "_eps": Range(low=0, high=1, whole=False, why="it only keeps from dividing by 0"),
})  # fmt: skip
_MAY_BE_NULL = frozenset({
    "head_dim", "num_key_value_heads", "num_decoder_layers", "attn_logit_softcapping",
    "final_logit_softcapping", "sliding_window", "n_inner", "ffn_hidden_size", "num_kv_heads",
    "word_embed_proj_dim", "moe_intermediate_size", "decoder_vocab_size", "pooler_output_size",
    "num_ln_in_parallel_attn", "encoder_num_key_value_heads", "decoder_num_key_value_heads",
})  # fmt: skip
_SWITCHES = frozenset({
    "tie_word_embeddings", "attention_bias", "mlp_bias", "bias", "alibi", "multi_query",
    "new_decoder_architecture", "parallel_attn", "use_sliding_window", "use_qkv_bias",
    "qk_layernorm", "use_parallel_residual", "enable_bias", "do_layer_norm_before", "norm_bias",
    "lm_head_bias", "scale_embedding", "share_encoder_decoder_embeddings",
    "use_bias", "use_qk_norm",
})  # fmt: skip
_TEXTS = frozenset({
    "hidden_act", "hidden_activation", "activation", "activation_function", "feed_forward_proj",
    "model_type", "encoder_hidden_act", "decoder_hidden_act",
})  # fmt: skip
_OBJECTS = frozenset({"rope_parameters", "rope_scaling"})
_LISTS = {
    "layer_types": (str, "a list of texts or null"),
    "mlp_only_layers": (int, "a list of whole numbers or null"),
}
_TABLES = ("encoder", "decoder", "text_config")
# what says nothing of the cost, or only how the model was trained, called and decoded
_NO_COST = re.compile(
    r"_.*|.*(token|_ids?|dropout.*|_eps|_theta|dtype|_range|_std|_factor|_cache|_version|_class"
    r"|_params|_map|_type|label|labels|_checkpointing|_processing|_loss.*|_prob|_implementation)"
    r"|architectures|id2label|label2id|num_labels|output_.*|return_dict|is_.*|dense_act_fn|rope_.*"
    r"|layer_types|sliding_window.*|use_sliding_window|max_window_layers|query_pre_attn_scalar"
    r"|num_beams|(max|min)_length|length_penalty|early_stopping|no_repeat_ngram_size|prefix"
    r"|begin_suppress_tokens|suppress_tokens|forced_.*|apply_spec_augment|mask_.*|attn_.*"
    r"|summary_.*|torchscript|gradient_.*|chunk_size_feed_forward|pruned_heads|static_position.*"
    r"|normalize_.*|sinusoidal_pos_embds|relative_attention_.*|n_positions|layerdrop.*"
    r"|(en|de)coder_layerdrop|num_mel_bins|max_target_positions|vision_config|mm_.*|boi_.*|eoi_.*"
    r"|image_token_index|pretraining_tp|qkv_bias|cross_attention_hidden_size|tie_.*|median_.*"
    r"|scale_embedding|add_.*|model_parallel|original_max_position_embeddings|encoder_stride"
    r"|pooler_.*|bad_words_ids|num_hidden_layers|.*_epsilon|.*_pdrop|use_bidirectional_attention"
    r"|scale_decoder_outputs|classifier_.*|use_weighted_layer_sum|clip_qkv|reorder_.*|scale_attn_.*"
    r"|.*_multiplier|logits_scaling|router_.*|no_rope_.*|rotary_pct|projection_dim|decoder_bias"
    r"|deterministic_.*|sparse_pred.*|norm_topk_prob|input_jitter_noise|vision_.*|swiglu_.*|logit_scale"
    r"|pad_head_dim_to_multiple_of|layer_norm_elementwise_affine"
)


def check_kinds(fields: Any, where: str = "config.json") -> None:
    """Check that every known field holds what it must.

    Args:
        fields: the JSON object.
        where: it stands, for messages.

    Raises:
        WorkloadError: the first field that does not, with its place.
    """
    for name, value, place in _fields(fields, where):
        allowed = _NUMBERS.get(name) or next(
            (r for ending, r in _ENDINGS.items() if name.endswith(ending)), None
        )
        if name in _TABLES and not isinstance(value, dict):
            raise WorkloadError(f"{place} must be a JSON object, got {short(value)}")
        if value is None and (name in _MAY_BE_NULL or name.endswith(("_token_id", "_or_path"))):
            continue
        if name in _SWITCHES and not isinstance(value, bool):
            raise WorkloadError(f"{place} must be true or false, got {short(value)}")
        if (name in _TEXTS or name == "_name_or_path") and not isinstance(value, str):
            raise WorkloadError(f"{place} must be a text, got {short(value)}")
        if name in _OBJECTS and not (value is None or isinstance(value, dict)):
            raise WorkloadError(f"{place} must be a JSON object or null, got {short(value)}")
        of, rule = _LISTS.get(name, (object, ""))
        if rule and not (
            value is None or (isinstance(value, list) and all(isinstance(v, of) for v in value))
        ):
            raise WorkloadError(f"{place} must be {rule}, got {short(value)}")
        if allowed is None:
            continue
        # a model may end its texts with any of several tokens
        several = isinstance(value, list) and name == "eos_token_id"
        for number in value if several else [value]:
            allowed.check(place, number, WorkloadError)


def unread_fields(fields: Mapping[str, Any]) -> list[str]:
    """Name the fields that no family reads and that could change what a model costs.

    Args:
        fields: the JSON object.

    Returns:
        Their places, in order.
    """
    known = {*_NUMBERS, *_SWITCHES, *_TEXTS, *_TABLES, *_LISTS}
    family = FAMILIES.get(fields.get("model_type", ""))
    if family is None or "num_local_experts" not in family.defaults:
        known -= _OF_EXPERTS
    return [
        place
        for name, _, place in _fields(fields, "")
        if name not in known and not _NO_COST.fullmatch(name)
    ]


def _fields(fields: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any, str]]:
    """Yield (name, value, place) of all fields, those of the tables of stacks too."""
    for name, value in fields.items():
        place = f"{where}: {name}" if where else name
        yield name, value, place
        if name in _TABLES and isinstance(value, dict):
            below = _fields(value, "")  # places of tables in tables are told with dots
            yield from ((inner, v, f"{place}.{at}") for inner, v, at in below)
