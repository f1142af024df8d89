"""The `tile` fidelity: pieces of every operation on engines that wait for each other.

`simulate_tiles` divides SRAM for every call (`memory.py`), writes its tasks (`schedule.py`), runs
the clock (`engine.py`) and keeps the fastest plan. Chapter: `docs/07_npu_tiles.md`.
"""

from dataclasses import dataclass, replace

import numpy as np

from npu_sim.hardware.chip import Npu
from npu_sim.hardware.fits import check_capacity, check_supported
from npu_sim.tile.compiled import kernel
from npu_sim.tile.engine import row_times, run
from npu_sim.tile.plan import Pins, Plan, check_sram, least_dma_cycles, pin_choices, plans
from npu_sim.tile.rows import COLUMNS, CallTable, ProgramTable
from npu_sim.tile.schedule import expand
from npu_sim.tile.tasks import N_FIELDS, TASK, new_rings
from npu_sim.tile.tiling import Chip, chip_numbers, vector_cycles

__all__ = ["CallRun", "Tasks", "TileRun", "call_tasks", "simulate_tiles", "sram_bytes"]


FIRST_TASKS = 1 << 14

_ENGINE, _CYCLES, _KV_WRITTEN = TASK["engine"], TASK["cycles"], COLUMNS["kv_written"]


class Desk:
    """Memory for tasks, used again for every plan that is tried."""

    def __init__(self) -> None:
        self.tasks = np.empty((FIRST_TASKS, N_FIELDS), np.int64)


@dataclass(frozen=True, eq=False)
class CallRun:
    """One call at its fastest plan."""

    table: CallTable
    plan: Plan
    cycles: int  # until its last task ends; the overhead of the call comes on top
    overhead_cycles: int
    times: np.ndarray  # [n_rows, 10] int64, see `engine.row_times`

    @property
    def sram_bytes(self) -> int:
        """Bytes of SRAM that the plan divides up; the weight ring counts what it could use."""
        plan = self.plan
        rings = plan.weight_ring_bytes + plan.activation_ring_bytes + plan.out_ring_bytes
        return rings + plan.kept_bytes


@dataclass(frozen=True, eq=False)
class TileRun:
    """A request at `tile` fidelity."""

    table: ProgramTable
    npu: Npu
    pins: Pins
    calls: tuple[CallRun, ...]

    @property
    def cycles(self) -> int:
        """Simulated cycles of the request."""
        return sum(call.cycles + call.overhead_cycles for call in self.calls)

    @property
    def engine_cycles(self) -> dict[str, int]:
        """Cycles that each engine is busy; "dma" is the port, reads and writes."""
        total = sum(call.times.sum(axis=0) for call in self.calls)
        return {name: int(total[at]) for name, at in (("dma", 3), ("matrix", 4), ("vector", 5))}

    @property
    def peak_sram_bytes(self) -> int:
        """Most bytes of SRAM that are spoken for at once: activations, rings, what is pinned."""
        return max(call.sram_bytes for call in self.calls) + sum(self.pins)


@dataclass(frozen=True, eq=False)
class Tasks:
    """The tasks of one call with their times."""

    tasks: np.ndarray  # [n_tasks, n_fields] int64
    start: np.ndarray  # [n_tasks] int64, cycles after the overhead of the call
    end: np.ndarray  # [n_tasks] int64


def simulate_tiles(table: ProgramTable, npu: Npu) -> TileRun:
    """Time a request piece by piece.

    Args:
        table: from `program_table`.
        npu: the NPU.

    Returns:
        The fastest run among the plans that fit.

    Raises:
        UnsupportedError: an operation or width that the NPU does not have.
        CapacityError: weights and cache do not fit DRAM, or a tensor does not fit SRAM.
    """
    check_supported(table.program, npu)
    check_capacity(table.program, npu)
    chip = chip_numbers(npu)
    work = [vector_cycles(call.rows, npu) for call in table.calls]
    best: TileRun | None = None
    desk = Desk()
    for pins in pin_choices(table, npu):
        runs = []
        for call, cycles in zip(table.calls, work, strict=True):
            found = _fastest(call, cycles, chip, npu, pins, desk)
            if found is None:
                break
            positions = call.call.n_positions
            overhead = npu.call_overhead_cycles(table.program.runtime, positions)
            runs.append(replace(found, overhead_cycles=overhead))
        if len(runs) < len(table.calls):
            continue
        request = TileRun(table=table, npu=npu, pins=pins, calls=tuple(runs))
        if best is None or request.cycles < best.cycles:
            best = request
    if best is None:
        for call, cycles in zip(table.calls, work, strict=True):
            if _fastest(call, cycles, chip, npu, (0, 0), desk) is None:
                check_sram(call, npu)
    assert best is not None
    return best


def call_tasks(run_of_call: CallRun, npu: Npu) -> Tasks:
    """Write the tasks of a call again, with their times, to be drawn or looked at."""
    call, plan = run_of_call.table, run_of_call.plan
    work = vector_cycles(call.rows, npu)
    tasks = _tasks(call.rows, work, plan, chip_numbers(npu), Desk())
    assert tasks is not None
    start, end = (np.zeros(len(tasks), np.int64) for _ in range(2))
    run(tasks, len(call.rows), start, end)
    return Tasks(tasks=tasks, start=start, end=end)


def _fastest(
    call: CallTable, work: np.ndarray, chip: Chip, npu: Npu, pins: Pins, desk: Desk
) -> CallRun | None:
    """Try all plans of a call; the first of the fastest wins."""
    best: tuple[int, Plan, np.ndarray] | None = None
    for plan in plans(call, npu, pins):
        if best is not None and least_dma_cycles(call, plan, npu) >= best[0]:
            continue
        tasks = _tasks(call.rows, work, plan, chip, desk)
        if tasks is None or (best is not None and _bound(tasks) >= best[0]):
            continue
        times = np.zeros((len(call.rows), 10), np.int64)
        cycles = _time(tasks, call.rows[:, _KV_WRITTEN] > 0, times)
        if best is None or cycles < best[0]:
            best = (cycles, plan, times)
    if best is None:
        return None
    return CallRun(table=call, plan=best[1], cycles=best[0], overhead_cycles=0, times=best[2])


def _tasks(
    rows: np.ndarray, work: np.ndarray, plan: Plan, chip: Chip, desk: Desk
) -> np.ndarray | None:
    """The tasks of a plan, or None if a piece has no room."""
    capacities = (plan.weight_ring_bytes, plan.activation_ring_bytes, plan.out_ring_bytes)
    n = np.zeros(2, np.int64)
    while True:
        n[0] = 0
        fits = expand(rows, work, plan, chip, desk.tasks, new_rings(capacities), n)
        if n[0] <= len(desk.tasks):
            return desk.tasks[: n[0]] if fits else None
        desk.tasks = np.empty((int(n[0]) * 5 // 4, N_FIELDS), np.int64)


@kernel
def _bound(tasks):
    """Cycles of the busiest engine: no order of the tasks takes less."""
    busy = np.zeros(5, np.int64)
    for t in range(len(tasks)):
        busy[tasks[t, _ENGINE]] += tasks[t, _CYCLES]
    return busy.max()


@kernel
def _time(tasks, writes_cache, times):
    """Run the clock and add up what each operation did."""
    start = np.zeros(len(tasks), np.int64)
    end = np.zeros(len(tasks), np.int64)
    cycles = run(tasks, len(times), start, end)
    row_times(tasks, start, end, writes_cache, times)
    return cycles


def sram_bytes(
    call: CallRun, tasks: np.ndarray, start: np.ndarray, end: np.ndarray
) -> list[tuple[int, int]]:
    """Follow the bytes of SRAM in use through a call.

    Args:
        call: of a run.
        tasks: its tasks.
        start: of each task.
        end: of each task.

    Returns:
        (cycle, bytes from then on), at every change.
    """
    held = tasks[:, TASK["held"]]
    holders = np.flatnonzero(held > 0)
    plan = call.plan
    rings = plan.weight_ring_bytes + plan.activation_ring_bytes + plan.out_ring_bytes
    live = np.minimum(call.table.live[:, plan.kept_classes], call.sram_bytes - rings)
    steps = np.diff(live, prepend=0)
    at = np.concatenate([start[holders], end[tasks[holders, TASK["user"]]], call.times[:, 0]])
    by = np.concatenate([held[holders], -held[holders], steps])
    order = np.lexsort((by, at))  # what is freed at a cycle can be taken in the same cycle
    used = np.cumsum(by[order])
    last = np.append(np.diff(at[order]) > 0, True)
    return list(zip(at[order][last].tolist(), used[last].tolist(), strict=True))
