"""`npu-sim sweep`: every point of a grid or of draws, and its picture."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from mu_ref.border.files import check_outputs
from mu_ref.border.ranges import Range
from mu_ref.border.text import json_text, printable
from mu_ref.command_line import JsonOption, in_range
from npu_sim.cli.options import PlotOption
from npu_sim.cli.question import Asked, asks, merged
from npu_sim.errors import SweepError
from npu_sim.whatif.metrics import METRICS
from npu_sim.whatif.resume.outputs import check_sweep_outputs
from npu_sim.whatif.sweep import CHUNK, dask_executor, local_executor, run_sweep
from npu_sim.whatif.varied.sweep_toml import SweepSpec, read_spec

if TYPE_CHECKING:
    from npu_sim.whatif.pictures.sweep_plot import Look

__all__ = ["sweep"]

ONE_FOR_ALL = (
    "warning: one drafter.tokens_per_step stands for all beam widths, but wider beams keep more "
    "tokens; vary it too, or see npu-sim speculate"
)

PROCESSES = Range(low=0, high=1024, why="more than there are processors bring nothing")
PROCESSES_EACH = 4  # per processor at most: starting one costs more than it could bring


@asks()
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
    *,
    asked: Asked,
    as_json: JsonOption = False,
) -> None:
    """Simulate every point of a sweep; stopped half-way, the same command goes on.

    Alone of all commands it is a roofline unless the file or --fidelity says tile: a point then
    takes a thousand times as long.

    Example: npu-sim sweep spec.toml --out sweep.csv --plot sweep.png
    """
    pooled = _pool(processes, dask)
    read = read_spec(spec, partial(merged, asked=asked, from_file=True))
    look = _look(read, out, plot, {"--x": x, "--y": y, "--colour": colour, "--panels": panels})
    check_outputs({}, pictures={"--plot": plot})
    check_sweep_outputs(read, out, plot)
    if "drafter.beam_width" in read.paths and "drafter.tokens_per_step" not in read.paths:
        typer.echo(ONE_FOR_ALL, err=True)
    with _progress(read.n_points, quiet=quiet) as progress, pooled() as pool:
        n_points = run_sweep(read, out, pool, progress, checkpoint_points)
    # a table that goes to stdout stays a table
    typer.echo(_summary(read, n_points, out, as_json=as_json), err=not out.is_file())
    if plot is not None and look is not None:
        from npu_sim.whatif.pictures.sweep_plot import plot_sweep
        from npu_sim.whatif.plots import picture_title

        plot_sweep(out, look, plot, picture_title(read.base, read.fidelity))


def _summary(read: SweepSpec, n_points: int, out: Path, *, as_json: bool) -> str:
    if not as_json:
        return f"{n_points} points in {printable(str(out))}, simulated ({read.fidelity})"
    return json_text(
        {"simulated": True, "fidelity": read.fidelity, "model": read.base.description.name,
         "npu": read.base.npu.name, "n_points": n_points, "varied": list(read.paths),
         "metrics": list(METRICS), "out": str(out)}
    )  # fmt: skip


def _pool(processes: int | None, dask: str | None) -> Callable[[], AbstractContextManager[Any]]:
    """Return how to open what computes points."""
    if processes is not None and dask is not None:
        raise SweepError(
            "--processes must not come with --dask, whose workers have their own; leave one out"
        )
    if dask is not None:
        return partial(dask_executor, dask)
    most = PROCESSES_EACH * (os.cpu_count() or 1)
    if processes is not None and processes > most:
        raise SweepError(
            f"--processes must be at most {most} here, {PROCESSES_EACH} per processor of this "
            f"machine, got {processes}; leave it out for one per processor"
        )
    return nullcontext if processes == 1 else partial(local_executor, processes or None)


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
