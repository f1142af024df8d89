"""The `tile` fidelity: pieces of every operation on engines that wait for each other.

`simulate_tiles` divides SRAM for every call (`plan.py`), writes its tasks (`schedule.py`), runs
the clock (`engine.py`) and keeps the fastest plan; both through their fast twins. Chapter:
`docs/13_tiles.md`.
"""

from dataclasses import dataclass, replace

import numpy as np

from npu_sim.errors import HardwareError
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.fits import check_capacity, check_pace, check_supported
from npu_sim.program.rows import CallTable, ProgramTable
from npu_sim.tile.engine_kernel import NO_MARKS, NO_RINGS, TIMES, find_room, run
from npu_sim.tile.layers.repeated import Repeated, find_repeated
from npu_sim.tile.least import least_cycles, least_tasks
from npu_sim.tile.plan import Pins, Plan, check_sram, pin_choices, plans
from npu_sim.tile.schedule_kernel import schedule
from npu_sim.tile.tasks import TASK, Engine
from npu_sim.tile.tiling import chip_numbers, vector_cycles

__all__ = ["CallRun", "TileRun", "call_tasks", "simulate_tiles"]

FIRST_TASKS = 1 << 14
MOST_TASKS = 1 << 28  # over all calls and plans: about half a minute
MOST_TASKS_AT_ONCE = 1 << 20  # of one plan: a fifth of a gigabyte

Timed = tuple[int, np.ndarray]  # when the last task ends; [n_rows] TIMES


@dataclass(frozen=True, eq=False)
class CallRun:
    """One call at its fastest plan."""

    table: CallTable
    plan: Plan
    cycles: int  # until its last task ends; the overhead of the call comes on top
    overhead_cycles: int
    times: np.ndarray  # [n_rows] TIMES

    @property
    def sram_bytes(self) -> int:
        """Bytes of SRAM that the plan divides up; the weight ring counts what it could use."""
        return sum(self.plan.rings) + self.plan.kept_bytes


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
    def cost(self) -> tuple[int, int]:
        """Cycles, then bytes that move: of equally fast requests the one that reads least."""
        return self.cycles, sum(int(call.times["dram_bytes"].sum()) for call in self.calls)

    @property
    def engine_cycles(self) -> dict[str, int]:
        """Cycles that each engine is busy; "dma" is the port, reads and writes."""
        total = sum(call.times["busy_cycles"].sum(axis=0) for call in self.calls)
        # what is written takes its time on the port for reads too
        engines = {"dma": Engine.DMA_IN, "matrix": Engine.MATRIX, "vector": Engine.VECTOR}
        return {name: int(total[engine]) for name, engine in engines.items()}

    @property
    def peak_sram_bytes(self) -> int:
        """Most bytes of SRAM that are spoken for at once: activations, rings, what is pinned."""
        return max(call.sram_bytes for call in self.calls) + sum(self.pins)


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
        HardwareError: a pace or pieces with which the run would not end.
    """
    check_supported(table.program, npu)
    check_capacity(table.program, npu)
    check_pace(table.program, npu)
    bench, runtime = Bench(npu), table.program.runtime
    best: TileRun | None = None
    stuck: CallTable | None = None
    for pins in pin_choices(table, npu):
        runs = []
        done: dict[int, CallRun | None] = {}  # by identity of a call that repeats
        for call in table.calls:
            if id(call) not in done:
                done[id(call)] = bench.fastest(call, pins)
            found = done[id(call)]
            if found is None:
                stuck = stuck or call
                break
            overhead = npu.call_overhead_cycles(runtime, call.call.n_positions)
            runs.append(replace(found, overhead_cycles=overhead))
        else:
            request = TileRun(table=table, npu=npu, pins=pins, calls=tuple(runs))
            if best is None or request.cost < best.cost:
                best = request
    if best is None and stuck is not None:  # not even where nothing is pinned, which is tried first
        check_sram(stuck, npu)
    assert best is not None
    return best


def call_tasks(call: CallRun, npu: Npu) -> np.ndarray:
    """Write the tasks of a call again, with their times, to be looked at: [n_tasks] TASK."""
    bench = Bench(npu)
    tasks = bench.scheduled(call.table, vector_cycles(call.table.rows, npu), call.plan)
    has_room = find_room(tasks, call.plan.rings, NO_MARKS, NO_RINGS)
    assert has_room
    bench.run(tasks, call.table)
    return tasks


class Bench:
    """Where plans are tried on one NPU; the memory for tasks is used again for each."""

    def __init__(self, npu: Npu) -> None:
        self.npu, self.chip = npu, chip_numbers(npu)
        self.tasks = np.empty(FIRST_TASKS, TASK)
        self.n_tasks = 0  # of all plans so far

    def fastest(self, call: CallTable, pins: Pins) -> CallRun | None:
        """Try all plans of a call; the first of the fastest wins.

        A plan of too many tasks is left out: it is an error only where no other works.
        """
        best: CallRun | None = None
        best_number = 0
        too_many: HardwareError | None = None
        work = vector_cycles(call.rows, self.npu)
        repeated = None if self.streams(call) else find_repeated(call)
        tried = [
            (least_cycles(call, work, plan, self.chip, streams=self.streams(call)), number, plan)
            for number, plan in enumerate(plans(call, self.npu, pins))
        ]
        # what may be fast is tried first: a plan that must be slower is not even written
        for bound, number, plan in sorted(tried):
            if best and (bound, number) >= (best.cycles, best_number):
                continue
            try:
                found = repeated and self.time_repeated(repeated, work, plan)
                found = found or self.time(call, work, plan)
            except HardwareError as error:
                # its frames would hold it, and this bench with all tasks, in a circle
                too_many = error.with_traceback(None)
                continue
            if found is None:
                continue
            cycles, times = found
            if best is None or (cycles, number) < (best.cycles, best_number):
                best_number = number
                best = CallRun(table=call, plan=plan, cycles=cycles, overhead_cycles=0, times=times)
        if best is None and too_many is not None:
            raise too_many
        return best

    def time(self, call: CallTable, work: np.ndarray, plan: Plan) -> Timed | None:
        """When the last task ends, and what each operation did; None if a piece has no room."""
        tasks = self.scheduled(call, work, plan)
        has_room = find_room(tasks, plan.rings, NO_MARKS, NO_RINGS)
        return self.run(tasks, call) if has_room else None

    def time_repeated(self, found: Repeated, work: np.ndarray, plan: Plan) -> Timed | None:
        """The same from a few of equal layers; None also where these are not steady."""
        tasks = self.scheduled(found.short, work[found.index], plan)
        marks = found.marks(tasks)
        left_out = found.n_more * int(marks[3] - marks[2])
        self._check_tasks(len(tasks) + left_out)  # the same requests are refused
        rings = np.zeros((len(marks), 6), np.int64)
        if not find_room(tasks, plan.rings, marks, rings):
            return None
        cycles, times = self.run(tasks, found.short)
        layer = found.steady_cycles(tasks, marks, rings, plan.rings)
        if layer is None:
            return None
        self.n_tasks += left_out
        return cycles + found.n_more * layer, found.all_times(times, layer)

    def scheduled(self, call: CallTable, work: np.ndarray, plan: Plan) -> np.ndarray:
        """The tasks of a plan."""
        # at least so many, known without counting each
        n_least = least_tasks(call, plan, self.chip)
        self._check_tasks(n_least)
        if n_least > len(self.tasks):
            self.tasks = np.empty(n_least * 5 // 4, TASK)
        while (n := schedule(call.rows, work, plan, self.chip, self.tasks)) > len(self.tasks):
            self._check_tasks(n)
            self.tasks = np.empty(n * 5 // 4, TASK)
        self.n_tasks += n
        self._check_tasks(n)
        return self.tasks[:n]

    def _check_tasks(self, n: int) -> None:
        if n > MOST_TASKS_AT_ONCE or self.n_tasks > MOST_TASKS:
            raise HardwareError(
                f"dma.transfer_bytes and sram.capacity_bytes of {self.npu.name} must cut a call "
                f"into at most {MOST_TASKS_AT_ONCE:,} pieces and a request into {MOST_TASKS:,}, "
                f"got {max(n, self.n_tasks):,}; take larger ones or a shorter request"
            )

    def run(self, tasks: np.ndarray, call: CallTable) -> Timed:
        """Run the clock on tasks that have room."""
        times = np.zeros(len(call.rows), TIMES)
        return run(tasks, call.rows["kv_written"] > 0, self.streams(call), times), times

    def streams(self, call: CallTable) -> bool:
        """Whether operations of a call begin on parts of those before them."""
        sram = self.npu.sram
        fused = sram.streams_encode and sram.fuses_operations
        return fused and call.call.phase == "encode"
