"""Nothing unrun is documentation: chapters are executed, quotations compared, numbers resolved."""

import ast
import contextlib
import dataclasses
import io
import re
from pathlib import Path

import pytest

import mu_ref
from mu_ref.config import ModelConfig, StackConfig
from mu_ref.redrafter.config import DrafterConfig
from tests.faults.commands import commands

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCS, ROOT / "README.md"]
SOURCES = [p for package in ("mu_ref", "npu_sim") for p in sorted((ROOT / package).rglob("*.py"))]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"(?<!\w)\(([1-9]\.\d{1,2})\)")  # (3.1), not dtype(3.1)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_python_block_runs_and_prints_what_the_page_says(page: Path) -> None:
    namespace: dict[str, object] = {}
    printed = ""
    for language, flags, body in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python" and "file=" not in flags:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(body, str(page), "exec"), namespace)
            printed = out.getvalue()
        elif language == "text" and "output" in flags:
            assert printed == body, f"{page.name}: a block prints\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_quotation_stands_in_the_source(page: Path) -> None:
    for language, flags, body in BLOCK.findall(page.read_text(encoding="utf-8")):
        quoted = re.search(r"file=(\S+)", flags)
        if language == "python" and quoted:
            source = (ROOT / quoted[1]).read_text(encoding="utf-8")
            assert body.strip("\n") in source, f"{page.name} misquotes {quoted[1]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_and_named_file_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    for link in links:
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
    for name in re.findall(r"`((?:mu_ref|npu_sim|tests|docs)/[\w/.-]+\.\w+)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_every_command_is_used_on_a_page() -> None:
    text = " ".join(page.read_text(encoding="utf-8") for page in DOCS)
    unused = [name for name in commands() if not re.search(rf"\b{name}(?![\w-])", text)]
    assert not unused


def test_every_file_that_the_source_names_in_docs_exists() -> None:
    for path in SOURCES:
        for name in re.findall(r"`(docs/[\w.-]+\.md)`", path.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{path.name} names {name}"


def test_every_equation_cited_in_the_source_is_in_the_docs_and_the_other_way_round() -> None:
    pages = [p for p in DOCS if p.name[0].isdigit() or p.name in ("integer.md", "validation.md")]
    chapters = "\n".join(p.read_text(encoding="utf-8") for p in pages)
    numbered = set(re.findall(r"\\tag\{(\d+\.\d+)\}", chapters))
    cited = {n for p in SOURCES for n in NUMBER.findall(p.read_text(encoding="utf-8"))}
    assert numbered
    assert cited == numbered


def test_the_glossary_names_every_configuration_field() -> None:
    glossary = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    names = [
        f.name
        for kind in (ModelConfig, StackConfig, DrafterConfig)
        for f in dataclasses.fields(kind)
    ]
    assert [name for name in names if f"`{name}`" not in glossary] == []


def _lines(path: str, function: str) -> int:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function]
    assert len(found) == 1, f"{path} has no single {function}"
    assert found[0].end_lineno is not None
    return found[0].end_lineno - found[0].lineno + 1


def test_the_path_from_the_readme_to_the_attention_formula_is_at_most_250_lines() -> None:
    readme = len((ROOT / "README.md").read_text(encoding="utf-8").splitlines())
    path = [("mu.py", "forward"), ("mu.py", "remember"), ("decoder.py", "decoder_block"),
            ("attention.py", "attend")]  # fmt: skip
    assert readme <= 140
    assert readme + sum(_lines(f"mu_ref/model/{file}", name) for file, name in path) <= 250


def test_chapters_stand_in_the_order_of_the_map_and_each_leads_to_its_neighbours() -> None:
    rows = re.findall(
        r"^\| \[([^\]]+)\]\(([\w.]+)\) \|", (ROOT / "docs/00_map.md").read_text("utf-8"), re.M
    )
    story = [("The map", "00_map.md"), *rows]
    numbered = [file for _, file in story if file[0].isdigit()]
    assert numbered == sorted(path.name for path in DOCS if path.name[0].isdigit())
    for n, (_, file) in enumerate(story[1:], start=1):
        around = [("Previous", *story[n - 1])]
        around += [("Next", *story[n + 1])] if n + 1 < len(story) else []
        leads = " \u00b7 ".join(f"{way}: [{name}]({to})" for way, name, to in around)
        text = (ROOT / "docs" / file).read_text(encoding="utf-8")
        assert text.endswith(f"\n---\n\n{leads} \u00b7 [Map](00_map.md)\n"), file
        assert "**The question.**" in text, file
        if file[0].isdigit():  # a chapter ends with something to do, and an answer that runs
            exercise = text.partition("\n## Exercise")[2]
            assert "<details>" in exercise, file
            assert "```python" in exercise, file


def test_every_step_of_a_walk_names_a_file_and_what_stands_in_it() -> None:
    text = (ROOT / "docs/contributing.md").read_text(encoding="utf-8")
    walks = re.split(r"^### ", text.split("## How to add")[0], flags=re.M)[1:]
    assert len(walks) == 6
    for walk in walks:
        steps = re.findall(r"^(\d)\. `([\w/.-]+)`(?:, `([\w.]+)`)?", walk, flags=re.M)
        assert [int(number) for number, *_ in steps] == list(range(1, len(steps) + 1))
        assert 4 <= len(steps) <= 7, walk.splitlines()[0]
        for _, file, name in steps:
            source = (ROOT / file).read_text(encoding="utf-8")
            if file.endswith(".py"):
                for part in name.split("."):
                    there = re.search(rf"(def|class) {part}\b|^ +{part}\b", source, re.M)
                    assert there, f"{file} must hold {name}"
            else:
                assert name.rpartition(".")[2] in source, (file, name)


def test_the_citation_has_the_version_of_the_package() -> None:
    cited = re.search(
        r", version: ([^,]+),", (ROOT / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert cited is not None
    assert cited[1] == mu_ref.__version__
    changes = (ROOT / "docs/changelog.md").read_text(encoding="utf-8")
    assert f"## {mu_ref.__version__}" in changes
