"""`mu-ref` as a user meets it: exit code, standard output, and one line about a mistake."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_lines import Run

from mu_ref.presets import PRESETS, tiny
from mu_ref.settings.catalog import DATA
from mu_ref.tokenizer import Tokenizer
from mu_ref.weights import initial_weights, save_weights

PARITY = Path(__file__).parents[1] / "parity" / "data" / "microsoft-mu-b"


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of random weights with the shipped tokenizer's vocabulary."""
    vocab_size = Tokenizer.load(DATA / "tokenizer.json").vocab_size
    config = replace(
        tiny(), name="stand-in", vocab_size=vocab_size, encoder_vocab_size=vocab_size, max_len=64
    )
    path = tmp_path_factory.mktemp("weights") / "stand-in.safetensors"
    save_weights(path, config, initial_weights(config, np.random.default_rng(0), 0.2))
    return path


def assert_mistake(result: tuple[int, str, str], *texts: str) -> None:
    """One line on stderr, no traceback, exit code 2, nothing on stdout."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for text in texts:
        assert text in err


# -- info ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_info_prints_every_preset(mu_ref: Run, name: str) -> None:
    code, out, err = mu_ref("info", name)
    assert (code, err) == (0, "")
    for text in (name, "parameters", "float32", "int8", "norm_placement", "tied_head", "vocab"):
        assert text in out


def test_info_of_mu_prints_the_published_count_and_share(mu_ref: Run) -> None:
    _, out, _ = mu_ref("info", "mu-330m")
    assert "331,835,904" in out
    assert "67.7 %" in out
    assert "1,327.3 MB" in out  # 4 bytes each
    assert "165.9 MB" in out  # half a byte each
    assert "332,042,240" in mu_ref("info", "microsoft-mu-text2text")[1]
    assert "329,975,808" in mu_ref("info", "decoder-only-330m")[1]


def test_info_as_json_is_json_and_nothing_else(mu_ref: Run) -> None:
    code, out, err = mu_ref("info", "mu-330m", "--json")
    data = json.loads(out)
    assert (code, err, data["parameters"]) == (0, "", 331_835_904)
    assert data["config"]["encoder"]["n_layers"] == 32
    assert round(data["share"]["encoder"], 3) == 0.677
    assert data["origins"]["tied_head"] == "fact"


def test_an_unknown_preset_lists_those_that_exist(mu_ref: Run) -> None:
    assert_mistake(mu_ref("info", "mu-7b"), "mu-7b", *PRESETS)


def test_wrong_command_lines_are_mistakes(mu_ref: Run) -> None:
    assert_mistake(mu_ref("info"), "PRESET")
    assert_mistake(mu_ref("inform", "tiny"), "inform")
    assert_mistake(mu_ref("info", "tiny", "--colour"), "--colour")


def test_without_a_command_the_help_is_shown(mu_ref: Run) -> None:
    _, out, err = mu_ref()
    for command in ("ask", "info", "forward", "train", "settings"):
        assert command in out + err


# -- forward ---------------------------------------------------------------------------------------


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    with np.load(PARITY / "expected.npz") as file:
        ids = {name: file[name] for name in ("encoder_input_ids", "decoder_input_ids")}
    np.savez(tmp_path / "in.npz", **ids)
    return tmp_path / "in.npz"


def changed(path: Path, **arrays: object) -> Path:
    with np.load(path) as file:
        old = {name: file[name] for name in file.files}
    new = {name: a for name, a in (old | arrays).items() if a is not None}
    np.savez(path, **new)
    return path


def forward(mu_ref: Run, folder: Path, inputs: Path, *more: object) -> tuple[int, str, str]:
    return mu_ref("forward", folder, "--inputs", inputs, "--out", inputs.parent / "out.npz", *more)


def test_forward_writes_three_arrays(mu_ref: Run, inputs: Path) -> None:
    code, out, err = forward(mu_ref, PARITY, inputs, "--max-new-tokens", 3)
    assert (code, err) == (0, "")
    assert "greedy_ids [3, 4]" in out
    with np.load(inputs.parent / "out.npz") as file:
        assert sorted(file.files) == ["encoder_output", "greedy_ids", "logits"]
        assert file["logits"].dtype == np.float32
        assert (file["greedy_ids"][:, 0] == 1).all()
    assert sorted(p.name for p in inputs.parent.iterdir()) == ["in.npz", "out.npz"]


def test_forward_without_new_tokens_writes_the_start_token(mu_ref: Run, inputs: Path) -> None:
    assert forward(mu_ref, PARITY, inputs, "--max-new-tokens", 0)[0] == 0
    with np.load(inputs.parent / "out.npz") as file:
        assert file["greedy_ids"].tolist() == [[1], [1], [1]]


def test_a_wrong_dtype_lists_the_right_ones(mu_ref: Run, inputs: Path) -> None:
    result = forward(mu_ref, PARITY, inputs, "--dtype", "bfloat16")
    assert_mistake(result, "float64", "float32", "bfloat16")


IDS = np.full((3, 2), 5)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"encoder_input_ids": None}, "must hold encoder_input_ids"),
        ({"decoder_input_ids": None}, "must hold decoder_input_ids"),
        ({"encoder_input_ids": IDS + 1000}, "must lie in [0, 131)"),
        ({"decoder_input_ids": IDS - 6}, "must lie in [0, 131)"),
        ({"encoder_input_ids": IDS * 1.0}, "must be integers"),
        ({"encoder_input_ids": IDS[0]}, "must be integers [batch, n_tok]"),
        ({"encoder_input_ids": IDS[:, :0]}, "must be integers [batch, n_tok]"),
        ({"encoder_input_ids": IDS[:2]}, "same number of rows"),
        ({"encoder_input_ids": IDS * 0}, "not masked"),
        ({"encoder_attention_mask": np.ones((3, 1), int)}, "encoder_attention_mask"),
        ({"encoder_attention_mask": np.zeros((3, 17), int)}, "not masked"),
        ({"encoder_attention_mask": np.full((3, 17), "yes")}, "encoder_attention_mask"),
    ],
)
def test_wrong_arrays_are_mistakes_and_nothing_is_written(mu_ref, inputs, arrays, text) -> None:
    assert_mistake(forward(mu_ref, PARITY, changed(inputs, **arrays)), text)
    assert [p.name for p in inputs.parent.iterdir()] == ["in.npz"]


def test_a_decoder_row_of_padding_alone_is_no_crash(mu_ref: Run, inputs: Path) -> None:
    changed(inputs, decoder_input_ids=IDS * 0)
    code, _, err = forward(mu_ref, PARITY, inputs)
    assert code in (0, 2)
    assert "Traceback" not in err


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 half a zip"])
def test_a_bad_npz_is_a_mistake(mu_ref: Run, inputs: Path, content: bytes) -> None:
    inputs.write_bytes(content)
    assert_mistake(forward(mu_ref, PARITY, inputs), "in.npz", "npz")
    assert [p.name for p in inputs.parent.iterdir()] == ["in.npz"]


def test_missing_files_and_folders_are_mistakes(mu_ref: Run, inputs: Path) -> None:
    assert_mistake(forward(mu_ref, inputs.parent / "nowhere", inputs), "nowhere", "config.json")
    inputs.unlink()
    assert_mistake(forward(mu_ref, PARITY, inputs), "in.npz", "no such file")
    assert list(inputs.parent.iterdir()) == []


def test_an_output_folder_that_is_not_there_is_a_mistake(mu_ref: Run, inputs: Path) -> None:
    out = inputs.parent / "nowhere" / "out.npz"
    assert_mistake(mu_ref("forward", PARITY, "--inputs", inputs, "--out", out), "nowhere")


# -- ask -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", " ", "\n\t", "?!", "🙂🙃", "🙂" * 5000])
def test_a_query_without_a_word_is_answered_none_and_said_so(mu_ref, stand_in, query) -> None:
    code, out, err = mu_ref("ask", query, "--weights", stand_in)
    assert (code, err) == (0, "")
    assert out.startswith("none()\n")
    assert "no letter or digit" in out


@pytest.mark.parametrize(
    "query",
    ["bluetooth on", "🙂 louder 🙃", "make it\nwarmer", "громче", "音量を上げて", "</s>", "[bold]x",
     "a\x00b", "ﬁ" * 3, "7", "-- --"],
)  # fmt: skip
def test_any_query_is_answered(mu_ref: Run, stand_in: Path, query: str) -> None:
    code, out, err = mu_ref("ask", "--weights", stand_in, "--json", "--", query)
    data = json.loads(out)
    assert (code, err) == (0, "")
    assert (data["call"] == "none()") == (data["uri"] is None)
    assert data["call"] == "none()" or data["complaint"] is None
    assert data["call"].endswith(")")
    code, out, err = mu_ref("ask", "--weights", stand_in, "--", query)
    assert (code, err) == (0, "")
    assert out.startswith(data["call"])


def test_a_query_of_ten_thousand_characters_is_a_mistake(mu_ref: Run, stand_in: Path) -> None:
    result = mu_ref("ask", "louder " * 1430, "--weights", stand_in)
    assert_mistake(result, "at most 64 tokens", "10010 characters")


def test_asking_tells_tokens_and_speed(mu_ref: Run, stand_in: Path) -> None:
    data = json.loads(mu_ref("ask", "bluetooth on", "--weights", stand_in, "--json")[1])
    assert data["input_tokens"] >= 3  # two words and eos
    assert 1 <= data["output_tokens"] <= 32
    assert data["tokens_per_s"] > 0
    _, out, _ = mu_ref("ask", "bluetooth on", "--weights", stand_in)
    assert f"{data['input_tokens']} tokens in, {data['output_tokens']} out" in out
    assert "tokens/s" in out


def test_asking_with_an_npu_prices_the_answer(mu_ref: Run, stand_in: Path) -> None:
    arguments = ["ask", "bluetooth on", "--weights", stand_in, "--npu", "hexagon-x-elite"]
    code, out, err = mu_ref(*arguments)
    assert (code, err) == (0, "")
    for text in ("mu-330m on hexagon-x-elite", "simulated", "first token", "DRAM", "budget"):
        assert text in out
    assert json.loads(mu_ref(*arguments, "--json")[1])["npu"]["npu"] == "hexagon-x-elite"


def test_unknown_npu_and_shape_list_those_that_exist(mu_ref: Run, stand_in: Path) -> None:
    ask = ["ask", "bluetooth on", "--weights", stand_in]
    assert_mistake(mu_ref(*ask, "--npu", "abacus"), "abacus", "hexagon-x-elite")
    assert_mistake(mu_ref(*ask, "--npu-model", "mu-7b"), "mu-7b", *PRESETS)


def test_weights_that_cannot_be_used_are_a_mistake(mu_ref: Run, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    assert_mistake(mu_ref("ask", "louder", "--weights", path), "w.safetensors", "no such file")
    path.write_text("hello")
    assert_mistake(mu_ref("ask", "louder", "--weights", path), "w.safetensors")
    save_weights(path, tiny(), initial_weights(tiny(), np.random.default_rng(0)))
    assert_mistake(mu_ref("ask", "louder", "--weights", path), "shipped tokenizer", "tiny with 61")


def test_the_shipped_model_answers_the_query_of_the_readme(mu_ref: Run) -> None:
    code, out, err = mu_ref("ask", "my eyes hurt at night, make the screen warmer")
    assert (code, err) == (0, "")
    assert out.startswith("set(display.night_light, on)\n")
    assert "ms-settings:nightlight" in out


# -- settings eval ---------------------------------------------------------------------------------


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    pairs = [
        ("bluetooth on", "set(bluetooth, on)"),
        ("louder", "increase(sound.volume)"),
        ("", "none()"),  # without a letter: none() unread, so this one is right
        ("what is love", "none()"),
    ]
    path = tmp_path / "queries.jsonl"
    path.write_text("".join(json.dumps({"query": q, "call": c}) + "\n" for q, c in pairs))
    return path


def test_eval_as_json_has_six_scores_and_what_doubt_is_worth(mu_ref, stand_in, queries) -> None:
    code, out, _ = mu_ref("settings", "eval", queries, "--weights", stand_in, "--json")
    data = json.loads(out)
    assert code == 0
    assert set(data) == {
        "n", "exact", "setting_id", "parse", "none_recall", "none_precision",
        "doubtful", "exact_sure", "exact_doubtful", "calibration_error",
    }  # fmt: skip
    assert data["n"] == 4
    assert data["exact"] >= 0.25
    assert data["none_recall"] >= 0.5
    assert all(0 <= data[name] <= 1 for name in data.keys() - {"n"})


def test_eval_lists_confusions(mu_ref: Run, stand_in: Path, queries: Path) -> None:
    code, out, _ = mu_ref("settings", "eval", queries, "--weights", stand_in)
    assert code == 0
    for text in ("exact", "none_recall", "expected -> answered", "bluetooth -> "):
        assert text in out
    _, out, _ = mu_ref("settings", "eval", queries, "--weights", stand_in, "--worst", 0)
    assert "expected ->" not in out


def test_eval_mistakes(mu_ref: Run, stand_in: Path, queries: Path) -> None:
    run = ["settings", "eval", queries, "--weights", stand_in]
    assert_mistake(mu_ref(*run, "--scheme", "w1a1"), "scheme", "w1a1", "float32")
    assert_mistake(mu_ref("settings", "eval", queries.parent / "no.jsonl", *run[3:]), "no.jsonl")
    queries.write_text('{"query": "louder"}\n')
    assert_mistake(mu_ref(*run), "queries.jsonl:1", "'call'")
    queries.write_text(json.dumps({"query": "louder " * 100, "call": "none()"}))
    code, out, err = mu_ref(*run)
    assert (code, out) == (2, "")
    assert "at most 64 tokens" in err


# -- train -----------------------------------------------------------------------------------------


def test_training_mistakes_are_told_before_any_work(mu_ref: Run, tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    assert_mistake(mu_ref("train", "mu-7b", "--out", out), *PRESETS)
    assert_mistake(mu_ref("train", "tiny", "--out", out), "tokenizer", "mu-nano")
    assert_mistake(mu_ref("train", "--out", out, "--epochs", 0), "epochs")
    assert_mistake(mu_ref("train", "--out", out, "--rate", 0), "--rate must be a number above 0")
    assert_mistake(mu_ref("train", "--out", out, "--resume"), "checkpoint.safetensors")
    assert list(tmp_path.iterdir()) == []
