"""What `--json` prints is JSON, whole: one value, no NaN, no number without end."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from ..bases import SLOW, base_of
from ..case import DONE, SANE, Case, Outcome
from ..commands import commands
from .flags import NANO, SHORT

__all__ = ["cases", "strict_json"]

DRAFTS = "--drafter drafter.safetensors"
SPECULATE = "npu-sim speculate tiny --input 4 --context 4"
LINES = (
    f"mu-ref ask ??? {NANO}", f"mu-ref ask x {NANO} --npu teaching-npu",
    f"mu-ref ask ??? {NANO} --npu teaching-npu", f"mu-ref ask x {NANO} {DRAFTS} --beam-width 2",
    "mu-ref ask x --weights nano-w8a16.safetensors --scheme w8a16 --npu teaching-npu --execute",
    "mu-ref ask x --weights nano-w8a8.safetensors --scheme w8a8 --npu teaching-npu",
    "mu-ref info mu-330m", "mu-ref info decoder-only-330m", "mu-ref info microsoft-mu-text2text",
    f"mu-ref draft-sweep queries.jsonl {NANO} {DRAFTS} --beam-width 1 --beam-width 2 --draft-len 1 "
    "--draft-len 2 --limit 1", f"mu-ref settings eval two.jsonl {NANO} --worst 0",
    f"mu-ref settings eval queries.jsonl {NANO} --executor fast",
    f"{SPECULATE} --accept-rate 0", f"{SPECULATE} --accept-rate 1", f"{SPECULATE} --host-us 0",
    f"{SPECULATE} --beam-width 1,2 --draft-len 1,2", f"{SPECULATE} --nodes-saved 0.9",
    f"{SPECULATE} --acceptance acceptance.jsonl", f"{SPECULATE} --no-rnn --blocks 0",
    f"{SPECULATE} --blocks 1 --exit-dim 1",
    "npu-sim systolic --m 1 --n 1 --k 1 --rows 1 --cols 1 --dataflow is --fidelity cycle",
    "npu-sim systolic --csv products.csv --out new.csv", "npu-sim compare teaching-npu teaching-npu",
    f"npu-sim compare scenario.toml scenario.toml", "npu-sim hardware show hexagon-x-elite",
    "npu-sim hardware show npu.toml", f"npu-sim run {SHORT} --model-json models.json#small",
    f"npu-sim run tiny {SHORT} --by layer", f"npu-sim run tiny {SHORT} --fidelity roofline",
    f"npu-sim run tiny {SHORT} --strict --budget-ms 1e-9", f"npu-sim run tiny {SHORT} --runtime geniex",
    "npu-sim run tiny --input 1 --output 1", "npu-sim run tiny --input 1 --output 0",
    f"npu-sim solve tiny {SHORT} --target-tok-s 1e12", f"npu-sim solve tiny {SHORT} --target-ttft-ms 1e-9",
    f"npu-sim solve tiny {SHORT} --target-ttft-ms 1e9", f"npu-sim solve tiny --output 1 --target-tok-s 5",
    f"npu-sim solve scenario.toml --target-latency-ms 1 --vary workload.n_input",
    f"npu-sim sensitivity tiny {SHORT} --share 0.999", "npu-sim sensitivity tiny --output 1 --metric tpot_ms",
    *(f"npu-sim sensitivity tiny {SHORT} --metric {metric}" for metric in (
        "ttft_ms", "tpot_ms", "decode_tok_per_s", "latency_ms", "dram_bytes")),
    "npu-sim validate cases.csv --models models.json --npu teaching-npu", "npu-sim calibrate tpu-v6e",
    *(f"npu-sim run {model} {SHORT}" for model in ("mu-nano", "decoder-only-330m")),
)  # fmt: skip


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield the cases."""
    for command in commands().values():
        if any(p.name == "--json" for p in command.parameters) and command.name not in SLOW:
            yield _case(command.name, base_of(command).arguments, DONE)
            for name, value in (("COLUMNS", "1"), ("FORCE_COLOR", "1"), ("NO_COLOR", "1")):
                yield _case(command.name, base_of(command).arguments, DONE, {name: value})
    for line in LINES:
        name = next(name for name in commands() if f"{line} ".startswith(f"{name} "))
        yield _case(name, tuple(line.removeprefix(name).split()), SANE)


def _case(
    command: str, arguments: tuple[str, ...], expect: str, environment: dict[str, str] | None = None
) -> Case:
    return Case(kind="json", command=command, arguments=(*arguments, "--json"), expect=expect,
                codes=(0, 1, 3), after=strict_json, environment=environment or {},
                writes=("new.csv",))  # fmt: skip


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
        json.loads(outcome.out, parse_constant=constant, parse_float=number, object_pairs_hook=pairs)
    except ValueError as error:
        return f"stdout is no JSON: {error}: {outcome.out[:100]!r}"
    return ""
