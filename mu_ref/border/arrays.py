"""Arrays in files: safetensors and npz, understood whole or refused before room is made for them.

A header is checked against the file before any array is read; every number is finite.
"""

import os
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from mu_ref.border.memory import Arena, padded
from mu_ref.border.ranges import Range
from mu_ref.border.reading import opened, parse_json
from mu_ref.errors import InputError, MuRefError, WeightsError

__all__ = [
    "check_finite", "check_floats", "check_rows", "check_tokens", "first_not_finite", "read_npz",
    "read_safetensors",
]  # fmt: skip

NUMPY_NAMES = MappingProxyType(
    {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
    | {f"{sign}{8 * n}": f"<{sign.lower()}{n}" for sign in "IU" for n in (1, 2, 4, 8)}
)
SAFETENSORS = "a whole safetensors file"
MAX_HEADER_BYTES = 10**8  # the format's own limit
MAX_RANK = 8
OFFSET = Range(low=0, high=2**62, why="no file is so large")
LENGTH = Range(low=1, high=OFFSET.high, why=OFFSET.why)
MAX_NPZ_BYTES = 2**31  # of one array
LARGEST = 2.0**60  # of a weight
INFINITE = MappingProxyType({2: 0x7C00, 4: 0x7F800000, 8: 0x7FF0000000000000})  # bits of +inf

Arrays = dict[str, np.ndarray]


# -- safetensors -----------------------------------------------------------------------------------


def read_safetensors(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Read all tensors of a safetensors file as NumPy arrays.

    Args:
        path: the file; float16, float32, float64 and integer tensors, and bfloat16 as float32.

    Returns:
        {name: array} and the metadata.

    Raises:
        WeightsError: the file is not there or not a whole safetensors file, a tensor is of another
            kind, or a number in it is NaN or infinite.
    """
    with opened(path, SAFETENSORS, WeightsError, regular=True) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        size = int.from_bytes(file.read(8), "little")
        if n_bytes < 8 or size > min(n_bytes - 8, MAX_HEADER_BYTES):
            raise WeightsError(
                f"{path} must be {SAFETENSORS}, got {n_bytes:,} bytes; it is damaged or something "
                "else; copy it again"
            )
        header, metadata = _header(path, file.read(size), n_bytes - 8 - size)
        sizes = [entry["data_offsets"] for entry in header.values()]
        arena = Arena(sum(padded(end - begin) for begin, end in sizes))
        read = {n: _read(path, n, file, 8 + size, entry, arena) for n, entry in header.items()}
        return read, metadata


def _header(path: Path, raw: bytes, n_data: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the header; its tensors must fill the data, each byte once."""
    where = f"{path}: header"
    try:
        text = raw.decode()
    except UnicodeDecodeError as fault:
        raise WeightsError(f"{where} must be of {SAFETENSORS}, got bytes that are no text; "
                           "copy the file again") from fault  # fmt: skip
    header = parse_json(text, where, f"that of {SAFETENSORS}", WeightsError)
    if not isinstance(header, dict):
        raise WeightsError(f"{where} must be a JSON object, got {type(header).__name__}")
    metadata = header.pop("__metadata__", {})
    is_texts = isinstance(metadata, dict) and all(isinstance(t, str) for t in metadata.values())
    if not is_texts:
        raise WeightsError(f"{where}: __metadata__ must hold texts by name, got something else")
    for name, entry in header.items():
        _check_entry(f"{path}: {name}", entry)
    end = 0
    for name in sorted(header, key=lambda name: header[name]["data_offsets"]):
        begin, end_of_this = header[name]["data_offsets"]
        if begin != end:
            raise WeightsError(
                f"{path}: {name} must begin where the tensor before it ends, at byte {end:,}, got "
                f"{begin:,}; the file is damaged"
            )
        end = end_of_this
    if end != n_data:
        raise WeightsError(
            f"{path} must be {SAFETENSORS}, with {end:,} bytes of tensors, got {n_data:,}; "
            "copy it again"
        )
    return header, metadata


def _check_entry(what: str, entry: Any) -> None:
    """Check the kind, shape and place of one tensor."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"{what} must have a dtype, a shape and data_offsets; it has not")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in NUMPY_NAMES:
        shown = kind if isinstance(kind, str) else type(kind).__name__
        raise WeightsError(f"{what} must be a float or an integer, got {shown[:60]}")
    if not isinstance(shape, list) or len(shape) > MAX_RANK:
        raise WeightsError(f"{what}: shape must be a list of at most {MAX_RANK} sizes; it is not")
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise WeightsError(f"{what}: data_offsets must be two byte numbers; they are not")
    for field, allowed in (("data_offsets", OFFSET), ("shape", LENGTH)):
        for n in entry[field]:
            allowed.check(f"{what}: {field}", n, WeightsError)
    needed = prod(shape) * np.dtype(NUMPY_NAMES[kind]).itemsize
    if offsets[1] - offsets[0] != needed:
        raise WeightsError(
            f"{what} must take {needed:,} bytes for its shape {shape}, got {offsets[0]:,} to "
            f"{offsets[1]:,}"
        )


def _read(
    path: Path, name: str, file: BinaryIO, start: int, entry: Mapping[str, Any], arena: Arena
) -> np.ndarray:
    """Read one tensor into memory that starts at a cache line; a copy would take twice the room."""
    array = arena.array(tuple(entry["shape"]), NUMPY_NAMES[entry["dtype"]])
    file.seek(start + entry["data_offsets"][0])
    into = array.reshape(-1).view(np.uint8)
    if file.readinto(into) != len(into):  # type: ignore[attr-defined]
        raise WeightsError(f"{path} must not change while it is read; {name} is cut off")
    if entry["dtype"] == "BF16":  # the upper half of a float32; NumPy has no such type
        array = (array.astype(np.uint32) << 16).view(np.float32)
    check_finite(str(path), {name: array})
    return array


def first_not_finite(array: np.ndarray) -> tuple[int, ...] | None:
    """Return the first place of a NaN or an infinity, or None if there is none.

    Args:
        array: of floats; in others all is finite.

    Returns:
        An index.
    """
    n = array.dtype.itemsize
    if array.dtype.kind != "f" or not array.size:
        return None
    if array.flags.c_contiguous and array.dtype.isnative and n in INFINITE:
        # As integers, infinities and NaN are larger than all numbers; those with a minus sign
        # are so among unsigned ones. Two maxima read memory once each and write nothing.
        flat = array.reshape(-1)
        largest, with_sign = flat.view(f"i{n}").max(), flat.view(f"u{n}").max()
        if largest < INFINITE[n] and with_sign < INFINITE[n] + 2 ** (8 * n - 1):
            return None
    places = np.argwhere(~np.isfinite(array))
    return tuple(int(i) for i in places[0]) if len(places) else None


def check_finite(what: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Check that no number of any array is NaN or infinite; see `first_not_finite`.

    Args:
        what: the file, for the message.
        arrays: by name.

    Raises:
        WeightsError: one is; says which and where.
    """
    for name, array in arrays.items():
        place = first_not_finite(array)
        if place is not None:
            raise WeightsError(
                f"{what}: {name} must hold finite numbers, got {array[place]} at {list(place)}; "
                "train or convert it again"
            )


def check_floats(what: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Check that arrays hold floats that float32 can multiply, as the weights of a model do.

    Args:
        what: the file, for the message.
        arrays: by name, all finite.

    Raises:
        WeightsError: one holds something else.
    """
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise WeightsError(f"{what}: {name} must hold floats, got {array.dtype}")
        # float16 ends far below
        if array.dtype.itemsize > 2 and array.size:
            largest = max(array.max(), -array.min())
            if largest > LARGEST:
                raise WeightsError(
                    f"{what}: {name} must hold weights of at most {LARGEST:g}, got {largest:g}; "
                    "products of larger ones leave float32"
                )


# -- npz -------------------------------------------------------------------------------------------


def read_npz(path: Path) -> Arrays:
    """Read an npz file.

    Args:
        path: the file; arrays of numbers or booleans.

    Returns:
        {name: array}.

    Raises:
        InputError: the file is not there or not a whole npz file, or an array holds objects, texts
            or more than `MAX_NPZ_BYTES`.
    """
    what = "a whole npz file"
    with opened(path, what, InputError, regular=True) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                if len(set(names)) < len(names):
                    raise InputError(f"{path} must name each array once; one stands twice")
                return {n.removesuffix(".npy"): _read_npy(path, archive, n) for n in names}
        except MuRefError:
            raise
        # zipfile and NumPy raise whatever comes of the bytes: struct.error, zlib.error, EOFError,
        # BadZipFile, NotImplementedError, SyntaxError, ...
        except Exception as fault:
            reason = " ".join(str(fault).split())[:120] or type(fault).__name__
            raise InputError(f"{path} must be {what}, got something else ({reason})") from fault


def _read_npy(path: Path, archive: zipfile.ZipFile, member: str) -> np.ndarray:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):  # 3.0 is for names of structured arrays
            raise InputError(f"{path}: {member} must be an array of numbers, got a structured one")
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, _, dtype = read[version[0]](file)
    if dtype.kind not in "biuf":
        raise InputError(f"{path}: {member} must be an array of numbers, got {dtype}")
    if not all(type(n) is int and n >= 0 for n in shape) or len(shape) > MAX_RANK:
        raise InputError(f"{path}: {member} must have a shape of at most {MAX_RANK} sizes")
    if prod(shape) * dtype.itemsize > MAX_NPZ_BYTES:
        raise InputError(
            f"{path}: {member} must have at most {MAX_NPZ_BYTES:,} bytes, got {list(shape)} of "
            f"{dtype}"
        )
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):  # also makes zipfile compare the checksum
            raise InputError(f"{path}: {member} must end with its array; more follows")
        return array


# -- token ids -------------------------------------------------------------------------------------


def check_tokens(
    what: str, tokens: Any, vocab_size: int, error: type[MuRefError] = InputError
) -> None:
    """Check an array of token ids.

    Args:
        what: the array, with its file, for messages.
        tokens: anything.
        vocab_size: ids lie below it.
        error: class to raise.

    Raises:
        MuRefError: (or `error`) no integers [batch, n_tok], none at all, or an id out of range.
    """
    if not isinstance(tokens, np.ndarray) or tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        shown = getattr(tokens, "dtype", type(tokens).__name__)
        raise error(f"{what} must be integers [batch, n_tok], got {shown} "
                    f"{getattr(tokens, 'shape', '')}".rstrip())  # fmt: skip
    if 0 in tokens.shape:
        raise error(f"{what} must be integers [batch, n_tok], at least one, got {tokens.shape}")
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocab_size:
        raise error(f"{what} must lie in [0, {vocab_size}), got {low} to {high}")


def check_rows(what: str, tokens: Any, valid: Any, vocab_size: int, *, empty: bool = False) -> None:
    """Check rows of token ids and which of them count.

    Args:
        what: the array, for messages.
        tokens: as in `check_tokens`.
        valid: anything.
        vocab_size: ids lie below it.
        empty: a row may hold no token that counts.

    Raises:
        InputError: see `check_tokens`; or no booleans of the same shape, or a row without a token.
    """
    check_tokens(what, tokens, vocab_size)
    shown = getattr(valid, "dtype", type(valid).__name__)
    if not isinstance(valid, np.ndarray) or shown != np.bool_ or valid.shape != tokens.shape:
        raise InputError(
            f"{what}_valid must be booleans of the shape of {what}, {tokens.shape}, got {shown} "
            f"{getattr(valid, 'shape', '')}"
        )
    if not empty and not valid.any(axis=1).all():
        raise InputError(f"every {what} must hold at least one token; one is empty")
