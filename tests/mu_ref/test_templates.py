"""Template queries carry true labels and reach the whole catalog."""

import re

import numpy as np

from mu_ref.settings.calls import parse_call
from mu_ref.settings.catalog import DATA, load_catalog
from mu_ref.settings.queries import templates
from mu_ref.settings.queries.labelled import read_queries
from mu_ref.settings.queries.templates import template_queries

CATALOG = load_catalog()
TRAIN = read_queries(DATA / "train.jsonl")


def test_templates_give_calls_and_reach_every_setting() -> None:
    items = template_queries(CATALOG, np.random.default_rng(0), 8000)
    calls = [parse_call(item.call, CATALOG) for item in items]
    assert len(items) == 8000
    assert {call.setting_id for call in calls} == {s.id for s in CATALOG}
    assert all(item.query == item.query.lower().strip() != "" for item in items)
    assert not any("{" in item.query for item in items)


def test_no_template_names_a_number_out_of_range() -> None:
    """None of them is none() at all: what is out of range is decided by arithmetic."""
    items = template_queries(CATALOG, np.random.default_rng(1), 8000)
    assert not [item for item in items if item.call == "none()"]
    said = [re.fullmatch(r"[a-z ]+(?:volume|level) to ([0-9]+)%?", item.query) for item in items]
    values = {int(match[1]) for match in said if match and "zoom" not in match.group()}
    assert values
    assert max(values) <= 100


def test_a_bare_title_opens_and_a_contrast_keeps_the_call_of_what_is_meant() -> None:
    items = template_queries(CATALOG, np.random.default_rng(4), 20000)
    calls = {item.query: item.call for item in items}
    assert calls["bluetooth"] == "open(bluetooth)"
    pairs = [(i.query.removeprefix("forget "), i.call) for i in items if i.query[:7] == "forget "]
    meant = [(query.partition(", ")[2], call) for query, call in pairs]
    known = [(query, call) for query, call in meant if query in calls]
    assert len(known) > 5
    assert all(calls[query] == call for query, call in known)


def test_a_correction_means_the_value_that_is_not_taken_back(monkeypatch) -> None:
    monkeypatch.setattr(templates, "CORRECTIONS", 1.0)
    monkeypatch.setattr(templates, "CONTRASTS", 0.0)
    ways = {**templates._ways(), "correction": ["{n}|{w}|{v}"]}
    monkeypatch.setattr(templates, "_ways", lambda: ways)
    items = template_queries(CATALOG, np.random.default_rng(5), 500)
    corrected = [item for item in items if "|" in item.query]
    kinds = set()
    for item in corrected:
        _, taken_back, meant = item.query.split("|")
        call = parse_call(item.call, CATALOG)
        kind = CATALOG.lookup(call.setting_id).kind
        kinds.add(kind)
        assert call.verb == "set"
        if kind == "choice":
            assert taken_back != meant  # words for values of one setting are its own
        else:
            assert str(call.value) == meant
        if kind == "toggle":
            assert {taken_back, meant} == {"on", "off"}
    assert kinds == {"toggle", "level", "choice"}
    assert {i.call[:5] for i in items if "|" not in i.query} == {"open("}  # pages have no value


def test_templates_say_half_only_of_0_to_100_percent() -> None:
    items = template_queries(CATALOG, np.random.default_rng(2), 20000)
    halves = {item.call for item in items if re.search(r"\bhalf(way)?\b", item.query)}
    assert halves == {
        "set(display.brightness, 50)", "set(display.night_light_strength, 50)",
        "set(sound.volume, 50)", "set(sound.microphone_volume, 50)",
        "set(battery.saver_threshold, 50)", "set(keyboard.backlight, 50)",
    }  # fmt: skip


def test_templates_agree_with_the_written_labels() -> None:
    labels = {item.query.lower(): item.call for item in TRAIN}
    items = template_queries(CATALOG, np.random.default_rng(3), 20000)
    shared = [item for item in items if item.query in labels]
    assert len(shared) > 100
    assert [i for i in shared if labels[i.query] != i.call] == []


def test_templates_repeat_with_the_same_generator() -> None:
    first, second = (template_queries(CATALOG, np.random.default_rng(5), 50) for _ in "ab")
    assert first == second
