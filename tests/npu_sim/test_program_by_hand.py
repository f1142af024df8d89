"""What operations are recorded with: bytes, products and vector work, counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from mu_ref.generate import stream
from mu_ref.model.cache import Cache
from mu_ref.presets import tiny
from npu_sim.errors import WorkloadError
from npu_sim.program.call import call_program, record_decode
from npu_sim.program.description import describe
from npu_sim.program.log import stored
from npu_sim.program.precision import Precision, precision_name
from npu_sim.program.program import VECTOR_WORK, Call, Op, Program, Tensor
from npu_sim.program.recorder import RecordOps
from npu_sim.program.request import record_request, request_program
from npu_sim.program.rows import program_table

W8A16 = Precision()
MODEL = tiny()  # d_model 16, 4 query heads and 2 kv heads of 4, 61 tokens, 2 + 2 layers


def weight(*shape: int, bits: int) -> Tensor:
    return Tensor(name="w", shape=shape, bits=bits, role="weight")


def recorder(precision: Precision = W8A16, **changes) -> RecordOps:
    ops = RecordOps(replace(describe(MODEL), **changes), precision)
    ops.log.begin("decode")
    return ops


def value(ops: RecordOps, *shape: int):
    return stored(ops.log.activation("x", shape))


def last(ops: RecordOps) -> Op:
    return ops.log.calls()[-1].ops[-1]


# -- tensors and operations ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "bits", "n_bytes", "scale_bytes"),
    [
        ((3, 5), 4, 8, 3 * 2),  # 7.5 B; a row is one group, whose scale is a float16
        ((3, 128), 4, 192, 3 * 2),
        ((3, 200), 4, 300, 3 * 2 * 2),  # a group of 128 and one of 72
        ((3, 200), 8, 600, 3 * 4),  # a scale of 32 bits for each row
        ((2, 3, 8), 8, 48, 6 * 4),
        ((3, 200), 16, 1200, 0),
        ((200,), 8, 200, 0),  # gains have one scale, which counts for nothing
    ],
)
def test_bytes_of_a_weight_and_of_its_scales(shape, bits, n_bytes, scale_bytes):
    tensor = weight(*shape, bits=bits)
    assert (tensor.n_bytes, tensor.scale_bytes) == (n_bytes, scale_bytes)


def test_activations_have_no_scales_of_their_own():
    assert Tensor(name="x", shape=(3, 200), bits=8, role="activation").scale_bytes == 0


def test_work_of_an_element_by_what_its_formula_says():
    sums_and_products = {
        "none": 0, "copy": 1, "add": 1, "mul": 1, "scale": 1, "compare": 1, "relu": 1,
        "tanh": 0,  # one function and no more
        "rope": 3,  # a cos - b sin
        "rms": 4, "rms_plus_one": 4,  # square, sum, times 1 / root, times gain
        "layer": 7,  # sum, subtract, those of rms, plus bias
        "softmax": 4,  # max, subtract, sum, times 1 / sum
        "softcap": 2,  # over the cap, times the cap
        "gelu_tanh": 8, "gelu": 4, "silu": 4,
    }  # fmt: skip
    assert {name: w.simple_operations for name, w in VECTOR_WORK.items()} == sums_and_products
    special = {name for name, w in VECTOR_WORK.items() if w.special_functions}
    assert special == {"softmax", "softcap", "gelu_tanh", "gelu", "silu", "tanh"}
    assert all(VECTOR_WORK[name].special_functions == 1 for name in special)


def test_the_cache_is_read_and_written_and_views_move_nothing():
    x = Tensor(name="x", shape=(2, 3), bits=16, role="activation")
    kv = Tensor(name="kv", shape=(2, 3), bits=8, role="kv")
    both = Op(site="s", kind="keep_slots", phase="decode", inputs=(kv, x), output=kv)
    assert (both.kv_bytes, both.activation_bytes, both.weight_bytes) == (12, 12, 0)
    view = replace(both, kind="view")
    assert (view.kv_bytes, view.activation_bytes) == (0, 0)
    product = replace(both, kind="linear", inputs=(x, weight(3, 3, bits=4)), output=x)
    assert product.operand_bits == (4, 16)  # what stays, what moves
    assert (product.weight_bytes, product.activation_bytes) == (5, 24)


def test_a_program_counts_calls_up_to_the_first_token_and_what_is_appended():
    kv = Tensor(name="kv", shape=(2, 3), bits=8, role="kv")
    append = Op(site="s", kind="append", phase="decode", inputs=(), output=kv)
    ops = (append, replace(append, kind="keep_slots", inputs=(kv,)))
    program = Program(
        model="m", precision=Precision(), n_input=2, n_output=3, batch=1, stored_weight_bytes=0,
        calls=(Call(phase="encode", ops=()), *[Call(phase="decode", ops=ops)] * 3),
    )  # fmt: skip
    assert program.n_first_calls == 2  # encode, and the step that writes the first of three
    assert program.stored_kv_bytes == 6  # one cache, written three times
    longer = replace(append, kept_bytes=48)
    grown = replace(program, calls=(*program.calls, Call(phase="decode", ops=(longer,))))
    assert grown.stored_kv_bytes == 48  # what an append says of its cache


@pytest.mark.parametrize(
    ("weights", "activations", "name"),
    [
        (4, 8, "w4a8"), (4, 16, "w4a16"), (8, 8, "w8a8"), (8, 16, "w8a16"), (16, 16, "w16a16"),
        (16, 8, "w16a16"), (5, 8, "w8a8"), (8, 9, "w8a16"), (9, 8, "w16a16"),
    ],
)  # fmt: skip
def test_the_rate_of_two_widths(weights, activations, name):
    assert precision_name(weights, activations) == name


def test_the_usual_widths():
    widths = {"weight_bits": 8, "activation_bits": 16, "kv_bits": 16, "head_weight_bits": 8}
    assert Precision().widths() == widths
    assert Precision(weight_bits=4).widths() == {**widths, "weight_bits": 4}


# -- the recorder ----------------------------------------------------------------------------------


def test_products_of_activations_have_one_for_each_row_and_head():
    ops = recorder()
    q, k, v = value(ops, 2, 4, 3, 8), value(ops, 2, 4, 5, 8), value(ops, 2, 4, 5, 8)
    scores = ops.matmul(q, k, "scores", transpose_b=True)
    gemm = last(ops).gemm
    assert (gemm.count, gemm.m, gemm.n, gemm.k) == (2 * 4, 3, 5, 8)
    mixed = ops.matmul(scores, v, "mix")
    gemm = last(ops).gemm
    assert (gemm.count, gemm.m, gemm.n, gemm.k) == (2 * 4, 3, 8, 5)
    assert (scores.shape, mixed.shape) == ((2, 4, 3, 5), (2, 4, 3, 8))
    assert gemm.macs == 2 * 4 * 3 * 8 * 5


def test_the_cache_grows_by_what_is_written():
    ops = recorder(Precision(kv_bits=8))
    past = ops.append(None, value(ops, 2, 2, 5, 4), "k_cache")
    whole = ops.append(past, value(ops, 2, 2, 3, 4), "k_cache")
    assert whole.shape == whole.tensor.shape == (2, 2, 8, 4)
    assert (last(ops).vector_elements, last(ops).kv_bytes) == (2 * 2 * 3 * 4, 2 * 2 * 3 * 4)
    kept = ops.keep_slots(whole, 5, np.zeros((2, 2), int), "k_keep")
    assert kept.shape == (2, 2, 7, 4)  # five stay where they are, two are moved
    assert (last(ops).vector_elements, last(ops).kv_bytes) == (32, 2 * 32)


def test_choices_look_at_every_element_once_for_each_choice():
    ops = recorder()
    scores = value(ops, 2, 3, 61)
    ops.argmax(scores, "head.argmax")
    assert (last(ops).vector_elements, last(ops).output.n_bytes) == (2 * 3 * 61, 2 * 3 * 4)
    ops.top_k(scores, 4, "drafter.top_k")
    assert (last(ops).vector_elements, last(ops).output.n_bytes) == (4 * 2 * 3 * 61, 2 * 3 * 4 * 4)


def test_one_of_one_token_is_a_view_and_one_of_two_a_copy():
    ops = recorder()
    ops.take_tokens(value(ops, 2, 1, 16), np.zeros((2, 1), int), "last")
    assert last(ops).is_layout
    ops.take_tokens(value(ops, 2, 2, 16), np.zeros((2, 1), int), "last")
    assert (last(ops).kind, last(ops).vector_elements) == ("take_tokens", 32)
    ops.take_tokens(value(ops, 2, 1, 16), np.zeros((2, 3), int), "copies")
    assert (last(ops).kind, last(ops).vector_elements) == ("take_tokens", 96)


@pytest.mark.parametrize("extra", [0, 2])
def test_each_further_embedding_is_a_table_row_more(extra):
    ops = recorder(positions="table", extra_embeddings=extra)
    ops.embed(np.zeros((1, 3), int), "embedding")
    # 3 rows of 16 values of 1 B from the table of positions, and from each further one
    assert last(ops).weight_bytes == (1 + extra) * 3 * 16
    assert ops.log.shapes["decoder.positions.weight"] == (MODEL.max_len + extra, 16)


def test_biases_have_the_width_of_accumulators():
    ops = recorder()
    ops.linear(value(ops, 1, 1, 16), "decoder.0.mlp.up")
    assert last(ops).weight_bytes == 32 * 16 + 32 * 4


def test_all_weights_are_stored_once():
    # matrices of 1 B, gains of 2, biases of 4; a tied head is the embedding
    attention = 16 * 16 + 2 * 8 * 16 + 16 * 16 + 4 * (16 + 2 * 8 + 16) + 2 * 2 * 16
    mlp = 2 * 32 * 16 + 4 * (32 + 16) + 2 * 2 * 16
    expected = 2 * (attention + mlp) + 2 * (2 * attention + mlp) + 2 * 2 * 16 + 61 * 16
    assert record_request(MODEL, 2, 1, Precision()).stored_weight_bytes == expected


# -- calls and requests ----------------------------------------------------------------------------


def scored(program) -> list[int]:
    return [op.gemm.m for op in program.ops if op.site == "head"]


def test_a_verifying_call_scores_all_its_nodes():
    assert scored(call_program(describe(MODEL), "verify", 3, 8, 5, Precision())) == [3]
    assert scored(call_program(describe(MODEL), "decode", 3, 8, 5, Precision())) == [1]


def test_a_call_reads_the_slots_it_is_given():
    program = call_program(describe(MODEL), "decode", 2, 7, 5, Precision(), batch=3)
    keys = {op.site: op.gemm.n for op in program.ops if op.site.endswith("scores")}
    assert keys == {f"decoder.{i}.{a}_attention.scores": n
                    for i in (0, 1) for a, n in (("self", 7), ("cross", 5))}  # fmt: skip


def test_a_call_computes_a_limited_number_of_tokens_against_any_context():
    description, longest = describe(MODEL), 2**17
    call_program(description, "prefill", longest, longest, 5, Precision())  # keeps no masks
    with pytest.raises(WorkloadError, match="batch x n_tokens must be at most 131072"):
        call_program(description, "prefill", longest // 2, longest, 5, Precision(), batch=3)


def test_a_request_is_recorded_as_the_model_decodes():
    model = replace(windowed(3), encoder=None)
    ops = RecordOps(describe(model), W8A16)
    ops.log.begin("decode")
    prompt = np.full((2, 5), model.bos_id)
    for step in stream(ops, model, None, prompt, prompt > 0, 3, stop_at_eos=False):
        assert step.tokens.shape == (2,)
    recorded = record_request(model, 5, 3, W8A16, 2)
    assert [op.site for op in recorded.ops] == [op.site for op in ops.log.program(5, 3, 2).ops]


def windowed(window: int, *layers: bool):
    decoder = replace(MODEL.decoder, window=window, windowed_layers=layers or (True, False))
    return replace(MODEL, decoder=decoder)


def test_a_layer_with_a_window_reads_what_one_of_its_queries_sees():
    program = record_request(windowed(3), 4, 5, W8A16)
    slots = {
        "decoder.0.self_attention": [1, 2, 3, 3, 3],
        "decoder.1.self_attention": [1, 2, 3, 4, 5],
    }
    for site, expected in slots.items():
        read = [op for op in program.ops if op.site in (f"{site}.scores", f"{site}.mix")]
        assert [op.inputs[1].shape[2] for op in read if op.site.endswith("mix")] == expected
        assert [op.gemm.n for op in read if op.site.endswith("scores")] == expected
        assert [op.gemm.k for op in read if op.site.endswith("mix")] == expected
    # a key of 2 heads of 4 numbers of 2 bytes is 16 bytes; 3 and 5 slots, and 4 of cross-attention
    assert program.stored_kv_bytes == 2 * 16 * (3 + 5 + 4 + 4)
    # three drafted tokens see two tokens before the first of them
    verify = call_program(describe(windowed(3)), "verify", 3, 9, 4, W8A16)
    keys = {op.site: op.gemm.n for op in verify.ops if op.site.endswith("self_attention.scores")}
    assert keys == {"decoder.0.self_attention.scores": 5, "decoder.1.self_attention.scores": 9}
    assert verify.stored_kv_bytes == 2 * 16 * (3 + 9 + 4 + 4)


def test_a_window_wider_than_the_context_changes_nothing():
    plain, wide = (record_request(m, 4, 5, W8A16) for m in (MODEL, windowed(5, True, True)))
    assert wide.calls == plain.calls


def test_an_encoder_computes_every_pair_of_tokens_whatever_its_window():
    encoder = replace(MODEL.encoder, window=2, windowed_layers=(True, True))
    plain, narrow = (
        record_request(m, 9, 1, W8A16) for m in (MODEL, replace(MODEL, encoder=encoder))
    )
    assert narrow.total("macs", "encode") == plain.total("macs", "encode")


def test_an_encoder_alone_scores_nothing_unless_it_is_asked_to():
    alone = replace(MODEL, decoder=None)
    assert describe(alone).lm_head == "none"
    assert describe(MODEL).lm_head == "last"
    assert scored(call_program(describe(alone), "encode", 4, 4, 0, Precision())) == []


def test_hidden_states_of_what_is_scored_are_given_back():
    ops = recorder(lm_head="all")
    cache = Cache.empty(1, 2)
    assert record_decode(ops, np.ones((1, 3), int), None, cache).shape == (1, 3, 16)
    ops.log.begin("decode")
    assert record_decode(ops, np.ones((1, 3), int), None, cache, "last").shape == (1, 1, 16)


def test_a_decoder_reads_in_its_first_call_and_then_decodes():
    alone = replace(MODEL, encoder=None)
    assert [c.phase for c in record_request(alone, 4, 3, Precision()).calls] == [
        "prefill", "decode", "decode",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("encoder", "lengths", "phases"),
    [
        (True, (8, 3), ["encode", *["decode"] * 3]),
        (True, (3, 8), ["encode", *["decode"] * 8]),
        (False, (6, 3), ["prefill", *["decode"] * 2]),  # 6 + 2 slots: the last token is not read
    ],
)
def test_a_compiled_graph_of_eight_slots_holds_what_just_fits(encoder, lengths, phases):
    model = MODEL if encoder else replace(MODEL, encoder=None)
    program = request_program(describe(model), *lengths, Precision(), static_context=8)
    assert [call.phase for call in program.calls] == phases
    longer = (lengths[0], lengths[1] + 1) if lengths != (8, 3) else (9, 3)
    with pytest.raises(WorkloadError, match="static_context for 9 tokens"):
        request_program(describe(model), *longer, Precision(), static_context=8)


def test_the_head_alone_is_stored_at_its_own_width():
    precision = Precision(weight_bits=4, head_weight_bits=16)
    ops = recorder(precision, model=replace(MODEL, tied_head=False))
    assert ops.log.weight("head.weight").bits == 16
    assert ops.log.weight("embedding.weight").bits == 4
    assert recorder(precision).log.weight("embedding.weight").bits == 16  # which is the head, too
    assert ops.log.weight("decoder.final_norm.weight").bits == 16  # as activations
    assert ops.log.weight("decoder.0.mlp.up.weight").bits == 4


def test_side_by_side_is_as_wide_as_both():
    ops = recorder()
    assert ops.concat(value(ops, 2, 3, 4), value(ops, 2, 3, 5), "x").tensor.shape == (2, 3, 9)


def test_features_take_the_place_of_the_encoder_s_table_alone():
    model = replace(MODEL, shared_embedding=False)
    sound = replace(describe(model), input_features=48)
    (heard,) = call_program(sound, "encode", 5, 0, 0, W8A16).calls
    assert (heard.ops[0].gemm.m, heard.ops[0].gemm.n, heard.ops[0].gemm.k) == (5, 16, 48)
    (written,) = call_program(sound, "decode", 1, 4, 5, W8A16).calls
    assert [op.kind for op in written.ops[:1]] == ["embed"]


# -- prompts in chunks -----------------------------------------------------------------------------


def test_a_long_prompt_is_prefilled_in_chunks_against_the_growing_cache():
    alone = replace(describe(replace(MODEL, encoder=None)))
    program = request_program(alone, 9000, 3, W8A16)
    phases = [call.phase for call in program.calls]
    assert phases == ["prefill"] * 5 + ["decode"] * 2
    keys = [
        [op.gemm.n for op in call.ops if op.site == "decoder.0.self_attention.scores"]
        for call in program.calls
    ]
    assert keys == [[2048], [4096], [6144], [8192], [9000], [9001], [9002]]
    rows = [call.ops[0].output.shape[1] for call in program.calls]
    assert rows == [2048] * 4 + [808, 1, 1]
    # each key and value is written once, and the head scores one position per written token
    assert program.stored_kv_bytes == 9002 * 2 * 2 * 2 * 4 * 2
    heads = [op.gemm.m for op in program.ops if op.site == "head"]
    assert heads == [1, 1, 1]
    assert program.n_first_calls == 5


def test_where_all_positions_are_scored_every_chunk_is():
    every = replace(describe(replace(MODEL, encoder=None)), lm_head="all")
    program = request_program(every, 8193, 1, W8A16)
    assert [op.gemm.m for op in program.ops if op.site == "head"] == [2048] * 4 + [1]


@pytest.mark.parametrize(
    ("lengths", "batch", "message"),
    [
        ((131_072, 1), 1, "n_input \\+ n_output must be at most 131072"),
        ((2, 1), 8193, "which leaves tokens for a chunk must be"),
        ((9000, 3000), 1, "n_output must be at most 2048"),
        ((100_000, 1), 4096, "layers x .chunks . n_output. must be at most"),
    ],
)
def test_prompts_that_chunks_cannot_record_are_refused(lengths, batch, message):
    with pytest.raises(WorkloadError, match=message):
        request_program(describe(replace(MODEL, encoder=None)), *lengths, W8A16, batch)


@pytest.mark.parametrize("decoder_only", [False, True])
@pytest.mark.parametrize("window", [1, 2, 64])
def test_operations_that_repeat_are_one_object_and_their_rows_are_shared(decoder_only, window):
    model = windowed(window, True, False)
    if decoder_only:
        model = replace(model, encoder=None)
    program = record_request(model, 2, 5, W8A16)
    # a call with fewer operations, then the whole one again: nothing of it is at its place
    whole = program.calls[-1]
    short = replace(whole, ops=whole.ops[1:-1])
    program = replace(program, calls=(*program.calls, short, whole))
    earlier, later = (call.ops for call in program.calls[-4:-2])
    same = [a is b for a, b in zip(earlier, later, strict=True)]
    assert same == [a == b for a, b in zip(earlier, later, strict=True)]
    assert any(same)
    assert not all(same)
    apart = tuple(replace(c, ops=tuple(replace(op) for op in c.ops)) for c in program.calls)
    assert not any(a is b for a, b in zip(apart[-4].ops, apart[-3].ops, strict=True))
    shared, alone = program_table(program), program_table(replace(program, calls=apart))
    for a, b in zip(shared.calls, alone.calls, strict=True):
        assert a.rows.tolist() == b.rows.tolist()
        assert a.live.tolist() == b.live.tolist()


@pytest.mark.parametrize("window", [1, 3, 64])
def test_a_cache_is_stored_at_its_most_in_whatever_order_calls_come(window):
    program = record_request(windowed(window), 4, 5, W8A16)
    backwards = replace(program, calls=program.calls[::-1])
    assert backwards.stored_kv_bytes == program.stored_kv_bytes
