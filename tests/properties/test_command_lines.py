"""Command lines drawn from the programs' own options: each is done, or refused in one line."""

from glob import escape
from typing import Any

import pytest
from faults.bases import BASES, SLOW, arguments_with, split
from faults.commands import Command, Parameter, commands
from faults.files import INPUTS, OUTPUTS
from faults.serve import Programs
from faults.verdict import BAD
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TRAINS = ("mu-ref train", "mu-ref train-drafter")  # seconds, unless refused
COMMANDS = commands()  # imports must not happen while examples are drawn
BAD_NUMBERS = ("nan", "inf", "-1", "1e400", "", "abc", "9" * 400, "1e30", "0x10", "-0.5")
OWN = ("new*", "new*/*", "nowhere", "nowhere/*", "runs", "runs/*", "x")
TEXTS = ("", "x", "[/x]", "$\\frac{$", "\x1b[31m", "=1+1", "ünï", "a\nb", "None", "-")


def good(parameter: Parameter, command: Command) -> st.SearchStrategy[str]:
    """Values that are often right, and never make much work."""
    if parameter.kind == "int":
        return st.integers(0, 9).map(str)
    if parameter.kind == "float":
        return st.floats(0, 4).map(str)
    choices = [str(parameter.default), "w8a16", "tile", "fast", "tiny", "teaching-npu", "os", "8"]
    # a fit of all calls of hexagon, a default, takes minutes
    return st.sampled_from([choice for choice in choices if choice not in ("None", "hexagon")])


def files(parameter: Parameter, command: Command) -> st.SearchStrategy[str]:
    right = [*INPUTS.get(command.name, {}).values(), "nano-w8a16.safetensors", "hf", "missing"]
    if parameter.name in OUTPUTS.get(command.name, {}):
        right = [OUTPUTS[command.name][parameter.name], "nowhere/x", "new.txt"]
    return st.sampled_from(right)


def values(parameter: Parameter, command: Command) -> st.SearchStrategy[str]:
    bad = BAD_NUMBERS if parameter.kind in ("int", "float") else TEXTS
    named = {**INPUTS.get(command.name, {}), **OUTPUTS.get(command.name, {})}
    if parameter.kind == "path" or parameter.name in named:
        return st.one_of(files(parameter, command), st.sampled_from(TEXTS))
    return st.one_of(good(parameter, command), st.sampled_from(bad))


@st.composite
def command_lines(draw: Any) -> tuple[str, list[str]]:
    """Draw a command and arguments: those that work, with some options more or otherwise."""
    name = draw(st.sampled_from([name for name in sorted(COMMANDS) if name not in SLOW]))
    command = COMMANDS[name]
    options, given_ = split(command, list(BASES[name].arguments))
    chosen = (
        draw(st.lists(st.sampled_from(command.parameters), max_size=4))
        if command.parameters
        else []
    )
    for parameter in chosen:
        if parameter.kind == "flag":
            options.append(draw(st.sampled_from([n for n in (parameter.name, parameter.off) if n])))
        elif parameter.is_option:
            options = arguments_with(
                command, options, parameter.name, draw(values(parameter, command))
            )
        elif given_:
            at = draw(st.integers(0, len(given_) - 1))
            given_[at] = draw(values(parameter, command))
    if name in TRAINS:
        options.append(f"--rate={draw(st.sampled_from(BAD_NUMBERS))}")
    return name, [*options, "--", *given_]


def outputs(name: str, arguments: list[str]) -> tuple[str, ...]:
    """Return patterns of what a command line may make, names without sense among them."""
    said = [a.partition("=")[2] if a.startswith("--") else a for a in arguments]
    odd = [escape(text) for text in said if text in TEXTS and text and name in OUTPUTS]
    return (*OWN, *odd, *(f"{text}{end}*" for text in odd for end in "./"))


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=command_lines())
def test_a_command_line_is_done_or_refused_in_one_line(
    programs: Programs, line: tuple[str, list[str]]
) -> None:
    name, arguments = line
    answer = programs.run(
        name, arguments, codes=(0, 1, 3), json="--json" in arguments,
        writes=outputs(name, arguments),
    )  # fmt: skip
    assert answer.column not in BAD, f"{answer.column}: {answer.reason}\n{answer.err}"
