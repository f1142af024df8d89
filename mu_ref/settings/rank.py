r"""A linear scorer of calls: which call do the words of a query speak for?

A query becomes a set of hashed features: its words, pairs and triples of words, words behind a
negation, and runs of three to five letters. A call c has the score

$$s_c = \frac{1}{\sqrt{|F|}} \sum_{f \in F} (W_{f,c} + W_{f,i(c)} + W_{f,a(c)})$$

with weights for the call itself, for its setting i(c), and for what it does to it, a(c), so that
what is learned of "turn off" serves every toggle. Numbers do not matter here: a call that bears one
is scored as its form, `set(sound.volume, #)`. Weights are int8, one scale a column, and most are
zero. `valid/rank_training.py` learns them from the training queries; chapter `docs/agent.md`.
"""

import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from mu_ref.border.arrays import read_safetensors
from mu_ref.border.files import DATA
from mu_ref.errors import WeightsError
from mu_ref.settings.queries.labelled import folded_text

__all__ = ["BITS", "Scorer", "call_form", "columns_of", "features", "load_scorer"]

BITS = 18  # of a feature's hash
FILE = DATA / "mu-nano-rank.safetensors"

_WORD = re.compile(r"[a-z0-9]+")
_PART = re.compile(r"[^\w\s%'-]+")  # what ends the reach of a negation
_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(r", \d+\)")
_NEGATIONS = {"not", "dont", "no", "never", "without", "instead", "rather", "isnt", "stop", "than"}
_FEW = 4  # words; so short a query is a feature of its own


def features(query: str) -> np.ndarray:
    """Return the hashed features of a query, [n] int64, ascending, each once."""
    words = ["#" if w.isdigit() else w for w in _WORD.findall(folded_text(query))]
    found = {f"n {word}" for word in _negated(folded_text(query))}
    before = ["<", "<", *words]
    for first, second, word in zip(before[:-1], before[1:], [*words, ">"], strict=True):
        masked = _DIGITS.sub("#", word)
        found |= {f"w {masked}", f"b {second} {masked}", f"s {first} {masked}",
                  f"t {first} {second} {masked}"}  # fmt: skip
        marked = f"<{word}>"
        if word not in ("#", ">"):
            found |= {
                "c" + marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)
            }
    found.add(f"len {min(len(words), 8)}")
    if len(words) <= _FEW:
        found.add("all " + " ".join(words))
    hashes = {zlib.crc32(text.encode()) & ((1 << BITS) - 1) for text in found}
    return np.array(sorted(hashes), np.int64)


def _negated(text: str) -> set[str]:
    """Return the words that a negation reaches: up to a mark, or to "but"."""
    found: set[str] = set()
    for part in _PART.split(text):
        reached = False
        for word in _WORD.findall(part):
            if reached:
                found.add(word)
            reached = (reached or word in _NEGATIONS) and word != "but"
    return found


def call_form(call: str) -> str:
    """Return a call's text with `#` for a number."""
    return _NUMBER.sub(", #)", call)


def columns_of(form: str) -> tuple[str, str, str]:
    """Return what a form is scored by: itself, its setting's id, and what it does."""
    verb, _, inside = form.rstrip(")").partition("(")
    setting_id, _, value = inside.partition(", ")
    kind = value if value in ("on", "off", "#", "") else "choice"
    return form, setting_id or "none", f"{verb} {kind}".strip()


@dataclass(frozen=True)
class Scorer:
    """Weights by feature, of which few are not zero."""

    forms: tuple[str, ...]  # the calls that it knows
    features: np.ndarray  # [n_features] int64, ascending
    ends: np.ndarray  # [n_features] int64, where the weights of each feature end
    columns: np.ndarray  # [n_weights] uint16
    weights: np.ndarray  # [n_weights] int8
    scales: np.ndarray  # [n_columns] float32
    notes: dict[str, str] = field(default_factory=dict)  # how it was made

    @cached_property
    def _index(self) -> dict[str, int]:
        return {form: at for at, form in enumerate(self.forms)}

    @cached_property
    def parts(self) -> np.ndarray:
        """[n_forms, 3] int, the columns of each form."""
        names = list(dict.fromkeys(name for k in range(3) for form in self.forms
                                   for name in [f"{k} {columns_of(form)[k]}"]))  # fmt: skip
        index = {name: at for at, name in enumerate(names)}
        return np.array([[index[f"{k} {part}"] for k, part in enumerate(columns_of(form))]
                         for form in self.forms])  # fmt: skip

    def log_probabilities(self, query: str) -> np.ndarray:
        """Return the natural logarithms of the probabilities of all forms, [n_forms] float64."""
        found = features(query)
        at = np.searchsorted(self.features, found)
        at = at[at < len(self.features)]
        known = at[self.features[at] == found[: len(at)]]  # both ascend, so those cut off are last
        starts = np.where(known > 0, self.ends[known - 1], 0)
        picked = np.concatenate([np.arange(0), *map(np.arange, starts, self.ends[known])])
        # sums of small integers are exact, so their order does not matter
        sums = np.bincount(self.columns[picked], self.weights[picked], len(self.scales))
        scores = (sums * self.scales)[self.parts].sum(axis=1) / np.sqrt(len(found))
        scores -= scores.max()
        return scores - np.log(np.exp(scores).sum())

    def of_calls(self, query: str, calls: Sequence[str]) -> np.ndarray:
        """Return the log-probability of each call's form, [n] float64; low for one unknown."""
        every = self.log_probabilities(query)
        lowest = float(every.min())
        at = [self._index.get(call_form(call)) for call in calls]
        return np.array([lowest if k is None else every[k] for k in at])


def load_scorer(path: Path | None = None) -> Scorer:
    """Read a scorer.

    Args:
        path: a file written by `rank_training.save_scorer`; the shipped one by default.

    Returns:
        The scorer.

    Raises:
        WeightsError: the file is not there, damaged or foreign.
    """
    path = path or FILE
    arrays, notes = read_safetensors(path)
    try:
        forms = tuple(json.loads(notes["forms"]))
        counts = arrays["counts"].astype(np.int64)
        hashes = np.cumsum(arrays["gaps"].astype(np.int64))
        found = Scorer(forms, hashes, np.cumsum(counts), arrays["columns"],
                       arrays["weights"], arrays["scales"], notes)  # fmt: skip
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} must hold a linear scorer of calls, got {error}") from error
    n = found.ends[-1] if len(found.ends) else 0
    fits = len(found.columns) == len(found.weights) == n and found.parts.max() < len(found.scales)
    if not fits or found.columns.max(initial=0) >= len(found.scales):
        raise WeightsError(f"{path} must hold a linear scorer of calls; its arrays do not fit")
    return found
