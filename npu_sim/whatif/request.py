"""The program of a scenario: a plain request, or one whose steps draft and verify.

A request of exact lengths is recorded for its first steps only; each further step differs from the
one before by the same amount (`roofline/columns.py`). Chapter: `docs/whatif.md`.
"""

from dataclasses import dataclass, replace
from math import ceil

from npu_sim.errors import check_at_most
from npu_sim.program.program import Call, Program
from npu_sim.program.request import MAX_OUTPUT_TOKENS, request_program
from npu_sim.roofline.columns import ProgramColumns, program_columns
from npu_sim.speculate.drafter import Drafter, drafter_bytes, step_call
from npu_sim.whatif.scenario import Scenario

__all__ = ["RequestColumns", "is_exact", "request_columns", "scenario_program"]

N_RECORDED = 3  # a prefill and two steps, or three steps: what the steps after them follow from


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestColumns:
    """A request as columns, and what is needed to say whether it fits."""

    program: Program  # what must fit and be supported; of later steps only what they store
    columns: ProgramColumns
    n_later_tokens: int  # tokens written after the first
    stored_bytes: int  # weights and cache in DRAM


def scenario_program(scenario: Scenario) -> Program:
    """Record a scenario.

    Args:
        scenario: model, precision, workload and drafter.

    Returns:
        The program. With a drafter its steps are calls of phase "verify", at the mean context, and
        `n_output` counts steps.

    Raises:
        WorkloadError: a length that does not fit the model or the static context.
    """
    w, model = scenario.workload, scenario.model
    plain = (scenario.precision, w.batch, w.static_context)
    if not scenario.drafter.beam_width or w.n_output == 1:
        program = request_program(model, w.n_input, w.n_output, *plain)
    else:
        program = request_program(model, w.n_input, 1, *plain)
        n_steps = ceil((w.n_output - 1) / scenario.drafter.tokens_per_step)
        stored = program.stored_weight_bytes + drafter_bytes(
            model, scenario.drafter, scenario.precision
        )
        program = replace(
            program, calls=program.calls + (_step(scenario),) * n_steps, n_output=n_steps + 1,
            stored_weight_bytes=stored,
        )  # fmt: skip
    return replace(program, runtime=w.runtime)


def _step(scenario: Scenario) -> Call:
    w = scenario.workload
    both = scenario.model.config.encoder is not None
    written = w.n_output // 2 + (0 if both else w.n_input)  # the mean over the steps
    n_context = max(written, 1) if w.static_context is None else w.static_context
    n_memory = (w.static_context or w.n_input) if both else 0
    return step_call(
        scenario.model, scenario.drafter, n_context, n_memory, scenario.precision, w.batch
    )


def request_columns(scenario: Scenario) -> RequestColumns:
    """Record a scenario as columns.

    Args:
        scenario: model, precision, workload and drafter.

    Returns:
        The columns; exactly those of `scenario_program`.

    Raises:
        WorkloadError: as `scenario_program`.
    """
    w, drafter = scenario.workload, scenario.drafter
    n_later = w.n_output - 1
    if not is_exact(scenario) or w.n_output <= N_RECORDED:
        program = scenario_program(scenario)
        return _request(program, program_columns(program), n_later)
    check_at_most("n_output", w.n_output, MAX_OUTPUT_TOKENS)
    few = replace(w, n_output=N_RECORDED)
    short = scenario_program(replace(scenario, workload=few, drafter=Drafter()))
    n_grown = w.n_output - N_RECORDED
    # (rejected drafts leave the cache again, so with a drafter it grows by the same tokens)
    writes = tuple(op for op in short.calls[-1].ops if op.kind == "append")
    later = (Call(phase=short.calls[-1].phase, ops=writes),) * n_grown
    whole = replace(
        short, n_output=w.n_output, calls=short.calls + later,
        stored_weight_bytes=short.stored_weight_bytes
        + drafter_bytes(scenario.model, drafter, scenario.precision),
    )  # fmt: skip
    if drafter.beam_width:
        return _request(whole, program_columns(scenario_program(scenario)), n_later)
    return _request(whole, program_columns(short, n_grown), n_later)


def is_exact(scenario: Scenario) -> bool:
    """Whether each step differs from the one before by one token alone."""
    return scenario.workload.static_context is None and not any(
        stack.rope_ntk_factor > 1 for stack in scenario.model.config.stacks.values()
    )


def _request(program: Program, columns: ProgramColumns, n_later: int) -> RequestColumns:
    stored = program.stored_weight_bytes + program.stored_kv_bytes
    return RequestColumns(
        program=program, columns=columns, n_later_tokens=n_later, stored_bytes=stored
    )
