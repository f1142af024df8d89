"""`npu-sim` commands for what-ifs: sweep, sensitivity, compare, solve."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from mu_ref.command_line import JsonOption
from npu_sim.cli.options import PlotOption, print_rows
from npu_sim.errors import SweepError
from npu_sim.whatif.compare import compare
from npu_sim.whatif.scenario import Scenario
from npu_sim.whatif.scenario_toml import base_scenario, read_scenario
from npu_sim.whatif.sensitivity import sensitivity
from npu_sim.whatif.solve import solve
from npu_sim.whatif.sweep import dask_executor, local_executor, run_sweep
from npu_sim.whatif.sweep_toml import read_spec

__all__ = ["show_comparison", "show_sensitivity", "show_solution", "sweep"]


BaseArgument = Annotated[
    str, typer.Argument(help="Model preset, or a TOML file of a scenario.", metavar="MODEL|FILE")
]

NpuOption = Annotated[str, typer.Option("--npu", help="NPU, or FILE.toml.")]

InputOption = Annotated[int, typer.Option("--input", help="Tokens read.")]

OutputOption = Annotated[int, typer.Option("--output", help="Tokens written.")]

FidelityOption = Annotated[str, typer.Option(help="roofline or tile.")]

MetricOption = Annotated[
    str, typer.Option(help="ttft_ms, tpot_ms, decode_tok_per_s, latency_ms or dram_bytes.")
]

DEFAULT_NPU = "hexagon-x-elite"


def sweep(
    spec: Annotated[Path, typer.Argument(help="TOML file, see docs/whatif.md.")],
    out: Annotated[Path, typer.Option(help="CSV to write; a JSON file goes beside it.")] = Path(
        "sweep.csv"
    ),
    processes: Annotated[int, typer.Option(help="Processes; 0: one per processor.")] = 0,
    dask: Annotated[str, typer.Option(help="Address of a Dask scheduler.")] = "",
    plot: PlotOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Simulate every point of a sweep; stopped half-way, the same command goes on."""
    read = read_spec(spec)
    if processes < 0:
        raise SweepError(f"--processes must be at least 0, got {processes}")
    alone = processes == 1 and not dask
    executor: Any = nullcontext(None)
    if not alone:
        executor = dask_executor(dask) if dask else local_executor(processes or None)
    console = Console(file=sys.stderr)
    with Progress(console=console, disable=quiet) as bar, executor as pool:
        task = bar.add_task("points", total=read.n_points)

        def progress(done: int, _total: int) -> None:
            bar.update(task, completed=done)

        n_points = run_sweep(read, out, pool, progress)
    typer.echo(f"{n_points} points in {out}, simulated ({read.fidelity})")
    if plot is not None:
        from npu_sim.whatif.plots import plot_sweep

        plot_sweep(out, read.paths, plot)


def _base(model: str, npu: str, n_input: int, n_output: int) -> Scenario:
    if model.endswith(".toml"):
        return read_scenario(Path(model))
    workload = {"n_input": n_input, "n_output": n_output}
    return base_scenario({"model": model, "npu": npu, "workload": workload})


def show_sensitivity(
    base: BaseArgument = "mu-330m",
    npu: NpuOption = DEFAULT_NPU,
    n_input: InputOption = 64,
    n_output: OutputOption = 32,
    metric: MetricOption = "latency_ms",
    share: Annotated[float, typer.Option(help="How far each field moves, 0.2 is 20 %.")] = 0.2,
    fidelity: FidelityOption = "roofline",
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which field moves a metric most (a tornado)."""
    scenario = _base(base, npu, n_input, n_output)
    value, swings = sensitivity(scenario, metric, share, fidelity=fidelity)
    if plot is not None:
        from npu_sim.whatif.plots import plot_tornado

        plot_tornado(value, swings, metric, plot)
    rows = [
        {"field": s.path, "low_value": s.low_value, "low": s.low, "high_value": s.high_value,
         "high": s.high} for s in swings
    ]  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"simulated": True, "metric": metric, "base": value, "rows": rows}))
        return
    print_rows(f"{metric} = {value:.4g}, simulated ({fidelity})", rows)


def show_comparison(
    a: Annotated[str, typer.Argument(help="NPU, FILE.toml of an NPU, or of a scenario.")],
    b: Annotated[str, typer.Argument(help="The same.")],
    model: Annotated[str, typer.Option(help="Model preset, where A and B are NPUs.")] = "mu-330m",
    n_input: InputOption = 64,
    n_output: OutputOption = 32,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two NPUs or scenarios: what changed, and what it costs per phase and cause."""
    found = compare(*(_either(name, model, n_input, n_output) for name in (a, b)))
    if plot is not None:
        from npu_sim.whatif.plots import plot_comparison

        plot_comparison(found, (a, b), plot)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    fields = [{"field": path, "A": x, "B": y} for path, (x, y) in found.fields.items()]
    print_rows(f"A = {a}, B = {b}: fields that differ", fields)
    costs = [
        {"phase": phase, "cause": cause, "A ms": x, "B ms": y, "B - A ms": y - x}
        for (phase, cause), (x, y) in found.costs.items()
    ]
    total = found.totals_ms
    costs.append(
        {"phase": "request", "cause": "all", "A ms": total[0], "B ms": total[1],
         "B - A ms": total[1] - total[0]}
    )  # fmt: skip
    print_rows("\nsimulated milliseconds (roofline)", costs)


def _either(name: str, model: str, n_input: int, n_output: int) -> Scenario:
    """A scenario file, or an NPU for the model of the command."""
    if name.endswith(".toml"):
        text = Path(name).read_text(encoding="utf-8")
        if "model" in text and "[matrix]" not in text:
            return read_scenario(Path(name))
    return _base(model, name, n_input, n_output)


def show_solution(
    base: BaseArgument = "mu-330m",
    vary: Annotated[str, typer.Option(help="Field, for example dma_bandwidth.")] = "dma_bandwidth",
    target_tok_s: Annotated[float | None, typer.Option(help="Decode speed to reach.")] = None,
    target_ttft_ms: Annotated[float | None, typer.Option(help="First token within.")] = None,
    target_latency_ms: Annotated[float | None, typer.Option(help="Request within.")] = None,
    npu: NpuOption = DEFAULT_NPU,
    n_input: InputOption = 64,
    n_output: OutputOption = 32,
    fidelity: FidelityOption = "roofline",
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the value of one field that reaches a target: what would it take?"""
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
    scenario = _base(base, npu, n_input, n_output)
    answer = solve(scenario, vary, metric, target, fidelity)
    if plot is not None:
        from npu_sim.whatif.plots import plot_solution

        plot_solution(scenario, answer, plot)
    if as_json:
        found = {name: getattr(answer, name) for name in type(answer).__slots__}
        typer.echo(json.dumps({"simulated": True, **found}))
        return
    now = f"{answer.path} = {answer.now:,.6g} gives {answer.now_metric:.4g} {metric}"
    if answer.needed is None:
        reason = f"no value of {answer.path} gives {target:g}: at most {answer.best_metric:.4g}"
        typer.echo(f"{now}; {reason}; the limit is in {answer.limit} (simulated, {fidelity})")
    else:
        factor = answer.needed / answer.now
        typer.echo(
            f"{now}; {target:g} needs {answer.needed:,.6g}, {factor:.3g} times as much "
            f"(simulated, {fidelity})"
        )
