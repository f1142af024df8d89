"""A trie over the calls that may answer a query, and the masks that it lays over the logits.

Of every call of the catalog that bears no number there is a path of tokens; a query adds the
numbers that it names to the paths of the levels. One that leaves a level's range is a path too:
`Calls.call_of` says that the call is none() then, and why, so that a number out of range is caught
by arithmetic and not by the model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mu_ref.settings.calls import Call, format_call
from mu_ref.settings.catalog import Catalog, Setting
from mu_ref.settings.valid.numbers import Numbers, read_numbers
from mu_ref.tokenizer import Tokenizer

__all__ = ["CallGuide", "Calls", "Trie"]

ROOT = 0
ASTRAY = 1  # the node of rows that have ended, or that were drafted away from every call


@dataclass(slots=True)
class Trie:
    """Paths of tokens; a node is an integer, a path ends in the node `ASTRAY`."""

    children: list[dict[int, int]]  # {token: node} of each node, tokens ascending

    @classmethod
    def of(cls, paths: Sequence[Sequence[int]]) -> "Trie":
        """Return the trie of some paths."""
        return cls([{}, {}]).with_paths(paths)

    def with_paths(self, paths: Sequence[Sequence[int]]) -> "Trie":
        """Return a trie with more paths; this one stays as it is."""
        children = list(self.children)
        own: set[int] = set(range(2, 2))  # nodes whose children are not shared with this trie
        for path in paths:
            node = ROOT
            for at, token in enumerate(path):
                if node not in own:
                    children[node] = dict(children[node])
                    own.add(node)
                last = at == len(path) - 1
                if token not in children[node]:
                    children[node][token] = ASTRAY if last else len(children)
                    if not last:
                        own.add(len(children))
                        children.append({})
                node = children[node][token]
        for node in own:
            children[node] = dict(sorted(children[node].items()))
        return Trie(children)

    def follow(self, node: int, token: int) -> int:
        """Return the node behind a token; `ASTRAY` behind one that no path has."""
        return self.children[node].get(token, ASTRAY)


@dataclass(frozen=True)
class Calls:
    """The calls of a catalog as tokens."""

    catalog: Catalog
    tokenizer: Tokenizer
    end: int  # the token that ends a text
    _known: dict[str, tuple[int, ...]] = field(default_factory=dict)  # paths seen before

    @cached_property
    def plain(self) -> Trie:
        """The trie of all calls without a number."""
        return Trie.of([self.path(format_call(call)) for call in plain_calls(self.catalog)])

    def path(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a call, the end included."""
        return (*self.tokenizer.encode(text), self.end)

    def trie(self, query: str) -> Trie:
        """Return the trie of all calls that may answer a query."""
        calls = numbered_calls(self.catalog, read_numbers(query))
        return self.plain.with_paths([self._numbered(call) for call in calls])

    def _numbered(self, call: Call) -> tuple[int, ...]:
        text = format_call(call)
        if text not in self._known:
            if len(self._known) > 1 << 16:
                self._known.clear()
            self._known[text] = self.path(text)
        return self._known[text]

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return the text of a path, with its end or without."""
        return self.tokenizer.decode([token for token in tokens if token != self.end])

    def call_of(self, tokens: Sequence[int]) -> tuple[Call, str | None]:
        """Read a path of a trie as a call.

        Args:
            tokens: of a path, with its end or without.

        Returns:
            The call, and why it is none() if the path names a number out of range.
        """
        verb, _, inside = self.text_of(tokens).rstrip(")").partition("(")
        name, _, value = inside.partition(", ")
        if verb == "none":
            return Call(verb="none"), None
        setting = self.catalog.settings[name]
        if setting.kind != "level" or not value:
            return Call(verb=verb, setting_id=name, value=value or None), None  # type: ignore[arg-type]
        number = int(value)
        low, high = (setting.minimum, setting.maximum) if verb == "set" else (1, setting.span)
        if low <= number <= high:
            return Call(verb=verb, setting_id=name, value=number), None  # type: ignore[arg-type]
        why = f"{setting.title} goes from {low} to {high} {setting.unit}, {number} is out of range"
        return Call(verb="none"), why


def plain_calls(catalog: Catalog) -> Iterator[Call]:
    """Yield every call of a catalog that bears no number."""
    yield Call(verb="none")
    for setting in catalog:
        yield Call(verb="open", setting_id=setting.id)
        values = {"toggle": ("on", "off"), "choice": setting.choices}.get(setting.kind, ())
        for value in values:
            yield Call(verb="set", setting_id=setting.id, value=value)
        if setting.kind == "level":
            yield Call(verb="increase", setting_id=setting.id)
            yield Call(verb="decrease", setting_id=setting.id)


def numbered_calls(catalog: Catalog, numbers: Numbers) -> Iterator[Call]:
    """Yield the calls that bear a number of a query."""
    for setting in _levels(catalog):
        for value in numbers.of_level(setting):
            yield Call(verb="set", setting_id=setting.id, value=value)
        for value in numbers.amounts(setting):
            yield Call(verb="increase", setting_id=setting.id, value=value)
            yield Call(verb="decrease", setting_id=setting.id, value=value)


def _levels(catalog: Catalog) -> Iterator[Setting]:
    return (setting for setting in catalog if setting.kind == "level")


class CallGuide:
    """A guide (`generate.Guide`) of a batch: a trie for each row.

    A state is the number of a node among the nodes of all rows; a row that went astray is allowed
    the pad token alone.
    """

    def __init__(self, tries: Sequence[Trie], vocab_size: int, pad: int) -> None:
        self.tries, self.vocab_size, self.pad = tries, vocab_size, pad

    def start(self, batch: int) -> np.ndarray:
        """Every row begins at the root of its trie."""
        return np.full(batch, ROOT)

    def allowed(self, states: np.ndarray) -> np.ndarray:
        """Mask: [batch, n] -> [batch, n, vocab_size]."""
        masks = np.zeros((*states.shape, self.vocab_size), bool)
        for row, trie in enumerate(self.tries):
            for at, node in enumerate(states[row].tolist()):
                masks[row, at, list(trie.children[node]) or [self.pad]] = True
        return masks

    def follow(self, states: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Go one token further in each row."""
        pairs = zip(self.tries, states.tolist(), tokens.tolist(), strict=True)
        return np.array([trie.follow(node, token) for trie, node, token in pairs])
