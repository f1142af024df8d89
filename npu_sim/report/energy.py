r"""Joules: work times what each piece of it costs, and what the chip draws meanwhile.

$$E = \sum_p \mathrm{macs}_p e_p + o \, e_o + b_\mathrm{sram} e_s +
  b_\mathrm{dram} e_d + P_\mathrm{idle} t$$                                             (7.6)

Most of these prices are assumed; use them to compare, not to predict a battery.
"""

from collections.abc import Iterable

from npu_sim.hardware.chip import Npu
from npu_sim.program.program import VECTOR_WORK, Op

__all__ = ["energy_joules", "mac_pj"]

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
    for op in ops:
        work = VECTOR_WORK[op.vector_work]
        steps = work.simple_operations + work.special_functions * (
            npu.vector.special_function_cycles
        )
        picojoules += op.vector_elements * steps * npu.energy.per_vector_operation_pj
        if op.gemm is not None:
            picojoules += op.macs * mac_pj(*op.operand_bits, npu)
        sram_bytes = op.weight_bytes + op.kv_bytes + op.activation_bytes
        picojoules += sram_bytes * npu.energy.per_sram_byte_pj
    return picojoules * PICO + npu.energy.idle_watts * cycles / npu.clock_hz


def mac_pj(weight_bits: int, activation_bits: int, npu: Npu) -> float:
    """Return the price of one multiply-accumulate of two widths, in picojoules."""
    wide = sum(bits > 8 for bits in (weight_bits, activation_bits))
    prices = (
        npu.energy.per_mac_8x8_pj, npu.energy.per_mac_8x16_pj, npu.energy.per_mac_16x16_pj,
    )  # fmt: skip
    return prices[wide]
