"""Watch a float model at work: which range each site uses, and which site feeds which.

An observer then decides how much of that range integers cover: all of it (`minmax`), all but the
rarest values (`percentile`), or the part with the least squared error (`mse`).
"""

import json
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.files import write_text
from mu_ref.border.ranges import FACTOR, Range
from mu_ref.border.reading import read_json
from mu_ref.border.text import short
from mu_ref.config import ModelConfig
from mu_ref.errors import QuantizationError
from mu_ref.integers.fixed_point import round_half_even
from mu_ref.model import mu
from mu_ref.ops import Ops, Value
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.traced import Traced, TracedOps
from mu_ref.weights import Weights

__all__ = ["OBSERVERS", "Observed", "SiteRange", "observe", "observed_range", "run_unpadded"]

OBSERVERS = ("minmax", "percentile", "mse")
SAMPLE = 16384  # values kept per site, evenly spread over what was seen
PERCENTILE = 99.99
END = Range(low=-(2.0**127), high=2.0**127, whole=False, why="float32 ends there")


@dataclass(slots=True)
class SiteRange:
    """What one site computed."""

    op: str
    low: float = float("inf")
    high: float = float("-inf")
    channel_max: np.ndarray | None = None  # [d], largest magnitude of each feature
    sample: list[np.ndarray] = field(default_factory=list)

    def add(self, x: np.ndarray) -> None:
        """Take in one tensor."""
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        largest = np.abs(x.reshape(-1, x.shape[-1])).max(axis=0)
        if self.op == "norm":
            known = self.channel_max
            self.channel_max = largest if known is None else np.maximum(known, largest)
        # few values of each tensor, of many tensors: a sample of all of them fits in memory
        self.sample.append(x.ravel()[:: max(1, x.size // 64)].astype(np.float32))

    def values(self) -> np.ndarray:
        """Return the kept values, at most about SAMPLE."""
        kept = np.concatenate(self.sample)
        return kept[:: max(1, len(kept) // SAMPLE)].astype(np.float64)


@dataclass(slots=True)
class Observed:
    """Ranges by site, and for each linear what it reads."""

    ranges: dict[str, SiteRange] = field(default_factory=dict)
    inputs: dict[str, tuple[str, float]] = field(default_factory=dict)  # linear: (site, factor)
    readers: dict[str, set[tuple[str, str]]] = field(default_factory=dict)  # site: (op, site)

    def take(self, site: str, op: str, inputs: tuple[Traced, ...], value: Any) -> None:
        """Take in what one site computed; the watcher of `TracedOps`."""
        if not np.isfinite(value).all():
            raise QuantizationError(f"calibration must give numbers, got NaN or infinity at {site}")
        self.ranges.setdefault(site, SiteRange(op)).add(value)
        if op == "linear":
            self.inputs[site] = (inputs[0].site, inputs[0].factor)
        for x in inputs:
            self.readers.setdefault(x.site, set()).add((op, site))

    def save(self, path: Path) -> None:
        """Write ranges and sources as JSON, for `load`."""
        data = {
            site: {"op": r.op, "low": r.low, "high": r.high, "reads": self.inputs.get(site)}
            for site, r in self.ranges.items()
        }
        write_text(path, json.dumps(data, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path, sites: Iterable[str]) -> "Observed":
        """Read ranges written by `save`.

        Args:
            path: JSON file.
            sites: those the model has; the file must have the same.

        Returns:
            The ranges; without samples, so only for the observer minmax.

        Raises:
            QuantizationError: not such a file, other sites, or a range that is none.
        """
        what = "a file of observed ranges"
        data = read_json(path, what, QuantizationError)
        if not isinstance(data, dict):
            kind = type(data).__name__
            raise QuantizationError(f"{path} must be {what}, a JSON object, got {kind}")
        missing, unknown = sorted(set(sites) - set(data)), sorted(set(data) - set(sites))
        if missing or unknown:
            raise QuantizationError(
                f"{path} must have the model's sites; missing {missing[:3]} ({len(missing)}), "
                f"unknown {unknown[:3]} ({len(unknown)}); observe this model anew"
            )
        observed = cls()
        for site, entry in data.items():
            observed._read(f"{path}: {site}", site, entry, data)
        return observed

    def _read(self, where: str, site: str, entry: Any, sites: Container[str]) -> None:
        """Take in one site of a file."""
        if not isinstance(entry, dict) or set(entry) != {"op", "low", "high", "reads"}:
            raise QuantizationError(f"{where} must have op, low, high and reads; it has not")
        op, low, high, reads = (entry[name] for name in ("op", "low", "high", "reads"))
        if not isinstance(op, str):
            raise QuantizationError(f"{where}: op must be a text, got {short(op)}")
        for name in ("low", "high"):
            END.check(f"{where}: {name}", entry[name], QuantizationError)
        if low > high:
            raise QuantizationError(f"{where} must have a finite range, got {low}..{high}")
        self.ranges[site] = SiteRange(op, float(low), float(high))
        if reads is None and op != "linear":
            return
        if not (isinstance(reads, list) and len(reads) == 2 and isinstance(reads[0], str)):
            raise QuantizationError(f"{where}: reads must be [site, factor], got {short(reads)}")
        if reads[0] not in sites:
            raise QuantizationError(f"{where}: reads must name a site, got {short(reads[0])}")
        FACTOR.check(f"{where}: the factor of reads", reads[1], QuantizationError)
        self.inputs[site] = (reads[0], float(reads[1]))


def observe(
    model: ModelConfig,
    weights: Weights,
    examples: Iterable[tuple[np.ndarray | None, np.ndarray]],
) -> Observed:
    """Run the float model on examples, one at a time, so that no padding is watched.

    Args:
        model: the configuration.
        weights: float weights.
        examples: (source tokens [n_src] or None, target tokens [n_tgt]).

    Returns:
        What was seen.

    Raises:
        QuantizationError: no example, or a site computed NaN or infinity.
    """
    observed = Observed()
    ops = TracedOps(ReferenceOps(weights), observed.take)
    n_examples = 0
    for source, target in examples:
        run_unpadded(ops, model, None if source is None else source[None], target[None])
        n_examples += 1
    if not n_examples:
        raise QuantizationError("calibration must have at least one example, got none")
    return observed


def run_unpadded(
    ops: Ops, model: ModelConfig, source: np.ndarray | None, target: np.ndarray
) -> Value:
    """Run the forward pass on rows without padding.

    Args:
        ops: the executor.
        model: the configuration.
        source: [batch, n_src] int, or None for a decoder-only model.
        target: [batch, n_tgt] int.

    Returns:
        [batch, n_tgt, vocab_size] logits.
    """
    valid = None if source is None else np.ones(source.shape, bool)
    return mu.forward(ops, model, source, valid, target, np.ones(target.shape, bool))


def observed_range(site: SiteRange, observer: str, bits: int) -> tuple[float, float]:
    """Decide which part of a site's range the integers cover.

    Args:
        site: what was seen.
        observer: one of `OBSERVERS`.
        bits: width of the integers; at 16 bits `mse` hardly ever cuts anything.

    Returns:
        (low, high).

    Raises:
        QuantizationError: an observer that needs values, of ranges read from a file.
    """
    if observer == "minmax":
        return site.low, site.high
    if not site.sample:
        raise QuantizationError(
            f"observer {observer!r} must see values; a file of ranges has none. Use minmax"
        )
    x = site.values()
    if observer == "percentile":
        low, high = np.percentile(x, [100 - PERCENTILE, PERCENTILE])
        return float(min(low, 0.0)), float(max(high, 0.0))
    best = min(_cuts(x, site.low, site.high, bits))  # by error first
    return best[1], best[2]


def _cuts(
    x: np.ndarray, low: float, high: float, bits: int
) -> Iterator[tuple[float, float, float]]:
    """Yield (squared error, low, high) for ranges from 30 % to all of what was seen."""
    for share in np.linspace(1.0, 0.3, 36):
        cut_low, cut_high = share * low, share * high
        step = max((cut_high - cut_low) / (2**bits - 1), np.finfo(np.float64).tiny)
        rounded = round_half_even(np.clip(x, cut_low, cut_high) / step) * step
        yield float(np.sum((x - rounded) ** 2)), cut_low, cut_high
