"""What-ifs and evidence at the border: numbers, flags, readers, texts that are data, JSON."""

import csv
import json
from importlib.resources import files
from pathlib import Path

import pytest
from at_roofline import evaluate, sensitivity, solve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mu_ref.border.reading import read_csv
from npu_sim.cli.evidence import _tokens
from npu_sim.errors import NpuSimError
from npu_sim.evidence.cases import read_cases
from npu_sim.evidence.gemm import read_gemms
from npu_sim.evidence.headline.figures import headline
from npu_sim.evidence.validate import Prediction, Validation, write_rows
from npu_sim.hardware.presets import npu, npu_to_toml
from npu_sim.program.precision import Precision
from npu_sim.whatif.scenario import Workload
from npu_sim.whatif.scenario_toml import base_scenario, read_tables
from npu_sim.whatif.sweep import sweep
from npu_sim.whatif.varied.sweep_toml import spec_from

SHIPPED = files("npu_sim").joinpath("data", "hexagon")
CASES = Path(str(SHIPPED.joinpath("hexagon_calibration.csv")))
MODELS = Path(str(SHIPPED.joinpath("hexagon_calibration_models.json")))
HEADER = (
    "case,npu,model,phase,n_tokens,n_context,n_memory,weight_bits,activation_bits,kv_bits,"
    "head_weight_bits,runtime,measured_us"
)
ROW = "minilm,hexagon-x-elite,minilm-l6,encode,128,128,0,16,16,16,16,qnn,1303.0"
BASE = base_scenario({"model": "tiny", "npu": "teaching-npu"})
NASTY = ("[/x]", "[red]a[/red]", r"$\frac{$", "\x1b[31mred", "=cmd|' /C calc'!A0", ":smile:",
         "a\nb", "'=1", "@x", "é\u2028ü", 'q"u,o', "_hidden")  # fmt: skip


@pytest.fixture
def run(npu_sim):
    return npu_sim


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with files of every kind; it is the current one."""
    monkeypatch.chdir(tmp_path)
    Path("a.toml").write_text(
        'model = "tiny"\nnpu = "teaching-npu"\n[workload]\nn_input = 8\nn_output = 4\n'
    )
    Path("tile.toml").write_text(
        'model = "tiny"\nnpu = "teaching-npu"\nfidelity = "tile"\n'
        "workload.n_input = 4\nworkload.n_output = 2\n"
    )
    Path("roofline.toml").write_text(
        'model = "tiny"\nnpu = "teaching-npu"\nfidelity = "roofline"\n'
    )
    Path("chip.toml").write_text(npu_to_toml(npu("teaching-npu")))
    Path("c.csv").write_text(f"{HEADER}\n{ROW}\n")
    Path("models.json").write_text(MODELS.read_text())
    return tmp_path


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} is no number of JSON")

    return json.loads(text, parse_constant=refuse)


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sensitivity", "tiny", "--share", x], "--share must be a number above 0 and at most 0.99")
        for x in ("nan", "inf", "-1", "0", "1", "5")
    ]
    + [
        (["solve", "tiny", option, x], f"{option} must be a number above 0")
        for option in ("--target-tok-s", "--target-ttft-ms", "--target-latency-ms")
        for x in ("nan", "inf", "-inf", "-1", "0", "1e300")
    ]
    + [
        ([*command, option, x], f"{option} must be a whole number from 1 to 1,048,576, got {x}")
        for command in (["sensitivity", "tiny"], ["solve", "tiny", "--target-tok-s", "1"],
                        ["compare", "teaching-npu", "h100"])
        for option in ("--input", "--output") for x in ("0", "-1", "1000000000")
    ]
    + [
        (["headline", "--tokens", "0=2"], "--tokens: WIDTH must be a whole number from 1 to 64"),
        (["headline", "--tokens", "1000=2"], "--tokens: WIDTH must be a whole number"),
        (["headline", "--tokens", "4=nan"], "TOKENS of width 4 must be a number from 1 to 5"),
        (["headline", "--tokens", "4=-1"], "TOKENS of width 4 must be a number from 1 to 5"),
        (["headline", "--tokens", "4=inf"], "TOKENS of width 4 must be a number from 1 to 5"),
        (["headline", "--tokens", "4=6"], "a step keeps at most its 4 drafted tokens"),
        (["headline", "--tokens", "4=4=4"], "--tokens must be WIDTH=TOKENS"),
        (["headline", "--tokens", "=2"], "--tokens must be WIDTH=TOKENS"),
        (["headline", "--tokens", ""], "--tokens must be WIDTH=TOKENS"),
        (["headline", "--tokens", "4=2", "--tokens", "4=3"], "each width once, got 4 twice"),
        (["sweep", "a.toml", "--processes", "-1"], "--processes must be a whole number from 0"),
        (["sweep", "a.toml", "--checkpoint-points", "0"], "--checkpoint-points must be a whole"),
    ],
)  # fmt: skip
def test_a_number_without_sense_is_one_line(run, folder, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "entry",
    [
        "{ log = [1, inf], n = 2 }", "{ log = [nan, 2], n = 2 }", "{ range = [1, 1e300], n = 2 }",
        "{ log = [-1, 2], n = 2 }", "{ range = [1, 2], n = 1000000000000 }",
        "{ range = [1, 2], step = nan }", "{ range = [1, 2], step = inf }",
        "{ range = [1, 2], step = 1e-300 }", "{ range = [1, 2], step = '1' }",
        "{ range = [1, 2], step = [] }", "{ range = [[1], 2], n = 2 }", "{ values = [1], n = 3 }",
        "{ values = [true] }", "{ values = ['8'] }", "{ values = [[1]] }", "{ values = [nan] }",
        "{ values = [1], unit = [] }", "{ values = [1], unit = 3 }", "{ values = {} }",
        "{ values = [1e308], unit = 'GB/s' }", "{ values = [[1]], unit = 'GB/s' }",
        "{ values = [1979-05-27] }", "[[1]]", "[{}]", "[true]", "[inf]", "['']", "{}", "true",
        "{ uniform = [1, 2], n = 2 }", "[" + "9" * 400 + "]",
    ],
)  # fmt: skip
@pytest.mark.parametrize("table", ["vary", "sample"])
def test_an_axis_without_sense_names_its_key(table, entry):
    with pytest.raises(NpuSimError, match="dma_bandwidth"):
        spec_from(f"model = 'tiny'\n[{table}]\ndma_bandwidth = {entry}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[vary]\n'npu.matrix.dataflow' = [1]", "each value of npu.matrix.dataflow must be a text"),
        ("[vary]\n'dma.runs_ahead' = [0, 1]", "each value of dma.runs_ahead must be true or false"),
        ("[vary]\n'dma.runs_ahead' = { range = [0, 1], n = 2 }", "it is no number"),
        ("[vary]\nbatch = [1]\n[sample]\nn = 1000000000000\nn_input = [1]", "sample.n must be"),
        ("[vary]\nbatch = [1]\n[sample]\nseed = 1e3\nn_input = [1]", "sample.seed must be"),
        ("npu = 5\n[vary]\nbatch = [1]", "npu must be a text, got 5"),
        ("[[workload]]\nn_input = 1\n[vary]\nbatch = [1]", "workload must be a table"),
    ],
)
def test_a_sweep_without_sense_says_why(text, message):
    with pytest.raises(NpuSimError, match=message):
        spec_from(f"model = 'tiny'\n{text}\n")


@pytest.mark.parametrize("value", [0, -1, 10**9, 10**400, 1.5, float("nan"), True, "8", None, [8]])
@pytest.mark.parametrize("name", ["n_input", "n_output", "batch"])
def test_a_length_that_no_model_has_is_refused(name, value):
    with pytest.raises(NpuSimError, match=f"workload.{name} must be a whole number from 1 to"):
        Workload(**{name: value})


@pytest.mark.parametrize("value", [0, 5, 8.0, True, "8", None, float("nan")])
@pytest.mark.parametrize("name", ["weight_bits", "activation_bits", "kv_bits"])
def test_a_width_that_no_engine_has_is_refused(name, value):
    with pytest.raises(NpuSimError, match=f"{name} must be one of"):
        Precision(**{name: value})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.decoder.n_layers", 10**7), ("model.decoder.d_model", 2**40),
        ("model.vocab_size", -1), ("model.vocab_size", 10**400), ("model.lm_head", "first"),
        ("model.decoder.gated", 1), ("workload.context", 10**9),
    ],
)  # fmt: skip
def test_a_field_beyond_every_model_is_refused_at_once(path, value):
    with pytest.raises(NpuSimError, match=path.rpartition(".")[2]):
        BASE.with_fields({path: value})


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("measured_us", cell)
        for cell in ("nan", "0", "-1", "inf", "1e300", "1_000", "", "x", "0x10", "1e-400")
    ]
    + [
        (column, cell)
        for column in ("n_tokens", "n_context", "n_memory", "weight_bits")
        for cell in ("-1", "1.5", "nan", "1e300", "9" * 5000, "", "true", "1_6")
    ]
    + [("remeasured_min_us", cell) for cell in ("nan", "-1", "x", "", "9999")],
)
def test_a_cell_without_sense_names_line_and_column(folder, column, cell):
    names = [*HEADER.split(","), "remeasured_min_us", "remeasured_max_us"]
    row = dict(zip(names, [*ROW.split(","), "1000", "2000"], strict=True)) | {column: cell}
    Path("c.csv").write_text(f"{','.join(names)}\n{','.join(row.values())}\n")
    with pytest.raises(NpuSimError, match=rf"c\.csv:2: {column} must be"):
        read_cases(Path("c.csv"))


def test_other_callers_get_the_same_errors():
    with pytest.raises(NpuSimError, match="share must be a number above 0"):
        sensitivity(BASE, share=float("nan"))
    with pytest.raises(NpuSimError, match="the target must be a number above 0"):
        solve(BASE, "clock", "latency_ms", float("nan"))
    with pytest.raises(NpuSimError, match="beam width must be a whole number from 1 to 64"):
        headline({0: 2.0})
    with pytest.raises(NpuSimError, match="tokens per step of beam width 4 must be"):
        headline({4: float("nan")})
    one = BASE.with_fields({"workload.n_output": 1})
    for ask in (sensitivity, lambda *a: solve(one, "clock", a[1], 1.0)):
        with pytest.raises(NpuSimError, match="tpot_ms must exist, got a request of 1 token"):
            ask(one, "tpot_ms")


# -- flags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more", [["--npu", "h100"], ["--input", "9"], ["--output", "3"], ["--fidelity", "roofline"]]
)
@pytest.mark.parametrize(
    "command", [["sensitivity", "a.toml"], ["solve", "a.toml", "--target-tok-s", "100"]]
)
def test_an_option_stands_before_what_the_file_says(run, folder, command, more):
    _, before, _ = run(*command, "--json")
    code, after, _ = run(*command, *more, "--json")
    assert code == 0
    assert strict(before) != strict(after)


def test_the_fidelity_of_a_file_acts_and_an_option_stands_before_it(run, folder):
    tile = run("sensitivity", "tile.toml", "--json")[1]
    base = BASE.with_fields({"workload.n_input": 4, "workload.n_output": 2})
    assert strict(tile)["base"] == evaluate(base, "tile")["latency_ms"]
    roofline = run("sensitivity", "tile.toml", "--fidelity", "roofline", "--json")[1]
    assert strict(roofline)["base"] == evaluate(base, "roofline")["latency_ms"]


def test_lengths_of_a_comparison_hold_for_both_sides(run, folder):
    _, before, _ = run("compare", "a.toml", "h100", "--model", "tiny", "--json")
    _, after, _ = run("compare", "a.toml", "h100", "--model", "tiny", "--input", "8",
                      "--output", "4", "--json")  # fmt: skip
    assert strict(before)["fields"]["workload.n_input"] == {"a": 8, "b": 64}
    assert "workload.n_input" not in strict(after)["fields"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "a.toml", "a.toml", "--model", "tiny"], "--model must come with an NPU"),
        (["compare", "tile.toml", "roofline.toml"], "fidelity of A and of B must be the same"),
        (["calibrate", "a100", "--by", "model"], "--by must come with hexagon, got a100"),
        (["calibrate", "a100", "--by", "case"], "--by must come with hexagon, got a100"),
        (["calibrate", "--by", "luck"], "--by must be one of case, model"),
        (["sweep", "a.toml", "--processes", "2", "--dask", "x"], "must not come with --dask"),
        (["solve", "tiny", "--target-tok-s", "1", "--target-latency-ms", "1"], "got 2"),
        (["solve", "tiny", "--target-tok-s", "1", "--vary", "weight_bits"], "few values"),
        (["validate", "c.csv", "--models", "models.json", "--npu", ""], "NPU must be one of"),
        (["sensitivity", "a.toml", "--fidelity", "cycle"], "fidelity must be one of"),
    ],
)
def test_a_flag_without_effect_is_refused(run, folder, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    "text",
    [
        "[drafter]\ndraft_len = 3\n[vary]\nbatch = [1]",
        "[drafter]\nbeam_width = 0\ntokens_per_step = 2.0\n[vary]\nbatch = [1]",
        "[vary]\n'drafter.draft_len' = [1, 2]",
        "[sample]\n'drafter.packed_share' = { uniform = [0.5, 1] }",
    ],
)
def test_a_drafter_without_beams_is_refused(text):
    with pytest.raises(NpuSimError, match=r"must come with drafter\.beam_width of at least 1"):
        spec_from(f"model = 'tiny'\n{text}\n")
    if "[vary]" in text:
        spec_from(f"model = 'tiny'\n{text.replace('[vary]', '[vary]' + BEAMS)}\n")


BEAMS = "\n'drafter.beam_width' = [0, 2]\n"


def test_the_head_follows_the_weights_unless_it_is_given():
    rows = sweep("model = 'tiny'\nnpu = 'teaching-npu'\nvary.weight_bits = [4, 8, 16]\n")
    for row in rows:
        bits = row["precision.weight_bits"]
        alone = Precision(weight_bits=bits, head_weight_bits=max(bits, 8))
        assert Precision(weight_bits=bits).widths() == alone.widths()
        given = {"weight_bits": bits, "head_weight_bits": max(bits, 8)}
        told = base_scenario({"model": "tiny", "npu": "teaching-npu", "precision": given})
        assert row["dram_bytes"] == evaluate(told)["dram_bytes"]
    fixed = sweep(
        "model = 'tiny'\nnpu = 'teaching-npu'\nprecision.head_weight_bits = 8\n"
        "vary.weight_bits = [16]\n"
    )
    assert fixed[0]["dram_bytes"] < rows[2]["dram_bytes"]
    assert BASE.paths()["precision.head_weight_bits"] == 8


def test_the_command_a_file_and_an_axis_price_the_same_head(run, folder):
    wide = "model = 'tiny'\nnpu = 'teaching-npu'\n"
    Path("w.toml").write_text(wide + "precision.weight_bits = 16\n")
    _, out, _ = run("run", "tiny", "--npu", "teaching-npu", "--weight-bits", 16, "--json")
    (row,) = sweep(wide + "fidelity = 'tile'\nvary.weight_bits = [16]\n")
    of_file = evaluate(base_scenario(read_tables(Path("w.toml"))), "tile")
    assert strict(out)["precision"]["head_weight_bits"] == 16
    assert row["latency_ms"] == of_file["latency_ms"] == strict(out)["latency_ms"]


# -- files out -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["validate", "c.csv", "--models", "models.json", "--csv", "c.csv"], "that is read"),
        (["validate", "c.csv", "--models", "models.json", "--csv", "models.json"], "that is read"),
        (["validate", "c.csv", "--models", "models.json", "--plot", "c.csv"], "must end in one of"),
        (["validate", "c.csv", "--models", "models.json", "--csv", "x.png", "--plot", "x.png"],
         "must be two files"),
        (["validate", "own.csv", "--models", "models.json", "--csv", "chip.toml"], "that is read"),
        (["validate", "c.csv", "--models", "models.json", "--npu", "chip.toml", "--csv",
          "chip.toml"], "that is read"),
        (["validate", "c.csv", "--models", "models.json", "--csv", "absent/x"], "that exists"),
        (["calibrate", "a100", "--out", "absent"], "must lie in a folder that exists"),
        (["calibrate", "--out", "c.csv"], "must lie in a folder that exists"),
        (["calibrate", "--plot", "x.gif"], "--plot must end in one of"),
        (["calibrate", "a100", "--out", ""], "--out': a folder must have a name, got ''"),
        (["headline", "--plot", "x"], "--plot must end in one of"),
        (["sensitivity", "a.toml", "--plot", "a.toml"], "--plot must end in one of"),
        (["sensitivity", "a.toml", "--plot", "a.png"], "that is read"),
        (["compare", "a.toml", "chip.toml", "--model", "tiny", "--plot", "absent/a.png"],
         "that exists"),
        (["solve", "a.toml", "--target-tok-s", "1", "--plot", "sub.png"], "got the folder"),
    ],
)  # fmt: skip
def test_an_output_that_would_destroy_something_is_refused(run, folder, arguments, message):
    Path("own.csv").write_text(f"{HEADER}\n{ROW.replace('hexagon-x-elite', 'chip.toml')}\n")
    Path("a.png").symlink_to("a.toml")
    Path("sub.png").mkdir()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_fitted_chips_do_not_replace_the_presets_that_the_fit_reads(run, folder):
    code, _, err = run("calibrate", "a100", "--out", files("npu_sim").joinpath("presets"))
    assert code == 2
    assert "--out (a100) must not be a file that is read" in err


@pytest.mark.parametrize(("name", "begin"), [("x.svg", b"<?xml"), ("x.pdf", b"%PDF")])
def test_a_picture_is_what_its_ending_says(run, folder, name, begin):
    assert run("sensitivity", "a.toml", "--plot", name)[0] == 0
    assert Path(name).read_bytes().startswith(begin)


def test_a_sweep_without_a_picture_says_so_before_it_runs(run, folder):
    Path("s.toml").write_text("model = 'tiny'\n[vary]\n'npu.matrix.dataflow' = ['os', 'ws']\n")
    code, _, err = run("sweep", "s.toml", "--out", "x.csv", "--plot", "x.png", "--processes", 1)
    assert (code, Path("x.csv").exists()) == (2, False)
    assert "--plot must have numbers along its axis, got npu.matrix.dataflow" in err


# -- readers ---------------------------------------------------------------------------------------

BROKEN = {
    "empty": b"", "not text": b"\xff\xfe\x00", "nested": b"x = " + b"[" * 100_000,
    "twice": b'model = "tiny"\nmodel = "tiny"\n', "nul": b'model = "ti\x00ny"\n',
    "digits": b"n = " + b"9" * 5000, "no toml": b"model", "a list": b"[[model]]\n",
}  # fmt: skip


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_toml_file_is_one_line(run, folder, data):
    Path("b.toml").write_bytes(data)
    for command in (["sweep"], ["sensitivity"], ["solve", "--target-tok-s", "1"]):
        code, out, err = run(*command, "b.toml")
        assert (code, out) == (2, ""), err
        assert err.count("\n") == 1
    for pair in (["b.toml", "h100"], ["h100", "b.toml"]):
        code, out, err = run("compare", *pair)
        assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"), (b"\xff", "text in UTF-8"), (b"a,b\n1,2\n", "must have the columns"),
        (f"{HEADER},case\n{ROW},x\n".encode(), "must stand once, got 'case' twice"),
        (f"{HEADER}\n{ROW[:-7]}\n".encode(), "x.csv:2 must have 13 cells, got 12"),
        (f"{HEADER}\n{ROW},1\n".encode(), "x.csv:2 must have 13 cells, got 14"),
        (f'{HEADER}\n"{ROW}\n'.encode(), "got no CSV"),
        (f"{HEADER}\n\n\n".encode(), "must have at least one case"),
        (f"{HEADER},remeasured_min\n{ROW},1\n".encode(), "spell the column remeasured_min_us so"),
    ],
)  # fmt: skip
def test_a_broken_table_is_one_line(folder, data, message):
    Path("x.csv").write_bytes(data)
    with pytest.raises(NpuSimError, match=message):
        read_cases(Path("x.csv"))


def test_a_table_of_any_editor_is_read(folder):
    plain = read_cases(Path("c.csv"))
    for data in (
        b"\xef\xbb\xbf" + f"{HEADER}\r\n{ROW}\r\n".encode(),
        f"{HEADER}\r{ROW}".encode(),
        f"{HEADER},remark\n\n{ROW},\n".encode(),
        (HEADER + "\n" + ",".join(f'"{cell}"' for cell in ROW.split(","))).encode(),
        f"{HEADER}\n{ROW.replace(',128,', ', 128.0 ,', 1)}\n".encode(),
    ):
        Path("x.csv").write_bytes(data)
        assert read_cases(Path("x.csv")) == plain


def some_bytes(valid):
    """Any bytes, or a valid file with some of them replaced."""
    cut = st.tuples(st.integers(0, len(valid)), st.integers(0, 30), st.binary(max_size=20))
    return st.binary(max_size=300) | cut.map(lambda c: valid[: c[0]] + c[2] + valid[c[0] + c[1] :])


SPEC = b"""model = "tiny"
npu = "teaching-npu"
fidelity = "roofline"
[workload]
n_input = 64
[precision]
weight_bits = 4
[vary]
"npu.dma.bytes_per_s" = { log = [20, 200], n = 5, unit = "GB/s" }
"workload.n_input" = { range = [64, 512], step = 64 }
[sample]
n = 3
call_overhead = { uniform = [30, 500] }
"""
GEMMS = b"npu,m,n,k,measured_us\na100,64,12288,12288,190.0\na100,128,12288,12288,200.3\n"
READERS = {
    "sweep": (lambda path: spec_from(path.read_bytes().decode("utf-8", "replace")), SPEC),
    "scenario": (lambda path: base_scenario(read_tables(path)), SPEC[: SPEC.index(b"[vary]")]),
    "cases": (read_cases, f"{HEADER}\n{ROW}\n".encode()),
    "gemms": (read_gemms, GEMMS),
}


@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(data=st.data())
def test_any_bytes_are_read_or_refused(kind, tmp_path, data):
    read, valid = READERS[kind]
    path = tmp_path / "x.toml"
    path.write_bytes(data.draw(some_bytes(valid)))
    try:
        read(path)
    except NpuSimError:
        return


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=12) | st.tuples(st.integers(-1, 99), st.floats()).map(
    lambda pair: f"{pair[0]}={pair[1]}"), min_size=1, max_size=3))  # fmt: skip
def test_any_tokens_are_read_or_refused(texts):
    try:
        found = _tokens(texts)
    except NpuSimError:
        return
    assert all(1 <= width <= 64 and 1 <= tokens <= 5 for width, tokens in found.items())


# -- texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_shown_as_it_is(run, folder, name):
    with Path("n.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER.split(","), [name, *ROW.split(",")[1:]]])
    (case,) = read_cases(Path("n.csv"))
    assert case.name == ("=1" if name == "'=1" else name)  # as a spreadsheet reads it
    arguments = ["validate", "n.csv", "--models", "models.json", "--csv", "o.csv", "--plot",
                 "o.png"]  # fmt: skip
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    for visible in ("[/x]", "[red]a[/red]", ":smile:", r"$\frac{$"):
        if name == visible:
            assert visible in out
    code, out, _ = run(*arguments[:4], "--json")
    assert strict(out)["rows"][0]["case"] == case.name


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(name=st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(NASTY))
def test_a_name_that_is_written_is_read_back(tmp_path, name):
    (tmp_path / "c.csv").write_text(f"{HEADER}\n{ROW}\n")
    (case,) = read_cases(tmp_path / "c.csv")
    object.__setattr__(case, "name", name)
    row = Prediction(case=case, npu=name, predicted_ms=1.0, roofline_ms=1.0)
    write_rows(Validation(rows=(row,)), tmp_path / "o.csv")
    _, ((_, found),) = read_csv(tmp_path / "o.csv", "a table")
    assert (found["case"], found["npu"]) == (name, name)
    with (tmp_path / "o.csv").open(newline="", encoding="utf-8") as file:
        cells = next(iter(list(csv.reader(file))[1:]))
    assert cells[0][:1] not in tuple("=+-@\t\r")


@pytest.mark.parametrize("name", ["[x].toml", "$frac{$.toml", "_a.toml", "[b]$x$.toml"])
def test_a_file_name_is_shown_as_it_is(run, folder, name):
    Path(name).write_text(Path("a.toml").read_text().replace("n_input = 8", "n_input = 9"))
    code, out, err = run("compare", name, "a.toml", "--plot", "o.png")
    assert (code, err) == (0, "")
    assert f"A = {name}, B = a.toml" in out


def test_a_text_that_is_varied_is_no_formula(folder):
    from npu_sim.whatif.sweep import evaluate_chunk

    text = "model = 'tiny'\nnpu = 'teaching-npu'\n[vary]\nbatch = [1]\nunsupported_ops = ['=cmd']\n"
    (row,) = csv.reader([evaluate_chunk(text, 0, 1)])
    assert row[2] == "'=cmd"


# -- JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["sensitivity", "a.toml"],
        ["sensitivity", "tiny", "--npu", "teaching-npu", "--output", "2", "--share", "0.9",
         "--metric", "tpot_ms"],
        ["compare", "a.toml", "chip.toml", "--model", "tiny"],
        ["solve", "a.toml", "--target-tok-s", "1e9", "--fidelity", "roofline"],
        ["solve", "a.toml", "--target-latency-ms", "1e-12", "--vary", "n_output", "--fidelity",
         "roofline"],  # thousands of steps at tile take a minute
        ["validate", "c.csv", "--models", "models.json"],
        ["calibrate", "a100"],
    ],
)  # fmt: skip
def test_stdout_is_json_and_nothing_else(run, folder, arguments):
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    assert isinstance(strict(out), dict)
    assert out.endswith("\n")
