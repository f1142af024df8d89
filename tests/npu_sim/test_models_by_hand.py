"""What each family's `config.json` says, field by field, and which reader a name chooses.

Published counts of parameters (`test_models.py`) notice widths; a soft-cap, an activation or a
scale counts no parameter, but is an operation that takes time.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mu_ref.presets import preset
from npu_sim.errors import SweepError, WorkloadError
from npu_sim.models.find import named_description, read_description
from npu_sim.models.hf_config import describe_fields, read_hf_config
from npu_sim.models.hf_fields import check_kinds, unread_fields
from npu_sim.models.neutral_json import description_of, read_models
from npu_sim.models.shorthand import model_of, stack_of
from npu_sim.program.description import Description, describe


def parts(found: Description) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """Split a description into its own fields, the model's, and those of the decoder or encoder."""
    own = asdict(found)
    fields = json.loads(json.dumps(own.pop("model")))
    del own["own_weights"]  # `test_families.py` counts them
    return own | {"absent": set(own["absent"])}, fields, fields["decoder"] or fields["encoder"]


STACK = {  # what a family does not say: usual values that change no cost
    "kv_head_map": "blocked", "attention_scale": 1.0, "attention_softcap": None, "window": None,
    "norm_eps": 1e-6, "embed_scale": 1.0, "rope_theta": 10000.0, "rope_origin": "start",
    "rope_ntk_factor": 1.0, "rope_factor": 1.0, "rope_base_len": 1, "rope_length": "padded",
    "norm_placement": "pre", "window_inclusive": True, "embed_norm": False,
    "windowed_layers": [False, False],
}  # fmt: skip
LAYER_NORM = {"norm_kind": "layer", "attention_bias": True, "mlp_bias": True, "gated": False,
              "activation": "gelu"}  # fmt: skip
RMS = {"norm_kind": "rms", "attention_bias": False, "mlp_bias": False, "gated": True,
       "activation": "silu"}  # fmt: skip
MODEL = {"head_bias": False, "final_softcap": None, "pad_id": 0, "bos_id": 0, "eos_id": 0,
         "mask_decoder_pads": False, "dropout": 0.0, "shared_embedding": True,
         "encoder_pad_id": None, "mask_cross_pads": True, "more_eos_ids": [],
         "unseeing": "zero"}  # fmt: skip
OWN = {"positions": "rope", "qk_norm": False, "absent": set(), "extra_embeddings": 0,
       "input_features": None, "lm_head": "last", "rotary_share": 1.0, "experts_per_token": 0,
       "input_slots": None}  # fmt: skip
POST = {"encoder.final_norm", "decoder.final_norm"}


def widths(n: int, d: int, ff: int, heads: int, kv: int, head: int) -> dict[str, Any]:
    return {"n_layers": n, "d_model": d, "d_ff": ff, "n_heads": heads, "n_kv_heads": kv,
            "d_head": head, "windowed_layers": [False] * n}  # fmt: skip


WIDE = widths(2, 16, 24, 4, 2, 8)
LLAMA = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 50,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}  # fmt: skip
BERT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 50,
        "num_attention_heads": 4}  # fmt: skip
BART = {"d_model": 16, "encoder_layers": 3, "decoder_layers": 2, "encoder_ffn_dim": 20,
        "decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 4,
        "vocab_size": 50}  # fmt: skip
GEMMA = RMS | {"norm_kind": "rms_plus_one", "norm_placement": "dual", "embed_scale": 4.0,
               "activation": "gelu_tanh"}  # fmt: skip
ENCODER = widths(2, 16, 24, 4, 4, 4)

# family: (fields, changes of the description, of the model, of the decoder or the lone encoder)
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "llama": (LLAMA, {}, {"max_len": 2048, "tied_head": False}, WIDE | RMS),
    "mistral": (
        LLAMA | {"tie_word_embeddings": True, "max_position_embeddings": 99, "hidden_act": "relu",
                 "attention_bias": True, "mlp_bias": True},  # which Mistral never has
        {}, {"max_len": 99, "tied_head": True},
        WIDE | RMS | {"activation": "relu", "window": 4096, "windowed_layers": [True, True]},
    ),
    "qwen2": (LLAMA | {"max_window_layers": 0}, {"absent": {"self_attention.o.bias"}},
              {"max_len": 32768, "tied_head": False},
              WIDE | RMS | {"attention_bias": True, "window": 4096}),
    "qwen3": ({k: v for k, v in LLAMA.items() if k != "head_dim"}
              | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
              {"qk_norm": True}, {"max_len": 32768, "tied_head": False},
              WIDE | RMS | {"d_head": 128, "window": 7, "windowed_layers": [False, True]}),
    "gemma2": (LLAMA, {}, {"max_len": 8192, "tied_head": True, "final_softcap": 30.0},
               WIDE | GEMMA | {"attention_softcap": 50.0, "window": 4096,
                               "windowed_layers": [True, False]}),
    "gemma3": ({"text_config": LLAMA | {"hidden_activation": "silu", "sliding_window_pattern": 2}},
               {"qk_norm": True}, {"max_len": 131072, "tied_head": True},
               WIDE | GEMMA | {"activation": "silu", "window": 4096,
                               "windowed_layers": [True, False]}),
    "gemma3_text": ({k: v for k, v in LLAMA.items() if k != "head_dim"}
                    | {"layer_types": ["full_attention", "sliding_attention"]}, {"qk_norm": True},
                    {"max_len": 131072, "tied_head": True},
                    WIDE | GEMMA | {"d_head": 256, "window": 4096,
                                    "windowed_layers": [False, True]}),
    "bert": (BERT, {"lm_head": "none", "positions": "table", "absent": POST, "extra_embeddings": 2,
                     "input_slots": 512},
             {"max_len": 512, "tied_head": True}, ENCODER | LAYER_NORM | {"embed_norm": True}),
    "electra": (
        BERT | {"type_vocab_size": 5, "max_position_embeddings": 77, "hidden_act": "gelu_new"},
        {"lm_head": "none", "positions": "table", "absent": POST, "extra_embeddings": 5,
         "input_slots": 77},
        {"max_len": 77, "tied_head": True},
        ENCODER | LAYER_NORM | {"embed_norm": True, "activation": "gelu_tanh"},
    ),
    "distilbert": (
        {"n_layers": 2, "dim": 16, "hidden_dim": 24, "n_heads": 4, "vocab_size": 50,
         "activation": "relu"},
        {"lm_head": "none", "positions": "table", "absent": POST, "input_slots": 512},
        {"max_len": 512, "tied_head": True},
        ENCODER | LAYER_NORM | {"embed_norm": True, "activation": "relu"},
    ),
    "vit": (
        BERT | {"hidden_act": "quick_gelu"},
        {"lm_head": "none", "positions": "table", "extra_embeddings": 1,
         "input_features": 3 * 16 * 16, "input_slots": 197},
        {"max_len": 14 * 14 + 1, "tied_head": True, "vocab_size": 1, "encoder_vocab_size": 1},
        ENCODER | LAYER_NORM | {"activation": "silu"},
    ),
    "marian": (
        BART | {"scale_embedding": True}, {"positions": "table", "absent": POST},
        {"max_len": 1024, "tied_head": True},
        ENCODER | LAYER_NORM | {"embed_scale": 4.0},
    ),
    "whisper": (
        BART | {"activation_function": "relu"},
        {"positions": "table", "absent": {"attention.k.bias"}, "input_features": 3 * 16,
         "input_slots": 1500},
        {"max_len": 1500, "tied_head": True, "shared_embedding": False, "encoder_vocab_size": 1},
        ENCODER | LAYER_NORM | {"activation": "relu"},
    ),
    "t5": (
        {"d_model": 16, "d_kv": 6, "d_ff": 24, "num_heads": 4, "num_layers": 3,
         "num_decoder_layers": 2, "vocab_size": 50, "feed_forward_proj": "gated-gelu",
         "tie_word_embeddings": False},  # which transformers 5 takes for a scale of the decoder
        {"positions": "bias"}, {"max_len": 512, "tied_head": True},
        widths(2, 16, 24, 4, 4, 6) | RMS | {"activation": "gelu_tanh"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_field_by_field(family: str) -> None:
    fields, changes, model_changes, stack_changes = FAMILIES[family]
    own, of_model, of_stack = parts(describe_fields({"model_type": family} | fields, "it"))
    assert own == OWN | changes
    assert of_stack == STACK | stack_changes
    for key in ("encoder", "decoder"):
        del of_model[key]
    sizes = {"vocab_size": 50, "encoder_vocab_size": 50, "name": "it"}
    assert of_model == MODEL | sizes | model_changes


def test_two_stacks_have_layers_and_widths_of_their_own() -> None:
    for family in ("marian", "whisper"):
        _, fields, _ = parts(describe_fields({"model_type": family} | FAMILIES[family][0], "x"))
        encoder = fields["encoder"]
        assert (encoder["n_layers"], encoder["d_ff"], encoder["n_heads"]) == (3, 20, 2)
        assert encoder["embed_scale"] == (4.0 if family == "marian" else 1.0)
        assert encoder["activation"] == ("gelu" if family == "marian" else "relu")
    t5 = {"model_type": "t5"} | FAMILIES["t5"][0]
    assert parts(describe_fields(t5, "x"))[1]["encoder"]["n_layers"] == 3
    del t5["num_decoder_layers"], t5["tie_word_embeddings"]
    for form, gated, activation in (("relu", False, "relu"), ("gated-silu", True, "silu"),
                                    ("gelu", False, "gelu")):  # fmt: skip
        _, fields, decoder = parts(describe_fields(t5 | {"feed_forward_proj": form}, "x"))
        assert (decoder["gated"], decoder["activation"]) == (gated, activation)
        assert (decoder["n_layers"], fields["tied_head"]) == (3, True)
    del t5["feed_forward_proj"]
    assert parts(describe_fields(t5, "x"))[2]["activation"] == "relu"


def test_patches_and_channels_of_a_picture() -> None:
    fields = {"model_type": "vit", "patch_size": 8, "image_size": 36, "num_channels": 1}
    own, of_model, _ = parts(describe_fields(BERT | fields, "x"))
    assert (of_model["max_len"], own["input_features"]) == (4 * 4 + 1, 64)


def test_a_model_is_named_after_its_folder_or_file(tmp_path, monkeypatch) -> None:
    fields = {"model_type": "llama", "_name_or_path": "/home/somebody/checkpoint-300"} | LLAMA
    assert describe_fields(fields, "it").name == "it"
    (tmp_path / "small.hub.json").write_text(json.dumps(fields))
    assert read_hf_config(tmp_path / "small.hub.json").name == "small.hub"
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert read_hf_config(tmp_path).name == read_hf_config(tmp_path / "config.json").name
    assert read_hf_config(tmp_path).name == tmp_path.name
    monkeypatch.chdir(tmp_path)
    assert read_hf_config(Path("config.json")).name == read_hf_config(Path()).name == tmp_path.name
    t5gemma = {"model_type": "t5gemma", "encoder": {}, "decoder": {}}
    assert describe_fields(t5gemma, "it").name == "it"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "must hold an object, got list"), ("{", "got no JSON at line 1"),
        (json.dumps({"model_type": "llama"} | LLAMA | {"hidden_size": "x"}),
         "config.json: hidden_size must be a whole number from 1"),
        (json.dumps({"model_type": "llama", "hidden_act": "mish"} | LLAMA),
         "activation must be one of gelu"),
        (json.dumps({"model_type": "llama"} | LLAMA | {"num_key_value_heads": 3}),
         "must be consistent: n_heads must be a multiple"),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_is_refused_as_ours(tmp_path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WorkloadError, match=message):
        read_hf_config(tmp_path)


# -- the neutral format ----------------------------------------------------------------------------

NEUTRAL = {"family": "decoder", "n_enc_layers": 0, "n_dec_layers": 2, "d_model": 16, "d_ff": 24,
           "gated": True, "n_heads": 4, "n_kv_heads": 2, "d_head": 8, "vocab_size": 50,
           "tied": True, "lm_head": "last"}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "own", "of_stack"),
    [
        ({}, {}, RMS),
        ({"family": "encoder", "n_enc_layers": 2, "n_dec_layers": 0, "lm_head": "none",
          "gated": False}, {"positions": "table", "lm_head": "none"},
         LAYER_NORM | {"embed_norm": True}),
        ({"family": "encoder-decoder", "n_enc_layers": 5, "gated": False, "lm_head": "all"},
         {"positions": "table", "lm_head": "all"}, LAYER_NORM),
    ],
)  # fmt: skip
def test_a_neutral_model_has_what_is_usual_in_its_family(changes, own, of_stack) -> None:
    found, of_model, some_stack = parts(description_of("m", NEUTRAL | changes))
    assert found == OWN | own
    assert some_stack == STACK | WIDE | of_stack
    assert (of_model["tied_head"], of_model["vocab_size"], of_model["max_len"]) == (True, 50, 512)
    if changes.get("family") == "encoder-decoder":
        assert of_model["encoder"]["n_layers"] == 5
    untied = parts(description_of("m", NEUTRAL | {"tied": False}))[1]
    assert (untied["tied_head"], untied["name"]) == (False, "m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must hold a JSON object of models by name, got"), ("{}", "models by name, got"),
        ('{"m": 3}', "model m must be a JSON object, got int"),
        (json.dumps({"m": NEUTRAL | {"n_heads": True}}), "n_heads of m must be a whole number"),
        (json.dumps({"m": NEUTRAL | {"n_heads": 4.0}}), "n_heads of m must be a whole number"),
    ],
)  # fmt: skip
def test_a_neutral_file_that_is_none_is_refused(tmp_path, text: str, message: str) -> None:
    (tmp_path / "models.json").write_text(text)
    with pytest.raises(WorkloadError, match=message):
        read_models(tmp_path / "models.json")


def test_shorthands_complete_widths() -> None:
    plain = stack_of(3, 24, 20, 4)
    assert (plain.n_kv_heads, plain.d_head, plain.windowed_layers) == (4, 6, (False,) * 3)
    assert stack_of(1, 24, 20, 4, n_kv_heads=2, d_head=8).d_kv == 16
    assert model_of("x", None, plain, 0, tied_head=False).vocab_size == 1


# -- which reader ----------------------------------------------------------------------------------


def test_exactly_one_model_is_named(tmp_path) -> None:
    (tmp_path / "models.json").write_text(json.dumps({"m": NEUTRAL}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"} | LLAMA))
    neutral, hf = f"{tmp_path / 'models.json'}#m", str(tmp_path)
    assert named_description("tiny", None, None) == describe(preset("tiny"))
    assert named_description(None, neutral, None) == description_of("m", NEUTRAL)
    assert named_description(None, None, hf) == read_hf_config(tmp_path)
    assert read_description({"model": "tiny", "npu": "x"}) == describe(preset("tiny"))
    assert read_description({"model_json": neutral}).name == "m"
    assert read_description({"hf_config": hf}).name == tmp_path.name
    for wrong in ((None, None, None), ("tiny", neutral, None), (None, neutral, hf)):
        with pytest.raises(SweepError, match="one of model, model_json and hf_config must be"):
            named_description(*wrong)
    with pytest.raises(SweepError, match="model_json must be a text, got 3"):
        read_description({"model_json": 3})
    with pytest.raises(SweepError, match="model: preset must be one of"):
        read_description({"model": "none"})
    with pytest.raises(ValueError, match="preset must be one of"):
        named_description("none", None, None)


# -- what fields may hold --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_attention_heads": 5000}, "c: num_attention_heads must be a whole number from 1 to"),
        ({"num_hidden_layers": 0}, "c: num_hidden_layers must be a whole number from 1 to"),
        ({"attn_logit_softcapping": 0}, "c: attn_logit_softcapping must be a number above 0"),
        ({"tie_word_embeddings": 1}, "c: tie_word_embeddings must be true or false, got 1"),
        ({"hidden_act": 3}, "c: hidden_act must be a text, got 3"),
        ({"hidden_size": None}, "c: hidden_size must be a whole number"),
        ({"eos_token_id": [2, "x"]}, "c: eos_token_id must be a whole number from -1"),
        ({"bos_token_id": [2]}, "c: bos_token_id must be a whole number from -1"),
        ({"layer_norm_eps": 2}, "c: layer_norm_eps must be a number from 0 to 1"),
        ({"encoder": 3}, "c: encoder must be a JSON object, got 3"),
        ({"decoder": {"num_hidden_layers": -1}}, r"c: decoder\.num_hidden_layers must be"),
    ],
)
def test_a_field_that_cannot_be_is_named_with_its_place(fields, message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        check_kinds(fields, "c")


def test_fields_that_can_be_pass() -> None:
    check_kinds({
        "num_key_value_heads": None, "head_dim": None, "eos_token_id": [2, -1],
        "pad_token_id": None, "tie_word_embeddings": False, "attn_logit_softcapping": None,
        "encoder": {"num_hidden_layers": 1}, "anything": ["goes"],
    })  # fmt: skip


def test_only_what_may_change_a_cost_and_is_not_read_is_named() -> None:
    fields = {"num_attention_heads": 4, "hidden_act": "gelu", "encoder": {"n_experts": 8},
              "attention_dropout": 0.1, "tie_word_embeddings": True, "moe": True}  # fmt: skip
    assert unread_fields(fields) == ["encoder.n_experts", "moe"]


def test_sound_has_as_many_places_as_the_file_says() -> None:
    whisper = {"model_type": "whisper", "max_source_positions": 700} | BART
    assert describe_fields(whisper, "x").model.max_len == 700


def test_an_encoder_without_a_vocabulary() -> None:
    fields = NEUTRAL | {"family": "encoder", "n_enc_layers": 2, "n_dec_layers": 0,
                        "lm_head": "none", "vocab_size": 0}  # fmt: skip
    assert description_of("m", fields).model.vocab_size == 1
    with pytest.raises(WorkloadError, match="vocab_size of m must be a whole number from 0"):
        description_of("m", fields | {"vocab_size": -1})
