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
from mu_ref.readers import read_checkpoint, read_config

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
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields))
    return read_config(path)


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
        "eos_token_id": [1, 107],
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
        (b"", "JSON file"),
        (b"{'single': 'quotes'}", "JSON file"),
        (b"\xff\xfe\x00", "JSON file"),
        (b"[1, 2]", "JSON object, got list"),
        (b"{}", "got model_type None"),
        (b'{"model_type": "llama"}', "got model_type 'llama'"),
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
        ({"n_encoder_layer": 0}, "n_layers"),
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
        ({"layer_types": ["full_attention"]}, "windowed_layers"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type"),
        ({"num_key_value_heads": 3}, "n_kv_heads"),
        ({"head_dim": 7}, "d_head"),
        ({"sliding_window": 0}, "window"),
    ],
)
def test_bad_values_of_t5gemma_name_their_field(tmp_path: Path, fields: dict, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        config_of(tmp_path, model_type="t5gemma", encoder={}, decoder=fields)


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
