"""The agent around its model: what it hands in, and what it makes of the tokens that come out."""

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mu_ref.errors import InputError
from mu_ref.executors import shipped_weights
from mu_ref.ops.reference import ReferenceOps
from mu_ref.presets import preset, tiny
from mu_ref.redrafter import beams
from mu_ref.redrafter import generate as speculation
from mu_ref.settings import agent as module
from mu_ref.settings.agent import (
    MAX_NEW_TOKENS,
    Agent,
    Answer,
    answer_all,
    load_agent,
    score,
)
from mu_ref.settings.calls import Call, parse_call
from mu_ref.settings.catalog import DATA, load_catalog
from mu_ref.settings.queries.labelled import LabelledQuery
from mu_ref.tokenizer import Tokenizer

CATALOG = load_catalog()
TOKENIZER = Tokenizer.load(DATA / "tokenizer.json")
OPS = ReferenceOps({})


def agent(**changes: Any) -> Agent:
    """Return an agent whose model has no weights: nothing of it may be computed."""
    return Agent(replace(preset("mu-nano"), **changes), OPS, TOKENIZER, CATALOG)


# -- the longest call ------------------------------------------------------------------------------


def all_calls() -> list[str]:
    """Every call but for the values of levels, of which those with most digits are listed."""
    calls = ["none()"]
    for s in CATALOG:
        calls.append(f"open({s.id})")
        values = {"toggle": ("on", "off"), "choice": s.choices, "page": ()}.get(s.kind)
        calls += [f"set({s.id}, {value})" for value in (values or ())]
        if s.kind == "level":
            calls += [f"set({s.id}, {s.minimum})", f"set({s.id}, {s.maximum})"]
            calls += [f"{verb}({s.id}, {s.span})" for verb in ("increase", "decrease")]
    return calls


def test_there_is_room_for_the_longest_call_and_its_end() -> None:
    calls = all_calls()
    assert all(parse_call(text, CATALOG) for text in calls)
    steps = max(len(TOKENIZER.encode(text)) + 1 for text in calls)
    assert steps == 18
    assert steps <= MAX_NEW_TOKENS


# -- a query becomes tokens ------------------------------------------------------------------------


def test_white_space_counts_as_one_blank_and_one_goes_before() -> None:
    wanted = [*TOKENIZER.encode(" turn on wifi"), 2]
    for query in ("turn on wifi", "  turn \t on\n\u2003wifi ", "Turn On WiFi"):
        assert agent().source_tokens(query) == wanted
    assert agent().source_tokens("wifi")[0] in agent().source_tokens("turn on wifi")


def test_a_query_may_fill_the_model_and_not_more() -> None:
    n = len(agent().source_tokens("turn on wifi"))
    assert len(agent(max_len=n).source_tokens("turn on wifi")) == n
    message = rf"at most {n - 1} tokens long, got {n} \(12 characters\)"
    with pytest.raises(InputError, match=message):
        agent(max_len=n - 1).source_tokens("turn on wifi")


# -- answers ---------------------------------------------------------------------------------------


@pytest.fixture
def written(monkeypatch) -> dict[str, Any]:
    """Replace the model: `tokens` are what it writes, `given` what it is given."""
    notes: dict[str, Any] = {"tokens": [], "given": []}

    def encode(ops, *rest):
        notes["given"].append([x for x in rest if isinstance(x, np.ndarray)])
        return "memory"

    def write(self, memory, n_rows, statistics=None):
        assert (memory, n_rows) == ("memory", len(notes["tokens"]))
        return notes["tokens"]

    monkeypatch.setattr(module, "encode_step", encode)
    monkeypatch.setattr(Agent, "write", write)
    return notes


def test_an_answer_says_what_was_written_and_what_it_means(written, monkeypatch) -> None:
    monkeypatch.setattr(module.time, "perf_counter", iter([10.0, 11.0, 13.5]).__next__)
    good = [*TOKENIZER.encode("set(sound.volume, 40)"), 2]
    bad = TOKENIZER.encode("set(sound.volume, 400)")  # cut off: no eos
    written["tokens"] = [good, bad]
    first, second = agent().ask(["volume 40", "make the volume four hundred please"])
    assert (first.query, first.text) == ("volume 40", "set(sound.volume, 40)")
    assert first.call == Call(verb="set", setting_id="sound.volume", value=40)
    assert first.complaint is None
    assert (first.tokens, first.n_output) == (tuple(good), len(good))
    assert (second.call, second.text) == (Call(verb="none"), "set(sound.volume, 400)")
    assert "wrote 'set(sound.volume, 400)', which is no call: value of" in (second.complaint or "")
    assert second.n_output == len(bad)
    rows = [agent().source_tokens(a.query) for a in (first, second)]
    assert (first.n_input, second.n_input) == (len(rows[0]), len(rows[1]))
    ((source, valid),) = written["given"]
    assert source[valid].tolist() == rows[0] + rows[1]
    assert valid.sum(axis=1).tolist() == [len(row) for row in rows]
    for answer in (first, second):  # both stood when the batch stood
        assert (answer.encode_s, answer.decode_s) == (1.0, 2.5)


def test_what_has_no_letter_or_digit_is_answered_unread_in_its_place(written) -> None:
    written["tokens"] = [[*TOKENIZER.encode("none()"), 2], [*TOKENIZER.encode("none()"), 2]]
    answers = agent().ask(["?!", "9", "", "hi", " "])
    assert [a.query for a in answers] == ["?!", "9", "", "hi", " "]
    assert [a.n_input > 0 for a in answers] == [False, True, False, True, False]
    assert answers[0] == Answer(
        query="?!", text="none()", call=Call(verb="none"),
        complaint="the query has no letter or digit to go by", n_input=0, n_output=0, tokens=(),
        encode_s=0.0, decode_s=0.0,
    )  # fmt: skip
    written["tokens"] = []
    assert [a.text for a in agent().ask(["..."])] == ["none()"]
    assert agent().ask([]) == []
    assert len(written["given"]) == 1  # nothing was encoded for the last two


def test_decoding_starts_at_bos_and_keeps_each_row_up_to_its_eos(monkeypatch) -> None:
    given = []

    def stream(*args, guide):
        given.extend(args)
        for tokens, ended in (
            ([5, 2], [False, True]), ([6, 0], [False, True]), ([2, 0], [True, True]),
        ):  # fmt: skip
            yield SimpleNamespace(tokens=np.array(tokens), ended=np.array(ended))

    monkeypatch.setattr(module, "stream", stream)
    assert agent(bos_id=7).write("memory", 2) == [[5, 6, 2], [2]]
    prompt, valid = (x for x in given if isinstance(x, np.ndarray))
    assert (prompt.tolist(), valid.tolist()) == ([[7], [7]], [[True], [True]])
    others = [x for x in given if not isinstance(x, np.ndarray)]
    assert "memory" in others
    assert MAX_NEW_TOKENS in others


def test_drafted_tokens_are_kept_as_far_as_they_count(monkeypatch) -> None:
    given = {}

    def speculate(*args, guide, with_logits, statistics=None):
        given.update(args=args, statistics=statistics)
        yield SimpleNamespace(tokens=np.array([[5, 6, 0], [4, 0, 0]]), n_tokens=np.array([2, 1]))
        yield SimpleNamespace(tokens=np.array([[2, 0], [8, 2]]), n_tokens=np.array([1, 2]))

    monkeypatch.setattr(speculation, "speculate", speculate)
    monkeypatch.setattr(beams, "proposer", lambda *args: ("drafts", args[2:]))
    drafting = replace(agent(), drafter="drafter", search="search")
    assert drafting.write("memory", 2, "statistics") == [[5, 6, 2], [4, 8, 2]]
    assert given["statistics"] == "statistics"
    assert ("drafts", ("drafter", "search")) in given["args"]
    for half in ({"drafter": "drafter"}, {"search": "search"}):  # both are needed
        monkeypatch.setattr(module, "stream", lambda *args, guide: iter(()))
        assert replace(agent(), **half).write("memory", 1) == [[]]


# -- many answers ----------------------------------------------------------------------------------


def test_batches_hold_queries_of_similar_length_and_answers_keep_their_order(monkeypatch) -> None:
    batches = []

    def ask(self, queries):
        batches.append(list(queries))
        return [SimpleNamespace(text=query.upper()) for query in queries]

    monkeypatch.setattr(Agent, "ask", ask)
    items = [LabelledQuery(query=q, call="none()") for q in ("ccc", "a", "dddd", "bb", "eeeee")]
    console = Console(file=io.StringIO())
    answers = answer_all(agent(), items, console, 2)
    assert batches == [["a", "bb"], ["ccc", "dddd"], ["eeeee"]]
    assert [a.text for a in answers] == ["CCC", "A", "DDDD", "BB", "EEEEE"]
    batches.clear()
    answer_all(agent(), items * 30, console)
    assert [len(batch) for batch in batches] == [128, 22]


def test_scores_count_what_the_model_wrote() -> None:
    items = [LabelledQuery(query="q", call=call) for call in ("set(wifi, on)", "none()")]
    answers = [SimpleNamespace(text=text, call=None) for text in ("set(wifi, on)", "nonsense")]
    found = score(agent(), items, answers)
    assert (found.n, found.exact, found.parse) == (2, 0.5, 0.5)


# -- what is loaded --------------------------------------------------------------------------------


def test_the_weights_that_ship_have_the_name_of_their_scheme() -> None:
    names = {s: shipped_weights(s).name for s in ("float32", "w8a16", "w8a8")}
    assert names == {
        "float32": "mu-nano.safetensors", "w8a16": "mu-nano-w8a16.safetensors",
        "w8a8": "mu-nano-w8a8.safetensors",
    }  # fmt: skip
    assert all(shipped_weights(scheme).is_file() for scheme in names)


def test_an_agent_is_loaded_with_the_executor_and_drafter_that_are_asked_for(monkeypatch) -> None:
    asked = []

    def load(*args):
        asked.append(args)
        return SimpleNamespace(model=preset("mu-nano"), ops=OPS, drafter="small")

    monkeypatch.setattr(module, "load_model", load)
    loaded = load_agent(scheme="w8a8", executor="fast", drafter=DATA / "d")
    assert asked == [(None, "w8a8", "fast", DATA / "d")]
    assert (loaded.ops, loaded.drafter, loaded.search) == (OPS, "small", None)
    assert (len(loaded.catalog), loaded.tokenizer.vocab_size) == (183, 1536)
    load_agent(DATA / "w", "w4a16")
    assert asked[1] == (DATA / "w", "w4a16", "reference", None)


@pytest.mark.parametrize(
    "model",
    [
        tiny(), replace(preset("mu-nano"), encoder=None), replace(preset("mu-nano"), decoder=None),
        replace(preset("mu-nano"), vocab_size=1537, encoder_vocab_size=1537),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_the_tokenizer_is_refused(monkeypatch, model) -> None:
    loaded = SimpleNamespace(model=model, ops=OPS, drafter=None)
    monkeypatch.setattr(module, "load_model", lambda *args: loaded)
    with pytest.raises(InputError, match="encoder-decoder with the 1536 tokens"):
        load_agent(DATA / "w")
    if model.decoder is not None:
        assert load_agent(DATA / "w", tokenized=False).model is model


def test_a_scheme_without_weights_or_a_name_is_refused() -> None:
    with pytest.raises(InputError, match="w4a16 must be given weights"):
        load_agent(scheme="w4a16")
    with pytest.raises(InputError, match="scheme must be one of float32"):
        load_agent(scheme="w2a2")
