"""Drafting at the command line: the same answers, statistics, and one line about a mistake."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_lines import Run

from mu_ref.redrafter.config import DrafterConfig, initial_drafter
from mu_ref.redrafter.store import load_drafter, load_integer_drafter, save_drafter
from mu_ref.settings.catalog import DATA

QUERIES = ["turn on bluetooth", "make it louder", "my eyes hurt at night"]


@pytest.fixture(scope="module")
def random_drafter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drafter for mu-nano that knows nothing."""
    config = DrafterConfig(d_model=192, vocab_size=1536, d_exit=24, n_blocks=1, rnn=True)
    path = tmp_path_factory.mktemp("drafter") / "random.safetensors"
    save_drafter(path, config, initial_drafter(config, np.random.default_rng(0)), {})
    return path


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    path = tmp_path / "queries.jsonl"
    lines = [json.dumps({"query": query, "call": "none()"}) for query in QUERIES]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def assert_mistake(result: tuple[int, str, str], *texts: str) -> None:
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for text in texts:
        assert text in err


@pytest.mark.parametrize("scheme", ["float32", "w8a16", "w8a8"])
def test_ask_gives_the_same_call_with_the_shipped_drafter(mu_ref: Run, scheme: str) -> None:
    options = ("--scheme", scheme, "--json")
    for query in QUERIES:
        plain = json.loads(mu_ref("ask", query, *options)[1])
        code, out, _ = mu_ref("ask", query, *options, "--drafter", "shipped", "--beam-width", 2)
        drafted = json.loads(out)
        assert code == 0
        for key in ("call", "output_tokens"):
            assert drafted[key] == plain[key]


def test_generate_says_how_drafting_went(mu_ref: Run) -> None:
    code, out, _ = mu_ref("generate", QUERIES[0], "--drafter", "shipped", "--draft-len", 6)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "set(bluetooth, on)"
    for word in ("tokens per step", "drafted tokens kept", "nodes after packing", "share"):
        assert any(line.strip().startswith(word) or word in line for line in lines)
    n_tokens, n_passes = (int(word) for word in lines[1].split() if word.isdecimal())
    assert n_passes < n_tokens  # a trained drafter saves passes
    assert mu_ref("generate", QUERIES[0])[1].splitlines()[0] == lines[0]


def test_a_random_drafter_changes_no_answer(mu_ref: Run, random_drafter: Path) -> None:
    for query in QUERIES:
        plain = mu_ref("generate", query)[1].splitlines()[0]
        drafted = mu_ref("generate", query, "--drafter", random_drafter, "--beam-width", 3)[1]
        assert drafted.splitlines()[0] == plain


def test_a_sweep_measures_every_width_and_length(
    mu_ref: Run, random_drafter: Path, queries: Path, tmp_path: Path
) -> None:
    options = ("--drafter", random_drafter, "--beam-width", 1, "--beam-width", 3,
               "--draft-len", 2, "--plot", tmp_path / "sweep.png")  # fmt: skip
    code, out, _ = mu_ref("draft-sweep", queries, *options, "--json")
    assert code == 0
    points = json.loads(out)
    assert [(p["beam_width"], p["draft_len"]) for p in points] == [(1, 2), (3, 2)]
    for point in points:
        assert point["same"] == point["n_queries"] == 3
        assert 1 <= point["tokens_per_step"] <= point["cap"] <= 3
        assert point["nodes_after"] <= point["nodes_before"] == 3 * point["beam_width"]
        assert point["plain_ms"] > 0
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = mu_ref("draft-sweep", queries, *options[:-2])
    assert code == 0
    assert "fastest: width" in out
    assert "these short answers allow" in out


def test_a_drafter_is_trained_and_quantized(mu_ref: Run, tmp_path: Path, queries: Path) -> None:
    out, integers = tmp_path / "new.safetensors", tmp_path / "new-w8a8.safetensors"
    code, text, _ = mu_ref(
        "train-drafter", "mu-nano", "--queries", queries, "--out", out, "--epochs", 2,
        "--draft-len", 3, "--d-exit", 16, "--batch-size", 8, "--no-rnn",
    )  # fmt: skip
    assert code == 0
    assert "3 answers" in text
    config, _ = load_drafter(out)
    assert config == DrafterConfig(d_model=192, vocab_size=1536, d_exit=16, n_blocks=1, rnn=False)
    code, _, _ = mu_ref(
        "quantize-drafter", out, "--scheme", "w8a8", "--out", integers, "--examples", 4
    )
    assert code == 0
    assert load_integer_drafter(integers).drafter == config
    plain = mu_ref("generate", QUERIES[1], "--scheme", "w8a8")[1].splitlines()[0]
    drafted = mu_ref("generate", QUERIES[1], "--scheme", "w8a8", "--drafter", integers)[1]
    assert drafted.splitlines()[0] == plain


def test_mistakes_are_named(mu_ref: Run, random_drafter: Path, queries: Path) -> None:
    model = DATA / "mu-nano.safetensors"
    assert_mistake(mu_ref("generate", "x", "--drafter", model), "must be a drafter")
    assert_mistake(mu_ref("quantize-drafter", "--weights", model), "must come with --integers")
    assert_mistake(
        mu_ref("generate", "x", "--drafter", random_drafter, "--scheme", "w8a16"),
        "must be an integer drafter",
    )
    assert_mistake(mu_ref("generate", "x", "--drafter", "nowhere"), "nowhere")
    assert_mistake(mu_ref("train-drafter", "mu-330m"), "mu-330m must be given --weights")
    code, _, err = mu_ref("train-drafter", "--queries", queries, "--batch-size", 5000)
    assert (code, err.count("\n")) == (2, 1)
    assert "training must see at least 5000 positions, got at most 93 of 3 queries" in err
    queries.write_text('{"query": "?!", "call": "none()"}\n', encoding="utf-8")
    assert_mistake(mu_ref("draft-sweep", queries), "must hold queries")
