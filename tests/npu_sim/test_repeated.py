"""Layers that repeat: timing a few of them gives the numbers of timing all."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from npu_strategies import chips, configs, precisions, small_family

from mu_ref import preset
from mu_ref.presets import tiny
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.request import record_request
from npu_sim.program.rows import program_table
from npu_sim.tile.layers import repeated
from npu_sim.tile.layers.repeated import N_TIMED, find_repeated
from npu_sim.tile.plan import pin_choices, plans
from npu_sim.tile.simulate import Bench
from npu_sim.tile.tiling import vector_cycles

FAMILIES = ("llama", "gemma2", "gemma3_text", "mixtral", "gpt2", "falcon")


def deep(kind, config, n_layers):
    """A small model with so many layers; those of some families are of several kinds in turn."""
    if kind:
        return small_family(kind, num_hidden_layers=n_layers, n_layer=n_layers).model
    stack = config.stacks["decoder"]
    return replace(
        config, decoder=replace(stack, n_layers=n_layers, windowed_layers=(False,) * n_layers)
    )


def both_ways(call, plan, chip):
    """What the whole call takes, and what a few of its layers say; None: they say nothing."""
    work = vector_cycles(call.rows, chip)
    found = find_repeated(call)
    few = None if found is None else Bench(chip).time_repeated(found, work, plan)
    return Bench(chip).time(call, work, plan), few


machines = st.one_of(chips, st.sampled_from(["hexagon-x-elite", "intel-npu4", "m1-max"]).map(npu))


@settings(max_examples=150)
@given(
    st.data(), st.sampled_from([0, *FAMILIES]), configs, st.integers(8, 17), precisions, machines
)
def test_a_few_layers_say_what_all_take(data, kind, config, n_layers, precision, chip):
    table = program_table(record_request(deep(kind, config, n_layers), 9, 3, precision, 1))
    call = data.draw(st.sampled_from(table.calls))
    plan = data.draw(
        st.sampled_from(list(plans(call, chip, pin_choices(table, chip)[0])) or [None])
    )
    assume(plan is not None)
    whole, few = both_ways(call, plan, chip)
    if few is not None:
        assert whole is not None
        assert few[0] == whole[0]
        assert few[1].tobytes() == whole[1].tobytes()


@pytest.mark.parametrize("name", ["hexagon-x-elite", "intel-npu4", "teaching-npu"])
def test_layers_of_the_presets_are_steady(name):
    """So that something is saved where it matters."""
    chip = npu(name)
    table = program_table(record_request(preset("mu-330m"), 64, 2, Precision(), 1))
    few = []
    for call in table.calls[1:]:
        plan = next(iter(plans(call, chip, pin_choices(table, chip)[0])))
        whole, found = both_ways(call, plan, chip)
        few.append(found is not None)
        assert found is None or found[0] == whole[0]
    assert any(few)


def test_engines_that_drift_apart_for_some_layers():
    """A DMA that runs ahead, and is nearly as fast as the other engines, loses its lead slowly."""
    program = record_request(deep(0, tiny(), 14), 6, 2, Precision(), 1)
    call = program_table(program).calls[-1]
    said = []
    for capacity in (6_000, 9_000, 14_000, 30_000, 60_000):
        for bandwidth in np.geomspace(1e9, 1e11, 40).astype(int).tolist():
            chip = npu("teaching-npu").with_changes({
                "sram.capacity_bytes": capacity, "dma.runs_ahead": True, "dma.transfer_bytes": 512,
                "dma.bytes_per_s": bandwidth, "dram.bytes_per_s": bandwidth,
                "per_op_overhead_cycles": 5, "dma.setup_cycles": 3,
            })  # fmt: skip
            for plan in list(plans(call, chip, (0, 0)))[:4]:
                whole, few = both_ways(call, plan, chip)
                said.append(few is not None)
                if few is not None:
                    assert whole is not None
                    assert few[0] == whole[0]
                    assert few[1].tobytes() == whole[1].tobytes()
    assert 0.1 < np.mean(said) < 0.9


def longest(kinds):
    return repeated._longest(np.array(kinds, np.int64).tobytes())


def test_what_repeats_by_hand():
    assert longest([7, *[1, 2, 3] * 9, 1, 8]) == (1, 3, 9)
    assert longest([1, 2] * 7) is None  # too few
    assert longest(range(40)) is None
    # the longest stretch counts, not the first
    assert longest([*[1] * 9, 5, *[2, 3] * 12]) == (10, 2, 12)
    assert N_TIMED < repeated.N_WORTH
