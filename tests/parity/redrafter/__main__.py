"""`python -m tests.parity.redrafter FOLDER`: check every golden file of Apple's code in a folder.

A line for each file, with the worst difference; exit code 1 if anything differs.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from . import searches, verifying, whole
from .comparison import Comparison

CHECKS: tuple[tuple[str, Callable[[Path, Comparison], None]], ...] = (
    ("beam_search__weights__", searches.check_weights),
    ("beam_search__grid__", searches.check_grid),
    ("beam_search__step_by_step__", searches.check_steps),
    ("beam_search__edge_cases", searches.check_edges),
    ("tree_packing", verifying.check_trees),
    ("greedy_acceptance", verifying.check_greedy),
    ("kv_cache_update", verifying.check_cache),
    ("sampling_acceptance", verifying.check_sampling),
    ("training_loss", verifying.check_training),
    ("end_to_end__weights", whole.check_weights),
    ("end_to_end__llm_forward", whole.check_forward),
    ("end_to_end__greedy__", whole.check_run),
)


def check(path: Path) -> Comparison | None:
    """Compare one file; None if its name is not one of the golden files'."""
    for beginning, compare in CHECKS:
        if path.name.startswith(beginning):
            found = Comparison()
            try:
                compare(path, found)
            except Exception as error:  # a damaged or foreign file is a failure, not the end
                found.failures.append(f"{type(error).__name__}: {error}")
            return found
    return None


def main(folder: Path) -> int:
    """Check a folder and print what was found."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        print(f"{folder} must hold golden files (*.npz); it holds none", file=sys.stderr)
        return 2
    failed = False
    for path in files:
        found = check(path)
        if found is None:
            print(f"skipped  {path.name}: no golden file has such a name")
            continue
        failed = failed or bool(found.failures)
        state = "FAILED " if found.failures else "ok     "
        print(f"{state}  {path.name}  {found.n_arrays} arrays, worst difference {found.worst:.2g}")
        for failure in found.failures[:5]:
            print(f"           {failure}")
    return int(failed)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.parity.redrafter FOLDER")
    sys.exit(main(Path(sys.argv[1])))
