"""Our trainer beside PyTorch: the same model, batch and optimizer, interleaved in one process run.

`python -m tests.benchmarks.training_speed [--rounds N] [--threads N] [--muon] [--alone]`, from the
root of the project, with the extra `[peers]`; --alone leaves PyTorch out. Width 256, 8 + 3 layers,
gated MLPs of 704, vocabulary 4,096 (10.7 million weights); batches of 64 queries of 16 tokens with
targets of 12; float32, no dropout. A step is forward, backward, clipping and AdamW. "NumPy" is our
trainer without compiled kernels. In each round all take a step on the same new batch; figures are
medians over the rounds. The first two rounds compile and fill caches and are not counted. One
thread is measured by its CPU time, which other load disturbs less; more by wall time. First, from
the same weights on one batch, all losses must fall alike: so the peer computes the same. With
--muon, as `mu-ref train` has it by default, PyTorch is left out: its Muon multiplies in bfloat16,
and five of its steps took minutes where this was written.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

N_BATCH, N_SOURCE, N_TARGET = 64, 16, 12
RATE, ALIKE, WARM = 1e-3, 5, 2


def limit_threads(threads: int) -> None:
    """BLAS and our kernels read how many threads they get when they are loaded."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "MU_REF_THREADS")
    wanted = dict.fromkeys(names, str(threads))
    if any(os.environ.get(name) != text for name, text in wanted.items()):
        spec = sys.modules["__main__"].__spec__
        assert spec is not None
        command = [sys.executable, "-m", spec.name, *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | wanted)


def model_of() -> Any:
    from mu_ref.presets import preset

    nano = preset("mu-nano")
    both = {
        "d_model": 256, "d_ff": 704, "n_heads": 4, "n_kv_heads": 4, "d_head": 64,
        "attention_scale": 0.125, "embed_scale": 16.0, "gated": True, "activation": "silu",
    }  # fmt: skip
    stacks: dict[str, Any] = {name: replace(s, **both) for name, s in nano.stacks.items()}
    return replace(nano, vocab_size=4096, encoder_vocab_size=4096, dropout=0.0, **stacks)


def batch_of(model: Any, rng: np.random.Generator) -> Any:
    from mu_ref.training.datasets import Batch

    source = rng.integers(3, model.vocab_size, (N_BATCH, N_SOURCE))
    target = rng.integers(3, model.vocab_size, (N_BATCH, N_TARGET + 1))
    valid, counted = np.ones(source.shape, bool), np.ones((N_BATCH, N_TARGET), bool)
    return Batch(source, valid, target[:, :-1].copy(), target[:, 1:].copy(), counted)


def trainers(optimizer: Any, *, alone: bool) -> dict[str, Any]:
    from mu_ref.executors import training_arithmetic
    from mu_ref.training.trainer import TrainConfig, Trainer

    model = model_of()
    config = TrainConfig(matrix_optimizer=optimizer, label_smoothing=0.0)
    ours = Trainer(model, config, lambda _: [], arithmetic=training_arithmetic())
    plain = Trainer(model, config, lambda _: [])
    found: dict[str, Any] = {"mu-ref": ours, "NumPy": plain}
    if not alone:
        from tests.benchmarks.torch_training import TorchTrainer

        found["PyTorch"] = TorchTrainer(model, config, ours.weights)
    return found


def print_losses(some: dict[str, Any]) -> None:
    """Print the losses of a few steps on one batch, and refuse to go on where they differ."""
    batch = batch_of(model_of(), np.random.default_rng(0))
    losses = {name: [t.train_step(batch, RATE) for _ in range(ALIKE)] for name, t in some.items()}
    print(f"losses of the first {ALIKE} steps on one batch")
    for name, row in losses.items():
        print(f"{name:<10}  " + "  ".join(f"{loss:.4f}" for loss in row))
    first, *others = losses.values()
    assert all(np.allclose(first, other, rtol=2e-3) for other in others), (
        "they compute other things"
    )


def measured(
    some: dict[str, Any], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Let every trainer take one step in every round; return its seconds."""
    model, rng = model_of(), np.random.default_rng(1)
    seconds: dict[str, list[float]] = {name: [] for name in some}
    for number in range(rounds + WARM):
        batch = batch_of(model, rng)
        for name, trainer in some.items():
            start = clock()
            trainer.train_step(batch, RATE)
            if number >= WARM:
                seconds[name].append(clock() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--muon", action="store_true")
    parser.add_argument("--alone", action="store_true")
    args = parser.parse_args()
    limit_threads(args.threads)
    from tests.benchmarks.inference import _other_load

    print(f"load before the start {os.getloadavg()[0]:.2f}")
    optimizer, alone = ("muon" if args.muon else "adamw"), args.alone or args.muon
    some = trainers(optimizer, alone=alone)
    if not alone:
        import torch

        torch.set_num_threads(args.threads)
    print_losses(some)
    load = _other_load()
    clock = time.process_time if args.threads == 1 else time.perf_counter
    seconds = measured(some, args.rounds, clock)
    print(f"other load during the rounds: {_other_load(load):.2f} cores")
    n_tokens = N_BATCH * (N_SOURCE + N_TARGET)
    print(
        f"{args.threads} threads, {'CPU' if args.threads == 1 else 'wall'} time, {optimizer}, "
        f"medians of {args.rounds} rounds"
    )
    base = float(np.median(seconds["mu-ref"]))
    for name, times in seconds.items():
        median = float(np.median(times))
        print(
            f"{name:<10}  {1000 * median:7.1f} ms a step (least {1000 * min(times):7.1f})  "
            f"{n_tokens / median:7.0f} tokens/s  mu-ref's are {median / base:.2f} x"
        )


if __name__ == "__main__":
    main()
