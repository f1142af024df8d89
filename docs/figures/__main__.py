"""`python -m docs.figures [NAME ...] [--check]`: make the pages' pictures, or compare them."""

import argparse
import sys
import time

from docs.figures import FIGURES, draw, picture
from docs.figures.drawn import differences, drawn, read, write
from docs.figures.eyes import hard_to_read, overlaps


def main() -> int:
    """Draw figures; return 1 if one is hard to read or, with `--check`, is not its picture."""
    parser = argparse.ArgumentParser(prog="python -m docs.figures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FIGURES))
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in FIGURES]
    if unknown:
        parser.error(f"NAME must be one of {', '.join(FIGURES)}, got {unknown[0]}")
    bad = 0
    for name in asked.names or FIGURES:
        began = time.perf_counter()
        figure = draw(name)
        faults = hard_to_read(figure) + overlaps(figure)
        if asked.check:
            faults += differences(read(picture(name))[0], drawn(figure))
        else:
            write(figure, picture(name))
        print(f"{name:<14} {time.perf_counter() - began:5.1f} s")  # noqa: T201
        for fault in faults:
            print(f"  {fault}")  # noqa: T201
        bad += bool(faults)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
