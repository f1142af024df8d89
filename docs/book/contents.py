"""The order of the book: chapters by their numbers, then the reference, then both faces.

The pages do not know that they are a book. The list of contents is added to README.md as Sphinx
reads it, and the names of both packages to `docs/book/api.md`.
"""

from importlib import import_module
from inspect import isclass
from pathlib import Path
from typing import Any

__all__ = ["setup"]

ROOT = Path(__file__).parents[2]
API = "docs/book/api"


def contents(root: Path = ROOT) -> str:
    """Return MyST's list of contents."""
    pages = sorted(path.stem for path in (root / "docs").glob("*.md"))
    chapters = [page for page in pages if page[0].isdigit()]
    others = [page for page in pages if not page[0].isdigit()]
    beside = sorted(
        path.relative_to(root).with_suffix("").as_posix()
        for package in ("mu_ref", "npu_sim")
        for path in (root / package).rglob("README.md")
    )
    names = [f"docs/{page}" for page in others]
    parts = {"Chapters": [f"docs/{page}" for page in chapters], "Reference": [API, *names, *beside]}
    text = ""
    for caption, names in parts.items():
        head = ["", "```{toctree}", ":hidden:", f":caption: {caption}", ""]
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
