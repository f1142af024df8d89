"""Formulas of a Markdown page: as they are written, and as CommonMark hands them to a reader.

A formula stands in a ```` ```math ```` fence, or in a line as a code span between dollars; the
forge draws both, and CommonMark changes nothing in code. Between bare dollars it takes `_` for
emphasis, `\\,` for a comma, and a renderer gets another formula than the page has.
"""

import re

from markdown_it import MarkdownIt

FENCE = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```$", re.M | re.S)
INLINE = re.compile(r"\$`([^`]*)`\$")
COMMAND = re.compile(r"\\([a-zA-Z]+|.)")


def written(page: str) -> list[str]:
    """Return the formulas of a page as its source has them, by pattern alone."""
    fences = [body.rstrip("\n") for language, body in FENCE.findall(page) if language == "math"]
    return fences + INLINE.findall(FENCE.sub("", page))


def converted(page: str) -> tuple[list[str], list[str]]:
    """Return the formulas of a page after CommonMark, and the texts that still hold a dollar."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    fences = [t.content.rstrip("\n") for t in tokens if t.type == "fence" and t.info == "math"]
    inline, stray = [], []
    for token in tokens:
        children = token.children or []
        texts = [child.content if child.type == "text" else "" for child in children]
        for i in range(1, len(children) - 1):
            ends = texts[i - 1].endswith("$") and texts[i + 1].startswith("$")
            if children[i].type == "code_inline" and ends:
                inline.append(children[i].content)
                texts[i - 1], texts[i + 1] = texts[i - 1][:-1], texts[i + 1][1:]
        stray += [text for text in texts if "$" in text]
    return fences + inline, stray


def faults(formula: str) -> list[str]:
    """Return what a TeX renderer would stumble over: braces, pairs, environments, control words."""
    bare = re.sub(r"\\[{}]", "", formula)
    depth = 0
    for character in bare:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            break
    names = COMMAND.findall(formula)
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", formula) for word in ("begin", "end"))
    return [
        *(["braces"] if depth else []),
        *(["left and right"] if names.count("left") != names.count("right") else []),
        *(["environments"] if begun != ended else []),
        *sorted(set(names) - KNOWN),
    ]


# What both KaTeX and MathJax draw, of what the pages use or may use.
_WORDS = """
alpha approx arg ast bar begin beta binom bmod cap cdot cdots chi circ cos cup Delta delta det
dots downarrow ell emptyset end epsilon eta exists exp forall frac gamma ge geq gg hat in infty
int kappa Lambda lambda langle lceil ldots le left leftarrow Leftrightarrow leftrightarrow leq
lfloor lim ll ln log lVert lvert mapsto mathbb mathbf mathbin mathcal mathrm mathtt max mid min
mu ne neq notin nu odot Omega omega operatorname oplus otimes overline partial perp Phi phi Pi
pi pm prime prod propto psi qquad quad rangle rceil rfloor rho right Rightarrow rightarrow rVert
rvert setminus Sigma sigma sim sin sqrt star subset subseteq sum tag tanh tau text Theta theta
tilde times to top underbrace uparrow varepsilon xi zeta
"""
KNOWN = set(_WORDS.split()) | set(",;:!{}_\\| %")
