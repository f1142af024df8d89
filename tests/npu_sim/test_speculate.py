"""What drafting costs: parts by hand, laws, and what cannot be."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu_ref.presets import tiny
from npu_sim.cli.speculate import read_acceptance
from npu_sim.errors import WorkloadError
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.request import record_request
from npu_sim.speculate.acceptance import Acceptance
from npu_sim.speculate.drafter import DrafterShape, drafter_ops
from npu_sim.speculate.step import compaction_op, record_pass, speculate

TEACHING = npu("teaching-npu")
SHAPE = DrafterShape(d_model=16, exit_dim=32, n_blocks=2, vocab_size=61)


def cost(width=2, length=3, acceptance=None, shape=SHAPE, chip=TEACHING, **options):
    accepted = acceptance or Acceptance.distributed([0, 0, 1], 1 + width * length)
    return speculate(tiny(), shape, width, length, accepted, chip, Precision(), **options)


def test_macs_of_a_draft_equal_the_count_by_hand():
    # cell 2 x 16 x 16 (the first step has no state: 1), blocks 2 x 32 x 32, head 32 x 61; W = 2
    first = 16 * 16 + 2 * 32 * 32 + 32 * 61
    other = 2 * (2 * 16 * 16 + 2 * 32 * 32 + 32 * 61)
    ops = drafter_ops(SHAPE, 2, 3, Precision())
    assert sum(op.macs for op in ops) == first + 2 * other
    assert SHAPE.n_parameters == 2 * (32 * 32 + 32) + 32 * 61 + 2 * 16 * 16 + 16


def test_vicuna_drafter_has_the_parameters_of_the_paper():
    vicuna = DrafterShape(d_model=4096, exit_dim=8192, n_blocks=2, vocab_size=32000)
    assert vicuna.n_parameters == pytest.approx(429.9e6, rel=1e-3)


def test_without_a_cell_the_state_is_a_sum_and_a_projection_is_counted():
    shape = replace(SHAPE, rnn=False, exit_dim=8)
    kinds = [op.site for op in drafter_ops(shape, 1, 1, Precision()) if op.kind == "linear"]
    assert kinds == ["drafter.0.input", "drafter.0.block.0", "drafter.0.block.1", "drafter.0.head"]
    assert shape.n_parameters == 2 * 72 + 8 * 61 + 32 * 8 + 8


def test_a_pass_over_one_row_is_the_decode_step_of_a_request():
    step = record_pass(tiny(), 5, 3, 1, Precision()).calls[0]
    request = record_request(tiny(), 5, 4, Precision()).calls[-1]  # the fourth step: 3 in the cache
    kinds = [(op.kind, op.gemm) for op in step.ops if not op.is_layout]
    same = [(op.kind, op.gemm) for op in request.ops if not op.is_layout]
    assert kinds == same


def test_verifying_computes_every_node_with_the_head():
    ops = record_pass(tiny(), 5, 3, 7, Precision()).calls[0].ops
    assert {op.gemm.m for op in ops if op.kind == "linear"} == {7}
    scores = next(op for op in ops if op.site == "decoder.0.self_attention.scores")
    assert scores.gemm.n == 3 + 7


def test_keeping_a_path_reads_and_writes_its_cache():
    op = compaction_op(640)
    assert (op.kv_bytes, op.macs) == (1280, 0)


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
        (lambda: Acceptance.chain(1.5, 2, 3), r"accept_rate must lie in \[0, 1\]"),
        (lambda: cost(1, 2, Acceptance.recorded([(1, 9)])), "at most 3 nodes"),
        (lambda: cost(0, 2, Acceptance.recorded([(0, 1)])), "beam_width must be"),
        (lambda: cost(n_context=0), "n_context must be"),
        (lambda: replace(SHAPE, n_blocks=0), "n_blocks must be"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(WorkloadError, match=message):
        make()


def test_acceptance_files_are_read_and_a_wrong_line_is_named(tmp_path):
    file = tmp_path / "steps.jsonl"
    file.write_text(json.dumps({"n_accepted": 2, "nodes": 5}) + "\n\n")
    assert read_acceptance(file, 9) == Acceptance.recorded([(2, 5)])
    file.write_text(json.dumps({"probabilities": [0.5, 0.5]}))
    assert read_acceptance(file, 9) == Acceptance.distributed([0.5, 0.5], 9)
    file.write_text('{"n_accepted": 2}')
    with pytest.raises(WorkloadError, match=r"steps.jsonl:1 must hold n_accepted and nodes"):
        read_acceptance(file, 9)
