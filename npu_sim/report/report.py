"""Simulated times of a request, per phase and in total, and whether they keep a budget.

Everything called a time here is simulated, at `roofline` or `tile` fidelity. Not here: how an
operation is priced (`roofline/formula.py`, `tile/simulate.py`). Chapters: `docs/11_machine.md`,
`docs/13_tiles.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from npu_sim.errors import WorkloadError
from npu_sim.hardware.chip import Npu
from npu_sim.program.program import Program
from npu_sim.report.budget import Budget
from npu_sim.report.phases import PhaseReport
from npu_sim.units import MB, format_bytes, format_ms, ms_from_cycles

if TYPE_CHECKING:
    from npu_sim.tile.simulate import TileRun

__all__ = ["Report", "tile_run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Simulated times and traffic of one request on one NPU."""

    npu: Npu
    program: Program
    phases: tuple[PhaseReport, ...]
    ttft_cycles: int  # request start to first written token, encode or prefill included
    budget_ms: float
    budget_mb: float | None = None
    cycle_budgets: Mapping[str, int] = field(default_factory=dict)  # by phase
    fidelity: str = "roofline"
    tiles: "TileRun | None" = None  # the run behind it, at `tile` fidelity
    n_tokens: int | None = None  # written, where the program counts steps that write several

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
    def n_output(self) -> int:
        """Tokens written."""
        return self.program.n_output if self.n_tokens is None else self.n_tokens

    @property
    def tpot_ms(self) -> float | None:
        """Simulated mean time per token after the first; None where there is only one."""
        if self.n_output == 1:
            return None
        # latency = ttft + (n_output - 1) * tpot, for every request
        return (self.latency_ms - self.ttft_ms) / (self.n_output - 1)

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
        """The latency budget and what the request leaves of it."""
        return Budget(limit=self.budget_ms, used=self.latency_ms, unit="ms")

    @property
    def memory_budget(self) -> Budget | None:
        """The budget of weights and cache in DRAM, if there is one."""
        if self.budget_mb is None:
            return None
        return Budget(limit=self.budget_mb, used=self.stored_bytes / MB, unit="MB")

    @property
    def budgets_met(self) -> bool:
        """Whether every budget is kept."""
        others = [self.memory_budget] if self.memory_budget else []
        return all(b.met for b in (self.budget, *others, *self.phase_budgets.values()))

    @property
    def phase_budgets(self) -> dict[str, Budget]:
        """The cycles that phases may take, and what they leave of them."""
        return {
            phase.phase: Budget(
                limit=self.cycle_budgets[phase.phase], used=phase.cycles, unit="cycles"
            )
            for phase in self.phases
            if phase.phase in self.cycle_budgets
        }

    @property
    def stored_bytes(self) -> int:
        """Peak bytes of DRAM: weights and the whole cache."""
        return self.program.stored_weight_bytes + self.program.stored_kv_bytes

    @property
    def energy_joules(self) -> float:
        """Energy of the request; most prices behind it are assumed."""
        return sum(phase.energy_joules for phase in self.phases)

    def summary_rows(self) -> list[tuple[str, str]]:
        """Return what a reader wants first, as (name, value with unit); all times simulated."""
        rows = [("time to first token", format_ms(self.ttft_ms))]
        if self.tpot_ms is not None and self.decode_tok_per_s is not None:
            rows.append(("time per token", format_ms(self.tpot_ms)))
            rows.append(("decode", self._speed(self.decode_tok_per_s)))
        return [
            *rows,
            ("latency", format_ms(self.latency_ms)),
            ("DRAM traffic", format_bytes(self.dram_bytes)),
            *self._busy_row(),
            ("energy", f"{1000 * self.energy_joules:.3g} mJ"),
            ("budget", self.budget.line()),
            *([("memory budget", self.memory_budget.line())] if self.memory_budget else []),
            *((f"{name} budget", b.line()) for name, b in self.phase_budgets.items()),
        ]

    def _speed(self, tok_per_s: float) -> str:
        if self.program.batch == 1:
            return f"{tok_per_s:.1f} tok/s"
        together = tok_per_s * self.program.batch
        return f"{tok_per_s:.1f} tok/s per row, {together:.1f} tok/s together"

    def _busy_row(self) -> list[tuple[str, str]]:
        if self.tiles is None:
            return []
        from npu_sim.tile.tasks import Engine  # compiled code, which a roofline does without

        busy = {name: self._share(n) for name, n in self.tiles.engine_cycles.items()}
        writes = sum(
            call.times["busy_cycles"][:, Engine.DMA_OUT].sum() for call in self.tiles.calls
        )
        busy["dma"] += f" (writes {self._share(int(writes))})"
        return [("engines busy", ", ".join(f"{name} {share}" for name, share in busy.items()))]

    def _share(self, cycles: int) -> str:
        return f"{100 * cycles / self.latency_cycles:.0f} %"

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and texts, ready for `json.dumps`."""
        return {
            "simulated": True,
            "fits": True,
            "fidelity": self.fidelity,
            "model": self.program.model,
            "npu": self.npu.name,
            "precision": self.program.precision.widths(),
            "n_input": self.program.n_input,
            "n_output": self.n_output,
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
            "engine_cycles": None if self.tiles is None else self.tiles.engine_cycles,
            "peak_dram_bytes": self.stored_bytes,
            "peak_sram_bytes": None if self.tiles is None else self.tiles.peak_sram_bytes,
            "energy_mj": 1000 * self.energy_joules,
            "budget": {
                "budget_ms": self.budget_ms,
                "met": self.budget.met,
                "margin_ms": self.budget.margin,
            },
            "memory_budget": None
            if self.memory_budget is None
            else {
                "budget_mb": self.budget_mb,
                "met": self.memory_budget.met,
                "margin_mb": self.memory_budget.margin,
            },
            "phase_budgets": {
                name: {"budget_cycles": b.limit, "met": b.met, "margin_cycles": b.margin}
                for name, b in self.phase_budgets.items()
            },
        }


def tile_run(report: Report, what: str) -> "TileRun":
    """Return the run behind a report.

    Args:
        report: from `simulate_program`.
        what: is asked for, for the message.

    Raises:
        WorkloadError: the report is a roofline's, which has no events.
    """
    if report.tiles is None:
        raise WorkloadError(
            f"{what} must be asked of a run at tile fidelity, got {report.fidelity}; "
            "leave out --fidelity"
        )
    return report.tiles
