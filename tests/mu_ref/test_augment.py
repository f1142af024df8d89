"""Augmented queries keep a true label, and the same generator gives the same result."""

import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_ref.settings.calls import parse_call
from mu_ref.settings.catalog import DATA, load_catalog
from mu_ref.settings.queries.augment import (
    AugmentConfig,
    add_filler,
    augment,
    drop_weak_word,
    misspell,
    standard_augmentation,
    swap_words,
    vary_punctuation,
)
from mu_ref.settings.queries.labelled import LabelledQuery, read_queries
from mu_ref.settings.queries.phrases import phrases

CATALOG = load_catalog()
TRAIN = read_queries(DATA / "train.jsonl")
SEEDS = st.integers(0, 2**32 - 1)
ALWAYS = AugmentConfig(
    number=1, synonym=1, spelling=1, contraction=1, filler=1, drop_word=1, punctuation=1,
    typo=1, second_typo=1,
)  # fmt: skip
NEVER = AugmentConfig(
    number=0, synonym=0, spelling=0, contraction=0, filler=0, drop_word=0, punctuation=0,
    typo=0, second_typo=0,
)  # fmt: skip


@given(st.sampled_from(TRAIN), SEEDS, st.sampled_from([ALWAYS, standard_augmentation()]))
def test_augmented_labels_are_calls_that_differ_at_most_in_a_number(
    item: LabelledQuery, seed: int, config: AugmentConfig
) -> None:
    result = augment(item, CATALOG, np.random.default_rng(seed), config)
    parse_call(result.call, CATALOG)
    assert result.query == result.query.lower() != ""
    if result.call != item.call:
        assert CATALOG.lookup(parse_call(item.call, CATALOG).setting_id).kind == "level"
        assert re.sub(r"[0-9]", "", result.call) == re.sub(r"[0-9]", "", item.call)


@given(st.sampled_from(TRAIN), SEEDS)
def test_the_same_generator_gives_the_same_result(item: LabelledQuery, seed: int) -> None:
    first, second = (augment(item, CATALOG, np.random.default_rng(seed), ALWAYS) for _ in "ab")
    assert first == second


@given(st.sampled_from(TRAIN), SEEDS)
def test_without_any_change_only_case_is_lost(item: LabelledQuery, seed: int) -> None:
    result = augment(item, CATALOG, np.random.default_rng(seed), NEVER)
    assert (result.query, result.call) == (item.query.lower(), item.call)


@given(st.sampled_from(TRAIN), SEEDS)
def test_digits_change_only_where_the_call_says_so(item: LabelledQuery, seed: int) -> None:
    result = augment(item, CATALOG, np.random.default_rng(seed), ALWAYS)
    before, after = (re.findall(r"[0-9]+", query) for query in (item.query, result.query))
    if result.call == item.call and number_of(item.call) is None:
        assert after == before


def number_of(call: str) -> int | None:
    match = re.search(r", ([0-9]+)\)$", call)
    return int(match[1]) if match else None


def outcomes(function: object, query: str, n: int = 300) -> set[str]:
    assert callable(function)
    return {function(query, np.random.default_rng(seed)) for seed in range(n)}


def test_misspelling_spares_short_words_digits_and_negations() -> None:
    assert outcomes(misspell, "don't disable 4x4 hdr off 1920x1080 never") == {
        "don't disable 4x4 hdr off 1920x1080 never"
    }


def test_misspelling_is_one_slip_of_one_letter() -> None:
    found = outcomes(misspell, "wifi")
    assert {"wfi", "wiffi", "wiif", "wufi"} <= found
    assert all(2 < len(word) < 6 and word[0] == "w" for word in found)


def test_only_weak_words_are_dropped() -> None:
    assert outcomes(drop_weak_word, "turn the brightness up by 10") == {"turn brightness up by 10"}
    assert outcomes(drop_weak_word, "not by 10 to 20") == {"not by 10 to 20"}


def test_fillers_surround_the_query() -> None:
    assert all("where is bluetooth" in text for text in outcomes(add_filler, "where is bluetooth"))
    assert "can you turn it off" in outcomes(add_filler, "turn it off")
    assert not any(t.startswith("can you") for t in outcomes(add_filler, "where is bluetooth"))


def test_punctuation_never_touches_a_number() -> None:
    for text in outcomes(vary_punctuation, "isn't it 1,000, or 4.5?"):
        assert re.findall(r"[0-9][0-9.,]*[0-9]", text) == ["1,000", "4.5"]


@pytest.mark.parametrize(
    ("query", "call", "found"),
    [
        ("turn on wifi", "set(wifi, on)", "enable wi-fi"),
        ("make the screen brighter", "increase(display.brightness)", "make the monitor brighter"),
        ("where do i change volume", "open(sound.volume)", "how do i change volume"),
    ],
)
def test_synonyms_reach_other_wordings(query: str, call: str, found: str) -> None:
    assert found in {
        swap_words(query, call, phrases().synonyms, 0.8, np.random.default_rng(seed))
        for seed in range(300)
    }


@pytest.mark.parametrize(
    ("query", "call"),
    [
        ("use only the monitor", "set(display.multiple, external_only)"),
        ("turn off the sound", "set(sound.mute, on)"),
        ("turn on the screen reader", "open(narrator)"),
        ("on-screen keyboard", "open(keyboard.on_screen)"),
        ("minimum brightness", "set(display.brightness, 0)"),
    ],
)
def test_synonyms_leave_alone_what_would_change_the_call(query: str, call: str) -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        assert swap_words(query, call, phrases().synonyms + phrases().spellings, 1.0, rng) == query


def test_contractions_go_both_ways() -> None:
    found = {
        swap_words(
            "i don't like it", "none()", phrases().contractions, 1.0, np.random.default_rng(seed)
        )
        for seed in range(40)
    }
    assert found == {"i don't like it", "i do not like it", "i dont like it"}


def test_an_epoch_is_augmented_in_seconds() -> None:
    rng = np.random.default_rng(0)
    start = time.process_time()
    for item in TRAIN[:3000]:
        augment(item, CATALOG, rng)
    assert (time.process_time() - start) / 3000 < 1e-3  # measured 4e-5 s; room for a busy machine


def test_a_call_too_short_to_hold_a_number_stays() -> None:
    for call in ("7", ""):  # of a user's file: reported, not refused
        item = LabelledQuery(query="make it 7", call=call)
        assert augment(item, CATALOG, np.random.default_rng(0)).call == call
