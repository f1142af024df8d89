"""Write files so that nobody ever sees half of one; read texts, JSON and TOML, or say why not."""

import hashlib
import json
import os
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mu_ref.errors import MuRefError

__all__ = [
    "DATA",
    "cache_folder",
    "parse_toml",
    "read_json",
    "read_text",
    "write_text",
    "written_whole",
]

DATA = Path(__file__).parent / "settings" / "data"  # files that come with the package


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; rename it if all went well, else remove it.

    Args:
        path: where the file ends up; replaced if it exists.

    Yields:
        The path to write to.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        mask = os.umask(0)
        os.umask(mask)
        part.chmod(0o666 & ~mask)  # as `open` would have made it; safetensors allows the owner only
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def cache_folder(program: str, sources: Iterable[Path], more: str = "") -> Path:
    """Where compiled kernels are kept: below NUMBA_CACHE_DIR or the user's cache folder.

    Numba notices a changed kernel, but not a changed function that the kernel calls; so the folder
    is named after the text of all of them.

    Args:
        program: whose kernels: "mu-ref".
        sources: every file that they depend on.
        more: what else they depend on.

    Returns:
        A folder; it need not be there yet.
    """
    digest = hashlib.sha256(more.encode())
    for source in sorted(sources):
        digest.update(source.read_bytes())
    given = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    parent = os.environ.get("NUMBA_CACHE_DIR") or Path(given or Path.home() / ".cache") / program
    return Path(parent) / digest.hexdigest()[:16]


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")


def read_text(path: Path, what: str, error: type[MuRefError]) -> str:
    """Read a text file in UTF-8, with or without a byte-order mark.

    Args:
        path: of the file.
        what: it must be, for messages: "a TOML file of an NPU".
        error: class to raise.

    Returns:
        The text.

    Raises:
        MuRefError: (or `error`) no such file, one that cannot be read, or other bytes.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as fault:
        raise error(f"{path} must be {what}; there is no such file") from fault
    except OSError as fault:
        raise error(f"{path} must be {what}; cannot read it ({fault.strerror})") from fault
    except UnicodeDecodeError as fault:
        raise error(f"{path} must be text in UTF-8, got other bytes ({fault})") from fault


def read_json(path: Path, what: str, error: type[MuRefError]) -> Any:
    """Read a JSON file; errors are those of `read_text`, and of a text that is no JSON."""
    try:
        return json.loads(read_text(path, what, error))
    except json.JSONDecodeError as fault:
        raise error(f"{path} must be JSON, got something else ({fault})") from fault


def parse_toml(text: str, what: str, error: type[MuRefError]) -> dict[str, Any]:
    """Parse TOML; `what` it must be is the subject of the message of `error`."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise error(f"{what} must be TOML, got something else ({fault})") from fault
