"""Files in: every fault of a format is one line that names file, place, rule and fix."""

import json
import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_ref.border.reading import (
    file_digest,
    parse_json,
    parse_toml,
    read_csv,
    read_json,
    read_json_lines,
    read_text,
    read_toml,
)
from mu_ref.errors import ConfigError, InputError, MuRefError

READERS: list[Callable[[Path], Any]] = [
    lambda path: read_json(path, "a thing"),
    lambda path: read_toml(path, "a thing"),
    lambda path: list(read_json_lines(path, "a thing")),
    lambda path: read_csv(path, "a thing"),
]
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False,
    allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner,
    max_size=3), max_leaves=8,
)  # fmt: skip


def written(folder: Path, data: bytes) -> Path:
    path = folder / "f.txt"
    path.write_bytes(data)
    return path


# -- any format --------------------------------------------------------------------------------


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_file_is_said_in_one_line(tmp_path: Path, read: Any) -> None:
    with pytest.raises(InputError, match=r"missing must be a.*; there is no such file"):
        read(tmp_path / "missing")
    with pytest.raises(InputError, match="got a folder"):
        read(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "a\0b")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(InputError, match="cannot be read"):
        read(loop)


@pytest.mark.parametrize("read", READERS)
def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path, read: Any) -> None:
    with pytest.raises(InputError, match=r"f.txt:2 must be text in UTF-8, got the byte 0xff"):
        read(written(tmp_path, b"a = 1\n\xff\n"))
    with pytest.raises(InputError, match="UTF-8"):
        read(written(tmp_path, "a = 1\n".encode("utf-16")))


def test_a_device_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mu_ref.border.reading.MAX_STREAM_BYTES", 1000)
    with pytest.raises(InputError, match="at most 1,000 bytes"):
        read_text(Path("/dev/zero"), "a thing")


def test_the_class_of_the_error_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_json(written(tmp_path, b"{"), "a thing", ConfigError)


def test_byte_order_marks_and_line_ends_of_other_systems_are_read(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    assert read_json(written(tmp_path, mark + b'{"a":\r\n1}'), "a thing") == {"a": 1}
    assert read_toml(written(tmp_path, mark + b"a = 1\r\nb = 2\r\n"), "a thing") == {"a": 1, "b": 2}
    assert [v for _, v in read_json_lines(written(tmp_path, mark + b"1\r\n\r\n2"), "x")] == [1, 2]
    columns, rows = read_csv(written(tmp_path, mark + b"a,b\r\n1,2\r\n"), "a thing")
    assert columns == ["a", "b"]
    assert [row for _, row in rows] == [{"a": "1", "b": "2"}]


# -- JSON --------------------------------------------------------------------------------------


@given(plain)
def test_json_that_json_writes_is_read_back(value: Any) -> None:
    assert parse_json(json.dumps(value), "f", "a thing") == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1, column 1"),
        ('{"a": 1,}', "line 1, column"),
        ('{"a": 1\n"b": 2}', "line 2, column 1"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('[{"x": {"b": 1, "b": 1}}]', "'b' stands twice"),
        ("NaN", "NaN is no number"),
        ("[1, -Infinity]", "-Infinity is no number"),
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deep"),
        ("9" * 5000, "cannot be read"),
        (r'{"a": "\ud800"}', "surrogate"),
        (r'{"\udc00": 1}', "surrogate"),
    ],
)
def test_json_with_no_single_meaning_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=r"^f must be a thing, got") as caught:
        parse_json(text, "f", "a thing")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert parse_json(r'"\ud83d\ude00"', "f", "a thing") == "\U0001f600"


def check_read_or_refused(text: str) -> None:
    for parse in (parse_json, parse_toml):
        said = "f must be a thing"
        try:
            parse(text, "f", "a thing")
        except MuRefError as error:
            said = str(error)
        assert said.startswith("f must be a thing")
        assert "\n" not in said


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    check_read_or_refused(data.decode("utf-8", "replace"))


@given(st.text("{}[]\",:0123456789eE.-+ntrufalse\\ \n#='", max_size=40))
def test_texts_made_of_the_formats_own_characters_are_read_or_refused(text: str) -> None:
    check_read_or_refused(text)


def test_lines_of_json_are_named_with_their_number(tmp_path: Path) -> None:
    path = written(tmp_path, b'{"a": 1}\n\n{"a": 1, "a": 1}\n')
    with pytest.raises(InputError, match=r"f.txt:3 must be a query, got JSON"):
        list(read_json_lines(path, "a query"))
    # a line separator of Unicode stands inside a text and ends no line
    path = written(tmp_path, '"a\u2028b"\n"c\x0cd"\n'.replace("\x0c", "\\f").encode())
    assert [value for _, value in read_json_lines(path, "x")] == ["a\u2028b", "c\x0cd"]


# -- TOML --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["a", "a = ", "a = 1\na = 2", "[x]\n[x]", "a = " + "[" * 100_000, "a = " + "9" * 5000],
)
def test_what_is_no_toml_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^f must be a thing, got"):
        parse_toml(text, "f", "a thing")


def test_toml_has_numbers_that_are_none_and_the_reader_leaves_them_to_the_ranges() -> None:
    assert math.isnan(parse_toml("a = nan", "f", "a thing")["a"])


# -- CSV ---------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), min_size=2,
                max_size=2), max_size=4))  # fmt: skip
def test_csv_that_csv_writes_is_read_back(rows: list[list[str]]) -> None:
    import csv
    import tempfile

    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["a", "b"], *rows])
        file.flush()
        columns, found = read_csv(Path(file.name), "a thing")
    assert columns == ["a", "b"]
    wanted = [dict(zip("ab", row, strict=True)) for row in rows if any(c.strip() for c in row)]
    assert [row for _, row in found] == wanted


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"a,a\n1,2\n", "'a' twice"),
        (b"a,b\n1\n", r"f.txt:2 must have 2 cells, got 1"),
        (b"a,b\n1,2\n1,2,3\n", r"f.txt:3 must have 2 cells, got 3"),
        (b'a,b\n1,"2\n', "no CSV"),
        (b'a,b\n1,"2"3\n', "no CSV"),
    ],
)
def test_csv_with_no_single_meaning_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_csv(written(tmp_path, data), "a thing")


def test_a_pipe_is_read(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b'{"a": 1}')
    os.close(write)
    assert read_json(Path(f"/dev/fd/{read}"), "a thing") == {"a": 1}
    os.close(read)


def test_a_pipe_whose_writer_is_slow_is_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = f"exec 3> {pipe}; echo ready; sleep 0.3; printf '{{\"a\": 1}}' >&3"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True) as writer:
        held = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # the shell waits for a reader
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        assert read_json(pipe, "a thing") == {"a": 1}
        os.close(held)


def test_a_pipe_that_nobody_writes_to_is_empty(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read_text(tmp_path / "pipe", "a thing") == ""


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/null", "pipe", "link"])
def test_what_cannot_be_read_again_or_never_ends_has_no_digest(tmp_path: Path, place: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="got a pipe or a device"):
        file_digest(tmp_path / place)  # an absolute place stays as it is


def test_a_digest_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert file_digest(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")
