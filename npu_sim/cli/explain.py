"""`npu-sim explain` and `npu-sim check-trace`: what stands behind a time, is a trace sound."""

from pathlib import Path
from typing import Annotated

import typer

from mu_ref.border.ranges import TOKENS, Range
from mu_ref.border.text import printable
from mu_ref.command_line import in_range
from mu_ref.presets import preset
from npu_sim.cli import options
from npu_sim.errors import WorkloadError
from npu_sim.hardware.presets import NPUS, npu
from npu_sim.program.request import record_request

__all__ = ["check_trace_file", "explain"]

CALLS = Range(low=0, high=TOKENS.high, why="a request writes no more tokens")


def explain(
    model: Annotated[str, typer.Argument(help="Model preset, for example mu-330m.")],
    site: Annotated[str, typer.Option(help="Operation, for example decoder.3.mlp.up.")],
    npu_name: options.NpuOption = NPUS[0],
    n_input: options.InputOption = 64,
    n_output: options.OutputOption = 32,
    batch: options.BatchOption = 1,
    weight_bits: options.WeightBitsOption = 8,
    activation_bits: options.ActivationBitsOption = 16,
    kv_bits: options.KvBitsOption = 16,
    head_weight_bits: options.HeadBitsOption = None,
    call: Annotated[
        int | None,
        in_range(CALLS, "--call", help="Graph call, from 0; by default the last that has the site"),
    ] = None,
) -> None:
    """Print the arithmetic behind the time of one operation."""
    from npu_sim.program.rows import program_table
    from npu_sim.show.explain import explain as explain_site
    from npu_sim.tile.simulate import simulate_tiles

    precision = options.precision_of(weight_bits, activation_bits, kv_bits, head_weight_bits)
    program = record_request(preset(model), n_input, n_output, precision, batch)
    run = simulate_tiles(program_table(program), npu(npu_name))
    for line in explain_site(run, site, call):
        typer.echo(printable(line))


def check_trace_file(
    file: Annotated[Path, typer.Argument(help="Chrome trace JSON, from `run --trace`.")],
) -> None:
    """Hold a trace to the rules of trace viewers: nesting, order, one thread per engine."""
    from npu_sim.show.trace import check_trace, read_trace

    events = read_trace(file)
    wrong = check_trace(events)
    if wrong:
        more = f"; {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise WorkloadError(f"{file}: {wrong[0]}{more}")
    typer.echo(printable(f"{file}: {len(events)} events, sound"))
