"""Streams that are closed or full, and environments that nobody thought of."""

import random
from collections.abc import Iterator

from faults.bases import BASES, SLOW, base_of
from faults.case import DONE, REFUSED, SANE, Case
from faults.commands import commands

__all__ = ["cases"]

QUICK = ("mu-ref ask", "npu-sim run", "npu-sim hardware show", "npu-sim sweep")
FAST = ("bluetooth off", "--weights", "nano.safetensors", "--executor", "fast")


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield the cases."""
    for command in commands().values():
        if command.name not in SLOW:
            base = base_of(command)
            full = SANE if command.name == "npu-sim sweep" else REFUSED
            yield Case(kind="environment", command=command.name, arguments=base.arguments,
                       stdout="/dev/full", expect=full, late=True, leaves=base.writes,
                       writes=base.writes)  # fmt: skip
    yield from _variables()
    yield from _threads()
    for name in QUICK:
        for stdout, expect in (("closed", SANE), ("/dev/full", SANE), ("broken pipe", SANE)):
            yield _real(name, stdout=stdout, expect=expect, leaves=BASES[name].writes)
        yield _real(name, environment={"HOME": None})
        # nowhere to keep compiled kernels: compiling all of them takes half a minute
        yield _real(name, environment={"HOME": "/nonexistent", "XDG_CACHE_HOME": None},
                    seconds=90.0)  # fmt: skip
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    yield _real("mu-ref ask", environment=plain)
    yield _real("npu-sim run", environment={"PYTHONIOENCODING": "ascii"})
    yield _real("mu-ref info", environment={"PYTHONIOENCODING": "ascii:strict"})
    yield _real("npu-sim run", environment={"PYTHONWARNINGS": "error"})
    yield _real("mu-ref ask", environment={"PYTHONWARNINGS": "error"})
    yield Case(kind="environment", command="mu-ref ask", arguments=("ünï \u202e",), alone=True,
               environment=plain, expect=DONE, seconds=30.0)  # fmt: skip


def _real(name: str, **more: object) -> Case:
    # a pipe that nobody reads from ends a program as Typer ends it: with 1
    codes = (0, 1) if more.get("stdout") == "broken pipe" else (0,)
    fields = {"expect": DONE, "codes": codes, "seconds": 30.0, **more}
    return Case(
        kind="environment",
        command=name,
        arguments=BASES[name].arguments,
        alone=True,
        writes=BASES[name].writes,
        **fields,
    )  # type: ignore[arg-type]


def _variables() -> Iterator[Case]:
    plot = ("tiny", "--input", "4", "--output", "2", "--gantt", "new.png")
    for name in (*QUICK, "mu-ref settings eval", "npu-sim sensitivity", "npu-sim validate"):
        for variable, value in (
            ("COLUMNS", "1"), ("COLUMNS", "abc"), ("COLUMNS", "-5"), ("COLUMNS", "100000"),
            ("LINES", "0"), ("NO_COLOR", "1"), ("FORCE_COLOR", "1"), ("TERM", "dumb"),
            ("TERM", ""), ("TERM", "nobody"), ("TMPDIR", "/nonexistent"), ("LANG", "C"),
            ("MU_REF_THREADS", "abc"),
        ):  # fmt: skip
            yield Case(kind="environment", command=name, arguments=BASES[name].arguments,
                       environment={variable: value}, writes=BASES[name].writes,
                       expect=SANE if variable == "MU_REF_THREADS" else DONE)  # fmt: skip
    for variable, value in (("COLUMNS", "1"), ("MPLBACKEND", "nobody"), ("TMPDIR", "/nonexistent"),
                            ("MPLCONFIGDIR", "/nonexistent"), ("DISPLAY", ":99")):  # fmt: skip
        yield Case(kind="environment", command="npu-sim run", arguments=plot,
                   environment={variable: value}, writes=("new.png",), expect=SANE)  # fmt: skip


def _threads() -> Iterator[Case]:
    for value, expect in (
        ("abc", REFUSED), ("0", REFUSED), ("-1", REFUSED), ("", SANE), ("1.5", REFUSED),
        ("1000000000", REFUSED), ("9" * 5000, REFUSED), ("²", REFUSED), ("2", DONE), ("1", DONE),
    ):  # fmt: skip
        yield Case(kind="environment", command="mu-ref ask", arguments=FAST,
                   environment={"MU_REF_THREADS": value}, expect=expect)  # fmt: skip
