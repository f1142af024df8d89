"""What `--json` prints is JSON, whole: one value, no NaN, no number without end."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from faults.bases import SLOW, base_of
from faults.case import DONE, SANE, Case, Outcome
from faults.commands import commands
from faults.kinds.flags import lines_of

__all__ = ["cases", "strict_json"]

JSON_LINES = Path(__file__).with_name("json.txt")


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield the cases."""
    for command in commands().values():
        if any(p.name == "--json" for p in command.parameters) and command.name not in SLOW:
            yield _case(command.name, base_of(command).arguments, DONE)
            for name, value in (("COLUMNS", "1"), ("FORCE_COLOR", "1"), ("NO_COLOR", "1")):
                yield _case(command.name, base_of(command).arguments, DONE, {name: value})
    for line in lines_of(JSON_LINES):
        name = next(name for name in commands() if f"{line} ".startswith(f"{name} "))
        yield _case(name, tuple(line.removeprefix(name).split()), SANE)


def _case(
    command: str, arguments: tuple[str, ...], expect: str, environment: dict[str, str] | None = None
) -> Case:
    return Case(kind="json", command=command, arguments=(*arguments, "--json"), expect=expect,
                codes=(0, 1, 3), after=strict_json, environment=environment or {},
                writes=("new.csv", "new.json"))  # fmt: skip


def strict_json(_: Path, outcome: Outcome) -> str:
    """Complain where stdout is not one value of JSON."""

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")

    def number(text: str) -> float:
        if abs(value := float(text)) == float("inf"):
            raise ValueError(f"{text} is no number")
        return value

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(found)) < len(found):
            raise ValueError("a key stands twice")
        return dict(found)

    try:
        json.loads(
            outcome.out, parse_constant=constant, parse_float=number, object_pairs_hook=pairs
        )
    except ValueError as error:
        return f"stdout is no JSON: {error}: {outcome.out[:100]!r}"
    return ""
