"""Layers that repeat: a call of many equal layers is timed on the first few, to the same numbers.

What a layer's tasks are depends on its rows alone, and when they run on the state in which they
find the machine: when each engine is free, and what fills the rings. Where this state, counted from
the end of the layer, is the same behind two layers, the next layer finds it too, and takes what the
last one took; so do all that follow, and what comes behind them. This is exact, and where it does
not hold the whole call is timed. Chapter: `docs/13_tiles.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from npu_sim.program.rows import CallTable

__all__ = ["N_TIMED", "Repeated", "find_repeated"]

N_TIMED = 5  # layers that stand for all: the first two may differ, the others must be equal
N_WORTH = 8  # layers from which this saves more than it costs
_ROWS = ("a_from", "b_from", "kv_after")  # fields of a row that name another row, or -1
# fields of a task that name an operation, or a task, or a time
_OPS, _TASKS = ("op", "written_op"), ("needs", "needs_too", "last_user", "room")
_CYCLES = ("start", "end")


@dataclass(frozen=True, eq=False)
class Repeated:
    """A call with fewer of its equal layers, and what it stands for."""

    short: CallTable
    index: np.ndarray  # [n_short] int64, the row of the call that each row is
    first: int  # row at which the layers begin
    n_rows: int  # of a layer
    n_more: int  # layers that are left out

    def marks(self, tasks: np.ndarray) -> np.ndarray:
        """Return where the last three layers that are timed begin, and where they end: [4]."""
        begin = self.first + self.n_rows * np.arange(N_TIMED - 3, N_TIMED + 1)
        return np.searchsorted(tasks["op"], begin)

    def steady_cycles(
        self, tasks: np.ndarray, marks: np.ndarray, rings: np.ndarray, capacities: Sequence[int]
    ) -> int | None:
        """Return the cycles of a layer that finds the machine as the layer before did, or None.

        Args:
            tasks: of the short call, with their times.
            marks: from `marks`.
            rings: [4, 6] int64, at each mark the bytes in use of each ring and its oldest holder.
            capacities: [3], bytes of each ring.

        Returns:
            Cycles from the begin of a layer to that of the next; None if they are not equal.
        """
        third, second, last = (tasks[a:b] for a, b in pairwise(marks))
        n = len(last)
        if not len(third) == len(second) == n > 0:
            return None
        cycles = int(last["start"][0] - second["start"][0])
        steady = set(last["engine"].tolist()) == set(tasks["engine"].tolist())
        ample = [_is_ample(tasks, marks, ring, capacities[ring]) for ring in range(3)]
        for ring in range(3):
            used, oldest = rings[2:, ring], rings[2:, 3 + ring]
            # what is held was taken by these layers, and as much of the same
            same = used[0] == used[1] and oldest[1] - oldest[0] == n and oldest[1] >= marks[1]
            steady = steady and (ample[ring] or same)
        waits = ~np.array([*ample, True])[last["ring"]]  # for room; a task without a ring for none
        for before, after in pairwise((third, second, last)):
            steady = steady and self._follows(before, after, cycles, waits)
        return cycles if steady else None

    def _follows(
        self, before: np.ndarray, after: np.ndarray, cycles: int, waits: np.ndarray
    ) -> bool:
        """Whether the tasks of a layer are those of the layer before, so much later."""
        by = {**dict.fromkeys(_OPS, self.n_rows), **dict.fromkeys(_TASKS, len(after)),
              **dict.fromkeys(_CYCLES, cycles)}  # fmt: skip
        names = before.dtype.names or ()
        one, other = (tasks.view(np.int64).reshape(len(tasks), -1) for tasks in (before, after))
        # a number below zero names nothing, and nothing starts or ends there
        moved = one + np.where(one < 0, 0, [by.get(name, 0) for name in names])
        equal = moved == other
        equal[:, names.index("room")] |= ~waits
        return bool(equal.all())

    def all_times(self, times: np.ndarray, cycles: int) -> np.ndarray:
        """Return what each operation of the whole call did, from the short one's."""
        end = self.first + N_TIMED * self.n_rows
        layer, behind = times[end - self.n_rows : end], times[end:].copy()
        more = np.tile(layer, self.n_more)
        later = np.repeat(np.arange(1, self.n_more + 1), self.n_rows) * cycles
        for name in ("begin", "end"):
            more[name] += later
            behind[name] += self.n_more * cycles
        return np.concatenate([times[:end], more, behind])


def _is_ample(tasks: np.ndarray, marks: np.ndarray, ring: int, capacity: int) -> bool:
    """Whether a ring is so large that nobody waits for it, however many layers there are.

    It holds three layers, and what comes behind them; so what is freed for a task was taken two
    layers before, and its last user had ended by then.
    """
    third = tasks[marks[0] : marks[1]]
    needed, begin = 0, np.iinfo(np.int64).max
    for times, part in ((3, tasks[marks[2] : marks[3]]), (1, tasks[marks[3] :])):
        users = part["ring"] == ring
        needed += times * int(part["held_bytes"][users].sum())
        begin = min(begin, int(part["start"][users].min(initial=begin)))
    freed = third["last_user"][third["ring"] == ring]
    return needed <= capacity and int(tasks["end"][freed].max(initial=0)) <= begin


def find_repeated(call: CallTable) -> Repeated | None:
    """Find layers that are equal, and leave all but a few out.

    Args:
        call: any.

    Returns:
        The short call, or None if it has too few equal layers, or something behind them reads what
        was there before them.
    """
    rows = call.rows.copy()
    at = np.arange(len(rows))
    for name in _ROWS:
        rows[name] = np.where(rows[name] < 0, -1, at - rows[name])  # how far back
    number: dict[bytes, int] = {}
    kinds = np.array([number.setdefault(row.tobytes(), len(number)) for row in rows])
    found = _longest(kinds.tobytes())
    if found is None:
        return None
    first, n_rows, n_layers = found
    kept, behind = first + N_TIMED * n_rows, first + n_layers * n_rows
    index = np.concatenate([at[:kept], at[behind:]])
    short = call.rows[index]
    for name in _ROWS:
        there = short[name][kept:]
        if np.any((there >= 0) & (there < behind - n_rows)):
            return None
        there[there >= 0] -= behind - kept
    table = CallTable(call=call.call, ops=(), rows=short, live=call.live[index])
    return Repeated(table, index, first, n_rows, n_layers - N_TIMED)


@lru_cache(maxsize=16)  # decode steps repeat alike
def _longest(numbers: bytes) -> tuple[int, int, int] | None:
    """Return (first, length, how often) of what repeats most among int64 numbers."""
    kinds = np.frombuffer(numbers, np.int64)
    n, best, covered = len(kinds), None, 0
    for length in range(1, n // N_WORTH + 1):
        differ = np.flatnonzero(kinds[length:] != kinds[:-length])
        ends = np.concatenate([[-1], differ, [n - length]])
        runs = np.diff(ends) - 1
        longest = int(runs.argmax())
        times = int(runs[longest]) // length + 1
        if times >= N_WORTH and times * length > covered:
            best, covered = (int(ends[longest]) + 1, length, times), times * length
    return best
