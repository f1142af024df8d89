"""Simulate a program on a chip at the fidelity that is asked for. Chapter: `docs/11_machine.md`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mu_ref.border.ranges import Range
from mu_ref.config import ModelConfig
from mu_ref.errors import check_choice
from mu_ref.presets import preset
from npu_sim.errors import WorkloadError
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.fits import check_capacity, check_supported
from npu_sim.hardware.presets import NPUS
from npu_sim.hardware.presets import npu as find_npu
from npu_sim.program.precision import Precision
from npu_sim.program.program import Program
from npu_sim.program.request import record_request
from npu_sim.report.phases import phase_reports, roofline_calls, tile_calls
from npu_sim.report.report import Report

if TYPE_CHECKING:
    from npu_sim.program.rows import ProgramTable

__all__ = ["BUDGET", "BUDGET_MS", "CYCLES", "FIDELITIES", "simulate", "simulate_program"]


FIDELITIES = ("tile", "roofline")  # from the closest to the quickest

W8A16 = Precision()
BUDGET_MS = 500.0  # Microsoft, June 2025: the Settings agent answers in < 500 ms
BUDGET = Range(low=0, above=True, high=10**9, whole=False, why="no request is given so much")
CYCLES = Range(low=0, high=2**62, why="cycles are counted in 64 bits")


def simulate_program(
    program: Program,
    npu: Npu,
    budget_ms: float = BUDGET_MS,
    *,
    fidelity: str = "tile",
    budget_mb: float | None = None,
    cycle_budgets: Mapping[str, int] | None = None,
    table: "ProgramTable | None" = None,
    n_tokens: int | None = None,
) -> Report:
    """Price a recorded request on an NPU.

    Args:
        program: from `record_request`.
        npu: the NPU.
        budget_ms: latency that the request must keep.
        fidelity: one of `FIDELITIES`.
        budget_mb: bytes of weights and cache that the request must keep, in 10^6.
        cycle_budgets: {phase: cycles} that phases must keep.
        table: of the program, if there is one already; for `tile` fidelity.
        n_tokens: written, where the program counts steps that write several.

    Returns:
        The report.

    Raises:
        CapacityError: weights and KV cache do not fit the DRAM, or a tensor the SRAM.
        UnsupportedError: an operation or a width that the NPU does not have.
        WorkloadError: a budget is not a positive number, or no such fidelity.
    """
    check_choice("fidelity", fidelity, FIDELITIES, WorkloadError)
    for name, budget in (("budget_ms", budget_ms), ("budget_mb", budget_mb)):
        if budget is not None:
            BUDGET.check(name, budget, WorkloadError)
    for phase, cycles in (cycle_budgets or {}).items():
        check_choice("phase of a budget", phase, program.phases, WorkloadError)
        CYCLES.check(f"the budget of {phase}", cycles, WorkloadError)
    run = None
    if fidelity == "tile":
        # compiled code, which a roofline does without
        from npu_sim.program.rows import program_table
        from npu_sim.tile.simulate import simulate_tiles

        run = simulate_tiles(table or program_table(program), npu)
        calls = tile_calls(run)
    else:
        check_supported(program, npu)
        check_capacity(program, npu)
        calls = roofline_calls(program, npu)
    return Report(
        npu=npu, program=program, phases=phase_reports(calls, npu), fidelity=fidelity, tiles=run,
        ttft_cycles=sum(call.cycles for call in calls[: program.n_first_calls]),
        budget_ms=budget_ms, budget_mb=budget_mb, cycle_budgets=dict(cycle_budgets or {}),
        n_tokens=n_tokens,
    )  # fmt: skip


def simulate(
    model: ModelConfig | str,
    npu_name: str = NPUS[0],
    n_input: int = 64,
    n_output: int = 32,
    precision: Precision = W8A16,
    *,
    batch: int = 1,
    budget_ms: float = BUDGET_MS,
    budget_mb: float | None = None,
    fidelity: str = FIDELITIES[0],
    cycle_budgets: Mapping[str, int] | None = None,
) -> Report:
    """Simulate a request of a model on a named NPU.

        >>> import npu_sim
        >>> report = npu_sim.simulate("mu-nano", "teaching-npu", n_input=16, n_output=4)
        >>> report.budget.met, report.latency_ms == report.to_json()["latency_ms"]
        (True, True)

    Args:
        model: the model, or the name of a preset.
        npu_name: one of `npu_sim.hardware.presets.NPUS`, or a TOML file.
        n_input: tokens read, at least 1.
        n_output: tokens written, at least 1.
        precision: stored widths.
        batch: rows computed together.
        budget_ms: latency that the request must keep.
        budget_mb: bytes of weights and cache that the request must keep, in 10^6.
        fidelity: one of `FIDELITIES`.
        cycle_budgets: {phase: cycles} that phases must keep.

    Returns:
        The report: latencies in ms, traffic in bytes, energy in J, budgets; all simulated.

    Raises:
        MuRefError: an unknown preset.
        NpuSimError: an unknown NPU, a length below 1, or a model that does not fit.
    """
    npu = find_npu(npu_name)
    model = preset(model) if isinstance(model, str) else model
    program = record_request(model, n_input, n_output, precision, batch)
    return simulate_program(
        program, npu, budget_ms,
        fidelity=fidelity, budget_mb=budget_mb, cycle_budgets=cycle_budgets,
    )  # fmt: skip
