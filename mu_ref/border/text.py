"""Text that came from a user, shown as it is: no terminal, chart or spreadsheet acts on it."""

import json
import sys
from collections.abc import Iterable
from math import isfinite
from typing import Any

__all__ = [
    "csv_cell", "csv_line", "json_text", "mathless", "printable", "short", "text_of_cell", "warn",
]  # fmt: skip

FORMULA = tuple("=+-@\t\r")  # what a spreadsheet takes for the beginning of one
QUOTED = frozenset(',"\r\n')  # what asks for quotes around a cell of CSV
SHOWN = 60  # characters of a refused value that a message repeats


def printable(text: str) -> str:
    r"""Return a text whose control characters and lone surrogates are written as escapes.

    >>> from mu_ref.border.text import printable
    >>> print(printable("a\x1b[31mb\n"))
    a\x1b[31mb\n
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def mathless(text: str) -> str:
    r"""Return a text for Matplotlib, which would set what stands between dollars as a formula.

    >>> from mu_ref.border.text import mathless
    >>> print(mathless("$x$"))
    \$x\$
    """
    return printable(text).replace("$", r"\$")


def csv_cell(text: str) -> str:
    """Return a cell of text that no spreadsheet takes for a formula.

    >>> from mu_ref.border.text import csv_cell
    >>> csv_cell("=1+1"), csv_cell("mu-330m")
    ("'=1+1", 'mu-330m')
    """
    return f"'{text}" if text.lstrip("'").startswith(FORMULA) else text


def csv_line(cells: Iterable[str]) -> str:
    r"""Return a line of a CSV file, its end included, with quotes around cells that need them.

    >>> from mu_ref.border.text import csv_line
    >>> csv_line(["a", "b,c", 'd"e'])
    'a,"b,c","d""e"\n'
    """
    quoted = [
        cell if QUOTED.isdisjoint(cell) else '"{}"'.format(cell.replace('"', '""'))
        for cell in cells  # `csv.writer` leaves a \r bare where lines end in \n alone
    ]
    return ",".join(quoted) + "\n"


def json_text(data: Any, indent: int | None = None) -> str:
    """Return JSON that every reader takes: null where a number is not finite.

    >>> from mu_ref.border.text import json_text
    >>> json_text({"speed": float("nan")})
    '{"speed": null}'
    """
    return json.dumps(_finite(data), indent=indent, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _finite(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not isfinite(data) else data


def text_of_cell(cell: str) -> str:
    """Return the text that `csv_cell` has made a cell of.

    >>> from mu_ref.border.text import csv_cell, text_of_cell
    >>> [text_of_cell(csv_cell(text)) for text in ("=1+1", "'=1", "it's", "'tis")]
    ['=1+1', "'=1", "it's", "'tis"]
    """
    return cell[1:] if cell[:1] == "'" and cell.lstrip("'").startswith(FORMULA) else cell


def warn(text: str) -> None:
    """Print a warning as one line on stderr, where no output is."""
    sys.stderr.write(f"warning: {printable(text)}\n")


def short(value: Any) -> str:
    """Return a value as Python writes it, cut where it would fill the screen.

    >>> from mu_ref.border.text import short
    >>> short("40 %"), len(short("a" * 1000))
    ("'40 %'", 60)
    """
    try:
        text = repr(value)
    except ValueError:
        return "an integer of thousands of digits"
    except RecursionError:
        return "brackets nested too deep to show"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
