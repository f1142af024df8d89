"""The port in C computes every golden integer; each planted bug is named at the right site."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden.__main__ import HERE
from golden.tiny import model_file
from hypothesis import given, settings
from hypothesis import strategies as st
from ports.porting import COMPILER, SANITIZED, SOURCES, Edits, ask, build, run
from strategies import model_configs, quantized, random_weights, rows_of, seeds

from mu_ref.executors import shipped_weights
from mu_ref.files import DATA
from mu_ref.golden.check import Outcome
from mu_ref.golden.write import Tokens, write_run
from mu_ref.integers.store import save_integers
from mu_ref.integers.tables import PATH, c_header
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
    """Every switch of the configuration, one text, padded anywhere."""
    model = data.draw(model_configs(("encoder-decoder",)))
    seed = data.draw(seeds)
    scheme = data.draw(st.sampled_from(["w8a16", "w8a8"]))
    folder = tmp_path_factory.mktemp("random")
    weights = folder / "model.safetensors"
    save_integers(weights, quantized(model, random_weights(model, seed), seed, scheme=scheme))
    source = data.draw(rows_of(model.encoder_vocab_size, 1)).tokens
    valid = np.array([[*data.draw(st.permutations([True] + [data.draw(st.booleans())] * 3))]])
    valid = np.resize(valid, source.shape) | (np.arange(source.shape[1]) == 0)
    prompt = data.draw(rows_of(model.vocab_size, 1, max_len=3)).tokens
    write_run(folder / "golden", weights, scheme, "model", Tokens(source, valid, prompt), 6)
    found = run(program, folder / "golden", weights, None, folder / "port")
    assert (found.differences, found.missing) == ((), ())


@needs_a_compiler
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


@dataclass(frozen=True)
class Bug:
    """What is written wrongly, and where that shows first."""

    name: str
    edits: Edits
    key: str
    op: str
    folder: str = "tiny-w8a16"
    inputs_agree: bool | None = True


def bug(name: str, file: str, old: str, new: str, key: str, op: str, **more: Any) -> Bug:
    edits: Mapping[str, Any] = {file: [(old, new)]}
    return Bug(name, edits, key, op, **more)


BUGS = [
    Bug(
        "transposed weight",
        {"operations.c": [("matrix->data + n * x.width;", "matrix->data + n;"),
                          ("* w[k];", "* w[k * n_out];")]},
        "encode/encoder.0.self_attention.q", "linear",
    ),  # fmt: skip
    bug(
        "RoPE off by one", "operations.c", "places->positions[first + i / half / x.heads]",
        "places->positions[first + i / half / x.heads] + 1",
        "encode/encoder.0.self_attention.q_rope", "rope",
    ),
    bug(
        "head map", "model.c", 'is(stack, "kv_head_map", "cyclic")', "0",
        "encode/encoder.0.self_attention.scores", "matmul",
    ),
    bug(
        "mask", "model.c", "causal ? distance < window", "causal ? distance <= window",
        "decode/3/decoder.1.self_attention.softmax", "softmax",
    ),
    bug(
        "eps", "operations.c", 'eps = number(site, "eps")', "eps = 0",
        "encode/encoder.embed_norm", "norm",
    ),
    bug(
        "tie", "operations.c", "if (x.q[i] > x.q", "if (x.q[i] >= x.q",
        "decode/0/next_tokens", "decision", inputs_agree=None,
    ),
    bug(
        "saturation", "operations.c", "saturate(y + x->zero, x->bits)",
        "(x->bits == 8 ? (int8_t)(y + x->zero) : (int16_t)(y + x->zero))",
        "encode/encoder.0.self_attention.pre_norm", "norm",
    ),
    bug(
        "swapped scales", "operations.c",
        'm_x = number(site, "x.multiplier"), m_y = number(site, "y.multiplier")',
        'm_x = number(site, "y.multiplier"), m_y = number(site, "x.multiplier")',
        "encode/encoder.0.self_attention.residual", "add",
    ),
    bug(
        "cache slot", "model.c", "append(cache->values[layer], v)",
        "cache->values[layer].q ? append(v, cache->values[layer]) : v",
        "decode/1/decoder.0.self_attention.mix", "matmul",
    ),
    bug(
        "pad position", "model.c", "length ? length - 1 : 0", "i",
        "encode/encoder.0.self_attention.q_rope", "rope",
    ),
    bug(
        "missing scale", "operations.c",
        'Multiplier by = multiplier(site, "argument");',
        'Multiplier by = multiplier(site, "argument"); by.shift += 2;',  # without 0.25
        "encode/encoder.0.self_attention.softmax", "softmax",
    ),
    Bug(
        "wrong norm order",
        {"model.c": [
            ('if (is(stack, "norm_placement", "dual")) update = normed(', "if (0) update = normed("),
            ('return add(x, update, text("%s.residual", site));',
             'x = add(x, update, text("%s.residual", site));\n'
             '    return is(stack, "norm_placement", "dual") ? '
             'normed(stack, x, site, "post_norm") : x;'),
        ]},
        "decode/0/decoder.0.self_attention.post_norm", "norm",
    ),  # fmt: skip
    bug(
        "one set of constants for two", "model.c", 'i ? "drafter.state#2" : "drafter.state"',
        '"drafter.state"', "draft/1/1/drafter.state", "activation", folder="tiny-drafts-w8a16",
    ),
    bug(
        "all drafts kept", "main.c", "&& beam[agreed + 1] == written[agreed]", "",
        "verify/1/written", "decision", folder="tiny-drafts-w8a16", inputs_agree=None,
    ),
]  # fmt: skip


@needs_a_compiler
@pytest.mark.parametrize("planted", BUGS, ids=lambda planted: planted.name)
def test_a_planted_bug_is_named_at_its_site(planted: Bug, tmp_path: Path) -> None:
    program = build(tmp_path / "build", ("-O0",), planted.edits)
    found = compared(program, planted.folder, tmp_path / "port")
    first = found.differences[0]
    assert (first.key, first.op) == (planted.key, planted.op)
    assert found.inputs_agree is planted.inputs_agree
