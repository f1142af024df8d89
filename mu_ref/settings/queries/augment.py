"""Vary labelled queries while training, so that the model meets more wordings than were written.

Every function is pure: the same query and the same state of the generator give the same result,
which lets a resumed training repeat what the uninterrupted one saw. Only `vary_number` changes a
call, and it changes query and call together. Results are lower case, as the tokenizer makes them.
"""

from dataclasses import dataclass

import numpy as np

from mu_ref.settings.catalog import Catalog
from mu_ref.settings.queries.labelled import LabelledQuery
from mu_ref.settings.queries.number_words import vary_number
from mu_ref.settings.queries.phrases import Swap, phrases
from mu_ref.settings.queries.templates import template_queries

__all__ = ["AugmentConfig", "augment", "standard_augmentation", "template_queries"]

_SHORTEST_TYPO = 4  # letters; in shorter words one letter can be another word


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Hold the probability of each change, 0..1; each is drawn by itself."""

    number: float  # another value of a level
    synonym: float  # each synonym rule that applies
    spelling: float  # each British or American spelling
    contraction: float  # each contraction
    filler: float  # words before or after
    drop_word: float  # one weak word less
    punctuation: float  # marks dropped or one added at the end
    typo: float  # one misspelling
    second_typo: float  # another one, given the first


def standard_augmentation() -> AugmentConfig:
    """Return the probabilities that mu-nano is trained with.

    Returns:
        A complete configuration: about half of the queries come out unchanged but for case.
    """
    return AugmentConfig(
        number=0.6,
        synonym=0.3,
        spelling=0.3,
        contraction=0.25,
        filler=0.15,
        drop_word=0.1,
        punctuation=0.2,
        typo=0.2,
        second_typo=0.2,
    )


_STANDARD = standard_augmentation()


def augment(
    item: LabelledQuery,
    catalog: Catalog,
    rng: np.random.Generator,
    config: AugmentConfig = _STANDARD,
) -> LabelledQuery:
    """Return another wording of a labelled query, with the call that answers it.

    Args:
        item: a query with a call the catalog allows.
        catalog: gives the ranges of levels.
        rng: makes every choice.
        config: how probable each change is.

    Returns:
        A query in lower case; its call differs from `item.call` at most in the number.
    """
    query, call = item.query.lower(), item.call
    if call[-2:-1].isdigit() and rng.random() < config.number:
        query, call = vary_number(query, call, catalog, rng)
    query = swap_words(query, call, phrases().synonyms, config.synonym, rng)
    query = swap_words(query, call, phrases().spellings, config.spelling, rng)
    query = swap_words(query, call, phrases().contractions, config.contraction, rng)
    if rng.random() < config.drop_word:
        query = drop_weak_word(query, rng)
    if rng.random() < config.filler:
        query = add_filler(query, rng)
    if rng.random() < config.punctuation:
        query = vary_punctuation(query, rng)
    if rng.random() < config.typo:
        query = misspell(query, rng)
        if rng.random() < config.second_typo:
            query = misspell(query, rng)
    return LabelledQuery(query=query, call=call)


def swap_words(
    query: str, call: str, rules: tuple[Swap, ...], rate: float, rng: np.random.Generator
) -> str:
    """Apply each rule that fits the query and its call, with probability `rate`.

    Args:
        query: lower-case text.
        call: canonical text of its call.
        rules: tried in order.
        rate: probability of applying a rule that fits.
        rng: makes the choices.

    Returns:
        The query, at most one place changed for each rule.
    """
    for rule in rules:
        match = rule.pattern.search(query)
        if match is None or rng.random() >= rate or not call.startswith(rule.calls):
            continue
        if rule.unless and _setting_id(call) in rule.unless:
            continue
        word = _pick(rule.words, rng)
        query = f"{query[: match.start()]}{word}{query[match.end() :]}"
    return query


def _setting_id(call: str) -> str:
    return call.partition("(")[2].rstrip(")").partition(",")[0] or "none"


def _pick(words: tuple[str, ...] | str, rng: np.random.Generator) -> str:
    return words[int(rng.random() * len(words))]


def drop_weak_word(query: str, rng: np.random.Generator) -> str:
    """Drop one word without weight, such as an article.

    Args:
        query: lower-case text.
        rng: chooses the word.

    Returns:
        The query without it; unchanged if it has no such word or fewer than four words.
    """
    words = query.split()
    weak = [index for index, word in enumerate(words) if word in phrases().weak_words]
    if len(words) < 4 or not weak:
        return query
    del words[weak[int(rng.random() * len(weak))]]
    return " ".join(words)


def add_filler(query: str, rng: np.random.Generator) -> str:
    """Add a greeting, a polite opening, or thanks.

    Args:
        query: lower-case text.
        rng: makes the choice.

    Returns:
        The longer query.
    """
    if rng.random() < 0.3:
        return f"{query.rstrip('.!')} {_pick(phrases().fillers_after, rng)}"
    first, _, rest = query.partition(" ")
    # "can you take me to" is English, "i want to take me to" is not
    verb = first in phrases().imperatives and not rest.startswith("me ")
    before = (
        phrases().fillers_before_verb if verb and rng.random() < 0.7 else phrases().fillers_before
    )
    return f"{_pick(before, rng)} {query}"


def vary_punctuation(query: str, rng: np.random.Generator) -> str:
    """Drop marks that carry no meaning, or add one at the end.

    Args:
        query: lower-case text.
        rng: makes the choice.

    Returns:
        The query with other punctuation; digits and what stands between them are untouched.
    """
    draw = rng.random()
    if draw < 0.35 and "'" in query:
        return query.replace("'", "")
    if draw < 0.6:
        return query.replace(", ", " ").replace("; ", " ").rstrip(".!?")
    if not query or not query[-1].isalnum():
        return query
    return query + _pick(".!.", rng)


def misspell(query: str, rng: np.random.Generator) -> str:
    """Misspell one word by a slip of the fingers.

    Args:
        query: lower-case text.
        rng: chooses the word, the place and the slip.

    Returns:
        The query with one letter replaced by a neighbour on the keyboard, dropped, doubled or
        swapped with the next; unchanged if no word qualifies. Words with digits, number words and
        words that carry a negation or a direction are left alone.
    """
    words = query.split(" ")
    index = int(rng.random() * len(words))
    word = words[index]
    if len(word) < _SHORTEST_TYPO or not word.isascii() or not word.isalpha():
        return query
    if word in phrases().protected:
        return query
    words[index] = _slip(word, rng)
    return " ".join(words)


def _slip(word: str, rng: np.random.Generator) -> str:
    draw = rng.random()
    # slips on the first letter are rare, and "enable" must not lose it
    at = 1 + int(rng.random() * (len(word) - 1))
    if draw < 0.3:
        return word[:at] + _pick(phrases().key_neighbours[word[at]], rng) + word[at + 1 :]
    if draw < 0.55:
        return word[:at] + word[at + 1 :]
    if draw < 0.75:
        return word[: at + 1] + word[at:]
    at = min(at, len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
