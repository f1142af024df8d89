"""The port in C computes every golden integer; each planted bug is named at the right site."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import tiny
from golden.__main__ import HERE
from golden.tiny import model_file
from hypothesis import given, settings
from hypothesis import strategies as st
from ports.porting import COMPILER, SANITIZED, SOURCES, ask, build, run
from strategies import model_configs, quantized, random_weights, rows_of, seeds

from mu_ref.border.files import DATA
from mu_ref.cli.golden import report
from mu_ref.executors import shipped_weights
from mu_ref.golden.check import Outcome
from mu_ref.golden.write import Tokens, write_run
from mu_ref.integers.store import load_integers, save_integers
from mu_ref.integers.tables import PATH, c_header
from mu_ref.redrafter.beams import Search
from mu_ref.redrafter.config import initial_drafter
from mu_ref.redrafter.store import save_integer_drafter
from mu_ref.settings.agent import load_agent
from mu_ref.settings.queries.labelled import evenly_spread, read_queries

needs_a_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler here")
FOLDERS = ("tiny-w8a16", "tiny-w8a8", "tiny-drafts-w8a16", "tiny-drafts-w8a8", "mu-nano-w8a16")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("port") / "plain")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("port") / "sanitized", SANITIZED)


def compared(program: Path, name: str, folder: Path) -> Outcome:
    """Run the port on a shipped golden folder."""
    scheme = name.rsplit("-", 1)[1]
    if name.startswith("mu-nano"):
        return run(program, HERE / name, shipped_weights(scheme), None, folder)
    drafter = model_file(scheme, drafter=True) if "drafts" in name else None
    return run(program, HERE / name, model_file(scheme), drafter, folder)


# -- the port is right -----------------------------------------------------------------------------


def test_it_is_short_and_knows_no_float() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(SOURCES.glob("*.[ch]")))
    assert text.count("\n") <= 800
    for word in ("float", "double", "math.h", "0."):
        assert word not in text.replace("floating-point", "").replace("in floats, on", "")


@needs_a_compiler
@pytest.mark.parametrize("name", FOLDERS)
def test_it_computes_every_integer_of_the_golden_folders(
    name: str, program: Path, sanitized: Path, tmp_path: Path
) -> None:
    for built in (program, sanitized):
        found = compared(built, name, tmp_path / "port")
        assert (found.differences, found.missing) == ((), ())
        assert found.n_compared > 500


@needs_a_compiler
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["w8a16", "w8a8"])
@pytest.mark.parametrize("drafts", [False, True])
def test_it_answers_validation_queries_integer_for_integer(
    scheme: str, drafts: bool, program: Path, tmp_path: Path
) -> None:
    items = evenly_spread(read_queries(DATA / "validation.jsonl"), 20)[2 * drafts :: 4]
    agent = load_agent()
    for item in items:
        found = ask(program, tmp_path / "run", agent.source_tokens(item.query), scheme, drafts)
        assert (found.differences, found.missing) == ((), ()), item.query


@needs_a_compiler
@settings(max_examples=25)
@given(data=st.data())
def test_it_computes_random_models(
    data: Any, program: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every switch of Mu's configuration, one text, padded anywhere."""
    mu = {"rope_factor": 1.0, "window_inclusive": True}  # others are of other families
    model = replace(data.draw(model_configs(("encoder-decoder",), **mu)), more_eos_ids=())
    seed = data.draw(seeds)
    scheme = data.draw(st.sampled_from(["w8a16", "w8a8"]))
    folder = tmp_path_factory.mktemp("random")
    weights = folder / "model.safetensors"
    save_integers(weights, quantized(model, random_weights(model, seed), seed, scheme=scheme))
    source = data.draw(rows_of(model.encoder_vocab_size, 1)).tokens
    valid = np.array([[*data.draw(st.permutations([True] + [data.draw(st.booleans())] * 3))]])
    valid = np.resize(valid, source.shape) | (np.arange(source.shape[1]) == 0)
    prompt = data.draw(rows_of(model.vocab_size, 1, max_len=3)).tokens
    write_run(folder / "golden", weights, scheme, Tokens(source, valid, prompt), 6)
    found = run(program, folder / "golden", weights, None, folder / "port")
    assert (found.differences, found.missing) == ((), ())


@needs_a_compiler
@pytest.mark.parametrize("rnn", [True, False])
@pytest.mark.parametrize("d_exit", [20, 32])
def test_it_drafts_with_every_kind_of_drafter(
    rnn: bool, d_exit: int, program: Path, tmp_path: Path
) -> None:
    """Without a cell, states are sums of two scales; 32 columns need no projection."""
    drafter = replace(tiny.DRAFTER, rnn=rnn, d_exit=d_exit, n_blocks=2)
    own = initial_drafter(drafter, np.random.default_rng(3))
    model = tiny.model_file("w8a8")
    made = tiny.integer_drafter(drafter, own, tiny.tiny_weights(), load_integers(model))
    file = tmp_path / "drafter.safetensors"
    save_integer_drafter(file, made)
    source = np.array([[9, 30, 17, 4]])
    given = Tokens(source, np.ones(source.shape, bool), np.array([[1]]))
    search = Search(beam_width=1, draft_len=4)
    write_run(tmp_path / "golden", model, "w8a8", given, 8, file, search)
    found = run(program, tmp_path / "golden", model, file, tmp_path / "port")
    assert (found.differences, found.missing) == ((), ())


def test_the_tables_of_the_header_are_those_of_the_json() -> None:
    header = c_header().split("static const int32_t mu_table_")[1:]
    found = {}
    for part in header:
        name, _, rest = part.partition("[")
        size, _, body = rest.partition("] = {")
        found[name] = [int(word) for word in body.partition("}")[0].split(",") if word.strip()]
        assert len(found[name]) == int(size)
    assert found == json.loads(PATH.read_text(encoding="utf-8"))


# -- bugs planted on purpose -----------------------------------------------------------------------


BUGS = tomllib.loads(Path(__file__).with_name("bugs.toml").read_text(encoding="utf-8"))["bug"]


@needs_a_compiler
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug["name"])
def test_a_planted_bug_is_named_at_its_site(bug: dict[str, Any], tmp_path: Path) -> None:
    edits: dict[str, list[tuple[str, str]]] = {}
    for edit in bug["edit"]:
        edits.setdefault(edit["file"], []).append((edit["old"], edit["new"]))
    program = build(tmp_path / "build", ("-O0",), edits)
    found = compared(program, bug.get("folder", "tiny-w8a16"), tmp_path / "port")
    first = found.differences[0]
    assert (first.key, first.op) == (bug["key"], bug["op"])
    # what a decision reads is not among the tensors
    assert found.inputs_agree is (None if first.op == "decision" else True)


@needs_a_compiler
def test_the_chapter_prints_what_is_printed(program: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/porting.md").read_text(encoding="utf-8")
    bug = next(bug for bug in BUGS if bug["name"] == "mask")
    edits = {edit["file"]: [(edit["old"], edit["new"])] for edit in bug["edit"]}
    wrong = build(tmp_path / "build", ("-O0",), edits)
    for built in (wrong, program):
        lines = report(compared(built, "tiny-w8a16", tmp_path / "port"))
        assert "".join(f"    {line}\n" for line in lines) in page
    assert "thirteen others" in page
    assert len(BUGS) == 14
