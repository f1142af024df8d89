"""Simulate a program on a chip at the fidelity that is asked for. Chapter: `docs/04_npu.md`."""

from collections.abc import Mapping
from typing import Any

from mu_ref.config import ModelConfig
from mu_ref.errors import check_choice
from npu_sim.errors import WorkloadError
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.fits import check_capacity, check_supported
from npu_sim.hardware.presets import npu as find_npu
from npu_sim.program.precision import Precision
from npu_sim.program.program import Program
from npu_sim.program.request import record_request
from npu_sim.report.phases import phase_report
from npu_sim.report.report import Report
from npu_sim.roofline.formula import op_cost

__all__ = ["BUDGET_MS", "FIDELITIES", "simulate", "simulate_request"]


FIDELITIES = ("tile", "roofline")

BUDGET_MS = 500.0  # Microsoft, June 2025: the Settings agent answers in < 500 ms


def simulate(
    program: Program,
    npu: Npu,
    budget_ms: float = BUDGET_MS,
    *,
    fidelity: str = "tile",
    budget_mb: float | None = None,
    cycle_budgets: Mapping[str, int] | None = None,
) -> Report:
    """Price a recorded request on an NPU.

    Args:
        program: from `record_request`.
        npu: the NPU.
        budget_ms: latency that the request must keep.
        fidelity: one of `FIDELITIES`.
        budget_mb: bytes of weights and cache that the request must keep, in 10^6.
        cycle_budgets: {phase: cycles} that phases must keep.

    Returns:
        The report.

    Raises:
        CapacityError: weights and KV cache do not fit the DRAM, or a tensor the SRAM.
        UnsupportedError: an operation or a width that the NPU does not have.
        WorkloadError: a budget is not a positive number, or no such fidelity.
    """
    check_choice("fidelity", fidelity, FIDELITIES, WorkloadError)
    for name, budget in (("budget_ms", budget_ms), ("budget_mb", budget_mb)):
        if budget is not None and not 0 < budget < float("inf"):
            unit = "milliseconds" if name == "budget_ms" else "megabytes"
            raise WorkloadError(f"{name} must be a positive number of {unit}, got {budget}")
    for phase in cycle_budgets or {}:
        check_choice("phase of a budget", phase, program.phases, WorkloadError)
    budgets: dict[str, Any] = {
        "budget_ms": budget_ms, "budget_mb": budget_mb, "cycle_budgets": dict(cycle_budgets or {}),
    }  # fmt: skip
    if fidelity == "tile":
        from npu_sim.report.tile_phases import tile_phases
        from npu_sim.tile.rows import program_table
        from npu_sim.tile.simulate import simulate_tiles

        run = simulate_tiles(program_table(program), npu)
        first_runs = run.calls[: program.n_first_calls]
        return Report(
            npu=npu, program=program, phases=tile_phases(run), fidelity=fidelity, tiles=run,
            ttft_cycles=sum(call.cycles + call.overhead_cycles for call in first_runs),
            **budgets,
        )  # fmt: skip
    check_supported(program, npu)
    check_capacity(program, npu)
    calls = [[op_cost(op, npu) for op in call.ops] for call in program.calls]
    overheads = [
        npu.call_overhead_cycles(program.runtime, call.n_positions) for call in program.calls
    ]
    n_first = program.n_first_calls
    ttft_cycles = sum(cost.cycles for call in calls[:n_first] for cost in call)
    ttft_cycles += sum(overheads[:n_first])
    phases = []
    for name in program.phases:
        those = [i for i, call in enumerate(program.calls) if call.phase == name]
        overhead = sum(overheads[i] for i in those)
        phases.append(phase_report(name, [calls[i] for i in those], npu, overhead))
    return Report(
        npu=npu, program=program, phases=tuple(phases), ttft_cycles=ttft_cycles, **budgets
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
    budget_mb: float | None = None,
    fidelity: str = "tile",
    cycle_budgets: Mapping[str, int] | None = None,
) -> Report:
    """Record a request of a model and price it on a named NPU.

    Args:
        config: the model.
        npu_name: one of `npu_sim.hardware.NPUS`, or a TOML file.
        n_input: tokens read, at least 1.
        n_output: tokens written, at least 1.
        precision: stored widths.
        batch: rows computed together.
        budget_ms: latency that the request must keep.
        budget_mb: bytes of weights and cache that the request must keep, in 10^6.
        fidelity: one of `FIDELITIES`.
        cycle_budgets: {phase: cycles} that phases must keep.

    Returns:
        The report.

    Raises:
        NpuSimError: an unknown NPU, a length below 1, or a model that does not fit.
    """
    npu = find_npu(npu_name)
    program = record_request(config, n_input, n_output, precision, batch)
    return simulate(
        program, npu, budget_ms,
        fidelity=fidelity, budget_mb=budget_mb, cycle_budgets=cycle_budgets,
    )  # fmt: skip
