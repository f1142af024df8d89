"""`npu-sim` commands for what-ifs: sensitivity, compare, solve."""

from dataclasses import replace
from functools import partial
from typing import Annotated

import typer

from mu_ref.border.files import check_outputs
from mu_ref.border.reading import read_toml
from mu_ref.border.text import json_text, printable
from mu_ref.command_line import JsonOption, in_range
from npu_sim.cli.options import PlotOption, print_rows
from npu_sim.cli.question import Asked, ModelArgument, Question, asks, question
from npu_sim.errors import SweepError
from npu_sim.hardware.units import with_unit
from npu_sim.whatif.compare import Comparison, compare
from npu_sim.whatif.metrics import METRICS
from npu_sim.whatif.scenario_toml import MODEL_KEYS
from npu_sim.whatif.sensitivity import MOVED, sensitivity
from npu_sim.whatif.solve import TARGET, Answer, solve

__all__ = ["show_comparison", "show_sensitivity", "show_solution"]


MetricOption = Annotated[str, typer.Option(help=f"{', '.join(METRICS[:-1])} or {METRICS[-1]}.")]


@asks()
def show_sensitivity(
    base: ModelArgument = None,
    metric: MetricOption = "latency_ms",
    share: Annotated[float, in_range(MOVED, help="How far each field moves, 0.2 is 20 %")] = 0.2,
    plot: PlotOption = None,
    *,
    asked: Asked,
    as_json: JsonOption = False,
) -> None:
    """Show which field moves a metric most (a tornado).

    Example: npu-sim sensitivity mu-330m --metric decode_tok_per_s --share 0.1
    """
    what = question(_model(base, asked), asked)
    check_outputs({}, what.files, pictures={"--plot": plot})
    value, swings = sensitivity(what.scenario, metric, share, fidelity=what.fidelity)
    if plot is not None:
        from npu_sim.whatif.plots import picture_title, plot_tornado

        plot_tornado(value, swings, metric, plot, picture_title(what.scenario, what.fidelity))
    rows = [
        {"field": s.path, "low_value": s.low_value, "low": s.low, "high_value": s.high_value,
         "high": s.high} for s in swings
    ]  # fmt: skip
    if as_json:
        known = {"simulated": True, **what.notes(), "metric": metric, "base": value}
        typer.echo(json_text(known | {"rows": rows}))
        return
    typer.echo(printable(what.title))
    print_rows(f"{metric} = {value:.4g}, simulated ({what.fidelity})", rows)


@asks()
def show_comparison(
    a: Annotated[str, typer.Argument(help="NPU, FILE.toml of an NPU, or of a scenario.")],
    b: Annotated[str, typer.Argument(help="The same.")],
    model: Annotated[
        str | None, typer.Option(help="Model preset, where A or B is an NPU; else mu-330m.")
    ] = None,
    plot: PlotOption = None,
    *,
    asked: Asked,
    as_json: JsonOption = False,
) -> None:
    """Compare two NPUs or scenarios: what differs, and what it costs.

    Costs are milliseconds per phase and cause. Other options hold for both.

    Example: npu-sim compare hexagon-x-elite h100 --model mu-330m --batch 8
    """
    _check_sides((a, b), model, asked)
    of_a, of_b = (
        question(name, asked)
        if _is_scenario(name)
        else question(_model(model, asked), replace(asked, npu=name))
        for name in (a, b)
    )
    if of_a.fidelity != of_b.fidelity:
        raise SweepError(
            f"fidelity of A and of B must be the same, got {of_a.fidelity} and {of_b.fidelity}; "
            "give --fidelity"
        )
    check_outputs({}, (*of_a.files, *of_b.files), pictures={"--plot": plot})
    found = compare(of_a.scenario, of_b.scenario, of_a.fidelity)
    if plot is not None:
        from npu_sim.whatif.plots import picture_title, plot_comparison

        titles = [picture_title(side.scenario, side.fidelity) for side in (of_a, of_b)]
        plot_comparison(found, (a, b), plot, "\n".join(dict.fromkeys(titles)))
    if as_json:
        sides = {"a": of_a.notes(), "b": of_b.notes()}
        typer.echo(json_text({"simulated": True, **sides, **found.to_json()}))
        return
    typer.echo(printable(f"A = {a}, B = {b}"))
    _print_comparison(of_a, of_b, found)


def _check_sides(names: tuple[str, str], model: str | None, asked: Asked) -> None:
    """Refuse an option that names a second time what A or B names."""
    scenarios = [name for name in names if _is_scenario(name)]
    models = {"--model": model, "--model-json": asked.model_json, "--hf-config": asked.hf_config}
    for option in (name for name, value in models.items() if value is not None):
        if len(scenarios) == 2:
            raise SweepError(
                f"{option} must come with an NPU as A or B, got two scenarios, which name their "
                "models"
            )
    if asked.npu is not None and len(scenarios) < 2:
        raise SweepError(
            f"--npu must come with two scenarios, got {asked.npu} beside an NPU as A or B; leave "
            "it out"
        )


def _print_comparison(of_a: Question, of_b: Question, found: Comparison) -> None:
    typer.echo(printable(f"A: {of_a.title}"))
    typer.echo(printable(f"B: {of_b.title}"))
    fields = [{"field": path, "A": x, "B": y} for path, (x, y) in found.fields.items()]
    print_rows("fields that differ", fields)
    costs = [
        {"phase": phase, "cause": cause, "A ms": x, "B ms": y, "B - A ms": y - x}
        for (phase, cause), (x, y) in found.costs.items()
    ]
    total = found.totals_ms
    costs.append(
        {"phase": "request", "cause": "all", "A ms": total[0], "B ms": total[1],
         "B - A ms": total[1] - total[0]}
    )  # fmt: skip
    typer.echo()
    print_rows(f"simulated milliseconds ({of_a.fidelity})", costs)


def _model(base: str | None, asked: Asked) -> str | None:
    """The model where none is named."""
    if base is None and asked.model_json is None and asked.hf_config is None:
        return "mu-330m"
    return base


def _is_scenario(name: str) -> bool:
    """Whether a name is the file of a scenario, which names a model; an NPU has none."""
    if not name.endswith(".toml"):
        return False
    found = read_toml(name, "a TOML file of an NPU or of a scenario", SweepError)
    return not found.keys().isdisjoint(MODEL_KEYS)


@asks()
def show_solution(
    base: ModelArgument = None,
    vary: Annotated[str, typer.Option(help="Field, for example dma_bandwidth.")] = "dma_bandwidth",
    target_tok_s: Annotated[float | None, in_range(TARGET, help="Decode speed to reach")] = None,
    target_ttft_ms: Annotated[float | None, in_range(TARGET, help="First token within")] = None,
    target_latency_ms: Annotated[float | None, in_range(TARGET, help="Request within")] = None,
    plot: PlotOption = None,
    *,
    asked: Asked,
    as_json: JsonOption = False,
) -> None:
    """Search the value of one field that reaches a target: what would it take?

    Example: npu-sim solve mu-330m --vary dma_bandwidth --target-tok-s 500
    """
    targets = {
        "decode_tok_per_s": target_tok_s,
        "ttft_ms": target_ttft_ms,
        "latency_ms": target_latency_ms,
    }
    given = {metric: target for metric, target in targets.items() if target is not None}
    if len(given) != 1:
        raise SweepError(
            f"one target must be given: --target-tok-s, --target-ttft-ms or --target-latency-ms; "
            f"got {len(given)}"
        )
    metric, target = next(iter(given.items()))
    what = question(_model(base, asked), asked)
    check_outputs({}, what.files, pictures={"--plot": plot})
    answer = solve(what.scenario, vary, metric, target, what.fidelity)
    if plot is not None:
        from npu_sim.whatif.plots import picture_title, plot_solution

        title = picture_title(what.scenario, what.fidelity)
        plot_solution(what.scenario, answer, plot, what.fidelity, title)
    if as_json:
        found = {name: getattr(answer, name) for name in type(answer).__slots__}
        typer.echo(json_text({"simulated": True, **what.notes(), **found}))
        return
    typer.echo(printable(what.title))
    typer.echo(f"{_answered(answer)} (simulated, {what.fidelity})")


def _answered(answer: Answer) -> str:
    """The answer of a search in one line."""
    part, _, path = answer.path.partition(".")
    shown = partial(with_unit, path) if part == "npu" else "{:,.6g}".format
    now = f"{answer.path} = {shown(answer.now)} gives {answer.now_metric:.4g} {answer.metric}"
    if answer.needed is None:
        reason = f"no value of {answer.path} gives {answer.target:g}"
        return f"{now}; {reason}: at most {answer.best_metric:.4g}; the limit is in {answer.limit}"
    factor = answer.needed / answer.now
    return f"{now}; {answer.target:g} needs {shown(answer.needed)}, {factor:.3g} times as much"
