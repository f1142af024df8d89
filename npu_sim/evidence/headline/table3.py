"""ReDrafter's Table 3 (Vicuna 7B on H100, PyTorch), and the one constant that is fitted to it.

A framework in Python issues every operation by itself, so a step over few rows takes as long as the
host needs to issue it, not as long as the GPU needs to compute it:

$$t_\\mathrm{step} = t_\\mathrm{graph} + c \\, n_\\mathrm{ops}$$

The constant c is fitted to the cells of the table, and each batch size is predicted by the c of all
others. Chapter: `docs/headline.md`. Source: arXiv:2403.09919v5, Tables 3 and 4.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from math import log2
from typing import Any

import numpy as np

from npu_sim.errors import CapacityError
from npu_sim.evidence.headline.redrafter import issued_by_a_framework, scenario, vicuna
from npu_sim.hardware.presets import npu
from npu_sim.speculate.drafter import Drafter
from npu_sim.whatif.metrics import evaluate

__all__ = ["BATCHES", "WIDTHS", "Cell", "Table3", "table3", "tokens_per_step"]

BATCHES = (1, 2, 4, 8, 10, 20, 40, 80)
WIDTHS = (1, 2, 4, 8, 16, 32, 64)
TRIED_US = np.arange(0.0, 300.0, 0.1)
# Table 4, with distillation: beam width -> tokens per step; in between by the logarithm
TOKENS_PER_STEP = {1: 2.35, 2: 2.50, 4: 2.73, 16: 3.09, 64: 3.58}
PUBLISHED = {
    1: (62.55, 73.32, 80.47, 88.31, 100.16, 104.51, 110.64),
    2: (58.56, 70.25, 75.77, 86.64, 99.45, 107.52, 111.42),
    4: (57.51, 67.42, 74.77, 81.95, 97.13, 99.11, 85.23),
    8: (53.14, 60.48, 69.49, 81.14, 83.44, 73.41, 54.19),
    10: (53.61, 58.79, 66.29, 71.55, 73.57, 65.31, 44.23),
    20: (45.16, 49.05, 57.35, 53.87, 48.76, 35.66, 23.28),
    40: (32.69, 33.59, 36.68, 34.33, 26.43, 19.15, 12.09),
    80: (18.94, 20.45, 19.65, None, None, None, None),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One batch size and beam width of Table 3."""

    batch: int
    beam_width: int
    published: float | None  # tokens per second of one request; None: out of memory
    graph_ms: float | None  # a step as one compiled graph, simulated
    ops: float  # operations that a framework issues in a step
    left_out: float | None = None  # tok/s, with the constant of all other batch sizes

    def tok_per_s(self, issue_us: float | np.ndarray) -> np.ndarray:
        """Speed of one request if an operation is issued in so long."""
        assert self.graph_ms is not None
        step_ms = self.graph_ms + self.ops * np.asarray(issue_us) / 1e3
        return tokens_per_step(self.beam_width) * 1e3 / step_ms


@dataclass(frozen=True, kw_only=True, slots=True)
class Table3:
    """The table, each batch size predicted from the others too, and the constant of all cells."""

    cells: tuple[Cell, ...]
    issue_us: float

    def simulated(self, cell: Cell) -> float | None:
        """Tokens per second of a cell with the constant of all of them; None if nothing fits."""
        return float(cell.tok_per_s(self.issue_us)) if cell.graph_ms else None

    @property
    def errors(self) -> dict[int, float]:
        """{batch: mean absolute error of its cells, that batch size left out of the fit}."""
        return {
            batch: float(np.mean([abs((c.left_out or 0) / (c.published or 1) - 1) for c in row]))
            for batch in BATCHES
            if (row := [c for c in _both(self.cells) if c.batch == batch])
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers."""
        cells = [asdict(cell) | {"simulated": self.simulated(cell)} for cell in self.cells]
        return {
            "cells": cells, "rank_correlation": self.rank_correlation, "issue_us": self.issue_us,
            "left_out_mape": {str(batch): error for batch, error in self.errors.items()},
        }  # fmt: skip

    @property
    def rank_correlation(self) -> float:
        """Spearman's, of the cells that are both published and simulated."""
        both = [(c.published, self.simulated(c)) for c in _both(self.cells)]
        published, simulated = (np.argsort(np.argsort(column)) for column in np.array(both).T)
        return float(np.corrcoef(published, simulated)[0, 1])


def _both(cells: Iterable[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.published and cell.graph_ms]


def table3() -> Table3:
    """Simulate every cell, fit the constant, and predict each batch size without itself."""
    cells = [_cell(b, w, p) for b in BATCHES for w, p in zip(WIDTHS, PUBLISHED[b], strict=True)]
    predicted = []
    for cell in cells:
        speed = None
        if cell.graph_ms:
            others = [other for other in cells if other.batch != cell.batch]
            speed = float(cell.tok_per_s(_fitted_us(others)))
        predicted.append(replace(cell, left_out=speed))
    return Table3(cells=tuple(predicted), issue_us=_fitted_us(cells))


def _fitted_us(cells: Iterable[Cell]) -> float:
    """The constant of the least sum of |log(simulated / published)|.

    Not of squares: few cells of large batches, which have another cause, would pull at all others.
    """
    errors = sum(abs(np.log(c.tok_per_s(TRIED_US) / c.published)) for c in _both(cells))
    return float(TRIED_US[np.argmin(errors)])


def _cell(batch: int, width: int, published: float | None) -> Cell:
    drafter = Drafter(
        beam_width=width, draft_len=4, tokens_per_step=tokens_per_step(width),
        # one beam shares nothing with itself, few beams share less than many
        packed_share=1.0 if width == 1 else 0.75 if width < 5 else 0.5,
    )  # fmt: skip
    try:
        graph, issued = (
            drafter.tokens_per_step
            * evaluate(
                scenario(vicuna("7b"), issued_by_a_framework(npu("h100"), us), drafter, batch),
                "roofline",
            )["tpot_ms"]
            for us in (0, 1000)  # the time of a step is linear in it
        )
    except CapacityError:
        return Cell(batch=batch, beam_width=width, published=published, graph_ms=None, ops=0)
    return Cell(
        batch=batch, beam_width=width, published=published, graph_ms=graph, ops=issued - graph
    )


def tokens_per_step(width: int) -> float:
    """Read Table 4 of the paper, between its widths by the logarithm.

    Args:
        width: beam width, 1 to 64.

    Returns:
        Tokens per step, with distillation.
    """
    below = max(w for w in TOKENS_PER_STEP if w <= width)
    above = min(w for w in TOKENS_PER_STEP if w >= width)
    if above == below:
        return TOKENS_PER_STEP[below]
    share = log2(width / below) / log2(above / below)
    return TOKENS_PER_STEP[below] + share * (TOKENS_PER_STEP[above] - TOKENS_PER_STEP[below])
