"""Laws of caches: more context, batch or slots never make a request cheaper, on any preset."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mu_ref.presets import tiny
from npu_sim.errors import CapacityError
from npu_sim.hardware.presets import NPUS, npu
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.request import described_program
from npu_sim.report.fidelity import FIDELITIES, simulate_program
from npu_sim.tile.tasks import Engine

A8 = Precision(activation_bits=8, kv_bits=8)  # which every preset multiplies
WIDE = {"d_model": 256, "n_heads": 4, "n_kv_heads": 2, "d_head": 64, "d_ff": 512}


def models():
    """An encoder-decoder, a decoder, and one of which every other layer sees a window."""
    both = tiny()
    stacks = {
        name: replace(stack, **WIDE, window=None, windowed_layers=(False, False))
        for name, stack in both.stacks.items()
    }
    both = replace(both, **stacks, vocab_size=2_000, encoder_vocab_size=2_000)
    alone = replace(both, encoder=None)
    windowed = replace(stacks["decoder"], window=96, windowed_layers=(True, False))
    return both, alone, replace(alone, decoder=windowed)


def cost(model, request, chip, fidelity):
    """(cycles, bytes that move, bytes that are stored); infinite where it does not fit."""
    report = simulated(model, request, chip, fidelity)
    if report is None:
        return (float("inf"),) * 3
    return report.latency_cycles, report.dram_bytes, report.stored_bytes


def simulated(model, request, chip, fidelity):
    n_input, n_output, batch, context = request
    program = described_program(
        describe(model), n_input, n_output, A8, batch, static_context=context
    )
    try:
        return simulate_program(program, chip, fidelity=fidelity)
    except CapacityError:
        return None


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(models()), st.sampled_from(NPUS), st.sampled_from(FIDELITIES),
    st.tuples(st.integers(1, 40), st.integers(1, 3), st.integers(1, 3)),
    st.one_of(st.none(), st.integers(64, 4_096)), st.integers(0, 3), st.integers(2, 9),
)  # fmt: skip
def test_more_never_costs_less(model, name, fidelity, lengths, context, axis, times):
    request = [*lengths, context]
    if axis < 3:
        request[axis] += times
    elif context is not None:
        request[3] = context * times
    before = cost(model, (*lengths, context), npu(name), fidelity)
    after = cost(model, request, npu(name), fidelity)
    assert after[0] >= before[0], "time"
    assert after[1] >= before[1], "traffic"
    assert after[2] >= before[2], "stored"


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(models()), st.sampled_from(NPUS),
    st.tuples(st.integers(1, 40), st.integers(1, 3), st.integers(1, 3)),
    st.one_of(st.none(), st.integers(64, 4_096)),
)  # fmt: skip
def test_tiles_are_never_below_the_roofline(model, name, lengths, context):
    bound, found = (
        simulated(model, (*lengths, context), npu(name), f) for f in ("roofline", "tile")
    )
    if found is None:
        return
    assert found.dram_bytes >= bound.dram_bytes
    # where the DMA does not run ahead, a result is written while the next operation starts
    busy = sum(call.times["busy_cycles"].sum(axis=0) for call in found.tiles.calls)
    written = 0 if npu(name).dma.runs_ahead else busy[Engine.DMA_OUT]
    assert found.latency_cycles + written >= bound.latency_cycles
