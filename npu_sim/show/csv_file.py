"""A table of all operations of a run, as CSV."""

import csv
import io
from pathlib import Path

from mu_ref.border.files import write_text
from mu_ref.border.text import csv_cell
from npu_sim.report.report import Report, tile_run

__all__ = ["write_csv"]


def write_csv(report: Report, path: Path) -> None:
    """Write one line per operation and call: what it computed, moved and waited for.

    Args:
        report: at `tile` fidelity.
        path: of the file.

    Raises:
        WorkloadError: the report is a roofline's.
    """
    from npu_sim.tile.bottleneck import row_limits

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
                [number, op.phase, csv_cell(op.site), op.kind, op.macs, times.begin, times.end,
                 *times.busy_cycles, *times.dram_bytes, *limit[:3]]
            )  # fmt: skip
    write_text(path, out.getvalue())
