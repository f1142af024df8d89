"""Numbers in words, and a number replaced in a query and its call alike."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_ref.settings.catalog import load_catalog
from mu_ref.settings.queries.number_words import find_number, number_words, vary_number

CATALOG = load_catalog()
SEEDS = st.integers(0, 2**32 - 1)


@given(st.integers(0, 100), SEEDS)
def test_a_varied_number_reads_the_same_in_query_and_call(value: int, seed: int) -> None:
    query, call = vary_number(
        f"set the volume to {value}% now",
        f"set(sound.volume, {value})",
        CATALOG,
        np.random.default_rng(seed),
    )
    new = re.fullmatch(r"set\(sound\.volume, ([0-9]+)\)", call)
    assert new is not None
    assert int(new[1]) <= 100
    said = re.fullmatch(r"set the volume to (.+?)(?:%| %| percent) now", query)
    assert said is not None
    assert reread(said[1]) == int(new[1])


def reread(text: str) -> int:
    """Read 0..199 from digits or words by adding up, unlike the table under test."""
    if text.isdigit():
        return int(text)
    parts = {
        "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
        "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13,
        "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18,
        "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
        "seventy": 70, "eighty": 80, "ninety": 90, "and": 0,
    }  # fmt: skip
    words = text.replace("-", " ").replace("one hundred", "").split()
    return 100 * ("hundred" in text) + sum(parts[word] for word in words)


@pytest.mark.parametrize(
    ("query", "call"),
    [
        ("half volume", "set(sound.volume, 50)"),  # not named as a number
        ("from 40 to 40", "set(sound.volume, 40)"),  # named twice
        ("screen off after two hours", "set(power.screen_off_battery, 120)"),  # other unit
        ("full blast, 100", "set(sound.volume, 100)"),  # the words say which number
        ("144 hz please", "set(display.refresh_rate, 144)"),  # a choice, not a level
        ("zoom to 4.5 or 5:30", "set(mouse.speed, 5)"),  # part of another number
        ("set that one", "set(mouse.speed, 1)"),  # a pronoun
        ("volume at 150 percent", "none()"),
    ],
)
def test_a_number_is_left_alone_where_another_would_be_wrong(query: str, call: str) -> None:
    for seed in range(20):
        assert vary_number(query, call, CATALOG, np.random.default_rng(seed)) == (query, call)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "zero"), (13, "thirteen"), (20, "twenty"), (45, "forty-five"), (100, "one hundred"),
        (101, "one hundred and one"), (225, "two hundred and twenty-five"),
        (1000, "one thousand"), (1050, "one thousand and fifty"), (1600, "sixteen hundred"),
    ],
)  # fmt: skip
def test_number_words_by_hand(value: int, words: str) -> None:
    assert number_words(value) == words


@pytest.mark.parametrize(
    ("query", "value", "span"),
    [
        ("volume 40", 40, (7, 9)),
        ("volume 40%", 40, (7, 9)),
        ("volume 140", 40, None),
        ("forty five percent", 45, (0, 10)),
        ("forty five percent", 40, None),
        ("a hundred and fifty percent", 150, (0, 19)),
        ("one hundred twenty five", 125, (0, 23)),
        ("wait 10min", 10, (5, 7)),
        ("3 or three", 3, None),
    ],
)
def test_a_number_is_found_where_it_stands_alone(
    query: str, value: int, span: tuple[int, int] | None
) -> None:
    assert find_number(query, value) == span
