"""Drafter, acceptance and cache by hand; files that cannot be used say so."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import quantized, random_weights, seeds

from mu_ref.config import ModelConfig
from mu_ref.errors import ConfigError, InputError, WeightsError
from mu_ref.generate import stream
from mu_ref.integers.encodings import Encoding
from mu_ref.model import mu
from mu_ref.model.cache import Cache, LayerCache
from mu_ref.model.encoder import embed
from mu_ref.ops import Ops
from mu_ref.ops.fast.floats import FastOps
from mu_ref.ops.fast.integers import FastIntegerOps
from mu_ref.ops.integer import IntegerOps, Quantized
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.tape import TapeOps
from mu_ref.presets import tiny
from mu_ref.readers.apple_redrafter import read_apple_drafter
from mu_ref.redrafter import generate
from mu_ref.redrafter import quantize as choose
from mu_ref.redrafter.apple import accept_apple
from mu_ref.redrafter.beams import Beams, Search, draft, draft_one_beam, proposer
from mu_ref.redrafter.config import DrafterConfig, drafter_shapes, initial_drafter
from mu_ref.redrafter.drafter import advance, scores
from mu_ref.redrafter.draw import plot_tree, tree_text
from mu_ref.redrafter.generate import speculate
from mu_ref.redrafter.quantize import quantize_drafter
from mu_ref.redrafter.steps import Statistics
from mu_ref.redrafter.store import (
    load_drafter,
    load_integer_drafter,
    save_drafter,
    save_integer_drafter,
)
from mu_ref.redrafter.train import Distilled, DrafterTraining, distill, token_embeddings
from mu_ref.redrafter.train import train_drafter as train
from mu_ref.redrafter.tree import pack
from mu_ref.redrafter.verify import accept, draft_limit, verify

DRAFTER = DrafterConfig(d_model=16, vocab_size=61, d_exit=24, n_blocks=1, rnn=True)

# -- the two operations that drafting needs --------------------------------------------------------


def test_concat_joins_the_last_axis_and_cuts_the_gradient() -> None:
    x, y = np.arange(6.0).reshape(2, 3), np.arange(4.0).reshape(2, 2)
    ops = TapeOps({"x": x, "y": y})
    joined = ops.concat(ops.weights["x"], ops.weights["y"], "c")
    np.testing.assert_array_equal(joined.value, [[0, 1, 2, 0, 1], [3, 4, 5, 2, 3]])
    weights = np.array([[1.0, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    product = ops.mul(joined, ops.record(weights, (), lambda grad: ()), "m")
    total = ops.record(product.value.sum(), (product,), lambda g: (np.full((2, 5), g),))
    grads = ops.backward(total)
    np.testing.assert_array_equal(grads["x"], weights[:, :3])
    np.testing.assert_array_equal(grads["y"], weights[:, 3:])


@settings(max_examples=30)
@given(st.sampled_from([(2, 2), (3, 5), (16, 24), (6, 4)]), st.integers(1, 3), seeds)
def test_concat_of_the_fast_executor_moves_the_same_numbers(
    widths: tuple[int, int], rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ops = FastOps({"w": np.zeros((4, 4), np.float32)})
    x, y = (rng.standard_normal((2, rows, d)).astype(np.float32) for d in widths)
    joined = ops.concat(ops._stored(x), ops._stored(y), "c")
    np.testing.assert_array_equal(ops.read(joined), np.concatenate([x, y], axis=-1))


def test_concat_in_integers_by_hand() -> None:
    # scale 0.5 and 0.25 brought to 0.5: the first stays, the second is halved, ties upwards
    integers = quantized(tiny(), random_weights(tiny(), 0), 0)
    integers = replace(integers, activations={**integers.activations, "c": Encoding(16, 0.5)})
    x = Quantized(np.array([[3, -4]], np.int16), Encoding(16, 0.5))
    y = Quantized(np.array([[5, -5, 127]], np.int8), Encoding(8, 0.25))
    joined = IntegerOps(integers).concat(x, y, "c")
    np.testing.assert_array_equal(joined.q, [[3, -4, 3, -2, 64]])
    fast = FastIntegerOps(integers)
    values = [fast._stored(v.steps.astype(np.int16), v.encoding) for v in (x, y)]
    np.testing.assert_array_equal(fast._quantized(fast.concat(*values, "c")).q, joined.q)


@settings(max_examples=40)
@given(st.integers(1, 3), st.integers(0, 4), st.integers(1, 5), st.data())
def test_kept_slots_are_the_first_ones_and_the_chosen_ones(
    batch: int, n_kept: int, n_new: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(seeds))
    x = rng.standard_normal((batch, 2, n_kept + n_new, 4)).astype(np.float32)
    m = data.draw(st.integers(1, n_new))
    index = np.sort(rng.integers(n_kept, n_kept + n_new, (batch, m)), axis=1)
    expected = np.stack(
        [np.concatenate([x[b, :, :n_kept], x[b][:, index[b]]], axis=1) for b in range(batch)]
    )
    np.testing.assert_array_equal(ReferenceOps({}).keep_slots(x, n_kept, index, "k"), expected)
    fast = FastOps({"w": np.zeros((4, 4), np.float32)})
    cached = fast.append(None, _split(fast, x), "k")
    kept = fast.keep_slots(cached, n_kept, index, "k")
    np.testing.assert_array_equal(fast.read(kept), expected)
    longer = fast.append(kept, _split(fast, x[:, :, :1]), "k")  # goes on behind what was kept
    np.testing.assert_array_equal(
        fast.read(longer), np.concatenate([expected, x[:, :, :1]], axis=2)
    )


def _split(ops: FastOps, x: np.ndarray) -> object:
    batch, heads, n, d = x.shape
    return ops.split_heads(ops._stored(x.swapaxes(1, 2).reshape(batch, n, heads * d)), heads, "s")


def test_the_gradient_of_kept_slots_adds_up_over_repeated_picks() -> None:
    ops = TapeOps({"x": np.arange(3.0).reshape(1, 1, 3, 1)})
    kept = ops.keep_slots(ops.weights["x"], 1, np.array([[2, 2]]), "k")
    np.testing.assert_array_equal(kept.value.ravel(), [0, 2, 2])
    factors = ops.record(np.array([1.0, 10, 100]).reshape(kept.shape), (), lambda grad: ())
    product = ops.mul(kept, factors, "m")
    total = ops.record(product.value.sum(), (product,), lambda g: (np.full((1, 1, 3, 1), g),))
    np.testing.assert_array_equal(ops.backward(total)["x"].ravel(), [1, 0, 110])


# -- the drafter -----------------------------------------------------------------------------------


def test_two_steps_of_the_drafter_by_hand() -> None:
    """Every width 1 but the vocabulary: s1 = silu(2·1 + 1), s2 = silu(2·(-1) + 1 + 3·s1)."""
    drafter = DrafterConfig(d_model=1, vocab_size=2, d_exit=2, n_blocks=0, rnn=True)
    weights = {
        "drafter.rnn_w.weight": [[2.0]],
        "drafter.rnn_w.bias": [1.0],
        "drafter.rnn_u.weight": [[3.0]],
        "drafter.head.weight": [[1.0, 0.0], [0.0, 1.0]],
    }
    ops = ReferenceOps({name: np.array(w) for name, w in weights.items()}, np.float64)

    def silu(x: float) -> float:
        return float(x / (1 + np.exp(-x)))

    s1 = silu(3.0)
    s2 = silu(-1.0 + 3 * s1)
    state = advance(ops, drafter, np.array([[[1.0]]]), None)
    np.testing.assert_allclose(
        scores(ops, drafter, np.array([[[7.0]]]), state), [[[7.0, s1]]], rtol=1e-14
    )
    state = advance(ops, drafter, np.array([[[-1.0]]]), state)
    np.testing.assert_allclose(
        scores(ops, drafter, np.array([[[7.0]]]), state), [[[7.0, s2]]], rtol=1e-14
    )


@pytest.mark.parametrize("width", [1, 2, 61])
def test_one_row_in_the_first_step_finds_the_beams_of_many_dead_rows(width: int) -> None:
    model, own = tiny(), initial_drafter(DRAFTER, np.random.default_rng(0))
    ops = ReferenceOps(random_weights(model, 1) | own)
    rng = np.random.default_rng(2)
    hidden, tokens = rng.standard_normal((2, 1, 16)).astype(np.float32), np.array([3, 5])
    beams = draft(ops, model, DRAFTER, hidden, tokens, Search(beam_width=width, draft_len=1))
    embedding = ops.scale(ops.embed(tokens[:, None], "embedding"), model.decoder.embed_scale, "s")
    z = scores(ops, DRAFTER, hidden, advance(ops, DRAFTER, embedding, None))[:, 0]
    np.testing.assert_array_equal(beams.tokens[:, :, 1], np.argsort(-z, axis=1)[:, :width])
    assert (beams.tokens[:, :, 0] == tokens[:, None]).all()


def test_drafting_stops_when_the_best_beam_has_ended() -> None:
    model, own = tiny(), initial_drafter(DRAFTER, np.random.default_rng(0))
    ops = ReferenceOps(random_weights(model, 1) | own)
    hidden = np.random.default_rng(2).standard_normal((1, 1, 16)).astype(np.float32)
    search = Search(beam_width=2, draft_len=5)
    whole = draft(ops, model, DRAFTER, hidden, np.array([3]), search).tokens
    end = int(whole[0, 0, 2])
    at = 1 + int(np.argmax(whole[0, 0, 1:] == end))
    cut = draft(ops, model, DRAFTER, hidden, np.array([3]), search, end).tokens
    assert cut.shape[2] <= at + 1
    assert (cut[0, 0] == end).any()


SEARCHES = [draft, draft_one_beam]
FLOATS = [ReferenceOps, FastOps]


def drafting(kind: type[Ops], n_rows: int = 2) -> tuple[ModelConfig, Ops, Any]:
    """A model, the executor with its drafter, and states of some rows to draft from."""
    model = tiny()
    own = initial_drafter(DRAFTER, np.random.default_rng(0))
    ops = kind({**random_weights(model, 1, np.float32), **own})
    hidden = np.random.default_rng(2).standard_normal((n_rows, 1, 16)).astype(np.float32)
    return model, ops, ops._stored(hidden) if isinstance(ops, FastOps) else hidden


@pytest.mark.parametrize("search", SEARCHES)
def test_drafting_goes_on_until_the_best_beam_of_every_row_has_ended(search: Any) -> None:
    model, ops, hidden = drafting(ReferenceOps)
    tokens, one = np.array([3, 5]), Search(beam_width=1, draft_len=4)
    whole = search(ops, model, DRAFTER, hidden, tokens, one).tokens[:, 0]
    end = int(whole[0, 1])
    assert end not in whole[1]
    both = search(ops, model, DRAFTER, hidden, tokens, one, end).tokens
    np.testing.assert_array_equal(both[:, 0], whole)
    first = search(ops, model, DRAFTER, hidden[:1], tokens[:1], one, end).tokens
    np.testing.assert_array_equal(first[:, 0], whole[:1, :2])


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("width", [1, 2])
def test_a_proposer_stops_at_the_models_end_of_text(kind: type[Ops], width: int) -> None:
    model, ops, hidden = drafting(kind, 1)
    tokens, search = np.array([3]), Search(beam_width=width, draft_len=4)
    whole = proposer(ops, model, DRAFTER, search)(hidden, tokens, 4).tokens
    assert whole.shape == (1, width, 5)
    ending = replace(model, eos_id=int(whole[0, 0, 2]))
    at = whole[0, 0].tolist().index(ending.eos_id)
    cut = proposer(ops, ending, DRAFTER, search)(hidden, tokens, 4).tokens
    assert cut.shape[2] <= at + 1  # sooner if the beam that was best by then ended sooner
    assert ending.eos_id in cut[0, 0]
    assert proposer(ops, model, DRAFTER, search)(hidden, tokens, 2).tokens.shape[2] == 3


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("width", [1, 2])
def test_warped_drafts_are_scored_among_the_fifty_likeliest(kind: type[Ops], width: int) -> None:
    """The score of a first token is its logit less the logarithm of what 50 of 61 add up to."""
    model, ops, hidden = drafting(kind)
    tokens = np.array([3, 5])
    _, plain, h = drafting(ReferenceOps)
    embedding = embed(plain, model, tokens[:, None], "decoder")
    z = scores(plain, DRAFTER, h, advance(plain, DRAFTER, embedding, None))[:, 0]
    best = -np.sort(-z.astype(np.float64), axis=1)
    assert (np.exp(best[:, 50:]).sum(axis=1) > 0.01 * np.exp(best).sum(axis=1)).all()
    for warped, n in ((True, 50), (False, 61)):
        search = Search(beam_width=width, draft_len=1, warp=warped)
        found = proposer(ops, model, DRAFTER, search)(hidden, tokens, 1).log_p
        if found is None:  # one beam without options needs no score
            assert (ops.compiled, width, warped) == (True, 1, False)
            continue
        expected = best[:, :width] - np.log(np.exp(best[:, :n]).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


# -- acceptance ------------------------------------------------------------------------------------


def test_the_first_of_the_longest_beams_is_kept() -> None:
    beams = np.array([[[1, 2, 3, 9], [1, 5, 6, 7], [1, 5, 6, 8]]])
    written = np.array([[[5, 0, 0, 0], [5, 6, 0, 4], [5, 6, 0, 4]]])
    found = accept(beams, written)
    assert (found.n_accepted[0], found.best_beam[0], found.next_token[0]) == (2, 1, 0)


def test_apples_rule_keeps_certain_drafts_and_refuses_impossible_ones() -> None:
    p, rng = np.array([0.999, 0.001]), np.random.default_rng(0)
    log_p = np.log(np.broadcast_to(p, (1, 1, 2, 2)))
    log_q = np.log(np.broadcast_to([0.5, 0.5], (1, 1, 1, 2)))
    half = np.full((1, 1, 1), 0.5)
    assert accept_apple(np.array([[[0, 0]]]), log_p, log_q, half, rng).n_accepted[0] == 1
    refused = accept_apple(np.array([[[0, 1]]]), log_p, log_q, half, rng)
    assert (refused.n_accepted[0], refused.next_token[0]) == (0, 0)  # only 0 is left of p - q


def test_ntk_scaling_ends_drafting_where_the_speed_begins_to_change() -> None:
    stack = tiny(rope_ntk_factor=2.0, rope_base_len=8).stacks["decoder"]
    cache = Cache.empty(1, 1)
    cache.valid = np.ones((1, 5), bool)
    assert draft_limit(stack, cache, np.array([5])) == 3  # tokens 6, 7 and 8
    cache.valid = np.ones((1, 9), bool)
    assert draft_limit(stack, cache, np.array([9])) == 1
    assert draft_limit(tiny().stacks["decoder"], cache, np.array([9])) == np.inf


def test_drafts_of_the_right_tokens_stay_exact_while_the_turning_speed_changes() -> None:
    """Prompt of 2 tokens, base length 6: the first tree fits, then every token turns anew."""
    model = replace(tiny(rope_ntk_factor=4.0, rope_base_len=6), encoder=None)
    ops = ReferenceOps(random_weights(model, 7))
    prompt, full = np.array([[1, 9]]), np.ones((1, 2), bool)
    plain = list(stream(ops, model, None, prompt, full, 10, stop_at_eos=False))
    text = [int(step.tokens[0]) for step in plain]
    written = 0

    def right(hidden: object, token: np.ndarray, longest: int) -> Beams:
        return Beams(np.array([[text[written - 1 : written + longest]]]))

    sizes, rows = [], []
    for step in speculate(
        ops, model, right, None, prompt, full, 10, stop_at_eos=False, with_logits=True
    ):
        assert step.logits is not None
        written += int(step.n_tokens[0])
        sizes.append(int(step.n_tokens[0]))
        rows.append(step.logits[0])
    assert sizes == [1, 4, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(np.concatenate(rows), np.concatenate([s.logits for s in plain]))


def test_a_cache_keeps_its_beginning_and_the_accepted_path() -> None:
    cache = Cache.empty(2, 1)
    values = np.arange(10.0).reshape(2, 1, 5, 1)
    cache.layers = [LayerCache(values, -values)]
    cache.tokens = np.array([[7, 8, 1, 2, 3], [7, 8, 4, 5, 6]])
    cache.valid, cache.positions = np.ones((2, 5), bool), np.tile(np.arange(5), (2, 1))
    kept = np.array([[True, True], [True, False]])
    cache.keep(ReferenceOps({}), 2, np.array([[2, 4], [3, 3]]), kept)
    assert cache.layers[0].k.ravel().tolist() == [0, 1, 2, 4, 5, 6, 8, 8]
    assert cache.tokens.tolist() == [[7, 8, 1, 3], [7, 8, 5, 5]]
    assert cache.valid.tolist() == [[True] * 4, [True, True, True, False]]


def test_an_end_inside_an_accepted_path_ends_the_text_there() -> None:
    """The model's own text is drafted in one go, eos and what would follow it included."""
    model = tiny()
    ops = ReferenceOps(random_weights(model, 5))
    prompt, full = np.array([[1]]), np.ones((1, 1), bool)

    def run(model: object, drafts: Callable[..., Beams], **options: bool) -> list[list[int]]:
        alone = replace(model, encoder=None)  # type: ignore[type-var]
        steps = speculate(ops, alone, drafts, None, prompt, full, 8, **options)
        return [step.tokens[0, : step.n_tokens[0]].tolist() for step in steps]

    def nothing(hidden: object, token: np.ndarray, longest: int) -> Beams:
        return Beams(token[:, None, None])

    text = [token for step in run(model, nothing, stop_at_eos=False) for token in step]
    end = next(t for i, t in enumerate(text) if i >= 2 and t not in text[:i])
    at = text.index(end)
    ending = replace(model, eos_id=end, pad_id=next(t for t in range(61) if t not in text))

    def all_of_it(hidden: object, token: np.ndarray, longest: int) -> Beams:
        return Beams(np.array([[text[: longest + 1]]]))

    steps = run(ending, all_of_it)
    assert steps == [text[:1], text[1 : at + 1]]


def test_statistics_of_two_passes_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """7 tokens: one without a draft, then two passes of which each keeps both drafted tokens.

    Drafting takes 2 seconds, verification 5. Of two beams of 3 tokens one shares the root only.
    """
    model = replace(tiny(), encoder=None)
    ops = ReferenceOps(random_weights(model, 5))
    given = (ops, model, None, np.array([[1]]), np.ones((1, 1), bool), 7)
    plain = stream(given[0], model, *given[2:], stop_at_eos=False)
    text = [int(step.tokens[0]) for step in plain]
    now, written = [100.0], [0]

    def drafts(hidden: object, token: np.ndarray, longest: int) -> Beams:
        now[0] += 2.0
        right = text[written[0] - 1 : written[0] + 2]
        wrong = [right[0], *((t + 1) % 61 for t in right[1:])]
        return Beams(np.array([[wrong, right]]))

    def verifying(*arguments: Any) -> Any:
        now[0] += 5.0
        return verify(*arguments)

    monkeypatch.setattr(generate.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(generate, "verify", verifying)
    seen = Statistics()
    steps = speculate(given[0], model, drafts, *given[2:], stop_at_eos=False, statistics=seen)
    for step in steps:
        written[0] += int(step.n_tokens[0])
    assert seen == Statistics(
        n_steps=2, n_tokens=6, accepted={2: 2}, nodes_before=12, nodes_after=10,
        draft_s=4.0, verify_s=10.0,
    )  # fmt: skip
    assert (seen.tokens_per_step, seen.mean_accepted) == (3.0, 2.0)
    assert seen.draft_share == 4 / 14


def test_a_row_that_has_ended_does_not_ask_for_longer_drafts() -> None:
    """Of 6 tokens the other row may still write 5, 4, 3, 2 and 1, one of which the pass writes."""
    model = replace(tiny(), encoder=None)
    ops = ReferenceOps(random_weights(model, 5))
    given = (np.array([[1], [7]]), np.ones((2, 1), bool), 6)
    texts = np.stack([s.tokens for s in stream(ops, model, None, *given, stop_at_eos=False)], 1)
    assert texts[0, 0] not in texts[1]
    asked: list[int] = []

    def nothing(hidden: object, token: np.ndarray, longest: int) -> Beams:
        asked.append(longest)
        return Beams(token[:, None, None])

    steps = list(speculate(ops, replace(model, eos_id=texts[0, 0]), nothing, None, *given))
    assert [step.n_tokens.tolist() for step in steps] == [[1, 1]] + [[0, 1]] * 5
    assert asked == [4, 3, 2, 1]


def test_speculation_refuses_an_empty_prompt() -> None:
    with pytest.raises(InputError, match="every prompt must hold at least one token"):
        next(speculate(ReferenceOps({}), tiny(), None, None, np.zeros((1, 1), int),  # type: ignore[arg-type]
                       np.zeros((1, 1), bool), 3))  # fmt: skip


# -- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [False, True])
def test_distillation_notes_what_the_model_wrote_after_each_state(ends: bool) -> None:
    model = tiny()
    ops: Ops = ReferenceOps(random_weights(model, 3), np.float32)
    source, valid = np.array([[5, 6, 7], [8, 9, 0]]), np.array([[1, 1, 1], [1, 1, 0]], bool)
    if ends:  # with the third token of the first text
        memory = mu.remember(ops, model, source, valid)
        steps = list(stream(ops, model, memory, np.ones((2, 1), int), np.ones((2, 1), bool), 3))
        model = replace(model, eos_id=int(steps[2].tokens[0]))
    data = distill(ops, model, source, valid, max_new_tokens=6, draft_len=3)
    memory = mu.remember(ops, model, source, valid)
    steps = list(stream(ops, model, memory, np.ones((2, 1), int), np.ones((2, 1), bool), 6))
    row = 0
    for b in range(2):
        text = []
        for i, step in enumerate(steps):
            if i == 0 or not steps[i - 1].ended[b]:
                text.append(int(step.tokens[b]))
        for t in range(len(text) - 1):
            n = min(3, len(text) - 1 - t)
            assert data.n_targets[row] == n
            assert data.following[row, : n + 1].tolist() == text[t : t + n + 1]
            scores = mu.logits(ops, model, data.hidden[row][None, None])
            assert scores.argmax() == text[t]  # the state is the one that chose it
            row += 1
    assert row == len(data.hidden)


def test_scales_are_chosen_on_the_tokens_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny(), []

    def noted(ops: Ops, model: ModelConfig, tokens: np.ndarray, stack: str) -> Any:
        seen.append(tokens.tolist())
        return embed(ops, model, tokens, stack)

    monkeypatch.setattr(choose, "embed", noted)
    weights = random_weights(model, 0)
    drafter = DrafterConfig(d_model=16, vocab_size=61, d_exit=8, n_blocks=1, rnn=True)
    own = initial_drafter(drafter, np.random.default_rng(0))
    integers, hidden = (
        quantized(model, weights, 0),
        np.random.default_rng(1).standard_normal((3, 16)),
    )
    choose.quantize_drafter(
        model, weights, drafter, own, integers, [hidden], [np.array([1, 5, 7])], 3
    )
    assert seen == [[[5, 7, 1]], [[7, 1, 5]], [[1, 5, 7]]]


def test_training_learns_a_rule_and_is_a_function_of_its_seed() -> None:
    """Token x is followed by x + 1: an embedding is enough to know it."""
    rng = np.random.default_rng(0)
    drafter = DrafterConfig(d_model=8, vocab_size=11, d_exit=8, n_blocks=1, rnn=True)
    first = rng.integers(0, 11, 600)
    data = Distilled(
        rng.standard_normal((600, 8)).astype(np.float32),
        (first[:, None] + np.arange(4)) % 11,
        rng.integers(1, 4, 600),
    )
    table = rng.standard_normal((11, 8)).astype(np.float32)
    training = DrafterTraining(epochs=12, draft_len=3, batch_size=50, peak_rate=1e-2)
    runs = [[(step.loss, step.weights) for step in train(drafter, table, data, training)]
            for _ in range(2)]  # fmt: skip
    assert runs[0][0][0] > 2.0
    assert runs[0][-1][0] < 0.5
    for name, w in runs[0][-1][1].items():
        np.testing.assert_array_equal(w, runs[1][-1][1][name])
    with pytest.raises(InputError, match="at least 601 positions, got 600"):
        next(train(drafter, table, data, replace(training, batch_size=601)))


def test_the_embedding_table_is_what_the_first_layer_reads() -> None:
    model = tiny(embed_scale=4.0)
    weights = random_weights(model, 0)
    table = token_embeddings(ReferenceOps(weights, np.float64), model)
    np.testing.assert_allclose(table, 4 * weights["embedding.weight"], rtol=1e-6)


# -- files -----------------------------------------------------------------------------------------


def test_a_drafter_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path, weights = tmp_path / "d.safetensors", initial_drafter(DRAFTER, np.random.default_rng(0))
    save_drafter(path, DRAFTER, weights, {"train": "{}"})
    drafter, read = load_drafter(path, tiny())
    assert drafter == DRAFTER
    for name, w in weights.items():
        np.testing.assert_array_equal(read[name], w.astype(np.float16))
    with pytest.raises(ConfigError, match="the drafter must fit tiny"):
        load_drafter(path, replace(tiny(), vocab_size=60, encoder_vocab_size=60))
    with pytest.raises(WeightsError, match="must be an integer drafter"):
        load_integer_drafter(path)


def test_an_integer_drafter_file_gives_back_what_was_written(tmp_path: Path) -> None:
    model, weights = tiny(), random_weights(tiny(), 0)
    own = initial_drafter(DRAFTER, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    integers = quantized(model, weights, 0, scheme="w8a8")
    texts, states = [rng.integers(0, 61, 6)], [rng.standard_normal((6, 16))]
    made = quantize_drafter(model, weights, DRAFTER, own, integers, states, texts, 3)
    path = tmp_path / "d.safetensors"
    save_integer_drafter(path, made)
    read = load_integer_drafter(path, model)
    assert (read.drafter, read.scheme, read.activations) == (DRAFTER, "w8a8", made.activations)
    for name, tensor in made.tensors.items():
        np.testing.assert_array_equal(read.tensors[name], tensor)
    assert set(drafter_shapes(DRAFTER)) <= set(read.tensors)
    with pytest.raises(WeightsError, match="scheme w8a16, it has w8a8"):
        read.joined(quantized(model, weights, 0, scheme="w8a16"))
    with pytest.raises(WeightsError, match="must be a float drafter"):
        load_drafter(path)


def test_integer_drafts_are_near_the_float_ones() -> None:
    """The bias of the cell counts in steps of the model's embedding, so it must be found there."""
    model, weights = tiny(), random_weights(tiny(), 0, np.float32)
    own = initial_drafter(DRAFTER, np.random.default_rng(0))
    weights["embedding.weight"][30:] *= 6
    own["drafter.rnn_w.bias"] = np.linspace(-2, 2, 16).astype(np.float32)
    rng = np.random.default_rng(1)
    integers = quantized(model, weights, 0)
    hidden, token = rng.standard_normal((1, 1, 16)).astype(np.float32), np.array([4])
    texts = [np.arange(i, i + 21) % 30 for i in range(4)]  # not the large embeddings
    states = [2 * rng.standard_normal((21, 16)) for _ in texts]
    made = quantize_drafter(model, weights, DRAFTER, own, integers, states, texts, 3)
    ops = IntegerOps(made.joined(integers))
    encoding = integers.encoding("decoder.final_norm")
    q = np.clip(np.round(hidden / encoding.scale), -32767, 32767).astype(np.int16)
    exact = ReferenceOps(weights | own)
    near = hidden.dtype.type(encoding.scale) * q
    search = Search(beam_width=1, draft_len=2, keep_log_probs=True)
    ours = draft(ops, model, DRAFTER, Quantized(q, encoding), token, search)
    theirs = draft(exact, model, DRAFTER, near, token, search)
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    np.testing.assert_allclose(ours.log_probs, theirs.log_probs, atol=0.01)


def test_apples_names_are_read_and_others_refused() -> None:
    names = {
        "lm_head.0.linear.weight": (6, 6),
        "lm_head.0.linear.bias": (6,),
        "lm_head.1.weight": (9, 6),
        "rnn_u.weight": (3, 3),
        "rnn_u.bias": (3,),
        "rnn_w.weight": (3, 3),
    }
    tensors = {name: np.zeros(shape, np.float32) for name, shape in names.items()}
    drafter, weights = read_apple_drafter(tensors)
    assert drafter == DrafterConfig(d_model=3, vocab_size=9, d_exit=6, n_blocks=1, rnn=True)
    assert set(weights) == set(drafter_shapes(drafter))
    with pytest.raises(WeightsError, match="Apple's names, got 'emb_norm'"):
        read_apple_drafter(tensors | {"emb_norm": np.zeros(3)})
    with pytest.raises(WeightsError, match="must have a head"):
        read_apple_drafter({k: v for k, v in tensors.items() if k != "lm_head.1.weight"})
    with pytest.raises(WeightsError, match=r"rnn_w\.bias"):
        read_apple_drafter({k: v for k, v in tensors.items() if k != "rnn_u.bias"})


def test_a_configuration_is_read_back_or_refused() -> None:
    assert DrafterConfig.from_json(DRAFTER.to_json()) == DRAFTER
    for text in ("{", "[1]", '{"d_model": 3}', "3"):
        with pytest.raises(ConfigError):
            DrafterConfig.from_json(text)
    for change in ({"d_exit": 0}, {"n_blocks": -1}):
        with pytest.raises(ConfigError):
            replace(DRAFTER, **change)
    with pytest.raises(InputError, match="draft_len must be a whole number from 1 to 64, got 0"):
        Search(draft_len=0)


# -- drawings --------------------------------------------------------------------------------------


def test_a_tree_is_drawn_as_text_and_as_a_picture(tmp_path: Path) -> None:
    beams = np.array([[[7, 1, 2], [7, 1, 4], [7, 5, 6]]])
    tree = pack(beams)
    text = tree_text(tree, beams, kept=(0, 1), name="t{}".format)
    assert text.splitlines() == [
        "  0  t7 *",
        "  1  ├─ t1 *",
        "  2  │  ├─ t2",
        "  3  │  └─ t4",
        "  4  └─ t5",
        "  5     └─ t6",
    ]
    plot_tree(tree, beams, (0, 1), tmp_path / "tree.png")
    assert (tmp_path / "tree.png").read_bytes().startswith(b"\x89PNG")
