"""Each effect of the simulator is judged by a fit of its own."""

import json
from pathlib import Path

import numpy as np
import pytest

import npu_sim.cli.calibrate as cli
from npu_sim.errors import HardwareError
from npu_sim.evidence import structure
from npu_sim.evidence.calibrate import CONSTANTS, X, calibrate
from npu_sim.evidence.cases import OLDEST, released_cases
from npu_sim.evidence.fit import fit_constants
from npu_sim.evidence.structure import ALTERNATIVES, Alternative, judge_structure
from npu_sim.hardware.presets import npu


@pytest.mark.parametrize("alternative", ALTERNATIVES[1:], ids=lambda a: a.name)
def test_an_alternative_changes_the_chip_and_nothing_that_it_does_not_name(alternative):
    before, after = npu(X).values(), alternative.of(npu(X)).values()
    changed = {path for path in before if before[path] != after[path]}
    assert changed == set(alternative.values)


def test_the_first_is_the_simulator_itself():
    assert ALTERNATIVES[0].of(npu(X)) == npu(X)


def test_floats_that_need_not_be_widened_take_the_rate_of_integers():
    (alternative,) = (a for a in ALTERNATIVES if a.name == "floats at once")
    chip = alternative.of(npu(X))
    assert chip.vector.float_efficiency == chip.vector.efficiency == npu(X).vector.efficiency


def test_a_constant_that_is_held_keeps_its_prior():
    (alternative,) = (a for a in ALTERNATIVES if a.name == "one rate of floats")
    held = {c.name: c.prior for c in alternative.constants() if c.low == c.high}
    assert held == {"float16_newer": 1.0}
    assert [c.name for c in alternative.constants()] == [c.name for c in CONSTANTS]
    assert ALTERNATIVES[0].constants() == CONSTANTS


def test_a_constant_without_effect_goes_back_to_its_prior():
    cases, models = released_cases(OLDEST)
    short = [case for case in cases if case.model in ("minilm-l6", "sd15-text")]
    (free,) = (a for a in ALTERNATIVES if a.name == "results as they lie")
    as_it_is, other = judge_structure(short, models, alternatives=(ALTERNATIVES[0], free))
    assert as_it_is.found.to_json() == calibrate(short, models, by="model").to_json()
    prior = {c.name: c.prior for c in CONSTANTS}
    assert as_it_is.found.values["outputs"] != pytest.approx(prior["outputs"], rel=0.01)
    assert other.found.values["outputs"] == pytest.approx(prior["outputs"], rel=1e-6)
    assert other.to_json()["values"] == {"matrix.output_elements_per_s": 0}


def test_a_fit_begins_where_it_is_told_to():
    tried = []

    def predict(logarithms):
        tried.append(np.exp(logarithms))
        return logarithms[:1]

    fit_constants(CONSTANTS[:1], predict, np.array([50.0]), ["a"], start=np.array([60.0]))
    assert tried[0] == pytest.approx([60])


@pytest.fixture
def two(monkeypatch):
    """Two structures and two calls, which take a second."""
    cases, models = released_cases(OLDEST)
    short = [case for case in cases if case.model in ("minilm-l6", "sd15-text")]
    monkeypatch.setattr(structure, "ALTERNATIVES", ALTERNATIVES[:2])
    monkeypatch.setattr(cli, "released_cases", lambda release: (short, models))


@pytest.mark.usefixtures("two")
def test_the_command_prints_a_row_for_each(npu_sim):
    code, out, _ = npu_sim("calibrate", "--structure", "--release", OLDEST)
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()[1:3]] == ["as it is", "no host work"]
    code, out, _ = npu_sim("calibrate", "--structure", "--release", OLDEST, "--json")
    assert [one["n"] for one in json.loads(out)] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a100", "--structure"], "--structure must come with hexagon, got a100"),
        (["--structure", "--out", "f"], "--out must come without --structure"),
        (["--structure", "--plot", "f.png"], "--plot must come without --structure"),
    ],
)
def test_what_does_not_go_with_it_is_refused(arguments, said, npu_sim, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = npu_sim("calibrate", *arguments)
    assert code == 2
    assert said in err
    assert not list(Path().iterdir())


def test_values_of_an_alternative_are_paths_of_a_chip():
    with pytest.raises(HardwareError, match=r"sram\.luck"):
        Alternative(name="", meaning="", values={"sram.luck": 1}).of(npu(X))
