"""Scores by hand, and the laws they keep."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_ref.errors import InputError
from mu_ref.settings.catalog import load_catalog
from mu_ref.settings.evaluate import Evaluation, evaluate

CATALOG = load_catalog()


def test_scores_of_eight_answers_by_hand() -> None:
    expected = [
        "set(wifi, on)", "set(wifi, on)", "set(wifi, on)", "open(page.fonts)",
        "none()", "none()", "none()", "set(bluetooth, off)",
    ]  # fmt: skip
    answered = [
        "set(wifi, on)", "set(wifi, off)", "none()", "set(wifi",
        "none()", "set(wifi, on)", "none()", "set(wifi, on)",
    ]  # fmt: skip
    assert evaluate(expected, answered, CATALOG) == Evaluation(
        n=8,
        exact=3 / 8,
        setting_id=4 / 8,
        parse=7 / 8,
        none_recall=2 / 3,
        none_precision=2 / 3,
        confusions=(
            ("bluetooth", "wifi", 1),
            ("none", "wifi", 1),
            ("page.fonts", "(no call)", 1),
            ("wifi", "none", 1),
        ),
        invalid_expected=0,
    )


def test_the_most_frequent_confusion_comes_first() -> None:
    expected = ["set(wifi, on)", "set(vpn, on)", "set(vpn, off)"]
    answered = ["none()", "open(wifi)", "open(wifi)"]
    confusions = evaluate(expected, answered, CATALOG).confusions
    assert confusions == (("vpn", "wifi", 2), ("wifi", "none", 1))


def test_without_none_recall_and_precision_are_one() -> None:
    scores = evaluate(["set(wifi, on)"], ["set(wifi, off)"], CATALOG)
    assert (scores.none_recall, scores.none_precision) == (1.0, 1.0)


def test_json_has_exactly_the_six_scores() -> None:
    assert evaluate(["none()"], ["none()"], CATALOG).to_json() == {
        "n": 1, "exact": 1.0, "setting_id": 1.0, "parse": 1.0,
        "none_recall": 1.0, "none_precision": 1.0,
    }  # fmt: skip


def test_an_expected_text_that_is_no_call_is_counted_and_still_compared() -> None:
    scores = evaluate(
        ["set(wifi, maybe)", "set(sound.volume, 400)"],
        ["set(wifi, maybe)", "set(sound.volume, 40)"],
        CATALOG,
    )
    assert (scores.invalid_expected, scores.exact, scores.setting_id) == (2, 0.5, 0.5)


def test_an_expected_text_that_is_no_call_is_confused_by_the_id_that_it_names() -> None:
    expected = ["set(wifi, maybe)", "set(wifi, perhaps)", "gibberish", "increase(lamp"]
    answered = ["set(vpn, on)", "set(vpn, off)", "none()", "nothing"]
    assert evaluate(expected, answered, CATALOG).confusions == (
        ("wifi", "vpn", 2), ("gibberish", "none", 1), ("lamp", "(no call)", 1),
    )  # fmt: skip


@pytest.mark.parametrize(("expected", "answered"), [([], []), (["none()"], [])])
def test_nothing_to_score_is_refused(expected: list[str], answered: list[str]) -> None:
    with pytest.raises(InputError, match="same length, at least 1"):
        evaluate(expected, answered, CATALOG)


CALLS = st.sampled_from(["none()", "set(wifi, on)", "set(wifi, off)", "open(vpn)"])


@given(st.lists(st.tuples(CALLS, CALLS | st.text()), min_size=1))
def test_an_exact_answer_names_the_setting_and_parses(pairs: list[tuple[str, str]]) -> None:
    scores = evaluate([a for a, _ in pairs], [b for _, b in pairs], CATALOG)
    assert 0 <= scores.exact <= scores.setting_id <= scores.parse <= 1
    missed = sum(count for _, _, count in scores.confusions)
    assert missed == round((1 - scores.setting_id) * scores.n)


def test_recall_is_of_the_queries_and_precision_of_the_answers() -> None:
    wanted = ["none()", "set(bluetooth, on)", "set(bluetooth, on)", "set(bluetooth, off)"]
    scores = evaluate(wanted, ["none()", "none()", "none()", "none()"], load_catalog())
    assert (scores.none_recall, scores.none_precision) == (1.0, 1 / 4)
    scores = evaluate(["none()"] * 4, ["none()", *wanted[1:]], load_catalog())
    assert (scores.none_recall, scores.none_precision) == (1 / 4, 1.0)
