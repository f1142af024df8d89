import time
from dataclasses import replace

import numpy as np
import pytest

from mu_ref.generate import generate
from mu_ref.model.mu import forward
from mu_ref.ops.reference import ReferenceOps
from mu_ref.presets import preset, tiny
from mu_ref.weights import count_parameters, initial_weights, weight_shapes
from npu_sim.errors import WorkloadError
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.recorder import RecordOps
from npu_sim.program.request import record_request

W8A16 = Precision()


def decoder_only(**changes):
    return replace(tiny(**changes), encoder=None)


CONFIGS = {
    "mu": tiny(),
    "decoder-only": decoder_only(),
    "gated, layer norm, no bias": tiny(
        gated=True, norm_kind="layer", attention_bias=False, mlp_bias=False, norm_placement="pre"
    ),
    "capped, untied, embedding norm": replace(
        tiny(attention_softcap=5.0, embed_norm=True, embed_scale=4.0, activation="silu"),
        tied_head=False, head_bias=True, final_softcap=3.0,
    ),
    "ntk": tiny(rope_ntk_factor=2.0, rope_base_len=2),
}  # fmt: skip


def test_macs_of_tiny_equal_the_count_by_hand():
    # d_model 16, d_ff 32, 4 heads of 4, 2 kv heads, 61 tokens, 2 + 2 layers; 5 in, 3 out
    encoder_layer = 5 * (16 * 16 + 2 * 16 * 8 + 16 * 16 + 2 * 16 * 32) + 2 * 4 * 5 * 5 * 4
    cross_kv = 5 * 2 * 16 * 8
    steps = 0
    for n_keys in (1, 2, 3):
        own = 16 * 16 + 2 * 16 * 8 + 16 * 16 + 2 * 4 * n_keys * 4
        cross = 2 * 16 * 16 + 2 * 4 * 5 * 4
        steps += 2 * (own + cross + 2 * 16 * 32) + 16 * 61
    program = record_request(tiny(), 5, 3, W8A16)
    assert program.total("macs", "encode") == 2 * encoder_layer + 2 * cross_kv == 22080
    assert program.total("macs", "decode") == steps == 18096


def test_macs_of_a_decoder_only_model_equal_the_count_by_hand():
    def layer(n_tok, n_keys):
        return n_tok * (2 * 16 * 16 + 2 * 16 * 8 + 2 * 16 * 32) + 2 * 4 * n_tok * n_keys * 4

    program = record_request(decoder_only(), 5, 3, W8A16)
    assert program.phases == ("prefill", "decode")
    assert program.total("macs", "prefill") == 2 * layer(5, 5) + 16 * 61  # head on one position
    assert program.total("macs", "decode") == 2 * (layer(1, 6) + layer(1, 7)) + 2 * 16 * 61


def test_cached_bytes_of_tiny_equal_the_count_by_hand():
    # K and V of 2 layers, 8 values each per token, 2 bytes: 64 bytes per token
    program = record_request(tiny(), 5, 3, W8A16)
    assert program.total("kv_bytes", "encode") == 5 * 64  # cross-attention's, written once
    assert program.total("kv_bytes", "decode") == (1 + 2 + 3) * 64 + 3 * 64 + 3 * 5 * 64
    assert program.stored_kv_bytes == (5 + 3) * 64
    half = record_request(tiny(), 5, 3, Precision(kv_bits=8))
    assert half.total("kv_bytes") * 2 == program.total("kv_bytes")


def test_a_decode_step_of_mu_reads_the_weights_that_the_literature_counts():
    # 116.8 M matrix weights: 12 decoder layers without cross K and V, and the tied head
    program = record_request(preset("mu-330m"), 64, 2, W8A16)
    weights = sum(op.inputs[1].n_bytes for op in program.calls[-1].ops if op.kind == "linear")
    assert weights == 12 * 768 * (6 * 768 + 2 * 384 + 2 * 3072 - 2 * 768) + 32128 * 768
    assert weights == pytest.approx(116.8e6, rel=1e-3)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_sites_are_the_names_of_the_weight_file_and_all_of_it_is_read(config):
    program = record_request(config, 4, 2, W8A16)
    names = set(weight_shapes(config))
    linears = {op.site for op in program.ops if op.kind == "linear"}
    assert {f"{site}.weight" for site in linears - {"head"}} <= names
    assert "head" in linears
    read = {t.name for op in program.ops for t in op.inputs if t.role == "weight"}
    assert read == names


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_recorder_returns_the_inner_executors_logits_bit_for_bit(config):
    inner = ReferenceOps(initial_weights(config, np.random.default_rng(0)))
    rng = np.random.default_rng(1)
    target = rng.integers(1, config.vocab_size, (2, 4))
    source = None if config.encoder is None else rng.integers(1, config.vocab_size, (2, 5))
    valid = None if source is None else np.array([[True] * 5, [True] * 3 + [False] * 2])
    recorder = RecordOps(describe(config), W8A16, inner)
    recorder.log.begin("decode")
    recorded = forward(recorder, config, source, valid, target)
    plain = forward(inner, config, source, valid, target)
    assert recorded.shape == plain.shape
    np.testing.assert_array_equal(recorder.read(recorded), plain)


def test_generation_through_the_recorder_writes_the_same_tokens():
    config = tiny()
    inner = ReferenceOps(initial_weights(config, np.random.default_rng(0), std=0.5))
    source = np.array([[5, 9, 3], [7, 7, 0]])
    valid = source != 0
    recorder = RecordOps(describe(config), W8A16, inner)
    recorder.log.begin("request")
    assert generate(recorder, config, source, valid, 6) == generate(inner, config, source, valid, 6)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_with_and_without_values_the_program_is_the_same(config):
    inner = ReferenceOps(initial_weights(config, np.random.default_rng(0)))
    target = np.ones((1, 3), np.int64)
    source = None if config.encoder is None else target
    valid = None if source is None else np.ones(source.shape, bool)
    calls = []
    for ops in (RecordOps(describe(config), W8A16), RecordOps(describe(config), W8A16, inner)):
        ops.log.begin("decode")
        forward(ops, config, source, valid, target)
        calls.append(ops.log.calls())
    assert calls[0] == calls[1]


def test_layout_operations_move_nothing():
    program = record_request(tiny(), 5, 2, W8A16)
    layout = [op for op in program.ops if op.is_layout]
    assert {op.kind for op in layout} == {"split_heads", "merge_heads", "share_heads", "view"}
    assert all(op.weight_bytes + op.kv_bytes + op.activation_bytes + op.macs == 0 for op in layout)


def test_a_shared_kv_head_is_read_once_for_all_its_query_heads():
    program = record_request(decoder_only(), 4, 1, W8A16)
    scores = next(op for op in program.ops if op.site == "decoder.0.self_attention.scores")
    assert scores.gemm.count == 4  # query heads
    assert scores.kv_bytes == 2 * 4 * 4 * 2  # kv heads x tokens x width x bytes


def test_the_cache_grows_by_one_token_per_step():
    program = record_request(tiny(), 5, 4, W8A16)
    keys = [op.gemm.n for op in program.ops if op.site == "decoder.1.self_attention.scores"]
    assert keys == [1, 2, 3, 4]


def test_stored_bytes_count_a_tied_table_once_at_the_width_of_the_head():
    config = preset("mu-330m")
    program = record_request(config, 1, 1, Precision(weight_bits=4))
    shapes = weight_shapes(config)
    vectors = {n: int(np.prod(s)) for n, s in shapes.items() if len(s) == 1}
    biases = sum(size for name, size in vectors.items() if name.endswith(".bias"))
    gains = sum(vectors.values()) - biases
    table = 32128 * 768
    matrices = count_parameters(config) - table - biases - gains
    assert program.stored_weight_bytes == matrices // 2 + table + 2 * gains + 4 * biases


def test_a_whole_mu_request_is_recorded_in_less_than_two_seconds():
    start_s = time.process_time()
    record_request(preset("mu-330m"), 64, 32, W8A16)
    assert time.process_time() - start_s < 2


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((0, 1), "n_input must be a whole number of at least 1, got 0"),
        ((1, -3), "n_output must be a whole number of at least 1, got -3"),
        ((10**6, 1), "batch x n_input must be at most 8192"),
        ((1, 10**6), "n_output must be at most 2048"),
    ],
)
def test_impossible_lengths_are_refused(lengths, message):
    with pytest.raises(WorkloadError, match=message):
        record_request(tiny(), *lengths, W8A16)


def test_a_model_that_writes_no_tokens_is_refused():
    with pytest.raises(WorkloadError, match="must have a decoder, tiny has none"):
        record_request(replace(tiny(), decoder=None), 4, 1, W8A16)


def test_an_unknown_width_lists_those_that_exist():
    with pytest.raises(WorkloadError, match="kv_bits must be one of 4, 8, 16; got 7"):
        Precision(kv_bits=7)


def test_values_are_computed_of_no_architecture_that_is_only_described():
    config = decoder_only()
    inner = ReferenceOps(initial_weights(config, np.random.default_rng(0)))
    with pytest.raises(WorkloadError, match="must be one that mu_ref runs"):
        RecordOps(replace(describe(config), positions="none"), W8A16, inner)


def test_recording_without_a_phase_says_what_to_call():
    ops = RecordOps(describe(decoder_only()), W8A16)
    with pytest.raises(WorkloadError, match="call begin first"):
        forward(ops, decoder_only(), None, None, np.ones((1, 2), int))
