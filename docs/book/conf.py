"""Sphinx's configuration: it reads README.md, docs/*.md and the docstrings of both faces."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from mu_ref import __version__  # noqa: E402

project, author = "mu-ref", "The mu-ref contributors"
copyright = "the mu-ref contributors; licence: Apache-2.0"
version = release = __version__
extensions = [
    "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode",
    "docs.book.formulas", "docs.book.contents",
]  # fmt: skip
root_doc = "README"
# pages link to those of the data, which lie beside it
include_patterns = ["README.md", "docs/*.md", "docs/book/api.md", "mu_ref/**/README.md",
                    "npu_sim/**/README.md"]  # fmt: skip
html_theme = "furo"
html_title = f"mu-ref {version}"
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False
myst_heading_anchors = 4  # the links of the pages are those of the forge
suppress_warnings = ["misc.highlighting_failure"]  # a quotation may begin inside a function
autodoc_typehints = "description"
autodoc_member_order = "bysource"
