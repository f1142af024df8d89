"""Which bytes of SRAM are in use when, followed through the tasks of a call."""

import numpy as np

from npu_sim.tile.simulate import CallRun

__all__ = ["sram_bytes"]


def sram_bytes(call: CallRun, tasks: np.ndarray) -> list[tuple[int, int]]:
    """Follow the bytes of SRAM in use through a call.

    Args:
        call: of a run.
        tasks: its tasks, with their times.

    Returns:
        (cycle, bytes from then on), at every change.
    """
    holders = tasks[tasks["held_bytes"] > 0]
    taken, freed = holders["start"], tasks["end"][holders["last_user"]]
    live = np.minimum(call.table.live[:, call.plan.kept_classes], call.plan.kept_bytes)
    at = np.concatenate([taken, freed, call.times["begin"]])
    held = holders["held_bytes"]
    by = np.concatenate([held, -held, np.diff(live, prepend=0)])
    order = np.lexsort((by, at))  # what is freed at a cycle can be taken in the same cycle
    used = np.cumsum(by[order])
    last = np.append(np.diff(at[order]) > 0, True)
    return list(zip(at[order][last].tolist(), used[last].tolist(), strict=True))
