"""What `npu-sim` is given: outputs planned, options that act or are refused, texts as they are."""

import json
import tomllib
from functools import partial
from pathlib import Path
from typing import get_type_hints

import pytest

from mu_ref.presets import preset, tiny
from npu_sim.errors import HardwareError, NpuSimError, WorkloadError
from npu_sim.hardware.presets import npu, npu_to_toml, read_npu
from npu_sim.hardware.ranges import range_of
from npu_sim.models.hf_config import describe_fields, read_hf_config
from npu_sim.models.hf_fields import unread_fields
from npu_sim.models.neutral_json import description_of
from npu_sim.program.call import call_program
from npu_sim.program.description import describe
from npu_sim.program.precision import Precision
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate_program
from npu_sim.show.trace import check_trace, read_trace
from npu_sim.speculate.acceptance import Acceptance, read_acceptance
from npu_sim.speculate.step import check_trees
from npu_sim.systolic.scalesim_csv import read_rows
from npu_sim.tile.tiling import Chip, chip_numbers, layout_cycles, matrix_cycles, transfer_cycles

CHIP = npu("teaching-npu")
QUICK = ["run", "tiny", "--output", "2", "--input", "4", "--npu", "teaching-npu"]
LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 100,
         "num_hidden_layers": 2, "intermediate_size": 128}  # fmt: skip
BERT = LLAMA | {"model_type": "bert"}
NEUTRAL = {"family": "decoder", "n_enc_layers": 0, "n_dec_layers": 2, "d_model": 16, "d_ff": 32,
           "gated": True, "n_heads": 4, "n_kv_heads": 2, "d_head": 4, "vocab_size": 61,
           "tied": True, "lm_head": "last"}  # fmt: skip
quoted = partial(json.dumps, ensure_ascii=False)  # a text of TOML too
STRANGE = (
    "[/x] [bold]",
    r"$\frac{$ ^_",
    "\x1b[31mred\n",
    "=cmd|' /C calc'!A0",
    'a"b\\c',
    "模型 🐍",
)


@pytest.fixture
def npu_sim(npu_sim, monkeypatch, tmp_path):
    """Run the command line in a folder of its own; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    return npu_sim


def refused(npu_sim, *arguments):
    code, out, err = npu_sim(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: ")
    return err


# -- outputs ---------------------------------------------------------------------------------------


@pytest.fixture
def no_work(monkeypatch):
    """Fail where anything is simulated: what is refused must be refused before."""
    for name in ("scenario_program", "simulate_program"):
        monkeypatch.setattr(f"npu_sim.cli.run.{name}", lambda *_, **__: pytest.fail("worked"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trace", "x", "--csv", "x"], "--csv and --trace must be two files"),
        (["--gantt", "a.png", "--plot-roofline", "./a.png"], "must be two files"),
        (["--trace", "chip.toml", "--npu", "chip.toml"], "--trace must not be a file that is read"),
        (["--csv", "link", "--npu", "chip.toml"], "--csv must not be a file that is read"),
        (["--trace", "nowhere/x"], "--trace must lie in a folder that exists"),
        (["--csv", "."], "--csv must be a file, got the folder"),
        (["--gantt", "a.gif"], "--gantt must end in one of"),
        (["--csv", "x", "--fidelity", "roofline"], "--csv must be asked of a run at tile"),
        (["--by", "site", "--fidelity", "roofline"], "--by must be asked of a run at tile"),
        (["--by", "bogus", "--json"], "by must be one of layer, kind, site"),
        (["--trace", "/dev/stdout", "--json"], "--trace must be a file with --json"),
        (["--phase-budget", "decode=1", "--phase-budget", "decode=2"], "one budget, got two"),
        (["--phase-budget", "decode=" + "9" * 5000], "at most 18 digits"),
        (["--phase-budget", "decode=³"], "must have the form PHASE=CYCLES"),
    ],
)
def test_what_cannot_be_written_or_shown_is_said_before_the_work(
    npu_sim, no_work, arguments, message
):
    text = npu_to_toml(CHIP)
    Path("chip.toml").write_text(text)
    Path("link").symlink_to("chip.toml")
    assert message in refused(npu_sim, "run", "tiny", *arguments)
    assert Path("chip.toml").read_text() == text
    assert {path.name for path in Path().iterdir()} == {"chip.toml", "link"}


@pytest.mark.parametrize("option", ["--model-json", "--hf-config"])
def test_a_model_is_never_an_output(npu_sim, no_work, option):
    for file in (Path("m.json"), Path("config.json")):
        file.write_text("{}")
    named = "m.json#m" if option == "--model-json" else "."
    file = "m.json" if option == "--model-json" else "config.json"
    assert "a file that is read" in refused(npu_sim, "run", option, named, "--trace", file)


def test_devices_are_written_to_and_not_replaced(npu_sim):
    assert npu_sim(*QUICK, "--csv", "/dev/null")[0] == 0
    code = npu_sim(*QUICK, "--csv", "/dev/stdout")[0]
    assert code == 0
    assert Path("/dev/null").is_char_device()
    assert "No space left" in npu_sim(*QUICK, "--csv", "/dev/full")[2]


def test_the_results_of_systolic_never_replace_what_was_read(npu_sim):
    text = "array_rows,array_cols,dataflow,M,N,K\n8,8,ws,1,1,1\n"
    Path("a.csv").write_text(text)
    err = refused(npu_sim, "systolic", "--csv", "a.csv", "--out", "./a.csv")
    assert "--out must not be a file that is read" in err
    assert Path("a.csv").read_text() == text


# -- every option acts or is refused ---------------------------------------------------------------


def test_by_adds_the_shares_to_the_json(npu_sim):
    data = json.loads(npu_sim(*QUICK, "--by", "kind", "--json")[1])
    assert data["by"] == "kind"
    assert sum(share["cycles"] for share in data["shares"]) == data["cycles"]


def test_a_mixture_says_how_many_experts_a_step_is_expected_to_read(npu_sim):
    fields = LLAMA | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2,
                      "num_key_value_heads": 2}  # fmt: skip
    Path("mix.json").write_text(json.dumps(fields))
    arguments = ["run", "--hf-config", "mix.json", "--fidelity", "roofline", "--input", "4",
                 "--output", "2", "--batch", "2"]  # fmt: skip
    found = json.loads(npu_sim(*arguments, "--json")[1])["experts"]
    assert found == {"stored": 4, "per_token": 2, "expected_per_step": 3.0}
    assert "3.00 of 4 are expected to be read in a decode step" in npu_sim(*arguments)[1]


def test_options_about_a_cache_are_refused_where_there_is_none(npu_sim):
    Path("config.json").write_text(json.dumps(BERT))
    arguments = ["run", "--hf-config", "config.json", "--fidelity", "roofline", "--input", "4"]
    assert npu_sim(*arguments)[0] == 0
    assert "--kv-bits must be left out" in refused(npu_sim, *arguments, "--kv-bits", "8")
    written = json.loads(npu_sim(*arguments, "--output", "3", "--json")[1])
    assert (written["n_output"], written["tpot_ms"]) == (1, None)
    assert "static_context for 4 tokens" in refused(npu_sim, *arguments, "--context", "3")
    shown = json.loads(npu_sim(*arguments, "--context", "9", "--json")[1])
    assert shown["n_input"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hardware", "show", "m1-max", "--json", "--toml"], "must not be given together"),
        (["speculate", "tiny", "--beam-width", "4,4"], "name each number once, got 4 twice"),
        (["speculate", "tiny", "--acceptance", "steps", "--accept-rate", "0.5"], "--accept-rate"),
        (["speculate", "tiny", "--acceptance", "steps", "--nodes-saved", "0.5"], "--nodes-saved"),
        (["speculate", "tiny", "--acceptance", "steps", "--draft-len", "1"], "at most 5 nodes"),
        (["speculate", "decoder-only-330m", "--input", "4"], "--input must be left out"),
        (["systolic", "--m", "1", "--seed", "1"], "--seed must come with --fidelity cycle"),
        (["run", "tiny", "--model-json", "m.json"], "one of model, model_json and hf_config"),
    ],
)
def test_options_that_would_not_act_are_refused(npu_sim, arguments, message):
    Path("steps").write_text('{"n_accepted": 2, "nodes": 9}\n')
    assert message in refused(npu_sim, *arguments)


def test_trees_are_checked_before_any_of_them_is_priced(npu_sim, monkeypatch):
    monkeypatch.setattr("npu_sim.speculate.step.speculate", lambda *_, **__: pytest.fail("worked"))
    Path("steps").write_text('{"n_accepted": 2, "nodes": 9}\n')
    arguments = ["--acceptance", "steps", "--beam-width", "4,1", "--draft-len", "2"]
    assert "at most 3 nodes" in refused(npu_sim, "speculate", "tiny", *arguments)


# -- numbers ---------------------------------------------------------------------------------------

HUGE = ("1000000000000000000", "-1", "nan", "inf", "x", "9" * 5000)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("run tiny", "--input --output --batch --context --budget-ms --budget-mb"),
        ("run tiny", "--weight-bits --activation-bits --kv-bits --head-weight-bits"),
        ("explain tiny --site decoder.0.mlp.up", "--input --output --batch --call"),
        ("speculate tiny", "--beam-width --draft-len --accept-rate --nodes-saved --exit-dim"),
        ("speculate tiny", "--blocks --input --context --host-us"),
        ("systolic", "--m --n --k --rows --cols --seed"),
    ],
)
def test_a_number_out_of_its_range_is_refused_at_once(npu_sim, command, options):
    for option in options.split():
        for value in HUGE:
            assert option.strip("-") in refused(npu_sim, *command.split(), option, value).replace(
                "_", "-"
            )


@pytest.mark.parametrize("path", CHIP.numbers())
def test_every_number_of_a_chip_works_up_to_its_ends_and_not_beyond(path):
    allowed, program = range_of(path), record_request(tiny(), 3, 2, Precision())
    for end in {allowed.low, allowed.high}:
        chip = CHIP.with_value(path, end)
        try:
            report = simulate_program(program, chip)
        except NpuSimError:
            continue  # too little SRAM, a pace that does not end
        assert report.latency_cycles > 0
        assert all(n >= 0 for phase in report.phases for n in phase.limit_cycles.values())
        assert simulate_program(program, chip, fidelity="roofline").latency_cycles > 0
    beyond = (allowed.low - 1, allowed.high * 2, 2**53, 2**70, 10**400, float("nan"), float("inf"))
    for value in (*beyond, True, "5", None, [1]):
        if path == "sram.capacity_bytes" or value is None or value != 2**53 or allowed.high < 2**53:
            with pytest.raises(HardwareError, match=path):
                CHIP.with_value(path, value if value != 2**53 else allowed.high + 1)


def test_chips_at_the_ends_of_several_ranges_run_or_say_why():
    program = record_request(tiny(), 3, 1, Precision())
    for ends in (("low",), ("high",), ("low", "high"), ("high", "low")):
        values = {
            path: getattr(range_of(path), ends[i % len(ends)])
            for i, path in enumerate(CHIP.numbers())
        }
        for flow in ("blocks", "os", "ws", "is"):
            try:
                report = simulate_program(
                    program, CHIP.with_changes(values | {"matrix.dataflow": flow})
                )
            except NpuSimError:
                continue
            assert 0 < report.latency_cycles < 2**80


@pytest.mark.parametrize(
    ("amount", "per_s", "clock"),
    [(2**40 + 3, 10**15, 10**11), (2**44, 2**50 - 1, 10**11), (2**26, 3, 5), (2**30 + 7, 1, 1)],
)
def test_long_divisions_agree_with_whole_numbers(amount, per_s, clock):
    changes = {"clock_hz": clock, "dma.setup_cycles": 0}
    if per_s <= 10**15:
        changes |= {"dma.bytes_per_s": per_s, "dram.bytes_per_s": per_s}
        numbers = chip_numbers(CHIP.with_changes(changes))
        assert transfer_cycles(amount, numbers) == -(-amount * clock // per_s)
    numbers = chip_numbers(CHIP.with_value("clock_hz", clock))
    assert layout_cycles(amount, per_s, numbers) == -(-amount * clock // per_s)


def test_products_of_large_sizes_take_the_cycles_of_whole_numbers():
    chip = chip_numbers(CHIP.with_value("matrix.dataflow", "blocks"))
    rate = 7 * 10**12 + 1
    slots = 3 * 2**17 * 2**20 * 2**14
    assert matrix_cycles(3, 2**17, 2**20, 2**14, rate, chip) == -(-slots * 10**6 // rate)


def test_a_chip_that_would_not_end_is_refused():
    program = record_request(preset("mu-330m"), 4, 1, Precision())
    with pytest.raises(HardwareError, match="at that pace it would not end"):
        simulate_program(program, npu("hexagon-x-elite").with_value("dma.bytes_per_s", 1))
    with pytest.raises(HardwareError, match="take larger ones or a shorter request"):
        simulate_program(program, npu("hexagon-x-elite").with_value("dma.transfer_bytes", 1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: record_request(tiny(), 1, 2049, Precision()),
        lambda: record_request(tiny(), 1, 8, Precision(), 2**20),
        lambda: call_program(describe(tiny()), "decode", 1, 4, 2**30, Precision()),
        lambda: call_program(describe(tiny()), "decode", 1, 2**30, 4, Precision()),
        lambda: Acceptance.recorded([(0, 10**9)]),
        lambda: Acceptance.recorded([(1.5, 4)]),
        lambda: Acceptance.distributed([float("nan"), 1.0], 4),
        lambda: Acceptance.chain(float("nan"), 3, 4),
        lambda: Acceptance.chain(0.5, 10**9, 4),
        lambda: check_trees(Acceptance.recorded([(0, 1)]), 10**6, 3),
        lambda: description_of("m", NEUTRAL | {"n_dec_layers": 10**8}),
        lambda: description_of("m", NEUTRAL | {"gated": 1}),
        lambda: describe_fields(LLAMA | {"num_hidden_layers": 10**8}, "m"),
        lambda: simulate_program(record_request(tiny(), 1, 1, Precision()), CHIP, float("nan")),
        lambda: simulate_program(
            record_request(tiny(), 1, 1, Precision()), CHIP, cycle_budgets={"decode": 10**30}
        ),
    ],
)
def test_python_callers_get_the_same_errors(make):
    with pytest.raises(NpuSimError, match=" must "):
        make()


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"clock_hz": "{ value = 1, unit = [] }"}, {"clock_hz": "{ value = [[1]] }"},
        {"clock_hz": "{ value = nan, unit = 'GHz' }"}, {"clock_hz": "9" * 400},
        {"clock_hz": "{ value = " + "9" * 400 + ", unit = 'GHz' }"}, {"clock_hz": "1979-05-27"},
        {"unsupported_ops": "'sofmax'"}, {"runs_ahead": "1"}, {"title": "''"},
        {"title": "'x'\n\"dma.bytes_per_s\" = 5"}, {"name": "[" * 5000},
    ],
)  # fmt: skip
def test_a_wrong_value_of_a_chip_names_file_and_rule(tmp_path, change):
    ((key, value),) = change.items()
    lines = [
        f"{key} = {value}" if line.startswith(f"{key} =") else line
        for line in npu_to_toml(CHIP).splitlines()
    ]
    (tmp_path / "chip.toml").write_text("\n".join(lines))
    with pytest.raises(HardwareError, match=r"chip\.toml"):
        read_npu(tmp_path / "chip.toml")


@pytest.mark.parametrize(
    "change",
    [
        {"pad_token_id": True}, {"pad_token_id": "x"}, {"pad_token_id": 1.5},
        {"pad_token_id": [1]}, {"eos_token_id": [1, "x"]}, {"rope_theta": None},
        {"rope_theta": -1}, {"rms_norm_eps": "x"}, {"hidden_size": 2**70}, {"hidden_size": None},
        {"num_attention_heads": -1}, {"vocab_size": -1}, {"tie_word_embeddings": 1},
        {"hidden_act": 3}, {"_name_or_path": 3}, {"num_key_value_heads": 0}, {"head_dim": 1.0},
        {"text_config": [1]}, {"model_type": []}, {"model_type": None},
        {"max_position_embeddings": 10**9},
    ],
)  # fmt: skip
def test_a_wrong_field_of_a_config_names_file_and_field(tmp_path, change):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | change))
    with pytest.raises(WorkloadError, match=rf"config\.json: .*{next(iter(change))}"):
        read_hf_config(tmp_path)


@pytest.mark.parametrize("change", [{"patch_size": -1}, {"patch_size": 0}, {"image_size": 2**30},
                                    {"patch_size": 512}, {"num_channels": None}])  # fmt: skip
def test_a_picture_that_cannot_be_cut_is_refused(change):
    with pytest.raises(WorkloadError, match="must be"):
        describe_fields(BERT | {"model_type": "vit"} | change, "vit")


def test_fields_that_could_change_costs_are_named_and_others_are_not(npu_sim):
    harmless = {"torch_dtype": "bfloat16", "architectures": [], "bos_token_id": 1,
                "attention_dropout": 0.0, "transformers_version": "4", "use_cache": True,
                "initializer_range": 0.02, "rope_scaling": None}  # fmt: skip
    assert unread_fields(LLAMA | harmless) == []
    assert unread_fields(LLAMA | {"num_experts": 8}) == ["num_experts"]
    assert unread_fields({"text_config": {"d_extra": 1}}) == ["text_config.d_extra"]
    Path("config.json").write_text(json.dumps(LLAMA | {"num_experts": 8}))
    arguments = ["--hf-config", "config.json", "--fidelity", "roofline", "--output", "1", "--json"]
    code, out, err = npu_sim("run", *arguments)
    assert (code, json.loads(out)["tpot_ms"]) == (0, None)
    assert err == "warning: config.json: not read, may change costs: num_experts\n"


@pytest.mark.parametrize(
    "text",
    [
        "", "3", "[1]", '{"nodes": 3}', '{"n_accepted": 1, "nodes": 3, "more": 1}',
        '{"n_accepted": 3, "nodes": 3}', '{"n_accepted": true, "nodes": 3}',
        '{"n_accepted": 1.0, "nodes": 3}', '{"n_accepted": -1, "nodes": 3}',
        '{"n_accepted": 0, "nodes": 1e9}', '{"probabilities": [NaN, 1]}', '{"probabilities": []}',
        '{"probabilities": [0.5]}', '{"probabilities": [true]}', '{"probabilities": "1"}',
        '{"probabilities": [2, -1]}', '{"probabilities": [1]}\n{"probabilities": [1]}',
        '{"n_accepted": 0, "nodes": 1}\n{"probabilities": [1]}', "[" * 10**5, "\ud800",
    ],
)  # fmt: skip
def test_acceptance_that_is_none_is_refused_with_file_and_line(tmp_path, text):
    (tmp_path / "steps").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(WorkloadError, match=r"steps(:\d+)? must|steps:\d+: "):
        read_acceptance(tmp_path / "steps", 9)


EVENT = {"ph": "X", "name": "a", "ts": 0, "dur": 1, "pid": 1, "tid": 0, "args": {}}


@pytest.mark.parametrize(
    "value",
    [
        [1, 2], [[]], {"traceEvents": {}}, {"x": 1}, 3, None, [EVENT | {"ts": None}],
        [EVENT | {"ts": "0"}], [EVENT | {"dur": True}], [EVENT | {"ts": 10**30}],
        [EVENT | {"args": [1]}], [EVENT | {"name": 3}], [EVENT | {"tid": [1]}],
        [EVENT | {"args": {"start_cycles": "x"}}], [EVENT | {"ph": 3}],
        [{"ph": "C", "name": "n", "ts": 0, "args": {"x": "many"}}], [{"ph": "C", "name": "n"}],
        [{"ph": "M", "name": "thread_name", "tid": 0}],
        [{"ph": "M", "name": "thread_name", "tid": 0, "args": {"name": []}}],
        [{k: v for k, v in EVENT.items() if k != "ts"}],
    ],
)  # fmt: skip
def test_a_file_that_is_no_trace_names_the_event(npu_sim, value):
    Path("t.json").write_text(json.dumps(value))
    assert "t.json" in refused(npu_sim, "check-trace", "t.json")


def test_events_without_optional_fields_are_held_to_the_rules(tmp_path):
    events = [{"ph": "X", "name": "a", "ts": 0, "dur": 1}, {"ph": "C", "ts": 1}, {"ph": "Q"}, {}]
    (tmp_path / "t.json").write_text(json.dumps(events))
    wrong = check_trace(read_trace(tmp_path / "t.json"))
    assert wrong == [
        "an event must be X, C or M, got 'Q'", "an event must be X, C or M, got None",
        "thread 0 must have a name",
    ]  # fmt: skip


def test_too_many_rows_or_too_much_work_in_a_file_is_refused(npu_sim, monkeypatch):
    monkeypatch.setattr("npu_sim.systolic.scalesim_csv.MOST_ROWS", 2)
    header = "array_rows,array_cols,dataflow,M,N,K\n"
    Path("a.csv").write_text(header + "8,8,ws,1,1,1\n" * 3)
    with pytest.raises(WorkloadError, match="at most 2 rows, got 3"):
        read_rows(Path("a.csv"))
    Path("a.csv").write_text(header + "8,8,os,9000,9000,1\n" * 2)
    arguments = ["--csv", "a.csv", "--out", "o.csv", "--fidelity", "cycle"]
    assert "row 3: cells x cycles" in refused(npu_sim, "systolic", *arguments)


# -- texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRANGE)
def test_names_are_shown_as_they_are_and_written_so_that_they_read_back(npu_sim, name):
    values = npu_to_toml(CHIP)
    sources = values.replace('title = "', f"title = {quoted(name)}  # ", 1)
    Path("chip.toml").write_text(sources.replace("name = ", f"name = {quoted(name)}  # ", 1))
    code, text, err = npu_sim("hardware", "show", "chip.toml", "--toml")
    assert (code, err) == (0, "")
    assert tomllib.loads(text)["title"] == name
    Path("again.toml").write_text(text)
    assert npu_sim("hardware", "show", "again.toml", "--toml")[1] == text
    code, out, err = npu_sim("hardware", "show", "chip.toml")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert ("[/x] [bold]" in out) == (name == STRANGE[0])


@pytest.mark.parametrize("name", [STRANGE[1] + STRANGE[2] + STRANGE[0], STRANGE[3] + STRANGE[5]])
def test_files_of_a_run_hold_any_name(npu_sim, name):
    chip = npu_to_toml(CHIP).replace("name = ", f"name = {quoted(name)}  # ", 1)
    Path("chip.toml").write_text(chip)
    Path("m.json").write_text(json.dumps({name: NEUTRAL}))
    code, out, err = npu_sim(
        "run", "--model-json", "m.json", "--npu", "chip.toml", "--input", "3", "--output", "2",
        "--trace", "t.json", "--csv", "t.csv", "--gantt", "g.png", "--plot-roofline", "r.svg",
        "--plot-breakdown", "b.pdf",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    title = json.loads(Path("t.json").read_text())["traceEvents"][0]["args"]["name"]
    assert title == f"{name} on {name} (simulated)"
    assert npu_sim("check-trace", "t.json")[0] == 0
    assert min(path.stat().st_size for path in Path().iterdir()) > 100


@pytest.mark.parametrize("value", [0, 1, 0.5])
def test_kernels_are_compiled_for_one_kind_of_number(value) -> None:
    """Else a whole number in somebody's file costs the compilation of all of them again."""
    types = get_type_hints(Chip)
    numbers = chip_numbers(CHIP.with_value("dma.empty_slot_share", value))
    scalars = {name: type(n) for name, n in numbers._asdict().items() if not name.endswith("rates")}
    assert scalars == {name: types[name] for name in scalars}
