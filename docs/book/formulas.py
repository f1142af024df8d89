r"""Formulas as MathML, which browsers draw by themselves: no script, no font, no network.

The forge's forms are understood: a fence marked `math`, with `\tag{1.1}`, and code between dollars.
"""

import re
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from latex2mathml.converter import convert

__all__ = ["setup", "spans_as_roles", "without_tag"]

FENCE = re.compile(r"^( *```.*?^ *```[^\n]*$)", re.M | re.S)
SPAN = re.compile(r"\$`([^`]*)`\$")
TAG = re.compile(r"\s*\\tag\{([^}]*)\}")
DOCSTRING = re.compile(
    r"^(?P<indent> *)\$\$(?P<tex>.*?)\$\$ *\((?P<number>[\d.]+)\) *$", re.M | re.S
)


def spans_as_roles(page: str) -> str:
    """Turn code between dollars into MyST's role, outside fences."""
    parts = FENCE.split(page)
    return "".join(part if i % 2 else SPAN.sub(r"{math}`\1`", part) for i, part in enumerate(parts))


def without_tag(tex: str) -> tuple[str, str]:
    """Return a formula and its number, which may be empty."""
    found = TAG.search(tex)
    return TAG.sub("", tex), found[1] if found else ""


def mathml(tex: str, *, display: bool) -> str:
    r"""Convert a formula; what the converter does not know is an error, not a word in it.

    Of what has lines it knows `align` and `matrix`; it keeps the backslash of `\_` in `\text`.
    """
    plain = re.sub(r"\\text\{([^{}]*)\}", lambda m: m[0].replace(r"\_", "_"), tex)
    plain = plain.replace("{aligned}", "{align*}").replace("{gathered}", "{matrix}")
    made = convert(plain, display="block" if display else "inline")
    if "\\" in re.sub(r"<[^>]*>", "", made) or ">&<" in made:
        raise ValueError(f"a formula holds what MathML has not: {tex}")
    return made


class Display(Directive):
    """A formula of its own line, with its number to the right."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the node that `visit_display` draws."""
        tex, number = without_tag("\n".join(self.content))
        return [nodes.math_block("", tex, number=number, nowrap=True, docname="", label=None)]


def visit_display(self: Any, node: nodes.math_block) -> None:
    """Draw a formula of its own line."""
    number = node.get("number") or ""
    # an anchor, so that a reader can point to (4.1)
    anchor = f' id="equation-{number.replace(".", "-")}"' if number else ""
    self.body.append(f'<div class="formula"{anchor}><span></span>')
    self.body.append(mathml(node.astext(), display=True))
    self.body.append(f"<span>{f'({number})' if number else ''}</span></div>\n")
    raise nodes.SkipNode


def visit_inline(self: Any, node: nodes.math) -> None:
    """Draw a formula in a line."""
    self.body.append(mathml(node.astext(), display=False))
    raise nodes.SkipNode


def numbered_docstrings(app: Any, what: str, name: str, thing: Any, options: Any,
                        lines: list[str]) -> None:  # fmt: skip
    """Formulas of docstrings become directives."""

    def directive(found: re.Match[str]) -> str:
        indent = found["indent"]
        body = " ".join(found["tex"].split())
        return f"\n{indent}.. math::\n\n{indent}   {body} \\tag{{{found['number']}}}\n"

    lines[:] = DOCSTRING.sub(directive, "\n".join(lines)).split("\n")


STYLE = """
.formula { display: flex; justify-content: space-between; align-items: center; overflow-x: auto;
           margin: 1em 0; gap: 1em; }
article img { background: white; border-radius: 4px; }
"""


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
    app.add_directive("math", Display, override=True)
    app.connect("source-read", lambda app, name, text: text.__setitem__(
        0, spans_as_roles(text[0]).replace("```math\n", "```{math}\n")))  # fmt: skip
    app.connect("autodoc-process-docstring", numbered_docstrings, priority=400)
    app.connect("builder-inited", _style)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _style(app: Any) -> None:
    from pathlib import Path

    from mu_ref.border.files import write_text

    folder = Path(app.outdir) / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "book.css", STYLE)
    app.add_css_file("book.css")
