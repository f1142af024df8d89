"""`npu-sim explain` and `npu-sim check-trace`: what stands behind a time, is a trace sound."""

from pathlib import Path
from typing import Annotated

import typer

from mu_ref.border.ranges import TOKENS, Range
from mu_ref.border.text import json_text, printable
from mu_ref.command_line import JsonOption, in_range
from npu_sim.cli.question import Asked, ModelArgument, asks, question
from npu_sim.errors import WorkloadError
from npu_sim.whatif.metrics import scenario_report

__all__ = ["check_trace_file", "explain"]

CALLS = Range(low=0, high=TOKENS.high, why="a request writes no more tokens")


@asks("runtime")  # who calls the graph changes no operation in it
def explain(
    model: ModelArgument = None,
    *,
    site: Annotated[str, typer.Option(help="Operation, for example decoder.3.mlp.up.")],
    call: Annotated[
        int | None,
        in_range(CALLS, "--call", help="Graph call, from 0; by default the last that has the site"),
    ] = None,
    asked: Asked,
    as_json: JsonOption = False,
) -> None:
    """Print the arithmetic behind the time of one operation.

    Example: npu-sim explain mu-330m --site decoder.3.mlp.up --npu h100
    """
    from npu_sim.report.report import tile_run
    from npu_sim.show.explain import explain as explain_site

    what = question(model, asked, only="tile", why="a roofline has no tasks to explain")
    report = scenario_report(what.scenario, what.fidelity)
    lines = [
        printable(line) for line in explain_site(tile_run(report, "an explanation"), site, call)
    ]
    if as_json:
        typer.echo(json_text({"simulated": True, **what.notes(), "site": site, "lines": lines}))
        return
    for line in lines:
        typer.echo(line)


def check_trace_file(
    file: Annotated[Path, typer.Argument(help="Chrome trace JSON, from `run --trace`.")],
) -> None:
    """Hold a trace to the rules of trace viewers.

    They are: nesting, order, one thread per engine.

    Example: npu-sim check-trace trace.json
    """
    from npu_sim.show.trace import check_trace, read_trace

    events = read_trace(file)
    wrong = check_trace(events)
    if wrong:
        more = f"; {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise WorkloadError(f"{file}: {wrong[0]}{more}")
    typer.echo(printable(f"{file}: {len(events)} events, sound"))
