"""One value of a file at a time, replaced by what does not belong there."""

import json
import random
from collections.abc import Iterator
from typing import Any, TypeVar

__all__ = ["NEVER", "PERHAPS", "UNREADABLE", "changed_json", "drawn", "fields_of", "is_number",
           "with_pair", "wrong_kinds"]  # fmt: skip

T = TypeVar("T")

DEEP = "[" * 10**5 + "]" * 10**5

# (what it is, JSON): no reader may take these, wherever they stand
UNREADABLE = (
    ("NaN", "NaN"), ("-Infinity", "-Infinity"), ("5,000 digits", "9" * 5000),
    ("half a surrogate", '"\\ud800"'), ("nested without end", DEEP), ("nothing", ""),
)  # fmt: skip
# no field that means something may hold these
NEVER = (
    ("1e999", "1e999"), ("2^70", str(2**70)), ("-10^30", str(-(10**30))), ("an object", '{"a": 1}'),
    ("a list in a list", "[[1]]"),
)  # fmt: skip
PERHAPS = (
    ("null", "null"), ("true", "true"), ("-1", "-1"), ("0", "0"), ("1.5", "1.5"), ('"x"', '"x"'),
    ('"7"', '"7"'), ("an empty text", '""'), ("an empty list", "[]"), ("an empty object", "{}"),
    ("2^53", str(2**53)), ("10^7", str(10**7)), ("1e-320", "1e-320"), ("-0.0", "-0.0"),
)  # fmt: skip

MARK = "@@@"


def fields_of(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield path and value of everything in nested objects and lists."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in pairs:
        yield (*path, key), value
        if isinstance(value, dict | list):
            yield from fields_of(value, (*path, key))


def changed_json(data: Any, path: tuple[Any, ...], text: str) -> str:
    """Return JSON in which the text stands in the place of a value."""
    copy = json.loads(json.dumps(data))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = MARK
    return json.dumps(copy).replace(f'"{MARK}"', text)


def with_pair(data: Any, path: tuple[Any, ...], pair: str) -> str:
    """Return JSON in which one more `"key": value` stands in the object that holds a path."""
    first = json.dumps({MARK: MARK})[1:-1]
    copy = json.loads(json.dumps(data))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[MARK] = MARK
    return json.dumps(copy).replace(first, pair)


def without(data: Any, path: tuple[Any, ...]) -> str:
    """Return JSON without a value."""
    copy = json.loads(json.dumps(data))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return json.dumps(copy)


def wrong_kinds(value: Any) -> tuple[str, ...]:
    """Of `PERHAPS`, what is of another kind than a value, or a negative count."""
    if isinstance(value, bool):
        return ("-1", "1.5", '"x"', '"7"', '""', "[]", "{}", str(2**53), "1e-320")
    if isinstance(value, int):
        return ("true", "-1", "1.5", '"x"', '"7"', '""', "[]", "{}", "1e-320")
    if value is None or isinstance(value, float):
        return ("true", '"x"', '"7"', '""', "[]", "{}")
    if isinstance(value, str):
        return ("true", "-1", "0", "1.5", "[]", "{}", "null", "-0.0", "1e-320")
    return ("true", "-1", "0", "1.5", '"x"', '"7"', '""', "-0.0")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def drawn(rng: random.Random, items: list[T], n: int) -> list[T]:
    """Draw up to n of them, in their order."""
    kept = set(rng.sample(range(len(items)), min(n, len(items))))
    return [item for i, item in enumerate(items) if i in kept]
