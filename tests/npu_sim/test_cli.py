import json
import re
import subprocess
import sys

import pytest

from npu_sim.hardware.presets import NPUS, npu


def test_run_prints_phases_and_what_bounds_them(npu_sim):
    code, out, err = npu_sim(
        "run", "tiny", "--npu", "teaching-npu", "--input", "4", "--output", "2"
    )
    assert (code, err) == (0, "")
    for text in ("simulated", "encode", "decode", "overhead", "tok/s", "budget", "DRAM traffic"):
        assert text in out


def test_json_is_all_there_is_on_stdout(npu_sim):
    code, out, err = npu_sim("run", "tiny", "--json", "--kv-bits", "8", "--weight-bits", "16")
    data = json.loads(out)
    assert (code, err) == (0, "")
    assert (data["model"], data["npu"]) == ("tiny", "hexagon-x-elite")
    assert (data["n_input"], data["n_output"]) == (64, 32)
    assert data["precision"] == {
        "weight_bits": 16, "activation_bits": 16, "kv_bits": 8, "head_weight_bits": 16,
    }  # fmt: skip


def test_a_missed_budget_is_an_exit_code_only_with_strict(npu_sim):
    assert npu_sim("run", "tiny", "--budget-ms", "0.01")[0] == 0
    code, out, _ = npu_sim("run", "tiny", "--budget-ms", "0.01", "--strict")
    assert code == 3
    assert "missed" in out
    assert npu_sim("run", "tiny", "--strict")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "mu-9b"], "preset must be one of mu-330m"),
        (["run", "tiny", "--npu", "abacus"], "NPU must be one of hexagon-x-elite"),
        (["run", "tiny", "--input", "0"], "--input must be a whole number from 1 to"),
        (["run", "tiny", "--output", "-1"], "--output must be a whole number from 1 to"),
        (["run", "tiny", "--batch", "0"], "--batch must be a whole number from 1 to"),
        (["run", "tiny", "--output", "many"], "--output"),
        (["run", "tiny", "--kv-bits", "3"], "kv_bits must be one of 4, 8, 16; got 3"),
        (["run", "tiny", "--budget-ms", "0"], "--budget-ms must be a number above 0"),
        (["run", "mu-330m", "--npu", "teaching-npu", "--weight-bits", "16", "--input", "8000",
          "--kv-bits", "16", "--output", "2048", "--batch", "9"], "must be at most 8192"),
        (["run"], "one of model, model_json and hf_config must be given"),
        (["frobnicate"], "No such command"),
        (["run", "tiny", "--colour"], "No such option"),
        (["hardware", "show", "abacus"], "NPU must be one of hexagon-x-elite"),
        (["run", "tiny", "--npu", "nowhere.toml"], "there is no such file"),
        (["run", "tiny", "--npu", "ethos-u85"], "use narrower activations and cached keys"),
        (["run", "tiny", "--fidelity", "exact"], "fidelity must be one of tile, roofline"),
        (["run", "tiny", "--budget-mb", "-1"], "--budget-mb must be a number above 0"),
        (["run", "tiny", "--phase-budget", "encode"], "must have the form PHASE=CYCLES"),
        (["run", "tiny", "--phase-budget", "prefill=3"], "phase of a budget must be one of encode"),
        (["run", "tiny", "--fidelity", "roofline", "--trace", "t.json"], "at tile fidelity"),
        (["run", "tiny", "--gantt", "picture.jpg"], "must end in one of .png, .svg, .pdf"),
        (["run", "tiny", "--by", "colour"], "by must be one of layer, kind, site"),
        (["explain", "tiny", "--site", "decoder.9.mlp.up"], "site must be an operation"),
        (["explain", "tiny", "--site", "decoder.0.mlp.up", "--call", "0"], "call must be one that"),
        (["check-trace", "nowhere.json"], "a Chrome trace; there is no such file"),
        (["speculate", "tiny", "--beam-width", "two"], "--beam-width must be whole numbers"),
        (["speculate", "tiny", "--nodes-saved", "1"], "--nodes-saved must be a number from 0 to"),
        (["speculate", "tiny", "--acceptance", "nowhere.jsonl"], "there is no such file"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(npu_sim, arguments, message):
    code, out, err = npu_sim(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_hardware_is_listed_and_shown_with_sources(npu_sim):
    code, out, _ = npu_sim("hardware", "list")
    assert code == 0
    assert "hexagon-x-elite" in out
    code, out, _ = npu_sim("hardware", "show", "hexagon-x-elite")
    assert code == 0
    assert "dma.bytes_per_s" in out
    assert "fitted" in out
    assert json.loads(npu_sim("hardware", "list", "--json")[1]) == list(NPUS)
    shown = json.loads(npu_sim("hardware", "show", "teaching-npu", "--json")[1])
    assert shown["numbers"]["clock_hz"]["value"] == 1_000_000_000


def test_interrupting_leaves_no_traceback(npu_sim, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("npu_sim.cli.run.simulate_program", interrupt)
    assert npu_sim("run", "tiny") == (130, "", "error: interrupted\n")


@pytest.mark.parametrize("module", ["npu_sim", "npu_sim.cli"])
def test_importing_loads_neither_numba_nor_matplotlib(module):
    code = f"import sys, {module}; sys.exit(bool({{'numba', 'matplotlib'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_files_are_written_and_the_trace_is_sound(npu_sim, tmp_path):
    trace, table, picture = (str(tmp_path / name) for name in ("t.json", "t.csv", "g.png"))
    code, out, err = npu_sim(
        "run", "tiny", "--trace", trace, "--csv", table, "--gantt", picture, "--by", "kind",
        "--plot-roofline", str(tmp_path / "r.png"), "--plot-breakdown", str(tmp_path / "b.png"),
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "(calls)" in out
    assert "softmax" in out
    assert {path.name for path in tmp_path.iterdir()} == {
        "t.json", "t.csv", "g.png", "r.png", "b.png",
    }  # fmt: skip
    code, out, _ = npu_sim("check-trace", trace)
    assert code == 0
    assert "sound" in out
    (tmp_path / "t.json").write_text('[{"ph": "Q"}]')
    code, _, err = npu_sim("check-trace", trace)
    assert code == 2
    assert "must be X, C or M" in err


def test_explain_shows_the_arithmetic(npu_sim):
    code, out, _ = npu_sim(
        "explain", "mu-330m", "--site", "decoder.3.mlp.up", "--output", "2", "--npu", "teaching-npu"
    )
    assert code == 0
    # 64 of 3,072 columns in a transfer; 2 folds of 768 + 62 cycles at half rate: 3,320
    assert "2,359,296 MACs of w8a16" in out
    assert "48 tasks" in out
    assert "2 folds x (768 + 62) x 32 x 32 cells" in out
    assert "3,320 cycles" in out
    assert "for memory" in out


@pytest.mark.parametrize("budget", ["--budget-mb", "--phase-budget"])
def test_every_budget_counts_with_strict(npu_sim, budget):
    tight, loose = {
        "--budget-mb": ("0.001", "10"),
        "--phase-budget": ("decode=9", "decode=1000000000"),
    }[budget]
    code, out, _ = npu_sim("run", "tiny", budget, tight, "--strict")
    assert code == 3
    assert "missed" in out
    assert npu_sim("run", "tiny", budget, loose, "--strict")[0] == 0


def test_an_npu_from_a_file_with_twice_the_bandwidth_is_faster(npu_sim, tmp_path):
    text = npu_sim("hardware", "show", "hexagon-x-elite", "--toml")[1]
    file = tmp_path / "twice.toml"
    twice = 2 * npu("hexagon-x-elite").dma.bytes_per_s
    file.write_text(re.sub(r"(?<=\[dma\]\nbytes_per_s = \{ value = )[\d_]+", str(twice), text))
    slow, fast = (
        json.loads(npu_sim("run", "mu-330m", "--npu", name, "--json", "--output", "2")[1])
        for name in ("hexagon-x-elite", str(file))
    )
    assert fast["latency_ms"] < 0.95 * slow["latency_ms"]
    assert slow["fidelity"] == "tile"


def test_speculate_prints_a_row_for_each_width_and_length(npu_sim):
    code, out, _ = npu_sim(
        "speculate", "tiny", "--beam-width", "1,2", "--draft-len", "2,3", "--json"
    )
    steps = json.loads(out)["steps"]
    assert code == 0
    assert [(s["beam_width"], s["draft_len"]) for s in steps] == [(1, 2), (1, 3), (2, 2), (2, 3)]
    assert all(s["host_ms"] > s["in_engine_ms"] for s in steps)
    assert "tok/step" in npu_sim("speculate", "tiny")[1]
