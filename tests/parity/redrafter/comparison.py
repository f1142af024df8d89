"""What a golden file is compared with: exact arrays, close arrays, and the worst difference."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MASKED = -40000.0  # below it a score is that of a masked token or a dead beam
MASKED_STEP = 0.008  # two float32 steps at 50000
FALLBACK = Path(__file__).parent / "data"


@dataclass
class Comparison:
    """Collects differences; nothing is compared twice."""

    n_arrays: int = 0
    worst: float = 0.0
    failures: list[str] = field(default_factory=list)

    def exact(self, name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
        self.n_arrays += 1
        if not np.array_equal(np.asarray(ours), np.asarray(theirs)):
            self.failures.append(f"{name} differs")

    def close(self, name: str, ours: np.ndarray, theirs: np.ndarray, allowed: float) -> None:
        """Compare numbers; masked ones only to the resolution that float32 has there."""
        self.n_arrays += 1
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        if ours.shape != theirs.shape:
            self.failures.append(f"{name} has shape {ours.shape}, expected {theirs.shape}")
            return
        masked = theirs < MASKED
        if masked.any():
            if not np.array_equal(ours < MASKED, masked):
                self.failures.append(f"{name}: other tokens are masked")
                return
            if np.abs(ours - theirs)[masked].max() > np.abs(theirs).max() / 50000 * MASKED_STEP:
                self.failures.append(f"{name}: masked scores differ")
        difference = float(np.abs(ours - theirs)[~masked].max(initial=0))
        self.worst = max(self.worst, difference)
        if not difference <= allowed:
            self.failures.append(f"{name} differs by {difference:.2g}, allowed {allowed:.2g}")


class Golden:
    """Arrays of an npz file whose names begin with a prefix."""

    def __init__(self, arrays: Mapping[str, np.ndarray], prefix: str = "") -> None:
        self.arrays, self.prefix = arrays, prefix

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[self.prefix + name]

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.arrays

    def under(self, prefix: str) -> "Golden":
        return Golden(self.arrays, f"{self.prefix}{prefix}__")

    def prefixes(self) -> list[str]:
        """First parts of the names, in order."""
        names = [n.removeprefix(self.prefix) for n in self.arrays if n.startswith(self.prefix)]
        return list(dict.fromkeys(name.split("__")[0] for name in names if "__" in name))


def read(path: Path) -> Golden:
    with np.load(path, allow_pickle=False) as arrays:
        return Golden({name: arrays[name] for name in arrays.files})


def read_beside(path: Path, name: str) -> Golden:
    """Read another file of the same folder, or of the test suite's if it is not there."""
    beside = path.parent / name
    return read(beside if beside.is_file() else FALLBACK / name)
