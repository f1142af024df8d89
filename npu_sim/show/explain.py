"""Why an operation takes as long as it does: the arithmetic behind its time."""

import numpy as np

from npu_sim.errors import WorkloadError
from npu_sim.hardware.chip import Npu
from npu_sim.program.precision import precision_name
from npu_sim.program.program import VECTOR_WORK, Op
from npu_sim.tile.bottleneck import row_limits
from npu_sim.tile.simulate import CallRun, TileRun, call_tasks
from npu_sim.tile.tasks import ENGINES, PARTS, Engine
from npu_sim.units import ceil_div, ms_from_cycles

__all__ = ["explain"]

FLOW_NAMES = {"os": "output", "ws": "weight", "is": "input"}


def explain(run: TileRun, site: str, call_number: int | None = None) -> list[str]:
    """Explain one operation.

    Args:
        run: from `simulate_tiles`.
        site: of the operation.
        call_number: which graph call, from 0; by default the last one that has the site.

    Returns:
        Lines of text.

    Raises:
        WorkloadError: no such site or call; names sites that come close.
    """
    numbers = [n for n, call in enumerate(run.calls) if _row_of(call, site) is not None]
    if not numbers:
        raise WorkloadError(_unknown(run, site))
    number = numbers[-1] if call_number is None else call_number
    if number not in numbers:
        raise WorkloadError(
            f"call must be one that has {site}, {numbers[0]} to {numbers[-1]}, got {number}"
        )
    call = run.calls[number]
    row = _row_of(call, site)
    assert row is not None
    op, npu = call.table.ops[row], run.npu
    phase = call.table.call.phase
    return [
        (
            f"{site}: {op.kind} in call {number} ({phase}), "
            f"{run.table.program.model} on {npu.name}, "
            f"{run.table.program.precision.label()}, simulated"
        ),
        *_shapes(op),
        *_pieces(call, row, npu),
        *_waits(call, row, npu),
    ]


def _row_of(call: CallRun, site: str) -> int | None:
    return next((i for i, op in enumerate(call.table.ops) if op.site == site), None)


def _unknown(run: TileRun, site: str) -> str:
    sites = dict.fromkeys(op.site for call in run.calls for op in call.table.ops)
    last = site.rpartition(".")[2]
    close = [name for name in sites if name.endswith(f".{last}") or name.startswith(site)][:4]
    hint = ", ".join(close or list(sites)[:4])
    return f"site must be an operation that takes time, got {site!r}; for example {hint}"


def _shapes(op: Op) -> list[str]:
    lines = []
    for tensor in (*op.inputs, op.output):
        what = "writes" if tensor is op.output else "reads"
        scales = f" + {tensor.scale_bytes:,} B of scales" if tensor.scale_bytes else ""
        lines.append(
            f"  {what:<7} {tensor.name} {list(tensor.shape)}, {tensor.bits} bits, {tensor.role}: "
            f"{tensor.n_bytes:,} B{scales}"
        )
    if op.gemm is not None:
        g = op.gemm
        many = f"{g.count} x " if g.count > 1 else ""
        lines.append(
            f"  product {many}[{g.m}, {g.k}] x [{g.k}, {g.n}] = {op.macs:,} MACs of "
            f"{precision_name(*op.operand_bits)}"
        )
    if op.vector_elements:
        work = VECTOR_WORK[op.vector_work]
        lines.append(
            f"  elements {op.vector_elements:,} x ({work.simple_operations} simple + "
            f"{work.special_functions} special operations) of {op.vector_work}"
        )
    return lines


def _pieces(call: CallRun, row: int, npu: Npu) -> list[str]:
    """The largest task of each engine, with its formula."""
    tasks = call_tasks(call, npu)
    own = tasks["op"] == row
    lines = []
    for engine in (Engine.DMA_IN, Engine.VECTOR, Engine.MATRIX):
        mine = np.flatnonzero(own & (tasks["engine"] == engine))
        if not len(mine):
            continue
        largest = tasks[mine[np.argmax(tasks["cycles"][mine])]]
        cycles, n_bytes = int(largest.cycles), int(largest.n_bytes)
        part = PARTS[largest.part]
        total = int(tasks["cycles"][mine].sum())
        lines.append(
            f"  {ENGINES[engine]}: {len(mine)} tasks, {total:,} cycles; the largest ({part}) "
            f"{cycles:,} cycles"
        )
        if engine == Engine.DMA_IN and n_bytes:
            lines.append(
                f"    = {npu.dma.setup_cycles} + {n_bytes:,} B x {npu.clock_hz:,} Hz / "
                f"{npu.memory_bytes_per_s:,} B/s"
            )
        if engine == Engine.MATRIX:
            heads = max(1, int(call.table.rows[row].b_heads))
            lines += _matrix(call.table.ops[row], heads, largest, npu)
    return lines


def _matrix(op: Op, heads: int, task: np.record, npu: Npu) -> list[str]:
    """Tile shape, folds and cycles per fold of the largest product."""
    gemm, matrix = op.gemm, npu.matrix
    assert gemm is not None
    m, n, k, count = gemm.m * gemm.count // heads, gemm.n, gemm.k, heads
    if op.kind == "linear":
        count = 1
        m, n, k = (int(task[f"{axis}_1"] - task[f"{axis}_0"]) for axis in ("row", "col", "sum"))
    rate = matrix.macs_per_cycle(*op.operand_bits)
    share = matrix.efficiency(*op.operand_bits, attention=op.kind == "matmul")
    many = f"{count} x " if count > 1 else ""
    tail = f"at {rate:,} x {share:.3g} MACs per cycle"
    if matrix.dataflow == "blocks":
        blocks = [ceil_div(a, b) for a, b in
                  ((m, matrix.tile_m), (n, matrix.tile_n), (k, matrix.tile_k))]  # fmt: skip
        size = f"{matrix.tile_m} x {matrix.tile_n} x {matrix.tile_k}"
        return [(f"    {many}[{m}, {k}] x [{k}, {n}] = {many}{' x '.join(map(str, blocks))} "
                f"blocks of {size} {tail}")]  # fmt: skip
    rows, columns = matrix.rows, matrix.columns
    first, second, steps, fill = {
        "os": (m, n, k, rows + columns - 2),
        "ws": (k, n, m, 2 * rows + columns - 2),
        "is": (k, m, n, 2 * rows + columns - 2),
    }[matrix.dataflow]
    folds = ceil_div(first, rows) * ceil_div(second, columns)
    return [
        (
            f"    {many}[{m}, {k}] x [{k}, {n}], {FLOW_NAMES[matrix.dataflow]}-stationary: "
            f"{many}{folds} folds x ({steps} + {fill}) cycles of {rows} x {columns} cells, {tail}"
        )
    ]


def _waits(call: CallRun, row: int, npu: Npu) -> list[str]:
    begin, end = int(call.times[row].begin), int(call.times[row].end)
    limits = [int(value) for value in row_limits(call)[row]]
    took = sum(limits)
    names = ("the matrix engine", "the vector engine", "memory", "its start")
    ranked = sorted(zip(limits, names, strict=True), reverse=True)
    waited = ", ".join(f"{name} {cycles:,}" for cycles, name in ranked if cycles)
    return [
        (
            f"  took {took:,} cycles ({1000 * ms_from_cycles(took, npu.clock_hz):.3g} us), from "
            f"{begin:,} to {end:,} of its call; it waited for {waited}"
        ),
    ]
