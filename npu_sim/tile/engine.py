r"""The clock: when every task starts and ends, in whole cycles.

$$\mathrm{start} = \max(\text{engine free}, \text{inputs there}, \text{room},
  \text{operation begun}, \text{earlier results written})$$                             (7.4)

Tasks of one engine keep their order, so one pass over the tasks is the whole event loop: nothing is
decided while time runs, the result is exact and the same on every machine. `run_by_events` is the
same machine for the reader: a heap of what happens next. Chapter: `docs/07_npu_tiles.md`.
"""

import heapq

import numpy as np

from npu_sim.tile.compiled import kernel
from npu_sim.tile.tasks import (
    BESIDE,
    CACHE,
    CONTROL,
    DMA_IN,
    DMA_OUT,
    MATRIX,
    TASK,
    VECTOR,
    WEIGHTS,
    WRITE,
)

__all__ = ["row_times", "run", "run_by_events"]

_ENGINE, _ROW, _CYCLES, _BYTES, _PART = (
    TASK[n] for n in ("engine", "row", "cycles", "bytes", "part")
)
_NEEDS, _NEEDS_TOO, _ROOM, _WRITTEN = (
    TASK[n] for n in ("needs", "needs_too", "room", "written_row")
)


@kernel
def run(tasks, n_rows, start, end):
    """Compute start and end of every task.

    Args:
        tasks: [n_tasks, n_fields] int64, from `expand`.
        n_rows: operations of the call.
        start: [n_tasks] int64, filled.
        end: [n_tasks] int64, filled.

    Returns:
        Cycles until the last task ends.
    """
    free = np.zeros(5, np.int64)  # by engine
    begun = np.zeros(n_rows, np.int64)
    written = np.zeros(n_rows, np.int64)
    computed = np.int64(0)  # when the operations so far have computed
    for t in range(len(tasks)):
        task = tasks[t]
        engine, row = task[_ENGINE], task[_ROW]
        at = free[engine]
        for field in (_NEEDS, _NEEDS_TOO, _ROOM):
            if task[field] >= 0:
                at = max(at, end[task[field]])
        if engine == CONTROL:
            at = max(at, computed)
        elif engine in (MATRIX, VECTOR):
            at = max(at, begun[row])
        if task[_WRITTEN] >= 0:
            at = max(at, written[task[_WRITTEN]])
        start[t], end[t] = at, at + task[_CYCLES]
        free[engine] = end[t]
        if engine == CONTROL:
            begun[row] = end[t]
        if engine not in (DMA_IN, DMA_OUT):
            computed = max(computed, end[t])
        if engine != DMA_IN:
            written[row] = max(written[row], end[t])
    return free.max()


def run_by_events(tasks: np.ndarray) -> list[tuple[int, int, int]]:
    """The same machine as a loop over events, in plain Python; slow, to be read and compared.

    Every engine has a queue. Whenever something ends, each idle engine looks at the head of its
    queue and starts it if all that it waits for has ended.

    Args:
        tasks: [n_tasks, n_fields] int64.

    Returns:
        (start, end, task) of every task, in the order of the tasks.
    """
    queues: list[list[int]] = [[], [], [], [], []]
    for t, task in enumerate(tasks):
        queues[task[_ENGINE]].append(t)
    for queue in queues:
        queue.reverse()  # the head is the last element
    end: dict[int, int] = {}
    times: dict[int, tuple[int, int, int]] = {}
    idle = [True] * 5
    running: list[tuple[int, int, int]] = []  # heap of (end, task, engine)
    now = 0
    while running or any(queues):
        started = True
        while started:
            started = False
            for engine, queue in enumerate(queues):
                if idle[engine] and queue and _may_start(queue[-1], tasks, end):
                    t = queue.pop()
                    times[t] = (now, now + int(tasks[t, _CYCLES]), t)
                    heapq.heappush(running, (times[t][1], t, engine))
                    idle[engine], started = False, True
        now, t, engine = heapq.heappop(running)
        end[t], idle[engine] = now, True
    return [times[t] for t in range(len(tasks))]


def _may_start(t: int, tasks: np.ndarray, end: dict[int, int]) -> bool:
    """Whether everything that a task waits for has ended."""
    task = tasks[t]
    if any(task[field] >= 0 and task[field] not in end for field in (_NEEDS, _NEEDS_TOO, _ROOM)):
        return False
    engine, row = task[_ENGINE], task[_ROW]
    if engine == CONTROL:  # all that the operations before have to compute
        before = (tasks[:t, _ENGINE] != DMA_IN) & (tasks[:t, _ENGINE] != DMA_OUT)
    elif engine in (MATRIX, VECTOR):  # the start of its operation
        before = (tasks[:t, _ENGINE] == CONTROL) & (tasks[:t, _ROW] == row)
    else:
        before = np.zeros(t, bool)
    if task[_WRITTEN] >= 0:
        written = (tasks[:t, _ROW] == task[_WRITTEN]) & (tasks[:t, _ENGINE] != DMA_IN)
        before = before | written
    return all(int(u) in end for u in np.flatnonzero(before))


@kernel
def row_times(tasks, start, end, writes_cache, times):
    """Add up what each operation did.

    Args:
        tasks: [n_tasks, n_fields] int64.
        start: [n_tasks] int64.
        end: [n_tasks] int64.
        writes_cache: [n_rows] bool.
        times: [n_rows, 10] int64, filled: begin (after the operations before it), end, then cycles
            of control, DMA in, matrix, vector, DMA out, and bytes of weights, cache, activations.
    """
    computed = np.int64(0)
    row = -1
    for t in range(len(tasks)):
        task = tasks[t]
        engine, part = task[_ENGINE], task[_PART]
        if engine == CONTROL:
            row = task[_ROW]
            times[row, :] = 0
            times[row, 0] = computed
        if engine not in (DMA_IN, DMA_OUT):
            computed = max(computed, end[t])
        times[row, 1] = computed
        times[row, 2 + engine] += task[_CYCLES]
        if part in (WEIGHTS, BESIDE):
            times[row, 7] += task[_BYTES]
        elif part == CACHE or (part == WRITE and writes_cache[row]):
            times[row, 8] += task[_BYTES]
        else:
            times[row, 9] += task[_BYTES]
