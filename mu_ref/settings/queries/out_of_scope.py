"""Make queries that no setting serves, so that training sees what `none()` looks like.

Requests for other programs and other devices, questions of general knowledge, small talk, and
wishes too vague to act on; many name a setting's words without asking for it. Training only.
"""

import re
import tomllib
from functools import cache
from typing import Any

import numpy as np

from mu_ref.settings.catalog import DATA
from mu_ref.settings.queries.labelled import LabelledQuery

__all__ = ["out_of_scope_queries"]


_SLOT = re.compile(r"\{(\w+)\}")


def out_of_scope_queries(rng: np.random.Generator, n: int) -> list[LabelledQuery]:
    """Make queries whose call is `none()`.

    Args:
        rng: makes every choice.
        n: how many.

    Returns:
        `n` lower-case queries; repeats are possible.
    """
    texts = _texts()
    templates, slots = texts["templates"], texts["slots"]

    def fill(match: re.Match[str]) -> str:
        options = slots[match[1]]
        return options[int(rng.random() * len(options))]

    drawn = rng.integers(0, len(templates), n)
    return [LabelledQuery(query=_SLOT.sub(fill, templates[i]), call="none()") for i in drawn]


@cache
def _texts() -> dict[str, Any]:
    return tomllib.loads((DATA / "out_of_scope.toml").read_text(encoding="utf-8"))
