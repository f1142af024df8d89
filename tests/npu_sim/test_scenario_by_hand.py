"""Scenarios and the points of a sweep by hand: names, short names, what is refused, what is shared.

No number here is one that was simulated: each stands beside another that it must equal.
"""

import json
from pathlib import Path

import pytest

from npu_sim.errors import NpuSimError, SweepError, UnsupportedError, WorkloadError
from npu_sim.whatif.metrics import evaluate
from npu_sim.whatif.scenario import full_path, with_set
from npu_sim.whatif.scenario_toml import base_scenario
from npu_sim.whatif.sweep_points import evaluate_points
from npu_sim.whatif.varied.axes import read_axis
from npu_sim.whatif.varied.sweep_toml import read_spec, spec_from

TINY = {"model": "tiny", "npu": "teaching-npu", "workload": {"n_input": 4, "n_output": 3}}
BASE = base_scenario(TINY)
SWEEP = """
model = "tiny"
npu = "teaching-npu"
fidelity = "roofline"
[workload]
n_input = 4
n_output = 3
[vary]
"""


def rows(varied: str) -> list[tuple]:
    spec = spec_from(SWEEP + varied)
    return list(evaluate_points(spec, 0, spec.n_points))


def test_names_say_what_was_set_with_units_and_nothing_of_the_request() -> None:
    changes = {
        "dma_bandwidth": "100 GB/s", "decoder.n_layers": "1", "tied_head": "false", "n_input": "5",
        "weight_bits": "4",
    }  # fmt: skip
    found = with_set(BASE, changes)
    assert found.npu.name == "teaching-npu, dma.bytes_per_s = 100 GB/s"
    assert found.description.name == "tiny, decoder.n_layers = 1, tied_head = false"
    assert (found.npu.dma.bytes_per_s, found.workload.n_input) == (100_000_000_000, 5)
    assert found.precision.weight_bits == 4


def test_another_npu_is_read_and_then_changed() -> None:
    found = BASE.with_fields({"npu.clock_hz": 5_000_000, "npu": "h100", "batch": 7})
    assert (found.npu.name, found.npu.clock_hz, found.workload.batch) == ("h100", 5_000_000, 7)
    assert with_set(BASE, {"npu": "h100"}).npu.name == "h100"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("decoder.n_layers", "model.decoder.n_layers"), ("dma.bytes_per_s", "npu.dma.bytes_per_s"),
        ("clock", "npu.clock_hz"), ("npu", "npu"), ("workload.batch", "workload.batch"),
        ("workload.static_context", "workload.context"),
    ],
)  # fmt: skip
def test_a_short_name_may_be_of_the_npu_or_of_the_model(name: str, path: str) -> None:
    assert full_path(name, BASE) == path


def test_a_head_is_one_of_those_there_are() -> None:
    with pytest.raises(WorkloadError, match=r"model\.lm_head must be one of .*got 'first'"):
        BASE.with_fields({"model.lm_head": "first"})


def test_a_context_has_the_name_of_earlier_versions_too() -> None:
    old = base_scenario({"model": "tiny", "workload": {"static_context": 40}})
    assert old.workload.context == 40


def test_an_input_of_a_fixed_length_is_read_whole_unless_another_is_asked_for(
    tmp_path: Path,
) -> None:
    """A ViT of 224 x 224 pixels has 14 x 14 patches of 16 x 16, and a token of the class."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "vit"}))
    asked = {"hf_config": str(file), "npu": "h100"}
    assert base_scenario(asked).workload.n_input == 14 * 14 + 1
    assert base_scenario({**asked, "workload": {"n_input": 7}}).workload.n_input == 7


def test_fields_of_a_drafter_must_have_one() -> None:
    for drafter, varied in (({"draft_len": 3}, []), ({"draft_len": 3}, ["n_input"])):
        with pytest.raises(SweepError, match=r"drafter\.draft_len must come with drafter\.beam_wi"):
            base_scenario({**TINY, "drafter": drafter}, varied=varied)
    base_scenario({**TINY, "drafter": {"draft_len": 3}}, varied=["drafter.beam_width"])
    base_scenario({**TINY, "drafter": {"draft_len": 3, "beam_width": 1}})


@pytest.mark.parametrize(
    "name", ["head_weight_bits", "workload.context", "decoder.window", "final_softcap"]
)
def test_none_is_a_value_where_a_field_may_have_none(name: str) -> None:
    path = full_path(name, BASE)
    base = BASE.with_fields({path: 8})  # has a value now, and may have none
    assert read_axis(name, ["none", 16], base).values == (None, 16)


def test_none_is_no_value_of_a_length() -> None:
    with pytest.raises(SweepError, match="each value of n_input must be a finite number"):
        read_axis("n_input", ["none", 16], BASE)


# -- files and points ------------------------------------------------------------------------------


def test_a_sweep_is_of_its_file_and_of_the_fidelity_that_an_option_names(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(SWEEP + "batch = [1, 2]\n")
    assert read_spec(path).source == path
    same = read_spec(path, lambda data: (dict(data), None))
    assert (same.fidelity, same.source, same.text) == ("roofline", path, path.read_text())
    other = read_spec(path, lambda data: (dict(data), "tile"))
    assert (other.fidelity, other.source, other.n_points) == ("tile", path, 2)


def test_a_point_is_priced_as_its_scenario_alone() -> None:
    """Points with another batch are another request; those with another clock share one."""
    varied = '"npu.clock_hz" = [1000000, 2000000]\nbatch = [1, 2]\nn_input = [3, 4, 5, 6, 7, 8]\n'
    found = rows(varied)
    assert [row[0] for row in found] == list(range(24))
    for _, changes, metrics, reason in found:
        assert reason == ""
        assert metrics == pytest.approx(evaluate(BASE.with_fields(changes), "roofline"), rel=1e-12)
    assert len({metrics["latency_ms"] for _, _, metrics, _ in found}) == 24


def test_a_model_that_does_not_fit_is_a_reason_and_an_error() -> None:
    (_, _, none, reason), (_, _, metrics, nothing) = rows(
        '"npu.dram.capacity_bytes" = [1000, 1000000000]\n'
    )
    assert none is None
    assert reason.startswith("tiny must fit the 1.00 kB DRAM of teaching-npu, got ")
    assert metrics is not None
    assert nothing == ""
    with pytest.raises(NpuSimError) as error:
        evaluate(BASE.with_fields({"npu.dram.capacity_bytes": 1000}), "roofline")
    assert str(error.value) == reason


def test_an_operation_that_an_npu_has_not_is_a_reason_and_an_error() -> None:
    (_, _, metrics, nothing), (_, _, none, reason) = rows(
        '"npu.unsupported_ops" = ["top_k", "norm softmax"]\n'
    )
    assert metrics is not None
    assert (nothing, none) == ("", None)
    assert "must be an operation that teaching-npu supports, got " in reason
    with pytest.raises(UnsupportedError) as error:
        evaluate(BASE.with_fields({"npu.unsupported_ops": "norm softmax"}), "roofline")
    assert str(error.value) == reason


def test_many_lengths_on_a_small_npu_each_have_their_reason() -> None:
    """Beyond a few lengths nothing is recorded but three of them: the others fit or not alike."""
    fits = BASE.with_fields({"n_input": 12})
    limit = round(evaluate(fits, "roofline")["stored_bytes"])
    found = rows(
        f'"npu.dram.capacity_bytes" = [{limit}]\nn_input = [8, 9, 10, 11, 12, 13, 14, 15, 16]\n'
    )
    assert [metrics is not None for _, _, metrics, _ in found] == [True] * 5 + [False] * 4
