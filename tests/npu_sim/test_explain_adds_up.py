"""Every total that `explain` prints follows from the text alone: read, computed again, compared."""

import re
from fractions import Fraction
from math import ceil, prod

import numpy as np
import pytest

from mu_ref.presets import preset
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.request import record_request
from npu_sim.program.rows import program_table
from npu_sim.show.explain import explain
from npu_sim.tile.simulate import simulate_tiles

PREFIX = {"T": 10**12, "G": 10**9, "M": 10**6, "": 1}
NUMBER = re.compile(r"(\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)(?: ([TGM])(?=Hz|B/s| elements))?")
SITES_EACH = 7


def number(text: str) -> int:
    return int(text.replace(",", ""))


def value(text: str) -> Fraction:
    """What an expression of numbers, x, +, / and brackets stands for; words are left out."""
    tokens = []
    for word in re.finditer(rf"{NUMBER.pattern}|[()+]|(?<= )/(?= )|\bx\b|\bof\b", text):
        if word[1]:
            scale = PREFIX[word[2] or ""]
            tokens.append(f"(Fraction('{word[1].replace(',', '')}') * {scale})")
        else:
            tokens.append("*" if word[0] in ("x", "of") else word[0])
    return eval(" ".join(tokens), {"Fraction": Fraction})


def term_cycles(text: str) -> int:
    """The cycles that a term says, and that its expression gives, rounded up."""
    said, expression = re.fullmatch(r"      [=+] ([\d,]+): (.*)", text).groups()
    expression = re.sub(r"(\w+-stationary|to set up.*|to start.*|lies in.*)", "", expression)
    expression = expression.replace(",  /", " /").replace(", /", " /")
    if not re.search(r"\d", expression):
        return number(said)
    if "MACs per cycle" in expression:
        slots, rate = expression.rsplit(" / ", 1)
        per_million = round(float(value(rate)) * 1e6)  # rates are whole millionths
        assert number(said) == ceil(value(slots) * 10**6 / per_million), text
    elif "lanes" in expression:
        steps, lanes = expression.rsplit(" / ", 1)
        assert abs(number(said) - ceil(ceil(value(steps)) / value(lanes))) <= 1, text
    else:
        assert number(said) == ceil(value(expression)), text
    return number(said)


def check(lines: list[str]) -> int:
    """Hold a text to its own arithmetic; returns how many totals were checked."""
    checked, engines = 0, {}
    for line in lines:
        if found := re.match(r"  product (.*) = ([\d,]+) MACs", line):
            counts = [int(n) for n in re.findall(r"\d+", found[1])]
            assert prod(counts[:-2]) * counts[-1] == number(found[2]), line  # [m k] x [k n]
        if re.match(r"  (?:reads|writes) ", line):
            shape, bits, n_bytes = re.search(
                r"\[([\d, ]*)\], (\d+) bits, \w+: ([\d,]+) B", line
            ).groups()
            assert ceil(prod(int(n) for n in shape.split(", ")) * int(bits) / 8) == number(n_bytes)
    at = next(i for i, line in enumerate(lines) if re.match(r"  \w+: [\d,]+ task", line))
    tail = lines[at:]
    for i, line in enumerate(tail):
        if found := re.fullmatch(r"  (\w+): ([\d,]+) tasks?, ([\d,]+) cycles", line):
            engine = engines[found[1]] = [number(found[2]), number(found[3]), 0, 0]
        elif found := re.match(r"    ([\d,]+) x ", line):
            count = number(found[1])
            cycles = number(re.search(r"([\d,]+) cycles", line)[1])
            terms = []
            for term in tail[i + 1 :]:
                if not term.startswith("      "):
                    break
                terms.append(term_cycles(term))
            if "of other sizes" not in line:
                assert sum(terms) == cycles, line
                checked += 1
            engine[2] += count
            engine[3] += cycles if "together" in line else count * cycles
    for name, (tasks, cycles, counted, summed) in engines.items():
        assert (tasks, cycles) == (counted, summed), (name, lines)
        checked += 1
    took, begin, end = re.match(
        r"  took ([\d,]+) cycles \(.*\), from ([\d,]+) to ([\d,]+) of its call", lines[-2]
    ).groups()
    parts = [number(n) for n in re.findall(r"\d[\d,]*\d|\d", lines[-1])]
    assert number(took) == number(end) - number(begin) == sum(parts), lines[-2:]
    return checked + 1


def programs():
    """A few requests, recorded once: widths, lengths, one row or some."""
    made = []
    for name, lengths, widths, batch in (
        ("mu-330m", (64, 2), {}, 1),
        ("mu-nano", (70, 3), {"weight_bits": 4, "kv_bits": 8}, 5),
        ("decoder-only-330m", (200, 2), {"activation_bits": 8, "kv_bits": 4}, 1),
        ("tiny", (30, 3), {"weight_bits": 4, "activation_bits": 8, "kv_bits": 4}, 2),
    ):
        program = record_request(preset(name), *lengths, Precision(**widths), batch)
        made.append(program_table(program))
    return made


def chips():
    """Presets, and others that are unlike them in what decides about tasks."""
    x_elite, teaching = npu("hexagon-x-elite"), npu("teaching-npu")
    rates = {
        f"matrix.w{w}a{a}_macs_per_cycle": 3000
        for w, a in ((4, 8), (4, 16), (8, 8), (8, 16), (16, 16))
    }
    changes = [
        {"sram.capacity_bytes": 400_000, "dma.transfer_bytes": 40_001},
        {"matrix.dataflow": "os", "matrix.rows": 24, "matrix.columns": 40, "dma.runs_ahead": False},
        {"matrix.dataflow": "ws", "matrix.rows": 100, "matrix.columns": 8},
        {"matrix.dataflow": "is", "dma.setup_cycles": 0, "clock_hz": 987_654_321},
    ]
    return [x_elite, npu("h100"), npu("a100"), *(x_elite.with_changes(rates | c) for c in changes),
            teaching.with_changes(rates | {"dma.cache_bytes_per_s": 10**9})]  # fmt: skip


def test_200_random_sites_add_up_from_their_text_alone():
    rng = np.random.default_rng(7)
    sites, checked, said = 0, 0, ""
    for table in programs():
        for chip in chips():
            run = simulate_tiles(table, chip)
            for _ in range(SITES_EACH):
                n = int(rng.integers(len(run.calls)))
                ops = run.calls[n].table.ops
                lines = explain(run, ops[int(rng.integers(len(ops)))].site, n)
                checked += check(lines)
                sites, said = sites + 1, said + "\n".join(lines)
    assert sites >= 200
    assert checked > 4 * sites
    kinds = (
        "unpack", "give way to a write", "together", "results laid out", "B laid out",
        "output-", "weight-", "input-", "blocks of", "activation,", "beside,", "cache,",
    )  # fmt: skip
    assert [kind for kind in kinds if kind not in said] == []


def test_a_number_that_is_off_by_one_is_noticed():
    run = simulate_tiles(program_table(record_request(preset("tiny"), 8, 1, Precision())),
                         npu("hexagon-x-elite"))  # fmt: skip
    lines = explain(run, "decoder.1.mlp.up")
    assert check(lines)
    for i, line in enumerate(lines):
        for found in re.finditer(r"(?<![\d,.])\d[\d,]*(?= cycles|: )", line):
            wrong = f"{line[: found.start()]}{number(found[0]) + 1:,}{line[found.end() :]}"
            if " to " in line and "took" not in line:
                continue  # setup cycles and starts stand for themselves, in a sum
            with pytest.raises(AssertionError):
                check([*lines[:i], wrong, *lines[i + 1 :]])
