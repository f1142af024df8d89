"""Score the calls that an agent answered against the calls that were expected.

This file compares texts; it runs no model and knows no queries.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mu_ref.errors import CallError, InputError
from mu_ref.settings.calls import parse_call
from mu_ref.settings.catalog import NONE_ID, Catalog

__all__ = ["NO_CALL", "Evaluation", "evaluate"]

NO_CALL = "(no call)"  # stands for the setting id of an answer that is not a valid call

_LOOSE_ID = re.compile(r"[a-z]+\(([^(),]*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Hold the scores of one evaluation; all are fractions of 1 except the counts."""

    n: int  # answers scored
    exact: float  # share equal to the expected text
    setting_id: float  # share that parse and name the expected setting, none() counting as one
    parse: float  # share that are valid calls
    none_recall: float  # of the queries whose call is none(), the share answered so; 0/0 is 1
    none_precision: float  # of the answers none(), the share that are right; 0/0 is 1
    confusions: tuple[tuple[str, str, int], ...]  # (expected id, answered id, count), worst first
    invalid_expected: int  # expected texts the catalog does not allow: mistakes in the file

    def to_json(self) -> dict[str, int | float]:
        """Return the scores alone, as plain JSON values.

        Returns:
            {"n", "exact", "setting_id", "parse", "none_recall", "none_precision"}.
        """
        return {
            "n": self.n,
            "exact": self.exact,
            "setting_id": self.setting_id,
            "parse": self.parse,
            "none_recall": self.none_recall,
            "none_precision": self.none_precision,
        }


def evaluate(expected: Sequence[str], answered: Sequence[str], catalog: Catalog) -> Evaluation:
    """Score answers against expected calls.

    An expected text that the catalog does not allow still counts: it is compared as text, its id
    is what stands after the parenthesis, and `invalid_expected` says how many there were.

    Args:
        expected: call texts, one a query.
        answered: what the agent answered, in the same order; any text.
        catalog: decides which answers are valid calls.

    Returns:
        The scores. `none_recall` is 1 if no expected call is none(), `none_precision` is 1 if no
        answer is: nothing was asked, so nothing was missed.

    Raises:
        InputError: the two differ in length, or are empty.
    """
    if len(expected) != len(answered) or not expected:
        raise InputError(
            "expected and answered must have the same length, at least 1, "
            f"got {len(expected)} and {len(answered)}"
        )
    wanted_ids = [_valid_id(text, catalog) for text in expected]
    invalid = wanted_ids.count(NO_CALL)
    wanted_ids = [
        _loose_id(text) if found == NO_CALL else found
        for text, found in zip(expected, wanted_ids, strict=True)
    ]
    answered_ids = [_valid_id(text, catalog) for text in answered]
    pairs = list(zip(wanted_ids, answered_ids, strict=True))
    n_none_right = pairs.count((NONE_ID, NONE_ID))
    n = len(pairs)
    return Evaluation(
        n=n,
        exact=sum(a == b for a, b in zip(expected, answered, strict=True)) / n,
        setting_id=sum(a == b for a, b in pairs) / n,
        parse=(n - answered_ids.count(NO_CALL)) / n,
        none_recall=_share(n_none_right, wanted_ids.count(NONE_ID)),
        none_precision=_share(n_none_right, answered_ids.count(NONE_ID)),
        confusions=_confusions(pairs),
        invalid_expected=invalid,
    )


def _valid_id(text: str, catalog: Catalog) -> str:
    try:
        return parse_call(text, catalog).setting_id
    except CallError:
        return NO_CALL


def _loose_id(text: str) -> str:
    match = _LOOSE_ID.match(text)
    return match.group(1) if match else text


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _confusions(pairs: list[tuple[str, str]]) -> tuple[tuple[str, str, int], ...]:
    counts = Counter(pair for pair in pairs if pair[0] != pair[1])
    # equal counts by name, so that the order never depends on the order of the queries
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple((wanted, got, count) for (wanted, got), count in ranked)
