"""ONNX's own node cases of the operators that we share: all that apply pass."""

import subprocess
import sys
from pathlib import Path

import pytest
from parity.onnx_nodes import OPERATORS, tally

ROOT = Path(__file__).parents[2]

# Cases in onnx 1.23.2, and how many of them apply; later versions may have more of both.
COUNTS = {
    "Attention": (93, 46),
    "RotaryEmbedding": (8, 3),
    "RMSNormalization": (19, 19),
    "LayerNormalization": (19, 19),
    "QuantizeLinear": (13, 8),
    "DequantizeLinear": (14, 7),
    "MatMulInteger": (1, 1),
    "QLinearMatMul": (8, 8),
    "Gelu": (4, 4),
    "Softmax": (7, 7),
}


@pytest.mark.parametrize("operator", COUNTS)
def test_every_case_that_applies_passes(operator: str) -> None:
    found = tally(operator)
    assert found.failed == []
    assert found.n_passed == found.n_run
    assert found.n == found.n_run + sum(found.reasons.values())
    assert found.n >= COUNTS[operator][0]
    assert found.n_run >= COUNTS[operator][1]


def test_the_ten_operators_are_all_here() -> None:
    assert list(COUNTS) == list(OPERATORS)


def test_the_program_prints_the_list() -> None:
    command = [sys.executable, "-m", "tests.parity.onnx_nodes"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {words[0]: words[1:4] for line in done.stdout.splitlines() if (words := line.split())}
    for operator in OPERATORS:
        n, n_run, n_passed = map(int, rows[operator])
        assert n >= n_run == n_passed > 0
    assert "35 x adds numbers to the scores: our masks are True or False" in done.stdout
