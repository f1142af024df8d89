"""What each random draw decides in the queries made for training, with the draws written out.

A generator that deals from a list takes the place of NumPy's, so that every probability and every
choice shows at the number where it changes. What is left in the list at the end is a mistake too.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mu_ref.settings.catalog import Setting, load_catalog
from mu_ref.settings.queries import augment as augmenting
from mu_ref.settings.queries import labelled, training_data
from mu_ref.settings.queries import templates as t
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
from mu_ref.settings.queries.labelled import LabelledQuery, split_key
from mu_ref.settings.queries.number_words import find_number, number_words, pick_level, vary_number
from mu_ref.settings.queries.out_of_scope import out_of_scope_queries
from mu_ref.settings.queries.phrases import phrases
from mu_ref.settings.queries.training_data import epoch_data

CATALOG = load_catalog()
WORDS = phrases()


class Draws:
    """Deals the given numbers, each to `random` or `choice` in turn."""

    def __init__(self, *numbers: Any) -> None:
        self.left = list(numbers)

    def random(self, n: int | None = None) -> Any:
        return self.left.pop(0) if n is None else np.array([self.left.pop(0) for _ in range(n)])

    def choice(self, n: int, size: int | None = None, p: Any = None) -> Any:
        self.p = np.asarray(p)
        assert len(self.p) == n
        assert self.p.sum() == pytest.approx(1)
        return (
            self.left.pop(0) if size is None else np.array([self.left.pop(0) for _ in range(size)])
        )

    def integers(self, low: int, high: int, n: int) -> np.ndarray:
        self.range = (low, high)
        return np.array([self.left.pop(0) for _ in range(n)])


def drawn(function: Callable[..., Any], *arguments: Any, draws: tuple = ()) -> Any:
    rng = Draws(*draws)
    result = function(*arguments, rng)
    assert rng.left == []
    return result


# -- which changes are made ------------------------------------------------------------------------


def test_mu_nano_s_probabilities() -> None:
    assert standard_augmentation() == AugmentConfig(
        number=0.6, synonym=0.3, spelling=0.3, contraction=0.25, filler=0.15, drop_word=0.1,
        punctuation=0.2, typo=0.2, second_typo=0.2,
    )  # fmt: skip


NAMES = ("number", "drop_word", "filler", "punctuation", "typo", "second_typo")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hit", [True, False])
def test_each_change_is_made_below_its_own_probability(monkeypatch, name: str, hit: bool) -> None:
    """All other changes have probability 0; those that need a draw get 0.5."""
    for function in ("drop_weak_word", "add_filler", "vary_punctuation", "misspell"):
        monkeypatch.setattr(augmenting, function, lambda q, rng, f=function: f"{q}+{f}")
    monkeypatch.setattr(augmenting, "vary_number", lambda q, c, catalog, rng: (f"{q}+n", c))
    monkeypatch.setattr(augmenting, "swap_words", lambda q, c, rules, rate, rng: f"{q}.{rate}")
    rates = dict.fromkeys((*NAMES, "synonym", "spelling", "contraction"), 0.0) | {name: 0.4}
    rates |= {"synonym": 0.1, "spelling": 0.2, "contraction": 0.3}
    if name == "second_typo":
        rates["typo"] = 0.6
    draws = dict.fromkeys(NAMES[:5], 0.5) | {name: 0.39 if hit else 0.4}
    numbers = [draws[n] for n in NAMES[:5]]
    if rates["typo"] > draws["typo"]:
        numbers.append(draws.get("second_typo", 0.5))
    item = LabelledQuery(query="ABC", call="set(sound.volume, 40)")
    rng = Draws(*numbers)
    result = augment(item, CATALOG, rng, AugmentConfig(**rates))
    assert rng.left == []
    typo = "+misspell" if name == "second_typo" else ""
    made = {"number": "+n", "drop_word": "+drop_weak_word", "filler": "+add_filler",
            "punctuation": "+vary_punctuation", "typo": "+misspell",
            "second_typo": "+misspell"}[name] if hit else ""  # fmt: skip
    before, after = (made, "") if name == "number" else ("", made)
    assert result.query == f"abc{before}.0.1.0.2.0.3{typo}{after}"


def test_only_a_call_that_ends_in_a_number_may_get_another(monkeypatch) -> None:
    monkeypatch.setattr(augmenting, "vary_number", lambda q, c, catalog, rng: ("changed", c))
    monkeypatch.setattr(augmenting, "swap_words", lambda q, *rest: q)
    always = AugmentConfig(number=1, synonym=0, spelling=0, contraction=0, filler=0, drop_word=0,
                           punctuation=0, typo=0, second_typo=0)  # fmt: skip
    for call, n, query in (
        ("set(sound.volume, 4)", 5, "changed"), ("set(mouse.speed, 10)", 5, "changed"),
        ("set(wifi, on)", 4, "q"), ("none()", 4, "q"), ("open(page.fonts)", 4, "q"),
    ):  # fmt: skip
        rng = Draws(*[0.5] * n)
        item = LabelledQuery(query="q", call=call)
        assert augment(item, CATALOG, rng, always).query == query
        assert rng.left == []


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "call", "rate", "draws", "result"),
    [
        ("my audio", "open(sound.volume)", 0.3, (0.29, 0.0), "my sound"),
        ("my audio", "open(sound.volume)", 0.3, (0.29, 0.5), "my audio"),
        ("my audio", "open(sound.volume)", 0.3, (0.3,), "my audio"),
        ("my audio", "open(flash_alerts)", 0.3, (0.29,), "my audio"),
        ("get rid of it", "set(wifi, off)", 0.3, (0.1, 0.99), "stop it"),
        ("get rid of it", "open(wifi)", 0.3, (0.1,), "get rid of it"),
        ("apps", "none()", 1.0, (0.1,), "apps"),
        ("wifi wifi", "open(wifi)", 1.0, (0.0, 0.5), "wi-fi wifi"),  # one place for each rule
    ],
)
def test_a_synonym_is_drawn_where_its_rule_fits(query, call, rate, draws, result) -> None:
    rng = Draws(*draws)
    assert swap_words(query, call, WORDS.synonyms, rate, rng) == result
    assert rng.left == []


@pytest.mark.parametrize(
    ("query", "draws", "result"),
    [
        ("turn the music up", (0.99,), "turn music up"),
        ("the screen a bit", (0.0,), "screen a bit"),
        ("the screen a bit", (0.49,), "screen a bit"),
        ("the screen a bit", (0.5,), "the screen bit"),
        ("the screen  a bit", (0.99,), "the screen bit"),
        ("turn the music", (), "turn the music"),  # three words
        ("turn music up now", (), "turn music up now"),  # none is weak
    ],
)
def test_a_weak_word_is_dropped_from_four_words_on(query, draws, result) -> None:
    assert drawn(drop_weak_word, query, draws=draws) == result


@pytest.mark.parametrize(
    ("query", "draws", "result"),
    [
        ("turn it off!", (0.29, 0.0), f"turn it off {WORDS.fillers_after[0]}"),
        ("turn it off.", (0.0, 0.999), f"turn it off {WORDS.fillers_after[-1]}"),
        ("turn it off", (0.3, 0.69, 0.0), f"{WORDS.fillers_before_verb[0]} turn it off"),
        ("turn it off", (0.3, 0.7, 0.0), f"{WORDS.fillers_before[0]} turn it off"),
        ("where is it", (0.3, 0.999), f"{WORDS.fillers_before[-1]} where is it"),
        ("take me to it", (0.3, 0.0), f"{WORDS.fillers_before[0]} take me to it"),
        ("take melatonin", (0.3, 0.0, 0.0), f"{WORDS.fillers_before_verb[0]} take melatonin"),
    ],
)
def test_a_filler_goes_after_in_three_of_ten_and_suits_a_verb(query, draws, result) -> None:
    assert drawn(add_filler, query, draws=draws) == result


@pytest.mark.parametrize(
    ("query", "draws", "result"),
    [
        ("isn't it, on?", (0.349,), "isnt it, on?"), ("isn't it, on?", (0.35,), "isn't it on"),
        ("is it, on; off.!", (0.0,), "is it on off"), ("is it, on", (0.599,), "is it on"),
        ("is it, on", (0.6, 0.0), "is it, on."), ("is it, on", (0.6, 0.34), "is it, on!"),
        ("is it, on", (0.6, 0.99), "is it, on."), ("is it on?", (0.6,), "is it on?"),
        ("", (0.6,), ""), ("volume 4", (0.9, 0.0), "volume 4."),
    ],
)  # fmt: skip
def test_marks_are_dropped_or_one_is_added(query, draws, result) -> None:
    assert drawn(vary_punctuation, query, draws=draws) == result


@pytest.mark.parametrize(
    ("query", "draws", "result"),
    [
        # which word, then which slip, then where: from the second letter to the last
        ("some wifi", (0.5, 0.299, 0.0, 0.0), "some wufi"),
        ("some wifi", (0.5, 0.299, 0.99, 0.99), "some wifk"),  # u, o, k lie about i
        ("some wifi", (0.0, 0.3, 0.0), "sme wifi"),
        ("some wifi", (0.5, 0.549, 0.34), "some wii"),
        ("some wifi", (0.5, 0.55, 0.34), "some wiffi"),
        ("some wifi", (0.5, 0.749, 0.99), "some wifii"),
        ("some wifi", (0.5, 0.75, 0.0), "some wfii"),
        ("some wifi", (0.5, 0.75, 0.34), "some wiif"),
        ("some wifi", (0.5, 0.75, 0.99), "some wiif"),  # the last letter has no next
        ("backlight", (0.0, 0.8, 0.3), "baclkight"),
        ("off wif wi-fi 1080p never", (0.0,), "off wif wi-fi 1080p never"),
        ("off wif wi-fi 1080p never", (0.21,), "off wif wi-fi 1080p never"),
        ("off wif wi-fi 1080p never", (0.41,), "off wif wi-fi 1080p never"),
        ("off wif wi-fi 1080p never", (0.61,), "off wif wi-fi 1080p never"),
        ("off wif wi-fi 1080p never", (0.81,), "off wif wi-fi 1080p never"),
    ],
)
def test_a_slip_is_drawn_by_word_kind_and_place(query, draws, result) -> None:
    assert drawn(misspell, query, draws=draws) == result


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words", "spaced"),
    [
        (19, "nineteen", "nineteen"), (20, "twenty", "twenty"), (21, "twenty-one", "twenty one"),
        (99, "ninety-nine", "ninety nine"), (100, "one hundred", "one hundred"),
        (999, "nine hundred and ninety-nine", "nine hundred and ninety nine"),
        (1000, "one thousand", "one thousand"),
        (1001, "one thousand and one", "one thousand and one"),
        (1099, "one thousand and ninety-nine", "one thousand and ninety nine"),
        (1100, "eleven hundred", "eleven hundred"),
        (1999, "nineteen hundred and ninety-nine", "nineteen hundred and ninety nine"),
    ],
)  # fmt: skip
def test_numbers_in_words_at_the_ends_of_their_forms(value, words, spaced) -> None:
    assert (number_words(value), number_words(value, " ")) == (words, spaced)


@pytest.mark.parametrize(
    ("query", "value", "found"),
    [
        ("nineteen hundred and ninety-nine", 1999, True), ("hundred and fifty", 150, True),
        ("a hundred and five", 105, True), ("one hundred five", 105, True),
        ("a hundred", 100, True), ("hundred", 100, True), ("twenty one", 21, True),
        ("twenty-one", 21, True),
        ("zero", 0, True), ("two hundred", 200, True), ("a two hundred", 200, True),
        ("one", 1, False), ("1", 1, True), ("1 one", 1, True), ("eleven eleven", 11, False),
    ],
)  # fmt: skip
def test_every_wording_of_a_number_is_found(query: str, value: int, found: bool) -> None:
    assert (find_number(query, value) is not None) == found


def level(low: int, high: int, unit: str = "percent", name: str = "x") -> Setting:
    return Setting(id=name, title=name, kind="level", uri="ms-settings:x", unit=unit, minimum=low,
                   maximum=high)  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "draws", "value"),
    [
        # minutes: below 0.7 one of the usual ones within the range, both ends included
        (level(2, 15, "minutes"), (0.699, 0.0), 2), (level(2, 15, "minutes"), (0.0, 0.999), 15),
        (level(2, 15, "minutes"), (0.699, 0.6), 10), (level(0, 90, "minutes"), (0.7, 0.0), 1),
        (level(0, 90, "minutes"), (0.7, 0.999), 90), (level(5, 90, "minutes"), (0.75, 0.0), 5),
        # wide ranges: below 0.8 a multiple of 5, below 0.4 of 25 where they pass 400
        (level(0, 100), (0.799, 0.0), 0), (level(0, 100), (0.799, 0.999), 100),
        (level(0, 100), (0.799, 0.06), 5), (level(0, 100), (0.8, 0.06), 6),
        (level(0, 100), (0.8, 0.999), 100), (level(100, 1600), (0.399, 0.999), 1600),
        (level(100, 1600), (0.399, 0.02), 125), (level(100, 1600), (0.4, 0.02), 130),
        (level(0, 400), (0.1, 0.02), 5), (level(0, 401), (0.1, 0.1), 25),
        (level(0, 50), (0.1, 0.06), 3), (level(0, 51), (0.1, 0.1), 5),
        (level(1, 100, "lines"), (0.1, 0.06), 7), (level(0, 20, "step"), (0.1, 0.0), 0),
        (level(0, 8, "weeks"), (0.1, 0.0), 1), (level(0, 8, "weeks"), (0.1, 0.999), 8),
    ],
)  # fmt: skip
def test_a_level_is_drawn_as_people_ask_for_it(setting, draws, value) -> None:
    assert drawn(pick_level, setting, draws=draws) == value


def vary(query: str, call: str, *draws: float, setting: Setting | None = None) -> tuple[str, str]:
    catalog = CATALOG if setting is None else SimpleNamespace(lookup=lambda name: setting)
    return drawn(vary_number, query, call, catalog, draws=draws)


@pytest.mark.parametrize(
    ("query", "draws", "result"),
    [
        # the value (0.8 and on: any; 0.35 * 101 = 35), then as words below 0.3, then the joiner
        ("volume 40 now", (0.9, 0.35, 0.3), "volume 35 now"),
        ("volume 40 now", (0.9, 0.35, 0.299, 0.499), "volume thirty-five now"),
        ("volume 40 now", (0.9, 0.35, 0.0, 0.5), "volume thirty five now"),
        ("volume 40min", (0.9, 0.35, 0.0), "volume 35min"),
        ("volume 40%", (0.9, 0.35, 0.3, 0.449), "volume 35 percent"),
        ("volume 40 percent", (0.9, 0.35, 0.3, 0.45), "volume 35%"),
        ("volume 40 per cent!", (0.9, 0.35, 0.3, 0.899), "volume 35%!"),
        ("volume 40%", (0.9, 0.35, 0.3, 0.9), "volume 35 %"),
        ("volume forty percent", (0.9, 0.35, 0.0, 0.0, 0.95), "volume thirty-five percent"),
        ("give it a 40", (0.9, 0.35, 0.3), "give it a 40"),
        ("give it an 40 now", (0.9, 0.35, 0.3), "give it an 40 now"),
    ],
)
def test_a_number_and_its_unit_are_drawn(query, draws, result) -> None:
    found = vary(query, "set(sound.volume, 40)", *draws)
    same = result == query
    assert found == (result, f"set(sound.volume, {40 if same else 35})")


@pytest.mark.parametrize(
    ("setting", "draws", "amount"),
    [
        # below 0.7 a multiple of 5 where more than 30 is possible; at most 60, or 400 beyond 400
        (level(0, 100), (0.699, 0.0), 5), (level(0, 100), (0.699, 0.999), 60),
        (level(0, 100), (0.7, 0.0), 1), (level(0, 100), (0.7, 0.999), 30),
        (level(0, 400), (0.0, 0.999), 60), (level(0, 401), (0.0, 0.999), 400),
        (level(100, 225), (0.0, 0.5), 35), (level(10, 41), (0.0, 0.999), 30),
        (level(10, 40), (0.999,), 30), (level(10, 40), (0.0,), 1), (level(1, 20), (0.999,), 19),
        (level(1, 20), (0.5,), 10),
    ],
)  # fmt: skip
def test_an_amount_is_drawn_within_what_is_possible(setting, draws, amount) -> None:
    query, call = vary("up by 7", "increase(x, 7)", *draws, 0.3, setting=setting)
    assert (query, call) == (f"up by {amount}", f"increase(x, {amount})")


def test_a_number_that_cannot_be_said_or_means_more_is_left_alone() -> None:
    assert vary("up by 1999", "increase(x, 1999)", 0.0, 0.3, setting=level(0, 5)) == (
        "up by 1", "increase(x, 1)",
    )  # fmt: skip
    for query, call in (
        ("up by 2000", "increase(x, 2000)"), ("half of 50", "set(x, 50)"), ("50", "open(x)"),
        ("50 50", "set(x, 50)"),
    ):  # fmt: skip
        assert vary(query, call, setting=level(0, 5000)) == (query, call)
    choice = Setting(id="x", title="x", kind="choice", uri="ms-settings:x", choices=("50", "60"))
    assert vary("at 50", "set(x, 50)", setting=choice) == ("at 50", "set(x, 50)")


# -- templates -------------------------------------------------------------------------------------

VOLUME = level(0, 100, name="volume")
FONT = level(100, 225, name="font size")
DELAY = level(0, 300, "minutes", name="delay")


def test_settings_are_drawn_by_the_weight_of_their_kind() -> None:
    settings = list(CATALOG)
    rng = Draws(0, *[0.9] * 40)
    made = t.template_queries(CATALOG, rng, 1)
    weights = np.array([{"toggle": 1, "level": 4, "choice": 1.5, "page": 0.6}[s.kind]
                        for s in settings])  # fmt: skip
    np.testing.assert_allclose(rng.p, weights / weights.sum())
    assert len(made) == 1


def filled(templates: tuple[str, ...], at: int, name: str, value: str = "") -> str:
    return templates[at].format(n=name, v=value)


@pytest.mark.parametrize(
    ("draws", "query", "call"),
    [
        ((0.149, 0.0, 0.0), "lamp", "open(lamp)"),
        ((0.149, 0.5, 0.0, 0.0), filled(t._ways()["open"], 1, "lamp"), "open(lamp)"),
        ((0.15, 0.0, 0.0), filled(t._ways()["on"], 0, "lamp"), "set(lamp, on)"),
        ((0.579, 0.999, 0.0), filled(t._ways()["on"], -1, "lamp"), "set(lamp, on)"),
        ((0.58, 0.0, 0.0), filled(t._ways()["off"], 0, "lamp"), "set(lamp, off)"),
    ],
)
def test_a_toggle_is_opened_switched_on_or_off(draws, query, call) -> None:
    setting = Setting(id="lamp", title="Lamp", kind="toggle", uri="ms-settings:x")
    assert drawn(t._toggle, setting, draws=draws) == (query, call)


def test_a_choice_and_a_page_by_draws() -> None:
    choice = Setting(id="look", title="Look", kind="choice", uri="ms-settings:x",
                     choices=("dark_blue", "light"))  # fmt: skip
    opened = drawn(t._choice, choice, draws=(0.149, 0.5, 0.0, 0.0))
    assert opened == (filled(t._ways()["open"], 1, "look"), "open(look)")
    chosen = drawn(t._choice, choice, draws=(0.15, 0.49, 0.0, 0.0, 0.0))
    assert chosen == (filled(t._ways()["set"], 0, "look", "dark blue"), "set(look, dark_blue)")
    other = drawn(t._choice, choice, draws=(0.15, 0.5, 0.0, 0.999, 0.0))
    assert other == (filled(t._ways()["set"], -1, "look", "light"), "set(look, light)")
    page = Setting(id="page.x", title="X", kind="page", uri="ms-settings:x")
    assert drawn(t._page, page, draws=(0.0, 0.0)) == (
        filled(t._ways()["open_page"], 0, "x"),
        "open(page.x)",
    )


@pytest.mark.parametrize(
    ("verb", "setting", "draws", "query", "call"),
    [
        # set: the value (any 35), its words and unit, the template, the name
        (0, VOLUME, (0.9, 0.35, 0.5, 0.0, 0.0, 0.0), "set volume to 35", "set(volume, 35)"),
        (0, VOLUME, (0.9, 0.35, 0.5, 0.5, 0.999, 0.0), "give me 35% volume", "set(volume, 35)"),
        # extreme: maximum below 0.35, minimum below 0.7, else half where half is defined
        (1, VOLUME, (0.349, 0.0, 0.0), "volume to max", "set(volume, 100)"),
        (1, VOLUME, (0.35, 0.0, 0.0), "volume to min", "set(volume, 0)"),
        (1, VOLUME, (0.699, 0.0, 0.0), "volume to min", "set(volume, 0)"),
        (1, VOLUME, (0.7, 0.0, 0.0), "half volume", "set(volume, 50)"),
        (1, FONT, (0.999, 0.0, 0.0), "font size to min", "set(font size, 100)"),
        (1, FONT, (0.499, 0.0, 0.0), "font size to max", "set(font size, 225)"),
        (2, VOLUME, (0.0, 0.0), "increase volume", "increase(volume)"),
        (3, VOLUME, (0.0, 0.0), "decrease volume", "decrease(volume)"),
        # by an amount: the level drawn less the minimum, 5 where that is none
        (4, FONT, (0.9, 0.4, 0.5, 0.0, 0.0, 0.0), "increase font size by 50",
         "increase(font size, 50)"),
        (5, FONT, (0.9, 0.0, 0.5, 0.0, 0.0, 0.0), "decrease font size by 5",
         "decrease(font size, 5)"),
        # named without a wish: a bare title or name in half of the cases
        (6, VOLUME, (0.499, 0.499), "volume", "open(volume)"),
        (6, VOLUME, (0.499, 0.5, 0.0), "volume", "open(volume)"),
        (6, VOLUME, (0.5, 0.0, 0.0), "volume settings", "open(volume)"),
    ],
)  # fmt: skip
def test_a_level_by_each_verb(verb, setting, draws, query, call) -> None:
    rng = Draws(verb, *draws)
    assert t._level(setting, rng) == (query, call)
    assert rng.left == []
    np.testing.assert_allclose(rng.p, [0.44, 0.1, 0.1, 0.1, 0.08, 0.08, 0.1])


@pytest.mark.parametrize(
    ("setting", "value", "exact", "draws", "text"),
    [
        (DELAY, 120, True, (0.499, 0.499), "two hours"), (DELAY, 120, True, (0.0, 0.5), "2 hours"),
        (DELAY, 60, True, (0.0, 0.0), "an hour"), (DELAY, 60, True, (0.0, 0.999), "60 minutes"),
        (DELAY, 120, True, (0.5, 0.5, 0.3), "120 minutes"),
        (DELAY, 120, False, (0.5, 0.3), "120 minutes"), (DELAY, 90, True, (0.5, 0.3), "90 minutes"),
        (DELAY, 0, True, (0.5, 0.3), "0 minutes"), (DELAY, 1, True, (0.5, 0.3), "1 minute"),
        (DELAY, 1, True, (0.5, 0.299), "1 min"), (DELAY, 7, True, (0.5, 0.299, 0.5), "7 mins"),
        (DELAY, 7, True, (0.5, 0.299, 0.0), "7 min"),
        (level(0, 20, "step"), 5, True, (0.3,), "5"),
        (level(0, 20, "step"), 5, True, (0.299,), "five"),
        (level(0, 99, "lines"), 25, True, (0.099,), "twenty five lines"),
        (level(0, 99, "lines"), 25, True, (0.1,), "twenty-five lines"),
        (level(0, 99, "weeks"), 1, True, (0.5,), "1 week"),
        (VOLUME, 25, True, (0.5, 0.0), "25"), (VOLUME, 25, True, (0.5, 0.4), "25%"),
        (VOLUME, 25, True, (0.5, 0.9), "25 percent"), (VOLUME, 25, True, (0.2, 0.0), "twenty-five"),
        (VOLUME, 25, True, (0.2, 0.9), "twenty-five percent"),
    ],
)  # fmt: skip
def test_a_quantity_has_the_unit_that_people_say(setting, value, exact, draws, text) -> None:
    rng = Draws(*draws)
    assert t._quantity(setting, value, rng, exact) == text
    assert rng.left == []


def test_hours_up_to_nineteen_are_said_in_words() -> None:
    assert drawn(t._hours, 19, draws=(0.0,)) == "nineteen hours"
    assert drawn(t._hours, 20, draws=()) == "20 hours"


# -- the rest of an epoch --------------------------------------------------------------------------


def test_queries_out_of_scope_fill_each_slot_by_itself() -> None:
    rng = Draws(0, 6, 0.0, 0.999)
    made = out_of_scope_queries(rng, 2)
    assert [item.call for item in made] == ["none()"] * 2
    assert [item.query for item in made] == ["open spotify", "uninstall itunes and reinstall it"]
    assert rng.left == []
    assert rng.range[0] == 0
    assert rng.range[1] > 100


def test_an_epoch_has_a_quarter_of_templates_and_a_twenty_fifth_out_of_scope(monkeypatch) -> None:
    """Of 50 queries: 12 or 13 templates and 2 others, each split, thinned and labelled."""
    asked = {}

    def made(name):
        def make(*arguments):
            n = arguments[-1]
            asked[name] = n
            return [LabelledQuery(query=f"a {name} b 7", call="none()")] * n

        return make

    class Letters:
        """Tokens are the letters' numbers; splitting doubles the first."""

        def encode(self, text: str) -> list[int]:
            return [ord(letter) for letter in text]

        def split_tokens(self, tokens, rate, rng):
            asked["rate"] = rate
            return [tokens[0], *tokens]

    monkeypatch.setattr(training_data, "augment", lambda item, catalog, rng: item)
    monkeypatch.setattr(training_data, "template_queries", made("template"))
    monkeypatch.setattr(training_data, "out_of_scope_queries", made("outside"))
    queries = [LabelledQuery(query="ab up  7", call="set(x, 7)")] * 50
    rng = Draws(*[0.099, 0.1, 0.099, 0.0, 0.0, 0.0, 0.2, 0.0] * 50, *[0.5] * 1000)
    examples = epoch_data(queries, CATALOG, Letters())(rng)
    assert asked == {"template": 12, "outside": 2, "rate": 0.08}
    assert len(examples) == 50 + 12 + 2
    # draws below 0.1 drop a token, but no digit and no letter of " up"; then the first is doubled
    assert "".join(map(chr, examples[0].source)) == "aa up 7"
    assert "".join(map(chr, examples[0].target)) == "set(x, 7)"
    assert "".join(map(chr, examples[-1].source)) == "  a outside b 7"


def test_sides_follow_from_the_first_eight_bytes_of_a_hash(monkeypatch) -> None:
    """A query's fraction is a quarter here: it is validated on from just above a quarter on."""
    digest = bytes([0x40, *[0] * 31])
    monkeypatch.setattr(
        labelled.hashlib, "sha256", lambda data: SimpleNamespace(digest=lambda: digest)
    )
    items = [LabelledQuery(query="x", call="none()")]
    assert labelled.split_queries(items, 0.25) == (items, [])
    assert labelled.split_queries(items, 0.2500001) == ([], items)
    tail = bytes([0, 0, 0, 0, 0, 0, 0, 1, *[255] * 24])
    monkeypatch.setattr(
        labelled.hashlib, "sha256", lambda data: SimpleNamespace(digest=lambda: tail)
    )
    assert labelled.split_queries(items, 2.0**-64) == (items, [])
    assert labelled.split_queries(items, 2.0**-63) == ([], items)
    assert split_key("\uff37ifi\u2019s  ON!") == "wifis on"
