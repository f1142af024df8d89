"""`python -m docs.book [--out FOLDER]`: make the book; a warning is an error.

What it needs comes with `pip install ".[docs]"`; nothing is fetched, neither now nor by a reader.
"""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run Sphinx over the project; return its exit code."""
    from sphinx.cmd.build import build_main

    parser = argparse.ArgumentParser(prog="python -m docs.book", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "book", help="folder to make")
    out = parser.parse_args().out
    began = time.perf_counter()
    code = build_main([
        "-q", "-E", "-b", "html", "-W", "--keep-going", "-c", str(Path(__file__).parent),
        "-d", str(out / ".doctrees"), str(ROOT), str(out),
    ])  # fmt: skip
    if code == 0:
        took = time.perf_counter() - began
        print(f"{out / 'index.html'}, {took:.0f} s")  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
