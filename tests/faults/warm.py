"""Load and compile everything once, so that forks begin with it."""

import contextlib
import gc
import io
import sys

__all__ = ["warm"]


def warm(*, fast: bool) -> None:
    """Compile the kernels if this machine does not have them, and load what commands load late.

    Args:
        fast: also those of mu-ref's fast executors, which takes a minute where they are not there.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot
    import numpy as np
    from rich.console import Console

    from faults.commands import app_of, commands
    from mu_ref.command_line import run_app
    from mu_ref.executors import compile_once
    from mu_ref.presets import preset
    from npu_sim.program.precision import Precision
    from npu_sim.report.fidelity import simulate
    from npu_sim.systolic.array import run_systolic
    from npu_sim.systolic.closed_form import SystolicArray

    matplotlib.pyplot.close(matplotlib.pyplot.figure())
    commands()
    for kind in ("float", "integer") if fast else ():
        compile_once(Console(file=sys.stderr), kind)
    simulate(preset("tiny"), "teaching-npu", 4, 2, Precision())
    for dataflow in ("os", "ws", "is"):
        ones = np.ones((2, 2), np.int8)
        run_systolic(ones, ones, SystolicArray(rows=2, cols=2, dataflow=dataflow))
    for words in (
        "mu-ref info tiny", "mu-ref info tiny --json", "mu-ref ask x", "npu-sim run",
        "npu-sim sensitivity tiny", "npu-sim solve --fidelity x --target-tok-s 1 --json",
    ):  # fmt: skip
        before = sys.argv
        sys.argv = words.split()
        with (
            contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()),
            contextlib.suppress(SystemExit),
        ):  # fmt: skip
            run_app(app_of(sys.argv[0]))
        sys.argv = before
    gc.collect()
    gc.freeze()  # a fork shares what is not looked at
