"""Tables of words for `augment.py`: what may be said for what without changing the call.

Each rule is a pattern over lower-case text with its replacements, and says for which calls it is
safe: "display" is a screen in "the display" but not in "display settings for apps", and "laptop"
and "monitor" are opposites where several screens are arranged.
"""

import re
from dataclasses import dataclass

__all__ = [
    "CONTRACTIONS",
    "FILLERS_AFTER",
    "FILLERS_BEFORE",
    "FILLERS_BEFORE_VERB",
    "IMPERATIVES",
    "KEY_NEIGHBOURS",
    "PROTECTED",
    "SPELLINGS",
    "SYNONYMS",
    "WEAK_WORDS",
    "Swap",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Swap:
    """Hold one rule: wherever the pattern matches, any of the words may stand."""

    pattern: re.Pattern[str]
    words: tuple[str, ...]
    calls: str = ""  # the call must start with this
    unless: frozenset[str] = frozenset()  # setting ids for which the rule would change the call


def _swap(pattern: str, words: str, calls: str = "", unless: str = "") -> Swap:
    return Swap(
        pattern=re.compile(pattern),
        words=_listed(words),
        calls=calls,
        unless=_set_of(unless),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


def _set_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SCREENS = "display.multiple page.display page.projection"
_NO_SCREEN = r"(?! (?:reader|capture|shot|keyboard|saver|magnifier|lock|of|on\b))"
_LEVEL_IDS = (
    "power.screen_off_battery power.screen_off_plugged power.sleep_battery power.sleep_plugged "
    "battery.saver_threshold power.button power.lid_close sound.mute sound.microphone_mute"
)

SYNONYMS = (
    _swap(
        r"\bmy (?:screen|display|monitor)\b" + _NO_SCREEN,
        "my screen|my display|my monitor",
        unless=_SCREENS,
    ),
    _swap(
        r"\bthe (?:screen|display|monitor)\b" + _NO_SCREEN,
        "the screen|the display|the monitor|my screen",
        unless=_SCREENS,
    ),
    _swap(
        r"\b(?:turn on|switch on|enable|activate)\b",
        "turn on|switch on|enable|activate",
        "set(",
        _LEVEL_IDS,
    ),
    _swap(
        r"\b(?:turn off|switch off|disable|deactivate)\b",
        "turn off|switch off|disable|deactivate|shut off",
        "set(",
        _LEVEL_IDS,
    ),
    _swap(r"\b(?:turning on|switching on|enabling)\b", "turning on|switching on|enabling", "set("),
    _swap(
        r"\bmy (?:laptop|pc|computer|machine)\b",
        "my laptop|my pc|my computer|my machine",
        unless=_SCREENS,
    ),
    _swap(
        r"\bthe (?:laptop|pc|computer|machine)\b",
        "the laptop|the pc|the computer|the machine",
        unless=_SCREENS,
    ),
    _swap(r"^set (?=.* to )", "change |put |adjust |set |turn ", "set("),
    _swap(
        r"^(?:open|show me|take me to|go to|bring up|find|pull up) ",
        "open |show me |take me to |go to |bring up |find |pull up |get me to |i need |i want "
        "to see ",
        "open(page.",
    ),
    _swap(
        r"^(?:take me to|go to|bring me to|get me to) ",
        "take me to |go to |bring me to |get me to |navigate to |jump to ",
        "open(",
    ),
    _swap(
        r"^where (?:do|can) i (?:change|set|adjust|find) ",
        "where do i change |where can i change |where do i set |how do i change |where can i "
        "find |where do i find ",
        "open(",
    ),
    _swap(
        r"\b(?:settings|options|preferences)$",
        "settings|options|preferences",
        "open(",
        "page.graphics",
    ),
    _swap(r"\baudio\b", "sound|audio", unless="flash_alerts"),
    _swap(r"\bmic(?:rophone)?\b", "mic|microphone"),
    _swap(r"\b(?:bigger|larger)\b", "bigger|larger"),
    _swap(r"\b(?:track|touch ?)pad\b", "touchpad|trackpad|touch pad"),
    _swap(r"\bwi-?fi\b", "wifi|wi-fi|wi fi"),
    _swap(
        r"\b(?:mouse pointer|mouse cursor|mouse arrow)\b", "mouse pointer|mouse cursor|mouse arrow"
    ),
    _swap(r"\bapps\b", "apps|programs|applications", unless="page.apps page.default_apps none"),
    _swap(r"\bwallpaper\b", "wallpaper|desktop background"),
    _swap(r"\b(?:louder|higher in volume)\b", "louder"),
    _swap(r"\b(?:start|begin)(?= the week| weeks)", "start|begin"),
    _swap(r"\bminutes\b", "minutes|mins|min"),
    _swap(r"^(?:increase|raise|bump up)\b", "increase|raise|bump up|turn up", "increase("),
    _swap(r"^(?:decrease|lower|reduce)\b", "decrease|lower|reduce|turn down", "decrease("),
    _swap(r"\ba (?:bit|little|tad|touch)\b", "a bit|a little|a tad|slightly", "increase("),
    _swap(r"\ba (?:bit|little|tad|touch)\b", "a bit|a little|a tad|slightly", "decrease("),
    _swap(r"\bget rid of\b", "get rid of|remove|stop", "set("),
    _swap(r"\bpicture\b", "picture|photo|image", "set(theme"),
)

SPELLINGS = tuple(
    _swap(rf"\b(?:{pair})", pair)
    for pair in (
        "colour|color", "grey|gray", "centred|centered", "favour|favor", "customis|customiz",
        "personalis|personaliz", "recognis|recogniz", "synchronis|synchroniz", "optimis|optimiz",
        "behaviour|behavior", "licence|license", "kilometre|kilometer", "organis|organiz",
        "minimis|minimiz", "maximis|maximiz", "mum|mom", "dialogue|dialog",
    )
)  # fmt: skip

CONTRACTIONS = tuple(
    _swap(rf"\b{pattern}\b", words)
    for pattern, words in (
        (r"i(?:'d| would) like", "i'd like|i would like|id like"),
        (r"i(?:'m| am)", "i'm|i am|im"),
        (r"do(?:n'?t| not)", "don't|do not|dont"),
        (r"does(?:n'?t| not)", "doesn't|does not|doesnt"),
        (r"is(?:n'?t| not)", "isn't|is not|isnt"),
        (r"can(?:'?t|not| not)", "can't|cannot|cant"),
        (r"won'?t", "won't|wont|will not"),
        (r"what(?:'s| is)", "what's|what is|whats"),
        (r"where(?:'s| is)", "where's|where is|wheres"),
        (r"it(?:'s| is)", "it's|it is"),
        (r"that(?:'s| is)", "that's|that is|thats"),
        (r"i(?:'ve| have)", "i've|i have|ive"),
        (r"let(?:'s| us)", "let's|lets"),
        (r"want to", "want to|wanna"),
    )
)

FILLERS_BEFORE = _listed(
    "hey|hi|ok|ok so|so|please|hello|um|right|well|windows,|hey windows|computer,|quick one:|ok,|"
    "hey there,|hi there,|listen,|alright|yo"
)
FILLERS_BEFORE_VERB = _listed(
    "can you|could you|can you please|could you please|i want to|i'd like to|i need to|help me|"
    "would you|i want you to|please can you|just|please|go ahead and|let's|kindly|pls"
)
FILLERS_AFTER = _listed(
    "please|thanks|pls|for me|thank you|plz|thx|if you can|ta|cheers|please and thanks"
)
# verbs after which "can you ..." and "i want to ..." are still English
IMPERATIVES = _set_of(
    "turn set make put switch enable disable open show take change increase decrease raise lower "
    "reduce activate deactivate mute unmute stop start hide use let give bring adjust pause lock "
    "get add remove move dim brighten keep allow block pick choose find go scale zoom"
)

# never misspelt and never dropped: one letter more or less could turn the wish around
PROTECTED = _set_of(
    "no not don't dont never ever stop off on out in disable enable without with un mute unmute "
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred thousand half max min up down more less hide unhide show lock unlock left right "
    "isn't doesn't can't won't shouldn't isnt doesnt cant wont hour hours week weeks day days "
    "picture pictures light night dark"
)
# words whose loss leaves the wish as it was. Not "to" or "by", since 10 is not by 10, and no verbs:
# "are mouse keys on" asks, "mouse keys on" wishes
WEAK_WORDS = _set_of(
    "the a an my please you me i i'd it's it this that these so just of for and really some here"
)

KEY_NEIGHBOURS = {
    "q": "wa", "w": "qes", "e": "wrd", "r": "etf", "t": "ryg", "y": "tuh", "u": "yij",
    "i": "uok", "o": "ipl", "p": "ol", "a": "qsz", "s": "adwx", "d": "sfec", "f": "dgrv",
    "g": "fhtb", "h": "gjyn", "j": "hkum", "k": "jlim", "l": "kop", "z": "asx", "x": "zsdc",
    "c": "xdfv", "v": "cfgb", "b": "vghn", "n": "bhjm", "m": "njk",
}  # fmt: skip
