"""Make labelled queries from the catalog by filling in phrase templates.

They cover what written queries cannot: every setting with every verb, value and choice, and a
setting that is named only to be ruled out. A number out of range is not among them: arithmetic
decides on it, and none() for "volume 150" teaches none() for "volume 50". They are plain on
purpose; variety of wording comes from the written queries. Used for training only.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from mu_ref.settings.catalog import DATA, Catalog, Setting
from mu_ref.settings.queries.labelled import LabelledQuery
from mu_ref.settings.queries.number_words import number_words, pick_level

__all__ = ["WISHES", "names_of", "template_queries"]


_WEIGHTS = {"toggle": 1.0, "level": 4.0, "choice": 1.5, "page": 0.6}

# share of each way of asking for a level
_LEVEL_VERBS = ("set", "extreme", "up", "down", "up by", "down by", "open")
_LEVEL_SHARES = (0.44, 0.1, 0.1, 0.1, 0.08, 0.08, 0.1)
# Names that are wishes, and first words of titles that are: alone they ask for "on".
WISHES = {
    "do not disturb", "permanent scrollbars", "hover scrolling", "dnd", "flight mode", "do",
    "always", "show", "set", "let", "play", "ask", "send", "store", "sync", "lock", "record",
    "remember", "get", "notify", "flash", "turn", "go", "pause", "open", "change", "control",
    "leave", "scroll", "tap", "download", "enhance", "automatically", "find", "snap", "mute",
    "autocorrect",
}  # fmt: skip
CONTRASTS = 0.12  # share of queries that name a setting and then mean another
CORRECTIONS = 0.06  # share of queries, but for pages, that give a value and then mean another


@dataclass(frozen=True, kw_only=True, slots=True)
class _Names:
    names: Mapping[str, Sequence[str]]  # noun phrases for each setting id
    choices: Mapping[str, Mapping[str, Sequence[str]]]  # where underscores as blanks do not do
    levels: Mapping[str, Mapping[str, Sequence[str]]]  # whole phrases to set, raise and lower


@cache
def _read_names() -> _Names:
    return _Names(**json.loads((DATA / "template_names.json").read_text(encoding="utf-8")))


@cache
def _ways() -> Mapping[str, Sequence[str]]:
    """Read the templates: {way of asking: texts with {n} for the name and {v} for a value}."""
    return tomllib.loads((DATA / "templates.toml").read_text(encoding="utf-8"))


def template_queries(catalog: Catalog, rng: np.random.Generator, n: int) -> list[LabelledQuery]:
    """Make labelled queries by filling in templates.

    Args:
        catalog: settings to ask for; levels are drawn most often, since they have most values.
        rng: makes every choice.
        n: how many queries.

    Returns:
        `n` lower-case queries with calls that the catalog allows; repeats are possible.
    """
    settings = list(catalog)
    weights = np.array([_WEIGHTS[setting.kind] for setting in settings])
    drawn = rng.choice(len(settings), size=n, p=weights / weights.sum())
    makers = {"toggle": _toggle, "level": _level, "choice": _choice, "page": _page}
    items = []
    for index in drawn:
        setting = settings[index]
        corrected = setting.kind != "page" and rng.random() < CORRECTIONS
        query, call = (_corrected if corrected else makers[setting.kind])(setting, rng)
        if rng.random() < CONTRASTS:
            query = _contrasted(query, _name(settings[int(rng.random() * len(settings))], rng), rng)
        items.append(LabelledQuery(query=query, call=call))
    return items


def names_of(setting: Setting) -> Sequence[str]:
    """Return what a setting is called: its title, and the noun phrases of the templates."""
    return (setting.title.lower(), *_read_names().names.get(setting.id, ()))


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.random() * len(options))]


def _name(setting: Setting, rng: np.random.Generator) -> str:
    # a catalog of one's own may have settings that the table lacks
    return _pick(_read_names().names.get(setting.id, (setting.title.lower(),)), rng)


def _fill(
    templates: Sequence[str], setting: Setting, rng: np.random.Generator, value: str = ""
) -> str:
    template = _pick(templates, rng)
    return template.format(n=_name(setting, rng), v=value)


def _toggle(setting: Setting, rng: np.random.Generator) -> tuple[str, str]:
    draw = rng.random()
    if draw < 0.15:
        return _opened(setting, rng), f"open({setting.id})"
    templates, value = (_ways()["on"], "on") if draw < 0.58 else (_ways()["off"], "off")
    return _fill(templates, setting, rng), f"set({setting.id}, {value})"


def _opened(setting: Setting, rng: np.random.Generator) -> str:
    """Name a setting without a wish: often as a bare name, since little else says that it opens."""
    if rng.random() < 0.5:
        title = setting.title.lower()
        named = rng.random() < 0.5 and title.partition(" ")[0] not in WISHES
        name = title if named else _name(setting, rng)
        if name not in WISHES:
            return name
    return _fill(_ways()["open"][1:], setting, rng)  # not the bare name


def _contrasted(query: str, other: str, rng: np.random.Generator) -> str:
    """Name another setting that is not meant, before or after the one that is."""
    return _pick(_ways()["contrast"], rng).format(q=query, o=other)


def _corrected(setting: Setting, rng: np.random.Generator) -> tuple[str, str]:
    """Give a value, take it back, and give another one, which is meant."""
    if setting.kind == "level":
        values = [str(pick_level(setting, rng)) for _ in range(2)]
        said = values
    else:
        options = ("on", "off") if setting.kind == "toggle" else setting.choices
        values = [options[i] for i in rng.permutation(len(options))[:2]]
        said = [_worded(setting, value, rng) for value in values]
    way = _pick(_ways()["correction"], rng)
    query = way.format(n=_name(setting, rng), v=said[0], w=said[1])
    return query, f"set({setting.id}, {values[0]})"


def _page(setting: Setting, rng: np.random.Generator) -> tuple[str, str]:
    return _fill(_ways()["open_page"], setting, rng), f"open({setting.id})"


def _choice(setting: Setting, rng: np.random.Generator) -> tuple[str, str]:
    if rng.random() < 0.15:
        return _opened(setting, rng), f"open({setting.id})"
    choice = _pick(setting.choices, rng)
    shown = _worded(setting, choice, rng)
    return _fill(_ways()["set"], setting, rng, shown), f"set({setting.id}, {choice})"


def _worded(setting: Setting, choice: str, rng: np.random.Generator) -> str:
    """Say a value as people do."""
    wordings = _read_names().choices.get(setting.id, {})
    return _pick(wordings.get(choice, (choice.replace("_", " "),)), rng)


def _level(setting: Setting, rng: np.random.Generator) -> tuple[str, str]:
    verb = _LEVEL_VERBS[int(rng.choice(len(_LEVEL_VERBS), p=_LEVEL_SHARES))]
    extra = _read_names().levels.get(setting.id, {"set": (), "up": (), "down": ()})
    if verb == "set":
        return _set_level(setting, extra["set"], rng)
    if verb == "extreme":
        return _extreme(setting, rng)
    if verb == "open":
        return _opened(setting, rng), f"open({setting.id})"
    rising = verb.startswith("up")
    word = "increase" if rising else "decrease"
    if verb in ("up by", "down by"):
        amount = min(pick_level(setting, rng) - setting.minimum or 5, setting.span)
        shown = _quantity(setting, amount, rng, exact=False)
        return _fill(_ways()["up_by"] if rising else _ways()["down_by"], setting, rng, shown), (
            f"{word}({setting.id}, {amount})"
        )
    templates = [
        *(_ways()["up"] if rising else _ways()["down"]),
        *(2 * [*extra["up" if rising else "down"]]),
    ]
    return _fill(templates, setting, rng), f"{word}({setting.id})"


def _set_level(setting: Setting, extra: Sequence[str], rng: np.random.Generator) -> tuple[str, str]:
    value = pick_level(setting, rng)
    templates = [
        *_ways()["set"],
        *extra,
        *extra,
        *(_ways()["set_percent"] if setting.unit == "percent" else ()),
    ]
    shown = _quantity(setting, value, rng, exact=True)
    return _fill(templates, setting, rng, shown), f"set({setting.id}, {value})"


def _extreme(setting: Setting, rng: np.random.Generator) -> tuple[str, str]:
    whole = setting.unit == "percent" and (setting.minimum, setting.maximum) == (0, 100)
    draw = rng.random() * (1.0 if whole else 0.7)  # half is only defined for 0 to 100 percent
    if draw < 0.35:
        return _fill(_ways()["maximum"], setting, rng), f"set({setting.id}, {setting.maximum})"
    if draw < 0.7:
        return _fill(_ways()["minimum"], setting, rng), f"set({setting.id}, {setting.minimum})"
    return _fill(_ways()["half"], setting, rng), f"set({setting.id}, 50)"


def _quantity(setting: Setting, value: int, rng: np.random.Generator, exact: bool) -> str:
    """Write a number with the unit people would say; `exact` allows hours for minutes."""
    if setting.unit == "minutes" and exact and value and value % 60 == 0 and rng.random() < 0.5:
        return _hours(value // 60, rng)
    draw = rng.random()
    shown = number_words(value, " " if draw < 0.1 else "-") if draw < 0.3 else str(value)
    if setting.unit == "percent":
        units = ("", "%", " percent") if shown.isdigit() else ("", " percent")
        return shown + _pick(units, rng)
    if setting.unit == "step":
        return shown
    unit = setting.unit.removesuffix("s") if value == 1 else setting.unit
    if setting.unit == "minutes" and rng.random() < 0.3:
        unit = "min" if value == 1 else _pick(("min", "mins"), rng)
    return f"{shown} {unit}"


def _hours(hours: int, rng: np.random.Generator) -> str:
    if hours == 1:
        return _pick(("an hour", "one hour", "1 hour", "60 minutes"), rng)
    return f"{number_words(hours) if hours < 20 and rng.random() < 0.5 else hours} hours"
