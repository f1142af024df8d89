"""`mu-ref` at its border: outputs that would destroy, options without effect, numbers, texts.

Most of it is refused before a model is loaded.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_lines import Run

from mu_ref.redrafter.store import load_integer_drafter
from mu_ref.settings.catalog import DATA

PARITY = Path(__file__).parents[1] / "parity" / "data" / "microsoft-mu-b"
DIGITS = 5000


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with queries `q.jsonl`, ranges `r.json`, token ids `in.npz` and a model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.jsonl").write_text('{"query": "louder", "call": "none()"}\n')
    for name in ("r.json", "in.npz", "w.safetensors"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).write_bytes((PARITY / name).read_bytes())
    return tmp_path


def assert_mistake(result: tuple[int, str, str], *texts: str) -> None:
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for text in texts:
        assert text in err


# -- outputs ---------------------------------------------------------------------------------------

# A command line, the option that writes, and the files that it reads.
WRITERS = [
    ("forward model --inputs in.npz", "--out",
     ["in.npz", "model/config.json", "model/model.safetensors"]),
    ("train --queries q.jsonl --start w.safetensors", "--out", ["q.jsonl", "w.safetensors"]),
    ("train", "--out", [DATA / "train_more.jsonl", DATA / "phrases.toml", DATA / "tokenizer.json"]),
    ("train-drafter --queries q.jsonl --start w.safetensors", "--out",
     ["q.jsonl", "w.safetensors", DATA / "mu-nano.safetensors"]),
    ("settings train-rank --queries q.jsonl --weights w.safetensors", "--out",
     ["q.jsonl", "w.safetensors", DATA / "validation.jsonl", DATA / "tokenizer.json"]),
    ("settings train-rank --start r.json", "--out", ["r.json", DATA / "mu-nano.safetensors"]),
    ("lora merge r.json --base w.safetensors", "--out", ["r.json", "w.safetensors"]),
    ("quantize --calibration q.jsonl", "--out", ["q.jsonl", DATA / "mu-nano.safetensors"]),
    ("quantize --calibration q.jsonl --check r.json", "--observed", ["q.jsonl", "r.json"]),
    ("quantize --scheme w4a16 --weights w.safetensors", "--out", ["w.safetensors"]),
    ("quantize-drafter w.safetensors --integers r.json", "--out",
     ["w.safetensors", "r.json", DATA / "train.jsonl", DATA / "mu-nano.safetensors"]),
    ("quantize-drafter", "--out",
     [DATA / "mu-nano-drafter.safetensors", DATA / "mu-nano-w8a16.safetensors"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "option", "read"),
    [(line, option, read) for line, option, files in WRITERS for read in files],
)
def test_no_output_takes_the_place_of_a_file_that_is_read(mu_ref, here, line, option, read) -> None:
    before = (here / read).read_bytes()
    assert_mistake(mu_ref(*line.split(), option, read), f"{option} must not be a file that is read")
    os.symlink(here / read, here / "link")
    assert_mistake(mu_ref(*line.split(), option, "link"), "read")
    assert (here / read).read_bytes() == before


@pytest.mark.parametrize(("line", "option"), [(line, option) for line, option, _ in WRITERS])
def test_a_place_that_cannot_be_written_is_said_before_the_work(mu_ref, here, line, option) -> None:
    assert_mistake(mu_ref(*line.split(), option, "nowhere/x"), "a folder that exists", "nowhere")
    assert_mistake(mu_ref(*line.split(), option, "model"), f"{option} must be a file", "model")
    assert_mistake(mu_ref(*line.split(), option, "in.npz/x"), "in.npz")
    for n in (220, 300):
        long = f"{'x' * n}.safetensors"
        assert_mistake(mu_ref(*line.split(), option, long), "name of at most 230 bytes")
    names = ["in.npz", "model", "q.jsonl", "r.json", "w.safetensors"]
    assert sorted(path.name for path in here.iterdir()) == names


@pytest.mark.parametrize(
    "line",
    [
        ["golden", "write", "", "--query", "x"],
        ["golden", "check", "", "port"],
        ["golden", "check", "model", ""],
        ["export", "onnx", ""],
        ["export", "onnx", "new", "--model", ""],
        ["forward", "", "--inputs", "in.npz", "--out", "new"],
        ["quantize", ""],
    ],
)
def test_an_empty_name_is_not_the_working_folder(mu_ref: Run, here: Path, line: list[str]) -> None:
    before = sorted(here.rglob("*"))
    code, out, err = mu_ref(*line)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "." not in err.split("error: ")[1].split(" must ")[0]
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("command", [["ask", "wifi"], ["settings", "eval", "q.jsonl"]])
@pytest.mark.parametrize("option", ["--rank", "--decode", "--scheme", "--executor"])
def test_an_empty_choice_is_not_the_usual_one(mu_ref, here, command, option) -> None:
    assert_mistake(mu_ref(*command, f"{option}="), "must be one of", "got ''")


@pytest.mark.parametrize("command", ["train", "train-drafter"])
def test_a_checkpoint_is_an_output_too(mu_ref: Run, here: Path, command: str) -> None:
    start = here / "x.checkpoint.safetensors"
    start.write_text("precious")
    line = (command, "--queries", "q.jsonl", "--out", "x.safetensors")
    assert_mistake(mu_ref(*line, "--start", start), "checkpoint", "must not be a file that is read")
    assert_mistake(mu_ref(*line), "exists; give --resume to go on")
    start.rename(here / "x.checkpoint.1.safetensors")
    assert_mistake(mu_ref(*line), "x.checkpoint.1.safetensors exists")
    assert_mistake(mu_ref(*line[:-1], "/dev/null", "--resume"), "--resume must have a file as")
    assert_mistake(mu_ref(*line[:-1], "y", "--resume"), "--resume must find", "y.checkpoint")


@pytest.mark.parametrize(
    ("a", "b"),
    [("--out x.json", "--observed ./x.json"), ("--plot x.png", "--out x.png"),
     ("--observed x.csv", "--encodings x.csv"), ("--observed X.CSV", "--encodings x.csv")],
)  # fmt: skip
def test_two_outputs_of_quantize_are_two_files(mu_ref: Run, here: Path, a: str, b: str) -> None:
    assert_mistake(mu_ref("quantize", *a.split(), *b.split()), "must be two files")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("quantize --plot x.docx", "--plot must end in one of .png, .svg, .pdf, got x.docx"),
        ("quantize --encodings x.txt", "--encodings must end in one of .csv, .json, got x.txt"),
        ("generate x --drafter shipped --tree x", "--tree must end in"),
        ("draft-sweep q.jsonl --plot x.jpeg --json", "--plot must end in"),
    ],
)
def test_a_format_that_cannot_be_written_is_refused_first(mu_ref, here, line, text) -> None:
    assert_mistake(mu_ref(*line.split()), text)


# -- options that would do nothing -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("ask x --beam-width 2", "--beam-width must not be given without --drafter"),
        ("ask x --beam-width 1 --draft-len 6", "--beam-width, --draft-len must not"),
        ("ask x --budget-ms 500", "--budget-ms must not be given without --npu"),
        ("ask x --npu-model mu-330m --budget-ms 1", "--npu-model, --budget-ms must not"),
        ("ask x --execute --scheme w8a8", "--execute must have an --npu"),
        ("ask x --npu teaching-npu --execute", "--execute must have an --npu and --scheme"),
        ("ask x --npu teaching-npu --scheme float32", "leave --scheme out"),
        ("ask x --npu teaching-npu --drafter shipped", "--drafter must not be given with it"),
        ("settings eval q.jsonl --worst 3 --json", "--worst must go without --json"),
        ("generate x --tree t.png", "--tree must not be given without --drafter"),
        ("generate x --draft-len 6", "--draft-len must not be given without --drafter"),
        ("train-drafter --start w.safetensors --d-exit 8", "--d-exit must not be given with"),
        ("train-drafter --start w.safetensors --blocks 0 --no-rnn", "--blocks, --rnn/--no-rnn"),
        ("train-drafter --start w.safetensors --rnn", "--rnn/--no-rnn must not"),
        ("quantize --aimet 2.0.0", "--aimet must not be given without --encodings FILE.json"),
        ("quantize --aimet 2.0.0 --encodings e.csv", "--aimet must not"),
        ("quantize --aimet 3 --encodings e.json", "--aimet must be one of 1.0.0, 2.0.0"),
        ("quantize --calibration r.json --examples 9", "--examples must not be given with a --cal"),
        ("quantize --calibration r.json --plot p.png --worst 0", "--plot, --worst must not"),
        ("quantize --calibration r.json --smooth 0", "--smooth must not"),
        ("quantize --calibration r.json --observed o.json", "--observed must not"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(mu_ref, here, line, names) -> None:
    assert_mistake(mu_ref(*line.split()), names)


IGNORED_BY_INT4 = {
    "--calibration": "q.jsonl", "--examples": 256, "--observer": "minmax",
    "--rounding": "tflite_single", "--smooth": 0, "--bits": "head=16", "--observed": "o.json",
    "--plot": "p.png", "--encodings": "e.csv", "--aimet": "1.0.0", "--worst": 12,
}  # fmt: skip


@pytest.mark.parametrize("option", IGNORED_BY_INT4)
def test_int4_weights_take_no_option_of_integers(mu_ref: Run, here: Path, option: str) -> None:
    result = mu_ref("quantize", "--scheme", "w4a16", option, IGNORED_BY_INT4[option])
    assert_mistake(result, f"{option} must not be given with --scheme w4a16")


def test_all_options_without_effect_are_named_at_once(mu_ref: Run, here: Path) -> None:
    every = [text for pair in IGNORED_BY_INT4.items() for text in pair]
    assert_mistake(mu_ref("quantize", "--scheme", "w4a16", *every), ", ".join(IGNORED_BY_INT4))


# -- numbers ---------------------------------------------------------------------------------------

WHOLE = {
    "forward model --inputs in.npz --out out": ["--max-new-tokens"],
    "train --out x": ["--epochs", "--batch-size", "--seed", "--checkpoint-steps"],
    "train-drafter --out x": [
        "--epochs", "--batch-size", "--seed", "--checkpoint-steps", "--draft-len", "--d-exit",
        "--blocks", "--limit",
    ],
    "quantize": ["--examples", "--worst"],
    "quantize-drafter --out x": ["--examples", "--draft-len"],
    "draft-sweep q.jsonl": ["--beam-width", "--draft-len", "--limit"],
    "settings eval q.jsonl": ["--worst"],
    "ask x --drafter shipped": ["--beam-width", "--draft-len"],
    "generate x --drafter shipped": ["--beam-width", "--draft-len"],
}  # fmt: skip
REAL = {
    "train --out x": "--rate", "train-drafter --out x": "--rate", "quantize": "--smooth",
    "ask x --npu teaching-npu": "--budget-ms",
}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "option"), [(line, option) for line, options in WHOLE.items() for option in options]
)
@pytest.mark.parametrize("value", [-1, 10**12, 10**30])
def test_whole_numbers_have_a_floor_and_a_ceiling(mu_ref, here, line, option, value) -> None:
    if option == "--seed" and value == 10**12:
        value = 2**63
    assert_mistake(mu_ref(*line.split(), option, value), f"{option} must be a whole number from")
    for text in ("1.5", "nan", "", "9" * DIGITS):
        code, out, err = mu_ref(*line.split(), option, text)
        assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(("line", "option"), REAL.items())
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-5", "1e300"])
def test_real_numbers_are_numbers_in_a_range(mu_ref, here, line, option, value) -> None:
    assert_mistake(mu_ref(*line.split(), option, value), f"{option} must be a number")


# -- text and JSON ---------------------------------------------------------------------------------

TEXTS = ["[/x]", "[bold]y", ":smile:", r"$\frac{$", "\x1b[31mred", "a\nb", "caf\udce9 louder", "[/"]


@pytest.mark.parametrize("text", TEXTS)
def test_file_names_are_shown_as_they_are(mu_ref: Run, here: Path, text: str) -> None:
    name = text.replace("/", "|")
    for line in (["settings", "eval", name], ["ask", "x", "--weights", name],
                 ["train", "--queries", name, "--out", "x"], ["draft-sweep", name],
                 ["quantize", "--calibration", name]):  # fmt: skip
        code, out, err = mu_ref(*line)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "\x1b" not in err


@pytest.mark.parametrize("text", TEXTS)
def test_a_query_is_answered_whatever_it_holds(mu_ref: Run, text: str) -> None:
    code, out, err = mu_ref("ask", "--json", "--", text)
    assert (code, err) == (0, "")
    assert json.loads(out)["call"]
    code, out, err = mu_ref("ask", "--", text)
    assert (code, err) == (0, "")
    assert "\x1b" not in out


@pytest.mark.parametrize(
    "line",
    ["ask louder", "ask ?!", "ask louder --npu teaching-npu", "ask ?! --npu teaching-npu",
     "info mu-330m", "settings eval q.jsonl",
     "draft-sweep q.jsonl --beam-width 1 --beam-width 2 --draft-len 1"],
)  # fmt: skip
def test_json_is_one_document_without_nan(mu_ref: Run, here: Path, line: str) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    code, out, _ = mu_ref(*line.split(), "--json")
    assert code == 0
    data = json.loads(out, parse_constant=refuse)
    assert out.count("\n") == 1
    if "?!" in line:
        assert data["tokens_per_s"] is None
        assert data.get("npu") is None
    if "draft-sweep" in line:
        assert [(p["beam_width"], p["draft_len"]) for p in data] == [(1, 1), (2, 1)]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_difference_found_is_exit_code_one(mu_ref, here, monkeypatch, more) -> None:
    from mu_ref.settings import draft_sweep

    real = draft_sweep.sweep

    def other(*given: object) -> list[draft_sweep.Point]:
        return [replace(point, same=0) for point in real(*given)]  # type: ignore[arg-type]

    monkeypatch.setattr(draft_sweep, "sweep", other)
    line = ["draft-sweep", "q.jsonl", "--beam-width", 1, "--draft-len", 1]
    code, out, err = mu_ref(*line, *more)
    assert code == 1
    assert "output must be the same with and without drafts" in err
    assert not more or json.loads(out)[0]["same"] == 0
    found = {"products": 1, "pieces": 1, "tokens": [7], "same": False, "latency_ms": 1.0}
    monkeypatch.setattr(sys.modules["mu_ref.cli.ask"], "_execute", lambda *_: found)
    line = ["ask", "louder", "--npu", "teaching-npu", "--scheme", "w8a8", "--execute"]
    code, out, _ = mu_ref(*line, *more)
    assert code == 1
    assert not more or json.loads(out)["executed"]["same"] is False


# -- what options do -------------------------------------------------------------------------------


def test_the_scheme_is_what_the_npu_is_priced_for(mu_ref: Run) -> None:
    """Bytes of the weights follow from their widths: the traffic of w4a16 is about half."""

    def facts(*scheme: object) -> dict[str, float]:
        line = ("ask", "louder", "--npu", "hexagon-x-elite", "--npu-model", "mu-330m", "--json")
        return dict(json.loads(mu_ref(*line, *scheme)[1])["npu"])

    default, wide, narrow = facts(), facts("--scheme", "w8a16"), facts("--scheme", "w8a8")
    assert default == wide
    assert narrow["latency_ms"] < wide["latency_ms"]
    out = mu_ref("ask", "louder", "--npu", "hexagon-x-elite", "--scheme", "w8a8")[1]
    assert "mu-330m on hexagon-x-elite, simulated, W8A8:" in out
    assert "reference w8a8" in out
    assert "simulated, W8A16:" in mu_ref("ask", "louder", "--npu", "hexagon-x-elite")[1]


def test_int4_weights_are_priced_and_drafted_for_on_both_executors(mu_ref: Run, here: Path) -> None:
    path = here / "w4.safetensors"
    assert mu_ref("quantize", "--scheme", "w4a16", "--out", path)[0] == 0
    four = ("--scheme", "w4a16", "--weights", path)
    npu = ("--npu", "hexagon-x-elite", "--json")
    bytes_4 = json.loads(mu_ref("ask", "louder", *four, *npu)[1])["npu"]["dram_bytes"]
    bytes_8 = json.loads(mu_ref("ask", "louder", *npu)[1])["npu"]["dram_bytes"]
    assert 0.5 < bytes_4 / bytes_8 < 0.75  # head and caches keep their widths
    lines = (DATA / "validation.jsonl").read_text(encoding="utf-8").splitlines()[::300]
    (here / "q.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for executor in ("fast", "reference"):
        line = ("draft-sweep", "q.jsonl", *four, "--executor", executor, "--beam-width", 2)
        code, out, _ = mu_ref(*line, "--draft-len", 4, "--json")
        (point,) = json.loads(out)
        assert code == 0
        assert point["same"] == point["n_queries"] == len(lines)
        assert point["mean_accepted"] > 1


@pytest.mark.parametrize("scheme", ["w8a16", "w8a8"])
def test_the_name_of_a_quantized_drafter_follows_its_scheme(mu_ref, here, scheme) -> None:
    code, out, _ = mu_ref("quantize-drafter", "--scheme", scheme, "--examples", 1)
    assert (code, out) == (0, f"wrote runs/mu-nano-drafter-{scheme}.safetensors\n")
    path = here / "runs" / f"mu-nano-drafter-{scheme}.safetensors"
    assert load_integer_drafter(path).scheme == scheme
    model = DATA / "mu-nano-w8a16.safetensors"
    if scheme == "w8a8":
        assert_mistake(mu_ref("quantize-drafter", "--scheme", scheme, "--integers", model), "w8a8")


# -- disks, devices, pictures ----------------------------------------------------------------------


@pytest.mark.parametrize("place", ["/dev/full", "a link to it"])
def test_a_full_disk_is_one_line(mu_ref: Run, here: Path, place: str) -> None:
    if place != "/dev/full":
        place = str(here / "full.safetensors")
        os.symlink("/dev/full", place)
    assert_mistake(mu_ref("quantize", "--scheme", "w4a16", "--out", place), "No space left")
    assert not any(path.name.endswith(".part") for path in here.iterdir())


def test_devices_are_written_through(mu_ref: Run, here: Path) -> None:
    assert mu_ref("quantize", "--scheme", "w4a16", "--out", "/dev/null") == (
        0, "", ("wrote /dev/null\nverdict: w4a16 not judged: no queries to judge by; "
        "give --check FILE\n"),
    )  # fmt: skip
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("ending", ["svg", "PNG"])
def test_pictures_show_texts_as_they_are(mu_ref: Run, here: Path, ending: str) -> None:
    text = "turn on $\\frac{$ [/x] \x1b[31m \n 🙂 bluetooth"
    code, _, err = mu_ref("generate", text, "--drafter", "shipped", "--tree", f"t.{ending}")
    assert (code, err) == (0, "")
    start = {"svg": b"<?xml", "PNG": b"\x89PNG"}[ending]
    assert (here / f"t.{ending}").read_bytes().startswith(start)
