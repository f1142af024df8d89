"""For every command a command line that works and is quick, and what its options need.

A command without an entry fails at once, so that a new one is tried too.
"""

from dataclasses import dataclass

from faults.commands import Command

__all__ = ["BASES", "SLOW", "Base", "arguments_with", "base_of", "split", "with_value"]

NANO = ("--weights", "nano.safetensors")
SHORT = ("--input", "4", "--output", "2")


@dataclass(frozen=True, slots=True)
class Base:
    """A command line that works: its arguments, and what it writes."""

    arguments: tuple[str, ...]
    writes: tuple[str, ...] = ()


BASES = {
    "mu-ref quantize": Base(
        ("mu-nano", *NANO, "--calibration", "queries.jsonl", "--examples", "2", "--worst", "1")
    ),
    "mu-ref generate": Base(("bluetooth off", *NANO, "--executor", "reference")),
    "mu-ref train-drafter": Base(
        ("mu-nano", *NANO, "--queries", "queries.jsonl", "--epochs", "1", "--draft-len", "2",
         "--batch-size", "16", "--out", "new.safetensors"),
        ("new*",),
    ),
    "mu-ref quantize-drafter": Base(
        ("drafter.safetensors", *NANO, "--integers", "nano-w8a16.safetensors", "--examples", "2",
         "--draft-len", "2", "--out", "new.safetensors"),
        ("new*",),
    ),
    "mu-ref draft-sweep": Base(
        ("queries.jsonl", "--drafter", "drafter.safetensors", *NANO, "--beam-width", "1",
         "--draft-len", "2", "--limit", "1", "--executor", "reference")
    ),
    "mu-ref ask": Base(("bluetooth off", *NANO)),
    "mu-ref info": Base(("tiny",)),
    "mu-ref forward": Base(
        ("mu", "--inputs", "ids.npz", "--out", "new.npz", "--max-new-tokens", "1"), ("new*",)
    ),
    "mu-ref train": Base(
        ("mu-nano", "--queries", "two.jsonl", "--epochs", "1", "--batch-size", "2",
         "--out", "new.safetensors"),
        ("new*",),
    ),
    "mu-ref distill": Base(
        ("new", "--teacher", "nano.safetensors", "--queries", "two.jsonl", "--epochs", "1",
         "--batch-size", "2", "--set=encoder.n_layers=1", "--set=decoder.n_layers=1"),
        ("new*", "new*/*"),
    ),
    "mu-ref lora train": Base(
        ("new", "--base", "nano.safetensors", "--queries", "two.jsonl", "--held-out", "two.jsonl",
         "--epochs", "1", "--batch-size", "2"),
        ("new*", "new*/*"),
    ),
    "mu-ref lora merge": Base(
        ("lora.safetensors", "--base", "nano.safetensors", "--out", "new.safetensors"), ("new*",)
    ),
    "mu-ref warm-up": Base(()),
    "mu-ref golden write": Base(
        ("new", "--model", "nano-w8a16.safetensors", "--max-new-tokens", "2"), ("new*", "new*/*")
    ),
    "mu-ref golden check": Base(("golden", "port")),
    "mu-ref export onnx": Base(
        ("new", "--model", "nano.safetensors"), ("new*", "new*/*")
    ),
    "mu-ref settings eval": Base(("two.jsonl", *NANO)),
    "mu-ref settings baseline": Base(("two.jsonl", "--queries", "queries.jsonl", *NANO)),
    "mu-ref settings train-rank": Base(
        ("--queries", "queries.jsonl", "--epochs", "1", "--limit", "3", *NANO,
         "--executor", "reference", "--out", "new.safetensors"),
        ("new*",),
    ),
    "npu-sim explain": Base(("tiny", "--site", "decoder.1.mlp.up", *SHORT)),
    "npu-sim explore": Base(("--no-browser",)),
    "npu-sim check-trace": Base(("trace.json",)),
    "npu-sim speculate": Base(("tiny", "--input", "4", "--context", "4")),
    "npu-sim systolic": Base(
        ("--m", "4", "--n", "4", "--k", "4", "--rows", "2", "--cols", "2", "--dataflow", "os")
    ),
    "npu-sim sweep": Base(
        ("sweep.toml", "--processes", "1", "--quiet", "--out", "new.csv"), ("new*", "new*/*")
    ),
    "npu-sim sensitivity": Base(("tiny", *SHORT)),
    "npu-sim compare": Base(("hexagon-x-elite", "teaching-npu", "--model", "tiny", *SHORT)),
    "npu-sim solve": Base(("tiny", "--target-latency-ms", "1", *SHORT)),
    "npu-sim validate": Base(("cases.csv", "--models", "models.json")),
    "npu-sim calibrate": Base(("a100",)),
    "npu-sim headline": Base(()),
    "npu-sim run": Base(("tiny", *SHORT)),
    "npu-sim hardware list": Base(()),
    "npu-sim hardware show": Base(("teaching-npu",)),
    "npu-sim hardware compare": Base(("teaching-npu", "hexagon-x-elite")),
}  # fmt: skip

# seconds, or until it is stopped: nothing is varied that is not refused
SLOW = ("mu-ref warm-up", "npu-sim headline", "npu-sim explore")

_DRAFTS = ("--drafter", "drafter.safetensors")
_MODELS = ("--model-json", "--hf-config")
_PRODUCTS = ("--csv", "products.csv", "--out", "new.csv")
_OTHERS = {  # where an option acts only beside others, or in place of some
    "mu-ref ask": {
        "--beam-width": (*BASES["mu-ref ask"].arguments, *_DRAFTS),
        "--draft-len": (*BASES["mu-ref ask"].arguments, *_DRAFTS),
        "--budget-ms": (*BASES["mu-ref ask"].arguments, "--npu", "teaching-npu"),
        "--npu-model": (*BASES["mu-ref ask"].arguments, "--npu", "teaching-npu"),
        "--execute": ("bluetooth off", "--weights", "nano-w8a16.safetensors", "--scheme", "w8a16",
                      "--npu", "teaching-npu"),
    },
    "mu-ref settings train-rank": {
        "--start": ("--limit", "3", *NANO, "--executor", "reference", "--out", "new.safetensors"),
    },
    "mu-ref generate": dict.fromkeys(
        ("--beam-width", "--draft-len", "--tree"), (*BASES["mu-ref generate"].arguments, *_DRAFTS)
    ),
    "mu-ref quantize": {
        "--aimet": (*BASES["mu-ref quantize"].arguments, "--encodings", "new.json"),
    },
    "mu-ref golden write": {
        "--seed": (*BASES["mu-ref golden write"].arguments[:3], "--depth", "layers"),
        "--tokens": ("new", "--model", "nano-w8a16.safetensors"),
        **dict.fromkeys(
            ("--beam-width", "--draft-len"),
            (*BASES["mu-ref golden write"].arguments, "--drafter", "drafter-w8a16.safetensors"),
        ),
    },
    "npu-sim systolic": {
        "--seed": (*BASES["npu-sim systolic"].arguments, "--fidelity", "cycle"),
        "--csv": _PRODUCTS, "--out": _PRODUCTS,
    },
    "npu-sim explain": dict.fromkeys(_MODELS, ("--site", "decoder.1.mlp.up", *SHORT)),
    "npu-sim speculate": dict.fromkeys(_MODELS, ("--context", "4")),
    "npu-sim sensitivity": {"base": ("tiny",), **dict.fromkeys(_MODELS, SHORT)},
    "npu-sim compare": {
        "b": ("scenario.toml", "scenario.toml"), "--npu": ("scenario.toml", "sixteen.toml"),
        **dict.fromkeys(_MODELS, ("hexagon-x-elite", "teaching-npu", *SHORT)),
    },
    "npu-sim run": dict.fromkeys(_MODELS, SHORT),
    "npu-sim solve": {
        "base": ("tiny", "--target-latency-ms", "1"), "--target-tok-s": ("tiny", *SHORT),
        "--target-ttft-ms": ("tiny", *SHORT),
        **dict.fromkeys(_MODELS, ("--target-latency-ms", "1", *SHORT)),
    },
}  # fmt: skip


def base_of(command: Command) -> Base:
    """Return the entry of a command; a command without one must get one."""
    return BASES[command.name]


def with_value(command: Command, name: str, *values: str) -> tuple[str, ...]:
    """The arguments of the base with an option or argument changed.

    Args:
        command: the command.
        name: of an option ("--epochs"), or of an argument ("file").
        values: in place of its own; a flag has none; several repeat the option.

    Returns:
        Arguments; values are joined to options by "=", so that they may begin with a dash.
    """
    base = _OTHERS.get(command.name, {}).get(name, base_of(command).arguments)
    arguments, parameter = list(base), command.find(name)
    if not parameter.is_option:
        return tuple(_with_argument(command, arguments, name, values[0]))
    arguments = _without(arguments, name, command)
    if parameter.kind == "flag":
        return (*arguments, *(values or (name,)))
    return (*arguments, *(f"{name}={value}" for value in values))


def arguments_with(
    command: Command, arguments: list[str], option: str, value: str
) -> list[str]:  # fmt: skip
    """Return arguments with another value of an option."""
    return [*_without(arguments, option, command), f"{option}={value}"]


def _without(arguments: list[str], option: str, command: Command) -> list[str]:
    kept, skip = [], False
    for word in arguments:
        if skip:
            skip = False
        elif word == option:
            skip = command.find(option).kind != "flag"
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept


def _with_argument(
    command: Command, arguments: list[str], name: str, value: str
) -> list[str]:  # fmt: skip
    """Put a value in the place of an argument; what could be taken for an option goes last."""
    places = [p.name for p in command.parameters if not p.is_option]
    options, given = split(command, arguments)
    at = places.index(name)
    given = [*given[:at], value, *given[at + 1 :]]
    return [*options, "--", *given]


def split(command: Command, arguments: list[str]) -> tuple[list[str], list[str]]:
    """Tell options (with their values) from arguments."""
    options, given, takes = [], [], False
    for word in arguments:
        if takes:
            options.append(word)
            takes = False
        elif word.startswith("--"):
            options.append(word)
            takes = "=" not in word and command.find(word).kind != "flag"
        else:
            given.append(word)
    return options, given
