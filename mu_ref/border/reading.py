"""Files in: one reader for each format; every fault is one line with file, place, rule and fix."""

import csv
import hashlib
import io
import json
import math
import os
import stat
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from mu_ref.border.text import short, text_of_cell
from mu_ref.errors import InputError, MuRefError

__all__ = [
    "exact_fields",
    "file_digest",
    "opened",
    "parse_json",
    "parse_toml",
    "read_csv",
    "read_json",
    "read_json_lines",
    "read_text",
    "read_toml",
]

MAX_TEXT_BYTES = 2**28  # of a text file
MAX_STREAM_BYTES = 2**26  # of a pipe or a device, of which some never end
Error = type[MuRefError]


@contextmanager
def opened(
    path: Path | str, what: str, error: Error = InputError, *, regular: bool = False
) -> Iterator[io.BufferedReader]:
    """Open a file for reading; faults of opening and of reading are one line.

    A named pipe that nobody writes to reads as empty, instead of waiting for ever.

    Args:
        path: of the file.
        what: it must be, for messages: "a TOML file of an NPU".
        error: class to raise.
        regular: the reader jumps about in the file, which a pipe or a device does not allow.

    Yields:
        The open file.

    Raises:
        MuRefError: (or `error`) no such file, a folder, a pipe or device, or not readable.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if regular and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise error(f"{path} must be {what}, got a pipe or a device; name a file")
            yield file
    except FileNotFoundError as fault:
        raise error(f"{path} must be {what}; there is no such file") from fault
    except IsADirectoryError as fault:
        raise error(f"{path} must be {what}, got a folder; name a file in it") from fault
    except OSError as fault:
        reason = fault.strerror or fault
        raise error(f"{path} must be {what}; it cannot be read: {reason}") from fault
    except ValueError as fault:
        if isinstance(fault, MuRefError):
            raise
        raise error(f"{path} must be {what}; it cannot be read: {fault}") from fault


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for a writer, then read as usual."""
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    os.set_blocking(handle, True)
    return handle


def file_digest(
    path: Path | str, what: str = "a file that can be read again", error: Error = InputError
) -> str:
    """Return the SHA-256 of a file's content; refused as by `opened`, devices and pipes too."""
    with opened(path, what, error, regular=True) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path | str, what: str, error: Error = InputError) -> str:
    """Read a text file in UTF-8, with or without a byte-order mark.

    Args:
        path: of the file.
        what: it must be, for messages: "a TOML file of an NPU".
        error: class to raise.

    Returns:
        The text.

    Raises:
        MuRefError: (or `error`) no such file, a folder, not readable, too large, or not UTF-8.
    """
    with opened(path, what, error) as file:
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        largest = MAX_TEXT_BYTES if regular else MAX_STREAM_BYTES
        data = file.read(largest + 1)
    if len(data) > largest:
        raise error(f"{path} must be {what} of at most {largest:,} bytes, got more")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = data[: fault.start].count(b"\n") + 1
        raise error(
            f"{path}:{line} must be text in UTF-8, got the byte 0x{data[fault.start]:02x}; "
            "save the file in UTF-8"
        ) from fault


def _pairs(found: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(found)
    if len(values) < len(found):
        twice = min(name for name, n in Counter(name for name, _ in found).items() if n > 1)
        raise ValueError(f"the key {short(twice)} stands twice")
    return values


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _number(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{short(digits)} is too large a number")
    return value


DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_number)


def read_json(path: Path | str, what: str, error: Error = InputError) -> Any:
    """Read a JSON file; see `parse_json` for what is refused."""
    return parse_json(read_text(path, what, error), str(path), what, error)


def parse_json(text: str, where: str, what: str, error: Error = InputError) -> Any:
    """Parse JSON, strictly: a text has one meaning or none.

    Args:
        text: the JSON.
        where: file, or file and line, for messages.
        what: it must be.
        error: class to raise.

    Returns:
        The value.

    Raises:
        MuRefError: (or `error`) not JSON; a key that stands twice; NaN or Infinity; numbers of
            thousands of digits; nesting without end; half of a surrogate pair.
    """
    try:
        value = DECODER.decode(text)
        if r"\u" in text or not text.isascii():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError as fault:
        raise error(f"{where} must be {what}, got brackets nested too deep to read") from fault
    except UnicodeEncodeError as fault:
        raise error(f"{where} must be {what}, got half of a surrogate pair (\\ud800)") from fault
    except json.JSONDecodeError as fault:
        place = f"line {fault.lineno}, column {fault.colno}"
        raise error(f"{where} must be {what}, got no JSON at {place}: {fault.msg}") from fault
    except ValueError as fault:
        reason = str(fault).split(";")[0]
        raise error(f"{where} must be {what}, got JSON that cannot be read: {reason}") from fault
    return value


def exact_fields(
    kind: type, data: Any, where: str, error: Error = InputError, optional: Collection[str] = ()
) -> dict[str, Any]:
    """Check that a JSON value is an object with exactly the fields of a dataclass.

    Args:
        kind: the dataclass.
        data: what `parse_json` gave.
        where: it stands, for messages.
        error: class to raise.
        optional: fields that may be missing.

    Returns:
        `data`, unchanged.

    Raises:
        MuRefError: (or `error`) no object, or a field is missing or unknown.
    """
    if not isinstance(data, dict):
        raise error(f"{where} must be a JSON object, got {type(data).__name__}")
    names = {field.name for field in fields(kind)}
    missing, unknown = sorted(names - set(data) - set(optional)), sorted(set(data) - names)
    if missing or unknown:
        raise error(
            f"{where} must have exactly its fields; missing {missing}, got {short(unknown)}"
        )
    return data


def read_toml(path: Path | str, what: str, error: Error = InputError) -> dict[str, Any]:
    """Read a TOML file; see `parse_toml`."""
    return parse_toml(read_text(path, what, error), str(path), what, error)


def parse_toml(text: str, where: str, what: str, error: Error = InputError) -> dict[str, Any]:
    """Parse TOML.

    Args:
        text: the TOML.
        where: the file, for messages.
        what: it must be.
        error: class to raise.

    Returns:
        The tables.

    Raises:
        MuRefError: (or `error`) not TOML, nested without end, or a number of thousands of digits.
    """
    try:
        return tomllib.loads(text)
    except RecursionError as fault:
        raise error(f"{where} must be {what}, got brackets nested too deep to read") from fault
    except ValueError as fault:  # TOMLDecodeError is one
        raise error(f"{where} must be {what}, got no TOML: {str(fault).split(';')[0]}") from fault


def read_json_lines(
    path: Path | str, what: str, error: Error = InputError
) -> Iterator[tuple[str, Any]]:
    """Read a file of JSON lines.

    Args:
        path: of the file.
        what: each line must be, for messages.
        error: class to raise.

    Yields:
        ("FILE:LINE", value) of each line that is not blank.

    Raises:
        MuRefError: (or `error`) see `read_text` and `parse_json`; names file and line.
    """
    lines = read_text(path, f"a file of lines, each {what}", error).split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}:{number}"
            yield where, parse_json(line, where, what, error)


def read_csv(
    path: Path | str, what: str, error: Error = InputError
) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """Read a CSV file whose first line names the columns.

    Args:
        path: of the file.
        what: it must be, for messages.
        error: class to raise.

    Returns:
        The columns, and ("FILE:LINE", {column: text}) of each row that is not blank.

    Raises:
        MuRefError: (or `error`) see `read_text`; no columns; a column that stands twice; a row of
            another length; a quote that does not end.
    """
    text = io.StringIO(read_text(path, what, error), newline="")  # a line ends where CSV ends one
    reader = csv.reader(text, strict=True)
    columns: list[str] = []
    rows: list[tuple[str, dict[str, str]]] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            where = f"{path}:{reader.line_num}"
            if not columns:
                columns = [cell.strip() for cell in row]
                twice = {name for name in columns if columns.count(name) > 1}
                if twice:
                    raise error(f"{where}: a column must stand once, got {min(twice)!r} twice")
            elif len(row) != len(columns):
                raise error(f"{where} must have {len(columns)} cells, got {len(row)}")
            else:
                rows.append((where, dict(zip(columns, map(text_of_cell, row), strict=True))))
    except csv.Error as fault:
        raise error(f"{path}:{reader.line_num} must be {what}, got no CSV: {fault}") from fault
    if not columns:
        raise error(f"{path} must be {what}, with a line of column names; it is empty")
    return columns, rows
