"""The book holds every page once, in the order of the story; `.ci/run` builds it."""

import re
from pathlib import Path

import mu_ref
import npu_sim
from docs.book.contents import API, contents, faces

ROOT = Path(__file__).parents[1]


def test_every_page_is_in_the_book_once_and_chapters_come_first() -> None:
    names = re.findall(r"^[\w./-]+$", contents(), re.M)
    chapters = [name for name in names if re.match(r"docs/\d", name)]
    assert names[: len(chapters)] == sorted(chapters)
    pages = {f"docs/{page.stem}" for page in (ROOT / "docs").glob("*.md")}
    data = {"mu_ref/settings/data/README", "npu_sim/data/README"}
    assert len(names) == len(set(names))
    assert set(names) == pages | data | {API}
    assert all((ROOT / f"{name}.md").exists() for name in names)


def test_chapters_are_in_order_in_a_folder_by_hand(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("10_last", "glossary", "02_second", "00_map"):
        (tmp_path / f"docs/{name}.md").write_text(f"# {name}\n")
    found = re.findall(r"^docs/[\w/]+$", contents(tmp_path), re.M)
    assert found == ["docs/00_map", "docs/02_second", "docs/10_last", API, "docs/glossary"]


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
