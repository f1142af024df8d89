"""What a query means where it names a setting only to put it aside, by hand and by the labels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_ref.settings.catalog import load_catalog
from mu_ref.settings.queries.labelled import folded_text
from mu_ref.settings.queries.templates import names_of
from mu_ref.settings.valid.meant import Meant
from mu_ref.settings.valid.train_rank import training_items

CATALOG = load_catalog()
MEANT = Meant(CATALOG)
NAMES = ("bluetooth", "wifi", "night light", "do not disturb", "narrator", "mobile hotspot")


@pytest.mark.parametrize(
    ("query", "meant"),
    [("Not the wifi, Bluetooth!", "bluetooth"), ("wifi? no, bluetooth off", "bluetooth off"),
     ("turn narrator off, no wait, magnifier", "turn off magnifier"),
     ("hotspot stays,  wifi off", "wifi off"), ("narrator speed, not narrator", "narrator speed"),
     ("do not disturb, not bluetooth", "do not disturb"),
     ("not narrator speed, the magnifier", "the magnifier"),
     ("turn wifi on \u2014 not bluetooth", "turn wifi on"),
     ("instead of wifi turn bluetooth on", "turn bluetooth on")],
)  # fmt: skip
def test_what_is_put_aside_is_left_out(query: str, meant: str) -> None:
    assert MEANT(query) == meant


@pytest.mark.parametrize(
    "query",
    ["not too loud", "leave Bluetooth on", "no wifi, no bluetooth", "volume 20, no wait, 30",
     "not wifi", "wifi, sorry", "don't keep wifi on", "I said night light, not darkness", "", "no",
     "sorry, turn on wifi", "wifi stays connected, bluetooth drops",
     "keep wifi but turn off bluetooth"],
)  # fmt: skip
def test_a_wish_stays_as_it_is(query: str) -> None:
    assert MEANT(query) == query


@given(
    other=st.sampled_from(NAMES), name=st.sampled_from(NAMES),
    wish=st.sampled_from(["turn on {}", "{} off", "{}", "please switch {} off"]),
    form=st.sampled_from(
        ["not {o}, {q}", "{q}, not {o}", "{q} and not the {o}", "{o}, no wait, {q}",
         "{o} ... sorry, I meant {q}", "{q} instead of {o}", "{q} rather than my {o}",
         "leave {o} alone, {q}", "{q} but leave {o} as it is", "forget {o}. {q}",
         "{q}, {o} can stay", "i don't mean {o}, {q}", "No, not {o}, {q}"]
    ),
)  # fmt: skip
def test_the_wish_is_left_of_a_contrast(other: str, name: str, wish: str, form: str) -> None:
    query = wish.format(name)
    assert MEANT(form.format(o=other, q=query)) == query


@given(
    st.lists(
        st.sampled_from([*" ,.!-\0\n", "not ", "no ", "sorry ", "wifi", "on "]), max_size=20
    ).map("".join)
)
def test_any_text_has_a_meaning_with_a_name_if_it_has_one(query: str) -> None:
    meant = MEANT(query)
    assert meant == query or "wifi" in meant


def test_what_is_put_aside_is_never_what_the_label_means() -> None:
    changed = 0
    for item in training_items(None):
        meant = MEANT(item.query)
        if meant == item.query or item.call == "none()":
            continue
        changed += 1
        setting = CATALOG.lookup(item.call.partition("(")[2].rstrip(")").partition(",")[0])
        said = [name for name in names_of(setting) if name in folded_text(item.query)]
        assert not said or any(name in meant for name in said), item
    assert changed > 50
