"""Decoding: greedy equals repeated scoring, rows end on their own, sampling follows its law."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import model_configs, random_weights, rows_of, seeds

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.generate import Sampling, generate, greedy, sample, stream, token_probabilities
from mu_ref.model import mu
from mu_ref.model.decoder import decode
from mu_ref.ops.fast.floats import FastOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.presets import tiny
from mu_ref.redrafter.beams import Beams
from mu_ref.redrafter.generate import speculate

OPS = ReferenceOps({}, np.float64)
TWIN = replace(tiny(), encoder=None)  # decoder-only
NO_EOS = None


def small(model: ModelConfig, seed: int = 0) -> ReferenceOps:
    return ReferenceOps(random_weights(model, seed), np.float64)


def n_replayed(ops: FastOps) -> int:
    """Count the passes of the decoder that the executor knew from earlier ones."""
    return sum(script.n_replayed for script in ops._scripts.known.values())


def by_full_recomputation(ops, model, source, prompt: list[int], limit: int) -> list[int]:
    """Score the whole text anew for every token: what decoding means, in four lines."""
    text = list(prompt)
    while len(text) < len(prompt) + limit:
        tokens = np.array([text])
        arrays = (None, None) if source is None else (source, np.ones(source.shape, bool))
        scores = mu.forward(ops, model, *arrays, tokens)
        new = int(np.flatnonzero(scores[0, -1] == scores[0, -1].max())[0])
        if new in model.eos_ids:
            break
        text.append(new)
    return text[len(prompt) :]


@settings(max_examples=60)
@given(model_configs(("encoder-decoder",), rope_length="row"), st.data())
def test_greedy_decoding_of_a_batch_equals_scoring_each_row_anew(
    model: ModelConfig, data: st.DataObject
) -> None:
    ops = small(model, data.draw(seeds))
    source = data.draw(rows_of(model.encoder_vocab_size))
    rows = generate(ops, model, source.tokens, source.valid, 5)
    for tokens, n, row in zip(source.tokens, source.lengths, rows, strict=True):
        alone = tokens[None, :n]
        assert row == by_full_recomputation(ops, model, alone, [model.bos_id], 5)


@settings(max_examples=60)
@given(model_configs(("decoder-only",), rope_length="row"), st.data())
def test_prompts_of_unequal_length_continue_as_each_alone(
    model: ModelConfig, data: st.DataObject
) -> None:
    model = replace(model, mask_decoder_pads=False)  # a pad id in a prompt is a token like others
    ops = small(model, data.draw(seeds))
    prompt = data.draw(rows_of(model.vocab_size))
    rows = generate(ops, model, None, None, 5, prompt=prompt.tokens, prompt_valid=prompt.valid)
    for tokens, n, row in zip(prompt.tokens, prompt.lengths, rows, strict=True):
        assert row == by_full_recomputation(ops, model, None, tokens[:n].tolist(), 5)


def test_a_pad_that_the_model_writes_hides_itself_where_pads_are_masked() -> None:
    model, ops, prompt = scripted(6)
    free = generate(ops, model, None, None, 5, prompt=prompt)
    pad_id = free[0][0]  # written in row 0 first of all
    masked = replace(model, pad_id=pad_id, mask_decoder_pads=True)
    unmasked = replace(masked, mask_decoder_pads=False)
    steps = list(stream(ops, masked, None, prompt, np.ones(prompt.shape, bool), 5))
    text = prompt
    for step in steps:
        scores = mu.forward(ops, masked, None, None, text)
        np.testing.assert_array_equal(step.logits, scores[:, -1])
        text = np.concatenate([text, step.tokens[:, None]], axis=1)
    seen = mu.forward(ops, unmasked, None, None, text[:, :-1])
    assert not np.allclose(seen[0, -1], steps[-1].logits[0])


# -- ending ----------------------------------------------------------------------------------------


def scripted(n_rows: int, seed: int = 1) -> tuple[ModelConfig, ReferenceOps, np.ndarray]:
    """Return a decoder-only model and prompts whose rows write different tokens."""
    prompt = np.arange(5, 5 + n_rows)[:, None]
    return replace(TWIN, eos_id=NO_EOS), small(TWIN, seed), prompt


def test_a_row_stops_at_eos_and_the_others_go_on() -> None:
    model, ops, prompt = scripted(6)
    free = generate(ops, model, None, None, 8, prompt=prompt)
    assert [len(row) for row in free] == [8] * 6
    # Whatever row 0 writes as its third token becomes eos.
    eos = free[0][2]
    model = replace(model, eos_id=eos)
    expected = [row[: row.index(eos)] if eos in row else row for row in free]
    assert len({len(row) for row in expected}) > 1, "rows must end at different steps"
    assert generate(ops, model, None, None, 8, prompt=prompt) == expected


def test_rows_that_have_ended_give_pads_and_stay_ended() -> None:
    model, ops, prompt = scripted(6)
    free = generate(ops, model, None, None, 8, prompt=prompt)
    model = replace(model, eos_id=free[0][2], pad_id=60)
    valid = np.ones(prompt.shape, bool)
    steps = list(stream(ops, model, None, prompt, valid, 8))
    for row in range(6):
        written = [int(step.tokens[row]) for step in steps]
        ended = [bool(step.ended[row]) for step in steps]
        n = written.index(model.eos_id) if model.eos_id in written else len(written)
        assert written[:n] == free[row][:n]
        assert written[n + 1 :] == [60] * len(written[n + 1 :])
        assert ended == [i >= n for i in range(len(written))]


def test_decoding_ends_when_every_row_has() -> None:
    model, ops, prompt = scripted(1)
    free = generate(ops, model, None, None, 8, prompt=prompt)[0]
    model = replace(model, eos_id=free[3])
    n = free.index(free[3])
    assert len(list(stream(ops, model, None, prompt, prompt > 0, 8))) == n + 1
    on = list(stream(ops, model, None, prompt, prompt > 0, 8, stop_at_eos=False))
    assert [int(step.tokens[0]) for step in on] == free


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_the_limit_is_kept(limit: int) -> None:
    model, ops, prompt = scripted(2)
    assert [len(r) for r in generate(ops, model, None, None, limit, prompt=prompt)] == [limit] * 2


def test_a_stream_computes_a_token_when_it_is_asked_for() -> None:
    class Counting(ReferenceOps):
        n_argmax = 0

        def argmax(self, x, site):
            self.n_argmax += 1
            return super().argmax(x, site)

    model, _, prompt = scripted(1)
    ops = Counting(random_weights(TWIN, 1), np.float64)
    steps = stream(ops, model, None, prompt, prompt > 0, 1000)
    assert ops.n_argmax == 0
    next(steps)
    next(steps)
    assert ops.n_argmax == 2


# -- sampling --------------------------------------------------------------------------------------

P = np.array([0.5, 0.125, 0.25, 0.125])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 0.125, 0.25, 0.125]),
        ({"top_k": 1}, [1, 0, 0, 0]),
        ({"top_k": 2}, [2 / 3, 0, 1 / 3, 0]),
        ({"top_k": 3}, [4 / 7, 1 / 7, 2 / 7, 0]),  # of two equals the lower index stays
        ({"top_k": 99}, [0.5, 0.125, 0.25, 0.125]),
        ({"top_p": 0.4}, [1, 0, 0, 0]),
        ({"top_p": 0.6}, [2 / 3, 0, 1 / 3, 0]),
        ({"top_p": 0.8}, [4 / 7, 1 / 7, 2 / 7, 0]),
        ({"top_p": 0.9}, [0.5, 0.125, 0.25, 0.125]),
        ({"top_p": 1.0}, [0.5, 0.125, 0.25, 0.125]),
        ({"top_k": 2, "top_p": 0.6}, [1, 0, 0, 0]),  # 2/3 of what top_k left
        ({"temperature": 0.5}, [16 / 22, 1 / 22, 4 / 22, 1 / 22]),  # p² / sum p²
        ({"temperature": 1e-3}, [1, 0, 0, 0]),
    ],
)
def test_the_distribution_by_hand(options: dict, expected: list[float]) -> None:
    p = token_probabilities(np.log(P)[None], Sampling(**({"temperature": 1.0} | options)))
    np.testing.assert_allclose(p, [expected], rtol=1e-12, atol=1e-12)


def test_the_smallest_set_that_reaches_top_p_exactly_is_kept() -> None:
    logits = np.zeros((1, 4))  # each has probability 1/4, exactly: two reach 1/2
    p = token_probabilities(logits, Sampling(temperature=1.0, top_p=0.5))
    assert p.tolist() == [[0.5, 0.5, 0, 0]]


def test_frequencies_follow_the_distribution() -> None:
    n, p = 20_000, np.array([0.6, 0.3, 0.1])
    logits = np.broadcast_to(np.log(p), (n, 3))
    drawn = sample(OPS, logits, Sampling(temperature=1.0), np.random.default_rng(0))
    counts = np.bincount(drawn, minlength=3)
    deviation = np.sqrt(n * p * (1 - p))
    assert (np.abs(counts - n * p) < 5 * deviation).all()


def test_a_token_without_probability_is_never_drawn() -> None:
    class Edge:
        """Draws the ends of [0, 1)."""

        def __init__(self, value: float) -> None:
            self.value = value

        def random(self, shape):
            return np.full(shape, self.value)

    logits = np.log(np.array([[0.01, 0.495, 0.495, 0.01]]))
    sampling = Sampling(temperature=1.0, top_k=2)
    for value, token in ((0.0, 1), (0.49, 1), (0.51, 2), (np.nextafter(1.0, 0.0), 2)):
        assert sample(OPS, logits, sampling, Edge(value)).tolist() == [token]


def test_top_k_of_one_equals_greedy_even_on_ties() -> None:
    logits = np.random.default_rng(0).integers(0, 3, (50, 7)).astype(float)
    greedy = sample(OPS, logits, Sampling(), None)
    assert (logits[np.arange(50), greedy] == logits.max(axis=1)).all()
    one = sample(OPS, logits, Sampling(temperature=2.0, top_k=1), np.random.default_rng(1))
    np.testing.assert_array_equal(one, greedy)


def test_the_same_generator_draws_the_same_text() -> None:
    model, ops, prompt = scripted(3)
    hot = Sampling(temperature=1.5, top_k=20, top_p=0.95)

    def text(seed: int) -> list[list[int]]:
        rng = np.random.default_rng(seed)
        return generate(ops, model, None, None, 10, hot, rng, prompt=prompt)

    assert text(0) == text(0)
    assert text(0) != text(1)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -0.1), ("temperature", float("nan")), ("top_k", 0), ("top_p", 0.0),
     ("top_p", 1.1), ("top_p", float("nan")), ("temperature", float("inf")), ("temperature", True),
     ("top_k", 2.5), ("top_k", 2**70), ("top_p", "0.5")],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} must .*got {value!r}"):
        Sampling(**{name: value})


def test_sampling_without_a_generator_is_refused() -> None:
    with pytest.raises(InputError, match="random generator"):
        sample(OPS, np.zeros((1, 3)), Sampling(temperature=1.0), None)


def test_a_decoder_only_model_without_a_prompt_is_refused() -> None:
    with pytest.raises(InputError, match="prompt"):
        generate(small(TWIN), TWIN, None, None, 3)


def test_an_empty_prompt_is_refused() -> None:
    valid = np.array([[True], [False]])
    with pytest.raises(InputError, match="one is empty"):
        generate(small(TWIN), TWIN, None, None, 3, prompt=np.array([[5], [6]]), prompt_valid=valid)


def test_the_logits_of_a_step_can_be_read_when_later_steps_are_done() -> None:
    model = tiny()
    ops = FastOps(random_weights(model, 3))
    source = np.array([[5, 9, 2]])
    memory = mu.remember(ops, model, source, source > 0)
    begin = np.array([[model.bos_id]]), np.ones((1, 1), bool)
    steps, at_once = [], []
    for step in stream(ops, model, memory, *begin, 9, stop_at_eos=False):
        steps.append(step)
        at_once.append(step.logits)
    assert n_replayed(ops) == 6  # all but the prompt, the step after it, and one on a longer cache
    for step, logits in zip(steps, at_once, strict=True):
        np.testing.assert_array_equal(step.logits, logits)


def test_greedy_is_generate_without_sampling() -> None:
    model = tiny()
    source = np.array([[5, 9, 2, 0], [7, 7, 7, 7]])
    asked = (small(model, 4), model, source, source > 0, 6)
    assert greedy(*asked) == generate(*asked)


def test_passes_that_verify_drafts_are_replayed() -> None:
    model = tiny()
    ops = FastOps(random_weights(model, 3))
    source = np.array([[5, 9, 2]])
    memory = mu.remember(ops, model, source, source > 0)
    begin = np.array([[model.bos_id]]), np.ones((1, 1), bool)

    def drafts(hidden: object, tokens: np.ndarray, longest: int) -> Beams:
        return Beams(np.tile(tokens[:, None, None], (1, 1, 3)))  # the same token twice more

    steps = list(speculate(ops, model, drafts, memory, *begin, 40, stop_at_eos=False))
    assert n_replayed(ops) >= len(steps) // 2


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"source": [[3, 4]]}, "source must be integers .* got list"),
        ({"source": np.array([[3.0, 4.0]])}, "source must be integers .* got float64"),
        ({"source": np.array([3, 4])}, r"source must be integers .* \(2,\)"),
        ({"source": np.array([[3, -1]])}, r"source must lie in \[0, 61\), got -1 to 3"),
        ({"source": np.array([[3, 61]])}, r"source must lie in \[0, 61\), got 3 to 61"),
        ({"source_valid": np.array([[1, 1]])}, "source_valid must be booleans .* got int64"),
        ({"source_valid": np.array([[True]])}, r"source_valid must be .* got bool \(1, 1\)"),
        ({"source_valid": np.array([[False, False]])}, "every source must hold at least one token"),
        ({"prompt": np.array([[61]])}, r"prompt must lie in \[0, 61\), got 61 to 61"),
        ({"prompt_valid": np.array([[1]])}, "prompt_valid must be booleans"),
        ({"max_new_tokens": 10**9}, "max_new_tokens must be .* would take hours"),
        ({"max_new_tokens": -1}, "max_new_tokens must be a whole number from 0"),
        ({"max_new_tokens": 1.0}, "max_new_tokens must be a whole number"),
        ({"model": replace(tiny(), decoder=None)}, "tiny must have a decoder to write text"),
        ({"model": TWIN}, "tiny must have an encoder to read a source"),
    ],
)
def test_what_is_no_token_of_the_model_is_refused(changes: dict, rule: str) -> None:
    source = np.array([[3, 4]])
    given = {"model": tiny(), "source": source, "source_valid": source > 0, "max_new_tokens": 2}
    with pytest.raises(InputError, match=rule):
        generate(small(tiny()), **(given | changes))


def test_a_text_goes_on_behind_its_last_token_whatever_was_hidden_before() -> None:
    ops, prompt, valid = (
        small(TWIN),
        np.array([[5, 9, 7, 3]]),
        np.array([[True, False, True, True]]),
    )
    first = next(stream(ops, TWIN, None, prompt, valid, 1))
    hidden = decode(ops, TWIN, prompt, valid, None)
    np.testing.assert_allclose(first.logits[0], mu.logits(ops, TWIN, hidden)[0, 3], rtol=1e-9)
    shorter = next(stream(ops, TWIN, None, prompt, valid & [True, True, True, False], 1))
    np.testing.assert_allclose(shorter.logits[0], mu.logits(ops, TWIN, hidden)[0, 2], rtol=1e-9)


def test_a_step_under_another_angle_is_none_that_was_done_before() -> None:
    """Once NTK changes theta, all tokens are computed again, so nothing may be repeated."""

    class Noting(ReferenceOps):
        n_repeatable = 0

        def repeat(self, *given):
            self.n_repeatable += 1
            return super().repeat(*given)

    stack = replace(TWIN.decoder, rope_ntk_factor=4.0, rope_base_len=4)
    model = replace(TWIN, decoder=stack, eos_id=NO_EOS)
    ops = Noting(random_weights(model, 0), np.float64)
    for n, _ in enumerate(stream(ops, model, None, np.array([[5]]), np.ones((1, 1), bool), 8), 1):
        assert ops.n_repeatable == min(n, 4)
