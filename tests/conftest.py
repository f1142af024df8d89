"""What every test runs under: floating-point errors are errors, and Hypothesis has no deadline."""

from collections.abc import Iterator

import numpy as np
import pytest
from command_lines import Run, runner
from faults.serve import Programs
from hypothesis import HealthCheck, Phase, settings

# Two cores are shared with whatever else runs there: time says nothing about a test case.
settings.register_profile(
    "tests", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
# For `python -m tests.mutants`: the same examples every time, and no search for a smaller one.
settings.register_profile(
    "mutants", parent=settings.get_profile("tests"), derandomize=True, database=None,
    phases=(Phase.explicit, Phase.generate),
)  # fmt: skip
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _floating_point_errors_are_errors() -> Iterator[None]:
    with np.errstate(divide="raise", over="raise", invalid="raise"):  # softmax may underflow
        yield


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    """Both programs, for tests of whole command lines."""
    found = Programs()
    yield found
    found.close()


@pytest.fixture
def mu_ref(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`mu-ref`, run in this process: (arguments) -> (exit code, stdout, stderr)."""
    from mu_ref.cli.app import main

    return runner("mu-ref", main, monkeypatch, capsys)


@pytest.fixture
def npu_sim(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`npu-sim`, run in this process: (arguments) -> (exit code, stdout, stderr)."""
    from npu_sim.cli.app import main

    return runner("npu-sim", main, monkeypatch, capsys)
