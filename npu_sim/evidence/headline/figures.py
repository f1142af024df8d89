"""`npu-sim headline`: simulated beside published figures of Mu and ReDrafter, and why they differ.

No published figure of this file enters a constant of a chip; they are only printed. Table 3 gives
the one constant of a framework in Python, which no chip has.
Chapter: `docs/headline.md`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from mu_ref.border.ranges import BEAMS, Range
from npu_sim.errors import SweepError
from npu_sim.evidence.headline.mu import CAUSES, Costs, Twin, mu_times, twins
from npu_sim.evidence.headline.redrafter import (
    DRAFT_LEN,
    Speedup,
    mu_speedups,
    speedups,
)
from npu_sim.evidence.headline.table3 import Table3, table3

T = TypeVar("T")

__all__ = [
    "MEASURED_TOKENS",
    "MU_PUBLISHED",
    "N_PARTS",
    "TWIN_PUBLISHED",
    "Headline",
    "headline",
]

N_PARTS = 5  # of a headline, each of some seconds

# Microsoft, June 2025 (Surface Laptop 7); arXiv:2501.16273, Table 2, NPU row
MU_PUBLISHED: Mapping[str, float] = MappingProxyType({"tok_per_s": 200.0, "total_ms": 500.0})
TWIN_PUBLISHED: Mapping[str, float] = MappingProxyType({
    "decode_ratio": 123.8 / 26.5, "first_token_ratio": 189 / 358,
})  # fmt: skip
# measured: the shipped drafter of mu-nano, four drafted tokens (npu_sim/data/drafts)
MEASURED_TOKENS: Mapping[int, float] = MappingProxyType({1: 3.43, 2: 3.72, 4: 3.80})
KEPT = Range(
    low=1, high=DRAFT_LEN + 1, whole=False,
    why=f"a step keeps at most its {DRAFT_LEN} drafted tokens and the model's own",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """Every figure."""

    mu: Mapping[str, float]
    twins: tuple[Twin, ...]
    speedups: tuple[Speedup, ...]
    table3: Table3
    mu_speedups: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and texts."""
        return {
            "simulated": True,
            "mu": {"simulated": dict(self.mu), "published": dict(MU_PUBLISHED)},
            "twins": {
                "published": dict(TWIN_PUBLISHED),
                "rows": [twin_json(twin) for twin in self.twins],
            },
            "speedups": [asdict(row) for row in self.speedups],
            "table3": self.table3.to_json(),
            "mu_redrafter": [dict(row) for row in self.mu_speedups],
        }  # fmt: skip


def twin_json(twin: Twin) -> dict[str, Any]:
    """Both models at one length: ratios, and what each cause adds to the difference.

    Args:
        twin: the pair.

    Returns:
        Plain numbers.
    """
    names = ("decode_ratio_last", "decode_ratio_static", "first_token_ratio_last",
             "first_token_ratio_all", "first_token_ratio_static")  # fmt: skip
    static = twin.static_ms
    return {
        "n_input": twin.n_input,
        **{name: getattr(twin, name) for name in names},
        "decode_ms": difference(twin.mu_step, twin.twin_step),
        "first_token_ms": difference(twin.mu_first, twin.twin_first),
        "head_over_prompt_ms": twin.twin_head_all_ms,
        "static_padding_ms": {
            "mu_step": static["mu_step"] - sum(twin.mu_step.values()),
            "twin_step": static["twin_step"] - sum(twin.twin_step.values()),
        },
        "unexplained_decode_ratio": TWIN_PUBLISHED["decode_ratio"] / twin.decode_ratio_last,
        "unexplained_first_token_ratio": TWIN_PUBLISHED["first_token_ratio"]
        / twin.first_token_ratio_all,
    }


def difference(mu: Costs, twin: Costs) -> dict[str, dict[str, float]]:
    """{cause: {"mu", "twin", "difference"}} in milliseconds."""
    return {
        cause: {"mu": mu[cause], "twin": twin[cause], "difference": twin[cause] - mu[cause]}
        for cause in CAUSES
    }


def headline(
    tokens_per_step: Mapping[int, float] = MEASURED_TOKENS,
    progress: Callable[[], None] = lambda: None,
) -> Headline:
    """Simulate every figure.

    Args:
        tokens_per_step: of a drafter for Mu, by beam width; those of mu-nano by default.
        progress: called when each of the `N_PARTS` is done.

    Returns:
        All of them.

    Raises:
        SweepError: a width or a number of tokens that no step has.
    """
    for width, tokens in tokens_per_step.items():
        BEAMS.check("beam width", width, SweepError)
        KEPT.check(f"tokens per step of beam width {width}", tokens, SweepError)

    def done(part: T) -> T:
        progress()
        return part

    return Headline(
        mu=done(mu_times()),
        twins=done(tuple(twins())),
        speedups=done(tuple(speedups())),
        table3=done(table3()),
        mu_speedups=done(tuple(mu_speedups(dict(tokens_per_step)))),
    )
