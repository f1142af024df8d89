"""Tests that mostly wait for programs run beside the suite, if all of it runs."""

from subprocess import CompletedProcess

import pytest
from beside import APART


@pytest.mark.beside("-m", "pytest", "-q", "-p", "no:cacheprovider", *APART)
def test_what_runs_beside_the_suite_passes(beside: CompletedProcess[str]) -> None:
    assert beside.returncode == 0, beside.stdout
