"""What a plain classifier reaches on the same files: TF-IDF of words and letters, a linear SVM."""

import re
from collections.abc import Sequence

from mu_ref.errors import CallError, InputError
from mu_ref.settings.calls import parse_call
from mu_ref.settings.catalog import Catalog
from mu_ref.settings.queries.labelled import LabelledQuery
from mu_ref.settings.rank import call_form

__all__ = ["baseline_calls"]

_DIGITS = re.compile(r"\d+")


def baseline_calls(
    items: Sequence[LabelledQuery], asked: Sequence[str], catalog: Catalog
) -> list[str]:
    """Train scikit-learn's LinearSVC on labelled queries and answer others.

    Args:
        items: to train on.
        asked: queries to answer.
        catalog: says which numbers are in range.

    Returns:
        A call for each; one that needs a number gets the first of the query, or is none() if that
        is not in range.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline, make_union
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise InputError(
            "the baseline must have scikit-learn; `pip install mu-ref[baseline]` brings it"
        ) from error
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    model = make_pipeline(make_union(words, letters), LinearSVC())
    model.fit([item.query for item in items], [call_form(item.call) for item in items])
    forms = model.predict(list(asked))
    pairs = zip(forms, asked, strict=True)
    return [_with_number(str(form), query, catalog) for form, query in pairs]


def _with_number(form: str, query: str, catalog: Catalog) -> str:
    if "#" not in form:
        return form
    digits = _DIGITS.search(query)
    call = form.replace("#", digits.group().lstrip("0") or "0") if digits else "none()"
    try:
        return str(parse_call(call, catalog))
    except CallError:
        return "none()"
