"""Print the errors of the integer non-linearities, for docs/integer.md.

`python -m tests.benchmarks.nonlinearity`, from the root of the project.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does, see pyproject.toml
from nonlinearity import all_errors


def main() -> None:
    for name, by_bits in all_errors(np.random.default_rng(0)).items():
        largest = [np.abs(by_bits[bits]).max() for bits in (8, 16)]
        rms = np.sqrt(np.mean(by_bits[16] ** 2))
        print(f"| {name} | {largest[0]:.2f} | {largest[1]:.2f} | {rms:.2f} |")


if __name__ == "__main__":
    main()
