"""What counts as what: a column of the table for each case, and the reason if it is a bad one."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from faults.case import DONE, REFUSED, SANE, Case, Outcome

__all__ = ["BAD", "COLUMNS", "Verdict", "judge", "table"]

CLEAN, WANTED, TRACEBACK, QUIET, HUNG, LOST = (
    "clean errors", "as wanted", "tracebacks", "quiet", "hung", "lost",
)  # fmt: skip
BAD = (TRACEBACK, QUIET, HUNG, LOST)
COLUMNS = (CLEAN, WANTED, *BAD)
MISTAKE = 2
SOON_S = 4.0  # of a processor; a mistake is said before the work
_LEFT = re.compile(r"\.part$|^left ")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A case, what came of it, and what that counts as."""

    case: Case
    outcome: Outcome
    column: str
    reason: str = ""

    def report(self) -> str:
        """What somebody needs to see it again."""
        where = f"[{self.case.command}, {self.case.kind}]"
        lines = [f"{where} {self.column}: {self.reason}", f"    {self.case.line()}"]
        if self.case.note:
            lines.append(f"    where {self.case.note}")
        for name, text in (("out", self.outcome.out), ("err", self.outcome.err)):
            shown = text.strip().splitlines()[-4:]
            lines += [f"    {name}| {line[:300]}" for line in shown]
        return "\n".join(lines)


def judge(case: Case, outcome: Outcome) -> Verdict:
    """Say what a case counts as."""
    column, reason = _judged(case, outcome)
    return Verdict(case, outcome, column, reason)


def _judged(case: Case, outcome: Outcome) -> tuple[str, str]:
    code, err = outcome.code, outcome.err
    if code is None:
        return HUNG, f"not done after {case.seconds:g} s of a processor"
    for mark in ("Traceback (most recent call last)", "Exception ignored", "Fatal Python error"):
        if mark in err or mark in outcome.out:
            return TRACEBACK, f"{_last(err)} (exit code {code})"
    allowed = {REFUSED: (MISTAKE, *case.codes), DONE: case.codes, SANE: (MISTAKE, *case.codes)}
    if code not in allowed[case.expect]:
        return TRACEBACK, f"exit code {code}: {_last(err)}"
    lost = _lost(case, outcome)
    if lost:
        return LOST, lost
    return _of_exit(case, outcome)


def _of_exit(case: Case, outcome: Outcome) -> tuple[str, str]:
    code, err = outcome.code, outcome.err
    if code == MISTAKE and MISTAKE not in case.codes:
        return _refusal(outcome, late=case.late)
    if "COMPLAINT: " in err:
        return QUIET, err.rpartition("COMPLAINT: ")[2].strip()[:300]
    if case.expect == REFUSED:
        return QUIET, f"accepted (exit code {code})"
    return WANTED, ""


def _refusal(outcome: Outcome, *, late: bool) -> tuple[str, str]:
    lines = outcome.err.splitlines()
    while len(lines) > 1 and (late or lines[0].startswith("warning: ")):  # as of an unknown field
        lines = lines[1:]
    if len(lines) != 1 or not lines[0].startswith("error: ") or len(lines[0]) < 12:
        return TRACEBACK, f"not one line of error, but {len(lines)}: {outcome.err[:300]!r}"
    if outcome.out.strip() and not late:
        return TRACEBACK, f"printed something and then failed: {outcome.out[:100]!r}"
    if outcome.cpu_s > SOON_S and not late:
        return HUNG, f"refused only after {outcome.cpu_s:.0f} s of a processor"
    return CLEAN, ""


def _lost(case: Case, outcome: Outcome) -> str:
    """What changed though it may not."""
    may_write = case.writes if outcome.code in case.codes else case.leaves
    accepted = case.expect == REFUSED and outcome.code in case.codes  # made: it was asked for
    done = outcome.code in case.codes
    allowed = {"made": may_write, "changed": may_write, "removed": case.removes if done else ()}
    wrong = []
    for change in outcome.changed:
        how, _, name = change.partition(" ")
        fits = any(PurePath(name).match(pattern) for pattern in allowed.get(how, ()))
        if (how != "removed" and _LEFT.search(change)) or not (
            fits or (accepted and how == "made")
        ):
            wrong.append(change)
    return "; ".join(wrong[:5])


def _last(err: str) -> str:
    lines = [line for line in err.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing on stderr"


def table(verdicts: Iterable[Verdict]) -> str:
    """Return the table: kind, cases tried, and how many of each column."""
    kinds: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        kinds.setdefault(verdict.case.kind, Counter())[verdict.column] += 1
    total = sum(kinds.values(), Counter())
    rows = [*sorted(kinds.items()), ("all", total)]
    lines = [f"{'kind':<14}{'tried':>7}" + "".join(f"{name:>14}" for name in COLUMNS)]
    for kind, counts in rows:
        numbers = "".join(f"{counts[name]:>14,}" for name in COLUMNS)
        lines.append(f"{kind:<14}{counts.total():>7,}{numbers}")
    return "\n".join(lines)
