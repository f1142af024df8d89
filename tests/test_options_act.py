"""Every option of every command changes something, or is refused: none is read and forgotten."""

import json
import re
from functools import cache
from typing import Any

import pytest
from faults.bases import BASES, SLOW, arguments_with, split
from faults.commands import commands
from faults.serve import Answer, Programs
from options_act import CHANGES, INVISIBLE, MORE

TIMES = ("tokens_per_s", "plain_s", "drafted_s", "speedup", "request_speedup", "draft_share", "_s")
ENTRIES = [
    (command, option)
    for command, options in CHANGES.items()
    for option in options
    if any(p.name == option for p in commands()[command].parameters)
]


def test_every_option_has_an_entry() -> None:
    missing = [
        f"{command.name} {parameter.name}"
        for command in commands().values()
        for parameter in command.parameters
        if command.name not in SLOW
        and parameter.name not in CHANGES.get(command.name, {})
        and (command.name, parameter.name) not in INVISIBLE
    ]
    assert not missing, f"tests/options_act.py must say what these change: {missing}"


def without_times(value: Any) -> Any:
    """JSON without what differs from run to run."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not k.endswith(TIMES)}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def seen(answer: Answer, command: str) -> tuple[Any, ...]:
    """What somebody sees of a run, without what the clock says."""
    out = answer.out
    if command in ("mu-ref train", "mu-ref train-drafter", "mu-ref distill"):
        out = ""  # losses and times; what counts is the file
    try:
        out = json.dumps(without_times(json.loads(out)))
    except ValueError:
        out = re.sub(r"[\d.]+ (%|s|ms|tokens/s|steps/s)\b(?= of the time|,|$|\))", "N", out)
    err = answer.err if command == "npu-sim sweep" else ""
    return answer.code, out, bool(err), dict(answer.files)


@cache
def _unchanged(programs: Programs, name: str, arguments: tuple[str, ...]) -> Answer:
    return programs.run(name, arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "option"), ENTRIES, ids=lambda text: text)
def test_an_option_changes_something_or_is_refused(
    programs: Programs, name: str, option: str
) -> None:
    command = commands()[name]
    change = CHANGES[name][option]
    value, more = change if isinstance(change, tuple) else (change, "")
    base = [*BASES[name].arguments, *MORE.get(name, ())]
    if option == "--json":
        base = [*BASES[name].arguments]
    if option == "--quiet":
        base.remove("--quiet")
    options, given = split(command, [*base, *more.split()])
    parameter = command.find(option)
    if parameter.kind == "flag":
        changed = [*options, value or option, "--", *given]
    elif parameter.is_option:
        changed = [*arguments_with(command, options, option, value), "--", *given]
    else:
        names = [p.name for p in command.parameters if not p.is_option]
        at = names.index(option)
        changed = [*options, "--", *given[:at], value, *given[at + 1 :]]
    before = _unchanged(programs, name, (*options, "--", *given))
    assert before.code == 0, f"{name} {options} {given}: {before.err}"
    after = programs.run(name, changed)
    assert after.code in (0, 1, 2, 3), f"{name} {changed}: {after.err}"
    assert after.code == 2 or seen(before, name) != seen(after, name), f"{changed} changes nothing"


@pytest.mark.parametrize("option", ["--npu=h100", "--input=9", "--output=5"])
@pytest.mark.parametrize("command", ["sensitivity", "solve --target-latency-ms 1", "compare"])
def test_an_option_beside_a_scenario_changes_something_or_is_refused(
    programs: Programs, command: str, option: str
) -> None:
    name, *more = command.split()
    files = ["scenario.toml"] * (2 if name == "compare" else 1)
    before = _unchanged(programs, f"npu-sim {name}", (*files, *more, "--json"))
    after = programs.run(f"npu-sim {name}", [*files, *more, "--json", option])
    assert before.code == 0, before.err
    assert after.code == 2 or (after.code == 0 and after.out != before.out)


def test_an_answer_is_priced_in_the_arithmetic_that_computed_it(programs: Programs) -> None:
    prices = []
    for scheme in ("w8a16", "w8a8"):
        weights = f"nano-{scheme}.safetensors"
        more = ["--scheme", scheme, "--weights", weights, "--npu", "hexagon-x-elite", "--json"]
        answer = programs.run("mu-ref ask", ["bluetooth off", *more])
        assert answer.code == 0, answer.err
        prices.append(json.loads(answer.out)["npu"]["precision"])
    assert prices[0] != prices[1]


def test_a_sweep_prices_the_head_that_run_prices(programs: Programs) -> None:
    bound = ["--fidelity", "roofline", "--json"]
    arguments = ["tiny", "--npu", "teaching-npu", "--input", "4", "--output", "2",
                 "--weight-bits", "16", *bound]  # fmt: skip
    run = json.loads(programs.run("npu-sim run", arguments).out)
    solved = programs.run("npu-sim sensitivity", ["sixteen.toml", *bound])
    assert json.loads(solved.out)["base"] == pytest.approx(run["latency_ms"])
