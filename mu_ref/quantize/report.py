r"""How much of each site's signal survives quantization.

$$\mathrm{SQNR} = 10 \log_{10} \left( \sum x^2 / \sum (x - \tilde x)^2 \right)$$          (5.9)

in dB, x of the float model, $\tilde x$ of the integer model on the same tokens; errors of earlier
sites are included.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.files import write_picture
from mu_ref.border.text import mathless
from mu_ref.config import ModelConfig
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.fixed_point import integer_range
from mu_ref.integers.store import IntegerModel
from mu_ref.ops.integer import IntegerOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.traced import Traced, TracedOps
from mu_ref.quantize.observe import run_unpadded
from mu_ref.weights import Weights

__all__ = ["SiteReport", "plot_sqnr", "site_reports"]


@dataclass(slots=True)
class SiteReport:
    """One row of the table."""

    site: str
    encoding: Encoding
    signal: float = 0.0  # sum of squares of the float model
    noise: float = 0.0  # sum of squares of the difference
    n: int = 0
    saturated: int = 0  # integers at either end of their range
    op: str = ""  # that computes it
    n_zero: int = 0  # integers that stand for 0, where the float model's value is not 0

    @property
    def sqnr_db(self) -> float:
        """Signal-to-quantization-noise ratio, dB; infinite without noise."""
        if self.noise == 0:
            return float("inf")
        return float(10 * np.log10(max(self.signal, 1e-300) / self.noise))

    @property
    def saturation(self) -> float:
        """Share of integers at an end of their range, which may stand for more than they say."""
        return self.saturated / self.n if self.n else 0.0

    @property
    def vanished(self) -> float:
        """Share of values that became 0."""
        return self.n_zero / self.n if self.n else 0.0


def site_reports(
    model: ModelConfig,
    weights: Weights,
    integers: IntegerModel,
    examples: Iterable[tuple[np.ndarray | None, np.ndarray]],
) -> list[SiteReport]:
    """Compare the integer model with the float model, site by site.

    Args:
        model: the configuration.
        weights: float weights that the integers stand for; with smoothing the smoothed ones.
        integers: its integer form.
        examples: (source tokens [n_src] or None, target tokens [n_tgt]).

    Returns:
        A row per site, in the order of the forward pass.
    """
    rows: dict[str, SiteReport] = {}
    real: dict[str, list[np.ndarray]] = {}  # a list: both stacks visit a shared embedding

    def keep(site: str, op: str, inputs: tuple[Traced, ...], value: Any) -> None:
        real.setdefault(site, []).append(value)

    def compare(site: str, op: str, inputs: tuple[Traced, ...], value: Any) -> None:
        row = rows.setdefault(site, SiteReport(site, value.encoding, op=op))
        x = real[site].pop(0).astype(np.float64)
        low, high = integer_range(value.bits)
        q = value.q
        row.signal += float((x**2).sum())
        row.noise += float(((x - watched.inner.read(value)) ** 2).sum())
        row.n += q.size
        ends = q == high if op == "softmax" else (q == low) | (q == high)
        row.saturated += int(ends.sum())
        row.n_zero += int(((value.steps == 0) & (x != 0)).sum())

    floats = TracedOps(ReferenceOps(weights), keep)
    watched = TracedOps(IntegerOps(integers), compare)
    for source, target in examples:
        row = None if source is None else source[None]
        for ops in (floats, watched):  # first the real numbers, then what stands for them
            run_unpadded(ops, model, row, target[None])
    return list(rows.values())


def plot_sqnr(rows: list[SiteReport], title: str, path: Path) -> None:
    """Draw the SQNR of every site along the forward pass.

    Args:
        rows: from `site_reports`.
        title: of the plot.
        path: image file; its suffix decides the format.

    Raises:
        InputError: a format that matplotlib cannot write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from mu_ref.errors import check_choice

    figure, axes = pyplot.subplots(figsize=(10, 4.5), layout="constrained")
    check_choice("image format", path.suffix[1:].lower(), figure.canvas.get_supported_filetypes())
    kinds = {"residual stream": "residual", "attention": "attention", "MLP": "mlp", "other": ""}
    left = dict(enumerate(rows))
    for label, part in kinds.items():
        chosen = [i for i, row in left.items() if part in row.site]
        values = [min(left[i].sqnr_db, 120.0) for i in chosen]
        axes.plot(chosen, values, "o", markersize=3.5, label=label)
        left = {i: row for i, row in left.items() if i not in chosen}
    starts = {row.site.rsplit(".", 2)[0]: i for i, row in reversed(list(enumerate(rows)))}
    layers = {s: i for s, i in starts.items() if s.split(".")[-1].isdigit()}
    axes.set_xticks(list(layers.values()), list(layers), rotation=60, ha="right", fontsize=8)
    axes.set(ylabel="SQNR (dB)", title=mathless(title))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=8)
    write_picture(path, figure, 130)
    pyplot.close(figure)
