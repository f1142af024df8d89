"""Weight files: the header, the configuration in it, and the numbers behind it."""

import json
import random
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from faults.case import REFUSED, SANE, Case
from faults.files import Input
from faults.kinds.damaged import reads, rewritten
from faults.kinds.fields import field_changes
from faults.samples import small_drafter, small_model

__all__ = ["cases"]

Header = dict[str, Any]
Change = Callable[[Header, bytes], tuple[Header, bytes]]

READERS = (
    Input("mu-ref ask", "--weights", "nano.safetensors"),
    Input("mu-ref quantize-drafter", "--integers", "nano-w8a16.safetensors"),
    Input("mu-ref generate", "--drafter", "drafter.safetensors"),
)
SAME_READERS = (
    Input("mu-ref quantize", "--weights", "nano.safetensors"),
    Input("mu-ref train-drafter", "--weights", "nano.safetensors"),
    Input("mu-ref train-drafter", "--start", "drafter.safetensors"),
    Input("mu-ref settings eval", "--weights", "nano.safetensors"),
    Input("mu-ref quantize-drafter", "drafter", "drafter.safetensors"),
    Input("mu-ref draft-sweep", "--weights", "nano.safetensors"),
    Input("mu-ref forward", "folder", "mu"),
)


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield the cases."""
    for read in READERS:
        yield from _headers(read, rng)
    for read in (*READERS, *SAME_READERS):
        file = "mu/model.safetensors" if read.sample == "mu" else read.sample
        for note, change, expect in _numbers():
            yield _case(read, change, note, expect, file)
    yield from _arrays()


def _case(read: Input, change: Change, note: str, expect: str, file: str = "") -> Case:
    file = file or read.sample
    return reads(read, read.sample, "tensors", expect=expect, note=f"{file}: {note:.120}",
                 prepare=rewritten(file, partial(_changed, change)))  # fmt: skip


def _changed(change: Change, data: bytes) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header, numbers = change(json.loads(data[8 : 8 + length]), data[8 + length :])
    return _joined(json.dumps(header).encode(), numbers)


def _joined(header: bytes, numbers: bytes) -> bytes:
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + numbers


def _headers(read: Input, rng: random.Random) -> Iterator[Case]:
    """Metadata, field by field; then what a header says of its tensors."""
    main = "drafter" if read.sample.startswith("drafter") else "config"
    config = small_model() if main == "config" else small_drafter()
    for note, text, expect in field_changes(json.loads(config.to_json()), rng, 130):
        yield _case(read, partial(_metadata, main, text), f"{main}: {note}", expect)
    for key in (main, "scheme", "rounding", "activations"):
        for text in ("", "null", "[]", "{}", "x", "w4a16", "[[1]]", "1e999"):
            refused = REFUSED if key == main or "w8a16" in read.sample else SANE
            yield _case(read, partial(_metadata, key, text), f"metadata {key} = {text!r}", refused)
    for what, field, value in (
        ("a negative shape", "shape", [-1, 16]), ("a huge shape", "shape", [2**40, 2**40]),
        ("another shape", "shape", [1]), ("no shape", "shape", []),
        ("a shape that is no list", "shape", "x"), ("an unknown type", "dtype", "F7"),
        ("another type", "dtype", "I64"), ("offsets beyond", "data_offsets", [0, 2**60]),
        ("offsets backwards", "data_offsets", [8, 0]), ("offsets below 0", "data_offsets", [-8, 0]),
        ("offsets that are texts", "data_offsets", ["0", "8"]),
    ):  # fmt: skip
        yield _case(read, partial(_entry, field, value), f"a tensor with {what}", REFUSED)
    yield _case(read, _one_less, "a tensor is not there", REFUSED)
    yield _case(read, _one_more, "a tensor too many", REFUSED)
    for note, data in (
        ("a header longer than the file", struct.pack("<Q", 2**62) + b"{}"),
        ("a header of no bytes", struct.pack("<Q", 0)),
        ("a header nested without end", _joined(b'{"a":' * 10**5 + b"1" + b"}" * 10**5, b"")),
        ("a header that is a list", _joined(b"[]", b"")),
        ("a header of nothing", _joined(b"{}", b"")),
        ("metadata that are no texts", _joined(b'{"__metadata__": {"config": 5}}', b"")),
        ("metadata that are no object", _joined(b'{"__metadata__": [1]}', b"")),
    ):
        yield reads(read, read.sample, "tensors", note=f"{read.sample}: {note}",
                    prepare=rewritten(read.sample, partial(_instead, data)))  # fmt: skip


def _instead(new: bytes, _: bytes) -> bytes:
    return new


def _metadata(key: str, text: str, header: Header, numbers: bytes) -> tuple[Header, bytes]:
    header["__metadata__"][key] = text
    return header, numbers


def _tensors(header: Header) -> list[str]:
    return sorted(name for name in header if name != "__metadata__")


def _entry(field: str, value: Any, header: Header, numbers: bytes) -> tuple[Header, bytes]:
    header[_tensors(header)[0]][field] = value
    return header, numbers


def _one_less(header: Header, numbers: bytes) -> tuple[Header, bytes]:
    del header[max(_tensors(header), key=lambda name: header[name]["data_offsets"][1])]
    ends = max(header[name]["data_offsets"][1] for name in _tensors(header))
    return header, numbers[:ends]


def _one_more(header: Header, numbers: bytes) -> tuple[Header, bytes]:
    n = len(numbers)
    header["nobody.weight"] = {"dtype": "F16", "shape": [4], "data_offsets": [n, n + 8]}
    return header, numbers + bytes(8)


def _numbers() -> Iterator[tuple[str, Change, str]]:
    for value in (np.nan, np.inf, -np.inf):
        for where in ("first", "last"):
            note = f"the {where} number of a float tensor is {value}"
            yield note, partial(_one_number, value, where), REFUSED
        yield f"every float is {value}", partial(_one_number, value, "all"), REFUSED
    yield "every number is 0", lambda header, numbers: (header, bytes(len(numbers))), SANE
    yield "every float is the largest", partial(_one_number, "max", "all"), SANE


def _one_number(value: Any, where: str, header: Header, numbers: bytes) -> tuple[Header, bytes]:
    changed = bytearray(numbers)
    kinds = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
    names = [n for n in _tensors(header) if header[n]["dtype"] in kinds]
    for name in names if where == "all" else [names[0 if where == "first" else -1]]:
        kind = kinds[header[name]["dtype"]]
        number = np.finfo(kind).max if value == "max" else value
        start, end = header[name]["data_offsets"]
        array = np.frombuffer(bytes(changed[start:end]), kind).copy()
        array[slice(None) if where == "all" else 0 if where == "first" else -1] = number
        changed[start:end] = array.tobytes()
    return header, bytes(changed)


def _arrays() -> Iterator[Case]:
    """Token ids for a checkpoint."""
    good = {"encoder_input_ids": np.array([[5, 6, 7]]), "decoder_input_ids": np.array([[1, 3]]),
            "encoder_attention_mask": np.array([[1, 1, 0]])}  # fmt: skip
    read = Input("mu-ref forward", "--inputs", "ids.npz")
    for name in good:
        required = SANE if name.endswith("mask") else REFUSED
        for note, value, expect in (
            ("not there", None, required), ("floats", np.array([[1.5, 2.0, 3.0]]), REFUSED),
            ("NaN", np.full((1, 3), np.nan), REFUSED), ("a number", np.array(5), REFUSED),
            ("texts", np.array([["a", "b", "c"]]), REFUSED),
            ("objects", np.array([[{}, {}, {}]], object), REFUSED),
            ("a row", np.array([1, 2, 3]), REFUSED), ("nothing", np.zeros((1, 0), int), REFUSED),
            ("no rows", np.zeros((0, 3), int), REFUSED), ("-1", np.array([[-1, 0, 0]]), REFUSED),
            ("2^62", np.array([[2**62, 0, 0]]), REFUSED),
            ("two rows", np.zeros((2, 3), int), REFUSED),
            ("uint64", np.array([[2**64 - 1, 0, 0]], np.uint64), REFUSED),
            ("three axes", np.zeros((1, 3, 1), int), REFUSED),
            ("booleans", np.ones((1, 3), bool), SANE), ("0", np.zeros((1, 3), int), SANE),
            ("twos", np.full((1, 3), 2), SANE), ("long", np.ones((1, 500), int), SANE),
        ):  # fmt: skip
            arrays = {k: v for k, v in {**good, name: value}.items() if v is not None}
            yield reads(read, "ids.npz", "tensors", note=f"{name} is {note}", expect=expect,
                        prepare=partial(_saved, arrays))  # fmt: skip


def _saved(arrays: dict[str, np.ndarray], folder: Path) -> None:
    np.savez(folder / "ids.npz", **arrays)  # type: ignore[arg-type]
