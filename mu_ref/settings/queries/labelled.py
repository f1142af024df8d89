"""Read, write and split labelled queries: JSON lines of `{"query": ..., "call": ...}`.

Calls are carried as text here and not checked: a file may be scored that was labelled for another
catalog. `calls.parse_call` checks them.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mu_ref.border.files import write_text
from mu_ref.border.reading import read_json_lines
from mu_ref.border.text import short
from mu_ref.errors import InputError
from mu_ref.tokenizer import Tokenizer

__all__ = [
    "LabelledQuery",
    "evenly_spread",
    "folded_text",
    "query_tokens",
    "read_queries",
    "split_key",
    "split_queries",
    "write_queries",
]


T = TypeVar("T")

_APOSTROPHES = re.compile("['\u2019]")

_NOT_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledQuery:
    """Hold one query with the call that answers it."""

    query: str
    call: str  # canonical text, see calls.py


def read_queries(path: Path) -> list[LabelledQuery]:
    """Read a file of labelled queries.

    Blank lines are skipped, keys other than the two are notes of whoever wrote the file, and a
    byte-order mark at the start is allowed, since editors on Windows write one.

    Args:
        path: UTF-8 file, one JSON object a line.

    Returns:
        The queries, in order; at least one.

    Raises:
        InputError: the file cannot be read or holds no query, or a line is not UTF-8, not a JSON
            object, or lacks a string; the message names the file and the line.
    """
    what = "a labelled query in JSON"
    items = [_read_item(where, entry) for where, entry in read_json_lines(path, what, InputError)]
    if not items:
        raise InputError(f"{path} must hold at least one labelled query, got none")
    return items


def evenly_spread(items: list[T], n: int | None) -> list[T]:
    """Return at most n of the items, from the whole length of the list; all with n None."""
    return items if n is None else items[:: max(1, len(items) // n)][:n]


def _read_item(where: str, entry: Any) -> LabelledQuery:
    if not isinstance(entry, dict):
        raise InputError(f"{where} must be a JSON object, got {type(entry).__name__}")
    for key in ("query", "call"):
        if key not in entry:
            raise InputError(f"{where} must have the key {key!r}, got {short(sorted(entry))}")
        if not isinstance(entry[key], str):
            kind = type(entry[key]).__name__
            raise InputError(f"{where}: {key!r} must be a string, got {kind}")
    return LabelledQuery(query=entry["query"], call=entry["call"])


def write_queries(path: Path, items: Iterable[LabelledQuery]) -> None:
    """Write labelled queries, one JSON object a line.

    Args:
        path: file to write; replaced as a whole if it exists.
        items: the queries, in order.
    """
    entries = ({"query": item.query, "call": item.call} for item in items)
    write_text(path, "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in entries))


def split_key(query: str) -> str:
    """Fold a query so that near-identical ones become equal.

    Args:
        query: any text.

    Returns:
        The text in NFKC and lower case, apostrophes dropped, every other run of punctuation and
        white space made one space.
    """
    return _NOT_WORD.sub(" ", folded_text(query)).strip()


def folded_text(query: str) -> str:
    """Return a text in NFKC and lower case, apostrophes dropped."""
    return _APOSTROPHES.sub("", unicodedata.normalize("NFKC", query).lower())


def split_queries(
    items: Iterable[LabelledQuery], share: float = 0.1
) -> tuple[list[LabelledQuery], list[LabelledQuery]]:
    """Split queries into a part to train on and a part to validate on.

    The side depends on the SHA-256 of `split_key(query)` alone, so queries that differ only in
    case, spacing or punctuation share a side, and adding queries never moves another.

    Args:
        items: the queries.
        share: expected fraction to validate on, 0..1.

    Returns:
        (training, validation), each in the order of `items`.
    """
    sides: tuple[list[LabelledQuery], list[LabelledQuery]] = ([], [])
    for item in items:
        digest = hashlib.sha256(split_key(item.query).encode()).digest()
        fraction = int.from_bytes(digest[:8], "big") / 2**64
        sides[fraction < share].append(item)
    return sides


def query_tokens(query: str, tokenizer: Tokenizer) -> list[int]:
    """Turn a query into encoder tokens, eos not included.

    Args:
        query: any text; runs of white space count as one blank.
        tokenizer: the model's.

    Returns:
        Token ids. One blank goes before the text, so that a word is the same token at the start
        as in the middle.
    """
    return tokenizer.encode(" " + " ".join(query.split()))
