"""What each family of Hugging Face models is made of: one entry in a table.

An entry gives the family's defaults, as transformers 5.24 has them, and its parts: fields of
`StackConfig`, `ModelConfig` and `Description`. What an entry does not say is as in `shorthand.py`.
`python -m tests.parity.hf_counts` compares each with transformers. Chapter: `docs/families.md`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from npu_sim.models import parts as of
from npu_sim.models.family import Family, shape, sizes
from npu_sim.models.parts import Of

__all__ = ["FAMILIES"]

POST_NORM = frozenset({"encoder.final_norm", "decoder.final_norm"})  # it belongs to the last layer
NO_NORM_BIAS = frozenset({"norm.bias"})
ONE_NORM = frozenset({"mlp.pre_norm"})  # attention and MLP read the same
_HIDDEN = sizes("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
_ALL = of.windowed(lambda f, i: True)

# decoders: of LLaMA, and those that differ from it
_LLAMA = Family(
    sides=("decoder",),
    defaults=shape(4096, 11008, 32, 32, None, 32000, 2048) | {
        "hidden_act": "silu", "tie_word_embeddings": False, "attention_bias": False,
        "mlp_bias": False},
    parts=_HIDDEN | {
        "n_kv_heads": Of("num_key_value_heads"), "d_head": Of("head_dim"),
        "activation": Of("hidden_act"), "vocab_size": Of("vocab_size"), "lm_head": "last",
        "max_len": Of("max_position_embeddings"), "tied_head": Of("tie_word_embeddings"),
        "norm_kind": "rms", "gated": True, "attention_bias": Of("attention_bias"),
        "mlp_bias": Of("mlp_bias")},
)  # fmt: skip
_MISTRAL = _LLAMA.but(
    shape(4096, 14336, 32, 32, 8, 32000, 131072) | {"sliding_window": 4096},
    attention_bias=False, mlp_bias=False, window=Of("sliding_window"), windowed_layers=_ALL,
)  # fmt: skip
_QWEN3 = _LLAMA.but(
    shape(4096, 22016, 32, 32, 32, 151936, 32768) | {
        "sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 28,
        "head_dim": 128},
    mlp_bias=False, qk_norm=True, window=Of("sliding_window"),
    windowed_layers=of.windowed(
        lambda f, i: f["use_sliding_window"] and i >= f["max_window_layers"]),
)  # fmt: skip
_GEMMA = _LLAMA.but(
    shape(3072, 24576, 28, 16, 16, 256000, 8192) | {
        "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True},
    mlp_bias=False, norm_kind="rms_plus_one", embed_scale=of.root_scale,
)  # fmt: skip
_GEMMA2 = _GEMMA.but(
    shape(2304, 9216, 26, 8, 4, 256000, 8192) | {
        "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 4096,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    activation=Of("hidden_activation"), norm_placement="dual", window=Of("sliding_window"),
    attention_softcap=Of("attn_logit_softcapping"), final_softcap=Of("final_logit_softcapping"),
    windowed_layers=of.windowed(lambda f, i: i % 2 == 0),
)  # fmt: skip
_GEMMA3 = _GEMMA2.but(
    {"vocab_size": 262208, "max_position_embeddings": 131072, "sliding_window_pattern": 6,
     "attn_logit_softcapping": None, "final_logit_softcapping": None},
    qk_norm=True,
    windowed_layers=of.windowed(lambda f, i: (i + 1) % f["sliding_window_pattern"]),
)  # fmt: skip
_OLMO2 = _LLAMA.but(
    {"vocab_size": 50304}, mlp_bias=False, norm_placement="dual", absent=frozenset({".pre_norm"}),
    qk_norm=True, weights=(of.wide_norm_weights,),
)  # fmt: skip
_LAYER_NORM = {"norm_kind": "layer", "gated": False, "attention_bias": True, "mlp_bias": True}
_PHI = _LLAMA.but(
    shape(2048, 8192, 24, 32, None, 51200, 2048) | {
        "hidden_act": "gelu_new", "qk_layernorm": False},
    **_LAYER_NORM, head_bias=True, absent=ONE_NORM, qk_norm=Of("qk_layernorm"),
    rotary_share=of.rotary(0.5),
)  # fmt: skip
_MIXTRAL = _MISTRAL.but(
    {"sliding_window": None, "num_local_experts": 8, "num_experts_per_tok": 2,
     "moe_intermediate_size": None},
    experts_per_token=Of("num_experts_per_tok"), weights=(of.expert_weights,),
)  # fmt: skip
_GPT2 = Family(
    sides=("decoder",),
    defaults={"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257,
              "activation_function": "gelu_new", "tie_word_embeddings": True},
    parts=sizes("n_layer", "n_embd", "n_inner", "n_head") | {
        "d_ff": lambda f: f["n_inner"] or 4 * f["n_embd"], "vocab_size": Of("vocab_size"),
        "activation": Of("activation_function"), "max_len": Of("n_positions"),
        "tied_head": Of("tie_word_embeddings"), "positions": "table", "lm_head": "last"},
    aliases={"hidden_size": "n_embd", "max_position_embeddings": "n_positions",
             "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"},
)  # fmt: skip

# encoders
_BERT = Family(
    sides=("encoder",),
    defaults=shape(768, 3072, 12, 12, None, 30522, 512) | {
        "hidden_act": "gelu", "type_vocab_size": 2},
    parts=_HIDDEN | {
        "activation": Of("hidden_act"), "vocab_size": Of("vocab_size"), "embed_norm": True,
        "max_len": Of("max_position_embeddings"), "positions": "table", "lm_head": "none",
        "input_slots": Of("max_position_embeddings"), "absent": POST_NORM,
        "extra_embeddings": of.typed, "weights": (of.pooler_weights,)},
)  # fmt: skip
_ROBERTA = _BERT.but(
    {"vocab_size": 50265},  # positions are counted from behind the id of padding
    input_slots=lambda f: max(1, f["max_position_embeddings"] - 1 - (f.get("pad_token_id") or 1)),
)  # fmt: skip
_CLIP_TEXT = _BERT.but(
    shape(512, 2048, 12, 8, None, 49408, 77) | {"hidden_act": "quick_gelu"},
    embed_norm=False, absent=frozenset(), extra_embeddings=0, weights=(),
)  # fmt: skip

# encoder-decoders
_SIDES = ("encoder", "decoder")
_BART = Family(
    sides=_SIDES,
    defaults={
        "d_model": 1024, "vocab_size": 50265, "max_position_embeddings": 1024,
        "activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True}
    | {f"{side}_{name}": value for side in _SIDES for name, value in (
        ("layers", 12), ("ffn_dim", 4096), ("attention_heads", 16))},
    parts=sizes("{side}_layers", "d_model", "{side}_ffn_dim", "{side}_attention_heads") | {
        "activation": Of("activation_function"), "vocab_size": Of("vocab_size"),
        "embed_scale": of.bart_scale, "embed_norm": True, "lm_head": "last", "positions": "table",
        "max_len": lambda f: f["max_position_embeddings"] + 2, "absent": POST_NORM,
        "tied_head": Of("tie_word_embeddings")},
)  # fmt: skip
_MARIAN = _BART.but(
    {"vocab_size": 58101, "decoder_vocab_size": 58101, "share_encoder_decoder_embeddings": True},
    embed_norm=False, max_len=Of("max_position_embeddings"),
    shared_embedding=Of("share_encoder_decoder_embeddings"), encoder_vocab_size=Of("vocab_size"),
    vocab_size=lambda f: f["vocab_size"] if f["share_encoder_decoder_embeddings"]
    else f["decoder_vocab_size"] or f["vocab_size"],
)  # fmt: skip
_WHISPER = _BART.but(
    {"d_model": 384, "vocab_size": 51865, "num_mel_bins": 80, "max_source_positions": 1500,
     "max_target_positions": 448}
    | {f"{side}_{name}": value for side in _SIDES for name, value in (
        ("layers", 4), ("ffn_dim", 1536), ("attention_heads", 6))},
    embed_norm=False, embed_scale=1.0, max_len=Of("max_source_positions"),
    # a projection of sound takes the place of the encoder's table, so its rows do not matter
    shared_embedding=False, encoder_vocab_size=1, input_features=lambda f: 3 * f["d_model"],
    input_slots=Of("max_source_positions"), weights=(of.stem_weights,),
    absent=frozenset({"attention.k.bias"}),  # keys alone have no bias
)  # fmt: skip
_T5 = Family(
    sides=_SIDES,
    defaults={"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8,
              "vocab_size": 32128, "feed_forward_proj": "relu",
              "relative_attention_num_buckets": 32},
    parts=sizes("num_layers", "d_model", "d_ff", "num_heads") | {
        "n_layers": lambda f: f["num_layers"] if f["side"] == "encoder"
        else f["num_decoder_layers"] or f["num_layers"],
        "d_head": Of("d_kv"), "norm_kind": "rms", "attention_bias": False, "mlp_bias": False,
        "gated": lambda f: f["feed_forward_proj"].startswith("gated-"),
        # "gated-gelu" means the tanh form, whatever its name says
        "activation": lambda f: "gelu_new" if f["feed_forward_proj"] == "gated-gelu"
        else f["feed_forward_proj"].removeprefix("gated-"),
        "vocab_size": Of("vocab_size"), "lm_head": "last", "positions": "bias",
        "weights": (of.bucket_weights,)},
)  # fmt: skip
_MT5 = _T5.but({"d_ff": 1024, "num_layers": 8, "num_heads": 6, "vocab_size": 250112,
                "feed_forward_proj": "gated-gelu"})  # fmt: skip
_T5GEMMA = Family(
    sides=_SIDES, defaults=_GEMMA2.defaults,
    parts=_GEMMA2.parts | {"shared_embedding": False, "encoder_vocab_size": Of("vocab_size")},
    tables={side: (side,) for side in _SIDES},
)  # fmt: skip
_MOONSHINE = Family(
    sides=_SIDES,
    defaults={"hidden_size": 288, "intermediate_size": 1152, "vocab_size": 32768,
              "max_position_embeddings": 512, "attention_bias": False, "tie_word_embeddings": True,
              "encoder_hidden_act": "gelu", "decoder_hidden_act": "silu"}
    | {f"{side}_{name}": value for side in _SIDES for name, value in (
        ("num_hidden_layers", 6), ("num_attention_heads", 8))},
    parts=sizes("{side}_num_hidden_layers", "hidden_size", "intermediate_size",
                "{side}_num_attention_heads") | {
        "n_kv_heads": Of("{side}_num_key_value_heads"), "activation": Of("{side}_hidden_act"),
        "gated": lambda f: f["side"] == "decoder", "attention_bias": Of("attention_bias"),
        "absent": NO_NORM_BIAS, "vocab_size": Of("vocab_size"), "lm_head": "last",
        "tied_head": Of("tie_word_embeddings"), "max_len": Of("max_position_embeddings"),
        "shared_embedding": False, "encoder_vocab_size": 1, "rotary_share": of.rotary(0.9),
        # the third convolution takes the place of the encoder's table
        "input_features": lambda f: 6 * f["hidden_size"], "weights": (of.sound_weights,)},
)  # fmt: skip
_MERGED = frozenset(f"cross_attention.{part}" for part in ("q", "k", "v", "o", "pre_norm",
                                                           "post_norm"))  # fmt: skip

FAMILIES: Mapping[str, Family] = MappingProxyType({
    "bart": _BART,
    "bert": _BERT,
    "clip_text_model": _CLIP_TEXT,
    "cohere": _LLAMA.but(
        shape(8192, 22528, 40, 64, None, 256000, 8192) | {
            "tie_word_embeddings": True, "use_qk_norm": False},
        mlp_bias=False, norm_kind="layer", absent=ONE_NORM | NO_NORM_BIAS,
        qk_norm=Of("use_qk_norm"),
        weights=(lambda f, stack: of.wide_norm_weights(f, stack) if f["use_qk_norm"] else {},)),
    "distilbert": Family(
        sides=("encoder",),
        defaults={"dim": 768, "hidden_dim": 3072, "n_layers": 6, "n_heads": 12, "vocab_size": 30522,
                  "max_position_embeddings": 512, "activation": "gelu"},
        parts=_BERT.parts | sizes("n_layers", "dim", "hidden_dim", "n_heads") | {
            "activation": Of("activation"), "extra_embeddings": 0, "weights": ()},
        aliases={"hidden_size": "dim", "num_attention_heads": "n_heads",
                 "num_hidden_layers": "n_layers"}),
    "electra": _BERT.but(
        {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4,
         "embedding_size": 128}, weights=(of.narrow_weights,)),
    "falcon": _LLAMA.but(
        shape(4544, 0, 32, 71, None, 65024, 2048) | {
            "num_kv_heads": None, "ffn_hidden_size": None, "multi_query": True,
            "new_decoder_architecture": False, "parallel_attn": True, "bias": False,
            "alibi": False, "num_ln_in_parallel_attn": None, "activation": "gelu",
            "tie_word_embeddings": True},
        norm_kind="layer", gated=False, attention_bias=Of("bias"), mlp_bias=Of("bias"),
        activation=Of("activation"), d_head=None,
        d_ff=lambda f: f["ffn_hidden_size"] or 4 * f["hidden_size"],
        n_kv_heads=lambda f: f["num_kv_heads"] if f["new_decoder_architecture"]
        else 1 if f["multi_query"] else f["num_attention_heads"],
        positions=lambda f: "none" if f["alibi"] else "rope",
        absent=lambda f: ONE_NORM if f["parallel_attn"] and (
            f["num_ln_in_parallel_attn"] or 1 + f["new_decoder_architecture"]) != 2
        else frozenset()),
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3": Family(sides=("decoder",), defaults=_GEMMA3.defaults, parts=_GEMMA3.parts,
                     tables={"decoder": ("text_config",)}),
    "gemma3_text": _GEMMA3,
    "gpt2": _GPT2,
    "gpt_oss": _MIXTRAL.but(
        shape(2880, 2880, 36, 64, 8, 201088, 131072) | {
            "head_dim": 64, "attention_bias": True, "sliding_window": 128,
            "num_local_experts": 128, "num_experts_per_tok": 4},
        attention_bias=Of("attention_bias"), windowed_layers=of.windowed(lambda f, i: i % 2 == 0),
        weights=(of.expert_weights, of.expert_biases, of.sink_weights)),
    "gpt_neox": _LLAMA.but(
        shape(6144, 24576, 44, 64, None, 50432, 2048) | {
            "hidden_act": "gelu", "attention_bias": True},
        **_LAYER_NORM | {"attention_bias": Of("attention_bias")}, rotary_share=of.rotary(0.25)),
    "granite": _LLAMA.but({"embedding_multiplier": 1.0}, embed_scale=Of("embedding_multiplier")),
    "llama": _LLAMA,
    "m2m_100": _BART.but(
        {"vocab_size": 128112, "activation_function": "relu", "scale_embedding": True},
        embed_norm=False, absent=frozenset({"encoder.positions", "decoder.positions"})),
    "marian": _MARIAN,
    "mbart": _BART.but(absent=frozenset()),
    "ministral": _MISTRAL,
    "mistral": _MISTRAL.but(windowed_layers=lambda f: _ALL({**f, "layer_types": None})),
    "mixtral": _MIXTRAL,
    "modernbert": Family(
        sides=("encoder",),
        defaults=shape(768, 1152, 22, 12, None, 50368, 8192) | {
            "hidden_activation": "gelu", "local_attention": 128, "attention_bias": False,
            "mlp_bias": False, "norm_bias": False, "global_attn_every_n_layers": 3},
        parts=_HIDDEN | {
            "activation": Of("hidden_activation"), "vocab_size": Of("vocab_size"),
            "gated": True, "embed_norm": True, "attention_bias": Of("attention_bias"),
            "mlp_bias": Of("mlp_bias"), "max_len": Of("max_position_embeddings"),
            "lm_head": "none", "window": lambda f: f["local_attention"] // 2,
            "windowed_layers": lambda f: of.windowed(
                lambda f, i: i % f["global_attn_every_n_layers"])({**f, "sliding_window": 1}),
            "absent": lambda f: frozenset({"encoder.0.self_attention.pre_norm"})
            | (frozenset() if f["norm_bias"] else NO_NORM_BIAS)}),
    "moonshine": _MOONSHINE,
    "mt5": _MT5,
    "olmo": _LLAMA.but(
        {"vocab_size": 50304}, mlp_bias=False, norm_kind="layer",
        absent=frozenset({"norm.weight", "norm.bias"})),  # norms without gains
    "olmo2": _OLMO2,
    "olmo3": _OLMO2.but(
        {"sliding_window": 4096}, window=Of("sliding_window"),
        windowed_layers=of.windowed(lambda f, i: (i + 1) % 4)),
    "opt": _LLAMA.but(
        shape(768, 0, 12, 12, None, 50272, 2048) | {
            "ffn_dim": 3072, "activation_function": "relu", "do_layer_norm_before": True,
            "enable_bias": True, "word_embed_proj_dim": None, "tie_word_embeddings": True},
        **_LAYER_NORM | {"attention_bias": Of("enable_bias"), "mlp_bias": Of("enable_bias")},
        activation=Of("activation_function"), d_ff=Of("ffn_dim"), n_kv_heads=None, d_head=None,
        positions="table", max_len=lambda f: f["max_position_embeddings"] + 2,
        absent=lambda f: frozenset() if f["do_layer_norm_before"] else POST_NORM,
        weights=(of.narrow_weights,)),
    "phi": _PHI,
    "phi3": _LLAMA.but(
        shape(3072, 8192, 32, 32, None, 32064, 4096), attention_bias=False, mlp_bias=False,
        window=Of("sliding_window"), rotary_share=of.rotary(1.0),
        windowed_layers=lambda f: _ALL({**f, "layer_types": None})),
    "phimoe": _MIXTRAL.but(
        {"intermediate_size": 6400, "vocab_size": 32064, "num_local_experts": 16,
         "lm_head_bias": False},
        norm_kind="layer", attention_bias=Of("attention_bias"), head_bias=Of("lm_head_bias")),
    "qwen2": _QWEN3.but(
        {"head_dim": None}, qk_norm=False, attention_bias=True,
        # queries, keys and values have a bias, the output projection has none
        absent=frozenset({"self_attention.o.bias"})),
    "qwen3": _QWEN3,
    "qwen3_moe": Family(
        sides=("decoder",),
        defaults=_QWEN3.defaults | shape(2048, 6144, 24, 32, 4, 151936, 32768) | {
            "head_dim": None, "num_local_experts": 128, "num_experts_per_tok": 8,
            "moe_intermediate_size": 768, "decoder_sparse_step": 1},
        parts=_QWEN3.parts | {"experts_per_token": Of("num_experts_per_tok"),
                              "windowed_layers": lambda f: (
                                  bool(f["use_sliding_window"] and f["sliding_window"]),
                              ) * f["num_hidden_layers"], "weights": (of.expert_weights,)},
        aliases={"num_experts": "num_local_experts"}),
    "roberta": _ROBERTA,
    "smollm3": _LLAMA.but(
        shape(2048, 11008, 36, 16, 4, 128256, 32768) | {
            "tie_word_embeddings": True, "use_sliding_window": False},
        window=Of("sliding_window"), windowed_layers=of.windowed(lambda f, i: False)),
    "stablelm": _LLAMA.but(
        shape(2560, 6912, 32, 32, 32, 50304, 4096) | {
            "use_qkv_bias": False, "qk_layernorm": False, "use_parallel_residual": False},
        norm_kind="layer", attention_bias=Of("use_qkv_bias"), mlp_bias=False,
        qk_norm=Of("qk_layernorm"), rotary_share=of.rotary(0.25),
        absent=lambda f: frozenset({"self_attention.o.bias"})
        | (ONE_NORM if f["use_parallel_residual"] else frozenset()),
        weights=(lambda f, stack: of.wide_norm_weights(f, stack) if f["qk_layernorm"] else {},)),
    "starcoder2": _LLAMA.but(
        shape(3072, 12288, 30, 24, 2, 49152, 4096) | {
            "hidden_act": "gelu_pytorch_tanh", "use_bias": True, "tie_word_embeddings": True},
        **_LAYER_NORM | {"attention_bias": Of("use_bias"), "mlp_bias": Of("use_bias")},
        window=Of("sliding_window"),
        windowed_layers=lambda f: _ALL({**f, "layer_types": None})),
    "t5": _T5,
    "t5gemma": _T5GEMMA,
    "t5gemma2": Family(
        sides=_SIDES, defaults=_GEMMA3.defaults,
        parts=_GEMMA3.parts | {  # one attention reads what is written and what was read
            "absent": _MERGED,
            "weights": (lambda f, stack: {"embedding.end_of_image.weight": (stack.d_model,)},)},
        tables={"encoder": ("encoder", "text_config"), "decoder": ("decoder",)}),
    "umt5": _MT5.but(absent=frozenset({"encoder.positions", "decoder.positions"})),
    "vit": _BERT.but(
        {"image_size": 224, "patch_size": 16, "num_channels": 3},
        embed_norm=False, absent=frozenset(), extra_embeddings=1,  # the class token
        vocab_size=1, max_len=lambda f: of.n_patches(f) + 1,
        input_slots=lambda f: of.n_patches(f) + 1,
        input_features=lambda f: f["num_channels"] * f["patch_size"] ** 2),
    "whisper": _WHISPER,
    "xlm-roberta": _ROBERTA.but({"vocab_size": 30522}),
})  # fmt: skip
