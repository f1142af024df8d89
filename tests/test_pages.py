"""Every page survives its conversion: formulas reach a renderer as they were written."""

import re
from pathlib import Path

import pytest

from tests.pages import converted, faults, written

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_formula_survives_commonmark(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    after, stray = converted(text)
    assert after == written(text)
    assert stray == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_formula_can_be_set(page: Path) -> None:
    for formula in written(page.read_text(encoding="utf-8")):
        assert faults(formula) == [], formula


def test_a_number_of_an_equation_is_given_once() -> None:
    numbers = [
        number
        for page in PAGES
        for formula in written(page.read_text(encoding="utf-8"))
        for number in re.findall(r"\\tag\{(\d+\.\d+)\}", formula)
    ]
    assert len(numbers) > 50
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(
    ("page", "after", "stray"),
    [
        ("a $`x_{i}*y_{j}`$ b", ["x_{i}*y_{j}"], 0),
        ("```math\na_b \\, c_d\n```\n", ["a_b \\, c_d"], 0),
        ("| a |\n|---|\n| $`x_1`$ |\n", ["x_1"], 0),
        ("a $x*y*z$ b", [], 2),  # emphasis ate the stars
        ("$$a \\, b$$ (1.1)", [], 1),
        ("| a |\n|---|\n| $`|x|`$ |\n", [], 1),  # a bar ends a cell, also in code
    ],
)
def test_conversion_by_hand(page: str, after: list[str], stray: int) -> None:
    found, left = converted(page)
    assert found == after
    assert len(left) == stray


@pytest.mark.parametrize(
    ("formula", "found"),
    [
        (r"\frac{a}{b} \, \{ c \}", []),
        (r"\frac{a}{b", ["braces"]),
        (r"}a{", ["braces"]),
        (r"\left( a", ["left and right"]),
        (r"\begin{aligned} a \end{cases}", ["environments"]),
        (r"\foo a", ["foo"]),
    ],
)
def test_faults_by_hand(formula: str, found: list[str]) -> None:
    assert faults(formula) == found
