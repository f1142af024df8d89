"""TOML and CSV, value by value and cell by cell."""

import random
import re
from collections.abc import Iterator
from functools import partial

from faults.case import REFUSED, SANE, Case
from faults.files import Input
from faults.kinds.damaged import reads, rewritten
from faults.mutate import drawn
from faults.samples import CASES, PRODUCTS, SCENARIO, SWEEP

__all__ = ["cases"]

NUMBERS = ("nan", "inf", "-inf", "-1", "-1.5", str(10**30), "9" * 5000, str(2**70), "1e400")
KINDS = ("true", '"x"', "[]", "[1]", "[[1]]", "{}", "1979-05-27", '""', '"\\u0000"', '"nan"')
PERHAPS = ("0", "1", "1.5", str(2**31), str(2**53), str(2**62), "1e-300", "1_000", "0x10")
CELLS = ("", " ", "nan", "inf", "-1", "1.5", str(2**53), str(2**70), str(10**30), "9" * 5000, "abc",
         "true", "0x10", "1e400", "²", '"4', "=cmd|' /C calc'!A0", "[/x]")  # fmt: skip
WHOLE_CELLS = ("n_tokens", "weight_bits", "activation_bits", "kv_bits", "head_weight_bits", "M",
               "N", "K", "array_rows", "array_cols", "measured_us", "dataflow", "phase", "runtime",
               "npu", "model")  # fmt: skip

AXES = (
    '"n_input" = []', '"n_input" = 4', '"n_input" = "x"', '"n_input" = [true]',
    '"n_input" = ["4"]', '"n_input" = [[1]]', '"n_input" = [nan]', '"n_input" = [-1]',
    '"n_input" = [1.5]', f'"n_input" = [{2**70}]', '"n_input" = {}',
    '"n_input" = { values = [4], unit = [] }', '"n_input" = { values = [4], unit = "GB/s" }',
    '"n_input" = { range = [1, 4] }', '"n_input" = { range = [4, 1], step = 1 }',
    '"n_input" = { range = [1, 4], step = 0 }', '"n_input" = { range = [1, 4], step = -1 }',
    '"n_input" = { range = [1, 4], step = nan }', '"n_input" = { range = [1, inf], step = 1 }',
    '"n_input" = { range = [1, 4], n = 0 }', '"n_input" = { range = [1, 4], n = true }',
    '"n_input" = { range = [1, 4], n = 10000000000 }', '"n_input" = { range = [1, 4, 9], n = 2 }',
    '"n_input" = { range = ["1", 4], n = 2 }', '"n_input" = { range = [1e-300, 1e300], n = 2 }',
    '"n_input" = { log = [1, inf], n = 2 }', '"n_input" = { log = [0, 4], n = 2 }',
    '"n_input" = { log = [1, nan], n = 2 }', '"n_input" = { log = [1, 4], step = 1 }',
    '"n_input" = { uniform = [1, 4] }', '"n_input" = { log = [1, 4], values = [1] }',
    '"dma_bandwidth" = { log = [20, 200], n = 2, unit = [] }',
    '"dma_bandwidth" = { log = [20, 200], n = 2, unit = 5 }',
    '"dma_bandwidth" = { log = [20, 200], n = 2, unit = "ms" }',
    '"dma_bandwidth" = { log = [20, true], n = 2, unit = "GB/s" }',
    '"dma_bandwidth" = { values = ["x"], unit = "GB/s" }',
    '"dma_bandwidth" = { values = [[1]], unit = "GB/s" }',
    '"dma_bandwidth" = [0]', '"dma_bandwidth" = [-1]', '"dma_bandwidth" = [inf]',
    '"nobody" = [1]', '"npu" = [1]', '"npu.dma" = [1]', '"" = [1]', '"npu.name" = [1]',
    '"npu.dma.bytes_per_s" = [1]\n"dma_bandwidth" = [2]', "[sample]\nn = 0", "[sample]\nn = 3",
    '[sample]\nn = 2\n"n_output" = { uniform = [1, inf] }',
    '[sample]\nn = 2\n"n_output" = { uniform = [nan, 4] }',
    '[sample]\nn = true\n"n_output" = { uniform = [1, 4] }',
    '[sample]\nseed = -1\n"n_output" = { uniform = [1, 4] }',
    f'[sample]\nseed = {2**70}\n"n_output" = {{ uniform = [1, 4] }}',
    '[sample]\nn = 99999999999\n"n_output" = { uniform = [1, 4] }',
    '[sample]\nn = 2\n"n_output" = { log = [1, inf] }',
    '[sample]\nn = 2\n"n_output" = [[1]]', '[sample]\nn = 2\n"n_output" = []',
)  # fmt: skip


IN_ROWS = ('"dma_bandwidth" = [0]', '"dma_bandwidth" = [-1]', '"n_input" = [-1]')


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield the cases."""
    for command, option, name, text, most in (
        ("npu-sim sensitivity", "base", "scenario.toml", SCENARIO, 60),
        ("npu-sim solve", "base", "scenario.toml", SCENARIO, 20),
        ("npu-sim compare", "b", "scenario.toml", SCENARIO, 20),
        ("npu-sim sweep", "spec", "sweep.toml", SWEEP, 80),
        ("npu-sim run", "--npu", "npu.toml", "", 0),
    ):
        if text:
            yield from _toml(Input(command, option, name), text, rng, most)
    for axis in AXES:
        text = SWEEP.split("[vary]")[0] + (axis if axis.startswith("[") else f"[vary]\n{axis}")
        # a point out of range has a reason in its row, beside those that are in range
        expect = SANE if axis in IN_ROWS else REFUSED
        yield _case(Input("npu-sim sweep", "spec", "sweep.toml"), text + "\n", axis, expect)
    yield from _npus(rng)
    yield from _cells(Input("npu-sim validate", "cases", "cases.csv"), CASES, rng, 90)
    yield from _cells(Input("npu-sim systolic", "--csv", "products.csv"), PRODUCTS, rng, 60)


def _case(read: Input, text: str, note: str, expect: str) -> Case:
    change = partial(_replaced, text.encode("utf-8", "surrogatepass"))
    return reads(read, read.sample, "tables", prepare=rewritten(read.sample, change),
                 note=f"{read.sample}: {note:.90}", expect=expect)  # fmt: skip


def _replaced(new: bytes, _: bytes) -> bytes:
    return new


def _toml(read: Input, text: str, rng: random.Random, most: int) -> Iterator[Case]:
    """Each value of a file, line by line."""
    found = []
    lines = text.splitlines()
    for i, line in enumerate(lines):
        name, equals, value = line.partition(" = ")
        if not equals:
            continue
        for new in (*NUMBERS, *KINDS, *PERHAPS):
            never = new in NUMBERS or (new in KINDS and not _is_list(value))
            changed = "\n".join([*lines[:i], f"{name} = {new}", *lines[i + 1 :]]) + "\n"
            found.append((changed, f"{name} = {new}", REFUSED if never else SANE))
        twice = "\n".join([*lines[:i], line, *lines[i:]]) + "\n"
        found.append((twice, f"{name} stands twice", REFUSED))
        found.append(("\n".join([*lines[:i], "zzz = 1", *lines[i:]]), "zzz = 1", REFUSED))
        found.append(("\n".join([*lines[:i], *lines[i + 1 :]]), f"no {name}", SANE))
    for new, note, expect in drawn(rng, found, most):
        yield _case(read, new, note, expect)
    for new in (
        "[workload]\n" * 2,
        "[zzz]\n",
        "workload = 1\n",
        "[[workload]]\n",
        "x = " + "[" * 9**5,
    ):
        yield _case(read, new + text, new, REFUSED)


def _is_list(value: str) -> bool:
    return value.startswith(("[", "{"))


def _npus(rng: random.Random) -> Iterator[Case]:
    """The NPU of the samples: its text is made by a command, so it is changed where it stands."""
    readers = [Input("npu-sim run", "--npu", "npu.toml"),
               Input("npu-sim hardware show", "name", "npu.toml")]  # fmt: skip
    for i in range(220):
        seed, new = rng.randrange(2**32), (*NUMBERS, *KINDS, *PERHAPS)[i % 28]
        never = new in NUMBERS
        yield reads(
            readers[i % 5 == 0], "npu.toml", "tables", expect=REFUSED if never else SANE,
            prepare=rewritten("npu.toml", partial(_one_value, seed, new)),
            note=f"one number of npu.toml is {new:.40} (seed {seed})",
        )  # fmt: skip
    for line, note in (
        ("zzz = 1\n", "an unknown key"), ("[zzz]\n", "an unknown table"),
        ("[matrix]\n", "a table that stands twice"), ("clock_hz = 5\n", "a key that stands twice"),
    ):  # fmt: skip
        for reader in readers:
            yield reads(reader, "npu.toml", "tables", note=f"npu.toml begins with {note}",
                        prepare=rewritten("npu.toml", partial(_before, line)))  # fmt: skip


def _one_value(seed: int, new: str, data: bytes) -> bytes:
    text = data.decode()
    found = list(re.finditer(r"value = ([-\d_.]+)", text))
    at = random.Random(seed).choice(found)
    return (text[: at.start(1)] + new + text[at.end(1) :]).encode()


def _before(line: str, data: bytes) -> bytes:
    return line.encode() + data


def _cells(read: Input, text: str, rng: random.Random, most: int) -> Iterator[Case]:
    rows = [line.split(",") for line in text.splitlines()]
    found = []
    for column, name in enumerate(rows[0]):
        for new in CELLS:
            changed = [list(row) for row in rows]
            changed[1][column] = new
            refused = name in WHOLE_CELLS and new not in ("0", "1.5", str(2**53))
            found.append((changed, f"{name} of row 2 is {new}", REFUSED if refused else SANE))
        found.append(([[c for i, c in enumerate(row) if i != column] for row in rows],
                      f"no column {name}", REFUSED if name != "source" else SANE))  # fmt: skip
        twice = [[*row, row[column]] for row in rows]
        found.append((twice, f"column {name} stands twice", REFUSED))
    found += [
        ([rows[0], [*rows[1], "more"]], "a row is too long", REFUSED),
        ([rows[0], rows[1][:-1]], "a row is too short", REFUSED),
        ([rows[0]], "no rows", REFUSED), (rows[1:], "no names", REFUSED),
        ([rows[0], ["", *rows[1][1:-1], '"open']], "a quote that does not end", REFUSED),
        ([[" " + n for n in rows[0]], *rows[1:]], "blanks before names", SANE),
        ([[n.upper() for n in rows[0]], *rows[1:]], "names in capitals", REFUSED),
    ]  # fmt: skip
    for new, note, expect in drawn(rng, found, most):
        yield _case(read, "".join(",".join(row) + "\n" for row in new), note, expect)
