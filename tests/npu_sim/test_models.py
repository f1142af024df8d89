"""Programs from descriptions: equal to recorded ones, and right counts where nothing runs."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import model_configs

from mu_ref.presets import preset, tiny
from npu_sim.errors import WorkloadError
from npu_sim.models.hf_config import describe_fields, read_hf_config
from npu_sim.models.neutral_json import description_of, read_model
from npu_sim.program.call import call_program
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.request import record_request, request_program

precisions = st.builds(
    Precision,
    weight_bits=st.sampled_from([4, 8, 16]),
    activation_bits=st.sampled_from([8, 16]),
    kv_bits=st.sampled_from([8, 16]),
    head_weight_bits=st.sampled_from([8, 16]),
)
with_decoder = model_configs(("encoder-decoder", "decoder-only"))
without_ntk = model_configs(("encoder-decoder", "decoder-only"), rope_ntk_factor=1.0)


@settings(max_examples=60, deadline=None)
@given(with_decoder, precisions, st.integers(1, 6), st.integers(1, 4), st.integers(1, 2))
def test_a_described_request_is_the_recorded_one(config, precision, n_input, n_output, batch):
    described = request_program(describe(config), n_input, n_output, precision, batch)
    assert described == record_request(config, n_input, n_output, precision, batch)


@settings(max_examples=60, deadline=None)
@given(without_ntk, precisions, st.integers(1, 6), st.integers(1, 4))
def test_every_described_call_is_the_recorded_one(config, precision, n_input, n_output):
    recorded = record_request(config, n_input, n_output, precision)
    model, both = describe(config), config.encoder is not None
    first = ("encode", n_input, n_input, 0) if both else ("prefill", n_input, n_input, 0)
    steps = range(1, n_output + 1) if both else range(n_input + 1, n_input + n_output)
    workloads = [first, *(("decode", 1, length, n_input if both else 0) for length in steps)]
    for call, workload in zip(recorded.calls, workloads, strict=True):
        assert call_program(model, *workload, precision).calls == (call,)


def test_a_static_request_repeats_one_decode_step_over_the_padded_context():
    model = describe(tiny())
    program = request_program(model, 5, 3, Precision(), static_context=16)
    assert [call.phase for call in program.calls] == ["encode", "decode", "decode", "decode"]
    # the mean step fills 2 of its slots
    step = call_program(model, "decode", 1, 16, 16, Precision(), n_filled=2)
    assert program.calls[1:] == step.calls * 3
    scores = [op.gemm.n for op in program.calls[1].ops if op.site.endswith("attention.scores")]
    assert scores == [16, 16] * 2


def test_the_head_scores_all_positions_the_last_or_none():
    model = replace(describe(replace(tiny(), encoder=None)), lm_head="all")
    rows = {}
    for head in ("all", "last", "none"):
        program = call_program(replace(model, lm_head=head), "prefill", 5, 12, 0, Precision())
        rows[head] = [op.gemm.m for op in program.ops if op.site == "head"]
    assert rows == {"all": [5], "last": [1], "none": []}


# Published counts of parameters (Hugging Face model pages), of the model without task heads.
# Fields that a file leaves out are as in transformers; `test_families.py` tries many more.
LLAMA = {"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32}
BERT = {"model_type": "bert", "hidden_size": 768, "num_attention_heads": 12,
        "num_hidden_layers": 12, "intermediate_size": 3072, "vocab_size": 30522}  # fmt: skip
PUBLISHED = {
    "bert-base": (BERT, 109_482_240),
    "electra-base": (BERT | {"model_type": "electra", "embedding_size": 768}, 108_891_648),
    "distilbert-base": ({"model_type": "distilbert", "n_layers": 6, "dim": 768, "n_heads": 12,
                         "hidden_dim": 3072, "vocab_size": 30522}, 66_362_880),
    "vit-base-patch16": (BERT | {"model_type": "vit"}, 86_389_248),
    "t5-small": ({"model_type": "t5", "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_heads": 8,
                  "num_layers": 6, "vocab_size": 32128}, 60_506_624),
    "llama-2-7b": (LLAMA | {"num_hidden_layers": 32, "intermediate_size": 11008,
                            "vocab_size": 32000}, 6_738_415_616),
    "llama-3.2-1b": (LLAMA | {"hidden_size": 2048, "num_hidden_layers": 16, "head_dim": 64,
                              "intermediate_size": 8192, "num_key_value_heads": 8,
                              "vocab_size": 128256, "tie_word_embeddings": True}, 1_235_814_400),
    "mistral-7b": (LLAMA | {"model_type": "mistral", "num_hidden_layers": 32,
                            "intermediate_size": 14336, "num_key_value_heads": 8,
                            "vocab_size": 32000}, 7_241_732_096),
    "phi-3.5-mini": (LLAMA | {"model_type": "phi3", "num_hidden_layers": 32, "hidden_size": 3072,
                              "intermediate_size": 8192, "vocab_size": 32064}, 3_821_079_552),
    "qwen2-0.5b": ({"model_type": "qwen2", "num_hidden_layers": 24, "hidden_size": 896,
                    "intermediate_size": 4864, "num_attention_heads": 14, "vocab_size": 151936,
                    "num_key_value_heads": 2, "tie_word_embeddings": True}, 494_032_768),
    "qwen3-0.6b": ({"model_type": "qwen3", "num_hidden_layers": 28, "hidden_size": 1024,
                    "intermediate_size": 3072, "num_attention_heads": 16, "vocab_size": 151936,
                    "num_key_value_heads": 8, "tie_word_embeddings": True}, 596_049_920),
    "gemma-2-2b": ({"model_type": "gemma2", "num_hidden_layers": 26, "hidden_size": 2304,
                    "intermediate_size": 9216, "num_attention_heads": 8,
                    "num_key_value_heads": 4, "vocab_size": 256000}, 2_614_341_888),
    "gemma-3-1b": ({"model_type": "gemma3_text", "num_hidden_layers": 26, "hidden_size": 1152,
                    "intermediate_size": 6912, "num_attention_heads": 4,
                    "num_key_value_heads": 1, "vocab_size": 262144}, 999_885_952),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name):
    fields, count = PUBLISHED[name]
    assert describe_fields(fields, name).n_parameters == count


def test_a_t5_may_have_more_layers_on_one_side():
    fields = dict(PUBLISHED["t5-small"][0])
    assert describe_fields(fields, "t5").model.decoder.n_layers == 6
    uneven = describe_fields(fields | {"num_decoder_layers": 2}, "t5").model
    assert (uneven.encoder.n_layers, uneven.decoder.n_layers) == (6, 2)


NEUTRAL = {"family": "decoder", "n_enc_layers": 0, "n_dec_layers": 2, "d_model": 16, "d_ff": 32,
           "gated": True, "n_heads": 4, "n_kv_heads": 2, "d_head": 4, "vocab_size": 61,
           "tied": True, "lm_head": "last"}  # fmt: skip


def test_a_neutral_decoder_has_the_macs_counted_by_hand():
    program = call_program(description_of("m", NEUTRAL), "prefill", 5, 12, 0, Precision())
    layer = 5 * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 32) + 2 * 4 * 5 * 12 * 4
    assert program.total("macs") == 2 * layer + 16 * 61
    cached = 2 * (2 * 2 * 12 * 4) * 2  # layers, k and v, kv heads, slots, width; 2 bytes
    written = 2 * (2 * 2 * 5 * 4) * 2
    assert program.total("kv_bytes") == cached + written


def test_an_encoder_call_keeps_the_keys_and_values_of_cross_attention():
    fields = NEUTRAL | {"family": "encoder-decoder", "n_enc_layers": 2, "gated": False}
    program = call_program(description_of("m", fields), "encode", 5, 5, 0, Precision())
    layer = 5 * (2 * 16 * 16 + 2 * 16 * 8 + 2 * 16 * 32) + 2 * 4 * 5 * 5 * 4
    assert program.total("macs") == 2 * layer + 2 * 5 * 2 * 16 * 8


def test_an_encoder_may_be_as_wide_as_d_memory_says():
    fields = NEUTRAL | {"family": "encoder-decoder", "n_enc_layers": 2, "gated": False}
    both = description_of("m", fields | {"d_memory": 24})
    layer = 5 * (2 * 24 * 16 + 2 * 24 * 8 + 2 * 24 * 32) + 2 * 4 * 5 * 5 * 4
    program = call_program(both, "encode", 5, 5, 0, Precision())
    # keys and values of the decoder's two layers read 24 numbers each
    assert program.total("macs") == 2 * layer + 2 * 5 * 2 * 24 * 8
    steps = [call_program(m, "decode", 1, 3, 5, Precision()).total("macs")
             for m in (both, description_of("m", fields))]  # fmt: skip
    assert steps[0] == steps[1]  # a step reads what is cached
    assert description_of("m", fields | {"d_memory": 16}) == description_of("m", fields)
    with pytest.raises(WorkloadError, match="d_memory of m must be left out where no decoder"):
        description_of("m", NEUTRAL | {"d_memory": 24})
    with pytest.raises(WorkloadError, match="d_memory of m must be a whole number from 1"):
        description_of("m", fields | {"d_memory": None})


def test_rope_is_recorded_only_where_the_family_has_it():
    mu = call_program(describe(preset("tiny")), "encode", 4, 4, 0, Precision())
    bert = call_program(describe_fields(BERT, "bert"), "encode", 4, 4, 0, Precision())
    assert any(op.kind == "rope" for op in mu.ops)
    assert not any(op.kind == "rope" for op in bert.ops)
    assert any(op.site == "encoder.positions" for op in bert.ops)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "rnn"}, "family of m must be one of encoder, encoder-decoder, decoder"),
        ({"d_model": -1}, "d_model of m must be a whole number"),
        ({"n_heads": 3}, "n_heads must be a multiple of n_kv_heads"),
        ({"n_layers": 3}, r"unknown \['n_layers'\]"),
        ({"lm_head": "some"}, "lm_head of m must be one of all, last, none"),
        ({"n_dec_layers": 0}, "a model must have an encoder or a decoder"),
        ({"n_enc_layers": 2}, "must suit family decoder"),
        ({"gated": "yes"}, "gated of m must be one of True, False"),
    ],
)
def test_a_wrong_neutral_model_names_its_key(change, message):
    with pytest.raises(WorkloadError, match=message):
        description_of("m", NEUTRAL | change)


def test_a_remark_in_a_neutral_model_changes_nothing():
    assert description_of("m", NEUTRAL | {"source": "a paper"}) == description_of("m", NEUTRAL)


def test_a_model_is_found_by_file_and_name(tmp_path):
    file = tmp_path / "models.json"
    file.write_text(json.dumps({"one": NEUTRAL}))
    assert read_model(f"{file}#one") == read_model(str(file))
    with pytest.raises(WorkloadError, match="must be one of one; got 'two'"):
        read_model(f"{file}#two")
    file.write_text(json.dumps({"one": NEUTRAL, "two": NEUTRAL}))
    with pytest.raises(WorkloadError, match="must be one of one, two; got ''"):
        read_model(str(file))
    with pytest.raises(WorkloadError, match="there is no such file"):
        read_model(f"{tmp_path / 'absent.json'}#one")
    file.write_text("{")
    with pytest.raises(WorkloadError, match="got no JSON"):
        read_model(f"{file}#one")


def test_a_wrong_hf_config_says_what_is_missing(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(WorkloadError, match=r"model_type of config\.json must be one of bart"):
        read_hf_config(tmp_path)
    file.write_text(json.dumps({"model_type": "llama", "hidden_size": 8}))  # 32 heads by default
    with pytest.raises(WorkloadError, match="d_head must be a whole number from 1"):
        read_hf_config(file)
    with pytest.raises(WorkloadError, match="there is no such file"):
        read_hf_config(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        (("train", 1, 1, 0), "phase must be one of encode, prefill, decode, verify; got 'train'"),
        (("decode", 1, 4, 0), "n_memory must be at least 1 with an encoder"),
        (("decode", 4, 3, 2), "n_context must be a whole number of at least 4, got 3"),
        (("decode", 0, 3, 2), "n_tokens must be a whole number of at least 1, got 0"),
    ],
)
def test_an_impossible_call_is_refused(workload, message):
    with pytest.raises(WorkloadError, match=message):
        call_program(describe(tiny()), *workload, Precision())


def test_a_request_longer_than_its_static_context_is_refused():
    with pytest.raises(WorkloadError, match="static_context for 9 tokens"):
        request_program(describe(tiny()), 9, 2, Precision(), static_context=8)
