"""Apple's models in our configurations."""

import json

import numpy as np

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.readers.apple_redrafter import read_apple_drafter
from mu_ref.redrafter.config import DrafterConfig
from mu_ref.weights import Weights

from .comparison import Golden

LAYER = {
    "self_attn_q_proj": "self_attention.q",
    "self_attn_k_proj": "self_attention.k",
    "self_attn_v_proj": "self_attention.v",
    "self_attn_o_proj": "self_attention.o",
    "mlp_gate_proj": "mlp.gate",
    "mlp_up_proj": "mlp.up",
    "mlp_down_proj": "mlp.down",
    "input_layernorm": "self_attention.pre_norm",
    "post_attention_layernorm": "mlp.pre_norm",
}


def drafter_of(golden: Golden) -> tuple[DrafterConfig, Weights]:
    """Read the arrays `weight_...` and check them against `config_...`."""
    names = {"weight_vocab_head_weight": f"lm_head.{int(golden['config_num_draft_layers'])}.weight"}
    for part in ("rnn_u_weight", "rnn_u_bias", "rnn_w_weight"):
        names[f"weight_{part}"] = part.replace("_weight", ".weight").replace("_bias", ".bias")
    for part in ("weight", "bias"):
        names[f"weight_input_proj_{part}"] = f"input_proj.{part}"
        for block in range(int(golden["config_num_draft_layers"])):
            names[f"weight_resblock{block}_linear_{part}"] = f"lm_head.{block}.linear.{part}"
    tensors = {apple: golden[name] for name, apple in names.items() if name in golden}
    drafter, weights = read_apple_drafter(tensors)
    given = (int(golden["config_hidden_size"]), int(golden["config_vocab_size"]),
             int(golden["config_exit_dim"]), bool(golden["config_rnn"]))  # fmt: skip
    assert given == (drafter.d_model, drafter.vocab_size, drafter.d_exit, drafter.rnn)
    return drafter, weights


def model_of(
    d_model: int, vocab_size: int, *, n_layers: int = 1, d_ff: int = 1, n_heads: int = 1,
    n_kv_heads: int = 1, eps: float = 1e-5, theta: float = 1e4, tied: bool = True,
) -> ModelConfig:  # fmt: skip
    """Return a LLaMA; where only its embedding is used, the rest does not matter."""
    d_head = max(2, d_model // n_heads)
    decoder = StackConfig(
        n_layers=n_layers, d_model=d_model, d_ff=d_ff, n_heads=n_heads, n_kv_heads=n_kv_heads,
        d_head=d_head, kv_head_map="blocked", attention_scale=d_head**-0.5,
        attention_softcap=None, attention_bias=False, mlp_bias=False, window=None,
        windowed_layers=(False,) * n_layers, norm_kind="rms", norm_placement="pre", norm_eps=eps,
        embed_norm=False, embed_scale=1.0, activation="silu", gated=True, rope_theta=theta,
        rope_origin="start", rope_ntk_factor=1.0, rope_base_len=512, rope_length="row",
    )  # fmt: skip
    return ModelConfig(
        name="llama", encoder=None, decoder=decoder, vocab_size=vocab_size,
        encoder_vocab_size=vocab_size, shared_embedding=True, tied_head=tied, head_bias=False,
        final_softcap=None, max_len=512, pad_id=0, bos_id=1, eos_id=2, mask_decoder_pads=False,
        dropout=0.0,
    )  # fmt: skip


def llama_of(golden: Golden) -> tuple[ModelConfig, Weights]:
    """Read `llm_config_json` and `llm_weight__...`."""
    fields = json.loads(str(golden["llm_config_json"]))
    model = model_of(
        fields["hidden_size"], fields["vocab_size"], n_layers=fields["num_hidden_layers"],
        d_ff=fields["intermediate_size"], n_heads=fields["num_attention_heads"],
        n_kv_heads=fields["num_key_value_heads"], eps=fields["rms_norm_eps"],
        theta=fields["rope_theta"], tied=fields["tie_word_embeddings"],
    )  # fmt: skip
    names = {
        "model_embed_tokens_weight": "embedding.weight",
        "model_norm_weight": "decoder.final_norm.weight",
        "lm_head_weight": "head.weight",
    }
    for layer in range(fields["num_hidden_layers"]):
        for theirs, ours in LAYER.items():
            names[f"model_layers_{layer}_{theirs}_weight"] = f"decoder.{layer}.{ours}.weight"
    weights: dict[str, np.ndarray] = {}
    for theirs, ours in names.items():
        if f"llm_weight__{theirs}" in golden:
            weights[ours] = golden[f"llm_weight__{theirs}"]
    return model, weights
