"""One set of options for every command: the same question has the same answer everywhere."""

import csv
import json
from pathlib import Path

import pytest
from faults.samples import LLAMA, MODELS

from npu_sim.hardware.presets import npu, npu_to_toml
from npu_sim.hardware.units import npu_value, with_unit
from npu_sim.whatif.metrics import METRICS, evaluate, scenario_report
from npu_sim.whatif.scenario_toml import base_scenario
from npu_sim.whatif.sweep import run_sweep, sweep
from npu_sim.whatif.varied.sweep_toml import read_spec, spec_from

SHORT = ("--input", "5", "--output", "3")
BERT = {
    "model_type": "bert", "num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32,
    "num_attention_heads": 4, "vocab_size": 61, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, fields in (("llama", LLAMA), ("bert", BERT)):
        Path(name).mkdir()
        Path(name, "config.json").write_text(json.dumps(fields))
    Path("models.json").write_text(json.dumps(MODELS))
    Path("chip.toml").write_text('like = "teaching-npu"\ndma.bytes_per_s = "20 GB/s"\n')
    return tmp_path


def answer(npu_sim, *arguments):
    code, out, err = npu_sim(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def refusal(npu_sim, *arguments):
    code, out, err = npu_sim(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    return err


ASKED = [
    ("tiny", *SHORT),
    ("--hf-config", "llama", *SHORT, "--batch", "2", "--context", "16", "--weight-bits", "4"),
    ("--model-json", "models.json#small", *SHORT, "--kv-bits", "8", "--runtime", "geniex"),
    ("tiny", *SHORT, "--fidelity", "roofline", "--activation-bits", "8"),
    ("--hf-config", "bert", "--input", "7", "--npu", "chip.toml"),
    ("tiny", *SHORT, "--set", "decoder.n_layers=1", "--set", "npu.sram.capacity_bytes=3 MiB"),
]


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked[0] + asked[1])
def test_every_command_gives_the_same_answer_to_the_same_question(npu_sim, folder, asked):
    if "--npu" not in asked:
        asked = (*asked, "--npu", "teaching-npu")
    run = answer(npu_sim, "run", *asked)
    ms = run["latency_ms"]
    tiles = asked[0] == "tiny" and "roofline" not in asked  # two dozen of them take seconds
    moved = run | {"base": ms} if tiles else answer(npu_sim, "sensitivity", *asked)
    solved = answer(npu_sim, "solve", *asked, "--target-latency-ms", "1e6")
    assert moved["base"] == pytest.approx(ms)
    assert solved["now_metric"] == pytest.approx(ms)
    at = asked.index("--npu")
    model = ("--model", *asked[:at]) if asked[0] == "tiny" else asked[:at]
    sides = answer(npu_sim, "compare", asked[at + 1], "h100", *model)
    assert sides["a_ms"] == pytest.approx(ms)
    for found in (moved, solved, sides["a"]):
        assert (found["model"], found["npu"]) == (run["model"], run["npu"])
        assert found["fidelity"] == run["fidelity"]
        assert found.get("set") == run.get("set")
    Path("s.toml").write_text(f'model = "tiny"\nvary.batch = [{run["batch"]}]\n')
    named = asked[1:] if asked[0] == "tiny" else asked
    given = answer(npu_sim, "sweep", "s.toml", *named, "--fidelity", run["fidelity"], "--quiet",
                   "--processes", "1")  # fmt: skip
    (row,) = table(Path("sweep.csv"))
    assert float(row["latency_ms"]) == pytest.approx(ms)
    assert (given["model"], given["npu"]) == (run["model"], run["npu"])


def test_an_explanation_is_of_the_same_request(npu_sim, folder):
    asked = ("--hf-config", "llama", *SHORT, "--batch", "2", "--set", "activation_bits=8")
    found = answer(npu_sim, "explain", *asked, "--site", "decoder.0.mlp.up")
    assert "[2, 16] x [16, 32]" in "".join(found["lines"])
    assert "A8" in found["lines"][0]
    assert answer(npu_sim, "speculate", "--hf-config", "llama", "--draft-len", "2")["steps"]


@pytest.mark.parametrize("command", ["explain --site decoder.0.mlp.up", "speculate"])
def test_what_only_tiles_can_say_is_refused_of_a_roofline(npu_sim, command):
    name, *more = command.split()
    err = refusal(npu_sim, name, "tiny", *more, "--fidelity", "roofline")
    assert "fidelity must be tile here, got roofline" in err


SETTINGS = [
    ("npu.dma.bytes_per_s=100 GB/s", "npu.dma.bytes_per_s", 100_000_000_000),
    ("npu.dma.bytes_per_s=100e9", "npu.dma.bytes_per_s", 100_000_000_000),
    ("npu.dma.bytes_per_s = 100_000_000_000", "npu.dma.bytes_per_s", 100_000_000_000),
    ("dma_bandwidth=100GB/s", "npu.dma.bytes_per_s", 100_000_000_000),
    ("npu.per_inference_overhead_us=1.5 ms", "npu.per_inference_overhead_us", 1500),
    ("npu.matrix.dataflow=ws", "npu.matrix.dataflow", "ws"),
    ("npu.dma.runs_ahead=true", "npu.dma.runs_ahead", True),
    ("model.decoder.activation=relu", "model.decoder.activation", "relu"),
    ("decoder.norm_kind=layer", "model.decoder.norm_kind", "layer"),
    ("model.vocab_size=99", "model.vocab_size", 99),
    ("model.positions=table", "model.positions", "table"),
    ("precision.weight_bits=4", "precision.weight_bits", 4),
    ("workload.context=64", "workload.context", 64),
    ("workload.static_context=64", "workload.context", 64),
    ("context=none", "workload.context", None),
    ("workload.budget_ms=20", "workload.budget_ms", 20),
    ("decoder.window=3", "model.decoder.window", 3),
]


@pytest.mark.parametrize(("text", "path", "value"), SETTINGS, ids=str)
def test_any_field_can_be_set_as_a_person_writes_it(text, path, value):
    name, _, given = (part.strip() for part in text.partition("="))
    found = base_scenario({"model": "tiny", "npu": "teaching-npu", "set": {name: given}})
    assert found.paths()[path] == value
    assert type(found.paths()[path]) in (type(value), float)


def test_a_window_that_no_layer_had_is_every_layers():
    found = base_scenario({"model": "tiny", "set": {"decoder.window": 3}}).description.model
    assert found.decoder.windowed_layers == (True, True)
    assert found.encoder.windowed_layers == (False, False)


def test_what_is_set_is_said(npu_sim, folder):
    code, out, _ = npu_sim("run", "tiny", *SHORT, "--set", "npu.dma.bytes_per_s=100 GB/s",
                           "--set", "decoder.n_layers=1")  # fmt: skip
    assert code == 0
    title = out.splitlines()[0]
    assert "tiny, decoder.n_layers = 1 on hexagon-x-elite, dma.bytes_per_s = 100 GB/s:" in title
    found = answer(npu_sim, "run", "tiny", *SHORT, "--set", "npu.dma.bytes_per_s=100 GB/s")
    assert found["npu"] == "hexagon-x-elite, dma.bytes_per_s = 100 GB/s"
    assert found["set"] == {"npu.dma.bytes_per_s": "100 GB/s"}
    assert "set" not in answer(npu_sim, "run", "tiny", *SHORT)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("npu.dma.byte_per_s=1", "the nearest: npu.dma.bytes_per_s"),
        ("workload.contxt=8", "the nearest: workload.context"),
        ("model.decoder.n_layer=8", "the nearest: model.decoder.n_layers"),
        ("decoder.activation=rel", "activation must be one of gelu_tanh, gelu, silu, relu"),
        ("npu.dma.bytes_per_s=100 GHz", "must be one of B/s, kB/s, MB/s, GB/s, TB/s; got 'GHz'"),
        ("npu.dma.bytes_per_s=fast", "dma.bytes_per_s must be a whole number"),
        ("npu.clock_hz=1e400", "clock_hz must be a whole number"),
        ("precision.weight_bits=5", "weight_bits must be one of 4, 8, 16; got 5"),
        ("workload.n_input=0", "workload.n_input must be a whole number from 1"),
        ("decoder.n_heads=3", "n_heads must be a multiple of n_kv_heads"),
        ("decoder.n_layers=" + "9" * 5000, "n_layers must be"),
        ("npu.dma.bytes_per_s", "--set must have the form FIELD=VALUE"),
        ("=3", "--set must have the form FIELD=VALUE"),
        ("drafter.draft_len=3", "must come with drafter.beam_width"),
    ],
)
def test_a_wrong_setting_is_one_line(npu_sim, text, said):
    assert said in refusal(npu_sim, "run", "tiny", "--set", text)


def test_a_run_with_a_drafter_counts_tokens_and_not_steps(npu_sim):
    beams = ("--set", "drafter.beam_width=2", "--set", "drafter.tokens_per_step=2")
    _, out, _ = npu_sim("run", "tiny", "--input", "4", "--output", "9", *beams, "--json")
    found = json.loads(out)
    verify = next(phase for phase in found["phases"] if phase["phase"] == "verify")
    assert (found["n_output"], verify["calls"]) == (9, 4)  # eight tokens after the first
    per_token = (found["latency_ms"] - found["ttft_ms"]) / 8
    assert found["decode_tok_per_s"] == pytest.approx(1000 / per_token)


def test_a_field_is_set_once(npu_sim):
    twice = ("--set", "npu.clock_hz=1 GHz", "--set", "npu.clock_hz=2 GHz")
    assert "once, got 'npu.clock_hz' twice" in refusal(npu_sim, "run", "tiny", *twice)


# -- NPUs as a person writes them ------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["100e9", "100_000_000_000", '"100 GB/s"', '{ value = 100, unit = "GB/s" }',
              '{ value = "100 GB/s", source = "mine" }'],
)  # fmt: skip
def test_a_file_says_only_what_differs(tmp_path, value):
    (tmp_path / "mine.toml").write_text(f'like = "hexagon-x-elite"\n[dma]\nbytes_per_s = {value}\n')
    found, like = npu(str(tmp_path / "mine.toml")), npu("hexagon-x-elite")
    assert found.name == "mine"
    assert found.values() == {**like.values(), "dma.bytes_per_s": 100_000_000_000}
    source = "mine" if "mine" in value else "assumed: no source given"
    assert dict(found.sources) == {**like.sources, "dma.bytes_per_s": source}
    (tmp_path / "again.toml").write_text(npu_to_toml(found))
    assert npu(str(tmp_path / "again.toml")) == found


def test_a_small_file_of_a_person_says_what_it_lacks(npu_sim, tmp_path):
    text = (
        'name = "mine"\nclock_hz = 1000000000\n[matrix]\nrows = 64\ncolumns = 64\n[dma]\n'
        "bytes_per_s = 30000000000\n[sram]\ncapacity_bytes = 2097152\n"
    )
    file = tmp_path / "min.toml"
    file.write_text(text)
    assert 'which the line like = "hexagon-x-elite" takes' in refusal(npu_sim, "run", "tiny",
                                                                     "--npu", file)  # fmt: skip
    file.write_text('like = "teaching-npu"\n' + text)
    assert answer(npu_sim, "run", "tiny", *SHORT, "--npu", file)["npu"] == "mine"
    file.write_text('like = "teaching-npu"\n[dma]\nbytes_per_sec = 1\n')
    assert "got dma.bytes_per_sec; perhaps dma.bytes_per_s" in refusal(npu_sim, "run", "tiny",
                                                                       "--npu", file)  # fmt: skip
    file.write_text('like = "hexagon"\n')
    assert "like must be one of" in refusal(npu_sim, "hardware", "show", file)


def test_two_npus_side_by_side(npu_sim, folder):
    found = answer(npu_sim, "hardware", "compare", "teaching-npu", "chip.toml")
    assert (found["a"], found["b"]) == ("teaching-npu", "chip")
    (entry,) = found["fields"].values()
    assert list(found["fields"]) == ["dma.bytes_per_s"]
    assert entry["b"] == {"value": 20_000_000_000, "source": "assumed: no source given"}
    code, out, _ = npu_sim("hardware", "compare", "teaching-npu", "chip.toml")
    assert code == 0
    assert "20 GB/s" in out


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [("dma.bytes_per_s", 47_088_000_000, "47.09 GB/s"), ("clock_hz", 10**9, "1 GHz"),
     ("sram.capacity_bytes", 2**23, "8 MiB"), ("matrix.rows", 128, "128"),
     ("dma.runs_ahead", True, "true"), ("matrix.dataflow", "ws", "ws")],
)  # fmt: skip
def test_values_are_shown_with_units(path, value, text):
    shown = with_unit(path, value)
    assert shown == text or float(shown.split()[0]) == pytest.approx(float(text.split()[0]), 1e-3)
    if value != 47_088_000_000:
        assert npu_value(path, shown, "x") == value


# -- sweeps ----------------------------------------------------------------------------------------


def test_npus_are_an_axis():
    rows = sweep(
        'model = "tiny"\n[workload]\nn_input = 5\nn_output = 3\n[vary]\n'
        'npu = ["teaching-npu", "h100"]\n"npu.dma.bytes_per_s" = ["20 GB/s", "40 GB/s"]\n'
    )
    assert [row["npu"] for row in rows] == ["teaching-npu"] * 2 + ["h100"] * 2
    for row in rows:
        alone = base_scenario({
            "model": "tiny", "npu": row["npu"], "workload": {"n_input": 5, "n_output": 3},
        }).with_fields({"npu.dma.bytes_per_s": row["npu.dma.bytes_per_s"]})  # fmt: skip
        assert {name: row[name] for name in METRICS} == pytest.approx(evaluate(alone, "roofline"))


def test_words_are_an_axis_and_a_wrong_one_is_a_reason():
    head = 'model = "tiny"\nnpu = "teaching-npu"\n[vary]\n'
    rows = sweep(head + '"model.decoder.activation" = ["relu", "silu", "swish"]\n')
    assert rows[0]["latency_ms"] <= rows[1]["latency_ms"]
    assert "activation must be one of" in rows[2]["reason"]
    assert spec_from(head + '"workload.context" = [64]\n').paths == ("workload.context",)
    assert spec_from(head + '"workload.static_context" = [64]\n').paths == ("workload.context",)


@pytest.mark.parametrize("fidelity", ["roofline", "tile"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_table_has_energy_memory_and_budget(tmp_path, fidelity, bits):
    spec = tmp_path / "s.toml"
    spec.write_text(
        f'model = "tiny"\nnpu = "hexagon-x-elite"\nfidelity = "{fidelity}"\n'
        f"[precision]\nactivation_bits = {bits}\nkv_bits = 8\n"
        "[workload]\nn_output = 6\nbudget_ms = 2\n"
        "[vary]\nn_input = [3, 5, 6, 7, 9, 11]\nweight_bits = [4, 16]\n"
    )
    read = read_spec(spec)
    run_sweep(read, tmp_path / "s.csv")
    for at, row in enumerate(table(tmp_path / "s.csv")):
        report = scenario_report(read.base.with_fields(read.point(at)), fidelity).to_json()
        expected = {
            "energy_mj": report["energy_mj"], "stored_bytes": report["peak_dram_bytes"],
            "stored_weight_bytes": report["stored_weight_bytes"],
            "stored_kv_bytes": report["stored_kv_bytes"],
            "budget_left_ms": 2 - report["latency_ms"],
        }  # fmt: skip
        assert {name: float(row[name]) for name in expected} == pytest.approx(expected, rel=1e-7)


def test_options_stand_before_what_the_file_of_a_sweep_says(npu_sim, folder):
    Path("s.toml").write_text('model = "tiny"\nset.n_output = 2\nvary.n_input = [3, 4]\n')
    answer(npu_sim, "sweep", "s.toml", "--npu", "h100", "--set", "npu.clock_hz=1 GHz",
           "--quiet", "--processes", "1")  # fmt: skip
    beside = json.loads(Path("sweep.json").read_text())
    assert beside["npu"]["name"] == "h100, clock_hz = 1 GHz"
    again = spec_from(beside["spec"])
    assert again.base.npu.clock_hz == 10**9
    assert again.base.workload.n_output == 2
