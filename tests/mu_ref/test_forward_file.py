"""`mu-ref forward`: the arrays and weights that it takes, and those that it refuses."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mu_ref.border.arrays import read_npz
from mu_ref.errors import ConfigError, InputError, MuRefError, WeightsError
from mu_ref.golden.forward import forward_file
from mu_ref.readers import config_from_fields, read_checkpoint

CHECKPOINT = Path(__file__).parents[1] / "parity" / "data" / "microsoft-mu-b"  # 131 tokens
IDS = np.array([[3, 4, 5], [6, 7, 0]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "model"))


def run(tmp_path: Path, folder: Path = CHECKPOINT, n_new: int = 1, **arrays: np.ndarray) -> Path:
    ids = {"encoder_input_ids": IDS, "decoder_input_ids": IDS}
    np.savez(tmp_path / "in.npz", **{**ids, **arrays})
    forward_file(folder, tmp_path / "in.npz", tmp_path / "out.npz", np.float32, n_new)
    return tmp_path / "out.npz"


def test_results_of_an_earlier_run_may_stand_beside_the_ids(tmp_path: Path) -> None:
    first = read_npz(run(tmp_path))
    again = read_npz(run(tmp_path, **first, encoder_attention_mask=IDS != 0))
    for name, array in first.items():
        np.testing.assert_array_equal(again[name], array)


@pytest.mark.parametrize(
    ("arrays", "rule"),
    [
        ({"attention_masks": IDS}, r"must hold .* got \['attention_masks'\] too"),
        ({"input_ids": IDS, "labels": IDS}, r"got \['input_ids', 'labels'\] too"),
        ({"attention_mask": IDS}, "attention_mask must be 0 and 1 in the shape of encoder_input"),
        ({"decoder_attention_mask": IDS[:, :2]}, "0 and 1 in the shape of decoder_input_ids"),
        ({"attention_mask": IDS > 0, "encoder_attention_mask": IDS > 3},
         "are two names of one mask, and must be equal; they differ"),
        ({"encoder_input_ids": IDS * 1.0}, "encoder_input_ids must be integers .* float64"),
        ({"encoder_input_ids": IDS > 0}, r"encoder_input_ids must be integers .* bool \(2, 3\)"),
        ({"encoder_input_ids": IDS[0]}, r"encoder_input_ids must be integers .* \(3,\)"),
        ({"encoder_input_ids": IDS[:0]}, r"encoder_input_ids must be .* one, got \(0, 3\)"),
        ({"decoder_input_ids": IDS[:, :0]}, r"decoder_input_ids must be .* at least one"),
        ({"decoder_input_ids": IDS - 1}, r"decoder_input_ids must lie in \[0, 131\), got -1 to 6"),
        ({"decoder_input_ids": IDS + 124}, r"must lie in \[0, 131\), got 124 to 131"),
        ({"decoder_input_ids": np.array([[2**63]], np.uint64)}, "got 9223372036854775808"),
        ({"decoder_input_ids": IDS[:1]}, "the same number of rows, got 2 and 1"),
        ({"encoder_attention_mask": IDS[:, :2]}, r"mask must be 0 and 1 in the shape of"),
        ({"encoder_attention_mask": np.full(IDS.shape, 0.5)}, "mask must be 0 and 1"),
        ({"encoder_attention_mask": IDS}, "mask must be 0 and 1"),
        ({"encoder_attention_mask": -(IDS > 0).astype(int)}, "mask must be 0 and 1"),
        ({"encoder_attention_mask": (IDS == 0).astype(int)}, "a token that is not masked"),
        ({"encoder_input_ids": IDS * [[1], [0]]}, "a token that is not masked"),
    ],
)  # fmt: skip
def test_arrays_that_are_not_understood_are_refused(tmp_path: Path, arrays, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        run(tmp_path, **arrays)
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("n_new", [-1, 10**9, True, 1.5])
def test_the_number_of_new_tokens_has_a_range(tmp_path: Path, n_new) -> None:
    with pytest.raises(InputError, match="max_new_tokens must be a whole number from 0 to 16,384"):
        run(tmp_path, n_new=n_new)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, folder: Path, bad: float) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.e.0.mlp.fc1.weight"][1, 2] = bad
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"e\.0\.mlp\.fc1\.weight must hold .* at \[1, 2\]"):
        run(tmp_path, folder)


def test_weights_that_lead_to_no_numbers_are_refused(tmp_path: Path, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if "fc" in name or "linear" in name:  # 2^55 * 2^55 * 2^55 is beyond float32
            tensors[name] = np.sign(tensors[name]) * np.float32(2.0**55)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match="must have weights that float32 can compute with"):
        run(tmp_path, folder)
    assert not (tmp_path / "out.npz").exists()


# -- config.json -----------------------------------------------------------------------------------


def changed(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_head", -1), ("n_head", True), ("n_head", "4"), ("n_head", 2**70), ("n_kv_head", 0),
        ("rope_theta", None), ("rope_theta", -1), ("rope_theta", 1e300), ("rope_theta", "10000"),
        ("pad_token_id", True), ("pad_token_id", "0"), ("pad_token_id", 1.5),
        ("pad_token_id", None), ("pad_token_id", [1, 2]), ("pad_token_id", -1),
        ("pad_token_id", 131), ("eos_token_id", 131), ("eos_token_id", None),
        ("n_encoder_layer", 10**8), ("n_encoder_layer", None), ("n_decoder_layer", 2.0),
        ("vocab_size", -1), ("vocab_size", 2**70), ("dropout", 1.5), ("dropout", None),
        ("rope_factor", 0), ("block_size", 10**9), ("norm_eps", -1), ("is_interleaved", 1),
        ("is_interleaved", None), ("name", 3), ("hidden_dim", {"x": 1}), ("n_embd", [32]),
    ],
)  # fmt: skip
def test_each_field_of_a_config_is_understood_or_named(folder: Path, field: str, value) -> None:
    changed(folder, **{field: value})
    with pytest.raises(ConfigError, match=rf"config\.json: {field} must be .*, got ") as caught:
        read_checkpoint(folder)
    assert len(str(caught.value)) < 250


def test_sizes_that_no_machine_holds_are_refused_before_anything_is_read(folder: Path) -> None:
    changed(folder, n_embd=2**24, hidden_dim=2**24)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"number of weights must be .* to 1,000,000,000,000"):
        read_checkpoint(folder)


def test_fields_that_nothing_reads_are_named_in_a_warning(folder: Path, capsys) -> None:
    changed(folder, medusa_heads=4, zebra=None)
    read_checkpoint(folder)
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "config.json: these fields are not known and change nothing: medusa_heads" in warning
    changed(folder, **{"a\x1b[31m": 1})
    read_checkpoint(folder)
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (b"null", "must hold a JSON object, got NoneType"),
        (b'"text"', "must hold a JSON object, got str"),
        (b'{"a": ' * 100_000, "nested too deep"),
        (b'{"n_embd": 1, "n_embd": 2}', "'n_embd' stands twice"),
        (b'{"rope_theta": NaN}', "NaN is no number of JSON"),
        (b'{"rope_theta": 1e999}', "1e999' is too large a number"),
        (b'{"n_embd": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b'{"name": "\\ud800"}', "surrogate"),
        (b'{"model_type": ["t5gemma"]}', "got model_type \\['t5gemma'\\]"),
        (b'{"model_type": "t5gemma2", "encoder": {}, "decoder": {}}', "T5Gemma 2 is not supported"),
    ],
)
def test_a_config_json_with_no_single_meaning_is_refused(tmp_path: Path, text, rule: str) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ConfigError, match=rule):
        read_checkpoint(tmp_path)


def test_byte_order_marks_and_other_line_ends_are_read(folder: Path) -> None:
    path = folder / "config.json"
    before = read_checkpoint(folder)[0]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_checkpoint(folder)[0] == before


T5GEMMA = {"num_hidden_layers": 2, "vocab_size": 60, "hidden_size": 16}


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"pad_token_id": 1.5}, "decoder.pad_token_id must be .* got 1.5"),
        ({"bos_token_id": None}, "decoder_start_token_id or bos_token_id must be .* got null"),
        ({"bos_token_id": True}, "decoder.bos_token_id must be .* got True"),
        ({"eos_token_id": [1, 99]}, "decoder.eos_token_id must be .* got 99"),
        ({"eos_token_id": []}, r"decoder.eos_token_id must be .* got \[\]"),
        ({"eos_token_id": "1"}, "decoder.eos_token_id must be .* got '1'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 8.0}}, "rope_scaling.type .*'dynamic'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.rope_type must be .* 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling.rope_type must be .*'llama3'"),
        ({"rope_scaling": {"type": "linear"}}, r"must hold rope_type .* factor, got \['type'\]"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "decoder.factor must be .* got 0"),
        ({"rope_scaling": {"type": "linear", "rope_type": "default"}}, "must say one kind"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1, got 0.5"),
        ({"rope_parameters": {"full_attention": {}}}, r"got \['full_attention'\]"),
        ({"rope_parameters": {"rope_theta": None}}, "decoder.rope_theta must be .* got None"),
        ({"rope_parameters": {"rope_theta": 1.0, "factor": 2}}, r"must hold rope_type .*'factor'"),
        ({"rope_parameters": [1]}, r"rope_parameters must be an object or null, got \[1\]"),
        ({"layer_types": "full_attention"}, "layer_types must be a list"),
        ({"layer_types": [1, 2]}, "layer_types must be one of"),
        ({"num_hidden_layers": 10**8}, "num_hidden_layers must be .* got 100000000"),
        ({"head_dim": 0}, "decoder.head_dim must be"),
        ({"num_attention_heads": 0}, "decoder.num_attention_heads must be"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar must be a number above 0"),
        ({"sliding_window": -3}, "sliding_window must be"),
        ({"attention_bias": 0}, "attention_bias must be true or false"),
        ({"hidden_activation": ["gelu"]}, "hidden_activation must be one of"),
        ({"cross_attention_hidden_size": 17}, "must be the encoder's hidden_size 16, got 17"),
    ],
)  # fmt: skip
def test_each_field_of_t5gemma_is_understood_or_named(tmp_path: Path, fields, rule: str) -> None:
    whole = {"model_type": "t5gemma", "encoder": T5GEMMA, "decoder": {**T5GEMMA, **fields}}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    with pytest.raises(ConfigError, match=rule):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("fields", "generation", "expected"),
    [  # what transformers 5.24 chooses: (start, end tokens, pad)
        ({}, None, (2, (1,), 0)),
        ({"decoder": {"eos_token_id": [1, 22]}}, None, (2, (1, 22), 0)),
        ({"eos_token_id": 22}, None, (2, (22,), 0)),
        ({"eos_token_id": None, "decoder": {"eos_token_id": [3, 1]}}, None, (2, (3, 1), 0)),
        ({"bos_token_id": 5, "decoder_start_token_id": 7}, None, (7, (1,), 0)),
        ({"decoder": {"decoder_start_token_id": 7}}, None, (7, (1,), 0)),
        ({"decoder": {"pad_token_id": None}}, None, (2, (1,), 1)),
        ({"decoder": {"pad_token_id": 3}}, None, (2, (1,), 3)),
        ({"decoder": {"eos_token_id": None, "pad_token_id": None}}, None, (2, (), 0)),
        ({"decoder": {"bos_token_id": None}, "bos_token_id": 9}, None, (9, (1,), 0)),
        ({"eos_token_id": 22}, {"bos_token_id": 4}, (4, (), 0)),
        ({"eos_token_id": 22}, {"bos_token_id": 4, "decoder_start_token_id": 8,
                                "eos_token_id": [9, 10], "pad_token_id": 11}, (8, (9, 10), 11)),
    ],
)  # fmt: skip
def test_special_tokens_are_those_that_transformers_chooses(fields, generation, expected) -> None:
    decoder = {**T5GEMMA, **fields.get("decoder", {})}
    whole = {**fields, "model_type": "t5gemma", "encoder": T5GEMMA, "decoder": decoder}
    model = config_from_fields(whole, generation=generation)
    assert (model.bos_id, model.eos_ids, model.pad_id) == expected
    assert model.source_pad == 0  # the encoder's own


@pytest.mark.parametrize(
    ("generation", "rule"),
    [
        ({}, "generation_config.json: decoder_start_token_id or bos_token_id must be"),
        ({"bos_token_id": 60}, "generation_config.json: bos_token_id must be .* got 60"),
        ({"bos_token_id": 1, "eos_token_id": [1, None]}, "eos_token_id must be .* got None"),
        ({"decoder_start_token_id": [1]}, r"decoder_start_token_id must be .* got \[1\]"),
    ],
)
def test_a_generation_config_is_asked_alone(generation, rule: str) -> None:
    whole = {"model_type": "t5gemma", "encoder": T5GEMMA, "decoder": T5GEMMA}
    with pytest.raises(ConfigError, match=rule):
        config_from_fields(whole, generation=generation)


def test_what_a_generation_config_says_of_sampling_is_named(capsys) -> None:
    whole = {"model_type": "t5gemma", "encoder": T5GEMMA, "decoder": T5GEMMA}
    config_from_fields(whole, generation={"bos_token_id": 2, "suppress_tokens": [3]})
    assert "not known and change nothing: suppress_tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("version", "inclusive"),
    [("4.57.1", False), ("4.53.0.dev0", False), ("5.0.0", True), ("10.1", True), (None, True)],
)
def test_the_window_rule_is_that_of_the_version_that_wrote_the_file(version, inclusive) -> None:
    whole = {"model_type": "t5gemma", "encoder": T5GEMMA, "decoder": T5GEMMA}
    if version is not None:
        whole |= {"transformers_version": version}
    model = config_from_fields(whole)
    assert (model.encoder.window_inclusive, model.decoder.window_inclusive) == (inclusive, True)
    with pytest.raises(ConfigError, match="transformers_version must be a version such as"):
        config_from_fields({**whole, "transformers_version": "newest"})


@pytest.mark.parametrize("field", ["rope_scaling", "rope_parameters"])
def test_linear_scaling_is_read_under_its_old_and_new_name(field: str) -> None:
    rope = {"type" if field == "rope_scaling" else "rope_type": "linear", "factor": 8}
    stack = {**T5GEMMA, field: rope, "rope_theta": 77.0}
    model = config_from_fields({"model_type": "t5gemma", "encoder": stack, "decoder": T5GEMMA})
    assert (model.encoder.rope_factor, model.encoder.rope_theta) == (8, 77.0)
    assert (model.decoder.rope_factor, model.decoder.rope_theta) == (1, 10000.0)


def test_of_two_objects_the_old_one_acts_as_in_transformers() -> None:
    stack = {**T5GEMMA, "rope_scaling": {"type": "linear", "factor": 2.0},
             "rope_parameters": {"rope_type": "default", "rope_theta": 30.0}}  # fmt: skip
    model = config_from_fields({"model_type": "t5gemma", "encoder": stack, "decoder": T5GEMMA})
    assert (model.encoder.rope_factor, model.encoder.rope_theta) == (2, 10000.0)
    stack["rope_scaling"] = {}
    model = config_from_fields({"model_type": "t5gemma", "encoder": stack, "decoder": T5GEMMA})
    assert (model.encoder.rope_factor, model.encoder.rope_theta) == (1, 30.0)


MU = {"n_encoder_layer": 1}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"model_type": "t5gemma2", "encoder": {}, "decoder": {}}, "T5Gemma 2"),
        ({"encoder": {"model_type": "t5gemma2_encoder"}, "decoder": {}}, "T5Gemma 2"),
        ({"architectures": ["T5Gemma2ForConditionalGeneration"], "encoder": {}, "decoder": {}},
         "T5Gemma 2"),
        ({"model_type": "llava_mu", **MU}, r"Mu's vision model \(mu_v2\)"),
        ({"architectures": ["LlavaMuForCausalLM"], **MU}, r"Mu's vision model \(mu_v2\)"),
        ({"mm_vision_tower": "openai/clip", **MU}, r"Mu's vision model \(mu_v2\)"),
        ({"model_type": "encoder-decoder", "encoder": {"model_type": "bert"}, "decoder": {}},
         "BERT2BERT"),
        ({"encoder": {"model_type": "bert"}, "decoder": {"model_type": "bert"}}, "BERT2BERT"),
    ],
)  # fmt: skip
def test_relatives_of_both_families_are_refused_by_name(fields, name: str) -> None:
    with pytest.raises(ConfigError, match=f"config.json: {name}.* is not supported; give a "):
        config_from_fields(fields)


def test_mu_takes_the_tokens_that_it_is_given() -> None:
    """Microsoft's generate is called with them."""
    given = {"eos_token_id": [7, 9], "bos_token_id": 3}
    model = config_from_fields({**MU, **given})
    assert (model.bos_id, model.eos_ids, model.pad_id) == (3, (7, 9), 0)
    model = config_from_fields({**MU, **given}, generation={"decoder_start_token_id": 4})
    assert (model.bos_id, model.eos_ids, model.pad_id) == (4, (), 0)


# -- the files of a checkpoint ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "pytorch_model.bin"])
@pytest.mark.parametrize("config", [True, False])
def test_a_pickle_is_not_read_and_the_recipe_is_named(folder: Path, name: str, config) -> None:
    (folder / "model.safetensors").rename(folder / name)
    if not config:  # Microsoft's folder has none
        (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=rf"got {name}, .* 'From model.pt' in docs/checkpoints"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", ["rotary_emb.inv_freq", "model.encoder.rotary_emb.x.inv_freq",
                                  "e.0.attn.inv_freq", "original_inv_freq"])  # fmt: skip
def test_buffers_are_passed_over_by_name(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: np.arange(3)}, folder / "model.safetensors")
    assert "inv_freq" not in " ".join(read_checkpoint(folder)[1])
    save_file({**tensors, "e.0.attn.inv_freq_2": np.ones(3)}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"unknown \['e.0.attn.inv_freq_2'\]"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "file",
    ["../part.safetensors", "sub/part.safetensors", "..", ".", "", 3, None, ["part.safetensors"],
     "a\\b", "a\0b"],
)  # fmt: skip
def test_an_index_names_files_of_its_own_folder(folder: Path, file) -> None:
    """All tensors in one part, which is there: only its place is wrong."""
    names = load_file(folder / "model.safetensors")
    (folder / "sub").mkdir()
    shutil.copy(folder / "model.safetensors", folder / "sub" / "part.safetensors")
    (folder / "model.safetensors").rename(folder.parent / "part.safetensors")
    index = folder / "model.safetensors.index.json"
    for given in (file, str(folder.parent / "part.safetensors")):
        index.write_text(json.dumps({"weight_map": dict.fromkeys(names, given)}))
        with pytest.raises(WeightsError, match="must name a file in the same folder, got"):
            read_checkpoint(folder)


@pytest.mark.parametrize("text", ["{}", "[]", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_without_tensors_is_refused_where_it_is_read(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_text(text)
    read_checkpoint(folder)  # as transformers, which looks for the whole file first
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(WeightsError, match=r"index.json must hold an object weight_map"):
        read_checkpoint(folder)


def test_one_weight_under_two_names_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "transformer.ln_f.weight"
    save_file({**tensors, f"module.{name}": tensors[name] * 2}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="must stand once, under one of its names"):
        read_checkpoint(folder)


def test_weights_in_integers_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.ln_f.weight"] = np.ones(32, np.int8)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"ln_f\.weight must hold floats, got int8"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: Path(p).write_bytes(b""),
                                  lambda p: os.symlink(p, p)])  # fmt: skip
def test_what_is_no_file_is_refused_at_once(folder: Path, name: str, make: Callable) -> None:
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(MuRefError, match=rf"{name} must be"):
        read_checkpoint(folder)
