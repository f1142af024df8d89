"""Which executor computes: scheme, weight file and speed in, a model that is ready to run out.

Every command asks here; nothing else decides between NumPy and compiled kernels, or knows which
file format belongs to which arithmetic.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from mu_ref.border.files import DATA
from mu_ref.config import ModelConfig
from mu_ref.errors import InputError, check_choice
from mu_ref.model import mu
from mu_ref.ops import Ops
from mu_ref.ops.arithmetic import Arithmetic
from mu_ref.presets import tiny
from mu_ref.weights import Weights, initial_weights, load_weights

if TYPE_CHECKING:
    from mu_ref.integers.store import IntegerModel
    from mu_ref.redrafter.config import DrafterConfig

__all__ = [
    "EXECUTORS", "SCHEMES", "Loaded", "compile_once", "float_executor", "load_model",
    "shipped_drafter", "shipped_weights", "training_arithmetic",
]  # fmt: skip

SCHEMES = ("float32", "w8a16", "w8a8", "w4a16")
EXECUTORS = ("reference", "fast")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model, the executor that holds its weights, and the drafter whose weights it holds too."""

    model: ModelConfig
    ops: Ops
    drafter: "DrafterConfig | None" = None


def shipped_weights(scheme: str) -> Path:
    """Return the weights of mu-nano that ship for a scheme; w4a16 has none.

    Raises:
        InputError: the scheme is w4a16.
    """
    if scheme == "w4a16":
        raise InputError(
            "w4a16 must be given weights; `mu-ref quantize --scheme w4a16 --out FILE` makes "
            "them, --weights FILE reads them"
        )
    return DATA / f"mu-nano{_suffix(scheme)}.safetensors"


def shipped_drafter(scheme: str) -> Path:
    """Return the drafter that ships for a scheme; w4a16 has that of float32."""
    return DATA / f"mu-nano-drafter{_suffix(scheme)}.safetensors"


def _suffix(scheme: str) -> str:
    return f"-{scheme}" if scheme.startswith("w8") else ""


def load_model(
    weights: Path | None = None,
    scheme: str = "float32",
    executor: str = "reference",
    drafter: Path | None = None,
) -> Loaded:
    """Read a weight file and choose who computes with it.

        >>> import mu_ref
        >>> loaded = mu_ref.load_model(scheme="w8a16")
        >>> loaded.model.name, loaded.model.vocab_size, type(loaded.ops).__name__
        ('mu-nano', 1536, 'IntegerOps')

    Args:
        weights: a file written by `mu-ref train` or `mu-ref quantize`, or the folder of another
            project's checkpoint, in floats; the shipped mu-nano of the scheme by default.
        scheme: one of `SCHEMES`; must be that of the file.
        executor: one of `EXECUTORS`: NumPy, or compiled kernels that give the same answers.
        drafter: a file written by `mu-ref train-drafter` or `mu-ref quantize-drafter`, of the
            scheme too, in floats for w4a16; or the folder of one that Apple's code has saved.

    Returns:
        The model, ready to run.

    Raises:
        WeightsError: the file is not there, damaged or foreign.
        InputError: an unknown scheme or executor, or the file is of another scheme.
    """
    check_choice("scheme", scheme, SCHEMES)
    check_choice("executor", executor, EXECUTORS)
    path = shipped_weights(scheme) if weights is None else weights
    if executor == "fast" and path.exists():
        kind = "integer" if scheme.startswith("w8") else "float"
        compile_once(Console(stderr=True), kind, _size_of(path))
    # The scheme decides the format of the file, the executor what is made of it.
    if scheme == "float32":
        return _load_floats(path, executor, drafter)
    if scheme == "w4a16":
        return _load_int4(path, executor, drafter)
    return _load_integers(path, scheme, executor, drafter)


def _load_floats(path: Path, executor: str, drafter_file: Path | None) -> Loaded:
    if path.is_dir():
        from mu_ref.readers import read_checkpoint

        model, weights = read_checkpoint(path)
    else:
        model, weights = load_weights(path)
    drafter, own = _float_drafter(drafter_file, model)
    return Loaded(model, float_executor(weights | own, executor), drafter)


def _load_int4(path: Path, executor: str, drafter_file: Path | None) -> Loaded:
    from mu_ref.integers.int4 import dequantize_weights_int4
    from mu_ref.integers.int4_store import load_int4

    model, packed, group = load_int4(path)
    drafter, own = _float_drafter(drafter_file, model)
    if executor == "reference":  # int4 is a way to store floats, which the reference knows
        weights = dequantize_weights_int4(model, packed, group)
        return Loaded(model, float_executor(weights | own), drafter)
    from mu_ref.ops.fast.floats import FastOps

    return Loaded(model, FastOps({**packed, **own}, group), drafter)


def _load_integers(path: Path, scheme: str, executor: str, drafter_file: Path | None) -> Loaded:
    from mu_ref.integers.store import load_integers

    integers = load_integers(path)
    if integers.scheme != scheme:
        raise InputError(f"{path} must hold {scheme} weights, it holds {integers.scheme}")
    model, drafter = integers.model, None
    if drafter_file is not None:
        from mu_ref.redrafter.store import load_integer_drafter

        # One executor holds both: the drafter reads the model's states in the model's integers.
        found = load_integer_drafter(drafter_file, model)
        drafter, integers = found.drafter, found.joined(integers)
    return Loaded(model, integer_executor(integers, executor, alone=True), drafter)


def _float_drafter(path: Path | None, model: ModelConfig) -> "tuple[DrafterConfig | None, Weights]":
    """Read a float drafter, if one is given."""
    if path is None:
        return None, {}
    if path.is_dir():
        from mu_ref.readers.apple_redrafter import read_apple_folder

        return read_apple_folder(path, model)
    from mu_ref.redrafter.store import load_drafter

    return load_drafter(path, model)


def float_executor(
    weights: Weights, executor: str = "reference", dtype: type[np.floating] = np.float32
) -> Ops:
    """Return the executor of one of `EXECUTORS` for float weights.

    Args:
        weights: every array of the model, by site.
        executor: one of `EXECUTORS`.
        dtype: float32, or float64 on the reference.

    Returns:
        The executor; it holds the weights.
    """
    if executor == "reference":
        from mu_ref.ops.reference import ReferenceOps

        return ReferenceOps(weights, dtype)
    from mu_ref.ops.fast.floats import FastOps

    return FastOps(weights)


def integer_executor(
    integers: "IntegerModel", executor: str = "reference", *, alone: bool = False
) -> Ops:
    """Return the executor of one of `EXECUTORS` for an integer model.

    Args:
        integers: weights and encodings of the whole model.
        executor: one of `EXECUTORS`; both give the same integers.
        alone: nobody else reads the weights from now on; the fast executor then holds them once.

    Returns:
        The executor; it holds the weights.
    """
    if executor == "reference":
        from mu_ref.ops.integer import IntegerOps

        return IntegerOps(integers)
    from mu_ref.ops.fast.integers import FastIntegerOps

    return FastIntegerOps(integers, alone=alone)


def training_arithmetic() -> Arithmetic:
    """Return what a `Trainer` computes with: compiled kernels, compiled as they are first used."""
    from mu_ref.ops.fast.arithmetic import FastArithmetic

    return FastArithmetic()


def _size_of(path: Path) -> int:
    """Bytes of a file, or of a folder's files; what is neither counts nothing."""
    files = [path] if path.is_file() else path.glob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def compile_once(console: Console, kind: str, weight_bytes: int = 0) -> float:
    """Compile the kernels of one fast executor, unless this machine has them, and load them.

    Call it before weights are read: loading takes memory for a while.

    Args:
        console: where it is said that this takes a while.
        kind: "float" or "integer".
        weight_bytes: size of the model; for a large one the loops of many steps are loaded too, as
            it would load them beside its weights.

    Returns:
        Seconds that it took; 0 if nothing was to be done.
    """
    from mu_ref.kernels import float_program, integer_program
    from mu_ref.kernels.compiled import FOLDER
    from mu_ref.kernels.threads import SMALL, load_kernel

    done = FOLDER / f"{kind}.done"
    if done.is_file():
        machine = {"float": float_program, "integer": integer_program}[kind]
        load_kernel(machine.run)
        if weight_bytes >= SMALL:
            load_kernel(machine.run_greedy)
        return 0.0
    started = time.perf_counter()
    with console.status(f"compiling the {kind} kernels, once; this takes up to a minute"):
        _run_tiny_model({"float": _tiny_floats, "integer": _tiny_integers}[kind])
    with suppress(OSError):  # nowhere to keep compiled code: it is compiled again next time
        done.touch()
    return time.perf_counter() - started


def _run_tiny_model(make: "Callable[[DrafterConfig, Weights], Ops]") -> None:
    """Call every kernel once, since Numba compiles a kernel at its first call."""
    from mu_ref.generate import stream
    from mu_ref.kernels.drafts import trees
    from mu_ref.redrafter.beams import Search, proposer
    from mu_ref.redrafter.config import DrafterConfig, initial_drafter
    from mu_ref.redrafter.generate import speculate

    model, rng = tiny(), np.random.default_rng(0)
    width = model.stacks["decoder"].d_model
    sizes = {"d_model": width, "vocab_size": model.vocab_size, "d_exit": width, "n_blocks": 1}
    drafter = DrafterConfig(**sizes, rnn=True)
    ops, tokens = make(drafter, initial_drafter(drafter, rng)), np.full((1, 3), 3)
    memory = mu.remember(ops, model, tokens, np.ones((1, 3), bool))
    drafts = proposer(ops, model, drafter, Search(beam_width=1, draft_len=2))
    for _ in range(3):  # what is known by then goes on in compiled code
        given = memory, *mu.start(model, 1), 8
        list(stream(ops, model, *given, stop_at_eos=False))
        list(speculate(ops, model, drafts, *given))
    scores = ops.read(mu.forward(ops, model, tokens, np.ones((1, 3), bool), tokens))
    trees.pack(tokens[:, None])
    trees.select(np.zeros((1, 3), scores.dtype), scores, 1)


def _tiny_floats(drafter: "DrafterConfig", own: Weights) -> Ops:
    # of these weights, which write until the limit: behind an early end nothing is drafted
    return float_executor(initial_weights(tiny(), np.random.default_rng(1)) | own, "fast")


def _tiny_integers(drafter: "DrafterConfig", own: Weights) -> Ops:
    from mu_ref.quantize.calibrate import Options
    from mu_ref.quantize.model import quantize_model
    from mu_ref.redrafter.quantize import quantize_drafter

    model, weights = tiny(), initial_weights(tiny(), np.random.default_rng(0))
    tokens, states = np.array([1, 2, 3]), np.ones((3, drafter.d_model))
    integers = quantize_model(model, weights, [(tokens, tokens)], Options())
    made = quantize_drafter(model, weights, drafter, own, integers, [states], [tokens], 2)
    return integer_executor(made.joined(integers), "fast")
