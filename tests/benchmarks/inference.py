"""Our fast executors beside other engines, interleaved in one process run.

`python -m tests.benchmarks.inference [--rounds N] [--alone] [--threads N]`, from the root of the
project, with the extra `[peers]`; --alone leaves the peers out. Random weights of the shape of
`mu-330m`, 64 tokens in, 32 out, batch 1. In each round every engine answers once, so other load
hits all of them; each begins when no other engine's threads spin any more. Figures are medians over
the rounds, and ratios compare medians; a machine that is shared has two speeds or more, and a round
may begin at one and end at the other. The first round fills caches and is not counted.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mu_ref.executors import compile_once
from mu_ref.presets import preset
from tests.benchmarks.engines import (
    SCHEMES,
    Clock,
    Ours,
    integer_model,
    random_weights,
    read_bandwidth,
)

N_INPUT, N_OUTPUT = 64, 32
Figures = dict[str, dict[str, float]]
RIVALS = {  # ours of the same numbers
    "PyTorch float32": "float32",
    "CTranslate2 float32": "float32",
    "CTranslate2 int8": "w8a8",
    "OpenVINO float32": "float32",
    "OpenVINO int8": "w8a8",
    "OpenVINO int4": "w4a16",
    "ONNX Runtime float32": "float32",
    "ONNX Runtime w8a8": "w8a8",
}


def engines(threads: int, folder: Path, *, alone: bool) -> list[Any]:
    model = preset("mu-330m")
    ours = [Ours(model, scheme, threads) for scheme in SCHEMES]
    if alone:
        return ours
    from tests.benchmarks.graphs import save_graphs
    from tests.benchmarks.peers import save_t5gemma

    if not (folder / "config.json").is_file():
        save_t5gemma(model, folder)
    if not (folder / "w8a8").is_dir():
        save_graphs(model, folder)
    return [*ours, *(peer(name, folder) for name in peers(threads))]


def peers(threads: int) -> list[str]:
    """Names: an engine, a type of numbers, and how many threads."""
    counts = sorted({1, threads})
    return [
        *(f"PyTorch float32 {n}" for n in counts),
        f"PyTorch bfloat16 {threads}",
        *(f"CTranslate2 {kind} {n}" for kind in ("float32", "int8") for n in counts),
        *(f"OpenVINO {kind} {n}" for kind in ("float32", "int8", "int4") for n in counts),
        *(f"ONNXRuntime {kind} {n}" for kind in ("float32", "w8a8") for n in counts),
    ]


def peer(name: str, folder: Path) -> Any:
    from tests.benchmarks.graphs import OnnxRuntime, OpenVino
    from tests.benchmarks.peers import CTranslate2, PyTorch

    engine, kind, n = name.split()
    if engine in ("PyTorch", "CTranslate2"):
        return (PyTorch if engine == "PyTorch" else CTranslate2)(folder, kind, int(n))
    graphs = OpenVino if engine == "OpenVINO" else OnnxRuntime
    return graphs(preset("mu-330m"), folder, kind, int(n))


def measured(some: list[Any], rounds: int, clock: Clock) -> Figures:
    """Let every engine answer in every round; return medians by name."""
    source = np.arange(100, 100 + N_INPUT)[None]
    found: dict[str, list[tuple[float, float, float]]] = {engine.name: [] for engine in some}
    order = np.random.default_rng(0)
    for number in range(rounds + 1):
        for i in order.permutation(len(some)):
            engine = some[i]
            wait_until_quiet()
            moments = engine.run(source, N_OUTPUT, clock)
            # not the median of steps: those found ahead may be told of two at a time, and a clock
            # of processor time moves on with the scheduler's ticks only
            step = (moments[-1] - moments[1]) / (len(moments) - 2)
            if number:
                found[engine.name].append((1000 * moments[0], 1000 * moments[1], 1 / step))
    names = ("encode ms", "first token ms", "tok/s")
    return {
        name: dict(zip(names, np.median(rows, axis=0).tolist(), strict=True))
        for name, rows in found.items()
    }


def wait_until_quiet() -> None:
    """Return when no thread of this process works: some engines' spin when they are done."""
    used, deadline = np.inf, time.perf_counter() + 1
    while used > 0.001 and time.perf_counter() < deadline:
        before = time.process_time()
        time.sleep(0.01)
        used = time.process_time() - before


def print_figures(title: str, figures: Figures, ours: str) -> None:
    """One row per engine; behind each figure its ratio, above 1 where `ours` is faster."""
    print(f"\n{title}; in brackets how much faster {ours} is")
    base = figures[ours]
    for name, row in figures.items():
        cells = [f"{name:<22}"]
        for what, value in row.items():
            ratio = base[what] / value if what == "tok/s" else value / base[what]
            cells.append(f"{what} {value:8.1f} ({ratio:5.2f})")
        print("  ".join(cells))


def print_rivals(figures: Figures) -> None:
    """How much faster we are than each engine at its better number of threads."""
    print("\nhow much faster we are, each engine at its better number of threads for each figure")
    for rival, scheme in RIVALS.items():
        ours = _times(figures[f"mu-ref {scheme}"])
        theirs = [_times(row) for name, row in figures.items() if name.startswith(rival)]
        cells = [f"{what} {min(t[what] for t in theirs) / ours[what]:.2f}" for what in ours]
        print(f"mu-ref {scheme:<8} / {rival:<22}  {'  '.join(cells)}")


def _times(row: dict[str, float]) -> dict[str, float]:
    encode, first, step = row["encode ms"], row["first token ms"], 1000 / row["tok/s"]
    whole = first + (N_OUTPUT - 1) * step
    return {"encode": encode, "first token": first, "whole request": whole, "decode": step}


def print_bandwidth(ours: list[Ours], figures: Figures, threads: int, clock: Clock) -> None:
    """Weights that a token reads, beside loops that only read as many bytes, again and again."""
    print(f"\nGB of weights a second, {threads} threads, and of reading as many bytes")
    for engine in ours:
        rate = engine.decode_bytes * figures[engine.name]["tok/s"]
        plain, streams = read_bandwidth(threads, clock, engine.decode_bytes)
        print(
            f"{engine.name:<22}  {engine.decode_bytes / 1e6:6.1f} MB a token, {rate / 1e9:5.1f}; "
            f"a plain sum {plain / 1e9:5.1f} ({rate / plain:.0%}), "
            f"four streams asked for ahead {streams / 1e9:5.1f} ({rate / streams:.0%})"
        )


def print_passes(ours: list[Ours], rounds: int, clock: Clock) -> None:
    """Medians over twice the rounds after two, in which passes are captured; see `replay.py`."""
    rows, source = (1, 4, 8, 16), np.arange(100, 100 + N_INPUT)[None]
    times: dict[str, list[list[float]]] = {engine.name: [] for engine in ours}
    for _ in range(2 * rounds + 2):
        for engine in ours:
            times[engine.name].append(engine.passes(source, rows, clock))
    print(f"\none decoder pass over {rows} rows: ms, as multiples of one row")
    for name, found in times.items():
        medians = 1000 * np.median(found[2:], axis=0)
        print(f"{name:<22}  " + "  ".join(f"{m:5.1f} ({m / medians[0]:.2f})" for m in medians))


def print_portable(threads: int) -> None:
    """Compare with a process that may not use the dot-product instructions."""
    print("\nw8a8 without the dot-product instructions (MU_REF_NO_VNNI=1), CPU time, interleaved")
    rates: dict[str, list[float]] = {"": [], "1": []}
    digests = set()
    for _ in range(3):
        for without, found in rates.items():
            env = os.environ | {"MU_REF_NO_VNNI": without}
            command = [sys.executable, "-m", __spec__.name, "--digest", "--threads", str(threads)]
            out = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
            rate, digest = out.stdout.split()
            found.append(float(rate))
            digests.add(digest)
    share = np.median(rates["1"]) / np.median(rates[""])
    print(f"{share:.0%} of the speed; the same integers: {len(digests) == 1}")


def digest(threads: int) -> None:
    """Print tokens per second of CPU time, and a digest of the logits of w8a8."""
    import hashlib

    from mu_ref.model import mu

    engine = Ours(preset("mu-330m"), "w8a8", threads)
    figures = measured([engine], 3, time.process_time)
    source, target = np.arange(100, 164)[None], np.arange(3, 12)[None]
    logits = mu.forward(engine.ops, engine.model, source, source > 0, target)
    integers = engine.ops.read(logits).tobytes()
    print(figures[engine.name]["tok/s"], hashlib.sha256(integers).hexdigest())


def memory(name: str, folder: Path) -> None:
    """Print MB of a process that does nothing but answer: with all it maps, and its own."""

    def mb(what: str) -> float:  # ru_maxrss would start at what the parent process had
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return float(status.split(f"{what}:")[1].split()[0]) / 1024

    size = 0.0
    if name in SCHEMES:
        from mu_ref.integers.store import load_integers
        from mu_ref.ops.fast.integers import FastIntegerOps

        file = folder / f"{name}.safetensors"
        compile_once(Console(stderr=True), "integer", file.stat().st_size)  # as the agent does
        integers = load_integers(file)
        size = sum(t.nbytes for t in integers.tensors.values()) / 2**20
        engine: Any = Ours(integers.model, name, 1, FastIntegerOps(integers, alone=True))
    else:
        engine = peer(name, folder)
    engine.run(np.arange(100, 164)[None], N_OUTPUT, time.perf_counter)
    peak, own = mb("VmHWM"), mb("RssAnon")
    ratio = f"{peak / size:.3f} x {size:.0f} MB of weights; " if size else ""
    print(f"{engine.name:<22}  peak {peak:6.0f} MB, {ratio}{own:.0f} MB private at the end")


def print_memory(folder: Path, *, alone: bool) -> None:
    """VmHWM, the most that was resident: weights, values, Python, code of libraries."""
    from mu_ref.integers.store import save_integers

    compile_once(Console(stderr=True), "integer")  # not in a process that is measured
    print("\npeak memory, each in a process of its own, 1 thread")
    names = ["w8a16", "w8a8"]
    for name in names:
        save_integers(folder / f"{name}.safetensors", integer_model(preset("mu-330m"), name))
    random_weights.cache_clear()
    for name in names if alone else [*names, *peers(1)]:
        command = [sys.executable, "-m", __spec__.name, "--memory", name, "--folder", str(folder)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        print(run.stdout if run.returncode == 0 else run.stderr, end="", flush=True)
        run.check_returncode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--digest", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keep the peers' models here")
    args = parser.parse_args()
    if args.digest:
        digest(args.threads)
    elif args.memory:
        memory(args.memory, args.folder)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folder = args.folder or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            compare(args, folder)


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Print every table."""
    print(f"load before the start {os.getloadavg()[0]:.2f}")
    some = engines(args.threads, folder, alone=args.alone)
    ours = [engine for engine in some if isinstance(engine, Ours)]
    load = _other_load()
    figures = measured(some, args.rounds, time.perf_counter)
    print(f"other load during the rounds: {_other_load(load):.2f} cores")
    for scheme in SCHEMES:
        print_figures(f"{args.threads} threads, wall time", figures, f"mu-ref {scheme}")
    if not args.alone:
        print_rivals(figures)
    print_bandwidth(ours, figures, args.threads, time.perf_counter)
    print_passes(ours, args.rounds, time.perf_counter)
    for engine in ours:
        engine.threads = 1
    single = [engine for engine in some if engine.threads == 1]
    figures = measured(single, args.rounds // 3 + 1, time.process_time)
    print_figures("1 thread, CPU time", figures, "mu-ref w8a8")
    del some, ours, single  # which other processes would not find room beside
    print_memory(folder, alone=args.alone)
    print_portable(1)


def _other_load(before: tuple[float, float, float] | None = None) -> Any:
    """Without `before` a mark; with it the cores that other processes used since."""
    fields = [float(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]]
    busy = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
    mine = resource.getrusage(resource.RUSAGE_SELF)
    mark = (busy, mine.ru_utime + mine.ru_stime, time.monotonic())
    if before is None:
        return mark
    used = [now - then for now, then in zip(mark, before, strict=True)]
    return max(0.0, used[0] - used[1]) / used[2]


if __name__ == "__main__":
    main()
