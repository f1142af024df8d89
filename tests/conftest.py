"""What every test runs under: floating-point errors are errors, and Hypothesis has no deadline."""

from collections.abc import Iterator
from subprocess import CompletedProcess
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np
import pytest
from beside import APART, ROOT, Beside, Program
from command_lines import Run, runner
from faults.serve import Programs
from hypothesis import HealthCheck, Phase, settings

if TYPE_CHECKING:
    from npu_sim.explore.server import Server

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

BESIDE = pytest.StashKey[Beside]()
WHOLE = 1000  # more tests than this are most of the suite: they need most of the kernels
COMPILES = (  # Numba keeps what these compile: the suite finds it there
    Program(("-c", "from npu_sim.cli import main; main()", "run", "tiny", "--json")),
    Program(("-c", "from mu_ref.cli import main; main()", "warm-up")),
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to `test_beside.py` what it runs; put tests of mu_ref last, for kernels to be ready."""
    places = [ROOT / place for place in APART]
    if any(item.path.name == "test_beside.py" for item in items):
        apart = [item for item in items if {item.path, *item.path.parents} & set(places)]
        config.hook.pytest_deselected(items=apart)
        items[:] = [item for item in items if item not in apart]
    items.sort(key=lambda item: "/tests/mu_ref/" in item.path.as_posix())


def program_of(item: pytest.Item) -> Program | None:
    """What a test wants to run beside the suite."""
    mark = item.get_closest_marker("beside")
    return mark and Program(mark.args, tuple(sorted(mark.kwargs.items())))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start what the chosen tests will wait for."""
    beside = session.config.stash[BESIDE] = Beside()
    if len(session.items) > WHOLE:
        beside.start(COMPILES)
    beside.start(filter(None, map(program_of, session.items)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop what nobody waits for any more."""
    if BESIDE in session.config.stash:
        session.config.stash[BESIDE].close()


@pytest.fixture
def beside(request: pytest.FixtureRequest) -> CompletedProcess[str]:
    """What became of the program that the test's mark `beside` names."""
    program = program_of(request.node)
    assert program is not None
    return request.config.stash[BESIDE].outcome(program)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    before = {path.name for path in ROOT.iterdir()}
    yield
    left = {path.name for path in ROOT.iterdir()} - before
    assert not {name for name in left if not name.startswith(".")}, "a test wrote beside README.md"


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


@pytest.fixture(scope="session")
def explore_server() -> Iterator["Server"]:
    """The server of `npu-sim explore`, in a thread of this process."""
    from npu_sim.explore.server import open_server

    with open_server(0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
