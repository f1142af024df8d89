"""The commands of what-ifs: what they print, write and refuse."""

import csv
import json
import os

import pytest

PNG = b"\x89PNG"


SWEEP = """
model = "tiny"
npu = "teaching-npu"
[vary]
dma_bandwidth = { log = [1, 100], n = 4, unit = "GB/s" }
n_input = [4, 8]
"""


def test_a_sweep_writes_a_table_a_sidecar_and_a_picture(npu_sim, tmp_path):
    spec = tmp_path / "spec.toml"
    spec.write_text(SWEEP)
    out, plot = tmp_path / "out.csv", tmp_path / "out.png"
    code, text, _ = npu_sim(
        "sweep", spec, "--out", out, "--plot", plot, "--quiet", "--processes", "1"
    )
    assert code == 0
    assert text == f"8 points in {out}, simulated (roofline)\n"
    with out.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 8
    assert out.with_suffix(".json").exists()
    assert plot.read_bytes().startswith(PNG)


def test_a_wrong_sweep_names_file_and_key(npu_sim, tmp_path):
    spec = tmp_path / "spec.toml"
    spec.write_text(SWEEP.replace("n_input", "n_imput"))
    code, out, err = npu_sim("sweep", spec)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {spec}: field must be one that there is")
    assert "n_imput" in err


FEW = ("--input", "4", "--output", "2")  # two dozen requests take a second


def test_a_tornado_is_printed_drawn_and_json(npu_sim, tmp_path):
    plot = tmp_path / "t.png"
    code, out, _ = npu_sim("sensitivity", "tiny", *FEW, "--npu", "teaching-npu", "--plot", plot)
    assert code == 0
    assert "npu.per_op_overhead_cycles" in out
    assert plot.read_bytes().startswith(PNG)
    code, out, _ = npu_sim("sensitivity", "tiny", *FEW, "--npu", "teaching-npu", "--json")
    data = json.loads(out)
    assert data["base"] > 0
    assert {row["field"] for row in data["rows"]} >= {"npu.clock_hz", "workload.n_input"}


def test_a_comparison_of_npus_and_of_scenarios(npu_sim, tmp_path):
    plot = tmp_path / "c.png"
    code, out, _ = npu_sim(
        "compare", "teaching-npu", "hexagon-x-elite", "--model", "tiny", "--plot", plot
    )
    assert code == 0
    for text in ("npu.clock_hz", "decode", "memory", "request"):
        assert text in out
    assert plot.read_bytes().startswith(PNG)
    narrow, wide = tmp_path / "a.toml", tmp_path / "b.toml"
    narrow.write_text('model = "tiny"\n[precision]\nweight_bits = 4\n')
    wide.write_text('model = "tiny"\n[precision]\nweight_bits = 16\n')
    code, out, _ = npu_sim("compare", narrow, wide, "--json")
    data = json.loads(out)
    assert data["fields"] == {
        "precision.weight_bits": {"a": 4, "b": 16},
        "precision.head_weight_bits": {"a": 8, "b": 16},  # as the weights, at least 8
    }
    total = sum(row["difference_ms"] for row in data["costs"])
    assert data["b_ms"] - data["a_ms"] == pytest.approx(total)


def test_a_search_answers_in_one_line_or_json(npu_sim, tmp_path):
    plot = tmp_path / "s.png"
    arguments = ["solve", "mu-nano", "--npu", "teaching-npu", "--vary", "dma_bandwidth",
                 "--fidelity", "roofline"]  # fmt: skip
    code, out, _ = npu_sim(*arguments, "--target-tok-s", 100, "--plot", plot)
    assert code == 0
    assert "100 needs" in out
    assert plot.read_bytes().startswith(PNG)
    code, out, _ = npu_sim(*arguments, "--target-tok-s", 1e9)
    assert code == 0
    assert "no value of npu.dma.bytes_per_s gives 1e+09" in out
    code, out, _ = npu_sim(*arguments, "--target-latency-ms", 1000, "--json")
    assert json.loads(out)["metric"] == "latency_ms"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve", "tiny"], "one target must be given"),
        (["solve", "tiny", "--target-tok-s", "1", "--target-ttft-ms", "1"], "one target"),
        (
            ["solve", "tiny", "--vary", "luck", "--target-tok-s", "1"],
            "field must be one that there is",
        ),
        (["sensitivity", "tiny", "--metric", "joy"], "metric must be one of"),
        (["compare", "abacus", "teaching-npu"], "NPU must be one of"),
        (["sweep", "absent.toml"], "there is no such file"),
        (["calibrate", "abacus"], "what must be one of hexagon, a100, tpu-v6e"),
        (["headline", "--tokens", "four"], "--tokens must be WIDTH=TOKENS"),
        (["run", "--hf-config", "absent.json"], "there is no such file"),
        (["run", "tiny", "--context", "8"], "static_context for 32 tokens"),
    ],
)
def test_a_mistake_is_one_line(npu_sim, arguments, message):
    code, out, err = npu_sim(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_described_model_runs_like_its_preset(npu_sim, tmp_path):
    fields = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 16,
              "intermediate_size": 32, "num_attention_heads": 4, "vocab_size": 61}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(fields))
    code, out, _ = npu_sim(
        "run",
        "--hf-config",
        tmp_path,
        "--npu",
        "teaching-npu",
        "--input",
        5,
        "--output",
        3,
        "--json",
        "--hf-config",
        tmp_path,
        "--npu",
        "teaching-npu",
        "--input",
        5,
        "--output",
        3,
        "--json",
    )
    data = json.loads(out)
    assert code == 0
    assert [phase["phase"] for phase in data["phases"]] == ["prefill", "decode"]
    layer = 5 * (4 * 16 * 16 + 3 * 16 * 32) + 2 * 4 * 5 * 5 * 4
    assert data["phases"][0]["macs"] == 2 * layer + 16 * 61


def test_a_gemm_calibration_is_printed_and_written(npu_sim, tmp_path):
    code, out, _ = npu_sim("calibrate", "a100", "--out", tmp_path, "--plot", tmp_path / "g.png")
    assert code == 0
    assert "on the 10 others (roofline)" in out
    assert (tmp_path / "a100.toml").read_text().count("fitted: a100 GEMMs") == 3
    assert (tmp_path / "g.png").read_bytes().startswith(PNG)


def test_far_more_processes_than_processors_are_refused(npu_sim, tmp_path):
    spec, out, most = tmp_path / "spec.toml", tmp_path / "out.csv", 4 * os.cpu_count()
    spec.write_text(SWEEP)
    code, _, err = npu_sim("sweep", spec, "--out", out, "--processes", str(most + 1))
    assert code == 2
    assert f"--processes must be at most {most} here" in err
    assert not out.exists()
