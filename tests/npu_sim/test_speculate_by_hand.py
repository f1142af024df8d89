"""Steps of drafting whose parts take made-up times, and what is recorded of drafts, by hand."""

from dataclasses import replace

import pytest

from mu_ref.presets import tiny
from mu_ref.redrafter.config import DrafterConfig
from npu_sim.errors import WorkloadError
from npu_sim.hardware.presets import npu
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.speculate import step
from npu_sim.speculate.acceptance import Acceptance
from npu_sim.speculate.drafter import Drafter, draft_program
from npu_sim.speculate.request import _kept, record_speculation
from npu_sim.speculate.step import speculate

CHIP, W8A16 = npu("teaching-npu"), Precision()  # a call is 0.1 ms
MODEL, ALONE = tiny(), replace(tiny(), encoder=None)
DRAFTER = DrafterConfig(d_model=16, vocab_size=61, d_exit=32, n_blocks=2, rnn=True)


@pytest.fixture
def calls(monkeypatch):
    """A plain step takes 8 ms, drafting 3, verifying 5 and one for each node, moving 1 a byte.

    Together they take 2 ms less than one after the other.
    """
    seen = []

    def made_up(like, ops, chip):
        seen.append(ops)
        times = {"decode": 8.0, "draft": 3.0, "verify": 5.0, "compact": 0.0}
        phases = dict.fromkeys(op.phase for op in ops)
        rows = [op.output.shape[1] for op in ops if op.kind == "embed" and op.phase == "verify"]
        moved = [op.output.n_bytes for op in ops if op.phase == "compact"]
        both = 2.0 if len(phases) > 1 else 0.0
        return sum(times[phase] for phase in phases) + sum(rows) + sum(moved) - both

    monkeypatch.setattr(step, "_call_ms", made_up)
    return seen


def cost(steps, model=MODEL, **options):
    return speculate(model, DRAFTER, 2, 3, steps, CHIP, W8A16, **options)


def test_a_step_is_the_mean_over_its_trees(calls):
    # one of four steps keeps nothing of five nodes, the others keep two of seven
    steps = Acceptance(n_accepted=(0, 2), nodes=(5, 7), weights=(0.25, 0.75))
    found = cost(steps, host_us=300.0)
    kept = 2 * 64  # K and V of 2 layers, 2 kv heads of 4 numbers of 2 B, for each token
    assert found.plain_ms == pytest.approx(8.1)
    assert found.draft_ms == 3
    assert found.verify_ms == pytest.approx(0.25 * 10 + 0.75 * 12)
    assert found.compact_ms == pytest.approx(0.75 * kept)
    whole = 0.25 * (3 + 10 - 2) + 0.75 * (3 + 12 + kept - 2)
    assert found.in_engine_ms == pytest.approx(whole + 0.1)
    parts = found.draft_ms + found.verify_ms + found.compact_ms
    assert found.host_ms == pytest.approx(parts + 2 * 0.1 + 0.3)
    assert found.tokens_per_step == 2.5
    assert found.speedup_in_engine == pytest.approx(2.5 * 8.1 / (whole + 0.1))
    assert found.speedup_host == pytest.approx(2.5 * 8.1 / found.host_ms)
    assert found.break_even_tokens_per_step == pytest.approx((whole + 0.1) / 8.1)


@pytest.mark.parametrize("model", [MODEL, ALONE], ids=["both", "decoder"])
def test_nodes_stand_behind_the_context(calls, model):
    cost(Acceptance.recorded([(1, 4)]), model, n_input=5, n_context=9)
    keys = {
        (op.phase, op.site.split(".")[2]): op.gemm.n
        for ops in calls for op in ops if op.site.endswith("attention.scores")
    }  # fmt: skip
    expected = {("verify", "self_attention"): 9 + 4, ("decode", "self_attention"): 9 + 1}
    if model is MODEL:
        expected |= {(phase, "cross_attention"): 5 for phase in ("verify", "decode")}
    assert keys == expected


@pytest.mark.parametrize(
    ("steps", "fits"), [((3, 7), True), ((3, 8), False), ((4, 7), False), ((0, 1), True)]
)
def test_a_tree_has_a_root_and_its_beams_at_most(calls, steps, fits):
    if fits:
        cost(Acceptance.recorded([steps]))
    else:
        with pytest.raises(WorkloadError, match="at most 7 nodes and 3 accepted"):
            cost(Acceptance.recorded([steps]))


# -- acceptance ------------------------------------------------------------------------------------


def test_each_token_of_a_chain_needs_those_before_it():
    found = Acceptance.chain(0.5, 3, 9)
    assert found.n_accepted == (0, 1, 2, 3)
    assert found.weights == (0.5, 0.25, 0.125, 0.125)
    assert found.nodes == (9,) * 4
    assert found.tokens_per_step == 1 + 0.25 + 0.25 + 0.375
    sure = Acceptance.chain(1.0, 2, 9)
    assert (sure.weights, sure.tokens_per_step) == ((0, 0, 1), 3)


@pytest.mark.parametrize("probabilities", [[0.5, 0.49], [0.5, 0.500002], []])
def test_probabilities_add_up_to_one(probabilities):
    with pytest.raises(WorkloadError, match="at least 0 and sum to 1"):
        Acceptance.distributed(probabilities, 4)
    with pytest.raises(WorkloadError, match=r"must be a number from 0 to 1, got 1\.1"):
        Acceptance.distributed([1.1, -0.1], 4)


@pytest.mark.parametrize("steps", [[(4, 4)], [(-1, 4)], []])
def test_a_path_has_fewer_accepted_than_nodes(steps):
    with pytest.raises(WorkloadError):
        Acceptance.recorded(steps)
    assert Acceptance.recorded([(3, 4), (0, 1)]).tokens_per_step == 2.5


# -- drafts ----------------------------------------------------------------------------------------


def test_what_a_scenario_says_of_its_drafts():
    assert Drafter(beam_width=3, draft_len=5, packed_share=0.5).n_nodes == 1 + 8  # 7.5 up
    assert Drafter().n_nodes == 1
    assert Drafter(draft_len=3, tokens_per_step=4.0).tokens_per_step == 4
    for wrong in ({"tokens_per_step": 4.1}, {"tokens_per_step": 0.9}, {"packed_share": 0.0},
                  {"packed_share": 1.1}, {"n_layers": 0}, {"draft_len": 0}):  # fmt: skip
        with pytest.raises(WorkloadError):
            Drafter(**({"draft_len": 3} | wrong))
    network = Drafter(n_layers=3).network(MODEL)
    assert network == DrafterConfig(d_model=16, vocab_size=61, d_exit=32, n_blocks=3, rnn=True)


def test_rows_of_each_step_of_a_draft():
    ops = list(draft_program(describe(MODEL), DRAFTER, 3, 2, W8A16, batch=2).ops)

    def rows(kind, site):
        return [op.output.shape[:2] for op in ops if (op.kind, op.site) == (kind, site)]

    assert rows("embed", "embedding") == [(2, 1), (2, 3)]  # one beam, then three
    assert rows("linear", "drafter.head") == [(2, 1), (2, 3)]
    # the states of three beams, first of one, then of three
    assert rows("take_tokens", "drafter.beams") == [(2, 3)] * 2
    assert [op.vector_elements for op in ops if op.kind == "top_k"] == [3 * 2 * 61, 3 * 2 * 3 * 61]


@pytest.mark.parametrize(
    ("n", "mean", "kept"),
    [(7, 2.5, [2, 3, 2]), (6, 3.0, [3, 3]), (4, 1.0, [1] * 4), (1, 4.0, [1]), (5, 1.9, [2, 2, 1])],
)
def test_tokens_of_each_step_add_up(n, mean, kept):
    assert list(_kept(n, mean)) == kept


def test_calls_and_nodes_of_a_request_with_drafts():
    program = record_speculation(
        MODEL, DRAFTER, 4, 6, W8A16, beam_width=2, draft_len=3, tokens_per_step=2.5
    )
    # the first of six tokens comes without a draft; 2 and 3 with one
    assert [c.phase for c in program.calls] == ["encode", "decode", *["draft", "verify"] * 2]
    nodes = [op.gemm.m for op in program.ops if op.phase == "verify" and op.site == "head"]
    assert nodes == [1 + 2 * 3] * 2
    kept = [op.output.shape[2] for op in program.ops if op.site.endswith("0.self_attention.k_keep")]
    assert kept == [2, 3]
    scores = [op.gemm.n for op in program.ops
              if op.phase == "verify" and op.site == "decoder.0.self_attention.scores"]  # fmt: skip
    assert scores == [1 + 7, 1 + 2 + 7]  # behind what was kept
    packed = record_speculation(
        MODEL, DRAFTER, 4, 3, W8A16, beam_width=2, draft_len=3, tokens_per_step=4, n_packed=5
    )
    assert [op.gemm.m for op in packed.ops if op.phase == "verify" and op.site == "head"] == [5]
