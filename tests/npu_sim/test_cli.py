import json
import subprocess
import sys

import pytest

from npu_sim.cli import main
from npu_sim.hardware import NPUS


@pytest.fixture
def npu_sim(monkeypatch, capsys):
    """Run the command line; returns (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["npu-sim", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call


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
        (["run", "tiny", "--input", "0"], "n_input must be"),
        (["run", "tiny", "--output", "-1"], "n_output must be"),
        (["run", "tiny", "--batch", "0"], "batch must be"),
        (["run", "tiny", "--output", "many"], "--output"),
        (["run", "tiny", "--kv-bits", "3"], "kv_bits must be one of 4, 8, 16; got 3"),
        (["run", "tiny", "--budget-ms", "0"], "budget_ms must be a positive number"),
        (["run", "mu-330m", "--npu", "teaching-npu", "--weight-bits", "16", "--input", "8000",
          "--kv-bits", "16", "--output", "2048", "--batch", "9"], "must be at most 8192"),
        (["run"], "Missing argument"),
        (["frobnicate"], "No such command"),
        (["run", "tiny", "--colour"], "No such option"),
        (["hardware", "show", "abacus"], "NPU must be one of hexagon-x-elite"),
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

    monkeypatch.setattr("npu_sim.cli.simulate_request", interrupt)
    assert npu_sim("run", "tiny") == (130, "", "error: interrupted\n")


@pytest.mark.parametrize("module", ["npu_sim", "npu_sim.cli"])
def test_importing_loads_neither_numba_nor_matplotlib(module):
    code = f"import sys, {module}; sys.exit(bool({{'numba', 'matplotlib'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
