"""Search the value of one field that reaches a target. Chapter: `docs/whatif.md`."""

from collections.abc import Callable
from dataclasses import dataclass

from mu_ref.border.ranges import Range
from npu_sim.errors import SweepError
from npu_sim.report.fidelity import FIDELITIES
from npu_sim.whatif.metrics import evaluate_base, evaluate_changed
from npu_sim.whatif.scenario import Scenario, full_path

__all__ = ["TARGET", "Answer", "solve"]


MAX_FACTOR = 1e6  # how far a search goes from the present value
TOLERANCE = 1e-4  # relative, of the searched value
TARGET = Range(low=0, above=True, high=1e12, whole=False, why="no request is so fast or so slow")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a search found."""

    path: str
    metric: str
    target: float
    now: float  # value of the field
    now_metric: float
    needed: float | None  # value that reaches the target; None: no value does
    best_metric: float  # what the needed, or the most extreme, value reaches
    limit: str  # what stands in the way where no value is enough


def solve(
    scenario: Scenario, name: str, metric: str, target: float, fidelity: str = FIDELITIES[0]
) -> Answer:
    """Search the value of one field that reaches a target.

        >>> import npu_sim
        >>> mu = npu_sim.base_scenario({"model": "mu-330m"})
        >>> answer = npu_sim.solve(mu, "dma_bandwidth", "decode_tok_per_s", 400, "roofline")
        >>> answer.needed > answer.now
        True

    The metric must be monotonic in the field, as rates, bandwidths and overheads are.

    Args:
        scenario: the base.
        name: field, by path or alias.
        metric: one of `METRICS`; more is better for decode_tok_per_s, less for the others.
        target: value of the metric to reach.
        fidelity: one of `FIDELITIES`.

    Returns:
        The answer.

    Raises:
        NpuSimError: no such field or metric, a field that is not a number or has few values, a
            target that is not positive, or a metric that the scenario has not.
    """
    TARGET.check("the target", target, SweepError)
    path = full_path(name, scenario)
    now = scenario.paths()[path]
    if isinstance(now, bool) or not isinstance(now, int | float) or now <= 0:
        raise SweepError(f"{path} must be a positive number to be searched, got {now!r}")
    if path.startswith("precision."):
        raise SweepError(f"{path} must be swept or compared, got a search: it has few values")
    whole = isinstance(now, int)

    def reached(value: float) -> float | None:
        at = max(1, round(value)) if whole else value
        return evaluate_changed(scenario, {path: at}, metric, fidelity)

    def enough(value: float) -> bool:
        got = reached(value)
        more_is_better = metric == "decode_tok_per_s"
        return got is not None and (got >= target if more_is_better else got <= target)

    base = evaluate_base(scenario, metric, fidelity)
    found = _edge(float(now), enough)
    best = reached(found if found is not None else _extreme(float(now), reached, metric))
    return Answer(
        path=path, metric=metric, target=target, now=float(now), now_metric=base, needed=found,
        best_metric=float("nan") if best is None else best,
        limit="" if found is not None else "other parts of the NPU or of the work",
    )  # fmt: skip


def _edge(now: float, enough: Callable[[float], bool]) -> float | None:
    """The value next to the edge that is just enough; None if none is."""
    met = enough(now)
    # where the target is met the answer is how much worse would do, else how much better is needed;
    # which way that is depends on the field, so both are tried
    for factor in (0.5, 2.0) if met else (2.0, 0.5):
        near, far = now, now
        while 1 / MAX_FACTOR < far / now < MAX_FACTOR:
            near, far = far, far * factor
            if enough(far) != met:
                return _bisect(near, far, enough) if met else _bisect(far, near, enough)
    return now if met else None


def _bisect(good: float, bad: float, enough: Callable[[float], bool]) -> float:
    while abs(good - bad) > TOLERANCE * abs(good):
        middle = (good * bad) ** 0.5  # halves the distance in the logarithm
        good, bad = (middle, bad) if enough(middle) else (good, middle)
    return good


def _extreme(now: float, reached: Callable[[float], float | None], metric: str) -> float:
    """The far value of the field with the better metric."""
    ends = [_furthest(now, factor, reached) for factor in (MAX_FACTOR, 1 / MAX_FACTOR)]
    sign = -1 if metric == "decode_tok_per_s" else 1
    return min(ends, key=lambda value: sign * (reached(value) or sign * float("inf")))


def _furthest(now: float, factor: float, reached: Callable[[float], float | None]) -> float:
    """The value furthest towards now x factor that can be simulated."""
    while factor != 1 and reached(now * factor) is None:
        factor = max(factor / 2, 1.0) if factor > 1 else min(factor * 2, 1.0)
    return now * factor
