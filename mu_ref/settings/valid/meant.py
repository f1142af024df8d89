"""What is left of a query that names a setting only to put it aside: "not wifi, bluetooth".

The linear scorer sees which words stand in a query, not which are taken back; and a bare name opens
where another name was put aside before it. Only names of the catalog are put aside, and only where
another one stays: "not too loud" and "leave bluetooth on" are wishes like any other.
"""

import re
from functools import cached_property

from mu_ref.settings.catalog import Catalog
from mu_ref.settings.queries.labelled import folded_text
from mu_ref.settings.queries.templates import names_of

__all__ = ["Meant"]

# A query without any of these puts nothing aside: it need not be searched for names.
_CUE = re.compile(
    r"\b(?:not|instead|rather|forget|scratch|mean|meant|leave|keep|let|stays?|wait|fine|ok|okay|no"
    r"|nope|sorry|actually|oops|make that)\b"
)
_NAME = "\0"  # stands for a name while a query is read
_MARK = r"[,;:.!?\u2013\u2014-]"
_END = rf"\s*(?=$|{_MARK}|(?:but|and)\b)"
_NOT = (
    r"\b(?:(?:and |but |no,? |oops,? )?not|rather than|forget|scratch"
    r"|(?:i )?(?:dont|do not|didnt) mean)"
)
_AS_IT_IS = r"(?:as (?:it|they) (?:is|are)|as is|the way (?:it|they) (?:is|are))"
_STAYS = r"(?:(?:can|may|should) stay|stays?|can wait|(?:is|are) (?:fine|ok|okay))"
_AGAIN = (
    r"(?:no,? wait|wait,? no|wait|nope|no(?=\s*[,;])|sorry|i mean|i meant|actually|oops"
    r"|scratch that|make that|or rather)(?:,? (?:no|not that|i mean|i meant))?\b"
)
_ASIDE = re.compile(
    rf"{_NOT} {_NAME}{_END}"
    rf"|\binstead of {_NAME}"
    rf"|\b(?:and |but )?(?:leave|keep|let) {_NAME} (?:alone|untouched|be|{_AS_IT_IS}){_END}"
    rf"|{_NAME} {_STAYS}(?: {_AS_IT_IS})?{_END}"
    rf"|{_NAME}(?P<value> on| off)?(?:\s*{_MARK}+\s*|\s){_AGAIN}\s*{_MARK}*\s*(?=.*{_NAME})"
)
_ENDS = re.compile(rf"^(?:\s|{_MARK})+|(?:\s|{_MARK})+$")
_MARKS = re.compile(rf"(?:\s*{_MARK})+")


class Meant:
    """Reads queries against the names of one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def __call__(self, query: str) -> str:
        """Return what a query means: itself, or its folded text without what it puts aside.

            >>> from mu_ref.settings.catalog import load_catalog
            >>> meant = Meant(load_catalog())
            >>> meant("Not the wifi, Bluetooth"), meant("switch narrator, no wait, magnifier off")
            ('bluetooth', 'switch magnifier off')

        Args:
            query: any text.

        Returns:
            A text that names a setting, if the query does.
        """
        text = " ".join(folded_text(query).replace(_NAME, "").split())
        if not _CUE.search(text):
            return query
        marked, names = self._names.sub(_NAME, text), self._names.findall(text)
        dropped = {
            marked.count(_NAME, 0, found.start() + found[0].index(_NAME))
            for found in _ASIDE.finditer(marked)
        }
        kept = (name for at, name in enumerate(names) if at not in dropped)
        if not dropped or len(dropped) == len(names):
            return query
        left = _ASIDE.sub(lambda found: f" {found['value'] or ''} ", marked)
        left = _MARKS.sub(
            lambda marks: marks[0].strip()[0], re.sub(_NAME, lambda _: next(kept), left)
        )
        return " ".join(_ENDS.sub("", left).split())

    @cached_property
    def _names(self) -> re.Pattern[str]:
        every = {folded_text(name) for setting in self.catalog for name in names_of(setting)}
        longest_first = sorted(every, key=lambda name: (-len(name), name))
        return re.compile(
            rf"\b(?:(?:the|my|that) )?(?:{'|'.join(map(re.escape, longest_first))})\b"
        )
