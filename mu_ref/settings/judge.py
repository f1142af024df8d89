"""Judge a quantized agent by queries it was not calibrated on, and look for what would help."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from rich.console import Console

from mu_ref.errors import InputError, QuantizationError
from mu_ref.integers.store import IntegerModel
from mu_ref.ops.integer import IntegerOps
from mu_ref.quantize.calibrate import Options, calibrate
from mu_ref.quantize.observe import Observed, observe
from mu_ref.quantize.report import SiteReport
from mu_ref.quantize.smooth import smooth
from mu_ref.quantize.verdict import Remedy, Verdict, left_range, ruined
from mu_ref.settings.agent import Agent
from mu_ref.settings.quantize import Comparison, Made, compare, examples_of, others
from mu_ref.settings.queries.labelled import LabelledQuery, evenly_spread
from mu_ref.weights import Weights

__all__ = ["Checked", "judge", "judge_weights"]

JUDGES = 32  # queries that tell the 0.99 of what ships from 0.9, and take seconds
STRENGTH = 0.5  # of smoothing, where it is tried
SMOOTH, WIDE = f"--smooth {STRENGTH}", "--scheme w8a16"
BOTH = f"{WIDE} {SMOOTH}"


@dataclass(frozen=True, slots=True)
class Checked:
    """Queries that were compared."""

    items: Sequence[LabelledQuery]
    comparison: Comparison

    def n_same(self, items: Sequence[LabelledQuery]) -> int:
        """Of some of them, count the same answers."""
        chosen = {id(item) for item in items}
        pairs = zip(self.items, self.comparison.same, strict=True)
        return sum(same for item, same in pairs if id(item) in chosen)


def judge_weights(scheme: str, checked: Checked | None) -> Verdict:
    """Judge quantized weights, which nothing was calibrated for, by what was compared."""
    if checked is None:
        return Verdict(scheme=scheme, n_queries=0, n_same=0, unseen=None)
    n_same = checked.n_same(checked.items)
    return Verdict(scheme=scheme, n_queries=len(checked.items), n_same=n_same, unseen=True)


def judge(
    agent: Agent,
    made: Made,
    options: Options,
    rows: Sequence[SiteReport],
    checked: Checked | None,
    console: Console,
) -> Verdict:
    """Say whether to trust an integer model, and measure what would help if not.

    Args:
        agent: on the reference executor.
        made: the integer model.
        options: how it was made.
        rows: its report, to name a site that ruins the rest.
        checked: queries that were compared already; by default 32 queries of the calibration file
            that were not looked at.
        console: where progress is shown.

    Returns:
        The verdict, by queries that were not calibrated on if there are any.
    """
    unseen = others(checked.items, made.seen) if checked else _readable(agent, made.spare)
    asked = unseen or list(checked.items if checked else evenly_spread(made.seen, JUDGES))
    if not asked:
        return judge_weights(options.scheme, None)
    known = checked or Checked(asked, compare(agent, IntegerOps(made.integers), asked, console))
    left, readable = None, _readable(agent, unseen)
    if readable:
        examples = examples_of(agent, readable, JUDGES)
        left = left_range(made.observed, observe(agent.model, made.weights, examples))
    verdict = Verdict(
        scheme=options.scheme, n_queries=len(asked), n_same=known.n_same(asked),
        unseen=bool(unseen) if made.seen else None, n_calibrated=len(made.seen), left=left,
    )  # fmt: skip
    if verdict.same:
        return verdict
    tried: list[Remedy] = []
    for name, integers in _remedies(agent, made, options):
        if name == BOTH and any(remedy.helps for remedy in tried):
            break
        with suppress(QuantizationError):  # a remedy that cannot be computed is none
            few = evenly_spread(asked, JUDGES)
            same = compare(agent, IntegerOps(integers()), few, console).same
            tried.append(Remedy(name, len(few), sum(same)))
    return replace(verdict, ruined=ruined(rows), remedies=tuple(tried))


def _readable(agent: Agent, items: Sequence[LabelledQuery]) -> list[LabelledQuery]:
    """Choose queries that the model reads, as it does their calls."""

    def fits(item: LabelledQuery) -> bool:
        with suppress(InputError):
            agent.source_tokens(item.query)
            call = agent.tokenizer.encode(item.call)
            return any(c.isalnum() for c in item.query) and len(call) < agent.model.max_len
        return False

    return [item for item in evenly_spread(list(items), JUDGES) if fits(item)]


def _remedies(
    agent: Agent, made: Made, options: Options
) -> Iterator[tuple[str, Callable[[], IntegerModel]]]:
    """Yield other options by name, and what makes their integers."""
    known: list[tuple[Weights, Observed]] = []

    def smoothed() -> tuple[Weights, Observed]:
        if not known:
            weights = smooth(agent.model, made.weights, made.observed, STRENGTH)
            known.append((weights, observe(agent.model, weights, made.examples)))
        return known[0]

    wider = replace(options, scheme="w8a16")
    smooths = options.smooth is None and bool(made.examples)
    if smooths:
        yield SMOOTH, lambda: calibrate(agent.model, *smoothed(), options)
    if options.scheme == "w8a8":
        yield WIDE, lambda: calibrate(agent.model, made.weights, made.observed, wider)
        if smooths:
            yield BOTH, lambda: calibrate(agent.model, *smoothed(), wider)
