"""Files in: one reader for each format; every fault is one line with file, place, rule and fix."""

import csv
import io
import json
import os
import stat
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mu_ref.border.text import text_of_cell
from mu_ref.errors import InputError, MuRefError

__all__ = [
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
    try:
        data = _read_bytes(path)
    except FileNotFoundError as fault:
        raise error(f"{path} must be {what}; there is no such file") from fault
    except IsADirectoryError as fault:
        raise error(f"{path} must be {what}, got a folder; name a file in it") from fault
    except (OSError, ValueError) as fault:  # ValueError: a NUL in the name
        reason = getattr(fault, "strerror", None) or fault
        raise error(f"{path} must be {what}; it cannot be read: {reason}") from fault
    largest = MAX_TEXT_BYTES if Path(path).is_file() else MAX_STREAM_BYTES
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


def _read_bytes(path: Path | str) -> bytes:
    """Read a file, a pipe or a device, up to one byte more than is allowed.

    Raises:
        OSError: it cannot be read; a pipe that nobody writes to, where `open` would wait for ever.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        kind = os.fstat(handle).st_mode
        if stat.S_ISREG(kind) or os.name != "posix":
            return file.read(MAX_TEXT_BYTES + 1)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError
        first = b""
        if stat.S_ISFIFO(kind):
            with suppress(BlockingIOError):  # somebody writes, but has not begun
                first = os.read(handle, 2**16)
                if not first:
                    raise OSError(None, "it is a pipe, and nobody writes to it")
        os.set_blocking(handle, True)
        return first + file.read(MAX_STREAM_BYTES + 1 - len(first))


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

    def pairs(found: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(found)
        if len(values) < len(found):
            names = [name for name, _ in found]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the key {twice!r} stands twice")
        return values

    def constant(name: str) -> float:
        raise ValueError(f"{name} is no number of JSON")

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
        if r"\u" in text:
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
