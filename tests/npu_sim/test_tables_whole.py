"""Nothing of a table is cut on a screen of 80 columns: texts fold, digits stay."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from npu_sim.cli.options import _shown
from npu_sim.evidence.headline.figures import N_PARTS, headline
from npu_sim.show.tables import print_table


def printed(table: Table, width: int) -> str:
    out = io.StringIO()
    print_table(Console(file=out, width=width, markup=False, highlight=False), table)
    return out.getvalue()


@pytest.mark.parametrize("width", [10, 40, 80])
def test_a_table_wider_than_the_screen_keeps_every_digit(width):
    table = Table(box=None, pad_edge=False)
    table.add_column("a long text", no_wrap=False)
    numbers = [f"{10**9 + n:,}" for n in range(9)]
    for n in range(9):
        table.add_column(f"column {n}", justify="right", no_wrap=True)
    table.add_row("decoder.0.self_attention.output_projection of some model", *numbers)
    out = printed(table, width)
    assert "…" not in out
    assert all(number in out for number in numbers)
    assert "decoder.0.self_attention.output_projection" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "tiny", "--by", "site"), ("speculate", "tiny", "--beam-width", "1,2"),
        ("hardware", "list"), ("hardware", "show", "h100"), ("compare", "m1-max", "h100"),
        ("sensitivity", "tiny"),
    ],
)  # fmt: skip
def test_no_command_cuts_a_table_at_80_columns(npu_sim, monkeypatch, arguments):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("npu_sim.cli.options.WIDE", 80)
    code, out, _ = npu_sim(*arguments)
    assert code == 0
    assert "…" not in out


@pytest.mark.parametrize(
    ("value", "text"),
    [(47_088_000_000, "47.088 G"), (8_388_608, "8.388608 M"), (37670400000.0, "37.67 G"),
     (999_999, "999,999"), (-2.5e9, "-2.5 G"), (0.12345, "0.1235"), (True, "True"),
     ("os", "os"), (float("inf"), "inf")],
)  # fmt: skip
def test_numbers_of_a_table_have_prefixes(value, text):
    assert _shown(value, "") == text


def test_a_headline_says_when_each_of_its_parts_is_done(monkeypatch):
    for part in ("mu_times", "twins", "speedups", "table3"):
        monkeypatch.setattr(f"npu_sim.evidence.headline.figures.{part}", dict)
    monkeypatch.setattr("npu_sim.evidence.headline.figures.mu_speedups", lambda _: [])
    done = []
    headline(progress=lambda: done.append(1))
    assert len(done) == N_PARTS
