"""The book holds every page once, in the order of the story; `.ci/run` builds it."""

import re
from pathlib import Path

import mu_ref
import npu_sim
from docs.book.contents import API, contents, faces

ROOT = Path(__file__).parents[1]


def test_every_page_is_in_the_book_once_and_the_map_comes_first() -> None:
    names = re.findall(r"^[\w./-]+$", contents(), re.M)
    pages = {f"docs/{page.stem}" for page in (ROOT / "docs").glob("*.md")}
    data = {"mu_ref/settings/data/README", "npu_sim/data/README"}
    assert names[0] == "docs/00_map"
    assert len(names) == len(set(names))
    assert set(names) == pages | data | {API}
    assert all((ROOT / f"{name}.md").exists() for name in names)


def test_numbered_chapters_are_in_the_order_of_their_numbers() -> None:
    chapters = re.findall(r"^docs/(\d\d)_\w+$", contents(), re.M)
    assert chapters == sorted(chapters)


def test_the_map_gives_parts_and_order_by_hand(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("02_last", "glossary", "01_first", "integer", "left_out"):
        (tmp_path / f"docs/{name}.md").write_text(f"# {name}\n")
    (tmp_path / "docs/00_map.md").write_text(
        "# The map\nSee the [glossary](glossary.md).\n## A\n[x](01_first.md), [y](integer.md)\n"
        "## B\n[z](02_last.md) [x](01_first.md#again) [x](01_first.md)\n[w](glossary.md)\n"
    )
    found = re.findall(r"^(?::caption: (.*)|(docs/[\w/]+))$", contents(tmp_path), re.M)
    assert [caption or page for caption, page in found] == [
        "docs/00_map", "A", "docs/01_first", "docs/integer", "B", "docs/02_last", "docs/glossary",
        "Reference", API, "docs/left_out",
    ]  # fmt: skip


def test_every_public_name_has_its_place_in_the_reference() -> None:
    shown = re.findall(r"^\.\. auto(class|function):: ([\w.]+)$", faces(), re.M)
    expected = {
        f"{package.__name__}.{home}.{name}"
        for package in (mu_ref, npu_sim)
        for name, home in package.HOMES.items()
    }
    assert {name for _, name in shown} == expected
    assert len(shown) == len(expected)
    assert ("class", "mu_ref.config.ModelConfig") in shown
    assert ("function", "npu_sim.report.fidelity.simulate") in shown
