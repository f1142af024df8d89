"""The catalog file: what it holds, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from mu_ref.errors import CallError, InputError
from mu_ref.settings.catalog import Setting, load_catalog

TOGGLE = {"id": "wifi", "title": "Wi-Fi", "kind": "toggle", "uri": "ms-settings:network-wifi"}
LEVEL = {
    "id": "sound.volume", "title": "Volume", "kind": "level", "uri": "ms-settings:sound",
    "unit": "percent", "min": 0, "max": 100,
}  # fmt: skip
CHOICE = {
    "id": "mode", "title": "Mode", "kind": "choice", "uri": "ms-settings:x", "choices": ["a", "b"]
}  # fmt: skip


def write(folder: Path, *entries: Any) -> Path:
    path = folder / "catalog.json"
    path.write_text(json.dumps({"version": 1, "settings": entries}), encoding="utf-8")
    return path


def test_the_shipped_catalog_has_183_settings_of_four_kinds() -> None:
    catalog = load_catalog()
    kinds = [setting.kind for setting in catalog]
    assert len(catalog) == 183
    assert [kinds.count(kind) for kind in ("toggle", "level", "choice", "page")] == [89, 22, 25, 47]


def test_a_level_carries_its_unit_and_range() -> None:
    assert load_catalog().lookup("text.size") == Setting(
        id="text.size",
        title="Text size across Windows",
        kind="level",
        uri="ms-settings:easeofaccess-display",
        unit="percent",
        minimum=100,
        maximum=225,
    )


def test_a_choice_keeps_the_order_of_the_file() -> None:
    assert load_catalog().lookup("theme.mode").choices == ("light", "dark", "custom")


def test_an_unknown_id_lists_the_nearest() -> None:
    with pytest.raises(CallError, match=r"got 'display.brightnes'; nearest: display.brightness"):
        load_catalog().lookup("display.brightnes")


def test_at_most_three_near_ids_are_listed_and_none_where_none_is_near(tmp_path: Path) -> None:
    entries = [TOGGLE | {"id": name} for name in ("wifi.a", "wifi.b", "wifi.c", "wifi.d", "zz")]
    catalog = load_catalog(write(tmp_path, *entries))
    with pytest.raises(CallError) as near:
        catalog.lookup("wifi.a2")
    assert str(near.value).endswith("got 'wifi.a2'; nearest: wifi.a, wifi.d, wifi.c")
    with pytest.raises(CallError) as far:
        catalog.lookup("q" * 100)
    assert str(far.value) == f"setting id must be in the catalog, got {'q' * 60!r}"


def test_a_setting_without_a_range_or_choices_has_none(tmp_path: Path) -> None:
    catalog = load_catalog(write(tmp_path, TOGGLE, CHOICE))
    assert catalog.lookup("wifi") == Setting(
        id="wifi", title="Wi-Fi", kind="toggle", uri="ms-settings:network-wifi"
    )
    assert catalog.lookup("mode").span == 0
    assert len(catalog) == 2


def test_a_range_may_start_at_zero_and_be_one_step_wide(tmp_path: Path) -> None:
    level = load_catalog(write(tmp_path, LEVEL | {"min": 0, "max": 1})).lookup("sound.volume")
    assert (level.minimum, level.maximum, level.span) == (0, 1, 1)
    with pytest.raises(InputError, match=r"min must be a whole number .* got -1"):
        load_catalog(write(tmp_path, LEVEL | {"min": -1, "max": 5}))


def test_membership_is_by_id() -> None:
    catalog = load_catalog()
    assert "wifi" in catalog
    assert "Wi-Fi" not in catalog


def test_a_small_catalog_of_ones_own_loads(tmp_path: Path) -> None:
    catalog = load_catalog(write(tmp_path, TOGGLE, LEVEL, CHOICE))
    assert [setting.id for setting in catalog] == ["wifi", "sound.volume", "mode"]
    assert catalog.lookup("sound.volume").span == 100


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ("wifi", "must be an object, got str"),
        ({**TOGGLE, "kind": "switch"}, "must be one of toggle, level, choice, page"),
        ({"kind": "toggle"}, "exactly the keys id, kind, title, uri"),
        ({**TOGGLE, "min": 0}, "exactly the keys"),
        ({**TOGGLE, "id": "Wi-Fi"}, "dotted lower-case"),
        ({**TOGGLE, "id": "none"}, "other than 'none'"),
        ({**TOGGLE, "title": ""}, "title must be a non-empty string"),
        ({**TOGGLE, "uri": "https://x"}, "must start with 'ms-settings:'"),
        ({**LEVEL, "max": 0}, "min must be below max, got 0 and 0"),
        ({**LEVEL, "max": 1.5}, "max must be a whole number from 0 to 999,999,999, got 1.5"),
        ({**LEVEL, "min": False}, "min must be a whole number"),
        ({**LEVEL, "max": 10**9}, "at most nine digits"),
        ({**LEVEL, "max": 2**70}, "max must be a whole number"),
        ({**TOGGLE, "title": "a\x1b[31m"}, "title must be a non-empty string"),
        ({**CHOICE, "choices": ["a"]}, "two or more distinct"),
        ({**CHOICE, "choices": ["a", "a"]}, "two or more distinct"),
        ({**CHOICE, "choices": ["a", "B, c"]}, "two or more distinct"),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path: Path, entry: Any, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        load_catalog(write(tmp_path, entry))


def test_an_id_may_stand_only_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'wifi' twice"):
        load_catalog(write(tmp_path, TOGGLE, TOGGLE))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.json"):
        load_catalog(tmp_path / "absent.json")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[]", b'{"settings": []}'])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "catalog.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"catalog(\.json)?(:1)? must"):
        load_catalog(path)
