"""The list of small faults fits the code: quotations stand there once, every room has some."""

from pathlib import Path

import pytest
from architecture import ROOMS
from mutants import Fault, complaints, read_list, with_fault

LISTED = read_list()
LEVELS = [(package, level) for package, levels in ROOMS.items() for level in levels]


def test_every_quotation_stands_once_in_its_file() -> None:
    assert complaints(LISTED) == []


@pytest.mark.parametrize(("package", "rooms"), LEVELS)
def test_every_room_has_faults(package: str, rooms: tuple[str, ...]) -> None:
    faults = [fault for room in LISTED for fault in room.faults]
    places = [Path(fault.file).with_suffix("").parts[:2] for fault in faults]
    found = sum(place in {(package, room) for room in rooms} for place in places)
    assert found >= 5


def test_there_are_many_and_few_excuses() -> None:
    faults = [fault for room in LISTED for fault in room.faults]
    assert len(faults) >= 300
    assert sum(bool(fault.excuse) for fault in faults) <= 0.04 * len(faults)


@pytest.mark.parametrize(
    ("code", "fault", "message"),
    [
        ("x + 1", "x - 1", "must stand exactly once, got 0"),
        ("y", "z", "must stand exactly once, got 2"),
        ("x = 1", "x = ", "must still be readable"),
        ("x = 1", "x =  1", "must change what the code does"),
    ],
)
def test_a_line_that_does_not_fit_is_refused(code: str, fault: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_fault("x = 1\ny = y\n", Fault("room", "a.py", code, fault))


def test_files_of_numbers_can_have_faults_too() -> None:
    fault = Fault("room", "a.toml", "n = 1", "n = 2")
    assert with_fault("n = 1  # one\n", fault) == "n = 2  # one\n"
