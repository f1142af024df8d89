"""Other projects' checkpoints: what is translated by hand-checked fields, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mu_ref.config import ModelConfig
from mu_ref.errors import ConfigError, MuRefError, WeightsError
from mu_ref.readers import config_from_fields, microsoft_mu, read_checkpoint, t5gemma
from mu_ref.readers.apple_redrafter import apple_name_of, read_apple_drafter
from mu_ref.redrafter.config import DrafterConfig

DATA = Path(__file__).parents[1] / "parity" / "data"
MU, GEMMA = "microsoft-mu-a", "t5gemma-a"


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        return Path(shutil.copytree(DATA / name, tmp_path / name))

    return make


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def edit_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


# -- what the fields become ------------------------------------------------------------------------


def config_of(tmp_path: Path, **fields: Any) -> ModelConfig:
    return config_from_fields(json.loads(json.dumps(fields)))


def test_fields_of_the_public_mu_code_by_hand(tmp_path: Path) -> None:
    model = config_of(
        tmp_path, n_encoder_layer=3, n_decoder_layer=2, n_embd=40, qkv_embd=24, n_head=6,
        n_kv_head=3, hidden_dim=50, is_interleaved=True, block_size=128, rope_theta=77,
        rope_factor=2.0, pad_token_id=9, vocab_size=100, dropout=0.2,
    )  # fmt: skip
    encoder, decoder = model.encoder, model.decoder
    assert (encoder.n_layers, decoder.n_layers) == (3, 2)
    assert (encoder.rope_origin, decoder.rope_origin) == ("centre", "start")
    for stack in (encoder, decoder):
        assert (stack.d_model, stack.d_attn, stack.d_head, stack.d_ff) == (40, 24, 4, 50)
        assert stack.attention_scale == 0.5
        assert stack.kv_head_of == (0, 0, 1, 1, 2, 2)
        assert (stack.rope_theta, stack.rope_ntk_factor, stack.rope_base_len) == (77, 2.0, 128)
        assert (stack.norm_kind, stack.norm_placement, stack.activation) == (
            "rms", "pre", "gelu_tanh",
        )  # fmt: skip
    assert (model.pad_id, model.vocab_size, model.dropout) == (9, 100, 0.2)


def test_without_interleaving_heads_go_round(tmp_path: Path) -> None:
    model = config_of(tmp_path, n_encoder_layer=1, is_interleaved=False, n_head=6, n_kv_head=3)
    assert model.decoder.kv_head_of == (0, 1, 2, 0, 1, 2)


def test_without_qkv_embd_attention_is_as_wide_as_the_stream(tmp_path: Path) -> None:
    model = config_of(tmp_path, n_encoder_layer=1, n_embd=48, qkv_embd=None, n_head=6, n_kv_head=3)
    assert model.encoder.d_attn == 48


def test_fields_of_t5gemma_by_hand(tmp_path: Path) -> None:
    stack = {
        "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 50,
        "query_pre_attn_scalar": 64, "sliding_window": 5, "attn_logit_softcapping": 7.0,
        "final_logit_softcapping": None, "hidden_activation": "gelu_pytorch_tanh",
        "eos_token_id": [1, 41],
    }  # fmt: skip
    model = config_of(
        tmp_path, model_type="t5gemma", encoder=stack, decoder=stack | {"vocab_size": 60}
    )
    assert (model.encoder_vocab_size, model.vocab_size) == (50, 60)
    assert (model.pad_id, model.eos_id, model.bos_id) == (0, 1, 2)
    assert model.final_softcap is None
    for read in (model.encoder, model.decoder):
        assert (read.d_model, read.d_ff, read.d_attn, read.d_kv) == (16, 20, 32, 16)
        assert read.attention_scale == 0.125  # 64 ** -0.5
        assert read.attention_softcap == 7.0
        assert read.embed_scale == 4.0
        assert (read.window, read.windowed_layers) == (5, (True, False, True))
        assert (read.norm_kind, read.norm_placement) == ("rms_plus_one", "dual")
        assert read.gated
        assert read.activation == "gelu_tanh"


def test_layer_types_say_which_layers_have_a_window(tmp_path: Path) -> None:
    stack = {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]}
    model = config_of(tmp_path, model_type="t5gemma", encoder=stack, decoder=stack)
    assert model.decoder.windowed_layers == (False, True)


# -- what is not said takes the project's own defaults ---------------------------------------------


def test_the_defaults_of_the_public_mu_code(tmp_path: Path) -> None:
    """MuConfig and MuRMSNorm of modeling_mu.py; the tokenizer is Phi-3.5's."""
    data = json.loads(config_of(tmp_path, n_encoder_layer=20).to_json())
    encoder, decoder = data.pop("encoder"), data.pop("decoder")
    assert data == {
        "name": "microsoft-mu", "vocab_size": 32128, "encoder_vocab_size": 32128,
        "shared_embedding": True, "tied_head": True, "head_bias": False, "final_softcap": None,
        "max_len": 1024, "pad_id": 0, "bos_id": 1, "eos_id": 32000, "mask_decoder_pads": True,
        "dropout": 0.1, "unseeing": "mean",
    }  # fmt: skip
    stack = {
        "d_model": 1024, "d_ff": 4096, "n_heads": 6, "n_kv_heads": 3, "d_head": 64,
        "kv_head_map": "cyclic", "attention_scale": 0.125, "attention_softcap": None,
        "attention_bias": True, "mlp_bias": True, "window": None, "norm_kind": "rms",
        "norm_placement": "pre", "norm_eps": 1e-6, "embed_norm": False, "embed_scale": 1.0,
        "activation": "gelu_tanh", "gated": False, "rope_theta": 10000, "rope_ntk_factor": 1.0,
        "rope_base_len": 1024, "rope_length": "padded",
    }  # fmt: skip
    layers = {"n_layers": 20, "windowed_layers": [False] * 20, "rope_origin": "centre"}
    assert encoder == stack | layers
    layers = {"n_layers": 10, "windowed_layers": [False] * 10, "rope_origin": "start"}
    assert decoder == stack | layers
    named = config_of(tmp_path, n_encoder_layer=1, name="mine", eos_token_id=7, norm_eps=0.5)
    assert (named.name, named.eos_id, named.decoder.norm_eps) == ("mine", 7, 0.5)


def test_the_defaults_of_t5gemma(tmp_path: Path) -> None:
    """T5GemmaModuleConfig of transformers 5.23: Gemma 2's 2B widths, every second layer global."""
    data = json.loads(config_of(tmp_path, encoder={}, decoder={}).to_json())
    encoder, decoder = data.pop("encoder"), data.pop("decoder")
    assert data == {
        "name": "t5gemma", "vocab_size": 256000, "encoder_vocab_size": 256000,
        "shared_embedding": False, "tied_head": True, "head_bias": False, "final_softcap": 30.0,
        "max_len": 8192, "pad_id": 0, "bos_id": 2, "eos_id": 1, "mask_decoder_pads": False,
        "dropout": 0.0, "mask_cross_pads": False, "unseeing": "mean",
    }  # fmt: skip
    assert encoder == decoder == {
        "n_layers": 26, "d_model": 2304, "d_ff": 9216, "n_heads": 8, "n_kv_heads": 4,
        "d_head": 256, "kv_head_map": "blocked", "attention_scale": 1 / 16,
        "attention_softcap": 50.0, "attention_bias": False, "mlp_bias": False, "window": 4096,
        "windowed_layers": [True, False] * 13, "norm_kind": "rms_plus_one",
        "norm_placement": "dual", "norm_eps": 1e-6, "embed_norm": False, "embed_scale": 48.0,
        "activation": "gelu_tanh", "gated": True, "rope_theta": 10000.0, "rope_origin": "start",
        "rope_ntk_factor": 1.0, "rope_base_len": 8192, "rope_length": "padded",
    }  # fmt: skip


def test_each_stack_of_t5gemma_has_fields_of_its_own(tmp_path: Path) -> None:
    small = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "head_dim": None,
             "num_key_value_heads": 1, "rms_norm_eps": 0.5, "attention_bias": True,
             "max_position_embeddings": 99, "pad_token_id": 5, "bos_token_id": 6,
             "eos_token_id": 7, "rope_parameters": {"rope_theta": 77.0}}  # fmt: skip
    config = config_of(
        tmp_path, _name_or_path="a/b", dropout_rate=0.3, tie_word_embeddings=False,
        encoder={"sliding_window": None, "rope_theta": 55.0}, decoder=small,
    )  # fmt: skip
    assert (config.name, config.dropout, config.tied_head) == ("a/b", 0.3, False)
    assert (config.pad_id, config.bos_id, config.eos_id, config.max_len) == (5, 6, 7, 99)
    decoder, encoder = config.decoder, config.encoder
    assert (decoder.d_head, decoder.norm_eps, decoder.attention_bias) == (16, 0.5, True)
    assert (decoder.rope_theta, decoder.rope_base_len) == (77.0, 99)
    assert (encoder.rope_theta, encoder.window, any(encoder.windowed_layers)) == (55.0, None, False)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("gelu_pytorch_tanh", "gelu_tanh"), ("gelu_new", "gelu_tanh"), ("gelu", "gelu"),
     ("silu", "silu"), ("swish", "silu"), ("relu", "relu")],
)  # fmt: skip
def test_activations_have_other_names_there(tmp_path: Path, theirs: str, ours: str) -> None:
    stack = {"hidden_activation": theirs}
    assert config_of(tmp_path, encoder=stack, decoder={}).encoder.activation == ours


# -- names -----------------------------------------------------------------------------------------

MU_NAMES = {
    "transformer.wte.weight": "embedding.weight", "lm_head.weight": None,
    "module.transformer.ln_e.weight": "encoder.final_norm.weight",
    "transformer.ln_f.weight": "decoder.final_norm.weight",
    "transformer.e.12.ln1.weight": "encoder.12.self_attention.pre_norm.weight",
    "transformer.e.0.ln2.weight": "encoder.0.mlp.pre_norm.weight",
    "transformer.h.3.ln1.weight": "decoder.3.self_attention.pre_norm.weight",
    "transformer.h.3.ln2.weight": "decoder.3.cross_attention.pre_norm.weight",
    "transformer.h.3.ln3.weight": "decoder.3.mlp.pre_norm.weight",
    "transformer.e.1.attn.q_linear.weight": "encoder.1.self_attention.q.weight",
    "transformer.h.1.causal_attn.k_linear.bias": "decoder.1.self_attention.k.bias",
    "transformer.h.1.cross_attn.v_linear.weight": "decoder.1.cross_attention.v.weight",
    "transformer.h.1.cross_attn.out_linear.bias": "decoder.1.cross_attention.o.bias",
    "transformer.e.1.mlp.fc1.weight": "encoder.1.mlp.up.weight",
    "transformer.h.1.mlp.fc2.bias": "decoder.1.mlp.down.bias",
    "e.1.ln3.weight": "e.1.ln3.weight", "e.1.mlp.fc3.weight": "e.1.mlp.fc3.weight",
    "e.1.other.fc1.weight": "e.1.other.fc1.weight", "e.1.ln1.fc1.weight": "e.1.ln1.fc1.weight",
    "medusa": "medusa",
}  # fmt: skip
GEMMA_NAMES = {
    "model.encoder.embed_tokens.weight": "encoder.embedding.weight",
    "model.decoder.norm.weight": "decoder.final_norm.weight",
    "lm_head.out_proj.weight": "head.weight",
    "model.encoder.layers.10.pre_self_attn_layernorm.weight":
        "encoder.10.self_attention.pre_norm.weight",
    "model.decoder.layers.0.post_cross_attn_layernorm.weight":
        "decoder.0.cross_attention.post_norm.weight",
    "model.decoder.layers.0.post_feedforward_layernorm.weight": "decoder.0.mlp.post_norm.weight",
    "model.encoder.layers.1.self_attn.q_proj.weight": "encoder.1.self_attention.q.weight",
    "model.decoder.layers.1.cross_attn.o_proj.bias": "decoder.1.cross_attention.o.bias",
    "model.decoder.layers.1.mlp.gate_proj.weight": "decoder.1.mlp.gate.weight",
    "model.decoder.layers.1.mlp.down_proj.weight": "decoder.1.mlp.down.weight",
    "model.decoder.layers.1.extra.x_proj.weight": "decoder.1.extra.x.weight",
    "medusa": "medusa",
}  # fmt: skip
APPLE_NAMES = {
    "input_proj.weight": "drafter.input_proj.weight", "input_proj.bias": "drafter.input_proj.bias",
    "rnn_u.weight": "drafter.rnn_u.weight", "rnn_u.bias": "drafter.rnn_w.bias",
    "rnn_w.weight": "drafter.rnn_w.weight", "lm_head.0.linear.weight": "drafter.0.weight",
    "lm_head.11.linear.bias": "drafter.11.bias", "lm_head.2.weight": "drafter.head.weight",
    "lm_head.2.bias": None, "rnn_w.bias": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("translate", "names"),
    [(microsoft_mu.name_of, MU_NAMES), (t5gemma.name_of, GEMMA_NAMES),
     (apple_name_of, APPLE_NAMES)],
)  # fmt: skip
def test_names_by_hand(translate, names: dict[str, str | None]) -> None:
    assert {name: translate(name) for name in names} == names


def test_the_sizes_of_apple_s_drafter_follow_from_its_tensors() -> None:
    """Width 4, 7 tokens: with a projection 8 -> 6 and two blocks, or without and at 8."""
    shapes = {"rnn_u.weight": (4, 4), "rnn_u.bias": (4,), "rnn_w.weight": (4, 4),
              "input_proj.weight": (6, 8), "input_proj.bias": (6,),
              "lm_head.0.linear.weight": (6, 6),
              "lm_head.0.linear.bias": (6,), "lm_head.1.linear.weight": (6, 6),
              "lm_head.1.linear.bias": (6,), "lm_head.2.weight": (7, 6)}  # fmt: skip
    tensors = {name: np.full(shape, float(i)) for i, (name, shape) in enumerate(shapes.items())}
    config, weights = read_apple_drafter(tensors)
    assert config == DrafterConfig(d_model=4, vocab_size=7, d_exit=6, n_blocks=2, rnn=True)
    assert weights.keys() == {apple_name_of(name) for name in shapes}
    assert (weights["drafter.rnn_w.bias"] == 1).all()
    plain, _ = read_apple_drafter({"lm_head.0.weight": np.ones((7, 8))})
    assert plain == DrafterConfig(d_model=4, vocab_size=7, d_exit=8, n_blocks=0, rnn=False)
    with pytest.raises(WeightsError, match="must have Apple's names, got 'x'"):
        read_apple_drafter({"x": np.ones(1), "lm_head.0.weight": np.ones((7, 8))})
    with pytest.raises(WeightsError, match="must have a head"):
        read_apple_drafter({})
    with pytest.raises(WeightsError, match=r"missing .*rnn_w.bias"):
        read_apple_drafter({n: t for n, t in tensors.items() if n != "rnn_u.bias"})


# -- the tied head ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "head", "table"),
    [
        (MU, "lm_head.weight", "transformer.wte.weight"),
        (GEMMA, "lm_head.out_proj.weight", "model.decoder.embed_tokens.weight"),
    ],
)
def test_a_copy_of_the_tied_embedding_is_accepted_and_another_matrix_is_not(
    copy, name: str, head: str, table: str
) -> None:
    folder = copy(name)
    assert table in load_file(folder / "model.safetensors")
    edit_tensors(folder, lambda t: t.pop(head, None))
    without = read_checkpoint(folder)[1]
    edit_tensors(folder, lambda t: t.update({head: t[table].copy()}))
    assert read_checkpoint(folder)[1].keys() == without.keys()
    edit_tensors(folder, lambda t: t[head].__setitem__((0, 0), 42))
    with pytest.raises(WeightsError, match=f"{head} must equal the tied embedding; it differs"):
        read_checkpoint(folder)


def test_a_head_without_any_embedding_is_refused(copy) -> None:
    folder = copy(MU)
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": t.pop("transformer.wte.weight")}))
    with pytest.raises(WeightsError):
        read_checkpoint(folder)


# -- files that are wrong --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [MU, GEMMA])
def test_missing_and_additional_tensors_are_named(copy, name: str) -> None:
    folder = copy(name)
    edit_tensors(folder, lambda t: t.update({"medusa.weight": np.zeros((2, 2))}))
    with pytest.raises(WeightsError, match=r"unknown \['medusa\.weight'\]"):
        read_checkpoint(folder)
    edit_tensors(folder, lambda t: t.pop("medusa.weight"))
    gone = next(n for n in load_file(folder / "model.safetensors") if ".1." in n)
    edit_tensors(folder, lambda t: t.pop(gone))
    with pytest.raises(WeightsError, match=r"missing .* \(1 in all\)"):
        read_checkpoint(folder)


def test_a_checkpoint_of_other_sizes_than_its_config_is_refused(copy) -> None:
    folder = copy(MU)
    edit(folder, lambda f: f.update(hidden_dim=f["hidden_dim"] + 1))
    with pytest.raises(WeightsError, match="must have shape"):
        read_checkpoint(folder)


def test_a_missing_file_is_named(copy) -> None:
    folder = copy(MU)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        read_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config\.json must be a JSON file; there is no such"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "must be a JSON file, got no JSON"),
        (b"{'single': 'quotes'}", "must be a JSON file, got no JSON"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"[1, 2]", "JSON object, got list"),
        (b"{}", "got model_type None"),
        (b'{"model_type": "qwen2"}', "got model_type 'qwen2'"),
        (b'{"model_type": "t5gemma"}', "object 'encoder'"),
        (b'{"model_type": "t5gemma", "encoder": {}, "decoder": 1}', "object 'decoder'"),
    ],
)
def test_a_config_that_is_none_of_ours_is_refused(tmp_path: Path, text: bytes, what: str) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ConfigError, match=what):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"qkv_embd": 50}, "qkv_embd"),
        ({"n_kv_head": 4}, "n_kv_heads"),
        ({"n_encoder_layer": 0}, "n_encoder_layer must be a whole number from 1 to 1,024, got 0"),
        ({"qkv_embd": 18}, "d_head"),
        ({"vocab_size": 0}, "vocab_size"),
    ],
)
def test_bad_values_of_the_public_mu_code_name_their_field(tmp_path, fields, what) -> None:
    with pytest.raises(ConfigError, match=what):
        config_of(tmp_path, **({"n_encoder_layer": 1} | fields))


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"hidden_activation": "tanh"}, "hidden_activation must be one of .*gelu.*got 'tanh'"),
        ({"layer_types": ["linear_attention"] * 26}, "layer_types"),
        ({"layer_types": ["full_attention"]}, "layer_types must be .* each of the 26 layers"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type"),
        ({"num_key_value_heads": 3}, "n_kv_heads"),
        ({"head_dim": 7}, "d_head"),
        ({"sliding_window": 0}, "window"),
    ],
)
def test_bad_values_of_t5gemma_name_their_field(tmp_path: Path, fields: dict, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        config_of(tmp_path, model_type="t5gemma", encoder={}, decoder=fields)


@pytest.mark.parametrize("flag", [1, 0, "true", None])
def test_a_flag_is_true_or_false(tmp_path: Path, flag: Any) -> None:
    with pytest.raises(ConfigError, match="is_interleaved must be true or false, got"):
        config_of(tmp_path, n_encoder_layer=1, is_interleaved=flag)
    with pytest.raises(ConfigError, match=r"decoder\.attention_bias must be true or false, got"):
        config_of(tmp_path, model_type="t5gemma", encoder={}, decoder={"attention_bias": flag})


def test_fields_that_nothing_reads_are_named(tmp_path: Path, capsys: Any) -> None:
    config_of(tmp_path, n_encoder_layer=1, model_type="mu", dtype="float16")
    assert capsys.readouterr().err == ""
    config_of(tmp_path, n_encoder_layer=1, **dict.fromkeys("gecafdb", 1))
    assert capsys.readouterr().err.endswith(
        "config.json: these fields are not known and change nothing: a, b, c, d, e, ...\n"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"n_encoder_layer": "two"},
        {"n_encoder_layer": None},
        {"n_encoder_layer": 1, "n_head": 0},
        {"n_encoder_layer": 1, "n_kv_head": 0},
        {"n_encoder_layer": 1, "n_embd": "wide"},
        {"n_encoder_layer": 1, "rope_theta": "10000"},
        {"n_encoder_layer": 1, "block_size": 0, "rope_factor": 2.0},
        {"model_type": "t5gemma", "encoder": {}, "decoder": {"num_hidden_layers": "two"}},
        {"model_type": "t5gemma", "encoder": {}, "decoder": {"query_pre_attn_scalar": 0}},
        {"model_type": "t5gemma", "encoder": {}, "decoder": {"layer_types": 3}},
        {"model_type": "t5gemma", "encoder": {}, "decoder": {"rope_parameters": "default"}},
        {"model_type": "t5gemma", "encoder": {}, "decoder": {"eos_token_id": []}},
        {"model_type": "t5gemma", "encoder": {}, "decoder": {"attn_logit_softcapping": 0.0}},
    ],
    ids=str,
)
def test_a_value_no_model_can_have_is_an_error_of_ours(tmp_path: Path, fields: dict) -> None:
    with pytest.raises(MuRefError):
        config_of(tmp_path, **fields)
