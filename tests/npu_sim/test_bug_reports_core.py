"""Faults that users of similar tools have reported, as tests of this one: caches and SRAM."""

from dataclasses import replace

import pytest

from mu_ref.presets import preset, tiny
from npu_sim.hardware.presets import npu
from npu_sim.models.hf_config import describe_fields
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.request import described_program, record_request
from npu_sim.report.fidelity import FIDELITIES, simulate_program

W8A16 = Precision()


def windowed(*layers: bool):
    """Tiny, decoder only: 2 layers, 2 kv heads of 4; a window of 8 tokens where it is said."""
    decoder = replace(tiny().decoder, window=8, windowed_layers=layers)
    return replace(tiny(), encoder=None, decoder=decoder)


@pytest.mark.parametrize("context", [1, 8, 30])
def test_layers_with_a_window_have_a_cache_too(context):
    """hf-mem left layers with a sliding window out of the cache: half of it at a context of 1.

    Source: https://github.com/alvarobartt/hf-mem/issues/60
    """
    key = 2 * 4 * 2  # bytes in a layer: 2 heads of 4 numbers of 2 bytes
    program = described_program(
        describe(windowed(True, False)), 1, 1, W8A16, static_context=context
    )
    assert program.stored_kv_bytes == 2 * key * (min(context, 8) + context)
    both = described_program(describe(windowed(True, True)), 1, 1, W8A16, static_context=context)
    assert both.stored_kv_bytes == 2 * key * 2 * min(context, 8)


GEMMA_3_4B = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
              "num_hidden_layers": 34, "num_attention_heads": 8, "num_key_value_heads": 4,
              "head_dim": 256, "sliding_window": 1024}  # fmt: skip


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_layers_with_a_window_keep_a_window_alone(fidelity):
    """Ollama allocated the full context for every layer of Gemma 3, and its estimate went on to.

    Gemma 3 4B with 32k slots took some 20 GB, and 8 GB when windows were kept alone: 29 of its 34
    layers see 1,024 tokens. Sources: https://github.com/ollama/ollama/pull/9892 (is allocated),
    https://github.com/ollama/ollama/pull/9987 (is estimated)
    """
    slot = 2 * 4 * 256 * 2  # bytes in a layer: a key and a value, 4 heads of 256 numbers of 2 bytes
    slots = 5 * 32_768 + 29 * 1_024  # 193,536, not 34 x 32,768 = 1,114,112
    program = described_program(
        describe_fields(GEMMA_3_4B, "gemma-3-4b"), 2, 2, W8A16, static_context=32_768
    )
    assert program.stored_kv_bytes == slots * slot == 792_723_456
    report = simulate_program(program, npu("hexagon-x-elite"), fidelity=fidelity)
    read = {phase.phase: phase.kv_bytes for phase in report.phases}["decode"]
    assert read == (slots + 34) * slot  # one step, which also writes its own token


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_the_cache_is_read_whole_and_written(fidelity):
    """A model of a measurement counted keys alone as traffic: the rate came out at half.

    Source: https://github.com/tenstorrent/tt-metal/issues/55764
    """
    program = record_request(replace(tiny(), encoder=None), 5, 3, W8A16)
    # keys and values of 2 layers are 64 bytes a token; slots read and written by each call
    expected = [(5 + 5) * 64, (6 + 1 + 7 + 1) * 64]
    report = simulate_program(program, npu("intel-npu4"), fidelity=fidelity)
    assert [phase.kv_bytes for phase in report.phases] == expected


def test_the_size_of_sram_matters():
    """SCALE-Sim's cycles are those of an SRAM that always holds everything, whatever its size.

    Source: https://github.com/ARM-software/SCALE-Sim/issues/12
    """
    program = record_request(preset("mu-330m"), 64, 2, W8A16)
    chips = [
        npu("teaching-npu").with_value("sram.capacity_bytes", kib * 1024)
        for kib in (256, 512, 4096)
    ]
    small, middle, large = (simulate_program(program, chip) for chip in chips)
    assert small.latency_cycles > middle.latency_cycles > large.latency_cycles
    assert middle.dram_bytes > large.dram_bytes  # activations that do not fit move
