"""The metrics of the points of a sweep, many at once.

At `roofline` fidelity a chunk of points is priced together: a program is recorded once for all
points that share model, precision, workload and drafter, and priced on all their NPUs in one go
(`roofline/columns.py`). A point that fails gets its reason; the others do not notice.
Chapter: `docs/whatif.md`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from npu_sim.errors import NpuSimError
from npu_sim.hardware.fits import check_capacity, check_supported
from npu_sim.whatif.input_lengths import ColumnsByLength, columns_by_length
from npu_sim.whatif.metrics import evaluate, metric_columns
from npu_sim.whatif.request import RequestColumns, request_columns
from npu_sim.whatif.scenario import Scenario
from npu_sim.whatif.varied.sweep_toml import SweepSpec

__all__ = ["evaluate_points"]


LENGTH = "workload.n_input"

KEPT = 4  # recordings; of mu-330m at any length one takes 8 MB
FEW_LENGTHS = 4  # so many are recorded one by one: three recordings would save next to nothing

Changes = dict[str, Any]

Point = tuple[int, Changes]

# {values of an NPU: {(path, value): why it cannot have that, or nothing}}
Tried = dict[tuple[Any, ...], dict[tuple[str, Any], str]]

Row = tuple[int, Changes, dict[str, float] | None, str]  # number, changes, metrics, reason


def evaluate_points(spec: SweepSpec, start: int, stop: int) -> Iterator[Row]:
    """Simulate the points of a sweep.

    Args:
        spec: the sweep.
        start: first point.
        stop: one behind the last.

    Yields:
        A row for each point, in order.
    """
    points = [(index, spec.point(index)) for index in range(start, stop)]
    if spec.fidelity == "tile":
        yield from (_alone(spec, index, changes) for index, changes in points)
        return
    # recording is the slow part: points that differ only in the NPU share one
    groups: dict[tuple[Any, ...], list[Point]] = {}
    for index, changes in points:
        key = tuple(v for path, v in changes.items() if not _is_priced(path))
        groups.setdefault(key, []).append((index, changes))
    rows: dict[int, Row] = {}
    tried: Tried = {}
    for group in groups.values():
        for scenario, request, some in _by_length(spec.base, group):
            rows.update((row[0], row) for row in _together(scenario, request, some, tried))
    yield from (rows[index] for index, _ in points)


def _is_priced(path: str) -> bool:
    """Whether points that differ in this field share a recording."""
    return path.startswith("npu.") or path == LENGTH


# A worker keeps the recordings of its last points: the next chunk begins where they are used.
@lru_cache(maxsize=KEPT)
def _at_any_length(scenario: Scenario) -> ColumnsByLength | None:
    return columns_by_length(scenario)


@lru_cache(maxsize=KEPT)
def _at_one_length(scenario: Scenario) -> RequestColumns:
    return request_columns(scenario)


def _unplaced(scenario: Scenario) -> Scenario:
    """A scenario without its NPU, on which no recording depends."""
    return replace(scenario, npu=None)  # type: ignore[arg-type]


def _by_length(
    base: Scenario, group: list[Point]
) -> Iterator[tuple[Scenario, RequestColumns | str, list[Point]]]:
    """Divide points by input length; many lengths come from three recordings."""
    lengths: dict[Any, list[Point]] = {}
    for index, changes in group:
        lengths.setdefault(changes.get(LENGTH), []).append((index, changes))
    common = {p: v for p, v in group[0][1].items() if not _is_priced(p)}
    by_length, refused = None, ""
    try:
        scenario = base.with_fields(common)
        if len(lengths) > FEW_LENGTHS:
            by_length = _at_any_length(_unplaced(scenario))
    except NpuSimError as error:
        refused = str(error)
    for n_input, some in lengths.items():
        request: RequestColumns | str = refused
        if not refused:
            try:
                if n_input is not None:
                    scenario = scenario.with_fields({LENGTH: n_input})
                if by_length is None:
                    request = _at_one_length(_unplaced(scenario))
                else:
                    request = by_length.at(n_input)
            except NpuSimError as error:
                request = str(error)
        yield (base if refused else scenario), request, some


def _alone(spec: SweepSpec, index: int, changes: Changes) -> Row:
    try:
        return index, changes, evaluate(spec.base.with_fields(changes), spec.fidelity), ""
    except NpuSimError as error:
        return index, changes, None, str(error)


def _together(
    scenario: Scenario, request: RequestColumns | str, group: list[Point], tried: Tried
) -> Iterator[Row]:
    """Simulate points that differ in the NPU alone; a text is why none can be."""
    if isinstance(request, str):
        yield from ((index, changes, None, request) for index, changes in group)
        return
    check = _Checks(scenario, request, tried)
    ready: list[tuple[int, Changes, Mapping[str, Any]]] = []
    for index, changes in group:
        varied = {p.removeprefix("npu."): v for p, v in changes.items() if p.startswith("npu.")}
        reason = check.reason(varied)
        if reason:
            yield index, changes, None, reason
        else:
            ready.append((index, changes, varied))
    if ready:
        columns = metric_columns(scenario, request, [varied for _, _, varied in ready])
        names = [name for name, _ in columns]
        numbers = zip(*(column.tolist() for _, column in columns), strict=True)
        for (index, changes, _), found in zip(ready, numbers, strict=True):
            yield index, changes, dict(zip(names, found, strict=True)), ""


class _Checks:
    """Whether a program runs on changed NPUs; each value and each set of widths is tried once."""

    def __init__(self, scenario: Scenario, request: RequestColumns, tried: Tried) -> None:
        self.scenario, self.program, self.base = scenario, request.program, scenario.npu
        self.stored_bytes = request.stored_bytes
        # what an NPU allows does not depend on what it is asked
        self.values = tried.setdefault(tuple(self.base.values().items()), {})
        self.widths: dict[Any, str] = {}
        self.paths: dict[tuple[str, ...], list[str]] = {}

    def reason(self, varied: Mapping[str, Any]) -> str:
        """Say why an NPU with these values cannot run the program; empty if it can."""
        # a value is allowed or not whatever the others are, so thousands of points need few NPUs
        for given in varied.items():
            if given not in self.values:
                self.values[given] = _reason(partial(self.base.with_value, *given))
            if self.values[given]:
                return self.values[given]
        names = tuple(varied)
        if names not in self.paths:
            self.paths[names] = [p for p in names if p.startswith(("matrix.", "unsupported"))]
        key = tuple([varied[path] for path in self.paths[names]])
        if key not in self.widths:
            widths = {path: varied[path] for path in self.paths[names]}
            self.widths[key] = _reason(
                lambda: check_supported(self.program, self.base.with_changes(widths))
            )
        reason = self.widths[key]
        capacity = varied.get("dram.capacity_bytes", self.base.dram.capacity_bytes)
        if reason or self.stored_bytes <= capacity:
            return reason
        # recorded again at this length: the message tells weights and cache apart
        return _reason(
            lambda: check_capacity(
                request_columns(self.scenario).program,
                self.base.with_value("dram.capacity_bytes", capacity),
            )
        )


def _reason(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except NpuSimError as error:
        return str(error)
    return ""
