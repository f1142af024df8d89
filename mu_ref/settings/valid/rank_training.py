"""Train the linear scorer of `settings/rank.py`: softmax regression, one example after another.

Each epoch sees every written query once, some of them in another wording too, and queries made from
the catalog. AdaGrad gives each weight a rate of its own. Afterwards each column is rounded to int8
and the smallest weights are dropped.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mu_ref.border.files import written_whole
from mu_ref.settings.catalog import Catalog
from mu_ref.settings.queries.augment import augment
from mu_ref.settings.queries.labelled import LabelledQuery, split_key
from mu_ref.settings.queries.out_of_scope import out_of_scope_queries
from mu_ref.settings.queries.templates import template_queries
from mu_ref.settings.rank import BITS, Scorer, call_form, features
from mu_ref.settings.valid.meant import Meant

__all__ = ["EPOCHS", "descend", "save_scorer", "train_scorer", "without"]

RATE, DECAY, EPOCHS = 0.3, 1e-5, 10
DROPPED = 0.3  # of a query's features, others each epoch: no call may hang on one word
TEMPLATES, WORDINGS, OUT_OF_SCOPE = 0.6, 0.5, 0.04  # made for each written query
DENSE = 0.5  # of the epochs; then the smallest weights are dropped, and the others learn on
N_WEIGHTS = 1_250_000  # kept, three bytes each


def without(items: Sequence[LabelledQuery], held: Sequence[LabelledQuery]) -> list[LabelledQuery]:
    """Return the items whose folded query is not among those held out, each query once."""
    seen = {split_key(item.query) for item in held}
    kept = []
    for item in items:
        key = split_key(item.query)
        if key not in seen:
            seen.add(key)
            kept.append(item)
    return kept


def train_scorer(
    items: Sequence[LabelledQuery], catalog: Catalog, console: Console, seed: int = 0,
    epochs: int = EPOCHS,
) -> Scorer:  # fmt: skip
    """Train a scorer on labelled queries.

    Args:
        items: with calls of the catalog; none of them may be held out.
        catalog: queries are made from it too.
        console: where progress is shown.
        seed: of the wordings and the order.
        epochs: how often every query is seen.

    Returns:
        The scorer; the same for the same arguments.
    """
    from mu_ref.settings.valid.rank_kernel import descend as compiled

    forms = tuple(sorted({call_form(item.call) for item in items}))
    index = {form: at for at, form in enumerate(forms)}
    none = np.zeros(0)
    empty = Scorer(forms, none, none, none, none, none)
    parts = empty.parts
    weights = np.zeros((1 << BITS, parts.max() + 1), np.float32)
    squares = np.full(weights.shape, 1e-2, np.float32)
    rng = np.random.default_rng(seed)
    meant = Meant(catalog)
    written = [(features(meant(item.query)), index[call_form(item.call)]) for item in items]
    quiet = not console.is_terminal
    for epoch in track(range(epochs), "training", console=console, transient=True, disable=quiet):
        made = [
            (features(meant(item.query)), index[call_form(item.call)])
            for item in _made(items, catalog, rng)
            if call_form(item.call) in index
        ]
        every = [*written, *made]
        order = rng.permutation(len(every))
        rows = [_thinned(every[k][0], rng) for k in order]
        labels = np.array([every[k][1] for k in order])
        ends = np.cumsum([len(row) for row in rows])
        rate = np.float32(RATE * (1 - epoch / epochs))
        sparse = epoch >= DENSE * epochs
        if sparse:
            _prune(weights)
        loss = compiled(weights, squares, np.concatenate(rows), ends, labels, parts, rate,
                        np.float32(DECAY), sparse)  # fmt: skip
        console.print(f"epoch {epoch + 1}  loss {loss / len(every):.3f}")
    return _rounded(forms, weights)


def _thinned(row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    kept = row[rng.random(len(row)) >= DROPPED]
    return kept if len(kept) else row


def _made(
    items: Sequence[LabelledQuery], catalog: Catalog, rng: np.random.Generator
) -> Iterator[LabelledQuery]:
    """Yield queries beside the written ones."""
    n = len(items)
    yield from template_queries(catalog, rng, round(n * TEMPLATES))
    yield from out_of_scope_queries(rng, round(n * OUT_OF_SCOPE))
    for k in rng.permutation(n)[: round(n * WORDINGS)]:
        yield augment(items[k], catalog, rng)


def descend(
    weights: np.ndarray,
    squares: np.ndarray,
    rows: Sequence[np.ndarray],
    labels: Sequence[int],
    parts: np.ndarray,
    rate: float,
    decay: float,
    sparse: bool = False,
) -> float:
    r"""Take a step down the slope of each example's cross-entropy; see `rank.py` for the scores.

    $$W \leftarrow W - \eta g / \sqrt{G}, \quad G \leftarrow G + g^2$$

    Args:
        weights: [n_features, n_columns], changed.
        squares: [n_features, n_columns], G, changed.
        rows: the features of each example.
        labels: the form of each.
        parts: [n_forms, 3], the columns of each form.
        rate: $\eta$.
        decay: is multiplied with W and added to its slope.
        sparse: leave weights alone that are zero.

    Returns:
        The sum of the losses.
    """
    loss = 0.0
    for row, label in zip(rows, labels, strict=True):
        scores = weights[row].sum(axis=0)[parts].sum(axis=1) / np.sqrt(len(row))
        p = np.exp(scores - scores.max())
        p /= p.sum()
        loss -= np.log(p[label])
        slope = p - (np.arange(len(p)) == label)
        columns = np.zeros(weights.shape[1], weights.dtype)
        np.add.at(columns, parts, slope[:, None] / np.sqrt(len(row)))
        touched = np.flatnonzero(np.abs(columns) >= 1e-4)
        at = np.ix_(row, touched)
        learns = (weights[at] != 0) if sparse else np.ones((len(row), len(touched)), bool)
        slopes = (columns[touched] + decay * weights[at]) * learns
        squares[at] += slopes**2
        weights[at] -= rate * slopes / np.sqrt(squares[at])
    return loss


def _prune(weights: np.ndarray, n_weights: int = N_WEIGHTS) -> None:
    """Drop all but the largest weights; of equals at the limit none."""
    size = np.abs(weights).ravel()
    if np.count_nonzero(size) > n_weights:
        weights[np.abs(weights) <= np.partition(size, -n_weights - 1)[-n_weights - 1]] = 0


def _rounded(forms: tuple[str, ...], weights: np.ndarray) -> Scorer:
    """Round to int8, one scale for each column."""
    _prune(weights)
    scales = (np.abs(weights).max(axis=0) / 127).astype(np.float32)
    small = np.rint(weights / np.where(scales > 0, scales, 1)).astype(np.int8)
    counts = np.count_nonzero(small, axis=1)
    used = np.flatnonzero(counts)
    rows, columns = np.nonzero(small)
    return Scorer(forms, used.astype(np.int32), np.cumsum(counts[used]), columns.astype(np.uint16),
                  small[rows, columns], scales)  # fmt: skip


def save_scorer(path: Path, scorer: Scorer, notes: dict[str, str]) -> None:
    """Write a scorer.

    Args:
        path: .safetensors to write.
        scorer: the scorer.
        notes: how it was made.
    """
    from safetensors.numpy import save

    counts = np.diff(scorer.ends, prepend=0).astype(np.uint16)
    gaps = np.diff(scorer.features, prepend=0)
    gaps = gaps.astype(np.uint16 if gaps.max(initial=0) < 1 << 16 else np.uint32)
    arrays = {"gaps": gaps, "counts": counts, "columns": scorer.columns,
              "weights": scorer.weights, "scales": scorer.scales}  # fmt: skip
    with written_whole(path) as part:
        part.write_bytes(save(arrays, {**notes, "forms": json.dumps(scorer.forms)}))
