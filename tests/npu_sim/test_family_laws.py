"""Laws over all families and presets: more tokens, rows or slots never make a request cheaper.

Small models of each family of `npu_sim/models/families.py`, given as a `config.json` is: windows,
mixtures, capped scores, shared weights and inputs of a fixed length all take part.
"""

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_strategies import small_family

from npu_sim.errors import CapacityError
from npu_sim.hardware.presets import NPUS, npu
from npu_sim.models.families import FAMILIES
from npu_sim.program.precision import Precision
from npu_sim.program.request import described_program
from npu_sim.report.fidelity import FIDELITIES, simulate_program
from npu_sim.tile.tasks import Engine

A8 = Precision(activation_bits=8, kv_bits=8)  # which every preset multiplies


def test_small_models_have_what_makes_their_families_costly():
    assert all(small_family(kind).n_parameters < 10**6 for kind in FAMILIES)
    windowed = {
        kind
        for kind in FAMILIES
        if any(any(stack.windowed_layers) for stack in small_family(kind).model.stacks.values())
    }
    assert windowed == {
        "gemma2", "gemma3", "gemma3_text", "gpt_oss", "ministral", "mistral", "mixtral",
        "modernbert", "olmo3", "phi3", "phimoe", "qwen2", "qwen3", "qwen3_moe", "starcoder2",
        "t5gemma", "t5gemma2",
    }  # fmt: skip
    mixtures = {kind for kind in FAMILIES if small_family(kind).experts_per_token}
    assert mixtures == {"gpt_oss", "mixtral", "phimoe", "qwen3_moe"}


def reports(model, request, chip):
    """{fidelity: report}; none where it does not fit."""
    n_input, n_output, batch, context = request
    program = described_program(model, n_input, n_output, A8, batch, static_context=context)
    found = {}
    for fidelity in FIDELITIES:
        try:
            found[fidelity] = simulate_program(program, chip, fidelity=fidelity)
        except CapacityError:
            found[fidelity] = None
    return found


def cost(report):
    """(cycles, bytes that move, bytes that are stored); infinite where it does not fit."""
    if report is None:
        return (float("inf"),) * 3
    return report.latency_cycles, report.dram_bytes, report.stored_bytes


def kept(report):
    """What stays in SRAM from call to call: "w" for weights, "k" for keys and values."""
    pins = (0, 0) if report is None or report.tiles is None else report.tiles.pins
    return {name for name, n_bytes in zip("wk", pins, strict=True) if n_bytes}


def check_bound(found):
    """The tile fidelity is never below the roofline; nor fits where that does not."""
    bound, tiles = found["roofline"], found["tile"]
    if tiles is None:
        return
    assert bound is not None
    assert tiles.dram_bytes >= bound.dram_bytes
    # where the DMA does not run ahead, a result is written while the next operation starts
    busy = sum(call.times["busy_cycles"].sum(axis=0) for call in tiles.tiles.calls)
    written = 0 if tiles.npu.dma.runs_ahead else busy[Engine.DMA_OUT]
    assert tiles.latency_cycles + written >= bound.latency_cycles


def grown(draw, slots, reads_only):
    """Two requests (tokens read, tokens written, rows, context), the second larger by one axis."""
    most = min(slots or 40, 40)
    n_input, n_output = draw(st.integers(1, most)), draw(st.integers(1, 2))
    batch, context = draw(st.integers(1, 3)), draw(st.none() | st.integers(64, 600))
    if slots and reads_only:
        context = None
    request = [n_input, n_output, batch, context]
    axes = [0, 2] + [1] * (not reads_only) + [3] * (context is not None)
    axis = draw(st.sampled_from(axes))
    larger = list(request)
    if axis == 3:
        larger[3] = context * draw(st.integers(2, 9))
    else:
        larger[axis] += draw(st.integers(1, 12))
    if slots:
        larger[0] = min(larger[0], slots)
    return request, larger


@pytest.mark.parametrize("kind", FAMILIES)
@settings(max_examples=3, deadline=None)
@given(st.data())
def test_more_never_costs_less(kind, data):
    inner = data.draw(st.sampled_from([64, 136]))
    model = small_family(
        kind, data.draw(st.sampled_from([(4, 2), (4, 4), (8, 1)])),
        intermediate_size=inner, d_ff=inner, vocab_size=data.draw(st.integers(300, 3_000)),
        sliding_window=data.draw(st.sampled_from([5, 24, 100])),
    )  # fmt: skip
    # each family begins with another preset, so that together they try all of them
    first = list(FAMILIES).index(kind) % len(NPUS)
    chip = npu(data.draw(st.sampled_from(list(chain(NPUS[first:], NPUS[:first])))))
    smaller, larger = grown(data.draw, model.input_slots, model.model.decoder is None)
    before, after = reports(model, smaller, chip), reports(model, larger, chip)
    for fidelity in FIDELITIES:
        fewer, more = cost(before[fidelity]), cost(after[fidelity])
        assert more[0] >= fewer[0], f"time, {fidelity}"
        # the fastest plan is taken, and that of a larger request may keep in SRAM what is read once
        # more from call to call by that of a smaller one, where transfers hide behind other work
        if kept(after[fidelity]) <= kept(before[fidelity]):
            assert more[1] >= fewer[1], f"traffic, {fidelity}"
        assert more[2] >= fewer[2], f"stored, {fidelity}"
    check_bound(before)
    check_bound(after)


@pytest.mark.parametrize("context", [164, 984])
def test_of_equally_fast_requests_the_one_that_moves_least_is_taken(context):
    # the cache fits the SRAM at both; at 164 slots its transfers would hide behind other work
    model = small_family("olmo", (2, 2), hidden_size=32, intermediate_size=32)
    tiles = reports(model, (7, 1, 3, context), npu("ethos-u85"))["tile"]
    assert [phase.kv_bytes for phase in tiles.phases] == [0]
