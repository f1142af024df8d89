"""The border by hand: numbers at both ends of a range, texts that others act on, token ids."""

import os
from dataclasses import dataclass
from fractions import Fraction
from math import inf, nan
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from safetensors.numpy import save_file

from mu_ref.border import arrays, ranges
from mu_ref.border.arrays import (
    check_floats,
    check_rows,
    check_tokens,
    first_not_finite,
    read_safetensors,
)
from mu_ref.border.ranges import Range, check_fields, check_kinds
from mu_ref.border.reading import exact_fields, parse_json, read_csv, read_json_lines, read_text
from mu_ref.border.text import (
    csv_cell,
    csv_line,
    json_text,
    mathless,
    printable,
    short,
    text_of_cell,
)
from mu_ref.errors import ConfigError, InputError, WeightsError, located

WHOLE = Range(low=1, high=9, why="so few")
SHARE = Range(low=0, high=1, whole=False)
ABOVE = Range(low=0, above=True, high=4, whole=False)
SHIFT = Range(low=-2, above=True, high=4)


@pytest.mark.parametrize(
    ("allowed", "value"),
    [
        (WHOLE, 1), (WHOLE, 9), (WHOLE, np.int8(9)), (SHARE, 0), (SHARE, 1.0), (SHARE, 0.5),
        (SHARE, np.float32(0.5)), (SHARE, Fraction(1, 3)), (ABOVE, 4), (ABOVE, 1e-300), (SHIFT, -1),
        (SHIFT, 0),
    ],
)  # fmt: skip
def test_a_number_that_fits_comes_back_as_it_is(allowed: Range, value: Any) -> None:
    assert allowed.check("x", value) is value


@pytest.mark.parametrize(
    ("allowed", "value", "message"),
    [
        (WHOLE, 0, "x must be a whole number from 1 to 9, got 0"),
        (WHOLE, 10, "x must be a whole number from 1 to 9, got 10; so few"),
        (WHOLE, 2.0, "x must be a whole number from 1 to 9, got 2.0"),
        (WHOLE, 20.0, "x must be a whole number from 1 to 9, got 20.0"),
        (WHOLE, True, "x must be a whole number from 1 to 9, got True"),
        (WHOLE, "2", "x must be a whole number from 1 to 9, got '2'"),
        (WHOLE, None, "x must be a whole number from 1 to 9, got None"),
        (SHARE, True, "x must be a number from 0 to 1, got True"),
        (SHARE, -1e-9, "x must be a number from 0 to 1, got -1e-09"),
        (SHARE, nan, "x must be a number from 0 to 1, got nan"),
        (SHARE, inf, "x must be a number from 0 to 1, got inf"),
        (SHARE, 1j, "x must be a number from 0 to 1, got 1j"),
        (ABOVE, 0, "x must be a number above 0 and at most 4, got 0"),
        (ABOVE, 0.0, "x must be a number above 0 and at most 4, got 0.0"),
        (SHIFT, -2, "x must be a whole number above -2 and at most 4, got -2"),
    ],
)
def test_a_number_that_does_not_is_refused_by_its_rule(
    allowed: Range, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        allowed.check("x", value, ConfigError)
    assert str(refused.value) == message


def test_the_field_s_ranges_end_where_they_say() -> None:
    ends = {name: (r.low, r.high, r.above) for name, r in vars(ranges).items() if type(r) is Range}
    assert ends == {
        "SHARE": (0, 1, False), "SEED": (0, 2**63 - 1, False), "COUNT": (1, 10**9, False),
        "PORT": (0, 65535, False), "EPOCHS": (1, 10**6, False), "RANK": (1, 1024, False),
        "STRENGTH": (0, 1000, False), "BATCH": (1, 65536, False), "RATE": (0, 10, True),
        "HEADS": (1, 4096, False), "THETA": (0, 10**12, True),
        "LAYERS": (1, 1024, False), "SIZE": (1, 2**24, False), "NEW_TOKENS": (0, 2**14, False),
        "TOKENS": (1, 2**20, False), "WEIGHTS": (1, 10**12, False), "FACTOR": (0, 10**6, True),
        "BEAMS": (1, 64, False), "DRAFTED": (1, 64, False), "BLOCKS": (0, 64, False),
        "REWORDINGS": (0, 64, False),
    }  # fmt: skip


@dataclass
class Kinds:
    """One field of each kind."""

    n: Any = 1
    rate: Any = 0.5
    on: Any = True
    name: Any = "a"
    kind: Any = "low"
    flags: Any = (True, False)
    cap: Any = None


Kinds.__dataclass_fields__["n"].type = int
Kinds.__dataclass_fields__["rate"].type = float
Kinds.__dataclass_fields__["on"].type = bool
Kinds.__dataclass_fields__["name"].type = str
Kinds.__dataclass_fields__["kind"].type = Literal["low", "high"]
Kinds.__dataclass_fields__["flags"].type = tuple[bool, ...]
Kinds.__dataclass_fields__["cap"].type = float | None


@pytest.mark.parametrize("fits", [{}, {"rate": 1, "n": np.int16(3)}, {"cap": 2.5}, {"flags": ()}])
def test_what_is_of_its_kind_passes(fits: dict[str, Any]) -> None:
    check_kinds(Kinds(**fits), InputError)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n": 1.0}, "f: n must be a whole number, got 1.0"),
        ({"n": True}, "f: n must be a whole number, got True"),
        ({"n": None}, "f: n must be a whole number and not null, got None"),
        ({"rate": "1"}, "f: rate must be a number, got '1'"),
        ({"on": 1}, "f: on must be true or false, got 1"),
        ({"name": None}, "f: name must be a text and not null, got None"),
        ({"kind": "middle"}, "f: kind must be one of low, high, got 'middle'"),
        ({"flags": (True, 1)}, "f: flags must be a list, each true or false, got (True, 1)"),
        ({"flags": [True]}, "f: flags must be a list, each true or false, got [True]"),
        ({"cap": "x"}, "f: cap must be a number, or null, got 'x'"),
    ],
)
def test_what_is_not_is_refused_by_its_kind(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        check_kinds(Kinds(**wrong), InputError, "f: ")
    assert str(refused.value) == message


def test_fields_are_checked_unless_they_are_none() -> None:
    check_fields(Kinds(cap=None), {"n": WHOLE, "cap": ABOVE}, InputError)
    with pytest.raises(InputError, match=r"^f: n must be a whole number from 1 to 9, got 0$"):
        check_fields(Kinds(n=0), {"n": WHOLE}, InputError, "f: ")


def test_texts_are_shown_so_that_nothing_acts_on_them() -> None:
    assert printable("a\n\t\x1bé\u202e\ud800") == r"a\n\t\x1bé\u202e\ud800"
    assert mathless("$x$\n") == r"\$x\$\n"
    for first in "=+-@\t\r":
        assert csv_cell(f"{first}1") == f"'{first}1"
        assert csv_cell(f"'{first}1") == f"''{first}1"
        assert text_of_cell(f"'{first}1") == f"{first}1"
    assert csv_cell("1=1") == "1=1"
    assert text_of_cell("'1") == "'1"


def test_a_value_is_cut_to_sixty_characters() -> None:
    assert short("a" * 58) == repr("a" * 58)  # 60 with its quotes
    assert short("a" * 59) == "'" + "a" * 56 + "..."
    assert short(10**5000) == "an integer of thousands of digits"


def test_rows_and_lines_know_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("\ufeff a ,b\n , \n\n'=1,' 2\n", encoding="utf-8")
    assert read_csv(path, "a table") == (["a", "b"], [(f"{path}:4", {"a": "=1", "b": "' 2"})])
    assert read_text(path, "a text").startswith(" a")
    for wrong, message in (("a,b,a\n", ":1: a column must stand once, got 'a' twice"),
                           ("a,b\n1,2,3\n", ":2 must have 2 cells, got 3"),
                           ("a,b\n1\n", ":2 must have 2 cells, got 1")):  # fmt: skip
        path.write_text(wrong)
        with pytest.raises(InputError, match=message):
            read_csv(path, "a table")
    path.write_text('1\n \n{"b": "\u20ac"}\n', encoding="utf-8")
    found = list(read_json_lines(path, "a value"))
    assert found == [(f"{path}:1", 1), (f"{path}:3", {"b": "\u20ac"})]
    path.write_bytes(b"a\n\n\xffb")
    with pytest.raises(InputError, match=r":3 must be text in UTF-8, got the byte 0xff"):
        read_text(path, "a text")


def test_a_number_of_json_is_finite() -> None:
    assert parse_json("1e308", "f", "a number") == 1e308
    with pytest.raises(InputError, match="'1e309' is too large a number"):
        parse_json("[1e309]", "f", "numbers")


def test_a_header_ends_within_its_file(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    path.write_bytes(b"\x02" + bytes(7) + b"{}")
    assert read_safetensors(path) == ({}, {})
    path.write_bytes(b"\x03" + bytes(7) + b"{}")
    with pytest.raises(WeightsError, match="got 10 bytes; it is damaged"):
        read_safetensors(path)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f8"])
def test_tensors_are_those_that_another_library_wrote(dtype: str, tmp_path: Path) -> None:
    kind = np.dtype(dtype)
    ends = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
    written = {"a": np.array([[ends.min, ends.max]], kind), "b": np.arange(3).astype(kind)}
    save_file(written, tmp_path / "f", {"note": "x"})
    found, notes = read_safetensors(tmp_path / "f")
    assert notes == {"note": "x"}
    for name, array in written.items():
        assert found[name].dtype == kind
        np.testing.assert_array_equal(found[name], array)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "f"
    save_file({"a": np.ones(2)}, path)
    whole = os.stat(path)
    path.write_bytes(path.read_bytes()[:-8])
    monkeypatch.setattr(arrays.os, "fstat", lambda _: whole)
    with pytest.raises(WeightsError, match="must not change while it is read; a is cut off"):
        read_safetensors(path)


def test_fields_of_an_object_are_those_of_its_class() -> None:
    whole = dict.fromkeys(("n", "rate", "on", "name", "kind", "flags", "cap"), 1)
    assert exact_fields(Kinds, whole, "f") is whole
    for wrong in ({**whole, "more": 1}, {"n": 1}, [1]):
        with pytest.raises(InputError, match=r"^f must"):
            exact_fields(Kinds, wrong, "f")


def test_token_ids_end_below_the_vocabulary() -> None:
    check_tokens("ids", np.array([[0, 6]]), 7)
    for wrong in (np.array([[7]]), np.array([[-1]]), np.zeros((1, 0), int), np.zeros((0, 1), int),
                  np.zeros(2, int), np.zeros((1, 2)), np.zeros((1, 1), bool), [[1]]):  # fmt: skip
        with pytest.raises(InputError, match=r"^ids must"):
            check_tokens("ids", wrong, 7)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("wrong", [nan, inf, -inf])
def test_the_first_number_that_is_none_is_found(dtype: str, wrong: float) -> None:
    array = np.full((3, 4), -1.5, dtype)
    array[0, 0] = np.finfo("f2").max
    assert first_not_finite(array) is None
    assert first_not_finite(array[:0]) is None
    array[1, 2] = array[2, 0] = wrong
    assert first_not_finite(array) == (1, 2)
    assert first_not_finite(array.T) == (0, 2)


@pytest.mark.parametrize("number", [2.0**60, -(2.0**60), 0.0])
def test_weights_are_at_most_as_large_as_their_products_allow(number: float) -> None:
    check_floats("f", {"a": np.array([number, 1.0])})
    with pytest.raises(WeightsError, match=r"^f: a must hold weights of at most"):
        check_floats("f", {"a": np.array([1.0, (number or 1e30) * 1.001])})


def test_zero_is_a_number_of_json_and_infinity_is_none() -> None:
    assert json_text({"a": 0.0, "b": [inf, -0.5, 0], "c": False}) == (
        '{"a": 0.0, "b": [null, -0.5, 0], "c": false}'
    )


def test_cells_with_commas_or_quotes_are_quoted() -> None:
    assert csv_line(["a", 'b"c', "d,e"]) == 'a,"b""c","d,e"\n'


@pytest.mark.parametrize(
    "valid", [[[True, True], [False, False]], [[True, True]], [[1, 1], [1, 1]], [True, True]]
)
def test_every_row_holds_a_token(valid: Any) -> None:
    tokens = np.array([[1, 2], [3, 4]])
    check_rows("prompt", tokens, np.array([[False, True], [True, False]]), 9)
    with pytest.raises(InputError, match="prompt"):
        check_rows("prompt", tokens, np.array(valid), 9)


def test_a_place_leaves_an_error_its_kind() -> None:
    with pytest.raises(ConfigError, match=r"^here: wrong$"), located("here: "):
        raise ConfigError("wrong")
