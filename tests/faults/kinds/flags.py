"""Flags that must act or be refused, and command lines that are no command lines."""

import random
from collections.abc import Iterator
from pathlib import Path

from faults.bases import BASES, SLOW, base_of
from faults.case import DONE, REFUSED, SANE, Case, Outcome
from faults.commands import commands

__all__ = ["cases"]

SHORT = "--input 4 --output 2"
NANO = "--weights nano.safetensors"
REFUSED_LINES = Path(__file__).with_name("refused.txt")

BUDGETS = (  # exit code 3 with --strict, and only then
    (f"npu-sim run tiny {SHORT} --budget-ms 0.001 --strict", 3),
    (f"npu-sim run tiny {SHORT} --budget-ms 0.001", 0),
    (f"npu-sim run tiny {SHORT} --budget-mb 0.000001 --strict", 3),
    (f"npu-sim run tiny {SHORT} --budget-mb 1000 --strict", 0),
    (f"npu-sim run tiny {SHORT} --phase-budget decode=1 --strict", 3),
    (f"npu-sim run tiny {SHORT} --phase-budget decode=99999999 --strict", 0),
    (f"npu-sim run tiny {SHORT} --budget-ms 0.001 --strict --fidelity roofline", 3),
    (f"npu-sim run tiny {SHORT} --phase-budget decode=5 --strict --fidelity roofline", 3),
)


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield the cases."""
    for line in lines_of(REFUSED_LINES):
        yield _of(line)
    for line, code in BUDGETS:
        for more in ("", " --json"):
            yield _of(line + more, expect=DONE, codes=(code,))
    yield _of(
        f"mu-ref quantize-drafter drafter.safetensors {NANO} --integers nano-w8a8.safetensors "
        "--scheme w8a8 --examples 2", expect=DONE, writes=("runs", "runs/*w8a8*"), after=_named,
    )  # fmt: skip
    for command in commands().values():
        yield from _no_command_lines(command.name)


def lines_of(file: Path) -> list[str]:
    """The command lines of a file, one a line; `#` begins a remark."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _of(line: str, **more: object) -> Case:
    name = next(name for name in commands() if f"{line} ".startswith(f"{name} "))
    fields = {"expect": REFUSED, **more}
    return Case(kind="flags", command=name, arguments=tuple(line.removeprefix(name).split()),
                **fields)  # type: ignore[arg-type]  # fmt: skip


def _named(folder: Path, _: Outcome) -> str:
    made = [path.name for path in (folder / "runs").iterdir()]
    return "" if made == ["mu-nano-drafter-w8a8.safetensors"] else f"wrote {made}"


def _no_command_lines(name: str) -> Iterator[Case]:
    """What no command takes."""
    command = commands()[name]
    base = base_of(command).arguments
    wrong = [(*base, "--nobody"), (*base, "-z"), (*base, "--nobody=1"), (*base, *["more"] * 9)]
    wrong += [(*base, p.name) for p in command.parameters if p.is_option and p.kind != "flag"][:2]
    wrong += [
        (*base, f"{p.name}=1") for p in command.parameters if p.is_option and p.kind == "flag"
    ]
    if any(p.required and not p.is_option for p in command.parameters):
        wrong.append(())
    for arguments in wrong:
        yield Case(kind="flags", command=name, arguments=arguments)
    yield Case(kind="flags", command=name, arguments=("--help",), expect=DONE)
    for p in command.parameters if name not in SLOW else ():
        if p.is_option and p.kind not in ("flag",) and not p.many and p.name in base:
            at = base.index(p.name)
            yield Case(kind="flags", command=name, arguments=(*base, *base[at : at + 2]),
                       expect=SANE, writes=BASES[name].writes)  # fmt: skip
