"""Fields that a user sets by name: `--set decoder.n_layers=4`, and what the text of a value means.

Not here: values with units, which are those of an NPU (`npu_sim/hardware/units.py`).
"""

import re
from collections.abc import Iterable
from typing import Any

from mu_ref.border.text import short
from mu_ref.errors import InputError

__all__ = ["NUMBER", "assignments", "kind_of_field", "plain_value"]

NUMBER = r"[+-]?(?:\d[\d_]*)?\.?\d[\d_]*(?:[eE][+-]?\d{1,3})?"
LONGEST = 40  # characters of a number
WORDS = {"true": True, "false": False, "none": None}


def assignments(texts: Iterable[str], option: str = "--set") -> dict[str, str]:
    """Read texts such as "decoder.n_layers=4".

        >>> from mu_ref.border.overrides import assignments
        >>> assignments(["decoder.n_layers=4", "npu.dma.bytes_per_s = 100 GB/s"])
        {'decoder.n_layers': '4', 'npu.dma.bytes_per_s': '100 GB/s'}

    Args:
        texts: from the command line.
        option: they were given by.

    Returns:
        {field: value}, both as texts.

    Raises:
        InputError: not of that form, or a field stands twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise InputError(
                f"{option} must have the form FIELD=VALUE, got {short(text)}; for example "
                "decoder.n_layers=4"
            )
        if name in found:
            raise InputError(f"{option} must set each field once, got {short(name)} twice")
        found[name] = value
    return found


def plain_value(text: str) -> Any:
    """Return what a text means: true, false, none, a number, or itself.

    >>> from mu_ref.border.overrides import plain_value
    >>> [plain_value(text) for text in ("8", "1_000", "4e-3", "true", "none", "relu")]
    [8, 1000, 0.004, True, None, 'relu']
    """
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if len(text) > LONGEST or not re.fullmatch(NUMBER, text, re.ASCII):
        return text
    try:
        return float(text) if set(text) & set(".eE") else int(text)
    except ValueError:  # two underscores beside each other
        return text


def kind_of_field(value: Any, now: Any) -> Any:
    """Return a value in the kind that a field has now: 100e9 is whole where a whole number is.

    >>> from mu_ref.border.overrides import kind_of_field
    >>> kind_of_field("100e9", 8), kind_of_field("none", 3), kind_of_field("relu", "gelu")
    (100000000000, None, 'relu')
    """
    if isinstance(value, str):
        value = plain_value(value)
    whole = isinstance(value, float) and value.is_integer() and not isinstance(now, float)
    return int(value) if whole else value
