"""A sample of the faults that `python -m tests.faults` tries; there is a table of all kinds."""

import pytest
from faults.serve import Programs


@pytest.mark.slow
def test_no_case_of_a_sample_crashes_hangs_is_swallowed_or_destroys_anything(
    programs: Programs,
) -> None:
    bad = programs.sample(80, seed=0)
    assert not bad, "\n\n".join(bad)
