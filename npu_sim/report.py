"""Simulated times of a request, per phase and in total, and whether they keep a budget.

Everything called a time here is simulated, at `roofline` fidelity. Not here: how an operation is
priced (`roofline.py`). Chapter: `docs/04_npu.md`.
"""

from dataclasses import asdict, dataclass
from typing import Any

from mu_ref.config import ModelConfig
from npu_sim.errors import WorkloadError
from npu_sim.hardware import Npu
from npu_sim.hardware import npu as find_npu
from npu_sim.phases import Budget, PhaseReport, phase_report
from npu_sim.program import Precision, Program
from npu_sim.record import record_request
from npu_sim.roofline import check_capacity, op_cost
from npu_sim.support import check_supported
from npu_sim.units import format_bytes, format_ms, ms_from_cycles

__all__ = ["BUDGET_MS", "Report", "simulate", "simulate_request"]

BUDGET_MS = 500.0  # Microsoft, June 2025: the Settings agent answers in < 500 ms


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Simulated times and traffic of one request on one NPU."""

    npu: Npu
    program: Program
    phases: tuple[PhaseReport, ...]
    ttft_cycles: int  # request start to first written token, encode or prefill included
    budget_ms: float

    @property
    def latency_cycles(self) -> int:
        """Simulated cycles from the start of the request to its last token."""
        return sum(phase.cycles for phase in self.phases)

    @property
    def latency_ms(self) -> float:
        """Simulated milliseconds from the start of the request to its last token."""
        return ms_from_cycles(self.latency_cycles, self.npu.clock_hz)

    @property
    def ttft_ms(self) -> float:
        """Simulated time to the first token; no tokenizer and no queue."""
        return ms_from_cycles(self.ttft_cycles, self.npu.clock_hz)

    @property
    def tpot_ms(self) -> float | None:
        """Simulated mean time per token after the first; None where there is only one."""
        if self.program.n_output == 1:
            return None
        return (self.latency_ms - self.ttft_ms) / (self.program.n_output - 1)

    @property
    def decode_tok_per_s(self) -> float | None:
        """Simulated tokens per second of one row after the first token: 1 / time per token."""
        return None if self.tpot_ms is None else 1000 / self.tpot_ms

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the request."""
        return sum(phase.macs for phase in self.phases)

    @property
    def dram_bytes(self) -> int:
        """Bytes between DRAM and SRAM of the request."""
        return sum(phase.dram_bytes for phase in self.phases)

    @property
    def utilization(self) -> float:
        """Useful MACs over the MACs possible at 8-bit operands in that time, 0 to 1."""
        return self.macs / (self.npu.matrix.w8a8_macs_per_cycle * self.latency_cycles)

    @property
    def budget(self) -> Budget:
        """The budget and what the request leaves of it."""
        return Budget(budget_ms=self.budget_ms, latency_ms=self.latency_ms)

    def summary_rows(self) -> list[tuple[str, str]]:
        """Return what a reader wants first, as (name, value with unit); all times simulated."""
        rows = [("time to first token", format_ms(self.ttft_ms))]
        if self.tpot_ms is not None and self.decode_tok_per_s is not None:
            rows.append(("time per token", format_ms(self.tpot_ms)))
            rows.append(("decode", f"{self.decode_tok_per_s:.1f} tok/s"))
        return [
            *rows,
            ("latency", format_ms(self.latency_ms)),
            ("DRAM traffic", format_bytes(self.dram_bytes)),
            ("budget", self.budget.line()),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and texts, ready for `json.dumps`."""
        return {
            "simulated": True,
            "fidelity": "roofline",
            "model": self.program.model,
            "npu": self.npu.name,
            "precision": asdict(self.program.precision),
            "n_input": self.program.n_input,
            "n_output": self.program.n_output,
            "batch": self.program.batch,
            "phases": [phase.to_json() for phase in self.phases],
            "ttft_ms": self.ttft_ms,
            "tpot_ms": self.tpot_ms,
            "decode_tok_per_s": self.decode_tok_per_s,
            "latency_ms": self.latency_ms,
            "cycles": self.latency_cycles,
            "macs": self.macs,
            "dram_bytes": self.dram_bytes,
            "utilization": self.utilization,
            "stored_weight_bytes": self.program.stored_weight_bytes,
            "stored_kv_bytes": self.program.stored_kv_bytes,
            "budget": {
                "budget_ms": self.budget_ms,
                "met": self.budget.met,
                "margin_ms": self.budget.margin_ms,
            },
        }


def simulate(program: Program, npu: Npu, budget_ms: float = BUDGET_MS) -> Report:
    """Price a recorded request on an NPU.

    Args:
        program: from `record_request`.
        npu: the NPU.
        budget_ms: latency that the request must keep.

    Returns:
        The report.

    Raises:
        CapacityError: weights and KV cache do not fit the DRAM.
        WorkloadError: the budget is not a positive number.
    """
    if not 0 < budget_ms < float("inf"):
        raise WorkloadError(f"budget_ms must be a positive number of milliseconds, got {budget_ms}")
    check_supported(program, npu)
    check_capacity(program, npu)
    calls = [[op_cost(op, npu) for op in call.ops] for call in program.calls]
    call_overhead = npu.per_inference_overhead_cycles
    first = calls[: program.n_first_calls]
    ttft_cycles = sum(cost.cycles for call in first for cost in call) + call_overhead * len(first)
    phases = []
    for name in program.phases:
        of_phase = [c for c, call in zip(calls, program.calls, strict=True) if call.phase == name]
        phases.append(phase_report(name, of_phase, npu))
    return Report(
        npu=npu, program=program, phases=tuple(phases), ttft_cycles=ttft_cycles, budget_ms=budget_ms
    )


def simulate_request(
    config: ModelConfig,
    npu_name: str,
    n_input: int,
    n_output: int,
    precision: Precision,
    *,
    batch: int = 1,
    budget_ms: float = BUDGET_MS,
) -> Report:
    """Record a request of a model and price it on a named NPU.

    Args:
        config: the model.
        npu_name: one of `npu_sim.hardware.NPUS`.
        n_input: tokens read, at least 1.
        n_output: tokens written, at least 1.
        precision: stored widths.
        batch: rows computed together.
        budget_ms: latency that the request must keep.

    Returns:
        The report.

    Raises:
        NpuSimError: an unknown NPU, a length below 1, or a model that does not fit.
    """
    npu = find_npu(npu_name)
    program = record_request(config, n_input, n_output, precision, batch)
    return simulate(program, npu, budget_ms)
