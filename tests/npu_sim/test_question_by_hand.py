"""What commands are asked and what they say, with nothing simulated: options, titles, refusals."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from mu_ref.errors import InputError
from npu_sim.cli import evidence, explain, sweep
from npu_sim.cli.calibrate import show_calibration
from npu_sim.cli.options import _shown, cycle_budgets
from npu_sim.cli.question import Asked, question
from npu_sim.errors import SweepError, WorkloadError
from npu_sim.hardware.presets import npu, write_npu
from npu_sim.whatif.varied.sweep_toml import spec_from

FILE = """
model = "tiny"
npu = "teaching-npu"
[workload]
n_input = 9
n_output = 5
[set]
"workload.batch" = 2
"""
SWEEP = 'model = "tiny"\nnpu = "teaching-npu"\n[workload]\nn_input = 4\nn_output = 3\n[vary]\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "s.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    path = tmp_path / "bert.json"
    path.write_text(json.dumps({"model_type": "bert"}))
    return str(path)


# -- one question ----------------------------------------------------------------------------------


def test_a_title_says_what_is_asked(encoder: str) -> None:
    asked = Asked(npu="teaching-npu", n_input=4, n_output=3, weight_bits=4)
    title = question("tiny", asked).title
    assert title == "tiny on teaching-npu: 4 tokens in, 3 out, W4A16, KV16, head W8"
    asked = Asked(npu="h100", n_input=4, n_output=3, batch=2, context=40)
    title = question("tiny", asked).title
    assert title.startswith("tiny on h100: 4 tokens in, 3 out, batch 2, context 40, W8A16")
    title = question(None, Asked(hf_config=encoder, n_input=4, n_output=3)).title
    assert ": 4 tokens in, 1 out, W8A16" in title  # what only reads answers once


def test_an_option_stands_before_the_file_and_the_rest_is_the_files(
    file: Path, encoder: str
) -> None:
    asked = Asked(n_input=4, set_fields=["workload.budget_ms=7"], npu="h100")
    found = question(str(file), asked)
    work = found.scenario.workload
    assert (work.n_input, work.n_output, work.batch, work.budget_ms) == (4, 5, 2, 7)
    assert (found.scenario.npu.name, found.scenario.description.name) == ("h100", "tiny")
    assert (found.files, found.fidelity) == ((file,), "tile")
    assert found.notes()["set"] == {"workload.budget_ms": "7"}
    other = question(str(file), Asked(hf_config=encoder))
    assert other.scenario.description.model.decoder is None
    assert other.files == (file, Path(encoder))


def test_a_file_is_understood_whole(file: Path) -> None:
    file.write_text(FILE.replace("teaching-npu", "nothing"))
    with pytest.raises(Exception, match="nothing"):
        question(str(file), Asked(npu="h100"))


def test_a_command_may_have_one_fidelity() -> None:
    found = question("tiny", Asked(fidelity="tile"), only="tile", why="because")
    assert found.fidelity == "tile"
    with pytest.raises(WorkloadError, match="fidelity must be tile here, got roofline; because"):
        question("tiny", Asked(fidelity="roofline"), only="tile", why="because")


def test_what_caches_nothing_has_no_width_of_a_cache(encoder: str) -> None:
    with pytest.raises(WorkloadError, match=r"--kv-bits must be left out for .* caches nothing"):
        question(None, Asked(hf_config=encoder, kv_bits=8))


# -- texts of options ------------------------------------------------------------------------------


def test_budgets_of_phases() -> None:
    assert cycle_budgets(["encode=9", "decode=" + "9" * 18]) == {
        "encode": 9, "decode": 10**18 - 1,
    }  # fmt: skip
    for text in ("decode=" + "9" * 19, "decode", "=1", "decode=-1", "decode=1.5", "decode=٣"):
        with pytest.raises(WorkloadError, match="a phase budget must have the form PHASE=CYCLES"):
            cycle_budgets([text])
    with pytest.raises(WorkloadError, match="a phase must have one budget, got two of 'a'"):
        cycle_budgets(["a=1", "b=1", "a=2"])


@pytest.mark.parametrize(
    ("value", "path", "text"),
    [
        (58_860_000_000, "npu.dma.bytes_per_s", "58.86 GB/s"), (5, "workload.n_input", "5"),
        (2_500_000, "", "2.5 M"), (-2_500_000, "", "-2.5 M"), (-1234.5678, "", "-1,235"),
        (999_999, "", "999,999"), (float("inf"), "", "inf"), (True, "", "True"), ("x", "", "x"),
    ],
)  # fmt: skip
def test_a_number_in_a_table(value: object, path: str, text: str) -> None:
    assert _shown(value, path).strip() == text


# -- a sweep ---------------------------------------------------------------------------------------


def test_at_most_four_processes_for_each_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep.os, "cpu_count", lambda: 3)
    for n in (None, 0, 1, 12):
        sweep._pool(n, None)
    with pytest.raises(SweepError, match="--processes must be at most 12 here, 4 per processor"):
        sweep._pool(13, None)
    with sweep._pool(1, None)() as pool:
        assert pool is None  # this process computes
    with pytest.raises(SweepError, match="--processes must not come with --dask"):
        sweep._pool(1, "tcp://nowhere")


def test_words_about_a_picture_need_one() -> None:
    read, none = spec_from(SWEEP + "batch = [1, 2]\n"), dict.fromkeys(("--x", "--y", "--colour"))
    assert sweep._look(read, Path("x.csv"), None, none) is None
    for option in none:
        with pytest.raises(SweepError, match=f"{option} must come with --plot"):
            sweep._look(read, Path("x.csv"), None, none | {option: "batch"})


def test_a_sweep_that_is_stopped_says_how_much_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> None:
        with sweep._progress(4000, quiet=True) as progress:
            progress(1500, 4000)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    said = capsys.readouterr().err
    assert "1,500 of 4,000 points are kept; the same command goes on from there" in said


@pytest.mark.parametrize(
    ("varied", "warned"),
    [
        ('"drafter.beam_width" = [1, 2]\n', True), ("batch = [1, 2]\n", False),
        ('"drafter.beam_width" = [1, 2]\n"drafter.tokens_per_step" = [1.5, 2.0]\n', False),
    ],
)  # fmt: skip
def test_one_acceptance_for_all_beams_is_warned_of(npu_sim, tmp_path, monkeypatch, varied, warned):
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(SWEEP + varied)
    code, out, err = npu_sim("sweep", "s.toml", "--processes", "1", "--quiet")
    assert code == 0
    assert ("warning: one drafter.tokens_per_step" in err) == warned
    assert "points in sweep.csv, simulated (roofline)" in out


def test_a_table_on_stdout_is_a_table(npu_sim, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(SWEEP + "batch = [1, 2]\n")
    code, out, err = npu_sim("sweep", "s.toml", "--processes", "1", "--quiet", "--out", "/dev/null")
    assert (code, out) == (0, "")
    assert "2 points in /dev/null" in err


# -- chips -----------------------------------------------------------------------------------------


def test_two_chips_differ_in_what_was_changed(npu_sim, tmp_path: Path) -> None:
    chip, path = npu("teaching-npu"), tmp_path / "other.toml"
    write_npu(chip.with_changes({"sram.capacity_bytes": 3 * 2**20}, "made up"), path)
    code, out, _ = npu_sim("hardware", "compare", "teaching-npu", str(path))
    assert code == 0
    assert f"\n1 of {len(chip.values())} values differ\n\nsram.capacity_bytes\n  A  " in out
    assert "\n  B  3 MiB  (made up)\n" in out
    code, out, _ = npu_sim("hardware", "compare", "h100", "h100")
    assert f"\n0 of {len(npu('h100').values())} values differ\n" in out
    code, out, err = npu_sim("hardware", "show", "h100", "--json", "--toml")
    assert (code, out) == (2, "")
    assert "--json and --toml must not be given together" in err


# -- evidence and explanations ---------------------------------------------------------------------


def test_the_chip_that_is_validated_is_not_written_over(monkeypatch, tmp_path: Path) -> None:
    chip = tmp_path / "chip.toml"
    chip.write_text("")
    rows = [SimpleNamespace(npu=str(chip), release="2026-10")]
    monkeypatch.setattr(evidence, "read_cases", lambda path: rows)
    for named in (None, str(chip)):
        with pytest.raises(InputError, match="--csv must not be a file that is read"):
            evidence.show_validation(Path("c.csv"), Path("m.json"), npu_name=named, csv=chip)


def test_a_row_of_a_validation_has_its_two_errors_in_order(capsys) -> None:
    case = SimpleNamespace(name="a", phase="decode", label="W8A16")
    row = SimpleNamespace(case=case, npu="chip", measured_ms=2.0, predicted_ms=3.0, error=0.5,
                          roofline_error=-0.25, low_ms=None, high_ms=None)  # fmt: skip
    total = {"mape": 0.5, "median_ape": 0.5, "max_ape": 0.5, "n": 1, "roofline_mape": 0.25}
    found = SimpleNamespace(rows=[row], to_json=lambda: total, groupings=dict, coverage=None)
    evidence._print_validation(found)
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split() == ["a", "chip", "decode", "W8A16", "2.000", "3.000", "+50.0%", "-25.0%"]


def test_each_width_has_one_number_of_tokens() -> None:
    assert evidence._tokens(["4=2.5", "1=1"]) == {4: 2.5, 1: 1}
    with pytest.raises(SweepError, match="--tokens must name each width once, got 4 twice"):
        evidence._tokens(["4=2.5", "1=1", "4=2"])


@pytest.mark.parametrize(
    ("by", "left_out"), [(None, "model"), ("case", "case"), ("model", "model")]
)
def test_what_is_left_out_together(monkeypatch, by: str | None, left_out: str) -> None:
    asked = []

    def calibrate(*_: object, by: str, **_more: object) -> None:
        asked.append(by)
        raise KeyboardInterrupt

    monkeypatch.setattr("npu_sim.evidence.calibrate.calibrate", calibrate)
    with pytest.raises(KeyboardInterrupt):
        show_calibration(by=by)
    assert asked == [left_out]


@pytest.mark.parametrize("call", [None, 2])
def test_the_call_that_was_asked_for_is_explained(npu_sim, monkeypatch, call: int | None) -> None:
    asked = []

    def told(run: object, site: str, number: int | None) -> list[str]:
        asked.append((site, number))
        return ["so"]

    monkeypatch.setattr(explain, "scenario_report", lambda scenario, fidelity: None)
    monkeypatch.setattr("npu_sim.report.report.tile_run", lambda report, what: None)
    monkeypatch.setattr("npu_sim.show.explain.explain", told)
    more = [] if call is None else ["--call", str(call)]
    assert npu_sim("explain", "tiny", "--site", "decoder.0.mlp.up", *more)[:2] == (0, "so\n")
    assert asked == [("decoder.0.mlp.up", call)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [([], ""), (["late"], "t.json: late\n"), (["late", "early"], "t.json: late; 1 more\n")],
)
def test_one_fault_of_a_trace_is_enough(npu_sim, monkeypatch, wrong: list, said: str) -> None:
    monkeypatch.setattr("npu_sim.show.trace.read_trace", lambda path: [{}, {}, {}])
    monkeypatch.setattr("npu_sim.show.trace.check_trace", lambda events: wrong)
    code, out, err = npu_sim("check-trace", "t.json")
    assert code == (2 if wrong else 0)
    assert out == ("" if wrong else "t.json: 3 events, sound\n")
    assert err.endswith(said)
