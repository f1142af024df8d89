"""Kernels against their references in `tests/twins.py`: compiled, and as plain Python."""

from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from beside import bounds_checked
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.dispatcher import Dispatcher
from strategies import seeds
from twins import TWINS, WITHOUT_PYTHON_BODY

from mu_ref.kernels import floats, integer_attention, integers, rounding
from mu_ref.kernels.drafts import trees
from mu_ref.kernels.products import heads, linear, packing
from mu_ref.kernels.training import elements, rows, sums

MODULES = (
    floats, heads, integer_attention, integers, linear, packing, rounding, trees, elements, rows,
    sums,
)  # fmt: skip
IDS = [f"{module.__name__.rpartition('.')[2]}.{name}" for module, name in TWINS]
CONTRACTS = ("Contract: exact.", "Contract: bound.")


def kernels(module: Any) -> set[str]:
    """Kernels that a module defines, but for its private helpers."""
    return {
        name
        for name, value in vars(module).items()
        if isinstance(value, Dispatcher)
        and value.py_func.__module__ == module.__name__
        and not name.startswith("_")
    }


def test_every_kernel_has_a_twin() -> None:
    found = {(module, name) for module in MODULES for name in kernels(module)}
    assert found == set(TWINS)


def test_halves_go_to_the_even_neighbour() -> None:
    found = [rounding.rescale.py_func(np.int64(a), np.int64(1), np.int64(1), rounding.EVEN)
             for a in (-5, -3, -1, 1, 3, 5, 4)]  # fmt: skip
    assert found == [-2, -2, 0, 0, 2, 2, 2]


def check(module: Any, name: str, seed: int, size: int, *, python: bool) -> None:
    kernel = getattr(module, name)
    twin = TWINS[module, name](np.random.default_rng(seed), size)
    args = [a.copy() if isinstance(a, np.ndarray) else a for a in twin.args]
    result = (kernel.py_func if python else kernel)(*args)
    result = result if twin.part is None else result[twin.part]
    got = np.asarray(result if twin.writes is None else args[twin.writes])
    assert got.shape == twin.expected.shape
    difference = np.abs(got.astype(np.float64) - twin.expected.astype(np.float64))
    assert (difference <= twin.tolerance).all(), (difference.max(), twin.args)


@pytest.mark.parametrize(("module", "name"), TWINS, ids=IDS)
@settings(max_examples=25)
@given(seed=seeds, size=st.integers(1, 9) | st.sampled_from([16, 64, 65, 192]))
def test_a_compiled_kernel_equals_its_reference(
    module: Any, name: str, seed: int, size: int
) -> None:
    check(module, name, seed, size, python=False)


@pytest.mark.parametrize(
    ("module", "name"), [twin for twin in TWINS if twin not in WITHOUT_PYTHON_BODY]
)
@settings(max_examples=10)
@given(seed=seeds, size=st.integers(1, 9) | st.just(40))
def test_the_body_of_a_kernel_equals_its_reference(
    module: Any, name: str, seed: int, size: int
) -> None:
    check(module, name, seed, size, python=True)


@pytest.mark.parametrize(("module", "name"), TWINS, ids=IDS)
def test_a_kernel_is_right_at_a_real_size(module: Any, name: str) -> None:
    check(module, name, 1, 768, python=False)


@bounds_checked(f"{__file__}::test_a_compiled_kernel_equals_its_reference")
def test_no_kernel_reads_or_writes_outside_its_arrays(beside: CompletedProcess[str]) -> None:
    assert beside.returncode == 0, beside.stdout[-2000:]
    assert f"{len(TWINS)} passed" in beside.stdout


@pytest.mark.parametrize(("x", "half"), [(-3, -2), (-1, 0), (1, 0), (3, 2), (5, 2), (7, 4), (6, 3)])
def test_a_tie_is_rounded_to_the_even_one(x: int, half: int) -> None:
    assert rounding.rescale(np.int64(x), np.int64(1), np.int64(1), rounding.EVEN) == half


@pytest.mark.parametrize("module", MODULES)
def test_a_kernel_says_its_contract(module: Any) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, Dispatcher) and module not in (packing, rounding):
            assert any(c in (value.py_func.__doc__ or "") for c in CONTRACTS), name
