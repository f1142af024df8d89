"""How fast the simulator is: `python -m tests.benchmarks.simulator`; prints one line per bar.

The cycle-by-cycle array against SCALE-Sim is in `tests/benchmarks/systolic.py`, if it is there.
"""

import importlib
import time
from pathlib import Path

from mu_ref.presets import preset
from npu_sim.hardware import npu
from npu_sim.program import Precision
from npu_sim.record import record_request
from npu_sim.report import simulate
from npu_sim.roofline_sheet import RooflineSheet
from npu_sim.table import program_table

POINTS = 4000


def main() -> None:
    chip = npu("hexagon-x-elite")
    started = time.perf_counter()
    simulate(record_request(preset("tiny"), 4, 2, Precision()), chip)
    print(f"first use, compiling or reading compiled kernels: {seconds(started):.1f} s")
    whole = min(one_request(chip) for _ in range(3))
    print(f"tile: mu-330m, 64 in, 32 out, recorded and simulated in {whole:.2f} s (bar: 2 s)")
    sheet = RooflineSheet(program_table(record_request(preset("mu-330m"), 64, 32, Precision())))
    started = time.process_time()
    for i in range(POINTS):
        sheet.latency_ms(chip.with_value("dma.bytes_per_s", 40_000_000_000 + i))
    rate = POINTS / (time.process_time() - started)
    print(f"roofline: {rate:,.0f} design points per second of one core (bar: 2,000)")
    if Path(__file__).with_name("systolic.py").is_file():
        importlib.import_module("tests.benchmarks.systolic").main()


def one_request(chip: object) -> float:
    started = time.perf_counter()
    program = record_request(preset("mu-330m"), 64, 32, Precision())
    simulate(program, chip)
    return seconds(started)


def seconds(started: float) -> float:
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
