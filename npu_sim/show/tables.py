"""How reports and NPUs look in a terminal; `report.py` and `hardware.py` have the numbers."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from mu_ref.border.text import printable
from mu_ref.errors import check_choice
from npu_sim.errors import WorkloadError
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.presets import NPUS, npu
from npu_sim.report.phases import PhaseReport
from npu_sim.report.report import Report, tile_run
from npu_sim.roofline.formula import LIMITS
from npu_sim.units import format_bytes, format_count, format_exact, format_ms, ms_from_cycles

WIDEST = 100_000  # columns, more than any table has

__all__ = ["npu_list", "npu_numbers", "phase_table", "print_table", "share_table"]


def print_table(console: Console, table: Table) -> None:
    """Print a table whole: on a narrow screen texts are folded, but no digit is left out.

    Args:
        console: where to.
        table: any; a line that is still too long goes on in the next line of the screen.
    """
    room = console.options.update(width=WIDEST)
    least = Measurement.get(console, room, table).minimum
    console.width = max(console.width, least)
    console.print(table)


def phase_table(report: Report) -> Table:
    """Show each phase: what it computes and moves, how long it takes, and why.

    Args:
        report: from `simulate_program`.

    Returns:
        One row per phase and one for the request; all times are simulated.
    """
    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("phase", footer="request")
    clock_hz = report.npu.clock_hz
    footers = {
        "calls": str(sum(phase.n_calls for phase in report.phases)),
        "MACs": format_count(report.macs),
        "DRAM": format_bytes(report.dram_bytes),
        "simulated": format_ms(report.latency_ms),
    }
    for header, footer in footers.items():
        table.add_column(header, footer=footer, justify="right", no_wrap=True)
    table.add_column("time goes to", footer=_shares(report.phases))
    for phase in report.phases:
        table.add_row(
            phase.phase,
            str(phase.n_calls),
            format_count(phase.macs),
            format_bytes(phase.dram_bytes),
            format_ms(ms_from_cycles(phase.cycles, clock_hz)),
            _shares((phase,)),
        )
    return table


def _shares(phases: tuple[PhaseReport, ...]) -> str:
    """Name the limits, the largest first: "memory 82 %, overhead 18 %"."""
    total = sum(phase.cycles for phase in phases)
    cycles = {limit: sum(phase.limit_cycles[limit] for phase in phases) for limit in LIMITS}
    ranked = sorted(LIMITS, key=lambda limit: -cycles[limit])
    return ", ".join(
        f"{limit} {100 * cycles[limit] / total:.0f} %"
        for limit in ranked
        if cycles[limit] >= 0.005 * total
    )


def share_table(report: Report, by: str) -> Table:
    """Show what each layer, kind of operation or site takes.

    Args:
        report: from `simulate_program` at `tile` fidelity.
        by: "layer", "kind" or "site".

    Returns:
        One row each, the longest first.

    Raises:
        WorkloadError: a roofline's report, or no such division.
    """
    from npu_sim.report.shares import DIVISIONS, shares

    check_choice("by", by, DIVISIONS, WorkloadError)
    run = tile_run(report, "a division by layer, kind or site")
    table = Table(box=None, pad_edge=False)
    table.add_column(by, no_wrap=True)
    for header in ("simulated", "share", "MACs", "DRAM"):
        table.add_column(header, justify="right", no_wrap=True)
    for share in shares(run, by):
        table.add_row(
            printable(share.name),
            format_ms(ms_from_cycles(share.cycles, run.npu.clock_hz)),
            f"{100 * share.cycles / run.cycles:.1f} %",
            format_count(share.macs),
            format_bytes(share.dram_bytes),
        )
    return table


def npu_list() -> Table:
    """Show every NPU in one row."""
    table = Table(box=None, pad_edge=False)
    for header in ("name", "int8", "SRAM", "DRAM reads", "what it is"):
        table.add_column(header, no_wrap=header != "what it is")
    for name in NPUS:
        chip = npu(name)
        table.add_row(
            name,
            f"{chip.int8_tops:.4g} TOPS",
            format_bytes(chip.sram.capacity_bytes),
            f"{format_bytes(chip.memory_bytes_per_s)}/s",
            chip.title,
        )
    return table


def npu_numbers(chip: Npu) -> Table:
    """Show every number of an NPU with its source.

    Args:
        chip: the NPU.

    Returns:
        One row per number.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("field", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("source")
    for path, value in chip.values().items():
        shown = format_exact(chip.numbers()[path]) if path in chip.numbers() else str(value)
        table.add_row(path, shown, printable(chip.sources[path]))
    return table
