"""How fast the simulator is: `python -m tests.benchmarks.simulator`; prints one line per bar.

The array cell by cell against SCALE-Sim is `tests/benchmarks/systolic.py`; it runs from here too
if SCALESIM_PYTHON names a Python that has scalesim.
"""

import os
import time

from mu_ref.presets import preset
from npu_sim.hardware.chip import Npu
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision
from npu_sim.program.program import Program
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate_program
from npu_sim.whatif.sweep import evaluate_chunk
from tests.benchmarks import systolic

POINTS = 20_000
SWEEP = f"""
model = "mu-330m"
npu = "hexagon-x-elite"
[vary]
"npu.dma.bytes_per_s" = {{ log = [20, 200], n = {POINTS // 100}, unit = "GB/s" }}
"npu.per_op_overhead_cycles" = {{ range = [0, 2000], n = 10 }}
"workload.n_input" = {{ range = [64, 100], n = 10 }}
"""


def main() -> None:
    chip = npu("hexagon-x-elite")
    started = time.perf_counter()
    simulate_program(record_request(preset("tiny"), 4, 2, Precision()), chip)
    print(f"first use, compiling or reading compiled kernels: {seconds(started):.1f} s")
    whole, core = min(one_request(chip) for _ in range(5))
    print(
        f"tile: mu-330m, 64 in, 32 out, recorded and simulated in {whole:.2f} s, "
        f"{core:.2f} s of one core (bar: 2 s); load {os.getloadavg()[0]:.1f}"
    )
    program = record_request(preset("mu-330m"), 64, 32, Precision())
    core = min(one_roofline(program, chip) for _ in range(5))
    print(f"roofline: the same request priced alone in {core:.2f} s of one core")
    # as a worker of `npu-sim sweep` does it: recorded, checked, priced and written as CSV
    started = time.process_time()
    evaluate_chunk(SWEEP, 0, POINTS)
    rate = POINTS / (time.process_time() - started)
    print(f"roofline: {rate:,.0f} design points per second of one core (bar: 2,000)")
    if python := os.environ.get("SCALESIM_PYTHON"):
        systolic.main(python, 1)
    else:
        print("the array cell by cell: `python -m tests.benchmarks.systolic`, or SCALESIM_PYTHON")


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
    main()
