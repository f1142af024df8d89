"""`mu-ref ask`: one query to one call, and what an NPU would take for it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mu_ref.border.ranges import Range
from mu_ref.border.text import json_text, printable
from mu_ref.cli import options
from mu_ref.command_line import DIFFERENCE, JsonOption, in_range, plain_console
from mu_ref.errors import InputError, check_choice

if TYPE_CHECKING:
    from mu_ref.config import ModelConfig
    from mu_ref.settings.agent import Agent, Answer
    from mu_ref.settings.catalog import Setting
    from mu_ref.settings.valid.decide import Decider, Decision

__all__ = ["ask"]

PRICED = {"w8a16": (8, 16), "w8a8": (8, 8), "w4a16": (4, 16)}  # bits of weights, of activations
BUDGET = Range(low=0, above=True, high=3.6e6, whole=False, why="nobody waits an hour")


def ask(
    query: Annotated[str, typer.Argument(help="What you want changed, in plain English.")],
    npu: Annotated[
        str | None, typer.Option(help="Also simulate this NPU; `npu-sim hardware list`.")
    ] = None,
    npu_model: Annotated[
        str | None,
        typer.Option(help="Preset whose shape the NPU is simulated for, mu-330m by default."),
    ] = None,
    budget_ms: Annotated[
        float | None, in_range(BUDGET, help="Latency budget of the NPU in ms, 500 by default.")
    ] = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Let the NPU compute the answer, piece by piece.")
    ] = False,
    weights: options.WeightsOption = None,
    scheme: Annotated[
        str | None,
        typer.Option(
            help="Arithmetic: float32, w8a16, w8a8 or w4a16, and the widths that the NPU is "
            "simulated for. By default float32 answers, and w8a16 is simulated."
        ),
    ] = None,
    executor: options.ExecutorOption = "reference",
    drafter: options.DrafterOption = None,
    beam_width: options.WidthOption = None,
    draft_len: options.LengthOption = None,
    decode: options.DecodeOption = "auto",
    candidates: options.CandidatesOption = None,
    rank: options.RankOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer one Settings query with a call, and price the answer on an NPU."""
    from mu_ref.presets import preset
    from mu_ref.settings.valid.decide import Decider

    shape = preset("mu-330m" if npu_model is None else npu_model)  # a wrong name fails first
    _check_npu(npu, scheme, drafter, execute,
               {"--npu-model": npu_model, "--budget-ms": budget_ms})  # fmt: skip
    how = scheme or "float32"
    decoding = options.decoding(decode, candidates, rank, greedily=execute)
    agent = options.drafting(weights, how, executor, drafter, beam_width, draft_len)
    decider = Decider.of(agent, decoding)
    (answer,), report, executed = decider.decide([query]), None, None
    if npu is not None and answer.n_input:  # a query that was not read costs the NPU nothing
        report = _simulated(shape, npu, answer, scheme, budget_ms or 500.0)
        executed = _execute(decider, query, answer, npu) if execute else None
    if as_json:
        more = {"npu": report.to_json() if report else None} if npu else {}
        more |= {"executed": executed} if execute else {}
        typer.echo(json_text(_facts(agent, answer) | more))
    else:
        console = plain_console()
        _print_answer(console, agent, answer, f"{executor} {how}")
        if npu is not None:
            _print_report(console, f"{shape.name} on {npu}", scheme, report)
        if executed is not None:
            _print_executed(console, f"{agent.model.name} computed on {npu}", executed)
    if executed is not None and not executed["same"]:
        raise typer.Exit(DIFFERENCE)


def _simulated(
    shape: "ModelConfig", npu: str, answer: "Decision", scheme: str | None, budget_ms: float
) -> Any:
    """Price the decoding that ran: greedy steps, and the passes of a search if there was one."""
    from npu_sim.hardware.presets import npu as find_npu
    from npu_sim.report.fidelity import simulate_program
    from npu_sim.speculate.searched import record_search

    passes = () if answer.passes is None else answer.passes.n_new
    program = record_search(shape, answer.n_input, answer.n_steps, passes, _widths(scheme))
    return simulate_program(program, find_npu(npu), budget_ms)


def _print_report(console: Console, what: str, scheme: str | None, report: Any) -> None:
    if report is None:
        console.print("  nothing to simulate: the model has read and written nothing")
        return
    widths = (scheme or "w8a16").upper()
    console.print(f"\n{printable(what)}, simulated, {widths}:", soft_wrap=True)
    for name, value in report.summary_rows():
        console.print(f"  {name:<22} {value}")


def _print_executed(console: Console, what: str, executed: dict[str, Any]) -> None:
    same = "gave the same" if executed["same"] else "gave OTHER tokens than the executor:"
    console.print(
        f"\n{printable(what)}: {executed['products']:,} products in {executed['pieces']:,} pieces "
        f"{same} {len(executed['tokens'])} tokens; "
        f"that run took {executed['latency_ms']:.3g} ms, simulated",
        soft_wrap=True,
    )


def _widths(scheme: str | None) -> Any:
    """What the NPU is simulated for."""
    from npu_sim.program.precision import Precision

    weight_bits, activation_bits = PRICED.get(scheme or "w8a16", (8, 16))
    return Precision(weight_bits=weight_bits, activation_bits=activation_bits)


def _check_npu(
    npu: str | None, scheme: str | None, drafter: str | None, execute: bool, given: dict[str, Any]
) -> None:
    if scheme is not None:
        from mu_ref.executors import SCHEMES

        check_choice("scheme", scheme, SCHEMES)
    if npu is not None:
        from npu_sim.hardware.presets import npu as find_npu

        find_npu(npu)
    else:
        options.check_unused("without --npu", given)
    if execute and (npu is None or drafter is not None or scheme not in ("w8a16", "w8a8")):
        raise InputError(
            "--execute must have an --npu and --scheme w8a16 or w8a8, and no --drafter: the NPU "
            f"computes integers; got --npu {npu}, --scheme {scheme}, --drafter {drafter}"
        )
    if npu is not None and scheme == "float32":
        raise InputError(
            "--npu must have a --scheme of integers, got float32: no NPU computes it; leave "
            "--scheme out to answer in float32 and simulate w8a16"
        )
    if npu is not None and drafter is not None:
        raise InputError(
            "--npu simulates writing token by token, so --drafter must not be given with it; "
            "`npu-sim speculate` simulates drafts"
        )


def _facts(agent: "Agent", answer: "Decision") -> dict[str, Any]:
    """Return what `--json` prints of the answer itself."""
    setting = _setting(agent, answer)
    total_s = answer.encode_s + answer.decode_s
    return {
        "call": str(answer.call),
        "title": setting.title if setting else None,
        "uri": setting.uri if setting else None,
        "input_tokens": answer.n_input,
        "output_tokens": answer.n_output,
        "tokens_per_s": answer.n_output / total_s if total_s else None,
        "complaint": answer.complaint,
        "probability": answer.probability,
        "doubtful": answer.doubtful,
        "others": [{"call": str(call), "probability": p} for call, p in answer.others],
        "found": [setting.id for setting in _found(agent, answer)],
        "search_passes": [] if answer.passes is None else answer.passes.n_new,
    }


def _found(agent: "Agent", answer: "Decision") -> "list[Setting]":
    """Look a short query up in the catalog where it is no clear wish."""
    from mu_ref.settings.valid.lexical import look_up

    return [] if answer.clear else look_up(answer.query, agent.catalog)


def _setting(agent: "Agent", answer: "Answer") -> "Setting | None":
    call = answer.call
    return None if call.verb == "none" else agent.catalog.lookup(call.setting_id)


def _print_answer(console: Console, agent: "Agent", answer: "Decision", how: str) -> None:
    setting = _setting(agent, answer)
    console.print(printable(str(answer.call)), style="bold", soft_wrap=True)
    if answer.complaint:
        console.print(f"  {printable(answer.complaint)}", soft_wrap=True)
    elif setting is None:
        console.print("  nothing in the catalog serves this")
    else:
        console.print(f"  {printable(setting.title)}   {printable(setting.uri)}", soft_wrap=True)
    if answer.doubtful:
        _print_doubt(console, agent, answer)
    if answer.n_output:
        total_s = answer.encode_s + answer.decode_s
        console.print(
            f"  {answer.n_input} tokens in, {answer.n_output} out, "
            f"{answer.n_output / total_s:.0f} tokens/s "
            f"({agent.model.name}, {how}, {1000 * total_s:.0f} ms)"
        )


def _print_doubt(console: Console, agent: "Agent", answer: "Decision") -> None:
    others = " or ".join(f"{call} ({p:.0%})" for call, p in answer.others)
    if others:
        console.print(
            f"  in doubt ({answer.probability:.0%}); next best: {printable(others)}", soft_wrap=True
        )
    for setting in _found(agent, answer):
        console.print(f"  found: {printable(setting.title)}   {printable(setting.uri)}",
                      soft_wrap=True)  # fmt: skip


def _execute(decider: "Decider", query: str, answer: "Decision", npu: str) -> dict[str, Any]:
    """Compute the answer on the simulated NPU, and compare it with the answer given."""
    import numpy as np

    from npu_sim.hardware.presets import npu as find_npu
    from npu_sim.report.execute import execute

    agent = decider.agent
    source = np.array([agent.source_tokens(query)])
    valid = np.ones(source.shape, bool)
    chip = find_npu(npu)
    integers = agent.ops.model  # type: ignore[attr-defined]  # `ask` has checked the scheme
    found = execute(integers, source, valid, chip, answer.n_steps, decider.guide([query]))
    return {
        "products": found.n_products,
        "pieces": found.n_pieces,
        "tokens": found.tokens,
        "same": found.tokens == list(answer.tokens),
        "latency_ms": 1000 * found.run.cycles / chip.clock_hz,
    }
