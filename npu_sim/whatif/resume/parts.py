"""Finished chunks of a sweep, kept on disk while it runs.

The parts lie in a folder that one run holds at a time. Each carries a checksum over its bytes and
over the identity of the sweep, so a part that is damaged, or of another sweep, is none.
Chapter: `docs/whatif.md`.
"""

import json
import os
import platform
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mu_ref.border.files import is_stream, write_text, written_whole
from mu_ref.border.reading import file_digest, opened, read_json
from mu_ref.border.text import short
from mu_ref.errors import InputError
from mu_ref.version import __version__
from npu_sim.errors import SweepError
from npu_sim.whatif.varied.sweep_toml import SweepSpec

try:
    import fcntl
except ImportError:  # Windows: nobody says that another sweep has the folder
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "Parts",
    "check_parts_folder",
    "input_digests",
    "opened_parts",
    "parts_folder",
    "sweep_identity",
    "versions",
]

MARK, LOCK = "sweep.json", "lock"
SEAL = re.compile(rb"[0-9a-f]{64}\n")  # what a part begins with
OURS = re.compile(r"sweep\.json|lock|\d{9}\.csv|\.(sweep\.json|\d{9}\.csv)\.[0-9a-f]{16}\.part")


def input_digests(spec: SweepSpec) -> dict[str, str]:
    """Return a checksum of everything that a sweep reads beside its specification.

    Args:
        spec: the sweep.

    Returns:
        {name: SHA-256}: of the NPU and the model as they were understood, of each file as it is.

    Raises:
        SweepError: a file is no longer there.
    """
    chip, model = spec.base.npu, spec.base.description
    told = {
        f"NPU {chip.name}": [chip.title, chip.values(), dict(chip.sources)],
        f"model {model.name}": asdict(model),
    }
    found = {
        name: sha256(json.dumps(value, sort_keys=True, default=sorted).encode()).hexdigest()
        for name, value in told.items()
    }
    for path in spec.files:
        found[str(path)] = file_digest(path, "a file that stays while a sweep runs", SweepError)
    return found


def versions() -> dict[str, str]:
    """Return what may round otherwise: parts of two versions would not be one sweep."""
    return {
        "mu_ref": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def sweep_identity(spec: SweepSpec, chunk: int) -> dict[str, Any]:
    """Return all that decides the bytes of a sweep's parts."""
    return {
        "specification": spec.text, "checkpoint points": chunk, "inputs": input_digests(spec),
        "versions": versions(),
    }  # fmt: skip


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Name what differs between two identities."""
    found = [name for name in ("specification", "checkpoint points") if old[name] != new[name]]
    for kind in ("inputs", "versions"):
        before, now = old[kind], new[kind]
        found += [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(found)


class Parts:
    """Finished chunks of one sweep, by their first point."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder, self._seed = folder, json.dumps(identity, sort_keys=True).encode()

    def path(self, start: int) -> Path:
        """Where a part lies."""
        return self.folder / f"{start:09d}.csv"

    def read(self, start: int) -> bytes | None:
        """Return the lines of a part; None if it is not there, damaged, or of another sweep."""
        try:
            with opened(self.path(start), "a part of a sweep", regular=True) as file:
                seal, _, lines = file.read().partition(b"\n")
        except InputError:
            return None
        return lines if seal == self._seal(lines) else None

    def write(self, start: int, text: str) -> None:
        """Keep the lines of a part."""
        lines, path = text.encode("utf-8"), self.path(start)
        _make_room(path)
        with written_whole(path) as part:
            part.write_bytes(self._seal(lines) + b"\n" + lines)

    def remove(self) -> None:
        """Remove everything, the folder last."""
        _empty(self.folder)
        with suppress(OSError):
            (self.folder / LOCK).unlink(missing_ok=True)
            self.folder.rmdir()

    def _seal(self, lines: bytes) -> bytes:
        return sha256(self._seed + lines).hexdigest().encode()


def parts_folder(out: Path) -> Path:
    """Return where the parts of a table lie until all are there; links of the table followed."""
    real = Path(os.path.realpath(out))
    return real.with_name(real.name + ".parts")


@contextmanager
def opened_parts(out: Path, identity: Mapping[str, Any]) -> Iterator[Parts]:
    """Hold the parts of a sweep, those of an earlier run included.

    Args:
        out: the table, from `check_parts_folder`; a stream has parts that do not outlive the run.
        identity: from `sweep_identity`.

    Yields:
        The parts.

    Raises:
        SweepError: another run has them, or they belong to another sweep.
    """
    if is_stream(out):
        with TemporaryDirectory() as passing:
            yield Parts(Path(passing), identity)
        return
    folder = parts_folder(out)
    handle = _lock(folder, out)
    try:
        mark = folder / MARK
        old = _read_mark(mark)
        if old is not None and old != identity:
            raise SweepError(
                f"{folder} must hold parts of this sweep, got another {_changed(old, identity)}; "
                f"put it back, delete the folder, or choose another --out"
            )
        if old is None:  # parts of another sweep are none: their checksums say so
            _make_room(mark)
            write_text(mark, json.dumps(_marked(identity), indent=1))
        yield Parts(folder, identity)
    finally:
        os.close(handle)


def check_parts_folder(out: Path) -> None:
    """Refuse, before anything is made in it, a folder of parts that no sweep has written.

    Args:
        out: the table that the folder stands beside.

    Raises:
        SweepError: it is no folder, or something in it is somebody else's.
    """
    folder = parts_folder(out)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise SweepError(
            f"{folder} must be a folder for the parts of a sweep, got something else; move it or "
            f"choose another --out"
        )
    names = sorted(os.listdir(folder)) if folder.exists() else []
    others = [name for name in names if not OURS.fullmatch(name)]
    if others:
        raise SweepError(
            f"{folder} must hold nothing but the parts of a sweep, got {short(others[0])}; move it "
            f"or choose another --out"
        )
    if LOCK in names and not _is_lock(folder / LOCK):
        others = [LOCK]
    elif _read_mark(folder / MARK) is None and not any(map(_is_part, folder.glob("[0-9]*.csv"))):
        others = [name for name in names if name == MARK or name.endswith(".csv")]
    if others:
        raise SweepError(
            f"{folder / others[0]} must be what a sweep has written, got something else; move it "
            f"or choose another --out"
        )


def _is_lock(path: Path) -> bool:
    """Say whether a lock may be that of a sweep, which writes nothing into it."""
    about = path.lstat()
    return stat.S_ISREG(about.st_mode) and about.st_size == 0


def _is_part(path: Path) -> bool:
    """Say whether a file begins as the parts of every sweep do."""
    try:
        with opened(path, "a part of a sweep", regular=True) as file:
            return SEAL.fullmatch(file.read(65)) is not None
    except InputError:
        return False


def _lock(folder: Path, out: Path) -> int:
    """Take the folder; the system gives it back when this process ends, however it ends."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            handle = os.open(folder / LOCK, flags, 0o600)
        except FileNotFoundError:  # a run that ended has removed the folder just now
            continue
        if fcntl is None:
            return handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise SweepError(
                f"--out must be written by one sweep at a time, got {out}, which another is "
                f"writing; wait for it or choose another"
            ) from error
        except OSError:  # a disk that knows no locks
            return handle
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # the run that has ended removed it before it was locked


def _marked(identity: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps(identity, sort_keys=True)
    return {"identity": identity, "checksum": sha256(text.encode()).hexdigest()}


def _read_mark(path: Path) -> dict[str, Any] | None:
    """Read whose the parts are; None if that is not known."""
    try:
        mark = read_json(path, "an identity")
        identity: dict[str, Any] = mark["identity"]
    except (InputError, TypeError, KeyError):
        return None
    return identity if mark == _marked(identity) else None


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != LOCK and OURS.fullmatch(path.name):
            _make_room(path)
            path.unlink(missing_ok=True)


def _make_room(path: Path) -> None:
    """Remove a link or a folder where a file belongs."""
    if path.is_symlink():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
