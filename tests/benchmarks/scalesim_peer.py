"""Run SCALE-Sim 3.0.0 once; executed by a Python that has it, for `tests.benchmarks.systolic`.

`python scalesim_peer.py M N K ROWS COLS DATAFLOW [traces]` prints JSON: what it reports, and the
seconds of the simulation alone, without imports. With `traces` it also writes its traces, as its
command line always does (it reads the flag -s and does not use it).
"""

import contextlib
import csv
import io
import json
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """
[general]
run_name = peer
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {cols}
IfmapSramSzkB = 1024
FilterSramSzkB = 1024
OfmapSramSzkB = 1024
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = {dataflow}
Bandwidth = 10
ReadRequestBuffer = 64
WriteRequestBuffer = 64
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
SparseRep = ellpack_block
OptimizedMapping = false
BlockSize = 8
RandomNumberGeneratorSeed = 40
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""
LAYOUT = "Layer name,{}\ngemm,{}\n".format("x," * 20, "1," * 20)


def simulate(
    m: int, n: int, k: int, rows: int, cols: int, dataflow: str, traces: bool
) -> dict[str, float]:
    """Return SCALE-Sim's numbers for one product, and the seconds it took."""
    from scalesim.scale_sim import scalesim

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = CONFIG.format(rows=rows, cols=cols, dataflow=dataflow)
        files = {
            "config.cfg": config,
            "topology.csv": f"Layer,M,N,K,\ngemm,{m},{n},{k},\n",
            "layout.csv": LAYOUT,
        }
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run = scalesim(
                save_disk_space=not traces, verbose=False, config=str(folder / "config.cfg"),
                topology=str(folder / "topology.csv"), layout=str(folder / "layout.csv"),
                input_type_gemm=True,
            )  # fmt: skip
            start = time.perf_counter()
            run.run_scale(top_path=name)
            elapsed = time.perf_counter() - start
        numbers: dict[str, float] = {"seconds": elapsed}
        for report in folder.rglob("*.csv"):
            if report.parent != folder:
                with report.open(encoding="utf-8") as file:
                    header, values = list(csv.reader(file))[:2]
                numbers |= {
                    key.strip(): float(value)
                    for key, value in zip(header, values, strict=False)
                    if key.strip() and value.strip() and key.strip() != "LayerName"
                }
    return numbers


if __name__ == "__main__":
    print(json.dumps(simulate(*map(int, sys.argv[1:6]), sys.argv[6], "traces" in sys.argv)))
