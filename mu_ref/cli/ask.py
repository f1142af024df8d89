"""`mu-ref ask`: one query to one call, and what an NPU would take for it."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mu_ref.cli import options
from mu_ref.command_line import JsonOption
from mu_ref.errors import InputError

if TYPE_CHECKING:
    from mu_ref.settings.agent import Agent, Answer
    from mu_ref.settings.catalog import Setting

__all__ = ["ask"]


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def ask(
    query: Annotated[str, typer.Argument(help="What you want changed, in plain English.")],
    npu: Annotated[
        str | None, typer.Option(help="Also simulate this NPU; `npu-sim hardware list`.")
    ] = None,
    npu_model: Annotated[
        str, typer.Option(help="Preset whose shape the NPU is simulated for.")
    ] = "mu-330m",
    budget_ms: Annotated[float, typer.Option(help="Latency budget of the NPU, ms.")] = 500.0,
    execute: Annotated[
        bool, typer.Option("--execute", help="Let the NPU compute the answer, piece by piece.")
    ] = False,
    weights: options.WeightsOption = None,
    scheme: options.SchemeOption = "float32",
    executor: options.ExecutorOption = "reference",
    drafter: options.DrafterOption = None,
    beam_width: options.WidthOption = 1,
    draft_len: options.LengthOption = 6,
    as_json: JsonOption = False,
) -> None:
    """Answer one Settings query with a call, and price the answer on an NPU."""
    from mu_ref.presets import preset

    shape = preset(npu_model)  # a wrong name must fail before any work, and a wrong NPU too
    _check_npu(npu, scheme, drafter, execute)
    agent = options.drafting(weights, scheme, executor, drafter, beam_width, draft_len)
    answer = agent.ask([query])[0]
    report = executed = None
    if npu is not None and answer.n_output:  # a query that was not read costs the NPU nothing
        from npu_sim.program.precision import Precision
        from npu_sim.report.fidelity import simulate

        lengths = answer.n_input, answer.n_output
        report = simulate(shape, npu, *lengths, Precision(), budget_ms=budget_ms)
        executed = _execute(agent, query, answer, npu) if execute else None
    if as_json:
        facts = _facts(agent, answer)
        facts |= {"npu": report.to_json()} if report else {}
        facts |= {"executed": executed} if executed else {}
        typer.echo(json.dumps(facts))
        return
    console = Console(highlight=False)
    _print_answer(console, agent, answer, f"{executor} {scheme}")
    if report is not None:
        console.print(f"\n{shape.name} on {npu}, simulated:")
        for name, value in report.summary_rows():
            console.print(f"  {name:<22} {value}")
    if executed is not None:
        console.print(
            f"\n{agent.model.name} computed on {npu}: {executed['products']:,} products in "
            f"{executed['pieces']:,} pieces gave the same {len(executed['tokens'])} tokens; "
            f"that run took {executed['latency_ms']:.3g} ms, simulated"
        )


def _check_npu(npu: str | None, scheme: str, drafter: str | None, execute: bool) -> None:
    if npu is not None:
        from npu_sim.hardware.presets import npu as find_npu

        find_npu(npu)
    if execute and (npu is None or drafter is not None or scheme not in ("w8a16", "w8a8")):
        raise InputError(
            "--execute must have an --npu and --scheme w8a16 or w8a8, and no --drafter: the NPU "
            f"computes integers; got --npu {npu}, --scheme {scheme}, --drafter {drafter}"
        )


def _facts(agent: "Agent", answer: "Answer") -> dict[str, Any]:
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
    }


def _setting(agent: "Agent", answer: "Answer") -> "Setting | None":
    call = answer.call
    return None if call.verb == "none" else agent.catalog.lookup(call.setting_id)


def _print_answer(console: Console, agent: "Agent", answer: "Answer", how: str) -> None:
    setting = _setting(agent, answer)
    console.print(f"[bold]{_escape(str(answer.call))}[/bold]")
    if answer.complaint:
        console.print(f"  {_escape(answer.complaint)}", soft_wrap=True)
    elif setting is None:
        console.print("  nothing in the catalog serves this")
    else:
        console.print(f"  {_escape(setting.title)}   {setting.uri}")
    if answer.n_output:
        total_s = answer.encode_s + answer.decode_s
        console.print(
            f"  {answer.n_input} tokens in, {answer.n_output} out, "
            f"{answer.n_output / total_s:.0f} tokens/s "
            f"({agent.model.name}, {how}, {1000 * total_s:.0f} ms)"
        )


def _execute(agent: "Agent", query: str, answer: "Answer", npu: str) -> dict[str, Any]:
    """Compute the answer on the simulated NPU; it must be the answer given."""
    import numpy as np

    from npu_sim.hardware.presets import npu as find_npu
    from npu_sim.tile.execute import execute

    source = np.array([agent.source_tokens(query)])
    valid = np.ones(source.shape, bool)
    chip = find_npu(npu)
    integers = agent.ops.model  # type: ignore[attr-defined]  # `ask` has checked the scheme
    found = execute(integers, source, valid, chip, answer.n_output)
    if found.tokens != list(answer.tokens):
        raise AssertionError(f"the NPU wrote {found.tokens}, the executor {answer.tokens}")
    return {
        "products": found.n_products,
        "pieces": found.n_pieces,
        "tokens": found.tokens,
        "latency_ms": 1000 * found.run.cycles / chip.clock_hz,
    }
