"""Try wrong command lines and damaged files, and print what came of them.

    python -m tests.faults [--command NAME ...] [--kind NAME ...] [--processes 2] [--seed 0]
                           [--sample N] [--warm] [--kills N] [--list]

Columns: clean errors (exit 2, one line, nothing written), as wanted, and four that must be 0:
tracebacks (or an exit code that nobody expects), quiet (accepted, though it must be refused), hung,
lost (an input, a link, a mode or a foreign file changed, or something left behind). Each bad case
is listed with its command line; its folder is kept where `--keep` says. The exit code is 1 if there
are any.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where pytest finds it too
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before NumPy: a fork must not miss its threads

from faults.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
