"""The compiled twin of `engine.py`: tasks keep the order of their engine, so one pass is enough."""

import numpy as np

from npu_sim.tile.compiled import kernel
from npu_sim.tile.tasks import PARTS_STREAMED, Engine, Part

__all__ = ["NO_MARKS", "NO_RINGS", "TIMES", "find_room", "run"]

# What one operation did. It begins when all operations before it have computed; where operations
# stream it has computed by then what it could.
TIMES = np.dtype((np.record, [
    ("begin", np.int64), ("end", np.int64),  # cycles
    ("busy_cycles", np.int64, len(Engine)),
    ("dram_bytes", np.int64, 3),  # of weights, cache, activations
]))  # fmt: skip

NO_MARKS, NO_RINGS = np.zeros(0, np.int64), np.zeros((0, 6), np.int64)  # nothing to note


@kernel
def find_room(tasks, capacities, marks, rings):
    """Find the task that frees the memory which another fills, before the clock runs.

    Twin of `engine.Memory`, which sees it when it happens. Contract: exact. Memory is freed in the
    order in which it is taken, and tasks take it in the order of the list. Fills `room`; returns
    False if a task would wait for room that only a later one frees: then the plan does not work.
    Before the tasks `marks` [n] it notes in `rings` [n, 6] the bytes in use, and the first holders.
    """
    used, oldest = np.zeros(3, np.int64), np.zeros(3, np.int64)  # by ring: bytes, first holder
    mark = 0
    for at in range(len(tasks) + 1):
        if mark < len(marks) and at == marks[mark]:
            rings[mark, :3], rings[mark, 3:] = used, oldest
            mark += 1
        if at == len(tasks):
            break
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
def parts_of(tasks, n_ops):
    """Cycles of a part of each operation: a share of what its engines compute."""
    cycles = np.zeros(n_ops, np.int64)
    for task in tasks:
        if task.engine in (Engine.MATRIX, Engine.VECTOR):
            cycles[task.op] += task.cycles
    return (cycles + PARTS_STREAMED - 1) // PARTS_STREAMED


@kernel
def moved(task, writes_cache):
    """What a task moves: 0 weights, 1 cache, 2 activations."""
    if task.part in (Part.WEIGHTS, Part.BESIDE):
        return 0
    return (
        1 if task.part == Part.CACHE or (task.part == Part.WRITE and writes_cache[task.op]) else 2
    )


@kernel
def room_end(tasks, ring, room, oldest):
    """When all holders of a ring up to the one that `room` frees have been freed."""
    latest = np.int64(0)
    while True:
        while tasks[oldest[ring]].ring != ring:
            oldest[ring] += 1
        last_user = tasks[oldest[ring]].last_user
        latest = max(latest, tasks[last_user].end)
        oldest[ring] += 1
        if last_user == room:
            return latest


@kernel
def run(tasks, writes_cache, streams, times):
    """Twin of `engine.run`. Contract: exact.

    Fills start and end of tasks [n_tasks] TASK and adds up in times [n_ops] TIMES, zeros at first,
    what each operation did; writes_cache [n_ops] says which write keys or values, `streams` whether
    operations begin on parts of those before them. Returns when the last task ends.
    """
    part_cycles = parts_of(tasks, len(times))
    free = np.zeros(5, np.int64)  # when each engine is
    begun, written = np.zeros(len(times), np.int64), np.zeros(len(times), np.int64)
    computed = np.int64(0)  # when the operations so far have computed
    oldest = np.zeros(3, np.int64)  # by ring: its first holder that has not been freed
    first_part = np.int64(0)  # when the operation so far has computed its first part
    for t in range(len(tasks)):
        task = tasks[t]
        engine, op = task.engine, times[task.op]
        at = free[engine]
        for other in (task.needs, task.needs_too, task.room):
            if other >= 0:
                at = max(at, tasks[other].end)
        if streams and task.room >= 0:  # engines that overlap may free later what is older
            at = max(at, room_end(tasks, task.ring, task.room, oldest))
        if engine == Engine.CONTROL:
            op.begin = computed if streams else max(at, computed)
            at = max(at, first_part if streams else computed)
            begun[task.op] = at + task.cycles
            first_part = begun[task.op] + part_cycles[task.op]
            if streams:  # its last part waits for the last one of the operation before
                computed += part_cycles[task.op]
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
        op.dram_bytes[moved(task, writes_cache)] += task.n_bytes
    return max(free.max(), computed)
