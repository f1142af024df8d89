"""The Settings agent: a query in plain English in, one checked call out; no setting is changed.

Imports every room of `mu_ref` but the command line. Read `agent.py` first; the catalog and the call
grammar stand in `catalog.py` and `calls.py`, queries to train on in `queries/`.
"""

from mu_ref.settings.calls import Call, format_call, parse_call
from mu_ref.settings.catalog import DATA, Catalog, Setting, load_catalog
from mu_ref.settings.evaluate import Evaluation, evaluate
from mu_ref.settings.queries.augment import AugmentConfig, augment, standard_augmentation
from mu_ref.settings.queries.labelled import (
    LabelledQuery,
    read_queries,
    split_queries,
    write_queries,
)
from mu_ref.settings.queries.templates import template_queries

__all__ = [
    "DATA",
    "AugmentConfig",
    "Call",
    "Catalog",
    "Evaluation",
    "LabelledQuery",
    "Setting",
    "augment",
    "evaluate",
    "format_call",
    "load_catalog",
    "parse_call",
    "read_queries",
    "split_queries",
    "standard_augmentation",
    "template_queries",
    "write_queries",
]
