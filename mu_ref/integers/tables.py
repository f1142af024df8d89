r"""Integer tables of the functions that arithmetic alone does not give, and how they are read.

Each table holds $\mathrm{round\_half\_even}(2^{b} f(i / n))$ for equally spaced points, computed
with 50 decimal digits. The integers ship in `tables.json`, so that a port copies them instead of
trusting another machine's `tanh`; `python -m mu_ref.integers.tables` makes the file anew, and a
test compares; with `--c FILE` it writes a C header. Between two points a straight line is drawn.
Chapter: `docs/integer.md`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from mu_ref.border.files import check_outputs, write_text
from mu_ref.command_line import run_app

__all__ = ["TABLES", "TableSpec", "c_header", "interpolate", "make_tables", "table", "turn_steps"]

PATH = Path(__file__).with_name("tables.json")
DIGITS = 50
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")


@dataclass(frozen=True, slots=True)
class TableSpec:
    """The points (i / per_unit) at which f is tabulated, i = first..last, in units of 2^-bits."""

    function: Callable[[Decimal], Decimal]
    first: int
    last: int
    per_unit: int
    bits: int


def _tanh(x: Decimal) -> Decimal:
    e = (-2 * x).exp()
    return (1 - e) / (1 + e)


def _sigmoid(x: Decimal) -> Decimal:
    return 1 / (1 + (-x).exp())


def _gelu_tanh_gate(x: Decimal) -> Decimal:
    inner = (2 / PI).sqrt() * (x + Decimal("0.044715") * x**3)
    return (1 + _tanh(inner)) / 2


def _gelu_gate(x: Decimal) -> Decimal:
    """Return the normal distribution function of x >= 0.

    $\\Phi(x) = 1/2 + \\varphi(x) \\sum_k x^{2k+1} / (1 \\cdot 3 \\cdots (2k+1))$, all terms
    positive.
    """
    term = total = x
    k = 1
    while term > Decimal(10) ** -(DIGITS + 5):
        term *= x * x / (2 * k + 1)
        total += term
        k += 1
    return Decimal("0.5") + total * (-x * x / 2).exp() / (2 * PI).sqrt()


def _sine(turns: Decimal) -> Decimal:
    """Return sin(2 pi turns) by its series; 0 <= turns <= 1/4."""
    x = 2 * PI * turns
    term = total = x
    k = 1
    while abs(term) > Decimal(10) ** -(DIGITS + 5):
        term *= -x * x / ((2 * k) * (2 * k + 1))
        total += term
        k += 1
    return total


TABLES: Mapping[str, TableSpec] = {
    # gates and tanh of |x| in [0, 16], 1/128 apart, in units of 2^-16
    "gate_gelu_tanh": TableSpec(_gelu_tanh_gate, 0, 2048, 128, 16),
    "gate_gelu": TableSpec(_gelu_gate, 0, 2048, 128, 16),
    "gate_silu": TableSpec(_sigmoid, 0, 2048, 128, 16),
    "tanh": TableSpec(_tanh, 0, 2048, 128, 16),
    "exp2": TableSpec(lambda x: Decimal(2) ** -x, 0, 256, 256, 30),  # 2^-x, x in [0, 1]
    "rsqrt": TableSpec(lambda x: 1 / x.sqrt(), 256, 1024, 256, 30),  # x in [1, 4]
    "sine": TableSpec(_sine, 0, 1024, 4096, 30),  # of x turns, x in [0, 1/4]
}


def make_tables() -> dict[str, list[int]]:
    """Compute every table from its definition.

    Returns:
        {name: integers}.
    """
    made = {}
    with localcontext(prec=DIGITS):
        for name, spec in TABLES.items():
            points = (Decimal(i) / spec.per_unit for i in range(spec.first, spec.last + 1))
            scaled = (spec.function(x) * 2**spec.bits for x in points)
            made[name] = [int(x.to_integral_value(ROUND_HALF_EVEN)) for x in scaled]
    return made


@cache
def table(name: str) -> np.ndarray:
    """Return one shipped table as int64.

    Args:
        name: one of `TABLES`.

    Returns:
        [n_points] int64, read-only.
    """
    values = np.array(json.loads(PATH.read_text(encoding="utf-8"))[name], np.int64)
    values.flags.writeable = False
    return values


def interpolate(name: str, x: np.ndarray, fraction_bits: int, drop_bits: int = 0) -> np.ndarray:
    r"""Read a table between its points.

    With $i = \lfloor x / 2^F \rfloor$ and $r = x - 2^F i$:
    $\lfloor (2^F T_i + (T_{i+1} - T_i) r + 2^{F+D-1}) / 2^{F+D} \rfloor$               (5.6)

    Args:
        name: one of `TABLES`.
        x: position in the table, in units of $2^{-F}$ points; at most its last point.
        fraction_bits: F, at most 22.
        drop_bits: D: the result has this many bits less than the table.

    Returns:
        int64, of x's shape.
    """
    points = table(name)
    i = np.minimum(x >> fraction_bits, len(points) - 2)
    rest = x - (i << fraction_bits)
    low, high = points[i], points[i + 1]
    total = (low << fraction_bits) + (high - low) * rest  # 31 + 22 bits
    shift = fraction_bits + drop_bits
    return (total + (1 << (shift - 1))) >> shift


@cache
def turn_steps(theta: float, d_head: int, factor: float = 1.0) -> np.ndarray:
    r"""How far one position turns each pair of a head, in units of $2^{-64}$ turns.

    $w_i = \mathrm{round\_half\_even}(2^{64} \, \theta^{-2i/d} / 2\pi f)$, modulo $2^{64}$ (5.7)

    Args:
        theta: base of RoPE, the exact value of the float.
        d_head: d, even.
        factor: f, the exact value of the float.

    Returns:
        [d_head / 2] uint64, read-only. Position p turns pair i by p w_i, wrapping at a full turn.
    """
    with localcontext(prec=DIGITS):
        log_theta = Decimal(theta).ln()
        speeds = ((-log_theta * 2 * i / d_head).exp() for i in range(d_head // 2))
        turns = (speed / (2 * PI * Decimal(factor)) * 2**64 for speed in speeds)
        steps = [int(t.to_integral_value(ROUND_HALF_EVEN)) % 2**64 for t in turns]
    array = np.array(steps, np.uint64)
    array.flags.writeable = False
    return array


def c_header() -> str:
    """Return every table as C: `static const int32_t mu_table_exp2[257] = {...};`."""
    parts = ["/* Tables of docs/integer.md: `python -m mu_ref.integers.tables --c FILE`. */"]
    parts += ["#ifndef MU_TABLES_H", "#define MU_TABLES_H", "", "#include <stdint.h>"]
    for name, spec in TABLES.items():
        values = table(name).tolist()
        rows = (", ".join(map(str, values[i : i + 8])) for i in range(0, len(values), 8))
        parts += [
            "",
            f"/* points 1/{spec.per_unit} apart, in units of 2^-{spec.bits} */",
            f"static const int32_t mu_table_{name}[{len(values)}] = {{",
            *(f"    {row}," for row in rows),
            "};",
        ]
    return "\n".join([*parts, "", "#endif", ""])


def _write(
    header: Annotated[
        Path | None, typer.Option("--c", help="Write the tables as a C header instead.")
    ] = None,
) -> None:
    """Compute the tables anew, and write tables.json."""
    if header is not None:
        check_outputs({"--c": header}, [PATH])
        write_text(header, c_header())
        return
    rows = (f'"{name}": {json.dumps(values)}' for name, values in make_tables().items())
    write_text(PATH, "{" + ",\n".join(rows) + "}\n")


if __name__ == "__main__":
    commands = typer.Typer(add_completion=False)
    commands.command()(_write)
    run_app(commands)
