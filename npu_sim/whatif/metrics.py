"""The metrics of a what-if, of one scenario or of one request on many NPUs.

Everything here is simulated; what was measured on real chips is in `evidence/`. Chapter:
`docs/whatif.md`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from mu_ref.errors import check_choice
from npu_sim.errors import NpuSimError, SweepError, WorkloadError
from npu_sim.hardware.fits import check_capacity, check_supported
from npu_sim.report.energy import column_joules
from npu_sim.report.fidelity import FIDELITIES, simulate_program
from npu_sim.report.report import Report
from npu_sim.roofline.columns import price
from npu_sim.whatif.request import (
    RequestColumns,
    later_tokens,
    request_columns,
    scenario_program,
)  # fmt: skip
from npu_sim.whatif.scenario import Scenario

if TYPE_CHECKING:
    from npu_sim.program.rows import ProgramTable

__all__ = [
    "METRICS", "evaluate", "evaluate_base", "evaluate_changed", "metric_columns", "report_metrics",
    "scenario_report",
]  # fmt: skip


METRICS = (
    "ttft_ms", "tpot_ms", "decode_tok_per_s", "latency_ms", "dram_bytes", "energy_mj",
    "stored_weight_bytes", "stored_kv_bytes", "stored_bytes", "budget_left_ms",
)  # fmt: skip


def evaluate(scenario: Scenario, fidelity: str = FIDELITIES[0]) -> dict[str, float]:
    """Simulate one scenario.

        >>> import npu_sim
        >>> found = npu_sim.evaluate(npu_sim.base_scenario({"model": "mu-nano"}))
        >>> found["latency_ms"] + found["budget_left_ms"]
        500.0

    Args:
        scenario: what is asked of which NPU.
        fidelity: one of `FIDELITIES`.

    Returns:
        {metric: value}; NaN where there is no second token.

    Raises:
        NpuSimError: it cannot be simulated, for example because the model does not fit.
    """
    check_choice("fidelity", fidelity, FIDELITIES, WorkloadError)
    if fidelity == "tile":
        return report_metrics(scenario_report(scenario, fidelity))
    request = _columns(replace(scenario, npu=None))  # type: ignore[arg-type]
    check_supported(request.program, scenario.npu)
    check_capacity(request.program, scenario.npu)
    return {name: float(column[0]) for name, column in metric_columns(scenario, request, [{}])}


def scenario_report(scenario: Scenario, fidelity: str) -> Report:
    """Simulate one scenario as `npu-sim run` does.

    Args:
        scenario: what is asked of which NPU.
        fidelity: one of `FIDELITIES`.

    Returns:
        The report; with a drafter its program counts steps, and the report the tokens.

    Raises:
        NpuSimError: it cannot be simulated.
    """
    check_choice("fidelity", fidelity, FIDELITIES, WorkloadError)
    table = None
    if fidelity == "tile":  # no recording depends on the NPU
        table = _table(replace(scenario, npu=None))  # type: ignore[arg-type]
    program = scenario_program(scenario) if table is None else table.program
    return simulate_program(
        program, scenario.npu, scenario.workload.budget_ms, fidelity=fidelity, table=table,
        n_tokens=1 + later_tokens(scenario),
    )  # fmt: skip


@lru_cache(maxsize=2)
def _columns(scenario: Scenario) -> RequestColumns:
    """Two recordings are kept: what moves is mostly a field of an NPU, of one or of two sides."""
    return request_columns(scenario)


@lru_cache(maxsize=2)
def _table(scenario: Scenario) -> "ProgramTable":
    """The same as rows for tiles."""
    from npu_sim.program.rows import program_table

    return program_table(scenario_program(scenario))


def report_metrics(report: Report) -> dict[str, float]:
    """Return the metrics of a report of `scenario_report`; NaN where there is no second token."""
    tpot_ms = float("nan") if report.tpot_ms is None else report.tpot_ms
    numbers = (
        report.ttft_ms, tpot_ms, 1000 / tpot_ms, report.latency_ms, report.dram_bytes,
        1000 * report.energy_joules, report.program.stored_weight_bytes,
        report.program.stored_kv_bytes, report.stored_bytes, report.budget.margin,
    )  # fmt: skip
    return dict(zip(METRICS, map(float, numbers), strict=True))


def evaluate_base(scenario: Scenario, metric: str, fidelity: str) -> float:
    """Return one metric of the scenario that others are set beside.

    Args:
        scenario: what is asked of which NPU.
        metric: one of `METRICS`.
        fidelity: one of `FIDELITIES`.

    Returns:
        Its value.

    Raises:
        NpuSimError: no such metric, none of this scenario, or it cannot be simulated.
    """
    check_choice("metric", metric, METRICS, SweepError)
    value = evaluate(scenario, fidelity)[metric]
    if isnan(value):
        raise SweepError(
            f"{metric} must exist, got a request of {scenario.workload.n_output} token: there is "
            "no second; write more tokens or ask for latency_ms"
        )
    return value


def evaluate_changed(
    scenario: Scenario, changes: Mapping[str, Any], metric: str, fidelity: str
) -> float | None:
    """Return one metric of a changed scenario; None where there is none."""
    try:
        value = evaluate(scenario.with_fields(changes), fidelity)[metric]
    except NpuSimError:
        return None
    return None if isnan(value) else value


def metric_columns(
    scenario: Scenario, request: RequestColumns, varied: Sequence[Mapping[str, Any]]
) -> list[tuple[str, np.ndarray]]:
    """Price a request at `roofline` fidelity on NPUs that differ in some values.

    Args:
        scenario: its NPU, and who calls the graphs.
        request: from `request_columns`.
        varied: for each NPU {path of `Npu.values`: value}, the same paths for all.

    Returns:
        (metric, [n] values) in the order of `METRICS`.
    """
    values: dict[str, Any] = dict(scenario.npu.values())
    for path in varied[0]:
        if not isinstance(values[path], str):  # texts have no price here
            values[path] = np.array([chip[path] for chip in varied], float)
    priced = price(request.columns, values, scenario.workload.runtime)
    ms = 1000 / values["clock_hz"]  # of a cycle; [n] where clocks differ
    ttft, latency = priced.ttft_cycles * ms, priced.latency_cycles * ms
    n_later = request.n_later_tokens
    tpot = (latency - ttft) / n_later if n_later else np.full(ttft.shape, np.nan)
    joules = column_joules(request.columns, priced, values, scenario.precision.activation_bits)
    stored, weights = request.stored_bytes, request.program.stored_weight_bytes
    columns = (
        ttft, tpot, 1000 / tpot, latency, priced.dram_bytes, 1000 * joules, weights,
        stored - weights, stored, scenario.workload.budget_ms - latency,
    )  # fmt: skip
    # what no varied value changes is one number for all
    return [
        (name, np.broadcast_to(column, (len(varied),)))
        for name, column in zip(METRICS, columns, strict=True)
    ]
