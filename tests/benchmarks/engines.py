"""Our fast executors with random weights of a preset's shape, for `tests.benchmarks.inference`.

An engine has a name, the bytes of the weights that one token reads, and `run`, which returns the
moments, in seconds, of the encoder's end and of every token. The clock is the caller's choice.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.memory import aligned
from mu_ref.config import ModelConfig
from mu_ref.generate import decode_step, encode_step, stream
from mu_ref.integers.store import IntegerModel
from mu_ref.kernels.threads import run_on
from mu_ref.model import mu
from mu_ref.model.cache import Cache
from mu_ref.ops.fast.deferred import DeferredOps
from mu_ref.ops.fast.floats import FastOps
from mu_ref.weights import Weights, initial_weights

__all__ = ["SCHEMES", "Clock", "Ours", "integer_model", "random_weights", "read_bandwidth"]

Clock = Callable[[], float]
PIECE = 2048  # numbers: four rows of 4 KB
SCHEMES = ("float32", "w8a16", "w8a8", "w4a16")


@cache
def random_weights(model: ModelConfig) -> Weights:
    return initial_weights(model, np.random.default_rng(0))


def _executor(model: ModelConfig, scheme: str) -> DeferredOps:
    if scheme == "float32":
        return FastOps(random_weights(model))
    if scheme == "w4a16":
        from mu_ref.integers.int4 import quantize_weights_int4

        return FastOps(quantize_weights_int4(model, random_weights(model)))
    from mu_ref.integers.store import load_integers, save_integers
    from mu_ref.ops.fast.integers import FastIntegerOps

    with tempfile.TemporaryDirectory() as folder:  # read from a file, as commands do
        file = Path(folder) / f"{scheme}.safetensors"
        save_integers(file, integer_model(model, scheme))
        return FastIntegerOps(load_integers(file), alone=True)


def integer_model(model: ModelConfig, scheme: str) -> IntegerModel:
    from mu_ref.quantize.calibrate import Options, calibrate
    from mu_ref.quantize.observe import observe

    ranges = observe(model, random_weights(model), [(np.arange(5, 21), np.arange(3, 11))])
    return calibrate(model, random_weights(model), ranges, Options(scheme=scheme))


def _decode_bytes(model: ModelConfig, scheme: str) -> int:
    """Bytes of matrices that a decoded token reads: the decoder's, but for K and V of the input."""
    from mu_ref.weights import weight_shapes

    layer, head = {"float32": (32, 32), "w4a16": (4.25, 8)}.get(scheme, (8, 8))
    bits = model.vocab_size * model.stacks["decoder"].d_model * head
    for name, shape in weight_shapes(model).items():
        read = name.startswith("decoder.") and "cross_attention.k" not in name
        if len(shape) == 2 and read and "cross_attention.v" not in name:
            bits += shape[0] * shape[1] * layer
    return int(bits) // 8


@dataclass(slots=True)
class Ours:
    """One of our executors."""

    model: ModelConfig
    scheme: str
    threads: int
    ops: DeferredOps = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.ops = self.ops or _executor(self.model, self.scheme)

    @property
    def name(self) -> str:
        return f"mu-ref {self.scheme}"

    @property
    def decode_bytes(self) -> int:
        return _decode_bytes(self.model, self.scheme)

    def run(self, source: np.ndarray, n_output: int, clock: Clock) -> list[float]:
        """Return the moments of the encoder's end and of every token."""
        self.ops.n_threads = self.threads
        start = clock()
        memory = encode_step(self.ops, self.model, source, np.ones(source.shape, bool))
        self.ops.flush()
        moments = [clock() - start]
        begin = np.array([[self.model.bos_id]]), np.ones((1, 1), bool)
        steps = stream(self.ops, self.model, memory, *begin, n_output, stop_at_eos=False)
        return moments + [clock() - start for _ in steps]

    def passes(self, source: np.ndarray, rows: tuple[int, ...], clock: Clock) -> list[float]:
        """Return the seconds of one decoder pass over each number of rows, behind eight tokens."""
        self.ops.n_threads = self.threads
        memory = encode_step(self.ops, self.model, source, np.ones(source.shape, bool))
        seconds = []
        for n in rows:
            cache = Cache.empty(1, self.model.stacks["decoder"].n_layers)
            for n_tokens in (8, n):
                tokens = np.arange(3, 3 + n_tokens)[None]
                start = clock()
                hidden = decode_step(self.ops, self.model, tokens, tokens > 0, memory, cache)
                self.ops.argmax(mu.logits(self.ops, self.model, hidden), "head.argmax")
            seconds.append(clock() - start)
        return seconds


def read_bandwidth(threads: int, clock: Clock, n_bytes: int) -> tuple[float, float]:
    """Return bytes per second of a plain sum over an array, and of four streams asked for ahead.

    Medians of 7 after one, so what fits in a cache is read from there, as in decoding.
    """
    numbers = aligned((n_bytes // (8 * PIECE * threads) * PIECE * threads,), np.int64)
    numbers[:] = 1
    rates = []
    for compiled in (_plain_sum(), _four_streams()):

        def read(counter: int, thread: int, threads: int, compiled: Any = compiled) -> None:
            share = len(numbers) // threads
            compiled(numbers[share * thread : share * (thread + 1)])

        times = []
        for _ in range(8):
            start = clock()
            run_on(threads, read)
            times.append(clock() - start)
        rates.append(numbers.nbytes / float(np.median(times[1:])))
    return rates[0], rates[1]


@cache
def _plain_sum() -> Callable[[np.ndarray], int]:
    import numba

    @numba.njit(nogil=True)
    def total(numbers):  # type: ignore[no-untyped-def]
        result = 0
        for number in numbers:
            result += number
        return result

    return total


@cache
def _four_streams() -> Callable[[np.ndarray], None]:
    import numba

    from mu_ref.kernels.vector.simd import add1, fetch4, spread1, store1, vector1, zeros1

    @numba.njit(nogil=True)
    def read(numbers):  # type: ignore[no-untyped-def]
        w, one, sums = numbers.view(np.int8), np.ones(4, np.uint8), np.empty(16, np.int32)
        a, b, c, e = zeros1(sums), zeros1(sums), zeros1(sums), zeros1(sums)
        for piece in range(0, len(w), 8 * PIECE):
            for k in range(piece, piece + 2 * PIECE, 64):
                fetch4(w, k + 8 * PIECE, 2 * PIECE)
                a = spread1(a, vector1(w, k), one, 0)
                b = spread1(b, vector1(w, k + 2 * PIECE), one, 0)
                c = spread1(c, vector1(w, k + 4 * PIECE), one, 0)
                e = spread1(e, vector1(w, k + 6 * PIECE), one, 0)
        store1(sums, 0, add1(add1(a, b), add1(c, e)))

    return read
