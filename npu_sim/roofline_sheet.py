"""The roofline of a program on many NPUs: equations 4.1 to 4.5 on whole columns, for sweeps.

Layers repeat, so a request of thousands of operations has some hundred different ones: they are
found once, and each NPU prices those. The cycles are those of `roofline.py`, to the last one.
"""

import numpy as np

from npu_sim.hardware import Npu
from npu_sim.roofline import MILLION
from npu_sim.table import COLUMNS, MATMUL, PRECISIONS, ProgramTable

__all__ = ["RooflineSheet"]

USED = (
    "macs", "precision", "simple", "special", "stored_bytes", "weight_bytes", "kv", "kv_written",
    "activation_bytes", "form",
)  # fmt: skip


class RooflineSheet:
    """A program, ready to be priced again and again.

    Args:
        table: from `program_table`.
    """

    def __init__(self, table: ProgramTable) -> None:
        self.program = table.program
        used = table.rows[:, [COLUMNS[name] for name in USED]]
        different, index = np.unique(used, axis=0, return_inverse=True)
        (
            self.macs, self.precision, self.simple, self.special, self.stored_bytes,
            weights, kv, kv_written, self.activations, form,
        ) = (np.ascontiguousarray(column) for column in different.T)  # fmt: skip
        self.attention = form == MATMUL
        self.moved = weights + kv + kv_written
        call_of = np.repeat(np.arange(len(table.calls)), [len(c.rows) for c in table.calls])
        self.positions = [call.call.n_positions for call in table.calls]
        self.counts = np.zeros((len(table.calls), len(different)), np.int64)
        np.add.at(self.counts, (call_of, index.ravel()), 1)

    def call_cycles(self, npu: Npu) -> np.ndarray:
        """Price every call.

        Args:
            npu: must multiply the program's widths (`support.py`).

        Returns:
            [n_calls] int64, the overhead of the call included.
        """
        matrix, by_width = npu.matrix, []
        for name in PRECISIONS:
            peak = getattr(matrix, f"{name}_macs_per_cycle") * MILLION
            shares = (getattr(matrix, f"{name}_efficiency"), matrix.attention_efficiency)
            by_width.append([max(1, round(peak * share)) for share in shares])
        rates = np.array(by_width)[self.precision, self.attention.astype(int)]
        compute = -(-self.macs * MILLION // rates)
        steps = self.simple + self.special * npu.vector.special_function_cycles
        lanes = np.maximum(1, npu.vector.width_bytes // self.stored_bytes)
        busy_lanes = lanes * npu.vector.efficiency
        elements = np.ceil(np.ceil(steps) / busy_lanes).astype(np.int64)
        leaves = (self.activations > npu.sram.capacity_bytes) & (not npu.sram.fuses_operations)
        spilled = self.activations * leaves
        memory = -(-(self.moved + spilled) * npu.clock_hz // npu.memory_bytes_per_s)
        busiest = np.maximum(np.maximum(compute, elements), memory)
        priced = busiest + npu.per_op_overhead_cycles
        cycles: np.ndarray = self.counts @ priced
        runtime = self.program.runtime
        return cycles + [npu.call_overhead_cycles(runtime, n) for n in self.positions]

    def latency_ms(self, npu: Npu) -> float:
        """Simulated milliseconds of the whole request."""
        return 1000 * int(self.call_cycles(npu).sum()) / npu.clock_hz
