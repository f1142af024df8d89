"""Make the examples of one training epoch: written queries, varied, and filled-in templates."""

from collections.abc import Callable, Sequence

import numpy as np

from mu_ref.settings.catalog import Catalog
from mu_ref.settings.queries.augment import augment
from mu_ref.settings.queries.labelled import LabelledQuery, query_tokens
from mu_ref.settings.queries.out_of_scope import out_of_scope_queries
from mu_ref.settings.queries.templates import template_queries
from mu_ref.tokenizer import Tokenizer
from mu_ref.training.datasets import Example

__all__ = ["drafter_queries", "epoch_data", "reworded"]

TEMPLATE_SHARE = 0.25  # templates per written query
OUT_OF_SCOPE_SHARE = 0.04  # queries that no setting serves, per written query
SPLIT_RATE = 0.08  # chance of undoing one merge of a query's token
DROP_RATE = 0.10  # chance of dropping a query's token; numbers and what turns a wish round stay
KEPT_WORDS = (
    "on off not no never dont don't stop without instead rather but up down more less enable "
    "disable increase decrease raise lower max maximum min minimum half full one two three "
    "four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand"
)


def epoch_data(
    queries: Sequence[LabelledQuery], catalog: Catalog, tokenizer: Tokenizer
) -> Callable[[np.random.Generator], list[Example]]:
    """Return the function that the trainer calls once an epoch.

    Args:
        queries: written queries; each is used once an epoch, in another wording each time.
        catalog: for augmentation and templates.
        tokenizer: for both sides.

    Returns:
        generator -> examples; always equally many.
    """
    words = [*(f" {word}" for word in KEPT_WORDS.split()), *"0123456789"]
    spared = [tokenizer.encode(word) for word in words]

    def examples(rng: np.random.Generator) -> list[Example]:
        made = []
        for item in reworded(queries, catalog, rng):
            source = query_tokens(item.query, tokenizer)
            kept = (rng.random(len(source)) >= DROP_RATE) | _spared(source, spared)
            source = [t for t, keep in zip(source, kept, strict=True) if keep]
            source = tokenizer.split_tokens(source, SPLIT_RATE, rng)
            made.append(Example(source, tokenizer.encode(item.call)))
        return made

    return examples


def reworded(
    queries: Sequence[LabelledQuery], catalog: Catalog, rng: np.random.Generator
) -> list[LabelledQuery]:
    """Say written queries in other words; behind them come templates, and what is out of scope.

    Args:
        queries: written ones.
        catalog: for other words and templates.
        rng: source of randomness.

    Returns:
        1 + `TEMPLATE_SHARE` + `OUT_OF_SCOPE_SHARE` times as many.
    """
    items = [augment(item, catalog, rng) for item in queries]
    items += template_queries(catalog, rng, round(len(queries) * TEMPLATE_SHARE))
    items += out_of_scope_queries(rng, round(len(queries) * OUT_OF_SCOPE_SHARE))
    return items


def drafter_queries(
    items: Sequence[LabelledQuery], catalog: Catalog, rewordings: int, seed: int
) -> list[str]:
    """List what a model answers for its drafter: the labels are its own, so any wording will do.

    Args:
        items: written queries.
        catalog: for other wordings.
        rewordings: how often all of them are asked in other words too; see `reworded`.
        seed: of the run.

    Returns:
        The queries as written, then those in other words, each text once; without other words all
        that were given.
    """
    texts = [item.query for item in items]
    if not rewordings:
        return texts
    for which in range(rewordings):
        rng = np.random.default_rng([seed, 2, which])
        texts += [item.query for item in reworded(items, catalog, rng)]
    return list(dict.fromkeys(texts))


def _spared(tokens: list[int], words: Sequence[list[int]]) -> np.ndarray:
    """Mark the tokens of words that must stay, [n] bool."""
    marked = np.zeros(len(tokens), bool)
    for word in words:
        for at in range(len(tokens) - len(word) + 1):
            if tokens[at : at + len(word)] == word:
                marked[at : at + len(word)] = True
    return marked
