"""The order of the book: that of its map, then both faces and what the map leaves out.

The pages do not know that they are a book. The list of contents is added to README.md as Sphinx
reads it, and the names of both packages to `docs/book/api.md`.
"""

import re
from importlib import import_module
from inspect import isclass
from pathlib import Path
from typing import Any

__all__ = ["setup"]

ROOT = Path(__file__).parents[2]
API = "docs/book/api"
MAP = Path("docs/00_map.md")


def contents(root: Path = ROOT) -> str:
    """Return MyST's list of contents: the parts of the map in order, then what it leaves out."""
    pages = sorted(path.stem for path in (root / "docs").glob("*.md"))
    _, *parts = re.split(r"^## ", (root / MAP).read_text(encoding="utf-8"), flags=re.M)
    captions = {"": [MAP.stem]}
    for part in parts:
        caption, _, body = part.partition("\n")
        known = [name for names in captions.values() for name in names]
        linked = dict.fromkeys(re.findall(r"\]\((\w+)\.md\)", body))
        captions[caption] = [name for name in linked if name in pages and name not in known]
    listed = {name for names in captions.values() for name in names}
    beside = sorted(
        path.relative_to(root).with_suffix("").as_posix()
        for package in ("mu_ref", "npu_sim")
        for path in (root / package).rglob("README.md")
    )
    entries = {
        caption: [f"docs/{n}" for n in names] for caption, names in captions.items() if names
    }
    entries["Reference"] = [API, *(f"docs/{n}" for n in pages if n not in listed), *beside]
    text = ""
    for caption, names in entries.items():
        head = ["", "```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else []), ""]
        text += "\n".join([*head, *names, "```", ""])
    return text


def faces() -> str:
    """Return directives for every public name of both packages."""
    text = ""
    for package in ("mu_ref", "npu_sim"):
        face = import_module(package)
        text += f"\n## {package}\n\n{(face.__doc__ or '').splitlines()[0]}\n"
        for name in face.__all__:
            kind = "autoclass" if isclass(getattr(face, name)) else "autofunction"
            home = f"{package}.{face.HOMES[name]}"
            members = "\n   :members:" if kind == "autoclass" else ""
            text += f"\n### {name}\n\n```{{eval-rst}}\n.. {kind}:: {home}.{name}{members}\n```\n"
    return text


def _add(app: Any, name: str, text: list[str]) -> None:
    if name == app.config.root_doc:
        text[0] += contents()
    if name == API:
        text[0] += faces()


def _front_door(app: Any, error: Exception | None) -> None:
    """A browser opens index.html."""
    if error is None:
        from mu_ref.border.files import write_text

        page = f'<meta http-equiv="refresh" content="0; url={app.config.root_doc}.html">\n'
        write_text(Path(app.outdir) / "index.html", f"<!doctype html><title>mu-ref</title>{page}")


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", _add)
    app.connect("build-finished", _front_door)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
