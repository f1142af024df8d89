"""Arrays in files: headers that lie, kinds that are none of ours, numbers that are no numbers."""

import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mu_ref.border.arrays import check_floats, first_not_finite, read_npz, read_safetensors
from mu_ref.errors import InputError, WeightsError


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def file_of(folder: Path, header: Any, data: bytes = bytes(8)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "f.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


# -- safetensors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "rule"),
    [
        ([], "header must be a JSON object, got list"),
        (b"{'a': 1}", "header must be that of a whole safetensors file, got no JSON"),
        (b"\xff\xff", "header must be of a whole safetensors file, got bytes that are no text"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": {}, "a": {}}', "the key 'a' stands twice"),
        ({"a": 3}, "a must have a dtype, a shape and data_offsets"),
        ({"a": {**entry(), "more": 1}}, "a must have a dtype, a shape and data_offsets"),
        ({"__metadata__": {"config": 3}, "a": entry()}, "__metadata__ must hold texts by name"),
        ({"__metadata__": [], "a": entry()}, "__metadata__ must hold texts by name"),
        ({"a": entry("F8_E4M3", [8])}, "a must be a float or an integer, got F8_E4M3"),
        ({"a": entry("C64", [1])}, "a must be a float or an integer, got C64"),
        ({"a": entry(["F32"])}, "a must be a float or an integer, got list"),
        ({"a": entry(shape=2)}, "a: shape must be a list"),
        ({"a": entry(shape=[1] * 9)}, "a: shape must be a list of at most 8 sizes"),
        ({"a": entry(shape=[2.0])}, "a: shape must be a whole number from 1 to .* got 2.0"),
        ({"a": entry(shape=[True, 2])}, "a: shape must be a whole number from 1 to .* got True"),
        ({"a": entry(shape=[-2])}, "a: shape must be a whole number from 1 to .* got -2"),
        ({"a": entry(shape=[0])}, "a: shape must be a whole number from 1 to .* got 0"),
        ({"a": entry(shape=[2**70])}, "a: shape must be a whole number from 1 to"),
        ({"a": entry(shape=[2**40, 2**40])}, "a must take 4,835,703,278,458,516,698,824,704 bytes"),
        ({"a": entry(shape=[1])}, r"a must take 4 bytes for its shape \[1\], got 0 to 8"),
        ({"a": entry(offsets=[-8, 0])}, "a: data_offsets must be a whole number from 0"),
        ({"a": entry(offsets=[0])}, "a: data_offsets must be two byte numbers"),
        ({"a": entry(offsets=[8, 16])}, "a must begin where the tensor before it ends, at byte 0"),
        ({"a": entry(), "b": entry()}, "b must begin where .* at byte 8, got 0"),
        ({"a": entry(shape=[1], offsets=[4, 8])}, "a must begin where .* at byte 0, got 4"),
        ({"a": entry(shape=[1], offsets=[0, 4])}, "with 4 bytes of tensors, got 8"),
        ({"a": entry(shape=[4], offsets=[0, 16])}, "with 16 bytes of tensors, got 8"),
        ({}, "with 0 bytes of tensors, got 8"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: Any, rule: str) -> None:
    path = file_of(tmp_path, header)
    with pytest.raises(WeightsError, match=rule) as caught:
        read_safetensors(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("data", [b"", b"\0" * 7, struct.pack("<Q", 2**60) + b"{}", b"\0" * 8])
def test_bytes_too_few_for_a_header_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="whole safetensors file"):
        read_safetensors(path)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(WeightsError, match="got a pipe or a device; name a file"):
            read_safetensors(path)
        with pytest.raises(InputError, match="got a pipe or a device; name a file"):
            read_npz(path)
    with pytest.raises(WeightsError, match="got a folder"):
        read_safetensors(tmp_path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_safetensors(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("kind", "bits", "shown"),
    [
        ("F16", struct.pack("<4e", 1, 65504, -float("inf"), 0), "-inf at [2]"),
        ("BF16", struct.pack("<4H", 0x3F80, 0x7FC0, 0, 0), "nan at [1]"),
        ("F32", struct.pack("<2f", 3.4e38, float("nan")), "nan at [1]"),
        ("F32", struct.pack("<2I", 0xFFC00000, 0), "nan at [0]"),  # with a minus sign
        ("F64", struct.pack("<d", float("inf")), "inf at [0]"),
    ],
)
def test_a_number_that_is_none_is_named_with_its_place(
    tmp_path: Path, kind: str, bits: bytes, shown: str
) -> None:
    n = 8 // {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}[kind]
    path = file_of(tmp_path, {"w": entry(kind, [n])}, bits)
    with pytest.raises(WeightsError) as caught:
        read_safetensors(path)
    assert f"w must hold finite numbers, got {shown}" in str(caught.value)


@given(st.sampled_from(["f2", "f4", "f8"]).flatmap(lambda kind: hnp.arrays(kind, (3, 4))))
def test_the_first_place_that_is_not_finite_is_numpy_s(array: np.ndarray) -> None:
    wanted = np.argwhere(~np.isfinite(array))
    for view in (array, array.T.copy().T):  # and one that does not lie in one piece
        assert first_not_finite(view) == (tuple(wanted[0]) if len(wanted) else None)


def test_integers_are_no_float_weights_nor_are_numbers_beyond_float32() -> None:
    check_floats("f", {"w": np.ones(2, np.float16), "v": np.full(1, -(2.0**60))})
    with pytest.raises(WeightsError, match="f: w must hold floats, got int8"):
        check_floats("f", {"w": np.ones(2, np.int8)})
    for bad in (1e300, -(2.0**61)):
        with pytest.raises(WeightsError, match=r"f: w must hold weights of at most 1.15292e\+18"):
            check_floats("f", {"w": np.array([0.0, bad])})


# -- npz -------------------------------------------------------------------------------------------


def npz_of(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "in.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def npy_of(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def test_arrays_of_all_kinds_of_numbers_come_back(tmp_path: Path) -> None:
    arrays = {
        "a": np.array([[1, 2], [3, 4]], np.uint8),
        "b": np.array(True),
        "c": np.zeros((0, 3)),
        "d": np.asfortranarray([[1.5, 2.5], [3.5, 4.5]]),
        "e": np.array([2**63], np.uint64),
    }
    np.savez(tmp_path / "plain.npz", **arrays)
    np.savez_compressed(tmp_path / "packed.npz", **arrays)
    for name in ("plain.npz", "packed.npz"):
        read = read_npz(tmp_path / name)
        assert read.keys() == arrays.keys()
        for key, array in arrays.items():
            assert read[key].dtype == array.dtype
            np.testing.assert_array_equal(read[key], array)


def test_arrays_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    def refused(data: bytes, rule: str, name: str = "a.npy") -> None:
        with pytest.raises(InputError, match=rule):
            read_npz(npz_of(tmp_path, {name: data}))

    refused(npy_of(np.array([None]), allow_pickle=True), "a.npy must be an array of numbers, got o")
    refused(npy_of(np.array(["x"])), "a.npy must be an array of numbers, got <U1")
    refused(npy_of(np.array([1j])), "a.npy must be an array of numbers, got complex128")
    refused(npy_of(np.array([(1,)], [("x", "i4")])), "a.npy must be an array of numbers, got")
    refused(npy_of(np.array([1]), version=(3, 0)), "got a structured one")
    refused(b"hello", "must be a whole npz file", "readme.txt")
    whole = npy_of(np.arange(9))
    refused(whole[:-1], "must be a whole npz file")
    refused(whole + b"x", "must end with its array")
    many = whole.replace(b"(9,), ", b"(999999999999,), ").replace(b" " * 11 + b"\n", b"\n", 1)
    refused(many, r"must have at most 2,147,483,648 bytes, got \[999999999999\] of int64")


def test_an_archive_that_is_none_or_names_an_array_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    for data in (b"", b"PK\x03\x04", b"no archive at all"):
        path.write_bytes(data)
        with pytest.raises(InputError, match="must be a whole npz file"):
            read_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", npy_of(np.ones(1)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", npy_of(np.zeros(1)))
    with pytest.raises(InputError, match="one stands twice"):
        read_npz(path)
