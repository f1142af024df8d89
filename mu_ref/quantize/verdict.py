"""Whether to trust an integer model, from what was measured on queries that it has not seen."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mu_ref.quantize.observe import Observed
from mu_ref.quantize.report import SiteReport

__all__ = ["Remedy", "Verdict", "left_range", "ruined"]

SAME = 0.9  # of the answers: what ships keeps 0.99, and a few dozen queries tell 0.9 from that
BEYOND = 0.1  # of its range: how far a site must go to have left it
SITES_LEFT = 0.05  # of all: 16 queries leave 13 to 21 % of mu-nano's sites too narrow, 256 1 %
MOST = 0.5  # of a site's values
SMALL_BY_NATURE = ("softmax", "activation", "mul")  # most of what these compute is close to 0


@dataclass(frozen=True, slots=True)
class Remedy:
    """Other options, and how many of the same answers they keep."""

    options: str
    n_queries: int
    n_same: int

    @property
    def helps(self) -> bool:
        """Enough answers are those of float32."""
        return _enough(self.n_same, self.n_queries)

    def __str__(self) -> str:
        return f"{self.options} ({self.n_same} of {self.n_queries})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What was measured, and what follows from it."""

    scheme: str
    n_queries: int  # that float32 and the integers both answered; 0: there were none to judge by
    n_same: int  # of these the same answer
    unseen: bool | None  # none of them was calibrated on; None: ranges of a file do not say
    n_calibrated: int = 0  # queries calibrated on; 0: none, or unknown
    left: float | None = None  # share of sites that unseen queries drive out of their range
    ruined: tuple[str, float] | None = None  # a site, and the share of its values that become 0
    remedies: tuple[Remedy, ...] = ()  # tried if the answers are not the same

    @property
    def same(self) -> bool:
        """Enough answers are those of float32."""
        return _enough(self.n_same, self.n_queries)

    @property
    def too_few(self) -> bool:
        """Unseen queries leave the ranges that were calibrated."""
        return self.left is not None and self.left > SITES_LEFT

    @property
    def trusted(self) -> bool | None:
        """True, False, or None if it cannot be known."""
        if not self.n_queries:
            return None
        if not self.same or self.too_few:
            return False
        return True if self.unseen else None

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        site, share = self.ruined or (None, None)
        return {
            "trusted": self.trusted,
            "text": self.text(),
            "scheme": self.scheme,
            "queries": self.n_queries,
            "same_answers": self.n_same,
            "not_calibrated_on": self.unseen,
            "calibrated_on": self.n_calibrated,
            "sites_that_leave_their_range": self.left,
            "ruined_site": site,
            "ruined_share": share,
            "remedies": [
                {
                    "options": remedy.options,
                    "queries": remedy.n_queries,
                    "same_answers": remedy.n_same,
                    "helps": remedy.helps,
                }
                for remedy in self.remedies
            ],
        }

    def text(self) -> str:
        """Return the verdict as one line."""
        if not self.n_queries:
            return f"{self.scheme} not judged: no queries to judge by; give --check FILE"
        answers = f"{self.n_same} of {self.n_queries} answers are those of float32"
        where = {True: "were not", False: "were", None: "may have been"}[self.unseen]
        parts = [f"{answers}, on queries that {where} calibrated on"]
        if self.too_few:
            known = f" ({self.n_calibrated})" if self.n_calibrated else ""
            parts.append(
                f"too few queries were calibrated on{known}: others drive "
                f"{100 * (self.left or 0):.0f} % of the sites out of their range; give more "
                "(--examples, --calibration)"
            )
        if not self.same:
            parts += self._causes()
        elif self.unseen is False:
            parts.append("no others were left to judge by; give --check FILE")
        word = {True: "trust", False: "do not trust", None: "not known for"}[self.trusted]
        return f"{word} {self.scheme}: {'; '.join(parts)}"

    def _causes(self) -> list[str]:
        parts = []
        if self.ruined is not None:
            site, share = self.ruined
            parts.append(f"{site} rounds {100 * share:.0f} % of its values to 0")
        good = [str(remedy) for remedy in self.remedies if remedy.helps]
        if good:
            parts.append(f"use {' or '.join(good)}")
        elif self.remedies:
            parts.append(f"no help: {', '.join(map(str, self.remedies))}")
            if not self.too_few:  # else more queries come first
                parts.append("use float32")
        return parts


def _enough(n_same: int, n_queries: int) -> bool:
    return n_same >= SAME * n_queries


def left_range(calibrated: Observed, unseen: Observed) -> float:
    """Return the share of sites whose values go far beyond their calibrated range.

    Args:
        calibrated: what the ranges were chosen from.
        unseen: the same model on other examples.

    Returns:
        0..1; softmax, whose range is fixed, does not count.
    """
    sites = [site for site, seen in calibrated.ranges.items() if seen.op != "softmax"]
    far = [
        max(abs(theirs.low), abs(theirs.high)) > (1 + BEYOND) * max(abs(ours.low), abs(ours.high))
        for ours, theirs in ((calibrated.ranges[s], unseen.ranges[s]) for s in sites)
    ]
    return sum(far) / max(1, len(far))


def ruined(rows: Iterable[SiteReport]) -> tuple[str, float] | None:
    """Return the first site that rounds most of its values to 0, and their share; or None.

    One huge value among small ones does that to a site: its step fits the huge one. Sites after
    it read what is left.

    Args:
        rows: the report, in the order of the forward pass.
    """
    far = ((row.site, row.vanished) for row in rows if row.op not in SMALL_BY_NATURE)
    return next(((site, share) for site, share in far if share > MOST), None)
