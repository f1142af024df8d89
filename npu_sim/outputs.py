"""Files that `npu-sim run` writes: trace, Gantt chart, roofline plot, table."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from mu_ref.files import written_whole
from npu_sim.errors import WorkloadError
from npu_sim.report import Report

if TYPE_CHECKING:
    from npu_sim.tile import TileRun

__all__ = ["tile_run", "write_csv", "write_files", "write_text"]


def write_files(
    report: Report,
    trace: Path | None,
    gantt: Path | None,
    csv_file: Path | None,
    roofline: Path | None,
    breakdown: Path | None,
) -> None:
    """Write what was asked for.

    Args:
        report: at `tile` fidelity, unless nothing is asked for.
        trace: Chrome trace JSON.
        gantt: picture of the last call.
        csv_file: table of all operations.
        roofline: picture of all products.
        breakdown: picture of where the time goes.

    Raises:
        WorkloadError: the report is a roofline's, or a picture has an unknown ending.
    """
    for picture in (gantt, roofline, breakdown):
        if picture is not None and picture.suffix not in PICTURES:
            raise WorkloadError(
                f"a picture must end in one of {', '.join(PICTURES)}, got {picture.name}"
            )
    if trace is not None:
        from npu_sim.timeline import write_trace

        write_trace(tile_run(report, "a trace"), trace)
    if csv_file is not None:
        write_csv(report, csv_file)
    if gantt is not None or roofline is not None or breakdown is not None:
        from npu_sim.gantt import draw_breakdown, draw_gantt, draw_roofline

        for draw, path in (
            (draw_gantt, gantt), (draw_roofline, roofline), (draw_breakdown, breakdown),
        ):  # fmt: skip
            if path is not None:
                draw(tile_run(report, "a picture"), path)


def tile_run(report: Report, what: str) -> "TileRun":
    """Return the run behind a report.

    Args:
        report: from `simulate`.
        what: is asked for, for the message.

    Raises:
        WorkloadError: the report is a roofline's, which has no events.
    """
    if report.tiles is None:
        raise WorkloadError(
            f"{what} must be asked of a run at tile fidelity, got {report.fidelity}; "
            "leave out --fidelity"
        )
    return report.tiles


PICTURES = (".png", ".svg", ".pdf")


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_csv(report: Report, path: Path) -> None:
    """Write one line per operation and call: what it computed, moved and waited for.

    Args:
        report: at `tile` fidelity.
        path: of the file.

    Raises:
        WorkloadError: the report is a roofline's.
    """
    from npu_sim.tile_phases import row_limits

    run = tile_run(report, "a table of operations")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([
        "call", "phase", "site", "kind", "macs", "begin_cycles", "end_cycles", "overhead_cycles",
        "dma_in_cycles", "matrix_cycles", "vector_cycles", "dma_out_cycles", "weight_bytes",
        "cache_bytes", "activation_bytes", "compute_limit_cycles", "vector_limit_cycles",
        "memory_limit_cycles",
    ])  # fmt: skip
    for number, call in enumerate(run.calls):
        limits = row_limits(call)
        for op, times, limit in zip(call.table.ops, call.times, limits, strict=True):
            writer.writerow(
                [number, op.phase, op.site, op.kind, op.macs, *times.tolist(), *limit[:3].tolist()]
            )
    write_text(path, out.getvalue())
