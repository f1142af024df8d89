"""The program of a scenario: a plain request, or one whose steps draft and verify.

A request of exact lengths is recorded for its first steps only; each further step differs from the
one before by the same amount (`npu_sim/roofline/columns.py`). Chapter: `docs/whatif.md`.
"""

from dataclasses import dataclass, replace
from math import ceil

from npu_sim.errors import check_at_most
from npu_sim.program.call import call_program
from npu_sim.program.program import Call, Program
from npu_sim.program.request import MAX_OUTPUT_TOKENS, described_program, request_program
from npu_sim.roofline.columns import ProgramColumns, program_columns
from npu_sim.speculate.drafter import Drafter, draft_program
from npu_sim.whatif.scenario import Scenario

__all__ = [
    "RequestColumns", "is_exact", "later_tokens", "request_columns", "scenario_program",
]  # fmt: skip

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
    w, description = scenario.workload, scenario.description
    plain = (scenario.precision, w.batch, w.context, w.filled)
    if description.model.decoder is None:
        return described_program(
            description, w.n_input, 1, scenario.precision, w.batch,
            static_context=w.context, n_filled=w.filled, runtime=w.runtime,
        )  # fmt: skip
    if not scenario.drafter.beam_width or w.n_output == 1:
        program = request_program(description, w.n_input, w.n_output, *plain)
    else:
        first, step = request_program(description, w.n_input, 1, *plain), _step(scenario)
        # a last step that keeps fewer tokens costs as much as any other
        n_steps = ceil((w.n_output - 1) / scenario.drafter.tokens_per_step)
        program = replace(
            first, calls=first.calls + step.calls * n_steps, n_output=n_steps + 1,
            stored_weight_bytes=step.stored_weight_bytes,
        )  # fmt: skip
    return replace(program, runtime=w.runtime)


def _step(scenario: Scenario) -> Program:
    """Record one step as one graph call: draft, then verify the tree; the engine accepts inside."""
    w, drafter, description = scenario.workload, scenario.drafter, scenario.description
    both = description.model.encoder is not None
    written = w.n_output // 2 + (0 if both else w.n_input)  # the mean over the steps
    n_context = max(written, 1) if w.context is None else w.context
    n_memory = (w.context or w.n_input) if both else 0
    draft = draft_program(
        description, drafter.network(description.model), drafter.beam_width, drafter.draft_len,
        scenario.precision, w.batch,
    )  # fmt: skip
    n_nodes = drafter.n_nodes
    verify = call_program(
        description, "verify", n_nodes, n_context + n_nodes, n_memory, scenario.precision, w.batch,
        None if w.context is None else (min(w.filled or written, n_context) + n_nodes),
    )  # fmt: skip
    return replace(draft, calls=(Call(phase="verify", ops=(*draft.ops, *verify.ops)),))


def request_columns(scenario: Scenario) -> RequestColumns:
    """Record a scenario as columns.

    Args:
        scenario: model, precision, workload and drafter.

    Returns:
        The columns; exactly those of `scenario_program`.

    Raises:
        WorkloadError: as `scenario_program`.
    """
    w = scenario.workload
    n_later = later_tokens(scenario)
    if not is_exact(scenario) or n_later < N_RECORDED:
        program = scenario_program(scenario)
        return _request(program, program_columns(program), n_later)
    check_at_most("n_output", w.n_output, MAX_OUTPUT_TOKENS)
    few = replace(w, n_output=N_RECORDED)
    short = scenario_program(replace(scenario, workload=few, drafter=Drafter()))
    n_grown = w.n_output - N_RECORDED
    # rejected drafts leave the cache again, so with a drafter it grows by the same tokens
    writes = tuple(
        replace(op, kept_bytes=(op.kept_bytes or 0) + n_grown * op.output.n_bytes)
        for op in short.calls[-1].ops
        if op.kind == "append"
    )
    later = (Call(phase=short.calls[-1].phase, ops=writes),) * n_grown
    whole = replace(short, n_output=w.n_output, calls=short.calls + later)
    if not scenario.drafter.beam_width:
        return _request(whole, program_columns(short, n_grown), n_later)
    drafted = scenario_program(scenario)
    whole = replace(whole, stored_weight_bytes=drafted.stored_weight_bytes)
    return _request(whole, program_columns(drafted), n_later)


def later_tokens(scenario: Scenario) -> int:
    """Return how many tokens are written after the first; an encoder alone writes none."""
    return 0 if scenario.description.model.decoder is None else scenario.workload.n_output - 1


def is_exact(scenario: Scenario) -> bool:
    """Whether each step differs from the one before by one token alone: no window forgets any."""
    return scenario.workload.context is None and not any(
        stack.rope_ntk_factor > 1 or any(stack.windowed_layers)
        for stack in scenario.description.model.stacks.values()
    )


def _request(program: Program, columns: ProgramColumns, n_later: int) -> RequestColumns:
    weights, cache = program.stored_weight_bytes, program.stored_kv_bytes
    columns = replace(columns, weight_bytes=weights, kv_bytes=cache)
    return RequestColumns(
        program=program, columns=columns, n_later_tokens=n_later, stored_bytes=weights + cache
    )
