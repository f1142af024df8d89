"""How many drafted tokens survive by beam width and draft length, as `mu-ref draft-sweep` measures.

The table that comes with the package is that of mu-nano's drafter; `npu_sim/data/README.md` has
the command.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from mu_ref.border.ranges import BEAMS, DRAFTED, Range
from mu_ref.border.reading import parse_json
from mu_ref.border.text import short
from npu_sim.errors import WorkloadError
from npu_sim.speculate.acceptance import Acceptance, Steps, read_steps, step_lines

__all__ = ["Measured", "measured", "read_drafts", "shipped_drafts"]

SHIPPED = files("npu_sim").joinpath("data", "drafts", "mu-nano.json")
STEPS = Range(low=0, high=10**12, why="nobody has measured more steps")
NODES = Range(low=1, high=1 + BEAMS.high * (DRAFTED.high + 1), whole=False, why="no tree has more")
NEEDED = {"beam_width", "draft_len", "accepted", "nodes_before", "nodes_after"}
UNUSED = {
    "n_queries", "same", "tokens_per_step", "cap", "mean_accepted", "draft_share", "encode_ms",
    "plain_ms", "speculative_ms", "speedup", "request_speedup",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What steps kept, for each beam width and draft length that was measured."""

    source: str  # for messages and titles
    kept: Mapping[tuple[int, int], tuple[float, ...]]  # (W, L) -> shares of 0..L kept tokens
    packed: Mapping[tuple[int, int], float]  # share of the drafted nodes that is left when packed

    def nodes(self, beam_width: int, draft_len: int) -> int:
        """Nodes of a whole tree: a compiled graph always verifies as many."""
        drafted = beam_width * draft_len * self.packed[self._key(beam_width, draft_len)]
        return 1 + max(draft_len, round(drafted))

    def acceptance(self, beam_width: int, draft_len: int, nodes: int) -> Acceptance:
        """What steps of such beams keep, in trees of so many nodes.

        Args:
            beam_width: W.
            draft_len: drafted tokens per beam.
            nodes: of the tree.

        Returns:
            The measured distribution.

        Raises:
            WorkloadError: nobody measured this pair.
        """
        return Acceptance.distributed(self.kept[self._key(beam_width, draft_len)], nodes)

    def _key(self, beam_width: int, draft_len: int) -> tuple[int, int]:
        if (beam_width, draft_len) not in self.kept:
            widths, lengths = (sorted({pair[i] for pair in self.kept}) for i in range(2))
            raise WorkloadError(
                f"beam width and draft length must be measured ones of {self.source} (widths "
                f"{', '.join(map(str, widths))}; lengths {', '.join(map(str, lengths))}), got "
                f"{beam_width} and {draft_len}; give --accept-rate, or --acceptance with what "
                "mu-ref draft-sweep --json prints"
            )
        return beam_width, draft_len


def read_drafts(path: Path) -> Steps | Measured:
    """Read what a user knows of drafts: a measured table, recorded steps, or a distribution.

    Args:
        path: what `mu-ref draft-sweep --json` prints, or a file of `read_steps`.

    Returns:
        A table by beam width; or what stands for all widths.

    Raises:
        WorkloadError: none of these, or a value out of its range; names the place.
    """
    lines = step_lines(path)
    first = next(lines, None)
    if first is None or not isinstance(first[1], list):
        return read_steps(path, chain(() if first is None else (first,), lines))
    if next(lines, None) is not None:
        raise WorkloadError(f"{path} must hold nothing behind its list of points")
    return measured(first[1], str(path))


def shipped_drafts() -> Measured:
    """Return what was measured of mu-nano's drafter on its validation queries."""
    text = SHIPPED.read_text(encoding="utf-8")
    rows = parse_json(text, str(SHIPPED), "a table of drafts", WorkloadError)
    return measured(rows, str(SHIPPED), "mu-nano's drafter on validation queries")


def measured(rows: Any, where: str, source: str | None = None) -> Measured:
    """Read the table that `mu-ref draft-sweep --json` prints.

    Args:
        rows: parsed JSON.
        where: it stands, for messages.
        source: what was measured; the place by default.

    Returns:
        The table.

    Raises:
        WorkloadError: another form, or a value out of its range; names the row and the field.
    """
    if not isinstance(rows, list) or not rows:
        raise WorkloadError(f"{where} must hold a list of measured points, got {short(rows)}")
    kept: dict[tuple[int, int], tuple[float, ...]] = {}
    packed: dict[tuple[int, int], float] = {}
    for number, row in enumerate(rows):
        at = f"{where}: point {number}"
        names = set(row) if isinstance(row, dict) else set()
        if not names >= NEEDED or not names <= NEEDED | UNUSED:
            raise WorkloadError(
                f"{at} must hold {', '.join(sorted(NEEDED))} as mu-ref draft-sweep --json prints "
                f"them, got {short(row)}"
            )
        width = BEAMS.check(f"{at}: beam_width", row["beam_width"], WorkloadError)
        length = DRAFTED.check(f"{at}: draft_len", row["draft_len"], WorkloadError)
        if (width, length) in kept:
            raise WorkloadError(f"{at} must be another pair, got {width} and {length} again")
        kept[width, length] = _shares(f"{at}: accepted", row["accepted"], length)
        before, after = (
            NODES.check(f"{at}: {name}", row[name], WorkloadError)
            for name in ("nodes_before", "nodes_after")
        )
        # each beam begins with the known token, of which the tree has one
        drafted = max(before - width, 1e-9)
        packed[width, length] = min(1.0, max(0.0, after - 1) / drafted)
    return Measured(source=where if source is None else source, kept=kept, packed=packed)


def _shares(where: str, counts: Any, draft_len: int) -> tuple[float, ...]:
    """Shares of steps that kept 0, 1, ... tokens, of {tokens: steps}."""
    known = [str(n) for n in range(draft_len + 1)]
    if not isinstance(counts, dict) or not counts.keys() <= set(known):
        raise WorkloadError(
            f"{where} must hold steps by tokens kept, 0 to {draft_len}, got {short(counts)}"
        )
    steps = [STEPS.check(f"{where}.{n}", counts.get(n, 0), WorkloadError) for n in known]
    if not sum(steps):
        raise WorkloadError(f"{where} must count at least 1 step, got none")
    return tuple(n / sum(steps) for n in steps)
