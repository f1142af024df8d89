"""Requests with right values: padded caches, windows, long inputs, models that do not fit.

`data/*.hub.json` are the configurations of public models, as their hubs hold them.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mu_ref.presets import preset
from npu_sim.hardware.presets import npu
from npu_sim.models.hf_config import read_hf_config
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.request import described_program
from npu_sim.report.facts import model_facts
from npu_sim.report.fidelity import FIDELITIES, simulate_program
from npu_sim.tile.simulate import MOST_TASKS_AT_ONCE

DATA = Path(__file__).parent / "data"
W8A16 = Precision()
MB = 1e6


def gemma():
    """Gemma 3 1B: 26 layers, of which every sixth sees all and others 512 tokens."""
    found = read_hf_config(DATA / "gemma-3-1b.hub.json")
    layers = tuple((layer + 1) % 6 != 0 for layer in range(26))
    decoder = replace(found.model.decoder, window=512, windowed_layers=layers)
    return replace(found, model=replace(found.model, decoder=decoder))


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_a_budget_of_memory_counts_padded_caches(fidelity):
    program = described_program(describe(preset("mu-330m")), 64, 2, W8A16, static_context=2048)
    report = simulate_program(program, npu("hexagon-x-elite"), fidelity=fidelity, budget_mb=380)
    # 12 layers of keys and values of 2,048 slots, of self- and of cross-attention
    assert round(program.stored_kv_bytes / MB, 1) == round(2 * 37.75, 1)
    assert round(report.stored_bytes / MB, 1) == 408.4
    assert not report.memory_budget.met


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_a_padded_cache_does_not_live_in_sram(fidelity):
    program = described_program(
        describe(preset("decoder-only-330m")), 16, 4, W8A16, static_context=32_768
    )
    prefill, decode = simulate_program(program, npu("h100"), fidelity=fidelity).phases
    assert [round(p.kv_bytes / 1e9, 2) for p in (prefill, decode)] == [2.37, 7.1]


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_windows_are_read_and_stored_as_such(fidelity):
    program = described_program(gemma(), 8, 2, W8A16, static_context=32_768)
    (decode,) = simulate_program(program, npu("hexagon-x-elite"), fidelity=fidelity).phases[1:]
    # 22 layers of 512 slots and 4 of 32,768, keys and values, one head of 256 numbers of 2 bytes
    kept = (22 * 512 + 4 * 32_768) * 2 * 256 * 2
    assert program.stored_kv_bytes == kept
    assert decode.kv_bytes == kept + 26 * 2 * 256 * 2  # and the new token is written
    assert round(decode.kv_bytes / MB, 1) == 145.8


def test_json_is_whole_where_a_model_does_not_fit(npu_sim):
    code, out, err = npu_sim(
        "run", "--hf-config", DATA / "llama-3.2-1b.hub.json", "--input", 1, "--output", 2,
        "--context", 131_072, "--batch", 8, "--json",
    )  # fmt: skip
    data = json.loads(out)
    assert code == 2
    assert "must fit the 17.2 GB DRAM" in err
    assert data["fits"] is False
    # keys and values of 16 layers of 8 heads of 64 numbers of 2 bytes, for 8 x 131,072 slots
    assert data["stored_kv_bytes"] == 2 * 16 * 8 * 64 * 2 * 8 * 131_072
    assert data["n_parameters"] == 1_235_814_400  # as published: 1.24 B
    # every matrix once, the table as head: all parameters but gains of 33 norms
    assert data["macs_per_token"] == 1_235_814_400 - 33 * 2048
    assert data["weight_bytes_per_token"] == data["macs_per_token"] + 33 * 2048 * 2 + 2048


def test_json_says_what_a_token_costs_of_models_that_fit_and_of_encoders(npu_sim):
    code, out, _ = npu_sim("run", "tiny", "--npu", "teaching-npu", "--json")
    assert code == 0
    data = json.loads(out)
    assert data["fits"] is True
    assert {"n_parameters", "macs_per_token", "weight_bytes_per_token"} <= set(data)
    # 2 layers: q and o 16 x 16, k and v 16 x 8, then q and o of cross-attention; an MLP; the head
    mlp = 2 * 16 * preset("tiny").decoder.d_ff
    assert data["macs_per_token"] == 2 * (4 * 256 + 2 * 128 + mlp) + 16 * 61
    encoder = replace(preset("tiny"), decoder=None)
    facts = model_facts(describe(encoder), W8A16)
    assert facts["macs_per_token"] == 2 * (2 * 256 + 2 * 128 + 2 * 16 * encoder.encoder.d_ff)
    code, out, err = npu_sim("run", "tiny", "--npu", "ethos-u85", "--json")
    assert (code, json.loads(out)["fits"]) == (2, False)  # no engine for its widths
    assert json.loads(out)["reason"] in err


def test_long_inputs_take_few_tasks(monkeypatch):
    program = described_program(describe(preset("decoder-only-330m")), 4096, 1, W8A16)
    monkeypatch.setattr("npu_sim.tile.simulate.MOST_TASKS", MOST_TASKS_AT_ONCE * 5)
    report = simulate_program(program, npu("m2-ultra"))
    assert report.latency_cycles >= simulate_program(
        program, npu("m2-ultra"), fidelity="roofline"
    ).phases[0].macs / npu("m2-ultra").matrix.macs_per_cycle(8, 16)


def test_a_head_whose_scales_exceed_sram_streams():
    # 262,144 rows of the vocabulary have 1 MB of scales, SRAM has half of that
    program = described_program(gemma(), 8, 2, W8A16)
    report = simulate_program(program, npu("teaching-npu"))
    assert report.dram_bytes >= program.total("weight_bytes") + program.total("kv_bytes")


@pytest.mark.parametrize("name", ["amd-xdna2", "intel-npu4", "hexagon-x-elite"])
def test_todays_models_run_with_their_longest_context(name):
    for n_input, context in ((1, 131_072), (1024, 8192)):
        program = described_program(gemma(), n_input, 2, W8A16, static_context=context)
        report = simulate_program(program, npu(name))
        assert report.dram_bytes >= program.total("weight_bytes") + program.total("kv_bytes")
