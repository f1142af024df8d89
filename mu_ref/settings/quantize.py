"""Quantize the Settings agent: calibrate on queries, compare with float32 on others."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mu_ref.errors import InputError, QuantizationError
from mu_ref.integers.store import IntegerModel
from mu_ref.model import mu
from mu_ref.ops import Ops
from mu_ref.ops.integer import IntegerOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.quantize.calibrate import Options, calibrate
from mu_ref.quantize.model import Example, watch
from mu_ref.quantize.observe import Observed, observe
from mu_ref.settings.agent import Agent, Answer, answer_all, score
from mu_ref.settings.evaluate import Evaluation
from mu_ref.settings.queries.labelled import (
    LabelledQuery,
    evenly_spread,
    read_queries,
    split_key,
)
from mu_ref.weights import Weights

__all__ = [
    "Comparison", "Made", "compare", "examples_of", "others", "quantize_agent", "token_agreement",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """Accuracy before and after."""

    floats: Evaluation
    quantized: Evaluation
    same_tokens: float  # share of float32's tokens that the other wrote in the same place
    same: tuple[bool, ...]  # for each query, whether the text is the same

    @property
    def same_answers(self) -> float:
        """Share of queries with the same text."""
        return float(np.mean(self.same))


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """An integer model and what it was made of."""

    integers: IntegerModel
    weights: Weights  # the floats that the integers stand for: smoothed, if that was asked for
    observed: Observed
    examples: list[Example] = field(default_factory=list)  # looked at; none for a file of ranges
    seen: list[LabelledQuery] = field(default_factory=list)  # they as queries
    spare: list[LabelledQuery] = field(default_factory=list)  # of the same file, not looked at


def examples_of(agent: Agent, items: list[LabelledQuery], n: int) -> list[Example]:
    """Turn evenly spread queries and their calls into token pairs.

    Args:
        agent: whose tokenizer.
        items: labelled queries.
        n: how many at most.

    Returns:
        (source [n_src], target [n_tgt]): the query with eos, bos with the call.
    """
    bos = agent.model.bos_id
    return [
        (
            np.array(agent.source_tokens(item.query)),
            np.array([bos, *agent.tokenizer.encode(item.call)]),
        )
        for item in evenly_spread(items, n)
    ]


def quantize_agent(
    agent: Agent,
    calibration: Path,
    n_examples: int,
    options: Options,
    console: Console,
) -> Made:
    """Quantize an agent's model.

    Args:
        agent: on the reference executor.
        calibration: labelled queries (.jsonl), or ranges written earlier (.json).
        n_examples: how many queries to look at.
        options: how.
        console: where progress is shown.

    Returns:
        The integer model and what it was made of.

    Raises:
        InputError: the file cannot be read.
        QuantizationError: see `observe`, `Observed.load` and `calibrate`.
    """
    weights = _float_weights(agent)
    if calibration.suffix == ".json":
        if options.smooth is not None:
            raise QuantizationError("smoothing must see queries; give a .jsonl file")
        probe = np.array([agent.model.bos_id])
        sites = observe(agent.model, weights, [(probe, probe)]).ranges
        observed = Observed.load(calibration, sites)
        integers = calibrate(agent.model, weights, observed, options)
        full = np.ones((1, 1), bool)  # scales that do not belong together fail here
        mu.forward(IntegerOps(integers), agent.model, probe[None], full, probe[None])
        integers = replace(integers, notes=_notes(options, calibration, 0))
        return Made(integers=integers, weights=weights, observed=observed)
    items = read_queries(calibration)
    seen = evenly_spread(items, n_examples)
    examples = examples_of(agent, seen, n_examples)
    quiet = not console.is_terminal
    shown = partial(track, examples, "observing", console=console, transient=True, disable=quiet)
    weights, observed = watch(agent.model, weights, shown, options)
    integers = calibrate(agent.model, weights, observed, options)
    integers = replace(integers, notes=_notes(options, calibration, len(examples)))
    return Made(
        integers=integers, weights=weights, observed=observed, examples=examples, seen=seen,
        spare=others(items, seen),
    )  # fmt: skip


def others(items: Sequence[LabelledQuery], seen: Sequence[LabelledQuery]) -> list[LabelledQuery]:
    """Return the queries that are not among those seen, nor differ from them in form alone."""
    known = {split_key(item.query) for item in seen}
    return [item for item in items if split_key(item.query) not in known]


def _notes(options: Options, calibration: Path, n_examples: int) -> dict[str, str]:
    return {
        "quantize": json.dumps(asdict(options)),
        "calibration": f"{calibration.name}, {n_examples} queries",
    }


def _float_weights(agent: Agent) -> dict[str, np.ndarray]:
    if not isinstance(agent.ops, ReferenceOps):
        raise InputError("weights to quantize must be floats; these are integers already")
    return agent.ops.weights


def compare(agent: Agent, ops: Ops, items: Sequence[LabelledQuery], console: Console) -> Comparison:
    """Answer the same queries with floats and with quantized weights.

    Args:
        agent: on the reference executor.
        ops: the executor of the quantized weights.
        items: labelled queries.
        console: where progress is shown.

    Returns:
        Both scores and how often the two agree.
    """
    before = answer_all(agent, items, console)
    after = answer_all(replace(agent, ops=ops), items, console)
    same = tuple(a.text == b.text for a, b in zip(before, after, strict=True))
    return Comparison(
        score(agent, items, before),
        score(agent, items, after),
        token_agreement(before, after),
        same,
    )


def token_agreement(before: Sequence[Answer], after: Sequence[Answer]) -> float:
    """Return the share of tokens before (eos included) that stand in the same place after."""
    same = total = 0
    for a, b in zip(before, after, strict=True):
        total += len(a.tokens)
        same += sum(x == y for x, y in zip(a.tokens, b.tokens, strict=False))
    return same / total if total else 1.0
