"""What each kernel takes, per element of its result, on one thread.

`python -m tests.benchmarks.kernels`, from the root of the project. CPU time, medians; arguments as
in `tests/twins.py` at a size of 768 (heads: 64). For products the rate of multiply-adds at 1, 8 and
64 rows of 768 x 3072, with weights that come from memory.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from twins import TWINS

from mu_ref.border.memory import aligned
from mu_ref.config import INT4_GROUP
from mu_ref.kernels import linear, packing

D, D_HEAD, D_OUT = 768, 64, 3072
CHUNK, COPIES = 64, 40  # outputs at a time; matrices, more than the caches hold


def seconds(call: Callable[[], Any], least: float = 0.02) -> float:
    """Median CPU time of a call, over at least 7 runs."""
    call()
    times: list[float] = []
    while len(times) < 7 or sum(times) < least:
        start = time.thread_time()
        call()
        times.append(time.thread_time() - start)
    return float(np.median(times))


def elements() -> None:
    for (module, name), make in TWINS.items():
        size = D_HEAD if name in ("mix", "scores") else D
        twin = make(np.random.default_rng(1), size)
        if twin.writes is None or module is linear:
            continue
        kernel = getattr(module, name)

        def repeated(kernel: Any = kernel, args: Any = twin.args) -> None:
            for _ in range(20):
                kernel(*args)

        call = seconds(repeated) / 20 / twin.expected.size
        short = f"{module.__name__.rpartition('.')[2]}.{name}"
        print(f"{short:<34} {1e9 * call:8.2f} ns an element")


def products(rows: int) -> None:
    rng = np.random.default_rng(0)
    bytes_ = aligned((max(rows, 64) * D,), np.uint8)
    bytes_[:] = rng.integers(0, 128, bytes_.size)
    reals, halves = bytes_.astype(np.float32), np.zeros(2 * packing.TOGETHER * D, np.int8)
    starts = np.zeros(2 * packing.TOGETHER * D // INT4_GROUP, np.int32)
    out, sums = np.zeros(max(rows, 8) * D_OUT, np.float32), np.zeros(64 * CHUNK, np.int32)
    scales = np.ones(D_OUT * D // INT4_GROUP, np.float32)

    def in_chunks(kernel: Any) -> Callable[[np.ndarray], None]:
        def call(w: np.ndarray) -> None:
            for first in range(0, D_OUT, CHUNK):
                kernel(bytes_, w, sums, rows, D, first, first + CHUNK, CHUNK)

        return call

    def floats(w: np.ndarray) -> None:
        linear.products_f32(reals, w, out, rows, D, D_OUT, 0, D_OUT)

    def nibbles(w: np.ndarray) -> None:
        groups = D // INT4_GROUP
        for _ in range(0, rows, packing.TOGETHER):
            linear.products_i4(halves, starts, w, scales, out, rows, groups, 0, D_OUT)

    calls = (
        ("products_f32", np.float32, 1, floats),
        ("products_i8", np.int8, 1, in_chunks(linear.products_i8)),
        ("products_i4", np.uint8, 2, nibbles),
    )
    for name, dtype, share, call in calls:
        weights = [aligned((D_OUT * D // share,), dtype) for _ in range(COPIES)]
        for w in weights:
            w[:] = rng.integers(0, 100, w.size)
        each = seconds(lambda call=call, weights=weights: [call(w) for w in weights], 0.2) / COPIES
        print(
            f"linear.{name:<17} {rows:3} rows  {rows * D * D_OUT / each / 1e9:7.1f} GMAC/s  "
            f"{weights[0].nbytes / each / 1e9:5.1f} GB/s of weights"
        )


if __name__ == "__main__":
    elements()
    for n_rows in (1, 8, 64):
        products(n_rows)
