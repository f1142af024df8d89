"""Laws of the forward pass on the reference executor, bit for bit, over random configurations."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from strategies import Rows, dtypes, model_configs, random_weights, rows_of, seeds

from mu_ref.config import ModelConfig
from mu_ref.model import mu
from mu_ref.model.cache import Cache, Memory
from mu_ref.model.decoder import decode
from mu_ref.model.encoder import encode
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.tape import TapeOps
from mu_ref.presets import tiny

DECODERS = ("encoder-decoder", "decoder-only")
ENCODERS = ("encoder-decoder", "encoder-only")


@dataclass
class Case:
    """A random model with a batch for each of its stacks."""

    model: ModelConfig
    ops: ReferenceOps
    source: Rows | None
    target: Rows | None


@st.composite
def cases(draw: Any, kinds: tuple[str, ...] = (*DECODERS, "encoder-only"), **fixed: Any) -> Case:
    model = draw(model_configs(kinds, **fixed))
    n_rows = draw(st.integers(1, 4))
    source = target = None
    if model.encoder is not None:
        rows = model.encoder_vocab_size if model.decoder else model.vocab_size
        source = draw(rows_of(rows, n_rows))
    if model.decoder is not None:
        target = draw(rows_of(model.vocab_size, n_rows))
    dtype = draw(dtypes)
    return Case(model, ReferenceOps(random_weights(model, draw(seeds)), dtype), source, target)


def memory_of(case: Case, source: Rows | None) -> Memory | None:
    if source is None:
        return None
    return mu.remember(case.ops, case.model, source.tokens, source.valid)


def results(case: Case, source: Rows | None, target: Rows | None) -> np.ndarray:
    """Return logits, or the encoder's output where there is no decoder."""
    if target is None:
        assert source is not None
        return encode(case.ops, case.model, source.tokens, source.valid)
    memory = memory_of(case, source)
    hidden = decode(case.ops, case.model, target.tokens, target.valid, memory)
    return mu.logits(case.ops, case.model, hidden)


def chosen(rows: Rows | None, index: Any) -> Rows | None:
    return None if rows is None else Rows(rows.tokens[index], rows.valid[index])


def widened(rows: Rows | None, extra: int, token: int) -> Rows | None:
    if rows is None:
        return None
    at = ((0, 0), (0, extra))
    return Rows(np.pad(rows.tokens, at, constant_values=token), np.pad(rows.valid, at))


def trimmed(rows: Rows | None) -> Rows | None:
    if rows is None:
        return None
    n = max(rows.lengths)
    return Rows(rows.tokens[:, :n], rows.valid[:, :n])


def valid_of(case: Case) -> np.ndarray:
    rows = case.source if case.target is None else case.target
    assert rows is not None
    return rows.valid


# -- cached decoding -------------------------------------------------------------------------------


@given(cases(DECODERS), st.lists(st.integers(1, 3), min_size=7, max_size=7))
def test_cached_decoding_equals_full_recomputation_at_every_step(
    case: Case, chunks: list[int]
) -> None:
    assert case.target is not None
    memory = memory_of(case, case.source)
    tokens, valid = case.target.tokens, case.target.valid
    cache = Cache.empty(len(tokens), case.model.stacks["decoder"].n_layers)
    done = 0
    for chunk in chunks:
        end = min(done + chunk, tokens.shape[1])
        if end == done:
            break
        part = slice(done, end)
        hidden = decode(case.ops, case.model, tokens[:, part], valid[:, part], memory, cache)
        step = mu.logits(case.ops, case.model, hidden)
        full = results(case, case.source, Rows(tokens[:, :end], valid[:, :end]))
        assert step.dtype == case.ops.dtype
        np.testing.assert_array_equal(step, full[:, part])
        done = end


@given(cases(DECODERS), st.data())
def test_cached_decoding_equals_full_recomputation_with_holes_in_a_row(
    case: Case, data: st.DataObject
) -> None:
    assert case.target is not None
    memory = memory_of(case, case.source)
    tokens = case.target.tokens
    valid = np.random.default_rng(data.draw(seeds)).random(tokens.shape) < 0.6
    cache = Cache.empty(len(tokens), case.model.stacks["decoder"].n_layers)
    for end in range(1, tokens.shape[1] + 1):
        part = slice(end - 1, end)
        step = decode(case.ops, case.model, tokens[:, part], valid[:, part], memory, cache)
        full = decode(case.ops, case.model, tokens[:, :end], valid[:, :end], memory)
        np.testing.assert_array_equal(step, full[:, part])


def test_ntk_scaling_acts_while_decoding() -> None:
    """Without this, the law above could hold with an NTK factor that nothing reads."""
    plain = tiny()
    scaled = tiny(rope_ntk_factor=4.0, rope_base_len=3)
    ops = ReferenceOps(random_weights(plain, 0), np.float64)
    tokens = np.array([[1, 7, 9, 11, 13]])
    source = np.array([[5, 6]])
    both = [mu.forward(ops, c, source, source > 0, tokens) for c in (plain, scaled)]
    assert not np.allclose(both[0][:, 4], both[1][:, 4])
    shorter = [mu.forward(ops, c, source, source > 0, tokens[:, :3]) for c in (plain, scaled)]
    np.testing.assert_array_equal(shorter[0], shorter[1])


# -- a row does not see its neighbours -------------------------------------------------------------


@given(cases(rope_length="row"))
def test_a_row_of_a_batch_equals_the_same_row_alone(case: Case) -> None:
    batch = results(case, case.source, case.target)
    for row in range(len(batch)):
        alone = [trimmed(chosen(rows, [row])) for rows in (case.source, case.target)]
        n = max(alone[-1 if case.target else 0].lengths)  # type: ignore[union-attr]
        result = results(case, *alone)
        assert result.shape[1] == n
        np.testing.assert_array_equal(batch[row, :n], result[0])


@given(cases())
def test_a_row_equals_the_same_row_alone_under_the_same_padding(case: Case) -> None:
    batch = results(case, case.source, case.target)
    for row in range(len(batch)):
        alone = results(case, chosen(case.source, [row]), chosen(case.target, [row]))
        np.testing.assert_array_equal(batch[row], alone[0])


@given(cases(), seeds)
def test_permuting_the_rows_permutes_the_results(case: Case, seed: int) -> None:
    batch = results(case, case.source, case.target)
    order = np.random.default_rng(seed).permutation(len(batch))
    permuted = results(case, chosen(case.source, order), chosen(case.target, order))
    np.testing.assert_array_equal(permuted, batch[order])


@given(cases(rope_length="row"), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))
def test_padding_on_the_right_never_changes_a_row(
    case: Case, n_source: int, n_target: int, token: int
) -> None:
    before = results(case, case.source, case.target)
    wider = [widened(case.source, n_source, token), widened(case.target, n_target, token)]
    after = results(case, *wider)[:, : before.shape[1]]
    valid = valid_of(case)
    np.testing.assert_array_equal(before[valid], after[valid])


@given(cases(), seeds)
def test_masked_tokens_do_not_matter(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def scrambled(rows: Rows | None, vocab_size: int) -> Rows | None:
        if rows is None:
            return None
        others = rng.integers(0, vocab_size, rows.tokens.shape)
        return Rows(np.where(rows.valid, rows.tokens, others), rows.valid)

    before = results(case, case.source, case.target)
    model = case.model
    source_vocab = model.encoder_vocab_size if model.decoder else model.vocab_size
    source = scrambled(case.source, source_vocab)
    after = results(case, source, scrambled(case.target, model.vocab_size))
    valid = valid_of(case)
    np.testing.assert_array_equal(before[valid], after[valid])


def test_with_ntk_scaling_and_padded_lengths_the_result_depends_on_padding() -> None:
    """That is what rope_length "padded" means, and what the public Mu code does."""
    model = tiny(rope_ntk_factor=4.0, rope_base_len=4, rope_length="padded")
    row = replace(
        model,
        encoder=replace(model.encoder, rope_length="row"),
        decoder=replace(model.decoder, rope_length="row"),
    )
    ops = ReferenceOps(random_weights(model, 0), np.float64)
    source = np.array([[5, 6, 7, 8]])
    padded = np.array([[5, 6, 7, 8, 0, 0]])
    ours = [encode(ops, model, s, s > 0)[:, :4] for s in (source, padded)]
    assert not np.allclose(ours[0], ours[1], atol=1e-6)
    by_row = [encode(ops, row, s, s > 0)[:, :4] for s in (source, padded)]
    np.testing.assert_array_equal(by_row[0], by_row[1])
    np.testing.assert_array_equal(by_row[0], ours[0])


# -- order -----------------------------------------------------------------------------------------


@given(cases(DECODERS), st.data())
def test_causal_mask_hides_the_future(case: Case, data: st.DataObject) -> None:
    assert case.target is not None
    n_tok = case.target.tokens.shape[1]
    seen = data.draw(st.integers(0, n_tok))
    future = np.random.default_rng(data.draw(seeds)).integers(
        0, case.model.vocab_size, case.target.tokens.shape
    )
    changed = np.where(np.arange(n_tok) < seen, case.target.tokens, future)
    before = results(case, case.source, case.target)
    after = results(case, case.source, Rows(changed, case.target.valid))
    np.testing.assert_array_equal(before[:, :seen], after[:, :seen])


@given(cases(DECODERS, rope_ntk_factor=1.0), st.data())
def test_a_prefix_scores_as_it_does_in_the_whole(case: Case, data: st.DataObject) -> None:
    assert case.target is not None
    seen = data.draw(st.integers(1, case.target.tokens.shape[1]))
    whole = results(case, case.source, case.target)
    prefix = results(
        case, case.source, Rows(case.target.tokens[:, :seen], case.target.valid[:, :seen])
    )
    np.testing.assert_array_equal(whole[:, :seen], prefix)


@pytest.mark.parametrize("changed", [0, 1, 2, 3])
def test_an_encoder_token_reads_both_sides_and_a_decoder_token_the_past(changed: int) -> None:
    model = tiny()
    ops = ReferenceOps(random_weights(model, 3), np.float64)
    tokens = np.array([[5, 6, 7, 8]])
    other = tokens.copy()
    other[0, changed] = 9
    valid = tokens > 0
    moved = encode(ops, model, tokens, valid) != encode(ops, model, other, valid)
    assert moved.any(axis=-1)[0].tolist() == [True] * 4
    scores = [mu.forward(ops, model, tokens, valid, t) for t in (tokens, other)]
    assert (scores[0] != scores[1]).any(axis=-1)[0].tolist() == [i >= changed for i in range(4)]


# -- the other executor ----------------------------------------------------------------------------


@given(cases())
def test_the_tape_computes_what_the_reference_computes(case: Case) -> None:
    weights = {name: w.astype(np.float64) for name, w in case.ops.weights.items()}
    reference = replace(case, ops=ReferenceOps(weights, np.float64))
    tape = TapeOps(weights)
    note(case.model)
    expected = results(reference, case.source, case.target)
    if case.target is None:
        assert case.source is not None
        node = encode(tape, case.model, case.source.tokens, case.source.valid)
    else:
        arrays = (None, None)
        if case.source is not None:
            arrays = (case.source.tokens, case.source.valid)
        node = mu.forward(tape, case.model, *arrays, case.target.tokens, case.target.valid)
    np.testing.assert_allclose(tape.read(node), expected, rtol=1e-10, atol=1e-10)


@given(cases())
def test_every_result_is_a_number(case: Case) -> None:
    assert np.isfinite(results(case, case.source, case.target)).all()
