"""`npu-sim` commands for what-ifs: sweep, sensitivity, compare, solve."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import Progress

from mu_ref.border.files import check_outputs
from mu_ref.border.ranges import TOKENS, Range
from mu_ref.border.reading import read_toml
from mu_ref.border.text import json_text, printable
from mu_ref.command_line import JsonOption, in_range
from npu_sim.cli.options import PlotOption, print_rows
from npu_sim.errors import SweepError
from npu_sim.whatif.compare import compare
from npu_sim.whatif.resume.outputs import check_sweep_outputs
from npu_sim.whatif.scenario import Scenario
from npu_sim.whatif.scenario_toml import (
    DEFAULT_NPU,
    MODEL_KEYS,
    base_files,
    base_scenario,
    read_tables,
    table_of,
)
from npu_sim.whatif.sensitivity import MOVED, sensitivity
from npu_sim.whatif.solve import TARGET, solve
from npu_sim.whatif.sweep import CHUNK, dask_executor, local_executor, run_sweep
from npu_sim.whatif.sweep_toml import SweepSpec, read_spec

if TYPE_CHECKING:
    from npu_sim.whatif.pictures.sweep_plot import Look

__all__ = ["show_comparison", "show_sensitivity", "show_solution", "sweep"]


BaseArgument = Annotated[
    str, typer.Argument(help="Model preset, or a TOML file of a scenario.", metavar="MODEL|FILE")
]

NpuOption = Annotated[
    str | None,
    typer.Option("--npu", help=f"NPU, or FILE.toml; the file's own, or {DEFAULT_NPU}."),
]

InputOption = Annotated[
    int | None, in_range(TOKENS, "--input", help="Tokens read; the file's own, or 64")
]

OutputOption = Annotated[
    int | None, in_range(TOKENS, "--output", help="Tokens written; the file's own, or 32")
]

FidelityOption = Annotated[
    str | None, typer.Option(help="roofline or tile; the file's own, or roofline.")
]

MetricOption = Annotated[
    str, typer.Option(help="ttft_ms, tpot_ms, decode_tok_per_s, latency_ms or dram_bytes.")
]

ONE_FOR_ALL = (
    "warning: one drafter.tokens_per_step stands for all beam widths, but wider beams keep more "
    "tokens; vary it too, or see npu-sim speculate"
)

PROCESSES = Range(low=0, high=1024, why="more than there are processors bring nothing")


def sweep(
    spec: Annotated[Path, typer.Argument(help="TOML file, see docs/whatif.md.")],
    out: Annotated[Path, typer.Option(help="CSV to write; a JSON file goes beside it.")] = Path(
        "sweep.csv"
    ),
    checkpoint_points: Annotated[
        int | None,
        in_range(CHUNK, help="Points computed between two checkpoints; by default a twentieth"),
    ] = None,
    processes: Annotated[
        int | None, in_range(PROCESSES, help="Processes; 0, the default: one per processor")
    ] = None,
    dask: Annotated[str | None, typer.Option(help="Address of a Dask scheduler.")] = None,
    plot: PlotOption = None,
    x: Annotated[
        str | None, typer.Option("--x", help="Varied field along the picture's axis.")
    ] = None,
    y: Annotated[
        str | None, typer.Option("--y", help="Metric to draw; latency_ms by default.")
    ] = None,
    colour: Annotated[
        str | None, typer.Option("--colour", help="Varied field with a line for each value.")
    ] = None,
    panels: Annotated[
        str | None, typer.Option("--panels", help="Varied field with a panel for each value.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Simulate every point of a sweep; stopped half-way, the same command goes on."""
    if processes is not None and dask is not None:
        raise SweepError(
            "--processes must not come with --dask, whose workers have their own; leave one out"
        )
    read = read_spec(spec)
    look = _look(read, out, plot, {"--x": x, "--y": y, "--colour": colour, "--panels": panels})
    check_outputs({}, pictures={"--plot": plot})
    check_sweep_outputs(read, out, plot)
    if "drafter.beam_width" in read.paths and "drafter.tokens_per_step" not in read.paths:
        typer.echo(ONE_FOR_ALL, err=True)
    executor: AbstractContextManager[Any] = nullcontext()
    if dask is not None:
        executor = dask_executor(dask)
    elif processes != 1:
        executor = local_executor(processes or None)
    with _progress(read.n_points, quiet=quiet) as progress, executor as pool:
        n_points = run_sweep(read, out, pool, progress, checkpoint_points)
    # a table that goes to stdout stays a table
    typer.echo(
        f"{n_points} points in {printable(str(out))}, simulated ({read.fidelity})",
        err=not out.is_file(),
    )
    if plot is not None and look is not None:
        from npu_sim.whatif.pictures.sweep_plot import plot_sweep
        from npu_sim.whatif.plots import picture_title

        plot_sweep(out, look, plot, picture_title(read.base, read.fidelity))


def _look(
    read: SweepSpec, out: Path, plot: Path | None, asked: dict[str, str | None]
) -> "Look | None":
    """What the picture shows where; refuse, before the work, what has no picture."""
    if plot is None:
        for option, value in asked.items():
            if value is not None:
                raise SweepError(f"{option} must come with --plot, whose picture it is about")
        return None
    from npu_sim.whatif.pictures.sweep_plot import check_sweep_plot

    metric = asked["--y"]
    return check_sweep_plot(
        read, out, asked["--x"], asked["--colour"], asked["--panels"],
        "latency_ms" if metric is None else metric,
    )  # fmt: skip


@contextmanager
def _progress(n_points: int, *, quiet: bool) -> Iterator[Any]:
    """Show how many points are done, and say so where the sweep is stopped."""
    done, shown = 0, False
    bar = Progress(console=Console(file=sys.stderr), disable=quiet)
    task = bar.add_task("points", total=n_points)

    def progress(completed: int, _total: int) -> None:
        nonlocal done, shown
        if not shown:  # not before the sweep is known to be possible
            bar.start()
        done, shown = completed, True
        bar.update(task, completed=completed)

    try:
        yield progress
    except KeyboardInterrupt:
        kept = f"{done:,} of {n_points:,} points are kept"
        typer.echo(f"{kept}; the same command goes on from there", err=True)
        raise
    finally:
        if shown:
            bar.stop()


class _Base(NamedTuple):
    """What a command starts from."""

    scenario: Scenario
    fidelity: str
    files: tuple[Path, ...]  # that were read


def _base(
    base: str, npu: str | None, n_input: int | None, n_output: int | None,
    fidelity: str | None = None,
) -> _Base:  # fmt: skip
    """Read a preset or a scenario; an option that is given stands before what the file says."""
    is_file = base.endswith(".toml")
    data: dict[str, Any] = read_tables(Path(base)) if is_file else {"model": base}
    own = data.pop("fidelity", None)
    if is_file:
        base_scenario(data)  # a file is understood whole, also what an option takes the place of
    given = {"n_input": n_input, "n_output": n_output}
    workload = {name: value for name, value in given.items() if value is not None}
    data["workload"] = {**table_of(data, "workload"), **workload}
    if npu is not None:
        data["npu"] = npu
    files = (Path(base), *base_files(data)) if is_file else base_files(data)
    own = "roofline" if own is None else own
    return _Base(base_scenario(data), own if fidelity is None else fidelity, files)


def show_sensitivity(
    base: BaseArgument = "mu-330m",
    npu: NpuOption = None,
    n_input: InputOption = None,
    n_output: OutputOption = None,
    metric: MetricOption = "latency_ms",
    share: Annotated[float, in_range(MOVED, help="How far each field moves, 0.2 is 20 %")] = 0.2,
    fidelity: FidelityOption = None,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which field moves a metric most (a tornado)."""
    scenario, fidelity, files = _base(base, npu, n_input, n_output, fidelity)
    check_outputs({}, files, pictures={"--plot": plot})
    value, swings = sensitivity(scenario, metric, share, fidelity=fidelity)
    if plot is not None:
        from npu_sim.whatif.plots import picture_title, plot_tornado

        plot_tornado(value, swings, metric, plot, picture_title(scenario, fidelity))
    rows = [
        {"field": s.path, "low_value": s.low_value, "low": s.low, "high_value": s.high_value,
         "high": s.high} for s in swings
    ]  # fmt: skip
    if as_json:
        typer.echo(json_text({"simulated": True, "metric": metric, "base": value, "rows": rows}))
        return
    print_rows(f"{metric} = {value:.4g}, simulated ({fidelity})", rows)


def show_comparison(
    a: Annotated[str, typer.Argument(help="NPU, FILE.toml of an NPU, or of a scenario.")],
    b: Annotated[str, typer.Argument(help="The same.")],
    model: Annotated[
        str | None, typer.Option(help="Model preset, where A or B is an NPU; else mu-330m.")
    ] = None,
    n_input: InputOption = None,
    n_output: OutputOption = None,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two NPUs or scenarios: what changed, and what it costs per phase and cause."""
    scenarios = [name for name in (a, b) if _is_scenario(name)]
    if model is not None and len(scenarios) == 2:
        raise SweepError(
            "--model must come with an NPU as A or B, got two scenarios, which name their models"
        )
    of_a, of_b = (
        _base(name, None, n_input, n_output)
        if name in scenarios
        else _base("mu-330m" if model is None else model, name, n_input, n_output)
        for name in (a, b)
    )
    for name, side in ((a, of_a), (b, of_b)):
        if side.fidelity != "roofline":
            raise SweepError(
                f"fidelity of {name} must be roofline, whose causes are compared, got "
                f"{side.fidelity}; leave it out"
            )
    check_outputs({}, (*of_a.files, *of_b.files), pictures={"--plot": plot})
    found = compare(of_a.scenario, of_b.scenario)
    if plot is not None:
        from npu_sim.whatif.plots import picture_title, plot_comparison

        titles = [picture_title(side.scenario, side.fidelity) for side in (of_a, of_b)]
        plot_comparison(found, (a, b), plot, "\n".join(dict.fromkeys(titles)))
    if as_json:
        typer.echo(json_text(found.to_json()))
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
    typer.echo()
    print_rows("simulated milliseconds (roofline)", costs)


def _is_scenario(name: str) -> bool:
    """Whether a name is the file of a scenario, which names a model; an NPU has none."""
    if not name.endswith(".toml"):
        return False
    found = read_toml(name, "a TOML file of an NPU or of a scenario", SweepError)
    return not found.keys().isdisjoint(MODEL_KEYS)


def show_solution(
    base: BaseArgument = "mu-330m",
    vary: Annotated[str, typer.Option(help="Field, for example dma_bandwidth.")] = "dma_bandwidth",
    target_tok_s: Annotated[float | None, in_range(TARGET, help="Decode speed to reach")] = None,
    target_ttft_ms: Annotated[float | None, in_range(TARGET, help="First token within")] = None,
    target_latency_ms: Annotated[float | None, in_range(TARGET, help="Request within")] = None,
    npu: NpuOption = None,
    n_input: InputOption = None,
    n_output: OutputOption = None,
    fidelity: FidelityOption = None,
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
    scenario, fidelity, files = _base(base, npu, n_input, n_output, fidelity)
    check_outputs({}, files, pictures={"--plot": plot})
    answer = solve(scenario, vary, metric, target, fidelity)
    if plot is not None:
        from npu_sim.whatif.plots import picture_title, plot_solution

        plot_solution(scenario, answer, plot, fidelity, picture_title(scenario, fidelity))
    if as_json:
        found = {name: getattr(answer, name) for name in type(answer).__slots__}
        typer.echo(json_text({"simulated": True, **found}))
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
