"""Files that are not what they should be: missing, devices, cut, flipped, in other encodings."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.bases import base_of, with_value
from faults.case import REFUSED, SANE, Case
from faults.commands import commands
from faults.files import Input, inputs

__all__ = ["cases", "reads"]

BINARY = (".safetensors", ".npz")
CUTS, FLIPS = 10, 8
Change = Callable[[bytes], bytes]


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield the cases."""
    for read in inputs():
        yield from _places(read)
    for read in _each_format():
        yield from _bytes(read, rng)
    yield from _checkpoints(rng)


def reads(read: Input, value: str, kind: str, **more: object) -> Case:
    """A command that reads a file by another name, or the sample after a change."""
    command = commands()[read.command]
    fields = {"writes": (*base_of(command).writes, "new*"), "codes": (0, 1), **more}
    return Case(kind=kind, command=read.command,
                arguments=with_value(command, read.option, read.form.format(value)),
                **fields)  # type: ignore[arg-type]  # fmt: skip


def _places(read: Input) -> Iterator[Case]:
    """A name that leads nowhere, or to something that is no file."""
    ending = Path(read.sample).suffix
    for name, prepare, note in (
        (f"missing{ending}", _nothing, ""), ("", _nothing, ""),
        (f"two.jsonl/x{ending}", _nothing, ""), (f"{'x' * 300}{ending}", _nothing, ""),
        (f"new{ending}", _made(b""), "it is empty"), (f"new{ending}", _folder, "it is a folder"),
        (f"new{ending}", _fifo, "it is a pipe that nobody writes to"),
        (f"new{ending}", _link("/dev/zero"), "it is a link to /dev/zero"),
        (f"new{ending}", _link("/dev/null"), "it is a link to /dev/null"),
        (f"new{ending}", _link(f"new{ending}"), "it is a link to itself"),
        (f"new{ending}", _link("nowhere"), "it is a link to nothing"),
    ):  # fmt: skip
        yield reads(read, name, "damaged", prepare=_after(prepare, f"new{ending}"), note=note)


def _after(change: Callable[[Path], None], name: str) -> Callable[[Path], None]:
    return lambda folder: change(folder / name)


def _nothing(path: Path) -> None:
    pass


def _folder(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _made(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _each_format() -> Iterator[Input]:
    """One reader of each sample file; all readers of the files that are written by hand."""
    seen = set()
    for read in inputs():
        key = (read.sample, read.command.split()[0])
        if key not in seen or read.sample in ("nano.safetensors",):
            seen.add(key)
            yield read
    for command, option, sample in (
        ("mu-ref quantize", "--calibration", "ranges.json"),
        ("mu-ref quantize-drafter", "--integers", "nano-w8a16.safetensors"),
        ("npu-sim compare", "b", "scenario.toml"),
    ):
        yield Input(command, option, sample)


def _bytes(read: Input, rng: random.Random) -> Iterator[Case]:
    for note, change, expect in _changes(Path(read.sample).suffix, rng):
        yield reads(
            read, read.sample, "damaged", prepare=rewritten(read.sample, change), note=note,
            expect=expect,
        )  # fmt: skip


def _changes(ending: str, rng: random.Random) -> Iterator[tuple[str, Change, str]]:
    """(what is done, how, what must come of it)."""
    whole = REFUSED if ending in (".json", ".npz", ".safetensors") else SANE
    for i in range(CUTS):
        share = i / CUTS
        yield (
            f"cut at {share:.0%}",
            lambda data, s=share: data[: int(len(data) * s)],
            (REFUSED if i == 0 else whole),
        )
    for _ in range(FLIPS):
        seed = rng.randrange(2**32)
        yield f"a byte of the first 2,000 is changed (seed {seed})", _flipped(seed), SANE
    yield "random bytes", lambda data: random.Random(0).randbytes(len(data)), REFUSED
    yield "zeros", lambda data: bytes(len(data)), REFUSED
    behind = SANE if ending == ".npz" else REFUSED  # a ZIP file may have something behind it
    yield "twice", lambda data: data + data, SANE if ending == ".npz" else whole
    yield "with bytes behind", lambda data: data + b"\x00\xff{[", behind
    if ending in BINARY:
        return
    yield "with a byte that is no UTF-8", lambda data: data[:20] + b"\xff" + data[20:], REFUSED
    yield "in UTF-16", lambda data: data.decode().encode("utf-16"), REFUSED
    yield "with a byte-order mark", lambda data: b"\xef\xbb\xbf" + data, SANE
    yield "with CRLF", lambda data: data.replace(b"\n", b"\r\n"), SANE
    yield "with CR", lambda data: data.replace(b"\n", b"\r"), SANE
    yield "with a NUL", lambda data: data[:10] + b"\x00" + data[10:], REFUSED
    yield "nested 100,000 times", lambda data: b"[" * 10**5 + b"]" * 10**5, REFUSED
    yield "only blanks", lambda data: b" \n\t\n ", REFUSED
    yield "null", lambda data: b"null", REFUSED
    yield "a list", lambda data: b"[]", REFUSED
    yield "a number", lambda data: b"9" * 5000, REFUSED


def _flipped(seed: int) -> Change:
    def change(data: bytes) -> bytes:
        rng, changed = random.Random(seed), bytearray(data)
        changed[rng.randrange(min(2000, len(changed)))] ^= 1 << rng.randrange(8)
        return bytes(changed)

    return change


def rewritten(name: str, change: Change) -> Callable[[Path], None]:
    """What changes the bytes of a file of the folder."""

    def prepare(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return prepare


def _checkpoints(rng: random.Random) -> Iterator[Case]:
    """The two files of a checkpoint's folder."""
    forward = ("--inputs", "ids.npz", "--out", "new.npz", "--max-new-tokens", "1")
    for folder in ("mu", "t5gemma"):
        for file in ("config.json", "model.safetensors"):
            name = f"{folder}/{file}"
            for note, change, expect in _changes(Path(file).suffix, rng):
                yield Case(
                    kind="damaged", command="mu-ref forward", arguments=(folder, *forward),
                    prepare=rewritten(name, change), note=f"{name}: {note}", expect=expect,
                    writes=("new.npz",),
                )  # fmt: skip
    for folder in ("missing", "hf", "ids.npz", "", "/dev/null", "two.jsonl/x"):
        yield Case(kind="damaged", command="mu-ref forward", arguments=(folder, *forward))
