"""How fast the simulator is: `python -m tests.benchmarks.simulator`; prints one line per bar.

    python -m tests.benchmarks.simulator             all of it, some three minutes
    python -m tests.benchmarks.simulator tile        a long request on every preset
    python -m tests.benchmarks.simulator rate        points of a sweep on one core
    python -m tests.benchmarks.simulator sweeps      10^4 to 10^6 points, on processes and on Dask

Memory is the most that a process had, and every figure of memory comes from a process of its own.
The array cell by cell against SCALE-Sim is `tests/benchmarks/systolic.py`; it runs from here too
if SCALESIM_PYTHON names a Python that has scalesim.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mu_ref.presets import preset
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.presets import NPUS, npu
from npu_sim.program.precision import Precision
from npu_sim.program.program import Program
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate_program
from npu_sim.whatif.sweep import dask_executor, evaluate_chunk, local_executor, run_sweep
from npu_sim.whatif.varied.sweep_toml import spec_from

POINTS = 20_000
SIZES = (10_000, 100_000, 1_000_000)
SWEEP = """
model = "mu-330m"
npu = "hexagon-x-elite"
[vary]
"npu.dma.bytes_per_s" = {{ log = [20, 200], n = {}, unit = "GB/s" }}
"npu.per_op_overhead_cycles" = {{ range = [0, 2000], n = 10 }}
"workload.n_input" = {{ range = [64, 100], n = 10 }}
"""
NARROW = {"ethos-u85": Precision(activation_bits=8, kv_bits=8)}  # has no 16 x 16 bits
LONG = (1024, 32)  # tokens in, tokens out


def main(part: str) -> None:
    chip = npu("hexagon-x-elite")
    started = time.perf_counter()
    simulate_program(record_request(preset("tiny"), 4, 2, Precision()), chip)
    print(f"first use, compiling or reading compiled kernels: {seconds(started):.1f} s")
    if part in ("all", "tile"):
        print_requests(chip)
        print_presets()
    if part in ("all", "rate"):
        print_rate()
    if part in ("all", "sweeps"):
        print_sweeps()
    if part != "all":
        return
    if python := os.environ.get("SCALESIM_PYTHON"):
        from tests.benchmarks import systolic

        systolic.main(python, 1)
    else:
        print("the array cell by cell: `python -m tests.benchmarks.systolic`, or SCALESIM_PYTHON")


def print_requests(chip: Npu) -> None:
    whole, core = min(one_request(chip) for _ in range(5))
    print(
        f"tile: mu-330m, 64 in, 32 out, recorded and simulated in {whole:.2f} s, "
        f"{core:.2f} s of one core (bar: 2 s); load {os.getloadavg()[0]:.1f}"
    )
    program = record_request(preset("mu-330m"), 64, 32, Precision())
    core = min(one_roofline(program, chip) for _ in range(5))
    print(f"roofline: the same request priced alone in {core:.2f} s of one core")


def print_presets() -> None:
    """Each in a process of its own, Python's start included."""
    print(
        f"tile: mu-330m, {LONG[0]:,} in, {LONG[1]} out, each NPU in a process of its own "
        "(bars: 1 s, 300 MB)"
    )
    found = []
    for name in NPUS:
        started = time.perf_counter()
        core, peak = own_process("--tile", name)
        found.append((seconds(started), core, peak))
        print(f"  {name:<26} {found[-1][0]:5.2f} s, {core:5.2f} s of one core, {peak:4.0f} MB")
    most = np.max(found, axis=0)
    print(f"  the most: {most[0]:.2f} s, {most[1]:.2f} s of one core, {most[2]:.0f} MB")


def one_preset(name: str) -> None:
    """Print seconds of one core of this process, and its peak."""
    program = record_request(preset("mu-330m"), *LONG, NARROW.get(name, Precision()))
    simulate_program(program, npu(name))
    print(time.process_time(), peak_mb(resource.RUSAGE_SELF))


def print_rate() -> None:
    """As a worker of `npu-sim sweep` does it: recorded, checked, priced and written as CSV."""
    rates = []
    for _ in range(5):
        started = time.process_time()
        evaluate_chunk(SWEEP.format(POINTS // 100), 0, POINTS)
        rates.append(POINTS / (time.process_time() - started))
    print(
        f"roofline: {rates[0]:,.0f} design points per second of one core in the first chunk, "
        f"{np.median(rates[1:]):,.0f} in later ones (bar: 30,000)"
    )


def print_sweeps() -> None:
    print("sweeps, written to a file: points, seconds, microseconds a point; MB of parent, worker")
    for kind in ("processes", "dask"):
        found = []
        for n in SIZES:
            took, parent, worker = own_process("--sweep", kind, str(n))
            found.append(took)
            print(
                f"  {kind:<10} {n:>9,} {took:7.1f} s {1e6 * took / n:6.1f} us"
                f"   {parent:5.0f} MB {worker:5.0f} MB"
            )
        exponent = np.log(found[2] / found[1]) / np.log(SIZES[2] / SIZES[1])
        print(f"  {kind:<10} from 10^5 to 10^6 the cost grows as points^{exponent:.2f}")


def one_sweep(kind: str, n: int) -> None:
    """Print seconds of a sweep, workers started before, and peaks of this process and of one."""
    n_workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "sweep.csv"

        def run(executor: object) -> float:
            run_sweep(spec_from(SWEEP.format(2)), out, executor)  # type: ignore[arg-type]
            started = time.perf_counter()
            run_sweep(spec_from(SWEEP.format(n // 100)), out, executor)  # type: ignore[arg-type]
            return seconds(started)

        took = on_processes(n_workers, run) if kind == "processes" else on_dask(n_workers, run)
    print(took, peak_mb(resource.RUSAGE_SELF), peak_mb(resource.RUSAGE_CHILDREN))


def on_processes(n_workers: int, run: Callable[[object], float]) -> float:
    with local_executor(n_workers) as executor:
        return run(executor)


def on_dask(n_workers: int, run: Callable[[object], float]) -> float:
    """On a cluster of this machine, as `npu-sim sweep --dask` is given its address."""
    from distributed import LocalCluster

    with (
        LocalCluster(
            n_workers=n_workers, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        dask_executor(cluster.scheduler_address) as executor,
    ):
        return run(executor)


def own_process(*args: str) -> tuple[float, ...]:
    """Return the numbers that this module prints in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, *args]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return tuple(map(float, run.stdout.split()))


def peak_mb(who: int) -> float:
    """The most memory that a process, or the largest of its children, had."""
    if who == resource.RUSAGE_SELF:  # ru_maxrss would begin at what the parent had
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return float(status.split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(who).ru_maxrss / 1024


def one_request(chip: Npu) -> tuple[float, float]:
    """Seconds of the clock, and of one core."""
    started, core = time.perf_counter(), time.process_time()
    program = record_request(preset("mu-330m"), 64, 32, Precision())
    simulate_program(program, chip)
    return seconds(started), time.process_time() - core


def one_roofline(program: Program, chip: Npu) -> float:
    """Seconds of one core."""
    core = time.process_time()
    simulate_program(program, chip, fidelity="roofline")
    return time.process_time() - core


def seconds(started: float) -> float:
    return time.perf_counter() - started


if __name__ == "__main__":
    if sys.argv[1:2] == ["--tile"]:
        one_preset(sys.argv[2])
    elif sys.argv[1:2] == ["--sweep"]:
        one_sweep(sys.argv[2], int(sys.argv[3]))
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else "all")
