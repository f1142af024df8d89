"""The compiled twin of `engine.py`: tasks keep the order of their engine, so one pass is enough."""

import numpy as np

from npu_sim.tile.compiled import kernel
from npu_sim.tile.tasks import Engine, Part

__all__ = ["TIMES", "find_room", "run"]

# What one operation did. It begins when all operations before it have computed.
TIMES = np.dtype((np.record, [
    ("begin", np.int64), ("end", np.int64),  # cycles
    ("busy_cycles", np.int64, len(Engine)),
    ("dram_bytes", np.int64, 3),  # of weights, cache, activations
]))  # fmt: skip


@kernel
def find_room(tasks, capacities):
    """Find the task that frees the memory which another fills, before the clock runs.

    Twin of `engine.Memory`, which sees it when it happens. Contract: exact. Memory is freed in the
    order in which it is taken, and tasks take it in the order of the list. Fills `room`; returns
    False if a task would wait for room that only a later one frees: then the plan does not work.
    """
    used, oldest = np.zeros(3, np.int64), np.zeros(3, np.int64)  # by ring: bytes, first holder
    for at in range(len(tasks)):
        ring, held_bytes = tasks[at].ring, tasks[at].held_bytes
        if ring < 0:
            continue
        if held_bytes > capacities[ring]:
            return False
        while used[ring] + held_bytes > capacities[ring]:
            while tasks[oldest[ring]].ring != ring:
                oldest[ring] += 1
            holder = tasks[oldest[ring]]
            # its last user comes later, and may wait for this very task
            if oldest[ring] >= at or holder.last_user >= at:
                return False
            tasks[at].room = holder.last_user
            used[ring] -= holder.held_bytes
            oldest[ring] += 1
        used[ring] += held_bytes
    return True


@kernel
def run(tasks, writes_cache, times):
    """Twin of `engine.run`. Contract: exact.

    Fills start and end of tasks [n_tasks] TASK and adds up in times [n_ops] TIMES, zeros at first,
    what each operation did; writes_cache [n_ops] says which write keys or values. Returns when the
    last task ends.
    """
    free = np.zeros(5, np.int64)  # when each engine is
    begun, written = np.zeros(len(times), np.int64), np.zeros(len(times), np.int64)
    computed = np.int64(0)  # when the operations so far have computed
    for t in range(len(tasks)):
        task = tasks[t]
        engine, op = task.engine, times[task.op]
        at = free[engine]
        for other in (task.needs, task.needs_too, task.room):
            if other >= 0:
                at = max(at, tasks[other].end)
        if engine == Engine.CONTROL:
            at = op.begin = max(at, computed)
            begun[task.op] = at + task.cycles
        elif engine in (Engine.MATRIX, Engine.VECTOR):
            at = max(at, begun[task.op])
        if task.written_op >= 0:
            at = max(at, written[task.written_op])
        end = at + task.cycles
        task.start, task.end, free[engine] = at, end, end
        if engine not in (Engine.DMA_IN, Engine.DMA_OUT):
            computed = max(computed, end)
        if engine != Engine.DMA_IN:
            written[task.op] = max(written[task.op], end)
        op.end = computed
        op.busy_cycles[engine] += task.cycles
        if task.part in (Part.WEIGHTS, Part.BESIDE):
            op.dram_bytes[0] += task.n_bytes
        elif task.part == Part.CACHE or (task.part == Part.WRITE and writes_cache[task.op]):
            op.dram_bytes[1] += task.n_bytes
        else:
            op.dram_bytes[2] += task.n_bytes
    return free.max()
