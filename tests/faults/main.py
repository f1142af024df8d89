"""The program: which cases, how many at a time, and what is printed."""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from faults.boxes import Boxes
from faults.case import Case
from faults.kinds import KINDS, SEVERAL_RUNS
from faults.kinds.resume import kills
from faults.mutate import drawn
from faults.samples import make_samples
from faults.verdict import BAD, Verdict, judge, table

MOST = 120  # cases of a kind, unless --all, --kind or --command asks for all of them

__all__ = ["chosen_cases", "main"]


def main(arguments: list[str] | None = None) -> int:
    """Run; return the exit code."""
    options = _parser().parse_args(arguments)
    place = Path(tempfile.mkdtemp(prefix="faults-samples-"))
    try:
        return _run(options, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--command", nargs="+", default=[], help='such as "mu-ref ask"')
    parser.add_argument("--kind", nargs="+", default=[], choices=[*KINDS], metavar="NAME")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", type=int, help="so many cases, drawn from all")
    parser.add_argument("--warm", action="store_true", help="only what needs no fresh process")
    parser.add_argument("--kills", type=int, help="only this: so many kills of each long command")
    parser.add_argument("--all", action="store_true", help=f"more than {MOST} of a kind")
    parser.add_argument("--list", action="store_true", help="only print the command lines")
    parser.add_argument("--keep", type=Path, help="folder for the folders of bad cases")
    parser.add_argument("--report", type=Path, help="also write the bad cases to this file")
    return parser


def chosen_cases(
    kinds: list[str],
    commands: list[str],
    seed: int,
    sample: int | None,
    *,
    most: int | None = None,
    alone: bool = True,
) -> list[Case]:
    """Return the cases of a run; equal for equal arguments.

    Args:
        kinds: their names; all if there are none.
        commands: their names; all if there are none.
        seed: of what is drawn.
        sample: so many of them; all without.
        most: of each kind.
        alone: also those that take a process of their own, or several runs.
    """
    found: list[Case] = []
    for name, make in KINDS.items():
        if (kinds and name not in kinds) or (name in SEVERAL_RUNS and not alone):
            continue
        rng = random.Random(f"{seed} {name}")
        cases = [
            case for case in make(rng)
            if (not commands or case.command in commands) and (alone or not case.alone)
        ]  # fmt: skip
        found += cases if most is None else drawn(rng, cases, most)
    return found if sample is None else _sample(found, sample, random.Random(seed))


def _sample(cases: list[Case], n: int, rng: random.Random) -> list[Case]:
    """Draw cases, from each kind in turn, so that small kinds are tried too."""
    kinds: dict[str, list[Case]] = {}
    for case in rng.sample(cases, len(cases)):
        kinds.setdefault(case.kind, []).append(case)
    drawn: list[Case] = []
    while len(drawn) < min(n, len(cases)):
        drawn += [waiting.pop() for waiting in kinds.values() if waiting]
    return drawn[:n]


def _run(options: argparse.Namespace, place: Path) -> int:
    if options.kills is None:
        cases = chosen_cases(
            options.kind, options.command, options.seed, options.sample,
            most=None if options.all or options.kind or options.command else MOST,
            alone=not options.warm,
        )  # fmt: skip
    else:
        cases = list(kills(random.Random(options.seed), options.kills))
    if options.list:
        for case in cases:
            print(f"{case.kind:<14}{case.expect:<9}{case.line()}" + f"  # {case.note}"[:500])
        return 0
    fast = any(case.command.startswith("mu-ref") for case in cases)
    boxes = Boxes(make_samples(place / "samples"), options.processes, fast=fast)
    started = time.monotonic()
    try:
        verdicts = list(_judged(boxes, cases, options.report))
    finally:
        boxes.close()
    bad = [v for v in verdicts if v.column in BAD]
    text = "\n\n".join(_kept(boxes, v, options.keep, i) for i, v in enumerate(bad))
    print(table(verdicts))
    print(f"\n{len(verdicts):,} cases in {time.monotonic() - started:.0f} s")
    if bad:
        print(f"\n{text}")
    return 1 if bad else 0


def _judged(boxes: Boxes, cases: list[Case], report: Path | None) -> Iterator[Verdict]:
    n_bad = 0
    if report is not None:
        report.write_text("")
    for number, (case, outcome) in enumerate(boxes.run(cases), 1):
        verdict = judge(case, outcome)
        n_bad += verdict.column in BAD
        if verdict.column in BAD and report is not None:
            with report.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{verdict.report()}\n\n")
        if number % 50 == 0 or number == len(cases):
            print(f"\r{number:,} of {len(cases):,}, {n_bad} bad", end="", file=sys.stderr)
        yield verdict
    print(file=sys.stderr)


def _kept(boxes: Boxes, verdict: Verdict, folder: Path | None, number: int) -> str:
    """The report of a bad case; its folder as it was before, if it is to be kept."""
    text = verdict.report()
    if folder is not None:
        place = folder / f"{number:04d}"
        boxes.prepared(verdict.case, place)
        text += f"\n    in {place}"
    return text
