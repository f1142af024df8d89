"""Speculative decoding is plain decoding, bit for bit; packing is the identity; on any executor."""

from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from strategies import Rows, model_configs, quantized, random_weights, rows_of, seeds

from mu_ref.config import ModelConfig
from mu_ref.generate import stream
from mu_ref.kernels.drafts import trees
from mu_ref.model import mu
from mu_ref.model.decoder import decode
from mu_ref.ops import Ops
from mu_ref.ops.fast.floats import FastOps
from mu_ref.ops.fast.integers import FastIntegerOps
from mu_ref.ops.integer import IntegerOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.redrafter.beams import (
    Beams,
    Search,
    _compiled_select,
    draft,
    draft_one_beam,
    proposer,
    select,
)
from mu_ref.redrafter.config import DrafterConfig, initial_drafter
from mu_ref.redrafter.generate import speculate
from mu_ref.redrafter.quantize import quantize_drafter
from mu_ref.redrafter.steps import SpeculativeStep, Statistics
from mu_ref.redrafter.tree import pack, unpack
from mu_ref.settings.valid.trie import CallGuide, Trie

DECODERS = ("encoder-decoder", "decoder-only")
LIMIT = 9
Text = list[tuple[int, np.ndarray]]

# -- trees -----------------------------------------------------------------------------------------

beams_of = st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 7)).flatmap(
    lambda shape: arrays.arrays(np.int64, shape, elements=st.integers(0, 2))
)


@given(beams_of)
def test_packing_then_unpacking_is_the_identity(beams: np.ndarray) -> None:
    tree = pack(beams)
    np.testing.assert_array_equal(unpack(tree.packed(beams), tree), beams)


@given(beams_of)
def test_a_tree_has_as_many_nodes_as_there_are_distinct_beginnings(beams: np.ndarray) -> None:
    tree = pack(beams)
    for row, n in zip(beams, tree.n_nodes, strict=True):
        assert n == len({tuple(beam[: k + 1]) for beam in row for k in range(len(beam))})


@given(beams_of)
def test_beams_of_one_root_need_between_one_beam_and_all_beams(beams: np.ndarray) -> None:
    beams = beams.copy()
    beams[:, :, 0] = 1
    _, width, n = beams.shape
    for n_nodes in pack(beams).n_nodes:
        assert n <= n_nodes <= 1 + width * (n - 1)


@given(beams_of)
def test_the_mask_is_ancestor_or_self_by_brute_force(beams: np.ndarray) -> None:
    tree = pack(beams)
    for row, n_nodes, sees in zip(beams, tree.n_nodes, tree.sees, strict=True):
        paths: list[tuple[int, ...]] = []  # beginnings, in the order in which they are met
        for beam in row:
            for k in range(len(beam)):
                if tuple(beam[: k + 1]) not in paths:
                    paths.append(tuple(beam[: k + 1]))
        expected = [[b == a[: len(b)] for b in paths] for a in paths]
        np.testing.assert_array_equal(sees[:n_nodes, :n_nodes], expected)


@given(beams_of)
def test_the_compiled_packing_equals_the_reference(beams: np.ndarray) -> None:
    ours = pack(beams)
    for a, b in zip(
        (ours.nodes, ours.unpacker, ours.n_nodes, ours.sees), trees.pack(beams), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(4, 9), st.integers(1, 4), seeds)
def test_the_compiled_choice_of_beams_equals_the_reference(
    batch: int, n: int, vocab_size: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    log_p = -3 * rng.random((batch, n))
    logits = rng.integers(-3, 3, (batch, n, vocab_size)).astype(np.float64)  # with ties
    source, token, score = select(log_p, logits, width)
    ours = trees.select(log_p, logits, width)
    np.testing.assert_allclose(ours[2], score, rtol=0, atol=1e-5)
    same = np.abs(np.diff(score, axis=1)).min(initial=1) > 1e-4
    if same:  # no near ties that rounding may turn around
        np.testing.assert_array_equal(ours[0], source)
        np.testing.assert_array_equal(ours[1], token)


@pytest.mark.parametrize("choose", [select, trees.select])
def test_ties_between_candidates_go_to_the_lowest_index(choose: Any) -> None:
    log_q = np.log(np.array([[[0.25, 0.25, 0.5], [0.25, 0.5, 0.25]]]))
    source, token, _ = choose(np.zeros((1, 2)), log_q, 4)
    assert list(zip(source[0], token[0], strict=True)) == [(0, 2), (1, 1), (0, 0), (0, 1)]


# -- speculation -----------------------------------------------------------------------------------


@st.composite
def cases(draw: Any) -> tuple[ModelConfig, DrafterConfig, Ops, Rows | None, Rows, Search]:
    model = draw(model_configs(DECODERS))
    d = model.stacks["decoder"].d_model
    drafter = DrafterConfig(
        d_model=d,
        vocab_size=model.vocab_size,
        d_exit=draw(st.sampled_from([2 * d, 5])),
        n_blocks=draw(st.integers(0, 2)),
        rnn=draw(st.booleans()),
    )
    n_rows, seed = draw(st.integers(1, 3)), draw(seeds)
    source = draw(rows_of(model.encoder_vocab_size, n_rows)) if model.encoder else None
    prompt = draw(rows_of(model.vocab_size, n_rows, max_len=4))
    ops = executor(model, drafter, draw(st.sampled_from(EXECUTORS)), seed)
    search = Search(
        beam_width=draw(st.integers(1, min(8, model.vocab_size))),
        draft_len=draw(st.integers(1, 6)),
        warp=draw(st.booleans()),
    )
    return model, drafter, ops, source, prompt, search


EXECUTORS = ("reference", "fast", "w8a16", "w8a8", "fast w8a16", "fast w8a8")


def executor(model: ModelConfig, drafter: DrafterConfig, name: str, seed: int) -> Ops:
    weights = random_weights(model, seed, np.float32)
    own = initial_drafter(drafter, np.random.default_rng(seed))
    if name in ("reference", "fast"):
        return {"reference": ReferenceOps, "fast": FastOps}[name](weights | own)
    integers = quantized(model, weights, seed, scheme=name.rsplit(maxsplit=1)[-1])
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(0, model.vocab_size, 7) for _ in range(4)]
    states = [rng.standard_normal((7, drafter.d_model)) for _ in sequences]
    made = quantize_drafter(model, weights, drafter, own, integers, states, sequences, 6)
    joined = made.joined(integers)
    return FastIntegerOps(joined) if name.startswith("fast") else IntegerOps(joined)


def plain_texts(
    model: ModelConfig, ops: Ops, source: Rows | None, prompt: Rows, guide: Any = None
) -> list[Text]:
    texts: list[Text] = [[] for _ in prompt.tokens]
    ended = np.zeros(len(prompt.tokens), bool)
    memory = mu.remember(ops, model, source.tokens, source.valid) if source else None
    for step in stream(ops, model, memory, prompt.tokens, prompt.valid, LIMIT, guide=guide):
        for row in np.flatnonzero(~ended):
            texts[row].append((int(step.tokens[row]), step.logits[row]))
        ended = step.ended
    return texts


def texts_of(steps: list[SpeculativeStep], n_rows: int) -> list[Text]:
    texts: list[Text] = [[] for _ in range(n_rows)]
    for step in steps:
        assert step.logits is not None
        for row in range(n_rows):
            texts[row] += [
                (int(step.tokens[row, i]), step.logits[row, i]) for i in range(step.n_tokens[row])
            ]
    return texts


def speculative_texts(case: Any, *, to_the_end: bool, guide: Any = None) -> list[Text]:
    """Draft as `proposer` does, or on past the end of the text with the plain search."""
    model, drafter, ops, source, prompt, search = case

    def past_the_end(hidden: Any, token: np.ndarray, longest: int) -> Beams:
        cut = Search(
            beam_width=search.beam_width, draft_len=min(search.draft_len, longest),
            warp=search.warp,
        )  # fmt: skip
        return draft(ops, model, drafter, hidden, token, cut)

    drafts = proposer(ops, model, drafter, search) if to_the_end else past_the_end
    memory = mu.remember(ops, model, source.tokens, source.valid) if source else None
    seen = Statistics()
    steps = list(
        speculate(
            ops, model, drafts, memory, prompt.tokens, prompt.valid, LIMIT,
            with_logits=True, statistics=seen, guide=guide,
        )
    )  # fmt: skip
    assert seen.n_tokens == sum(int(step.n_tokens.sum()) for step in steps[1:])
    assert seen.nodes_after <= seen.nodes_before
    event(f"tokens per step {round(seen.tokens_per_step)}")
    return texts_of(steps, len(prompt.tokens))


def assert_same(ours: list[Text], expected: list[Text]) -> None:
    for mine, plain in zip(ours, expected, strict=True):
        assert [token for token, _ in mine] == [token for token, _ in plain]
        for (_, a), (_, b) in zip(mine, plain, strict=True):
            np.testing.assert_array_equal(a, b)


@settings(max_examples=150)
@given(cases(), st.booleans())
def test_speculative_greedy_equals_plain_greedy_in_tokens_and_in_logits(
    case: Any, to_the_end: bool
) -> None:
    model, _, ops, source, prompt, _ = case
    ours = speculative_texts(case, to_the_end=to_the_end)
    assert_same(ours, plain_texts(model, ops, source, prompt))


@st.composite
def tries_of(draw: Any, model: ModelConfig, n_rows: int) -> tuple[list[Trie], list[Any]]:
    """For each row a few texts that may be written, each with its end."""
    ends = model.eos_ids
    token = st.sampled_from([t for t in range(model.vocab_size) if t not in ends])
    path = st.lists(token, min_size=1, max_size=5).map(lambda path: (*path, ends[0]))
    paths = [draw(st.lists(path, min_size=1, max_size=6)) for _ in range(n_rows)]
    return [Trie.of(row) for row in paths], paths


@settings(max_examples=25)
@given(cases(), st.booleans(), st.data())
def test_drafted_greedy_in_a_trie_equals_plain_greedy_in_it(
    case: Any, to_the_end: bool, data: Any
) -> None:
    """Drafts that the trie does not hold are not kept, and every text is one of the trie."""
    model, _, ops, source, prompt, _ = case
    tries, paths = data.draw(tries_of(model, len(prompt.tokens)))
    guide = CallGuide(tries, model.vocab_size, model.pad_id)
    expected = plain_texts(model, ops, source, prompt, guide)
    assert_same(speculative_texts(case, to_the_end=to_the_end, guide=guide), expected)
    for text, row in zip(expected, paths, strict=True):
        assert tuple(token for token, _ in text) in row


@settings(max_examples=100)
@given(cases(), st.integers(0, 100), seeds)
def test_the_same_holds_for_drafts_that_are_often_right(case: Any, percent: int, seed: int) -> None:
    """The drafter is replaced by one that knows the answer and errs now and then."""
    model, _, ops, source, prompt, search = case
    expected = plain_texts(model, ops, source, prompt)
    known = [[token for token, _ in text] for text in expected]
    rng, done = np.random.default_rng(seed), np.ones(len(known), np.int64)
    before: list[np.ndarray] = []

    def propose(hidden: Any, token: np.ndarray, longest: int) -> Beams:
        del hidden
        n = min(search.draft_len, longest) + 1
        beams = rng.integers(0, model.vocab_size, (len(token), search.beam_width, n))
        for row, text in enumerate(known):
            for beam in beams[row]:
                ahead = text[positions(row) : positions(row) + n - 1]
                right = rng.integers(0, 100, len(ahead)) < percent
                beam[1 : 1 + len(ahead)] = np.where(right, ahead, beam[1 : 1 + len(ahead)])
        beams[:, :, 0] = token[:, None]
        return Beams(beams)

    def positions(row: int) -> int:
        return int(done[row])

    memory = mu.remember(ops, model, source.tokens, source.valid) if source else None
    steps = []
    for step in speculate(
        ops, model, propose, memory, prompt.tokens, prompt.valid, LIMIT, with_logits=True
    ):
        if steps:
            done += step.n_tokens
        before.append(done.copy())
        steps.append(step)
    assert_same(texts_of(steps, len(known)), expected)
    if percent == 100:
        longest = max(len(text) for text in known)
        event(f"{len(steps) - 1} steps for {longest} tokens")


# -- fast ways to draft ----------------------------------------------------------------------------


@settings(max_examples=40)
@given(cases(), st.booleans())
def test_the_fast_ways_draft_the_tokens_of_the_plain_search(case: Any, ends: bool) -> None:
    """One beam by argmax, several beams with the compiled choice, on every executor."""
    model, drafter, ops, source, prompt, search = case
    memory = mu.remember(ops, model, source.tokens, source.valid) if source else None
    states = decode(ops, model, prompt.tokens, prompt.valid, memory)
    hidden = ops.take_tokens(states, np.zeros((len(prompt.tokens), 1), np.int64), "first")
    given = (ops, model, drafter, hidden, prompt.tokens[:, 0])
    end = model.eos_id if ends else None
    gaps: list[float] = []

    def watched(log_p: np.ndarray, logits: np.ndarray, width: int) -> Any:
        """The plain choice; how far the candidates are apart, to the first that is not kept."""
        scores = select(log_p, logits, width + 1)[2]
        gaps.append(float(-np.diff(scores).max(initial=-1.0)))
        return select(log_p, logits, width)

    one = Search(beam_width=1, draft_len=search.draft_len)
    plain = draft(*given, one, end, watched)
    if all(gap == 0 or gap > 1e-4 for gap in gaps):  # not close, or a tie, which all break alike
        event("one beam")
        np.testing.assert_array_equal(draft_one_beam(*given, one, end).tokens, plain.tokens)
    gaps.clear()
    plain = draft(*given, search, end, watched)
    fast = draft(*given, search, end, _compiled_select)
    if min(gaps) > 1e-4:
        event(f"{search.beam_width} beams")
        np.testing.assert_array_equal(fast.tokens, plain.tokens)
        np.testing.assert_allclose(fast.log_p, plain.log_p, rtol=0, atol=1e-4)
