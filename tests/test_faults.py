"""A sample of the faults that `python -m tests.faults` tries; there is a table of all kinds."""

from subprocess import CompletedProcess

import pytest


@pytest.mark.beside("-m", "tests.faults", "--sample", "80", "--warm", "--processes", "1")
def test_no_case_of_a_sample_crashes_hangs_is_swallowed_or_destroys_anything(
    beside: CompletedProcess[str],
) -> None:
    assert beside.returncode == 0, beside.stdout
    assert "80 cases" in beside.stdout
