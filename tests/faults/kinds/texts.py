"""Texts: choices that there are not, and texts that a terminal, a chart or a table would act on."""

import csv
import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from faults.bases import BASES, base_of, with_value
from faults.case import DONE, REFUSED, SANE, Case, Outcome
from faults.commands import commands
from faults.kinds.damaged import rewritten
from faults.samples import CASES, MODELS, SWEEP

__all__ = ["cases"]

WRONG = ("", " ", "abc", "../x", "no/such", "nan", "-x", "x" * 100_000, "a\nb", "\x1b[31mred",
         "[/x]", "[bold]x[/bold]", r"$\frac{$", "\udcff", "=cmd|' /C calc'!A0", "ünï", "%s%n",
         "{0}", "\u202egnp", "a\x00b", "W8A16", "w8a16 ")  # fmt: skip
FREE = {  # any text is right
    ("mu-ref ask", "query"), ("mu-ref generate", "query"), ("npu-sim sweep", "--dask"),
    ("mu-ref golden write", "--query"),
}  # fmt: skip
DATA = ("[/x]", "[bold]x[/bold]", r"$\frac{$", "$x$ $y", "\x1b[31mred\x1b[0m", "a\nb", "a\tb",
        "=cmd|' /C calc'!A0", "+1", "@x", ":smile:", "\u202egnp", "ünï", "\x07", "a,b\"c", "%",
        "{x}", "a" * 500, "\\", "#")  # fmt: skip
MARKS = ("\x1b[31m", "\x07", "\u202e")


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield the cases."""
    for command in commands().values():
        for parameter in command.of_kind("text"):
            free = (command.name, parameter.name) in FREE
            for value in WRONG:
                yield Case(
                    kind="texts", command=command.name,
                    arguments=with_value(command, parameter.name, value),
                    expect=SANE if free else REFUSED, writes=base_of(command).writes,
                    seconds=20.0 if parameter.name == "--dask" else 6.0, after=_no_escapes,
                )  # fmt: skip
    for text in DATA:
        yield from _names(text)
        yield from _queries(text)


def _no_escapes(_: Path, outcome: Outcome) -> str:
    found = [mark for mark in MARKS if mark in outcome.out or mark in outcome.err]
    return f"the terminal gets {found[0]!r}" if found else ""


def _shows(text: str, folder: Path, outcome: Outcome) -> str:
    """Texts reach the terminal as they are, or escaped; nothing of them is swallowed."""
    words = [w for w in text.split() if w.isalnum() and w.isascii()]
    if text.isprintable() and len(text) < 30 and text not in outcome.out:
        return f"{text!r} is not in the output"
    if any(word not in outcome.out for word in words if len(word) < 100):
        return f"not all of {text!r} is in the output"
    return _no_escapes(folder, outcome)


def _cells_are_texts(name: str, folder: Path, outcome: Outcome) -> str:
    """No cell of a CSV file begins a formula."""
    with (folder / name).open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            for cell in row:
                if cell[:1] in tuple("=@\t\r") or (cell[:1] in tuple("+-") and not _number(cell)):
                    return f"the cell {cell!r} is a formula"
    return _no_escapes(folder, outcome)


def _number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False


def _is_json(folder: Path, outcome: Outcome) -> str:
    json.loads(outcome.out)
    return ""


def _names(text: str) -> Iterator[Case]:
    """Names of models, cases and NPUs."""
    models = json.dumps({text: MODELS["small"], "small": MODELS["small"]})
    address = f"--model-json=models.json#{text}"
    short = ("--input", "4", "--output", "2")
    write = rewritten("models.json", partial(_instead, models.encode()))
    note = f"models.json has a model named {text!r:.40}"

    def case(command: str, *arguments: str, **more: object) -> Case:
        fields = {"expect": SANE, "prepare": write, "note": note, "writes": ("new*",), **more}
        return Case(kind="texts", command=command, arguments=arguments, **fields)  # type: ignore[arg-type]

    safe = "#" not in text and "\0" not in text
    if safe:
        yield case("npu-sim run", *short, address, after=partial(_shows, text))
        yield case("npu-sim run", *short, address, "--json", after=_is_json)
        yield case("npu-sim run", *short, address, "--csv", "new.csv",
                   after=partial(_cells_are_texts, "new.csv"))  # fmt: skip
        for option in ("--gantt", "--plot-roofline", "--plot-breakdown"):
            yield case("npu-sim run", *short, address, option, "new.png", expect=DONE)
        yield case("npu-sim run", *short, address, "--trace", "new.json")
        spec = SWEEP.replace('model = "tiny"', f"model_json = {json.dumps('models.json#' + text)}")
        both = _both(write, rewritten("sweep.toml", partial(_instead, spec.encode())))
        sweep = BASES["npu-sim sweep"].arguments
        yield case("npu-sim sweep", *sweep, "--plot", "new.png", prepare=both)
    for field, place in (("case", 0), ("model", 2)):
        rows = [line.split(",")[:-1] for line in CASES.splitlines()[:2]]
        rows[1][place] = text
        cells = "".join(",".join('"' + c.replace('"', '""') + '"' for c in r) + "\n" for r in rows)
        both = _both(write, rewritten("cases.csv", partial(_instead, cells.encode())))
        base = BASES["npu-sim validate"].arguments
        note_2 = f"{field} of cases.csv is {text!r:.40}"
        yield case("npu-sim validate", *base, "--csv", "new.csv", prepare=both, note=note_2,
                   after=partial(_cells_are_texts, "new.csv"))  # fmt: skip
        yield case("npu-sim validate", *base, "--plot", "new.png", prepare=both, note=note_2,
                   after=_no_escapes)  # fmt: skip
        yield case("npu-sim validate", *base, "--json", prepare=both, note=note_2, after=_is_json)
    yield from _npu_texts(text)


def _npu_texts(text: str) -> Iterator[Case]:
    """Title and sources of an NPU; the file that is printed is read back."""
    for key in ("title", "name", "source"):
        pattern = {
            "title": b'title = "a chip with round numbers"', "name": b'name = "teaching-npu"',
            "source": b'source = "assumed: a round number, no such chip exists"',
        }[key]  # fmt: skip
        new = f"{key} = {json.dumps(text)}".encode()

        def prepare(folder: Path, pattern: bytes = pattern, new: bytes = new) -> None:
            path = folder / "npu.toml"
            data = path.read_bytes()
            assert pattern in data
            path.write_bytes(data.replace(pattern, new, 1))

        note = f"{key} of npu.toml is {text!r:.40}"
        for arguments, after in (
            (("npu.toml",), _no_escapes), (("npu.toml", "--json"), _is_json),
            (("npu.toml", "--toml"), _reads_back),
        ):  # fmt: skip
            yield Case(kind="texts", command="npu-sim hardware show", arguments=arguments,
                       prepare=prepare, note=note, after=after, expect=SANE)  # fmt: skip
        for command in ("npu-sim run", "npu-sim compare"):
            chip = (
                ("npu.toml", "teaching-npu")
                if command.endswith("compare")
                else ("--npu", "npu.toml")
            )
            more = ("--model", "tiny") if command.endswith("compare") else ("tiny",)
            plot = "--plot" if command.endswith("compare") else "--gantt"
            yield Case(kind="texts", command=command, prepare=prepare, note=note, writes=("new*",),
                       arguments=(*more, *chip, "--input", "4", "--output", "2", plot, "new.png"),
                       after=_no_escapes, expect=SANE)  # fmt: skip


def _reads_back(folder: Path, outcome: Outcome) -> str:
    import tomllib

    from npu_sim.hardware.presets import npu

    tomllib.loads(outcome.out)
    (folder / "again.toml").write_text(outcome.out, encoding="utf-8")
    before, after = npu(str(folder / "npu.toml")), npu(str(folder / "again.toml"))
    (folder / "again.toml").unlink()
    return "" if before == after and before.sources == after.sources else "it reads back otherwise"


def _queries(text: str) -> Iterator[Case]:
    """What users type."""
    line = json.dumps({"query": f"x {text}", "call": text}) + "\n"
    write = rewritten("two.jsonl", partial(_with_line, line.encode()))
    note = f"a line of two.jsonl has the query and the call {text!r:.40}"
    for name in ("mu-ref ask", "mu-ref generate"):
        for query in (text, f"bluetooth {text} off"):
            arguments = (*BASES[name].arguments[1:], "--", query)
            yield Case(kind="texts", command=name, arguments=arguments, expect=SANE,
                       after=_no_escapes)  # fmt: skip
            if name.endswith("generate"):
                yield Case(
                    kind="texts", command=name, expect=SANE, writes=("new.png",),
                    arguments=("--drafter", "drafter.safetensors", "--tree", "new.png", *arguments),
                    after=_no_escapes,
                )  # fmt: skip
    yield Case(kind="texts", command="mu-ref settings eval", prepare=write, note=note, expect=SANE,
               arguments=BASES["mu-ref settings eval"].arguments, after=_no_escapes)  # fmt: skip


def _with_line(line: bytes, data: bytes) -> bytes:
    return data + line


def _instead(new: bytes, _: bytes) -> bytes:
    return new


def _both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        for change in changes:
            change(folder)

    return prepare
