"""Sampling with drafts draws from the model's own distribution; Apple's rule does not.

A decoder whose layers see one token only is a Markov chain, so the probability of every text can be
written down. Three drafters propose two beams of two tokens: the likeliest texts of the true chain,
of a similar one, and of one that likes what is unlikely.
"""

from dataclasses import replace

import numpy as np
import pytest

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.generate import Sampling
from mu_ref.model import mu
from mu_ref.model.decoder import decode
from mu_ref.ops.reference import ReferenceOps
from mu_ref.presets import preset, tiny
from mu_ref.redrafter.apple import accept_apple
from mu_ref.redrafter.beams import Beams
from mu_ref.redrafter.generate import speculate
from mu_ref.redrafter.steps import Statistics
from mu_ref.weights import initial_weights

N_DRAWS, PART, VOCAB, WIDTH, LENGTH = 200_000, 10_000, 5, 2, 2
START = 3
DRAFTERS = ("perfect", "good", "bad")


def markov_model() -> tuple[ModelConfig, ReferenceOps]:
    stack = preset("decoder-only-330m").stacks["decoder"]
    small = tiny().stacks["decoder"]
    decoder = replace(
        small, n_layers=1, window=1, windowed_layers=(True,), norm_placement=stack.norm_placement,
        d_model=4, d_ff=4, n_heads=1, n_kv_heads=1, d_head=2,
    )  # fmt: skip
    model = replace(
        tiny(), encoder=None, decoder=decoder, vocab_size=VOCAB, encoder_vocab_size=VOCAB,
        pad_id=0, bos_id=1, eos_id=2, mask_decoder_pads=False,
    )  # fmt: skip
    return model, ReferenceOps(initial_weights(model, np.random.default_rng(6), std=0.8))


@pytest.fixture(scope="module")
def chain() -> tuple[ModelConfig, ReferenceOps, np.ndarray]:
    """The model, and P[x, y], the probability of y after x."""
    model, ops = markov_model()
    tokens = np.arange(VOCAB)[:, None]
    hidden = decode(ops, model, tokens, np.ones(tokens.shape, bool), None)
    logits = mu.logits(ops, model, hidden)[:, 0].astype(np.float64)
    p = np.exp(logits)
    return model, ops, p / p.sum(axis=1, keepdims=True)


def drafter_of(kind: str, p: np.ndarray) -> np.ndarray:
    """The chain that a drafter believes in."""
    if kind == "perfect":
        return p
    other = np.random.default_rng(1).random(p.shape) if kind == "good" else p.max() * 1.05 - p
    q = p + 0.3 * other / other.sum(axis=1, keepdims=True) if kind == "good" else other
    return q / q.sum(axis=1, keepdims=True)


def best_beams(q: np.ndarray) -> np.ndarray:
    """For each token its two likeliest continuations: [VOCAB, WIDTH, LENGTH + 1]."""
    beams = np.empty((VOCAB, WIDTH, LENGTH + 1), np.int64)
    for x in range(VOCAB):
        pairs = (q[x][:, None] * q).ravel()
        for w, best in enumerate(np.argsort(-pairs, kind="stable")[:WIDTH]):
            beams[x, w] = (x, best // VOCAB, best % VOCAB)
    return beams


def three_tokens(p: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Exact probability of (a, b, c) where `before` is the distribution of the token before a."""
    return (before @ p)[:, None, None] * p[:, :, None] * p[None, :, :]


def chi_square_z(drawn: np.ndarray, p: np.ndarray) -> float:
    """How many deviations the chi-square statistic is too large (Wilson and Hilferty)."""
    index = (drawn[:, 0] * VOCAB + drawn[:, 1]) * VOCAB + drawn[:, 2]
    seen = np.bincount(index, minlength=VOCAB**3).astype(float)
    expected = len(drawn) * p.ravel()
    rare = expected < 5
    seen = np.append(seen[~rare], seen[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    keep = expected > 0
    statistic = ((seen - expected)[keep] ** 2 / expected[keep]).sum()
    k = keep.sum() - 1
    return float(((statistic / k) ** (1 / 3) - (1 - 2 / (9 * k))) / np.sqrt(2 / (9 * k)))


def drawn_by_speculation(
    model: ModelConfig, ops: ReferenceOps, beams: np.ndarray, seed: int
) -> np.ndarray:
    """Tokens 2 to 4 of every text: the first ones that drafts may touch."""
    prompt, rng = np.full((PART, 1), START), np.random.default_rng(seed)
    parts = []
    for _ in range(N_DRAWS // PART):
        texts, done = np.zeros((PART, 4), np.int64), np.zeros(PART, np.int64)
        for step in speculate(
            ops, model, lambda _, token, longest: Beams(beams[token][:, :, : longest + 1]), None,
            prompt, np.ones(prompt.shape, bool), 4, Sampling(temperature=1.0), rng,
            stop_at_eos=False,
        ):  # fmt: skip
            for i in range(step.tokens.shape[1]):
                rows = np.flatnonzero(i < step.n_tokens)
                texts[rows, done[rows] + i] = step.tokens[rows, i]
            done += step.n_tokens
        assert (done == 4).all()
        parts.append(texts[:, 1:])
    return np.concatenate(parts)


@pytest.mark.parametrize("kind", DRAFTERS)
def test_sampling_with_drafts_has_the_models_distribution(
    chain: tuple[ModelConfig, ReferenceOps, np.ndarray], kind: str
) -> None:
    model, ops, p = chain
    drawn = drawn_by_speculation(model, ops, best_beams(drafter_of(kind, p)), seed=11)
    assert chi_square_z(drawn, three_tokens(p, p[START])) < 3


def test_apples_rule_can_be_switched_on_and_is_seen_to_change_the_texts(
    chain: tuple[ModelConfig, ReferenceOps, np.ndarray],
) -> None:
    """The first token is the model's own, the second meets the rule; the drafter is perfect."""
    model, ops, p = chain
    beams, log_q = best_beams(p), np.log(p)
    prompt, rng = np.full((20_000, 1), START), np.random.default_rng(5)

    def drafts(hidden: object, token: np.ndarray, longest: int) -> Beams:
        found = beams[token][:, :, : longest + 1]
        return Beams(found, None, log_q[found[:, :, :-1]])

    texts = {}
    for apple_rule in (False, True):
        steps = speculate(
            ops, model, drafts, None, prompt, np.ones(prompt.shape, bool), 3,
            Sampling(temperature=1.0), rng, stop_at_eos=False, apple_rule=apple_rule,
        )  # fmt: skip
        first, second = next(steps).tokens[:, 0], next(steps).tokens[:, 0]
        texts[apple_rule] = np.stack([first, second, np.zeros_like(first)], axis=1)
    exact = np.zeros((VOCAB,) * 3)
    exact[:, :, 0] = p[START][:, None] * p
    assert chi_square_z(texts[False], exact) < 3
    assert chi_square_z(texts[True], exact) > 20
    full = np.ones((1, 1), bool)
    for sampling in (Sampling(), Sampling(temperature=1.0, top_k=2)):
        with pytest.raises(InputError, match="Apple's rule must sample"):
            next(speculate(ops, model, drafts, None, prompt[:1], full, 3, sampling, rng,
                           apple_rule=True))  # fmt: skip


def drawn_by_apple(p: np.ndarray, q: np.ndarray, seed: int) -> np.ndarray:
    """Three tokens after START with Apple's rule, every draw a row."""
    rng = np.random.default_rng(seed)
    beams_of, log_p, log_q = best_beams(q), np.log(p), np.log(q)
    texts, done = np.zeros((N_DRAWS, 3 + LENGTH), np.int64), np.zeros(N_DRAWS, np.int64)
    last = np.full(N_DRAWS, START)
    while (done < 3).any():
        rows = np.flatnonzero(done < 3)
        beams = beams_of[last[rows]]
        uniform = rng.random((len(rows), WIDTH, LENGTH))
        kept = accept_apple(beams, log_p[beams], log_q[beams[:, :, :-1]], uniform, rng)
        path = beams[np.arange(len(rows)), kept.best_beam]
        for i in range(LENGTH):
            some = np.flatnonzero(i < kept.n_accepted)
            texts[rows[some], done[rows[some]] + i] = path[some, i + 1]
        texts[rows, done[rows] + kept.n_accepted] = kept.next_token
        done[rows] += kept.n_accepted + 1
        last[rows] = kept.next_token
    return texts[:, :3]


@pytest.mark.parametrize("kind", DRAFTERS)
def test_apples_rule_has_another_distribution(
    chain: tuple[ModelConfig, ReferenceOps, np.ndarray], kind: str
) -> None:
    _, _, p = chain
    drawn = drawn_by_apple(p, drafter_of(kind, p), seed=12)
    exact = three_tokens(p, np.eye(VOCAB)[START])
    assert chi_square_z(drawn, exact) > 50


def test_the_statistic_accepts_plain_sampling_and_notices_three_percent() -> None:
    rng, p = np.random.default_rng(0), np.random.default_rng(1).dirichlet(np.ones(VOCAB), VOCAB)
    exact = three_tokens(p, np.eye(VOCAB)[START])

    def draw(weights: np.ndarray) -> np.ndarray:
        index = rng.choice(VOCAB**3, N_DRAWS, p=weights.ravel() / weights.sum())
        return np.stack(np.unravel_index(index, exact.shape), axis=1)

    assert chi_square_z(draw(exact), exact) < 3
    assert chi_square_z(draw(0.97 * exact + 0.03 / VOCAB**3), exact) > 3


def test_drafts_of_a_perfect_drafter_are_kept_more_often_than_those_of_a_bad_one(
    chain: tuple[ModelConfig, ReferenceOps, np.ndarray],
) -> None:
    model, ops, p = chain
    kept = {kind: _kept(model, ops, drafter_of(kind, p)) for kind in DRAFTERS}
    assert kept["perfect"] > kept["bad"] + 0.2


def _kept(model: ModelConfig, ops: ReferenceOps, q: np.ndarray) -> float:
    beams, seen = best_beams(q), Statistics()
    prompt = np.full((2000, 1), START)
    for _ in speculate(
        ops, model, lambda _, token, longest: Beams(beams[token][:, :, : longest + 1]), None,
        prompt, np.ones(prompt.shape, bool), 6, Sampling(temperature=1.0),
        np.random.default_rng(3), stop_at_eos=False, statistics=seen,
    ):  # fmt: skip
        pass
    return seen.mean_accepted
