"""`python -m tests.ports.c 200` compares every integer of so many validation queries.

In both schemes or one, with drafts and without; `--sanitize` builds with address and
undefined-behaviour sanitizers. Exit code 1 if anything differs.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from mu_ref.border.files import DATA
from mu_ref.settings.agent import load_agent
from mu_ref.settings.queries.labelled import evenly_spread, read_queries
from tests.ports.porting import SANITIZED, ask, build


def main() -> int:
    """Print a line for each scheme and way of decoding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, help="queries, evenly spread over the file")
    parser.add_argument("--scheme", choices=("w8a16", "w8a8"))
    parser.add_argument("--sanitize", action="store_true")
    options = parser.parse_args()
    agent = load_agent()
    items = evenly_spread(read_queries(DATA / "validation.jsonl"), options.n)
    sources = [agent.source_tokens(item.query) for item in items]
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = build(folder / "build", SANITIZED if options.sanitize else ("-O2",))
        for scheme in [options.scheme] if options.scheme else ("w8a16", "w8a8"):
            for drafts in (False, True):
                started, compared, wrong = time.perf_counter(), 0, 0
                for source in sources:
                    found = ask(program, folder / "run", source, scheme, drafts)
                    compared += found.n_compared
                    wrong += bool(found.differences)
                failed += wrong
                print(
                    f"{scheme}, {'drafts' if drafts else 'plain'}: {len(sources)} queries, "
                    f"{compared:,} tensors, {wrong} queries differ "
                    f"({time.perf_counter() - started:.0f} s)",
                    flush=True,
                )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
