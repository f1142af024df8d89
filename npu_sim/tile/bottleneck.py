"""Where the time of an operation went: to which engine, to waiting for memory, or to its start."""

import numpy as np

from npu_sim.tile.simulate import CallRun

__all__ = ["row_limits"]


def row_limits(call: CallRun) -> np.ndarray:
    """Divide the time of each operation: [n_rows, 4] cycles in the order of `LIMITS`.

    Args:
        call: of a run.

    Returns:
        Cycles of compute, vector, memory and overhead; the sum is the time of the call.
    """
    control, dma, matrix, vector, _ = call.times["busy_cycles"].T
    took = call.times["end"] - call.times["begin"]
    took[-1] += call.cycles - call.times["end"][-1]  # the last result is still written
    control = np.minimum(control, took)  # a start may be over before what is counted here
    compute = np.minimum(matrix, took - control)
    elements = np.minimum(vector, took - control - compute)
    waited = took - control - compute - elements > 0
    streams = waited & (dma > compute) & (dma > elements)
    compute, elements = np.where(streams, 0, compute), np.where(streams, 0, elements)
    memory = took - control - compute - elements
    return np.stack([compute, elements, memory, control], axis=1)
