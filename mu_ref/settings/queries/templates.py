"""Make labelled queries from the catalog by filling in phrase templates.

They cover what written queries cannot: every setting with every verb, value and choice, and
numbers just outside a range. They are plain on purpose; variety of wording comes from the written
queries. Used for training only.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from mu_ref.settings.catalog import DATA, Catalog, Setting
from mu_ref.settings.queries.labelled import LabelledQuery
from mu_ref.settings.queries.number_words import number_words, pick_level

__all__ = ["template_queries"]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


_WEIGHTS = {"toggle": 1.0, "level": 4.0, "choice": 1.5, "page": 0.6}

_ON = _listed(
    "turn on {n}|turn {n} on|switch on {n}|switch {n} on|enable {n}|{n} on|activate {n}|i want {n}|"
    "start using {n}|i'd like {n}|{n} should be on|set {n} to on|don't turn off {n}|don't disable "
    "{n}|{n} back on|i need {n} on|never turn off {n}|keep {n} on|put {n} on|use {n}|yes to {n}|"
    "why is {n} off, turn it on|stop turning off {n}|i don't want {n} off|{n}: on|i'm missing {n}"
)
_OFF = _listed(
    "turn off {n}|turn {n} off|switch off {n}|switch {n} off|disable {n}|{n} off|deactivate {n}|"
    "no {n}|no more {n}|i don't want {n}|get rid of {n}|stop {n}|{n} should be off|set {n} to off|"
    "don't turn on {n}|don't enable {n}|kill {n}|i don't need {n}|keep {n} off|without {n} please|"
    "stop using {n}|never turn on {n}|don't use {n}|no to {n}|why is {n} on, turn it off|{n}: off"
)
_OPEN = _listed(
    "{n}|{n} settings|open {n} settings|where is the {n} setting|where do i change {n}|{n} options|"
    "show me the {n} setting|find {n} settings|how do i change {n}|take me to {n} settings|"
    "where can i find {n}|open the {n} page|go to {n} settings|where are the {n} settings"
)
_OPEN_PAGE = _listed(
    "{n}|open {n}|show me {n}|where can i find {n}|take me to {n}|go to {n}|where is {n}|find {n}|"
    "i want to see {n}|bring up {n}|{n} page|open the {n} page|where do i find {n}|i need {n}"
)
_SET = _listed(
    "set {n} to {v}|{n} {v}|{n} to {v}|{n} at {v}|make {n} {v}|change {n} to {v}|put {n} at {v}|"
    "put {n} on {v}|i want {n} at {v}|adjust {n} to {v}|{n}: {v}|{n} = {v}|{n} should be {v}"
)
_SET_PERCENT = ("{v} {n}", "i want {v} {n}", "give me {v} {n}")
_MAXIMUM = _listed(
    "{n} to max|max {n}|{n} to the maximum|maximum {n}|set {n} to max|highest {n}|"
    "{n} as high as it goes|the highest {n} please|put {n} at its maximum"
)
_MINIMUM = _listed(
    "{n} to min|minimum {n}|{n} to the minimum|lowest {n}|set {n} to the lowest|"
    "{n} as low as it goes|the lowest {n} please|put {n} at its minimum"
)
_HALF = _listed("half {n}|{n} to half|{n} at half|set {n} to half|{n} halfway|put {n} at half")
_UP = _listed(
    "increase {n}|raise {n}|turn up {n}|{n} up|higher {n}|{n} is too low|{n} up a bit|"
    "bump up {n}|a bit more {n}|{n} needs to go up|more {n} please"
)
_DOWN = _listed(
    "decrease {n}|lower {n}|turn down {n}|{n} down|reduce {n}|{n} is too high|{n} down a bit|"
    "bring down {n}|a bit less {n}|{n} needs to go down|less {n} please"
)
_UP_BY = _listed(
    "increase {n} by {v}|raise {n} by {v}|{n} up by {v}|add {v} to {n}|{n} up {v}|{n} plus {v}|"
    "bump {n} up by {v}|turn up {n} by {v}|{v} more on {n}"
)
_DOWN_BY = _listed(
    "decrease {n} by {v}|lower {n} by {v}|{n} down by {v}|take {v} off {n}|reduce {n} by {v}|"
    "{n} down {v}|{n} minus {v}|bring {n} down by {v}|turn down {n} by {v}|{v} less on {n}"
)
# share of each way of asking for a level
_LEVEL_VERBS = ("set", "extreme", "up", "down", "up by", "down by", "outside", "open")
_LEVEL_SHARES = (0.38, 0.1, 0.09, 0.09, 0.08, 0.08, 0.1, 0.08)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Names:
    names: Mapping[str, Sequence[str]]  # noun phrases for each setting id
    choices: Mapping[str, Mapping[str, Sequence[str]]]  # where underscores as blanks do not do
    levels: Mapping[str, Mapping[str, Sequence[str]]]  # whole phrases to set, raise and lower


@cache
def _read_names() -> _Names:
    return _Names(**json.loads((DATA / "template_names.json").read_text(encoding="utf-8")))


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
        query, call = makers[setting.kind](setting, rng)
        items.append(LabelledQuery(query=query, call=call))
    return items


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
        # not the bare name, the first template: "do not disturb" alone wishes it on
        return _fill(_OPEN[1:], setting, rng), f"open({setting.id})"
    templates, value = (_ON, "on") if draw < 0.58 else (_OFF, "off")
    return _fill(templates, setting, rng), f"set({setting.id}, {value})"


def _page(setting: Setting, rng: np.random.Generator) -> tuple[str, str]:
    return _fill(_OPEN_PAGE, setting, rng), f"open({setting.id})"


def _choice(setting: Setting, rng: np.random.Generator) -> tuple[str, str]:
    if rng.random() < 0.15:
        return _fill(_OPEN, setting, rng), f"open({setting.id})"
    choice = _pick(setting.choices, rng)
    wordings = _read_names().choices.get(setting.id, {}).get(choice, (choice.replace("_", " "),))
    return _fill(_SET, setting, rng, _pick(wordings, rng)), f"set({setting.id}, {choice})"


def _level(setting: Setting, rng: np.random.Generator) -> tuple[str, str]:
    verb = _LEVEL_VERBS[int(rng.choice(len(_LEVEL_VERBS), p=_LEVEL_SHARES))]
    extra = _read_names().levels.get(setting.id, {"set": (), "up": (), "down": ()})
    if verb == "set":
        return _set_level(setting, extra["set"], rng)
    if verb == "extreme":
        return _extreme(setting, rng)
    if verb == "outside":
        return _outside(setting, extra["set"], rng), "none()"
    if verb == "open":
        return _fill(_OPEN, setting, rng), f"open({setting.id})"
    rising = verb.startswith("up")
    word = "increase" if rising else "decrease"
    if verb in ("up by", "down by"):
        amount = min(pick_level(setting, rng) - setting.minimum or 5, setting.span)
        shown = _quantity(setting, amount, rng, exact=False)
        return _fill(_UP_BY if rising else _DOWN_BY, setting, rng, shown), (
            f"{word}({setting.id}, {amount})"
        )
    templates = [*(_UP if rising else _DOWN), *(2 * [*extra["up" if rising else "down"]])]
    return _fill(templates, setting, rng), f"{word}({setting.id})"


def _set_level(setting: Setting, extra: Sequence[str], rng: np.random.Generator) -> tuple[str, str]:
    value = pick_level(setting, rng)
    templates = [*_SET, *extra, *extra, *(_SET_PERCENT if setting.unit == "percent" else ())]
    shown = _quantity(setting, value, rng, exact=True)
    return _fill(templates, setting, rng, shown), f"set({setting.id}, {value})"


def _extreme(setting: Setting, rng: np.random.Generator) -> tuple[str, str]:
    whole = setting.unit == "percent" and (setting.minimum, setting.maximum) == (0, 100)
    draw = rng.random() * (1.0 if whole else 0.7)  # half is only defined for 0 to 100 percent
    if draw < 0.35:
        return _fill(_MAXIMUM, setting, rng), f"set({setting.id}, {setting.maximum})"
    if draw < 0.7:
        return _fill(_MINIMUM, setting, rng), f"set({setting.id}, {setting.minimum})"
    return _fill(_HALF, setting, rng), f"set({setting.id}, 50)"


def _outside(setting: Setting, extra: Sequence[str], rng: np.random.Generator) -> str:
    low, high = setting.minimum, setting.maximum
    if low > 0 and rng.random() < 0.5:
        value = int(rng.random() * low)
    else:
        value = high + 1 + int(rng.random() * min(high * 2, 1999 - high))
        if high >= 60:
            value = min(-(-value // 10) * 10, 1990)
    shown = _quantity(setting, value, rng, exact=True)
    return _fill([*_SET, *extra, *extra], setting, rng, shown)


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
