"""A search finds the texts of a trie with their probabilities, whatever is searched beside them."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import model_configs, quantized, random_weights, rows_of, seeds

from mu_ref.config import ModelConfig
from mu_ref.model import mu
from mu_ref.model.decoder import decode
from mu_ref.ops import Ops
from mu_ref.ops.fast.floats import FastOps
from mu_ref.ops.fast.integers import FastIntegerOps
from mu_ref.ops.integer import IntegerOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.presets import tiny
from mu_ref.settings.valid.search import log_probabilities, search
from mu_ref.settings.valid.trie import Trie


def executors(model: ModelConfig, name: str, seed: int) -> list[Ops]:
    """Return the executors of a scheme that must give the same candidates."""
    weights = random_weights(model, seed, np.float32)
    if name in ("reference", "fast"):
        return [{"reference": ReferenceOps, "fast": FastOps}[name](weights)]
    integers = quantized(model, weights, seed, scheme=name)
    return [IntegerOps(integers), FastIntegerOps(integers)]


@st.composite
def cases(draw: Any) -> Any:
    drawn = draw(model_configs(("encoder-decoder",)))
    # what a tree of texts cannot have: pads that nobody reads, other turns in longer texts
    model = replace(drawn, unseeing="zero", mask_decoder_pads=False)
    stack = model.stacks["decoder"]
    if stack.rope_ntk_factor > 1:
        model = replace(model, decoder=replace(stack, rope_base_len=max(stack.rope_base_len, 7)))
    name, seed = draw(st.sampled_from(["reference", "fast", "w8a16", "w8a8"])), draw(seeds)
    rows = draw(rows_of(model.encoder_vocab_size, draw(st.integers(1, 3))))
    token = st.integers(0, model.vocab_size - 1).filter(lambda t: t not in model.eos_ids)
    path = st.lists(token, min_size=1, max_size=4).map(lambda p: (*p, model.eos_ids[0]))
    paths = [draw(st.lists(path, min_size=1, max_size=5, unique=True)) for _ in rows.tokens]
    return model, executors(model, name, seed), rows, paths


def by_hand(model: ModelConfig, ops: Ops, memory: Any, paths: Any) -> dict[Any, float]:
    """The chain rule over whole texts, each decoded by itself without a cache or a tree."""
    found = {}
    for path in paths:
        read = np.array([[model.bos_id, *path[:-1]]])
        hidden = decode(ops, model, read, np.ones(read.shape, bool), memory)
        logits = ops.read(mu.logits(ops, model, hidden))[0].astype(np.float64)
        log_p = 0.0
        for k, token in enumerate(path):
            allowed = sorted({p[k] for p in paths if p[:k] == path[:k] and len(p) > k})
            weights = np.exp(logits[k, allowed] - logits[k, allowed].max())
            log_p += np.log(weights[allowed.index(token)] / weights.sum())
        found[path] = log_p
    return found


@settings(max_examples=20)
@given(cases())
def test_a_wide_search_finds_every_text_with_its_probability(case: Any) -> None:
    model, (ops, *others), rows, paths = case
    tries = [Trie.of(row) for row in paths]
    memory = mu.remember(ops, model, rows.tokens, rows.valid)
    found = search(ops, model, memory, tries, 8)
    for i, row in enumerate(paths):
        alone = mu.remember(ops, model, rows.tokens[i : i + 1], rows.valid[i : i + 1])
        expected = by_hand(model, ops, alone, row)
        assert {c.tokens for c in found[i]} == set(expected)
        for c in found[i]:
            np.testing.assert_allclose(c.log_p, expected[c.tokens], rtol=1e-9, atol=1e-9)
        assert abs(sum(np.exp(c.log_p) for c in found[i]) - 1) < 1e-9
        assert search(ops, model, alone, [tries[i]], 8) == [found[i]]  # in any batch, bit for bit
    for other in others:  # and on any executor of the scheme
        read = mu.remember(other, model, rows.tokens, rows.valid)
        assert search(other, model, read, tries, 8) == found
    best = search(ops, model, memory, tries, 1)
    assert all(len(row) == 1 for row in best)


def test_branches_of_a_search_do_not_see_each_other() -> None:
    model = tiny()
    ops = ReferenceOps(random_weights(model, 3, np.float64))
    end = model.eos_ids[0]
    paths = [(5, 6, 7, 9, end), (5, 8, 9, 10, end), (11, 12, 13, 6, end), (11, 5, 8, 7, end)]
    source = np.array([[4, 9, 6]])
    memory = mu.remember(ops, model, source, source > 0)
    expected = by_hand(model, ops, memory, paths)
    (found,) = search(ops, model, memory, [Trie.of(paths)], 4)
    assert {c.tokens: c.log_p for c in found} == pytest.approx(expected, rel=1e-9)


def test_log_probabilities_add_up_in_the_order_of_the_tokens() -> None:
    logits = np.array([0.0, 2.0, 1.0, -3.0], np.float32)
    found = log_probabilities(logits, [1, 2, 3])
    total = sum(np.exp(np.float64(x) - 2) for x in (2.0, 1.0, -3.0))
    np.testing.assert_allclose(found, [0 - np.log(total), -1 - np.log(total), -5 - np.log(total)])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=5))
def test_a_longer_trie_leaves_the_shorter_one_as_it_was(paths: list[tuple[int, int]]) -> None:
    first = Trie.of([(*paths[0], 9)])
    before = [dict(children) for children in first.children]
    more = first.with_paths([(*path, 9) for path in paths])
    assert first.children == before
    for a, b in itertools.product(range(3), repeat=2):
        end = more.follow(more.follow(more.follow(0, a), b), 9)
        node = more.children[more.follow(0, a)].get(b)
        assert ((a, b) in paths) == (node is not None)
        assert end == 1  # an end, or astray
