"""Every number of every command: what is no number, what is not finite, and what is too large."""

import random
from collections.abc import Iterator

from faults.bases import BASES, SLOW, base_of, with_value
from faults.case import REFUSED, SANE, Case
from faults.commands import Command, Parameter, commands

__all__ = ["cases"]

HUGE = "9" * 5000
NEVER = ("nan", "inf", "-inf", "1e400", "-1", str(2**70), str(10**30), HUGE, "", "abc", "true",
         "0x10", "1,5", " ", "--1", "1e", "None")  # fmt: skip
NEVER_WHOLE = ("1.5", "0.1", "1e3", "²", "1/2", str(2**53), str(2**63), str(2**64))
PERHAPS = ("0", "1", "+2", " 3 ", "1_000", "١٢", "-0", "1e-300", "007", str(2**31), str(2**53))

# Where a value of the lists above is right, or where another rule is meant.
RIGHT = {
    "--seed": ("-0", str(2**53), str(2**31)),
    "--limit": (),
    "--phase-budget": (str(2**53),),  # cycles are counted in 64 bits
}

TEXTS = {  # options whose texts hold numbers
    ("npu-sim speculate", "--beam-width"): ("{}", "2,{}"),
    ("npu-sim speculate", "--draft-len"): ("{}", "{},2"),
    ("npu-sim headline", "--tokens"): ("4={}", "{}=2.7"),
    ("npu-sim run", "--phase-budget"): ("decode={}",),
    ("mu-ref quantize", "--bits"): ("*={}",),
}  # fmt: skip


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield the cases."""
    for command in commands().values():
        for parameter in command.of_kind("int", "float"):
            yield from _of_option(command, parameter)
        for parameter in command.of_kind("text"):
            for form in TEXTS.get((command.name, parameter.name), ()):
                yield from _of_text(command, parameter, form)


def _of_option(command: Command, parameter: Parameter) -> Iterator[Case]:
    never = NEVER + (NEVER_WHOLE if parameter.kind == "int" else ())
    right = RIGHT.get(parameter.name, ())
    for value in dict.fromkeys((*never, *PERHAPS)):
        refused = value in never and value not in right
        if command.name in SLOW and not refused:
            continue
        if value == "1_000" and parameter.name in ("--epochs", "--output"):
            continue  # right, and honest work for longer than a case may take
        yield Case(
            kind="numbers", command=command.name,
            arguments=with_value(command, parameter.name, value),
            expect=REFUSED if refused else SANE, codes=(0, 3), writes=base_of(command).writes,
        )  # fmt: skip


def _of_text(command: Command, parameter: Parameter, form: str) -> Iterator[Case]:
    if command.name not in BASES:
        return
    for value in (*NEVER, *NEVER_WHOLE, *PERHAPS):
        if value == "1,5" and command.name.endswith("speculate"):
            continue  # several are right there
        refused = value in NEVER or (value in NEVER_WHOLE and form != "4={}")
        refused &= value not in RIGHT.get(parameter.name, ())
        if command.name in SLOW and not refused:
            continue
        yield Case(
            kind="numbers", command=command.name,
            arguments=with_value(command, parameter.name, form.format(value)),
            expect=REFUSED if refused else SANE, codes=(0, 3), writes=base_of(command).writes,
        )  # fmt: skip
