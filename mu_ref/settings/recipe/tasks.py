"""Tasks for a LoRA, each made by a rule from labelled queries and the catalog.

"calls" is the agent's own task. "uri" asks for the address of the page that holds the setting of a
query: `ms-settings:network-wifi` for "wifi off", and `none` where no setting serves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from mu_ref.errors import CallError, InputError, check_choice
from mu_ref.settings.calls import parse_call
from mu_ref.settings.catalog import Catalog
from mu_ref.settings.queries.labelled import LabelledQuery, query_tokens
from mu_ref.tokenizer import Tokenizer
from mu_ref.training.datasets import Example

__all__ = ["TASKS", "examples_of", "task_data", "task_items"]


def _uri(item: LabelledQuery, catalog: Catalog) -> LabelledQuery:
    call = parse_call(item.call, catalog)
    uri = "none" if call.verb == "none" else catalog.lookup(call.setting_id).uri
    return replace(item, call=uri)


TASKS: Mapping[str, Callable[[LabelledQuery, Catalog], LabelledQuery]] = MappingProxyType(
    {"uri": _uri, "calls": lambda item, _: item}
)


def task_items(task: str, items: Sequence[LabelledQuery], catalog: Catalog) -> list[LabelledQuery]:
    """Give labelled queries the answers of a task.

    Args:
        task: one of `TASKS`.
        items: queries with calls.
        catalog: for the rule.

    Returns:
        The same queries, with other answers.

    Raises:
        InputError: no such task, or a call that the catalog does not allow.
    """
    rule = TASKS[check_choice("task", task, TASKS)]
    made = []
    for item in items:
        try:
            made.append(rule(item, catalog))
        except CallError as error:
            raise InputError(f"task {task} must have valid calls to start from: {error}") from error
    return made


def examples_of(items: Sequence[LabelledQuery], tokenizer: Tokenizer) -> list[Example]:
    """Turn queries and answers into token ids."""
    return [Example(query_tokens(i.query, tokenizer), tokenizer.encode(i.call)) for i in items]


def task_data(examples: Sequence[Example]) -> Callable[[np.random.Generator], Sequence[Example]]:
    """Return what the trainer calls once an epoch: the texts as they are, whatever is drawn."""
    return lambda _: examples
