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
from npu_sim.program.request import record_request
from npu_sim.report.fidelity import simulate
from npu_sim.roofline.columns import RooflineSheet
from npu_sim.tile.rows import program_table
from tests.benchmarks import systolic

POINTS = 4000


def main() -> None:
    chip = npu("hexagon-x-elite")
    started = time.perf_counter()
    simulate(record_request(preset("tiny"), 4, 2, Precision()), chip)
    print(f"first use, compiling or reading compiled kernels: {seconds(started):.1f} s")
    whole, core = min(one_request(chip) for _ in range(5))
    print(
        f"tile: mu-330m, 64 in, 32 out, recorded and simulated in {whole:.2f} s, "
        f"{core:.2f} s of one core (bar: 2 s); load {os.getloadavg()[0]:.1f}"
    )
    sheet = RooflineSheet(program_table(record_request(preset("mu-330m"), 64, 32, Precision())))
    started = time.process_time()
    for i in range(POINTS):
        sheet.latency_ms(chip.with_value("dma.bytes_per_s", 40_000_000_000 + i))
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
    simulate(program, chip)
    return seconds(started), time.process_time() - core


def seconds(started: float) -> float:
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
