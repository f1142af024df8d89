"""Files out, so that nobody sees half of one and none is lost; `reading.py` has files in.

`check_outputs` before any work; then `written_whole`, or `write_text`.
"""

import os
import secrets
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from mu_ref.border.text import short
from mu_ref.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: leftovers of killed runs stay
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "DATA", "RUNS", "check_ending", "check_folder", "check_outputs", "is_stream", "write_picture",
    "write_text", "written_whole",
]  # fmt: skip

RUNS = Path("runs")  # default outputs lie here; the one folder that is made when it is needed
MAX_NAME = 230  # bytes: file systems allow 255, and a temporary has 24 more
MAX_LINKS = 40  # that a name may lead through, as in Linux
PICTURES = (".png", ".svg", ".pdf")
DATA = Path(__file__).parent.parent / "settings" / "data"  # files that come with the package


def check_outputs(
    outputs: Mapping[str, Path | None],
    inputs: Iterable[Path | str | None] = (),
    *,
    pictures: Mapping[str, Path | None] = MappingProxyType({}),
    prints_json: bool = False,
) -> None:
    """Refuse, before any work, outputs that would destroy something or cannot be written.

    Args:
        outputs: {option: path, or None if it was not given}; sidecar files are outputs too.
        inputs: every file that the command reads, or None.
        pictures: outputs too, whose endings say what they are; a stream gets a PNG.
        prints_json: stdout belongs to --json.

    Raises:
        InputError: an output is an input or another output (the same file after links and case), a
            folder, or lies in a folder that is not there or not writable; or it would stand between
            the JSON on stdout; or a picture has another ending.
    """
    inputs = tuple(inputs)
    for given in (*inputs, *outputs.values(), *pictures.values()):
        if given is not None and "\0" in str(given):
            raise InputError(f"a file must have a name without NUL, got {short(str(given))}")
    for option, path in pictures.items():
        if path is not None and not is_stream(path):
            check_ending(option, path, PICTURES)
    read = {_identity(Path(path)): str(path) for path in inputs if path is not None}
    written: dict[tuple[Any, ...], str] = {}
    for option, path in (*outputs.items(), *pictures.items()):
        if path is None:
            continue
        place = _identity(path)
        if prints_json and _descriptor(path) == 1:
            raise InputError(f"{option} must be a file with --json, which prints to stdout")
        if is_stream(path):
            continue
        if place in read:
            raise InputError(f"{option} must not be a file that is read, got {path}; name another")
        if place in written:
            raise InputError(
                f"{option} and {written[place]} must be two files, got {path} for both"
            )
        written[place] = option
        _check_place(option, path)


def _check_place(option: str, path: Path) -> None:
    """Refuse a place where no file can be written."""
    real = Path(os.path.realpath(path))
    made = path.parent == RUNS and not os.path.lexists(RUNS)
    folder = real.parent.parent if made else real.parent
    if len(os.fsencode(real.name)) > MAX_NAME:
        raise InputError(f"{option} must have a name of at most {MAX_NAME} bytes, got {path}")
    if real.is_symlink():
        raise InputError(f"{option} must not be a link that leads to itself, got {path}")
    if path.is_dir():
        raise InputError(f"{option} must be a file, got the folder {path}; name a file in it")
    if not folder.is_dir():
        raise InputError(
            f"{option} must lie in a folder that exists, got {path}; make {folder} first"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{option} must lie in a folder that can be written, got {path}")


def check_folder(folder: Path, what: str, ours: Callable[[Path], bool]) -> None:
    """Refuse, before anything is made in it, a folder for files that holds somebody else's.

    Args:
        folder: a new one, or one that the same command has written to.
        what: its files are, for the message.
        ours: whether the command has written a file; only asked about those in `folder`.

    Raises:
        InputError: it is no folder, cannot be written, or holds something else.
    """
    if not os.path.lexists(folder):
        check_outputs({"DIR": folder})
        return
    if not folder.is_dir():
        raise InputError(f"DIR must be a folder, got the file {folder}; name another")
    for path in sorted(folder.iterdir()):
        if not (path.is_file() and not path.is_symlink() and ours(path)):
            raise InputError(
                f"DIR must be new or hold {what} only, got {folder} with {short(path.name)}; "
                "name another"
            )
    check_outputs({"DIR": folder / "new"})


def check_ending(option: str, path: Path, endings: Sequence[str]) -> None:
    """Raise InputError if a name does not end in one of the formats that can be written."""
    if path.suffix.lower() not in endings:
        raise InputError(f"{option} must end in one of {', '.join(endings)}, got {path}")


def _identity(path: Path) -> tuple[Any, ...]:
    """What tells files apart: the inode where there is one, else the place, links followed."""
    real = Path(os.path.realpath(path))
    with suppress(OSError):
        known = real.stat()
        return known.st_dev, known.st_ino
    with suppress(OSError):
        folder = real.parent.stat()
        # on a disk that folds case, two spellings of a new file are one
        return folder.st_dev, folder.st_ino, real.name.casefold()
    return (str(real).casefold(),)


def _descriptor(path: Path) -> int | None:
    """Number of the open file that a name such as /dev/stdout or /dev/fd/3 stands for."""
    named = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
    place = os.path.abspath(path)
    for _ in range(MAX_LINKS):  # a link may lead to itself
        folder, _, name = place.rpartition("/")
        if place in named:
            return named[place]
        if folder in ("/dev/fd", "/proc/self/fd") and name.isdecimal():
            return int(name)
        try:
            place = os.path.normpath(os.path.join(folder, os.readlink(place)))
        except (OSError, ValueError):
            return None
    return None


def is_stream(path: Path) -> bool:
    """Say whether a path is a device, a pipe or an open file: written to, never replaced."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _opened(path: Path) -> BinaryIO:
    """Open a stream for writing; an open file goes on where it is."""
    number = _descriptor(path)
    return path.open("wb") if number is None else os.fdopen(os.dup(number), "wb")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to; it takes the place of `path` if all went well, else it is removed.

    A link is followed, the mode of a file that is replaced is kept, and what runs that were killed
    have left beside it is removed. A device or a pipe gets the bytes at the end.

    Args:
        path: where the file ends up; replaced if it exists.

    Yields:
        The path to write to.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / (path.name or "out")
            yield part
            sys.stdout.flush()  # what was printed before stands before
            with part.open("rb") as source, _opened(path) as stream:
                shutil.copyfileobj(source, stream)
        return
    if path.parent == RUNS:
        RUNS.mkdir(exist_ok=True)
    target = Path(os.path.realpath(path))
    _remove_leftovers(target)
    part, handle = _new_part(target)
    try:
        yield part
        part.chmod(_mode_for(target))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
        os.close(handle)


def _new_part(target: Path) -> tuple[Path, int]:
    """Make a temporary beside a file; the lock on its handle says that this run is alive."""
    while True:
        part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
        # O_EXCL: nobody can have laid a link there
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if fcntl is None:
            return part, handle
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return part, handle
        os.close(handle)  # another run took it for a leftover before it was locked


def _mode_for(target: Path) -> int:
    """Mode of the file that is replaced, or what `open` would have given a new one."""
    with suppress(OSError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _remove_leftovers(target: Path) -> None:
    """Remove the temporaries of runs that were killed; those of runs that go on are locked."""
    if fcntl is None:
        return
    for part in target.parent.glob(f".{_escaped(target.name)}.????????????????.part"):
        with suppress(OSError):
            handle = os.open(part, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
            finally:
                os.close(handle)


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


def write_picture(
    path: Path, figure: Any, dpi: int, notes: Mapping[str, str | None] | None = None
) -> None:
    """Write a figure of Matplotlib, PNG or what the name ends in; whole or not at all.

    Args:
        path: of the picture.
        figure: to write.
        dpi: dots per inch.
        notes: texts that travel in the file, by the names that its format knows.
    """
    form = path.suffix.lower().removeprefix(".") or "png"
    with written_whole(path) as part, warnings.catch_warnings():
        # a text may hold letters that the font has not: boxes stand for them
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(part, format=form, dpi=dpi, metadata=notes)
