"""What drafting costs: parts by hand, laws, and what cannot be."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu_ref.errors import ConfigError
from mu_ref.presets import tiny
from mu_ref.redrafter.config import DrafterConfig
from npu_sim.errors import WorkloadError
from npu_sim.hardware.presets import npu
from npu_sim.program.call import call_program
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.program import Call, Program
from npu_sim.program.request import record_request
from npu_sim.program.rows import program_table
from npu_sim.speculate.acceptance import Acceptance, read_acceptance
from npu_sim.speculate.drafter import Drafter, draft_program
from npu_sim.speculate.step import compaction_op, speculate
from npu_sim.tile.simulate import simulate_tiles
from npu_sim.units import ms_from_cycles

TEACHING = npu("teaching-npu")
W8A16 = Precision()
DRAFTER = DrafterConfig(d_model=16, vocab_size=61, d_exit=32, n_blocks=2, rnn=True)


def draft(*sizes, drafter=DRAFTER, precision=W8A16, **options):
    return draft_program(describe(tiny()), drafter, *sizes, precision, **options)


def cost(
    width=2, length=3, acceptance=None, drafter=DRAFTER, chip=TEACHING, precision=W8A16, **options
):
    accepted = acceptance or Acceptance.distributed([0, 0, 1], 1 + width * length)
    return speculate(tiny(), drafter, width, length, accepted, chip, precision, **options)


def test_macs_of_a_draft_equal_the_count_by_hand():
    # cell 2 x 16 x 16 (the first step has no state: 1), blocks 2 x 32 x 32, head 32 x 61; W = 2
    first = 16 * 16 + 2 * 32 * 32 + 32 * 61
    other = 2 * (2 * 16 * 16 + 2 * 32 * 32 + 32 * 61)
    assert draft(2, 3).total("macs") == first + 2 * other
    assert draft(2, 3, batch=4).total("macs") == 4 * (first + 2 * other)
    assert DRAFTER.n_parameters == 2 * (32 * 32 + 32) + 32 * 61 + 2 * 16 * 16 + 16


def test_weights_of_a_draft_are_read_for_every_token_and_the_head_has_the_heads_width():
    # 4-bit matrices, 8-bit head and embedding (tied to the model's head), 32-bit biases; W = 2
    precision = Precision(weight_bits=4)
    blocks = 2 * (32 * 32 // 2 + 32 * 4) + 32 * 61
    first = 16 + (16 * 16 // 2 + 16 * 4) + blocks
    other = 2 * 16 + (2 * 16 * 16 // 2 + 16 * 4) + blocks
    program = draft(2, 3, precision=precision)
    assert program.total("weight_bytes") == first + 2 * other
    model = record_request(tiny(), 1, 1, precision).stored_weight_bytes
    stored = 2 * 16 * 16 // 2 + 16 * 4 + blocks
    assert program.stored_weight_bytes == model + stored


def test_vicuna_drafter_has_the_parameters_of_the_paper():
    vicuna = DrafterConfig(d_model=4096, d_exit=8192, n_blocks=2, vocab_size=32000, rnn=True)
    assert vicuna.n_parameters == pytest.approx(429.9e6, rel=1e-3)


def test_without_a_cell_the_state_is_a_sum_and_a_projection_is_counted():
    drafter = replace(DRAFTER, rnn=False, d_exit=8)
    sites = [op.site for op in draft(1, 1, drafter=drafter).ops if op.kind == "linear"]
    assert sites == ["drafter.input_proj", "drafter.0", "drafter.1", "drafter.head"]
    assert drafter.n_parameters == 2 * 72 + 8 * 61 + 32 * 8 + 8


def test_the_knobs_of_a_scenario_describe_the_network_of_the_paper():
    knobs = Drafter(beam_width=3, draft_len=4, packed_share=0.5, n_layers=2)
    assert knobs.network(tiny()) == DRAFTER
    assert knobs.n_nodes == 7  # 1 + 3 * 4 / 2


def test_a_pass_over_one_row_is_the_decode_step_of_a_request():
    step = call_program(describe(tiny()), "verify", 1, 4, 5, Precision()).calls[0]
    request = record_request(tiny(), 5, 4, Precision()).calls[-1]  # the fourth step: 3 in the cache
    kinds = [(op.kind, op.gemm) for op in step.ops if not op.is_layout]
    same = [(op.kind, op.gemm) for op in request.ops if not op.is_layout]
    assert kinds == same


def test_verifying_computes_every_node_with_the_head():
    ops = call_program(describe(tiny()), "verify", 7, 3 + 7, 5, Precision()).calls[0].ops
    assert {op.gemm.m for op in ops if op.kind == "linear"} == {7}
    scores = next(op for op in ops if op.site == "decoder.0.self_attention.scores")
    assert scores.gemm.n == 3 + 7


def test_keeping_a_path_reads_and_writes_its_cache():
    op = compaction_op(640)
    assert (op.kv_bytes, op.macs) == (1280, 0)


@pytest.mark.parametrize(("kv_bits", "token_bytes"), [(16, 64), (8, 32)])
def test_accepted_tokens_alone_are_moved_with_all_their_layers(kv_bits, token_bytes):
    # K and V of 2 layers, 2 kv heads of 4: 32 numbers per token; a byte takes a cycle
    chip = TEACHING.with_value("vector.width_bytes", 2)

    def keep_ms(n_bytes):
        ops = (compaction_op(n_bytes),)
        program = Program(
            model="keep", precision=W8A16, n_input=1, n_output=1, batch=1,
            stored_weight_bytes=0, calls=(Call(phase="compact", ops=ops),),
        )  # fmt: skip
        run = simulate_tiles(program_table(program), chip)
        return ms_from_cycles(run.calls[0].cycles, chip.clock_hz)

    precision = Precision(kv_bits=kv_bits)
    for accepted in (1, 2, 3):
        steps = Acceptance.recorded([(accepted, 7)])
        found = cost(2, 3, steps, chip=chip, precision=precision)
        assert found.compact_ms == keep_ms(accepted * token_bytes)
        assert found.compact_ms < keep_ms((accepted + 1) * token_bytes)
    assert cost(2, 3, Acceptance.recorded([(0, 7)])).compact_ms == 0


def test_the_host_costs_a_call_and_a_round_trip_more():
    found = cost(host_us=700.0)
    # a call of the teaching NPU is 100 us
    parts = found.draft_ms + found.verify_ms + found.compact_ms
    assert found.host_ms == pytest.approx(parts + 0.2 + 0.7)
    assert found.in_engine_ms <= parts + 0.1 + 1e-9
    assert found.speedup_in_engine > found.speedup_host
    assert found.speedup_in_engine == pytest.approx(3 * found.plain_ms / found.in_engine_ms)
    assert found.break_even_tokens_per_step == pytest.approx(3 / found.speedup_in_engine)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([0, 1]))
def test_a_larger_tree_never_drafts_or_verifies_faster(width, length, axis):
    larger = (width + (axis == 0), length + (axis == 1))
    small, large = (
        cost(w, n, Acceptance.distributed([1.0], 1 + w * n)) for w, n in ((width, length), larger)
    )
    assert large.draft_ms >= small.draft_ms
    assert large.verify_ms >= small.verify_ms
    assert large.in_engine_ms >= small.in_engine_ms


def test_acceptance_from_a_rate_a_distribution_and_records():
    chain = Acceptance.chain(0.5, 2, 5)
    assert chain.weights == (0.5, 0.25, 0.25)
    assert chain.tokens_per_step == 1.75  # 1 + a + a^2
    assert Acceptance.distributed([0.25, 0.75], 2).tokens_per_step == 1.75
    assert Acceptance.recorded([(0, 4), (3, 5)]).tokens_per_step == 2.5


def test_recorded_trees_are_priced_each_with_its_size():
    both = cost(2, 2, Acceptance.recorded([(1, 3), (2, 5)]))
    small = cost(2, 2, Acceptance.recorded([(1, 3)]))
    large = cost(2, 2, Acceptance.recorded([(2, 5)]))
    assert both.verify_ms == pytest.approx((small.verify_ms + large.verify_ms) / 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Acceptance.distributed([0.5, 0.6], 3), "sum to 1"),
        (lambda: Acceptance.distributed([], 3), "sum to 1"),
        (lambda: Acceptance.recorded([]), "at least 1"),
        (lambda: Acceptance.recorded([(3, 3)]), "between 0 and nodes - 1, got 3 of 3"),
        (lambda: Acceptance.chain(1.5, 2, 3), "accept_rate must be a number from 0 to 1, got 1.5"),
        (lambda: cost(1, 2, Acceptance.recorded([(1, 9)])), "at most 3 nodes"),
        (lambda: cost(0, 2, Acceptance.recorded([(0, 1)])), "beam_width must be"),
        (lambda: cost(n_context=0), "n_context must be"),
        (lambda: cost(n_input=0), "n_input must be"),
        (lambda: draft(2, 0), "draft_len must be"),
        (lambda: draft(2, 3, batch=0), "batch must be"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(WorkloadError, match=message):
        make()


def test_a_drafter_of_another_model_is_refused():
    with pytest.raises(ConfigError, match="must fit tiny; it was made for width 16 and 60 tokens"):
        cost(drafter=replace(DRAFTER, vocab_size=60))


def test_acceptance_files_are_read_and_a_wrong_line_is_named(tmp_path):
    file = tmp_path / "steps.jsonl"
    file.write_text(json.dumps({"n_accepted": 2, "nodes": 5}) + "\n\n")
    assert read_acceptance(file, 9) == Acceptance.recorded([(2, 5)])
    file.write_text(json.dumps({"probabilities": [0.5, 0.5]}))
    assert read_acceptance(file, 9) == Acceptance.distributed([0.5, 0.5], 9)
    file.write_text('{"n_accepted": 2}')
    with pytest.raises(WorkloadError, match=r"steps.jsonl:1 must hold n_accepted and nodes"):
        read_acceptance(file, 9)
