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
from mu_ref.kernels.products import linear, packing

D, D_HEAD, D_OUT = 768, 64, 3072
CHUNK, COPIES = 192, 40  # outputs at a time; matrices, more than the caches hold


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
    """Rates of products with weights of each kind, more of them than the caches hold."""
    rng = np.random.default_rng(0)
    halves, starts = np.zeros(2 * packing.TOGETHER * D, np.int8), np.zeros(96, np.int32)
    scales, groups = np.ones(D_OUT * D // INT4_GROUP, np.float32), D // INT4_GROUP

    def plain(w: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
        for first in range(0, D_OUT, CHUNK):
            linear.products(x, D, w, out, rows, D, first, first + CHUNK, CHUNK)

    def nibbles(w: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
        for _ in range(0, rows, packing.TOGETHER):
            linear.products_i4(halves, starts, w, scales, out, rows, groups, 0, D_OUT)

    kinds = (
        ("products, float32", np.float32, np.float32, np.float32, 1, plain),
        ("products, int8", np.uint8, np.int8, np.int32, 1, plain),
        ("products, int16", np.int16, np.int16, np.int32, 1, plain),
        ("products_i4", np.int8, np.uint8, np.float32, 2, nibbles),
    )
    for name, of_x, of_w, of_out, share, call in kinds:
        x, out = np.ones(max(rows, 8) * D, of_x), np.zeros(max(rows, 8) * D_OUT, of_out)
        weights = [aligned((D_OUT * D // share,), of_w) for _ in range(COPIES)]
        for w in weights:
            w[:] = rng.integers(0, 100, w.size)

        def all_of_them(
            call: Any = call, weights: Any = weights, x: Any = x, out: Any = out
        ) -> None:
            for w in weights:
                call(w, x, out)

        each = seconds(all_of_them, 0.2) / COPIES
        print(
            f"linear.{name:<18} {rows:3} rows  {rows * D * D_OUT / each / 1e9:7.1f} GMAC/s  "
            f"{weights[0].nbytes / each / 1e9:5.1f} GB/s of weights"
        )


if __name__ == "__main__":
    elements()
    for n_rows in (1, 8, 64):
        products(n_rows)
