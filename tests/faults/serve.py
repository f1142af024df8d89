"""A warm process that runs command lines for tests, and the tests' side of it.

Pytest has threads, and modules that other tests have changed; a fork of it would be no fresh
program. So a process of its own makes the samples once and answers JSON lines on its stdin.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Answer", "Programs"]

ROOT = Path(__file__).resolve().parents[2]
PATHS = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a command line."""

    column: str  # of the table
    reason: str
    code: int | None
    out: str
    err: str
    files: Mapping[str, str]  # what was made or changed, by a digest of its content


class Programs:
    """Both programs, run in fresh copies of the samples."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "faults.serve"], cwd=ROOT, text=True,
            env={**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": PATHS},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self, command: str, arguments: Sequence[str], **more: Any) -> Answer:
        """Run a command line.

        Args:
            command: "mu-ref ask".
            arguments: of it.
            more: `expect`, `codes`, `writes` of a `Case`; `json`: stdout must be JSON.
        """
        return Answer(**self._ask({"command": command, "arguments": list(arguments), **more}))

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.stdout.close()  # type: ignore[union-attr]
        self.process.wait(60)

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def main() -> None:
    """Answer questions until there are none."""
    from faults.boxes import Boxes
    from faults.samples import make_samples

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing else gets between the answers
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        boxes = Boxes(make_samples(Path(place) / "samples"))
        try:
            for line in sys.stdin:
                question = json.loads(line)
                answers.write(json.dumps(_run(boxes, question)) + "\n")
                answers.flush()
        finally:
            boxes.close()


def _run(boxes: Any, question: dict[str, Any]) -> dict[str, Any]:
    from faults.case import SANE, Case
    from faults.kinds.jsons import strict_json
    from faults.verdict import judge

    if question.pop("json", False):
        question["after"] = strict_json
    tuples = {key: tuple(value) for key, value in question.items() if isinstance(value, list)}
    case = Case(kind="asked", **{"expect": SANE, **question, **tuples})
    outcome = boxes.one(case)
    verdict = judge(case, outcome)
    return {
        "column": verdict.column, "reason": verdict.reason, "code": outcome.code,
        "out": outcome.out, "err": outcome.err, "files": dict(outcome.files),
    }  # fmt: skip


if __name__ == "__main__":
    main()
