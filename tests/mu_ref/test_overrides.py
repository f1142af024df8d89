"""Fields that a user sets by name: what a text means, by hand."""

import pytest

from mu_ref.border.overrides import assignments, kind_of_field, plain_value
from mu_ref.errors import InputError


def test_a_field_ends_at_the_first_equals_sign() -> None:
    found = assignments(["a.b=1", " c = x=y ", "npu=my chip.toml"])
    assert found == {"a.b": "1", "c": "x=y", "npu": "my chip.toml"}
    assert assignments([]) == {}


@pytest.mark.parametrize("text", ["", "=", "a", "a=", "=1", " = 1", "a =  "])
def test_a_field_has_a_name_and_a_value(text: str) -> None:
    with pytest.raises(InputError, match="--field must have the form FIELD=VALUE, got "):
        assignments([text], "--field")


def test_a_field_is_set_once() -> None:
    with pytest.raises(InputError, match="--set must set each field once, got 'a' twice"):
        assignments(["a=1", "b=2", "a = 1"])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("8", 8), ("+8", 8), ("-8", -8), ("1_000", 1000), ("0", 0), ("08", 8),
        ("0.5", 0.5), (".5", 0.5), ("4e-3", 0.004), ("4E3", 4000.0), ("+1.5e+2", 150.0),
        ("true", True), ("True", True), ("FALSE", False), ("none", None), ("None", None),
        ("relu", "relu"), ("", ""), ("1__0", "1__0"), ("1e1000", "1e1000"), ("0x10", "0x10"),
        ("nan", "nan"), ("inf", "inf"), ("1 2", "1 2"), ("٣", "٣"), ("1.2.3", "1.2.3"),
        ("9" * 40, 10**40 - 1), ("9" * 41, "9" * 41), ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_a_text_means_a_number_a_word_or_itself(text: str, meant: object) -> None:
    found = plain_value(text)
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("value", "now", "meant"),
    [
        ("1e3", 8, 1000), ("1e3", None, 1000), ("1e3", "gelu", 1000), (1e3, 8, 1000),
        ("1e3", 8.0, 1000.0), ("8", 8.0, 8), ("1.5", 8, 1.5), (1.5, None, 1.5),
        (True, 8, True), ("relu", "gelu", "relu"), (None, 8, None), (float("inf"), 1, float("inf")),
    ],
)  # fmt: skip
def test_a_whole_number_is_one_unless_the_field_is_a_fraction(
    value: object, now: object, meant: object
) -> None:
    found = kind_of_field(value, now)
    assert (found, type(found)) == (meant, type(meant))
