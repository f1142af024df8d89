"""The Settings agent: a query in plain English in, one checked call out.

This package holds the catalog, the call grammar, labelled queries, the evaluator and the
augmentation used in training. It runs no model (see `mu_ref.cli`) and changes no setting.
"""

from mu_ref.settings.augment import AugmentConfig, augment, standard_augmentation
from mu_ref.settings.calls import Call, format_call, parse_call
from mu_ref.settings.catalog import DATA, Catalog, Setting, load_catalog
from mu_ref.settings.evaluate import Evaluation, evaluate
from mu_ref.settings.queries import LabelledQuery, read_queries, split_queries, write_queries
from mu_ref.settings.templates import template_queries

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
