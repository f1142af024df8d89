"""Recorded drafting and verification: products by hand, and the laws of what they cost."""

from dataclasses import replace

import numpy as np
import pytest

from mu_ref.errors import ConfigError
from mu_ref.presets import tiny
from mu_ref.redrafter.beams import Search, proposer
from mu_ref.redrafter.config import DrafterConfig, drafter_shapes
from mu_ref.redrafter.generate import speculate
from npu_sim.errors import WorkloadError
from npu_sim.hardware.presets import npu
from npu_sim.program.call import call_program
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate_program
from npu_sim.speculate.drafter import draft_program, drafting_ops
from npu_sim.speculate.request import record_speculation

W8A16 = Precision()
DRAFTER = DrafterConfig(d_model=16, vocab_size=61, d_exit=24, n_blocks=1, rnn=True)
SIZES = {"beam_width": 3, "draft_len": 4, "tokens_per_step": 2.5}


def test_products_of_a_request_equal_the_count_by_hand():
    # 5 in, 6 out: one token without a draft, then 5 tokens in ceil(5 / 2.5) = 2 steps
    program = record_speculation(tiny(), DRAFTER, 5, 6, W8A16, **SIZES)
    assert program.phases == ("encode", "decode", "draft", "verify")
    assert [call.phase for call in program.calls] == ["encode", "decode"] + ["draft", "verify"] * 2
    row = 32 * 24 + 24 * 24 + 24 * 61  # [h, s] to the blocks, one block, head
    cell = 16 * 16  # W e, and U s from the second token on
    one_draft = (row + cell) + 3 * 3 * (row + 2 * cell)
    assert program.total("macs", "draft") == 2 * one_draft
    nodes, verify = 1 + 3 * 4, 0
    for n_past in (1, 3):  # the first step keeps round(2.5) = 2 tokens
        own = nodes * (2 * 16 * 16 + 2 * 16 * 8) + 2 * 4 * nodes * (n_past + nodes) * 4
        cross = nodes * 2 * 16 * 16 + 2 * 4 * nodes * 5 * 4
        verify += 2 * (own + cross + nodes * 2 * 16 * 32) + nodes * 16 * 61
    assert program.total("macs", "verify") == verify


def test_steps_of_a_request_are_the_calls_that_are_priced_alone():
    program = record_speculation(tiny(), DRAFTER, 5, 6, W8A16, **SIZES)
    model = describe(tiny())
    draft = draft_program(model, DRAFTER, 3, 4, W8A16)
    assert program.calls[4] == draft.calls[0]
    assert program.stored_weight_bytes == draft.stored_weight_bytes
    for call, n_past in zip((program.calls[3], program.calls[5]), (1, 3), strict=True):
        verify = call_program(model, "verify", 13, n_past + 13, 5, W8A16).calls[0].ops
        assert call.ops[: len(verify)] == verify
        kept = [op.kind for op in call.ops[len(verify) :]]
        assert kept == ["keep_slots"] * 4 + ["take_tokens"]  # k and v of two layers


def test_packing_makes_verification_cheaper_and_leaves_drafting_as_it_is():
    whole = record_speculation(tiny(), DRAFTER, 5, 6, W8A16, **SIZES)
    packed = record_speculation(tiny(), DRAFTER, 5, 6, W8A16, **SIZES, n_packed=7)
    assert packed.total("macs", "verify") < whole.total("macs", "verify")
    assert packed.total("macs", "draft") == whole.total("macs", "draft")


def test_reading_costs_the_same_with_and_without_drafts_and_weights_are_the_drafters_more():
    plain = record_request(tiny(), 5, 6, W8A16)
    drafted = record_speculation(tiny(), DRAFTER, 5, 6, W8A16, **SIZES)
    assert drafted.total("macs", "encode") == plain.total("macs", "encode")
    biases = sum(shape[0] for name, shape in drafter_shapes(DRAFTER).items() if "bias" in name)
    matrices = sum(
        int(np.prod(s)) for name, s in drafter_shapes(DRAFTER).items() if "bias" not in name
    )
    assert drafted.stored_weight_bytes - plain.stored_weight_bytes == matrices + 4 * biases


def test_a_speculative_request_can_be_priced():
    report = simulate_program(record_speculation(tiny(), DRAFTER, 5, 6, W8A16, **SIZES),
                      npu("hexagon-x-elite"), budget_ms=500.0)  # fmt: skip
    cycles = {phase.phase: phase.cycles for phase in report.phases}
    assert set(cycles) == {"encode", "decode", "draft", "verify"}
    assert min(cycles.values()) > 0


def test_a_decoder_only_model_prefills():
    config = replace(tiny(), encoder=None)
    program = record_speculation(config, DRAFTER, 5, 6, W8A16, **SIZES)
    assert program.phases == ("prefill", "draft", "verify")


def test_speculative_decoding_itself_runs_on_the_recorder():
    ops = drafting_ops(describe(tiny()), DRAFTER, W8A16)
    ops.log.begin("decode")
    prompt = np.full((2, 1), 1)
    drafts = proposer(ops, tiny(), DRAFTER, Search(beam_width=3, draft_len=4))
    memory = None
    config = replace(tiny(), encoder=None)
    steps = list(
        speculate(ops, config, drafts, memory, prompt, np.ones((2, 1), bool), 7, stop_at_eos=False)
    )
    assert sum(step.n_tokens[0] for step in steps) == 7


def test_what_cannot_be_recorded_is_refused():
    with pytest.raises(WorkloadError, match="tokens_per_step must be a number from 1 to 5, got 6"):
        record_speculation(tiny(), DRAFTER, 5, 6, W8A16, beam_width=3, draft_len=4,
                           tokens_per_step=6)  # fmt: skip
    with pytest.raises(WorkloadError, match="n_packed"):
        record_speculation(tiny(), DRAFTER, 5, 6, W8A16, **SIZES, n_packed=3)
    with pytest.raises(ConfigError, match="must fit tiny"):
        record_speculation(tiny(), replace(DRAFTER, vocab_size=60), 5, 6, W8A16, **SIZES)
    with pytest.raises(WorkloadError, match="must have a decoder"):
        record_speculation(replace(tiny(), decoder=None), DRAFTER, 5, 6, W8A16, **SIZES)
