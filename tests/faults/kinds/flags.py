"""Flags that must act or be refused, and command lines that are no command lines."""

import random
from collections.abc import Iterator
from pathlib import Path

from ..bases import BASES, SLOW, base_of
from ..case import DONE, REFUSED, SANE, Case, Outcome
from ..commands import commands

__all__ = ["cases"]

SHORT = "--input 4 --output 2"
NANO = "--weights nano.safetensors"
QUANTIZE = f"mu-ref quantize mu-nano {NANO} --calibration queries.jsonl --examples 2 --worst 1"
INT4 = f"mu-ref quantize mu-nano {NANO} --scheme w4a16 --out new.safetensors"

ALONE = (  # an option has no effect here
    f"mu-ref ask x {NANO} --beam-width 2", f"mu-ref ask x {NANO} --draft-len 3",
    f"mu-ref ask x {NANO} --budget-ms 5", f"mu-ref ask x {NANO} --npu-model tiny",
    f"mu-ref ask x {NANO} --execute", f"mu-ref ask x {NANO} --execute --npu teaching-npu",
    f"mu-ref ask x {NANO} --drafter drafter.safetensors --npu teaching-npu --execute",
    f"mu-ref generate x {NANO} --tree new.png", f"mu-ref generate x {NANO} --beam-width 2",
    f"mu-ref generate x {NANO} --draft-len 3",
    *(f"{INT4} {more}" for more in (
        "--calibration queries.jsonl", "--examples 2", "--observer mse", "--rounding half_even",
        "--smooth 0.5", "--bits *=16", "--observed new.json", "--plot new.png",
        "--encodings new.csv", "--aimet 2.0.0", "--worst 3")),
    f"{QUANTIZE} --aimet 2.0.0", f"{QUANTIZE} --encodings new.csv --aimet 2.0.0",
    f"{QUANTIZE} --encodings new.txt", f"{QUANTIZE} --calibration=ranges.json --plot new.png",
    f"{QUANTIZE} --calibration=ranges.json --smooth 0.5",
    f"{QUANTIZE} --calibration=ranges.json --examples 5",
    f"{QUANTIZE} --calibration=ranges.json --observed new.json",
    f"{QUANTIZE} --bits nobody=8", f"{QUANTIZE} --bits *=4", f"{QUANTIZE} --bits =8",
    f"{QUANTIZE} --bits *", f"mu-ref quantize tiny --calibration queries.jsonl",
    f"mu-ref quantize mu-330m {NANO}",
    "npu-sim hardware show teaching-npu --json --toml", f"npu-sim run tiny {SHORT} --by bogus",
    f"npu-sim run tiny {SHORT} --by bogus --json", "npu-sim run", f"npu-sim run {SHORT}",
    f"npu-sim run tiny {SHORT} --model-json models.json#small",
    f"npu-sim run tiny {SHORT} --hf-config hf", f"npu-sim run {SHORT} --hf-config hf "
    "--model-json models.json#small",
    *(f"npu-sim run tiny {SHORT} --fidelity roofline {more}" for more in (
        "--trace new.json", "--gantt new.png", "--plot-roofline new.png",
        "--plot-breakdown new.png", "--phase-budget decode=5")),
    f"npu-sim run tiny {SHORT} --phase-budget nobody=5", f"npu-sim run tiny {SHORT} --phase-budget 5",
    f"npu-sim run tiny {SHORT} --phase-budget decode=5 --phase-budget decode=6",
    f"npu-sim run tiny {SHORT} --context 2", f"npu-sim run tiny {SHORT} --weight-bits 3",
    f"npu-sim run tiny {SHORT} --kv-bits 7", f"npu-sim run tiny {SHORT} --activation-bits 4",
    *(f"npu-sim {command} scenario.toml {more}" for command in (
        "sensitivity", "solve --target-latency-ms 1") for more in (
        "--npu hexagon-x-elite", "--npu teaching-npu", "--input 64", "--input 5", "--output 32",
        "--output 5")),
    *(f"npu-sim compare scenario.toml scenario.toml {more}" for more in (
        "--model tiny", "--input 5", "--output 5", "--model mu-330m --input 64")),
    "npu-sim solve tiny", "npu-sim solve tiny --target-tok-s 5 --target-latency-ms 1",
    "npu-sim solve tiny --target-latency-ms 1 --vary nobody",
    "npu-sim systolic --m 4 --n 4 --k 4 --rows 2 --cols 2", "npu-sim systolic", "npu-sim systolic --json",
    "npu-sim systolic --m 4 --n 4 --k 4 --rows 2 --cols 2 --dataflow os --seed 5",
    "npu-sim systolic --csv products.csv --out new.csv --seed 5",
    "npu-sim systolic --csv products.csv", "npu-sim systolic --out new.csv",
    "npu-sim systolic --csv products.csv --out new.csv --m 4",
    "npu-sim systolic --csv products.csv --out new.csv --dataflow os",
    "npu-sim sweep sweep.toml --processes 2 --dask tcp://127.0.0.1:1 --out new.csv",
    "npu-sim speculate tiny --acceptance acceptance.jsonl --accept-rate 0.5",
    "npu-sim speculate tiny --acceptance acceptance.jsonl --nodes-saved 0.5",
    "npu-sim speculate tiny --beam-width 1,1,", "npu-sim speculate tiny --beam-width ,",
    "npu-sim calibrate a100 --by model", "npu-sim calibrate nobody", "npu-sim headline --tokens 4",
    "npu-sim headline --tokens 0=2", "npu-sim headline --tokens 4=0", "npu-sim headline --tokens 4=-2",
    "npu-sim headline --tokens 4=2 --tokens 4=3", "npu-sim headline --tokens =",
    f"mu-ref train mu-nano --queries two.jsonl --resume --out new.safetensors",
    "mu-ref train mu-nano --queries two.jsonl --epochs 1 --batch-size 100 --out new.safetensors",
    "mu-ref train tiny --queries two.jsonl", "mu-ref train mu-nano --start nano.safetensors "
    "--queries two.jsonl --out new.safetensors",
    f"mu-ref train-drafter mu-nano {NANO} --queries two.jsonl --resume --out new.safetensors",
    *(f"mu-ref train-drafter mu-nano {NANO} --queries two.jsonl --epochs 1 --batch-size 8 "
      f"--draft-len 2 --out new.safetensors --start drafter.safetensors {more}"
      for more in ("--d-exit 16", "--d-exit 8", "--blocks 2", "--no-rnn")),
    f"mu-ref ask x {NANO} --scheme w8a16", "mu-ref ask x --weights nano-w8a16.safetensors",
    "mu-ref ask x --weights nano-w8a16.safetensors --scheme w8a8",
    "mu-ref ask x --weights nano-w4a16.safetensors --scheme w8a8",
    "mu-ref ask x --scheme w4a16", f"mu-ref ask x {NANO} --drafter nano.safetensors",
    f"mu-ref ask x {NANO} --drafter drafter-w8a16.safetensors",
    f"mu-ref ask x {NANO} --drafter shipped",
    f"mu-ref quantize-drafter drafter.safetensors {NANO} --integers nano-w8a16.safetensors "
    "--scheme w8a8 --examples 2 --out new.safetensors",
    f"mu-ref quantize-drafter drafter.safetensors {NANO} --examples 2 --out new.safetensors",
    "mu-ref draft-sweep queries.jsonl --limit 1 --drafter drafter.safetensors",
)  # fmt: skip

BUDGETS = (  # exit code 3 with --strict, and only then
    (f"npu-sim run tiny {SHORT} --budget-ms 0.001 --strict", 3),
    (f"npu-sim run tiny {SHORT} --budget-ms 0.001", 0),
    (f"npu-sim run tiny {SHORT} --budget-mb 0.000001 --strict", 3),
    (f"npu-sim run tiny {SHORT} --budget-mb 1000 --strict", 0),
    (f"npu-sim run tiny {SHORT} --phase-budget decode=1 --strict", 3),
    (f"npu-sim run tiny {SHORT} --phase-budget decode=99999999 --strict", 0),
    (f"npu-sim run tiny {SHORT} --budget-ms 0.001 --strict --fidelity roofline", 3),
)


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield the cases."""
    for line in ALONE:
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
    wrong += [(*base, f"{p.name}=1") for p in command.parameters if p.is_option and p.kind == "flag"]
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
