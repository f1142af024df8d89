"""Memory: arrays start at a cache line, and the code of libraries can be given back."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from mu_ref.border.arrays import read_safetensors
from mu_ref.border.memory import LINE, Arena, aligned, padded

GIVE_BACK = """
import re
from pathlib import Path
import numpy as np
from mu_ref.kernels.threads import release_code

def resident():
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"RssFile:\\s+(\\d+)", text)[1])

rng = np.random.default_rng(0)
x = rng.standard_normal((50, 50))
before, wanted = resident(), np.linalg.inv(x)
release_code()
print(before, resident(), np.array_equal(np.linalg.inv(x), wanted))
"""


@given(st.lists(st.integers(1, 9), max_size=3), st.sampled_from(["u1", "<i2", "<f4", "<i8"]))
def test_arrays_start_at_a_line_and_are_zero(shape: list[int], dtype: str) -> None:
    array = aligned(tuple(shape), dtype)
    assert (array.shape, array.dtype) == (tuple(shape), np.dtype(dtype))
    assert array.ctypes.data % LINE == 0
    assert not array.any()


@given(
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from(["u1", "<f4"]))), st.integers(0, 999)
)
def test_arrays_of_an_arena_start_at_a_line_and_share_nothing(
    asked: list[tuple[int, str]], n_bytes: int
) -> None:
    arena = Arena(n_bytes)
    arrays = [arena.array((n, 1), dtype) for n, dtype in asked]
    for number, (array, (n, dtype)) in enumerate(zip(arrays, asked, strict=True)):
        assert (array.shape, array.dtype, array.any()) == ((n, 1), np.dtype(dtype), False)
        assert not array.size or array.ctypes.data % LINE == 0
        array[:] = number + 1
    for number, array in enumerate(arrays):
        assert (array == number + 1).all()


def test_weights_of_a_file_lie_behind_each_other(tmp_path: Path) -> None:
    file, sizes = tmp_path / "w.safetensors", (100, 64, 1)
    save_file({f"{i}": np.full((n,), i, np.float32) for i, n in enumerate(sizes)}, file)
    read, _ = read_safetensors(file)
    places = sorted((array.ctypes.data, padded(array.nbytes)) for array in read.values())
    for (at, n_bytes), (following, _) in pairwise(places):
        assert at + n_bytes == following


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems keep the pages")
def test_libraries_compute_the_same_after_their_code_was_given_back() -> None:
    command = [sys.executable, "-c", GIVE_BACK]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    before, after, same = int(out[0]), int(out[1]), out[2]
    assert after < before / 2
    assert same == "True"
