"""`mu-ref quantize` and `--scheme`, as a user meets them."""

import json
from pathlib import Path

import pytest
from command_lines import Run

from mu_ref.integers.store import load_integers
from mu_ref.settings.catalog import DATA

QUERY = "my eyes hurt at night, make the screen warmer"


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Twelve labelled queries."""
    lines = (DATA / "train.jsonl").read_text(encoding="utf-8").splitlines()[::1000]
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["w8a16", "w8a8"])
def test_the_shipped_integer_models_answer(mu_ref: Run, scheme: str) -> None:
    code, out, _ = mu_ref("ask", QUERY, "--scheme", scheme, "--json")
    assert (code, json.loads(out)["call"]) == (0, "set(display.night_light, on)")


def test_the_shipped_integer_models_are_made_of_the_shipped_weights() -> None:
    import numpy as np

    from mu_ref.weights import load_weights

    _, floats = load_weights(DATA / "mu-nano.safetensors")
    name = "encoder.0.mlp.up"
    for scheme in ("w8a16", "w8a8"):
        model = load_integers(DATA / f"mu-nano-{scheme}.safetensors")
        real = model.weight(name) * model.weight_scale(name)[:, None]
        error = np.abs(real - floats[f"{name}.weight"].astype(np.float64))
        assert (error <= 0.5001 * model.weight_scale(name)[:, None]).all()


def test_quantize_writes_everything_it_is_asked_for(mu_ref: Run, few: Path, tmp_path: Path) -> None:
    options = ["--scheme", "w8a8", "--calibration", few, "--bits", "decoder.*.scores=16"]
    for option, name in (
        ("--out", "w.safetensors"), ("--observed", "o.json"), ("--plot", "p.png"),
        ("--encodings", "e.csv"),
    ):  # fmt: skip
        options += [option, tmp_path / name]
    code, out, _ = mu_ref("quantize", "mu-nano", *options, "--check", few, "--worst", 3)
    assert code == 0
    assert "3 of 232 sites" in out
    assert "same tokens" in out
    model = load_integers(tmp_path / "w.safetensors")
    assert model.encoding("decoder.0.self_attention.scores").bits == 16
    assert model.encoding("encoder.0.self_attention.scores").bits == 8
    assert model.notes["calibration"] == "few.jsonl, 13 queries"
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
    table = (tmp_path / "e.csv").read_text().splitlines()
    assert any(line.startswith("head,activation,,16,") for line in table)
    code, out, _ = mu_ref("settings", "eval", few, "--scheme", "w8a8", "--weights",
                          tmp_path / "w.safetensors", "--json")  # fmt: skip
    assert (code, json.loads(out)["n"]) == (0, 13)
    # the ranges alone give the same model again
    again = tmp_path / "again.safetensors"
    same = ["--scheme", "w8a8", "--bits", "decoder.*.scores=16", "--out", again]
    code, _, _ = mu_ref("quantize", "mu-nano", "--calibration", tmp_path / "o.json", *same)
    assert (code, load_integers(again).activations) == (0, model.activations)


def test_int4_weights_are_written_and_answer(mu_ref: Run, tmp_path: Path) -> None:
    path = tmp_path / "w4.safetensors"
    assert mu_ref("quantize", "mu-nano", "--scheme", "w4a16", "--out", path)[0] == 0
    assert path.stat().st_size < 3.3e6
    code, out, _ = mu_ref("ask", QUERY, "--scheme", "w4a16", "--weights", path, "--json")
    assert (code, json.loads(out)["call"]) == (0, "set(display.night_light, on)")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--scheme", "w9"], "must be one of w8a16, w8a8, w4a16; got 'w9'"),
        (["--observer", "best"], "must be one of minmax, percentile, mse"),
        (["--bits", "head=12"], "must be PATTERN=8 or PATTERN=16"),
        (["--calibration", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--check", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--smooth", "3"], "must be a number from 0 to 1"),
        (["--weights", "pyproject.toml"], "must be a whole safetensors file"),
    ],
)
def test_mistakes_are_one_line(mu_ref: Run, options: list[str], text: str) -> None:
    code, out, err = mu_ref("quantize", "mu-nano", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert text in err


def test_a_wrong_calibration_file_leaves_nothing_behind(mu_ref: Run, tmp_path: Path) -> None:
    for name, text in (
        ("empty.jsonl", ""), ("empty.json", ""), ("other.json", '{"a": {"op": "add"}}'),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        code, _, err = mu_ref("quantize", "mu-nano", "--calibration", tmp_path / name,
                              "--out", tmp_path / "w.safetensors")  # fmt: skip
        assert (code, err.count("\n")) == (2, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.json", "empty.jsonl", "other.json"]


def test_a_file_of_another_scheme_is_refused(mu_ref: Run) -> None:
    path = DATA / "mu-nano-w8a8.safetensors"
    code, _, err = mu_ref("ask", QUERY, "--scheme", "w8a16", "--weights", path)
    assert (code, "must hold w8a16 weights, it holds w8a8" in err) == (2, True)
    code, _, err = mu_ref("ask", QUERY, "--weights", path)
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = mu_ref("ask", QUERY, "--scheme", "w4a16")
    assert (code, "--weights FILE reads them" in err) == (2, True)
