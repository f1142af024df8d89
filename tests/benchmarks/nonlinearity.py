"""Print and draw the errors of the integer non-linearities, for docs/integer.md.

`python -m tests.benchmarks.nonlinearity [PICTURE]`, from the root of the project.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does, see pyproject.toml
from nonlinearity import all_errors


def main(picture: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    errors = all_errors(np.random.default_rng(0))
    for name, by_bits in errors.items():
        largest = [np.abs(by_bits[bits]).max() for bits in (8, 16)]
        rms = np.sqrt(np.mean(by_bits[16] ** 2))
        print(f"| {name} | {largest[0]:.2f} | {largest[1]:.2f} | {rms:.2f} |")
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for panel, bits in zip(axes, (8, 16), strict=True):
        data = [by_bits[bits] for by_bits in errors.values()]
        places = range(len(data))
        panel.vlines(places, [d.min() for d in data], [d.max() for d in data], color="tab:blue")
        panel.vlines(
            places,
            [np.percentile(d, 1) for d in data],
            [np.percentile(d, 99) for d in data],
            color="tab:blue",
            linewidth=9,
            alpha=0.45,
        )
        panel.axhspan(-0.5, 0.5, color="0.93", zorder=0)
        panel.set_xticks(places, errors, rotation=50, ha="right")
        panel.set(title=f"{bits}-bit output", ylabel="error, output steps")
        panel.grid(alpha=0.3)
    figure.suptitle("Integer non-linearities against float64: range, and 1 % to 99 % (thick)")
    figure.savefig(picture, dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/nonlinearity_error.png"))
