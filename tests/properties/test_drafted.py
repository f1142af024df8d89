"""Laws of passes that compiled code drafts and checks by itself: the tokens of plain decoding."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from strategies import ahead, model_configs, quantized, random_weights, seeds

from mu_ref.config import ModelConfig
from mu_ref.generate import stream
from mu_ref.model import mu
from mu_ref.model.cache import Memory
from mu_ref.ops import Pass
from mu_ref.ops.fast.floats import FastOps
from mu_ref.ops.fast.integers import FastIntegerOps
from mu_ref.ops.fast.stretches.drafting import DraftingOps
from mu_ref.redrafter.beams import Search, proposer
from mu_ref.redrafter.config import DrafterConfig, initial_drafter
from mu_ref.redrafter.generate import speculate
from mu_ref.redrafter.quantize import quantize_drafter
from mu_ref.redrafter.steps import SpeculativeStep, Statistics

DECODERS = ("encoder-decoder", "decoder-only")
N_NEW = 30
Given = tuple[Memory | None, np.ndarray, np.ndarray]


@st.composite
def cases(draw: Any) -> tuple[ModelConfig, DrafterConfig, DraftingOps, Search]:
    model, seed = draw(model_configs(DECODERS)), draw(seeds)
    if draw(st.booleans()):  # with NTK scaling, and where no key is seen, Python goes step by step
        assert model.decoder is not None
        model = replace(model, decoder=replace(model.decoder, rope_ntk_factor=1.0))
        model = replace(model, unseeing="zero")
    d = model.stacks["decoder"].d_model
    drafter = DrafterConfig(
        d_model=d,
        vocab_size=model.vocab_size,
        d_exit=draw(st.sampled_from([2 * d, 5])),
        n_blocks=draw(st.integers(0, 2)),
        rnn=draw(st.booleans()),
    )
    weights = random_weights(model, seed, np.float32)
    # texts of some length
    assume(len(plain(model, FastOps(weights), 0)) > 4)
    own = initial_drafter(drafter, np.random.default_rng(seed))
    ops: DraftingOps
    if draw(st.booleans()):
        ops = FastOps(weights | own)
    else:
        scheme = draw(st.sampled_from(["w8a8", "w8a16"]))
        rng = np.random.default_rng(seed)
        texts = [rng.integers(0, model.vocab_size, 7) for _ in range(4)]
        states = [rng.standard_normal((7, d)) for _ in texts]
        integers = quantized(model, weights, seed, scheme=scheme)
        made = quantize_drafter(model, weights, drafter, own, integers, states, texts, 6)
        ops = FastIntegerOps(made.joined(integers))
    ops.n_threads = draw(st.integers(1, 2))
    return model, drafter, ops, Search(beam_width=1, draft_len=draw(st.integers(1, 6)))


def given_to(model: ModelConfig, ops: DraftingOps, seed: int) -> Given:
    """Some input, of some length, of which the decoder may not see the last token."""
    rng = np.random.default_rng(seed)
    prompt = rng.integers(3, model.vocab_size, (1, 3))
    if model.encoder is None:
        return None, prompt, prompt > 0
    source = rng.integers(3, model.encoder_vocab_size, (1, int(rng.integers(2, 7))))
    valid = source > 0
    valid[0, -1] = rng.integers(2)
    return mu.remember(ops, model, source, valid), prompt[:, :1], prompt[:, :1] > 0


def plain(model: ModelConfig, ops: DraftingOps, seed: int) -> list[int]:
    with ahead(0):
        return [int(s.tokens[0]) for s in stream(ops, model, *given_to(model, ops, seed), N_NEW)]


def drafted(case: Any, seed: int, seen: Statistics | None = None) -> Iterator[SpeculativeStep]:
    model, drafter, ops, search = case
    drafts = proposer(ops, model, drafter, search)
    return speculate(ops, model, drafts, *given_to(model, ops, seed), N_NEW, statistics=seen)


def tokens_of(steps: Iterator[SpeculativeStep]) -> list[int]:
    return [int(t) for step in steps for t in step.tokens[0, : step.n_tokens[0]]]


def counted(ops: DraftingOps) -> list[Pass]:
    """Note the passes that compiled code writes from now on."""
    passes: list[Pass] = []
    inner = ops.drafted

    def noted(*args: Any) -> Iterator[Pass]:
        for one in inner(*args):
            passes.append(one)
            yield one

    ops.drafted = noted  # type: ignore[method-assign]
    return passes


@settings(max_examples=50)
@given(cases(), st.lists(st.integers(0, 20), min_size=3, max_size=6), st.integers(1, 20))
def test_drafts_checked_in_compiled_code_change_no_token(
    case: Any, inputs: list[int], n: int
) -> None:
    model, _, ops, _ = case
    expected, by_python = [plain(model, ops, seed) for seed in inputs], Statistics()
    with ahead(0):
        for seed in 2 * inputs:
            tokens_of(drafted(case, seed, by_python))
    passes, seen = counted(ops), Statistics()
    with ahead(n):
        found = [tokens_of(drafted(case, seed, seen)) for seed in 2 * inputs]
    assert found == 2 * expected
    assert seen.n_tokens == 2 * sum(len(text) - 1 for text in expected)
    assert seen.accepted == by_python.accepted  # the same drafts, of the same hidden states
    event(f"passes in compiled code: {min(len(passes), 9)}")
    event(f"drafts kept: {any(len(one.tokens) > 1 for one in passes)}")


@given(cases(), st.integers(0, 20), st.integers(0, 20), st.integers(1, 5))
def test_a_draft_may_be_left_and_another_may_come_between(
    case: Any, seed: int, other: int, n: int
) -> None:
    model, _, ops, _ = case
    expected = plain(model, ops, seed), plain(model, ops, other)
    with ahead(5):
        tokens_of(drafted(case, seed))
        tokens_of(drafted(case, other))  # all is known from now on
        left = drafted(case, seed)
        for _, _ in zip(range(n), left, strict=False):
            pass
        left.close()  # type: ignore[attr-defined]
        one, two = drafted(case, seed), drafted(case, other)
        found: tuple[list[int], list[int]] = [], []
        while True:
            steps = next(one, None), next(two, None)
            for text, step in zip(found, steps, strict=True):
                text.extend([] if step is None else tokens_of(iter([step])))
            if steps == (None, None):
                break
    assert found == expected


def test_most_passes_of_a_known_text_need_no_python() -> None:
    import mu_ref
    from mu_ref.executors import shipped_drafter

    search = Search(beam_width=1, draft_len=7)
    agent = mu_ref.load_agent(executor="fast", drafter=shipped_drafter("float32"), search=search)
    queries = ["dark mode please", "set the volume to 30", "make the text a little bigger",
               "turn wifi off", "connect to my headphones over bluetooth"]  # fmt: skip
    for query in 2 * queries:
        agent.ask([query])
    assert isinstance(agent.ops, DraftingOps)
    passes = counted(agent.ops)
    answers = [agent.ask([query])[0].tokens for query in queries]
    # all but the first token of each; a pass may go on behind the end
    assert sum(len(one.tokens) for one in passes) >= sum(len(text) - 1 for text in answers)
