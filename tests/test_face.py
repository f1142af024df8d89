"""The faces of both packages: what they offer exists, is light, and shows a runnable example."""

import doctest
import importlib
import inspect
import subprocess
import sys

import pytest

import mu_ref
import npu_sim

NAMES = [(package, name) for package in (mu_ref, npu_sim) for name in package.__all__]


@pytest.mark.parametrize("package", [mu_ref, npu_sim], ids=lambda p: p.__name__)
def test_the_list_of_names_is_short_and_in_order(package) -> None:
    assert package.__all__ == sorted(package.HOMES)
    assert 10 <= len(package.__all__) <= 16
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda x: getattr(x, "__name__", x))
def test_a_name_is_what_its_home_holds_and_its_home_says_so(package, name: str) -> None:
    home = importlib.import_module(f"{package.__name__}.{package.HOMES[name]}")
    assert getattr(package, name) is getattr(home, name)
    assert name in home.__all__
    assert getattr(package, name).__module__ == home.__name__


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda x: getattr(x, "__name__", x))
def test_a_name_shows_an_example_that_runs(package, name: str) -> None:
    thing = getattr(package, name)
    found = doctest.DocTestFinder(recurse=False).find(thing, name, globs={})
    assert found, f"{name} has no docstring"
    assert found[0].examples, f"{name} shows no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
    assert runner.run(found[0]).failed == 0
    if inspect.isfunction(thing):  # a user calls it, so it says what it takes and gives
        assert "Args:" in (thing.__doc__ or "")
        assert "Returns:" in (thing.__doc__ or "") or "Yields:" in (thing.__doc__ or "")


@pytest.mark.parametrize("package", [mu_ref, npu_sim], ids=lambda p: p.__name__)
def test_the_example_of_the_package_runs(package) -> None:
    assert doctest.testmod(package).failed == 0
    assert doctest.testmod(package).attempted > 1


def test_a_face_imports_nothing_heavy_and_everything_by_star() -> None:
    heavy = "{'numba', 'matplotlib', 'numpy'} & set(sys.modules)"
    code = f"import sys, mu_ref, npu_sim; print({heavy}); from mu_ref import *; print(greedy)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert out[0] == "set()"
    assert out[1].startswith("<function greedy")
