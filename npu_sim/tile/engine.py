r"""The clock: when every task starts and ends, in whole cycles.

$$\mathrm{start} = \max(\text{engine free}, \text{inputs there}, \text{room},
  \text{operation begun}, \text{earlier results written})$$                             (7.4)

A loop over events: whenever a task ends, each idle engine looks at the head of its queue. Nothing
is decided while time runs, so one pass over the tasks gives the same times: that is the fast twin,
`engine_kernel.py`. Chapter: `docs/13_tiles.md`.

Where operations stream, one begins as soon as the one before has had the time to compute the first
of its parts; the engines keep their order, so two operations overlap where one multiplies and the
other works on elements.
"""

import heapq
from collections import Counter, deque
from collections.abc import Sequence

from npu_sim.errors import CapacityError
from npu_sim.tile.plan import Plan
from npu_sim.tile.tasks import PARTS_STREAMED, Engine, Ring, Task
from npu_sim.units import ceil_div

__all__ = ["Span", "run"]

Span = tuple[int, int]  # start and end, cycles
COMPUTE = (Engine.CONTROL, Engine.MATRIX, Engine.VECTOR)  # the others only move data


class Memory:
    """The bytes of one ring, freed in the order in which they were taken."""

    def __init__(self, capacity_bytes: int) -> None:
        self.free_bytes = capacity_bytes
        self.holders: deque[Task] = deque()  # oldest first

    def take(self, task: Task, ended: set[Task]) -> bool:
        """Take what a task holds if there is room, after freeing what nobody uses any more."""
        while self.holders and self.holders[0].last_user in ended:
            self.free_bytes += self.holders.popleft().held_bytes
        if task.held_bytes > self.free_bytes:
            return False
        self.free_bytes -= task.held_bytes
        self.holders.append(task)
        return True


class Machine:
    """Engines with a queue each, the rings that they fill, and what has ended so far."""

    def __init__(self, tasks: Sequence[Task], plan: Plan, *, streams: bool) -> None:
        self.queues = {engine: deque(t for t in tasks if t.engine == engine) for engine in Engine}
        self.idle = dict.fromkeys(Engine, True)
        self.rings = {ring: Memory(n) for ring, n in zip(Ring, plan.rings, strict=True)}
        self.ended: set[Task] = set()
        # tasks of each operation that have not ended: those that compute, and all but reads
        self.computing = Counter(t.op for t in tasks if t.engine in COMPUTE)
        self.unwritten = Counter(t.op for t in tasks if t.engine != Engine.DMA_IN)
        self.begun: set[int] = set()
        work: Counter[int] = Counter()
        for t in tasks:
            if t.engine in (Engine.MATRIX, Engine.VECTOR):
                work[t.op] += t.cycles
        # when the first part of the operation before is there, in the order of operations
        self.part_cycles = {op: ceil_div(n, PARTS_STREAMED) for op, n in work.items()}
        self.streams, self.first_part = streams, {0: 0}

    def start(self, now: int) -> list[Task]:
        """Start every task that is the first of its queue and can run; an engine runs one."""
        started = []
        for engine, queue in self.queues.items():
            if self.idle[engine] and queue and self._can_run(queue[0], now):
                self.idle[engine] = False
                started.append(queue.popleft())
        return started

    def _can_run(self, task: Task, now: int) -> bool:
        """Whether all that a task waits for has happened (7.4)."""
        # one operation after another: the one before has computed, and so have all before it
        if task.engine == Engine.CONTROL and self.streams:
            if now < self.first_part.get(task.op, now + 1):
                return False
        elif task.engine == Engine.CONTROL and self.computing[task.op - 1]:
            return False
        if task.engine in (Engine.MATRIX, Engine.VECTOR) and task.op not in self.begun:
            return False
        if task.written_op >= 0 and self.unwritten[task.written_op]:
            return False
        if not self.ended.issuperset(task.needs):
            return False
        # asked last, because to ask is to take
        return task.ring is None or self.rings[task.ring].take(task, self.ended)

    def end(self, task: Task, now: int) -> int:
        """Note that a task has ended; return when something may start that nothing else says."""
        self.idle[task.engine] = True
        self.ended.add(task)
        if task.engine == Engine.CONTROL:
            self.begun.add(task.op)
        if task.engine in COMPUTE:
            self.computing[task.op] -= 1
        if task.engine != Engine.DMA_IN:
            self.unwritten[task.op] -= 1
        if task.engine == Engine.CONTROL:
            self.first_part[task.op + 1] = now + self.part_cycles.get(task.op, 0)
            return self.first_part[task.op + 1]
        return now


def run(tasks: Sequence[Task], plan: Plan, *, streams: bool = False) -> list[Span]:
    """Run the tasks of a call.

    Args:
        tasks: from `schedule`.
        plan: the bytes of each ring.
        streams: operations begin on parts of those before them.

    Returns:
        (start, end) of each task.

    Raises:
        CapacityError: a task waits for memory that nobody frees.
    """
    machine, spans = Machine(tasks, plan, streams=streams), dict[Task, Span]()
    # heap of (end, place in the order of starts, task); without a task something may start
    running: list[tuple[int, int, Task | None]] = []
    now = 0  # cycles
    while len(machine.ended) < len(tasks):
        while started := machine.start(now):  # again, for a task of no cycles may free others
            for task in started:
                spans[task] = now, now + task.cycles
                heapq.heappush(running, (now + task.cycles, len(spans), task))
        if not running:
            raise CapacityError("a task waits for SRAM that only a later one frees")
        now, _, ended = heapq.heappop(running)
        if ended is not None and (later := machine.end(ended, now)) > now:
            heapq.heappush(running, (later, -len(machine.ended), None))
    return [spans[task] for task in tasks]
