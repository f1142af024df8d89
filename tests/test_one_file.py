"""The two programs of one file: equal to mu_ref, short, in step with each other."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mu_ref
from mu_ref.border.files import DATA
from mu_ref.config import StackConfig
from mu_ref.generate import stream
from mu_ref.model import mu
from mu_ref.model.encoder import encode

ROOT = Path(__file__).parents[1]
FILES = {"mu_in_one_file": 180, "mu_int8_in_one_file": 320}  # and how long they may be
SCHEMES = {"mu_in_one_file": "float32", "mu_int8_in_one_file": "w8a16"}
README = "my eyes hurt at night, make the screen warmer"
QUERIES = [README, "Set the volume to 40 %, don't ask me again"]


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(x: object) -> np.ndarray:
    """What is compared: floats as they are, integers without their scale."""
    return np.asarray(x) if isinstance(x, np.ndarray) else x.q  # type: ignore[attr-defined]


ONE, TOKENIZER = program("mu_in_one_file"), mu_ref.Tokenizer.load()


@pytest.mark.parametrize("name", FILES)
def test_every_number_of_a_one_file_program_is_that_of_the_executor(name: str) -> None:
    one, agent = program(name), mu_ref.load_agent(scheme=SCHEMES[name])
    for query in QUERIES:
        tokens = one.tokens_of(query)
        assert tokens == agent.source_tokens(query)
        hidden = one.encode(tokens)
        source, seen = np.array([tokens]), np.ones((1, len(tokens)), bool)
        expected = encode(agent.ops, agent.model, source, seen)
        np.testing.assert_array_equal(numbers(hidden), numbers(expected)[0])
        memory, ours = agent.remember(query), one.remember(hidden)
        for layer, (k, v) in zip(memory.layers, ours, strict=True):
            np.testing.assert_array_equal(numbers(k), numbers(layer.k)[0])
            np.testing.assert_array_equal(numbers(v), numbers(layer.v)[0])
        caches, written = [[] for _ in range(one.N_DECODER)], [one.BOS]
        for step in stream(agent.ops, agent.model, memory, *mu.start(agent.model, 1), one.LIMIT):
            logits = one.decode(written[-1:], len(written) - 1, ours, caches)
            np.testing.assert_array_equal(numbers(logits), numbers(step.scores)[0])  # every bit
            written.append(int(step.tokens[0]))
        whole = one.decode(written[:-1], 0, ours, [[] for _ in range(one.N_DECODER)])
        np.testing.assert_array_equal(numbers(whole)[-1:], numbers(logits))  # without the cache
        assert one.write(query) == agent.tokenizer.decode(written[1:-1])


@settings(max_examples=30)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["N"]) | st.sampled_from("09")))
@example("I'LL DON'T it's _a__ ''re 12.50%")
@example("\uff37\uff29\uff0d\uff26\uff29\t\n  cafe\u0301 \u65e5\u672c \U0001f319 x\u00a0y")
def test_a_one_file_program_cuts_texts_as_the_tokenizer_does(text: str) -> None:
    tokens = TOKENIZER.encode(" " + " ".join(text.split()))
    assert ONE.tokens_of(text) == [*tokens, ONE.EOS]
    assert ONE.text_of(tokens) == TOKENIZER.decode(tokens)


@pytest.mark.parametrize("name", FILES)
def test_the_sizes_that_stand_in_a_one_file_program_are_those_of_the_shipped_model(
    name: str,
) -> None:
    one, model = program(name), mu_ref.load_model().model
    for stack, n_layers in ((model.encoder, one.N_ENCODER), (model.decoder, one.N_DECODER)):
        assert isinstance(stack, StackConfig)
        assert (stack.n_layers, stack.d_model, stack.n_heads) == (n_layers, one.D, one.N_HEADS)
        assert (stack.n_kv_heads, stack.d_head) == (one.N_KV_HEADS, one.D_HEAD)
        assert (stack.rope_theta, np.float32(stack.norm_eps)) == (one.THETA, np.float32(one.EPS))
    assert (model.bos_id, model.eos_id) == (one.BOS, one.EOS)
    vocabulary = json.loads((DATA / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert list(vocabulary.values()) == list(range(len(vocabulary)))  # token i is symbol i


@pytest.mark.parametrize("name", FILES)
def test_a_one_file_program_is_short_imports_little_and_prints_what_the_readme_does(
    name: str,
) -> None:
    path = ROOT / f"docs/{name}.py"
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= FILES[name]
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else
                     [alias.name for alias in node.names])
    }  # fmt: skip
    assert imported - sys.stdlib_module_names == {"numpy", "safetensors"}
    ran = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True)
    printed = (ROOT / "README.md").read_text(encoding="utf-8")
    call = re.search(rf'ask "{README}".*\n\n    (\S.*)\n', printed)
    assert call is not None
    assert ran.stdout == call[1] + "\n"


def test_both_one_file_programs_have_the_same_functions_in_the_same_order() -> None:
    names = {
        name: [
            node.name
            for node in ast.parse((ROOT / f"docs/{name}.py").read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        ]
        for name in FILES
    }
    floats, integers = names.values()
    shared = [name for name in integers if name in floats]
    assert shared == [
        name
        for name in floats
        if name != "ordered_sum"  # integer sums need no order
    ]
