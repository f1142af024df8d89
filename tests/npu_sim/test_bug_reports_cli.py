"""Faults that users of similar tools have reported in public, each held against ours."""

import json

import pytest

from mu_ref.presets import preset
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.request import request_program


@pytest.mark.parametrize("name", ["mu-nano", "decoder-only-330m"])
def test_the_head_scores_the_last_position_alone(name):
    """https://github.com/huggingface/transformers/issues/38977: the head ran on all tokens read."""
    model = preset(name)
    n_rows, n_input = 3, 40
    program = request_program(describe(model), n_input, 2, Precision(), n_rows)
    heads = [
        op for op in program.ops if op.gemm is not None and op.gemm.n == model.vocab_size
    ]  # fmt: skip
    assert len(heads) == 2  # one for each token that is written
    d_model = model.stacks["decoder"].d_model
    assert [op.macs for op in heads] == [n_rows * d_model * model.vocab_size] * 2
    assert [op.output.shape for op in heads] == [(n_rows, 1, model.vocab_size)] * 2


@pytest.mark.parametrize("by", ["layer", "kind", "site"])
@pytest.mark.parametrize("npu", ["hexagon-x-elite", "h100", "teaching-npu"])
def test_shares_sum_to_all_of_it(npu_sim, npu, by):
    """https://github.com/KristofferC/TimerOutputs.jl/issues/28: 29 + 29 + 15 = 100 percent."""
    code, out, err = npu_sim("run", "tiny", "--npu", npu, "--input", 9, "--output", 4, "--batch", 3,
                             "--by", by, "--json")  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    for name in ("cycles", "macs", "dram_bytes"):
        assert sum(share[name] for share in found["shares"]) == found[name]
    for phase in found["phases"]:
        assert sum(phase["limit_cycles"].values()) == phase["cycles"]
    assert sum(phase["cycles"] for phase in found["phases"]) == found["cycles"]
    assert sum(phase["energy_mj"] for phase in found["phases"]) == pytest.approx(found["energy_mj"])
