"""Time our array, cell by cell with values, against SCALE-Sim 3.0.0 on the same products.

`python -m tests.benchmarks.systolic [ROUNDS]`, from the root of the project. SCALE-Sim needs
numpy < 2.4 and so its own environment: SCALESIM_PYTHON names a Python that has it; without it one
is made in a temporary folder (`pip install scalesim==3.0.0`, which needs a network).

Each round runs every product with both in turn. Ours is timed from operands to product, after
compiling; SCALE-Sim without its imports, once as its command line runs it, which writes traces of
all addresses, and once with them off, which only its Python interface can do.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import numpy as np

from npu_sim.systolic.array import run_systolic
from npu_sim.systolic.closed_form import DATAFLOWS, SystolicArray, systolic_counts

PRODUCTS = (  # m, n, k, rows and columns of the array
    (256, 128, 256, 8), (256, 128, 256, 32), (256, 128, 256, 128), (1, 1024, 1024, 128),
)  # fmt: skip
PEER = Path(__file__).with_name("scalesim_peer.py")
BAR = 100


def environment(folder: Path) -> str:
    """Make an environment with SCALE-Sim; return its Python."""
    venv.create(folder, with_pip=True)
    python = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    install = [python, "-m", "pip", "install", "--quiet", "scalesim==3.0.0", "numpy<2.4"]
    subprocess.run(install, check=True, stdout=sys.stderr)
    return python


def peer(python: str, product: tuple[int, ...], dataflow: str, *flags: str) -> dict[str, float]:
    """Run SCALE-Sim once; return its report and its seconds."""
    m, n, k, side = product
    command = [python, str(PEER), *map(str, (m, n, k, side, side)), dataflow, *flags]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def ours(product: tuple[int, ...], dataflow: str) -> float:
    """Run our array once on random bytes; return its seconds."""
    m, n, k, side = product
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-128, 128, shape, np.int8) for shape in ((m, k), (k, n)))
    array = SystolicArray(rows=side, cols=side, dataflow=dataflow)
    start = time.perf_counter()
    run_systolic(a, b, array)
    return time.perf_counter() - start


def check_agreement(product: tuple[int, ...], dataflow: str, report: dict[str, float]) -> None:
    """Both must have counted the same, or their times say nothing."""
    m, n, k, side = product
    array = SystolicArray(rows=side, cols=side, dataflow=dataflow)
    counts = systolic_counts(m, n, k, array)
    for name, value in (
        ("Total Cycles", counts.scalesim_cycles),
        ("SRAM IFMAP Reads", counts.sram_ifmap_reads),
        ("SRAM Filter Reads", counts.sram_filter_reads),
        ("SRAM OFMAP Writes", counts.scalesim_ofmap_writes),
    ):
        assert report[name] == value, (product, dataflow, name, report[name], value)


def main(python: str, rounds: int) -> None:
    print(f"load {os.getloadavg()[0]:.2f}, {rounds} rounds, medians; one thread each")
    print(f"{'m n k':<15} {'array':<9} flow  {'ours ms':>8} {'SCALE-Sim s':>11} {'ratio':>6}"
          f" {'no traces s':>11} {'ratio':>6}")  # fmt: skip
    least = [float("inf"), float("inf")]
    for product in PRODUCTS:
        for dataflow in DATAFLOWS:
            ours(product, dataflow)  # compiles
            seconds: list[list[float]] = [[], [], []]
            for _ in range(rounds):
                for times, flags in zip(seconds[1:], (["traces"], []), strict=True):
                    report = peer(python, product, dataflow, *flags)
                    times.append(report["seconds"])
                    seconds[0].append(ours(product, dataflow))
            check_agreement(product, dataflow, report)
            mine, *theirs = map(statistics.median, seconds)
            ratios = [their / mine for their in theirs]
            least = [min(pair) for pair in zip(least, ratios, strict=True)]
            m, n, k, side = product
            print(
                f"{f'{m} {n} {k}':<15} {f'{side} x {side}':<9} {dataflow:<5} {1000 * mine:>8.2f} "
                f"{theirs[0]:>11.2f} {ratios[0]:>6.0f} {theirs[1]:>11.2f} {ratios[1]:>6.0f}",
                flush=True,
            )
    verdict = "met" if least[0] >= BAR else "missed"
    print(f"least ratio {least[0]:.0f} (without traces {least[1]:.0f}); bar {BAR}: {verdict}")


if __name__ == "__main__":
    n_rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as scratch:
        main(os.environ.get("SCALESIM_PYTHON") or environment(Path(scratch)), n_rounds)
