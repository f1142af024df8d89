"""The grammar of calls: what parses, what does not, and that text survives the round trip."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_ref.errors import CallError
from mu_ref.settings.calls import Call, format_call, parse_call
from mu_ref.settings.catalog import DATA, load_catalog
from mu_ref.settings.queries.labelled import read_queries

CATALOG = load_catalog()


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("none()", Call(verb="none")),
        ("set(bluetooth, on)", Call(verb="set", setting_id="bluetooth", value="on")),
        ("set(sound.volume, 0)", Call(verb="set", setting_id="sound.volume", value=0)),
        ("set(sound.volume, 100)", Call(verb="set", setting_id="sound.volume", value=100)),
        (
            "set(display.refresh_rate, 144)",
            Call(verb="set", setting_id="display.refresh_rate", value="144"),
        ),
        ("increase(text.size)", Call(verb="increase", setting_id="text.size")),
        ("decrease(text.size, 25)", Call(verb="decrease", setting_id="text.size", value=25)),
        ("open(page.fonts)", Call(verb="open", setting_id="page.fonts")),
        ("open(bluetooth)", Call(verb="open", setting_id="bluetooth")),
        (
            "set(theme.contrast, none)",
            Call(verb="set", setting_id="theme.contrast", value="none"),
        ),
    ],
)
def test_canonical_text_parses_and_is_written_back(text: str, call: Call) -> None:
    assert parse_call(text, CATALOG) == call
    assert format_call(call) == text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "must have the form"),
        ("set bluetooth on", "must have the form"),
        ("Set(bluetooth, on)", "lower case"),
        (" none()", "must have the form"),
        ("none() ", "must have the form"),
        ("none()\n", "must have the form"),
        ("none(bluetooth)", "must have nothing"),
        ("toggle(bluetooth)", "verb must be"),
        ("set(bluetooth,on)", "separated by ', '"),
        ("set(bluetooth , on)", "in the catalog"),
        ("set(bluetoth, on)", "nearest: bluetooth"),
        ("set(bluetooth)", "must have a value"),
        ("set(bluetooth, 1)", "one of on, off"),
        ("set(bluetooth, 'on')", "one of on, off"),
        ("set(bluetooth, on, off)", "one of on, off"),
        ("set(theme.mode, purple)", "one of light, dark, custom"),
        ("set(page.fonts, on)", "got 'page.fonts', a page"),
        ("set(sound.volume, 101)", r"lie in \[0, 100\]"),
        ("set(sound.volume, -1)", "without sign"),
        ("set(sound.volume, 040)", "leading zeros"),
        ("set(sound.volume, 4.5)", "must be an integer"),
        ("set(sound.volume, \u0664)", "must be an integer"),
        ("set(sound.volume, )", "must be an integer"),
        ("set(text.size, 99)", r"lie in \[100, 225\]"),
        ("increase(sound.volume, 0)", r"lie in \[1, 100\]"),
        ("increase(text.size, 126)", r"lie in \[1, 125\]"),
        ("increase(bluetooth)", "must name a level"),
        ("decrease(theme.mode)", "must name a level"),
        ("open(bluetooth, on)", "must have no value"),
        ("open()", "in the catalog"),
        ("set(sound.volume, " + "9" * 5000 + ")", "must be an integer"),
    ],
)
def test_any_other_text_is_refused_with_the_rule_it_breaks(text: str, rule: str) -> None:
    with pytest.raises(CallError, match=rule) as caught:
        parse_call(text, CATALOG)
    assert len(str(caught.value)) < 300


def test_a_refused_text_is_repeated_up_to_80_characters() -> None:
    for n in (80, 81):
        with pytest.raises(CallError) as caught:
            parse_call("x" * n, CATALOG)
        shown = "x" * 80 + "…" * (n > 80)
        assert str(caught.value).endswith(f"got {shown!r}")


@given(st.text() | st.from_regex(r"(set|open|none|increase)\([a-z.]*(, [a-z0-9]*)?\)"))
def test_what_parses_is_exactly_what_is_written_back(text: str) -> None:
    try:
        call = parse_call(text, CATALOG)
    except CallError:
        return
    assert str(call) == text


@pytest.mark.parametrize("name", ["train.jsonl", "validation.jsonl"])
def test_every_shipped_label_is_a_call(name: str) -> None:
    for item in read_queries(DATA / name):
        assert format_call(parse_call(item.call, CATALOG)) == item.call
