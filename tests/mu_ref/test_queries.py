"""Files of labelled queries, and the split into training and validation."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_ref.errors import InputError
from mu_ref.settings.catalog import DATA
from mu_ref.settings.queries.labelled import (
    LabelledQuery,
    read_queries,
    split_key,
    split_queries,
    write_queries,
)

GOOD = b'{"query": "louder", "call": "increase(sound.volume)"}\n'


def test_queries_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD + b'\r\n{"call": "none()", "query": "", "note": 1}')
    assert read_queries(path) == [
        LabelledQuery(query="louder", call="increase(sound.volume)"),
        LabelledQuery(query="", call="none()"),
    ]


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (GOOD + b"louder\n", r"q\.jsonl:2 must be a labelled query in JSON, got no JSON"),
        (GOOD + b"\n[1]\n", r"q\.jsonl:3 must be a JSON object, got list"),
        (GOOD + b'{"query": "x"}\n', "jsonl:2 must have the key 'call'"),
        (GOOD + b'{"call": "none()"}\n', "jsonl:2 must have the key 'query'"),
        (b'{"query": 3, "call": "none()"}\n', "jsonl:1: 'query' must be a string, got int"),
        (b'{"query": "x", "call": null}\n', "jsonl:1: 'call' must be a string, got NoneType"),
        (GOOD + b'{"query": true, "call": ""}\n', "jsonl:2: 'query' must be a string, got bool"),
        (GOOD + b'{"query": "caf\xe9", "call": "none()"}\n', "jsonl:2 must be text in UTF-8"),
        (GOOD + b'{"query": "\\ud800", "call": ""}\n', r"jsonl:2 must be .*surrogate"),
        (GOOD + b'{"query": "a", "query": "b"}\n', r"jsonl:2 .*'query' stands twice"),
        (GOOD + b"[" * 100_000 + b"\n", r"jsonl:2 .*nested too deep"),
        (GOOD + b'{"query": "x' + b"y" * 10**7, "jsonl:2 must be a labelled query"),
        (b"", "at least one labelled query"),
        (b"\n \n", "at least one labelled query"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, content: bytes, rule: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rule):
        read_queries(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.jsonl"):
        read_queries(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="got a folder"):
        read_queries(tmp_path)


def test_written_queries_are_plain_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    write_queries(path, [LabelledQuery(query='a "é"\u2028', call="none()")])
    assert path.read_bytes() == '{"query": "a \\"é\\"\u2028", "call": "none()"}\n'.encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["q.jsonl"]


@given(st.lists(st.builds(LabelledQuery, query=st.text(), call=st.text()), min_size=1))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, items: list[LabelledQuery]
) -> None:
    items = [item for item in items if (item.query + item.call).isprintable()]
    items.append(LabelledQuery(query="x", call="none()"))
    path = tmp_path_factory.mktemp("q") / "q.jsonl"
    write_queries(path, items)
    assert read_queries(path) == items


def test_the_key_ignores_case_punctuation_and_spacing() -> None:
    assert split_key("  Don't turn-on   Wi-Fi!! ") == "dont turn on wi fi"
    assert split_key("dont TURN on wi_fi") == "dont turn on wi fi"


def test_queries_that_differ_in_punctuation_share_a_side() -> None:
    items = [
        LabelledQuery(query=text, call="none()")
        for word in map(str, range(200))
        for text in (f"it's {word}", f"Its, {word}!")
    ]
    train, validation = split_queries(items, 0.5)
    assert len(train) + len(validation) == 400
    assert 120 < len(validation) < 280
    assert not {split_key(i.query) for i in train} & {split_key(i.query) for i in validation}


def test_a_share_of_nothing_or_all_takes_one_side() -> None:
    items = [LabelledQuery(query=str(n), call="none()") for n in range(20)]
    assert split_queries(items, 0.0) == (items, [])
    assert split_queries(items, 1.0) == ([], items)


def test_the_shipped_split_is_the_split_of_all_queries() -> None:
    train, validation = read_queries(DATA / "train.jsonl"), read_queries(DATA / "validation.jsonl")
    assert (len(train), len(validation)) == (12244, 1373)
    assert split_queries(train) == (train, [])
    assert split_queries(validation) == ([], validation)
