"""Laws of steps that compiled code goes ahead with: the tokens and bits of steps one by one."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from strategies import ahead, model_configs, quantized, random_weights, seeds

from mu_ref.config import ModelConfig
from mu_ref.generate import Step, stream
from mu_ref.model import mu
from mu_ref.ops.fast.floats import FastOps
from mu_ref.ops.fast.integers import FastIntegerOps
from mu_ref.ops.fast.stretches.repeats import RepeatingOps

DECODERS = ("encoder-decoder", "decoder-only")
N_NEW = 24
SCHEMES = st.sampled_from(["w8a8", "w8a16"])


@st.composite
def cases(draw: Any) -> tuple[ModelConfig, RepeatingOps, np.random.Generator]:
    model = draw(model_configs(DECODERS))
    seed = draw(seeds)
    ops: RepeatingOps
    if draw(st.booleans()):
        ops = FastOps(random_weights(model, seed, np.float32))
    else:
        weights = random_weights(model, seed)
        ops = FastIntegerOps(quantized(model, weights, seed, scheme=draw(SCHEMES)))
    ops.n_threads = draw(st.integers(1, 2))
    return model, ops, np.random.default_rng(seed)


def started(
    model: ModelConfig, ops: RepeatingOps, rng: np.random.Generator, *, stop: bool = False
) -> Iterator[Step]:
    """Begin to write on some input."""
    memory = None
    prompt, valid = rng.integers(3, model.vocab_size, (1, 3)), np.ones((1, 3), bool)
    if model.encoder is not None:
        source = rng.integers(3, model.encoder_vocab_size, (1, 5))
        memory = mu.remember(ops, model, source, source > 0)
        prompt, valid = prompt[:, :1], valid[:, :1]
    return stream(ops, model, memory, prompt, valid, N_NEW, stop_at_eos=stop)


def written(steps: Iterator[Step]) -> list[tuple[int, bytes]]:
    return [(int(step.tokens[0]), step.logits.tobytes()) for step in steps]


@given(cases(), st.integers(1, 2 * N_NEW), seeds, st.booleans())
def test_going_ahead_changes_no_token_and_no_bit(case: Any, n: int, seed: int, stop: bool) -> None:
    model, ops, _ = case

    def run() -> list[tuple[int, bytes]]:
        return written(started(model, ops, np.random.default_rng(seed), stop=stop))

    with ahead(0):
        expected = run()
    with ahead(n):
        assert run() == expected
        assert run() == expected  # all is known from the first token on


@given(cases(), st.integers(1, N_NEW), seeds)
def test_a_stream_may_be_left_and_another_may_come_between(case: Any, n: int, seed: int) -> None:
    model, ops, rng = case
    other_seed = int(rng.integers(1000))
    with ahead(0):
        one = written(started(model, ops, np.random.default_rng(seed)))
        other = written(started(model, ops, np.random.default_rng(other_seed)))
    with ahead(7):
        left = started(model, ops, np.random.default_rng(seed))
        assert [int(next(left).tokens[0]) for _ in range(min(n, len(one)))] == [
            token for token, _ in one[:n]
        ]
        left.close()  # type: ignore[attr-defined]
        both = zip(
            started(model, ops, np.random.default_rng(seed)),
            started(model, ops, np.random.default_rng(other_seed)),
            strict=False,
        )
        found = [(int(a.tokens[0]), int(b.tokens[0])) for a, b in both]
        assert found == list(zip([t for t, _ in one], [t for t, _ in other], strict=False))


def test_most_steps_of_a_long_text_need_no_python() -> None:
    from mu_ref.presets import tiny

    model = tiny()
    ops = FastOps(random_weights(model, 1, np.float32))
    calls = []
    inner = ops.repeat

    def counted(*args: Any) -> Any:
        calls.append(args)
        return inner(*args)

    ops.repeat = counted  # type: ignore[method-assign]
    written(started(model, ops, np.random.default_rng(1)))
    calls.clear()
    written(started(model, ops, np.random.default_rng(2)))
    assert len(calls) == 1  # the first token alone
