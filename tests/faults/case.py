"""One thing to try: a command line, what is done to its folder first, and what must come of it."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["DONE", "NOTHING", "REFUSED", "SANE", "Case", "Outcome"]

REFUSED = "refused"  # one line of error, exit 2, nothing written
DONE = "done"  # an exit code of `Case.codes`, and `Case.after` has no complaint
SANE = "sane"  # either of them: no rule says which

NOTHING: Callable[[Path], None] = lambda folder: None  # noqa: E731


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program did."""

    code: int | None  # exit code; negative: ended by that signal; None: had to be stopped
    out: str
    err: str
    cpu_s: float
    changed: tuple[str, ...] = ()  # "made x", "changed x", "removed x"
    files: Mapping[str, str] = field(default_factory=dict)  # {what was made or changed: its state}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A command line in a fresh copy of the samples, and what must come of it."""

    kind: str
    command: str  # "mu-ref settings eval"
    arguments: tuple[str, ...]
    expect: str = REFUSED
    codes: tuple[int, ...] = (0,)
    prepare: Callable[[Path], None] = NOTHING  # changes the folder before it is looked at
    note: str = ""  # what `prepare` does
    writes: tuple[str, ...] = ()  # names that may be made or changed if all goes well
    removes: tuple[str, ...] = ()  # names that may be gone if all goes well
    leaves: tuple[str, ...] = ()  # names that may be made though it is refused
    late: bool = False  # only the work shows that it must be refused
    after: Callable[[Path, Outcome], str] | None = None  # complaint about a run that was done
    environment: Mapping[str, str | None] = field(default_factory=dict)  # None: not set
    stdout: str = (
        ""  # a file to write to instead of being read: "/dev/full"; "closed"; "broken pipe"
    )
    alone: bool = False  # in a process of its own, not in a fork of one that is warm
    seconds: float = 6.0  # of a processor, until it counts as hung

    @property
    def words(self) -> tuple[str, ...]:
        """The program, the command and all arguments."""
        return (*self.command.split(), *self.arguments)

    def line(self) -> str:
        """The command line, to be pasted into a shell."""
        set_before = [
            f"-u {name}" if value is None else f"{name}={shlex.quote(value)}"
            for name, value in self.environment.items()
        ]
        before = f"env {' '.join(set_before)} " if set_before else ""
        behind = {"": "", "closed": " >&-", "broken pipe": " | true"}.get(
            self.stdout, f" > {self.stdout}"
        )
        return before + " ".join(_quoted(word) for word in self.words) + behind


def _quoted(word: str) -> str:
    if len(word) > 200:
        return f"{shlex.quote(word[:40])}...{len(word)}-characters"
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + word.encode("unicode_escape").decode().replace("'", "\\'") + "'"
