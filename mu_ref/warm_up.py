"""Compile the kernels ahead of their first use, and say so while it lasts."""

import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from rich.console import Console

from mu_ref.model import mu
from mu_ref.ops import Ops
from mu_ref.presets import tiny
from mu_ref.weights import initial_weights

__all__ = ["compile_once"]


def compile_once(console: Console, kind: str) -> float:
    """Compile the kernels of one fast executor, unless this machine has them, and load them.

    Call it before weights are read: loading takes memory for a while.

    Args:
        console: where it is said that this takes a while.
        kind: "float" or "integer".

    Returns:
        Seconds that it took; 0 if nothing was to be done.
    """
    from mu_ref.kernels import compiled_folder, float_program, integer_program
    from mu_ref.kernels.threads import load_kernels

    done = compiled_folder() / f"{kind}.done"
    if done.is_file():
        load_kernels({"float": float_program, "integer": integer_program}[kind].run)
        return 0.0
    started = time.perf_counter()
    with console.status(f"compiling the {kind} kernels, once; this takes up to half a minute"):
        _run_tiny_model({"float": _float_ops, "integer": _integer_ops}[kind])
    with suppress(OSError):  # nowhere to keep compiled code: it is compiled again next time
        done.touch()
    return time.perf_counter() - started


def _run_tiny_model(executor: Callable[[], Ops]) -> None:
    ops, tokens = executor(), np.ones((1, 3), np.int64)
    scores = mu.forward(ops, tiny(), tokens, np.ones((1, 3), bool), tokens)
    ops.argmax(scores, "head.argmax")
    from mu_ref.kernels import trees

    trees.pack(tokens[:, None])
    logits = ops.read(scores)
    trees.select(np.zeros((1, 3), logits.dtype), logits, 1)


def _float_ops() -> Ops:
    from mu_ref.ops.fast import FastOps

    return FastOps(initial_weights(tiny(), np.random.default_rng(0)))


def _integer_ops() -> Ops:
    from mu_ref.ops.fast_integer import FastIntegerOps
    from mu_ref.quantize.calibrate import Options, calibrate
    from mu_ref.quantize.observe import observe

    config, weights = tiny(), initial_weights(tiny(), np.random.default_rng(0))
    tokens = np.array([1, 2, 3])
    ranges = observe(config, weights, [(tokens, tokens)])
    return FastIntegerOps(calibrate(config, weights, ranges, Options()))
