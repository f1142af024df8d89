r"""Joules: work times what each piece of it costs, and what the chip draws meanwhile.

$$E = \sum_p \mathrm{macs}_p e_p + o \, e_o + b_\mathrm{sram} e_s +
  b_\mathrm{dram} e_d + P_\mathrm{idle} t$$                                             (7.6)

Most of these prices are assumed; use them to compare, not to predict a battery.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from npu_sim.hardware.chip import Npu
from npu_sim.program.precision import PRECISIONS
from npu_sim.program.program import VECTOR_WORK, Op
from npu_sim.roofline.columns import Priced, ProgramColumns
from npu_sim.roofline.formula import Work

__all__ = ["column_joules", "energy_joules", "mac_pj"]

PICO = 1e-12


def energy_joules(ops: Iterable[Op], dram_bytes: int, cycles: int, npu: Npu) -> float:
    """Return the energy of some operations.

    Args:
        ops: what ran.
        dram_bytes: moved between DRAM and SRAM.
        cycles: that it took.
        npu: its prices.

    Returns:
        Joules.

    Assumes:
        Every operand and result passes SRAM once; what is read again inside an engine is free.
    """
    picojoules = dram_bytes * npu.energy.per_dram_byte_pj
    some = list(ops)
    times = Counter(map(id, some))  # an operation that repeats is often one object
    for op in {id(op): op for op in some}.values():
        work = VECTOR_WORK[op.vector_work]
        steps = work.simple_operations + work.special_functions * (
            npu.vector.special_function_cycles
        )
        each = op.vector_elements * steps * npu.energy.per_vector_operation_pj
        if op.gemm is not None:
            each += op.macs * mac_pj(*op.operand_bits, npu)
        sram_bytes = op.weight_bytes + op.kv_bytes + op.activation_bytes
        each += sram_bytes * npu.energy.per_sram_byte_pj
        picojoules += times[id(op)] * each
    return picojoules * PICO + npu.energy.idle_watts * cycles / npu.clock_hz


def mac_pj(weight_bits: int, activation_bits: int, npu: Npu) -> float:
    """Return the price of one multiply-accumulate of two widths, in picojoules."""
    wide = sum(bits > 8 for bits in (weight_bits, activation_bits))
    prices = (
        npu.energy.per_mac_8x8_pj, npu.energy.per_mac_8x16_pj, npu.energy.per_mac_16x16_pj,
    )  # fmt: skip
    return prices[wide]


def column_joules(
    columns: ProgramColumns, priced: Priced, values: Mapping[str, Any], activation_bits: int
) -> np.ndarray:
    """Return the energy of a program as columns on many NPUs; that of `energy_joules`.

    Args:
        columns: the program.
        priced: its times and traffic, [N].
        values: {path of `Npu.values`: a number, or [N] numbers}.
        activation_bits: width of activations, which decides what a wide product is.

    Returns:
        Joules, [N].
    """
    work = Work(*(columns.rows * columns.run_counts[:, None]).T)  # sums of all that runs
    each = Work(*columns.rows.T)
    wide = "16x16" if activation_bits > 8 else "8x16"
    kinds = {"w4a8": "8x8", "w4a16": "8x16", "w8a8": "8x8", "w8a16": "8x16", "w16a16": wide}
    picojoules = priced.dram_bytes * values["energy.per_dram_byte_pj"]
    for at, name in enumerate(PRECISIONS):
        macs = float(work.macs[each.precision == at].sum())
        picojoules = picojoules + macs * values[f"energy.per_mac_{kinds[name]}_pj"]
    simple = float((work.elements * each.simple_operations).sum())
    special = float((work.elements * each.special_functions).sum())
    steps = simple + special * values["vector.special_function_cycles"]
    sram_bytes = float((work.weight_bytes + work.kv_bytes + work.activation_bytes).sum())
    picojoules = picojoules + steps * values["energy.per_vector_operation_pj"]
    picojoules = picojoules + sram_bytes * values["energy.per_sram_byte_pj"]
    waiting = values["energy.idle_watts"] * priced.latency_cycles / values["clock_hz"]
    found: np.ndarray = picojoules * PICO + waiting
    return found
