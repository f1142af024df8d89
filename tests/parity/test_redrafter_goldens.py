"""Everything that Apple's own code computed is reproduced, and a changed file is noticed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from parity.redrafter.__main__ import check

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent / "redrafter" / "data"
FILES = sorted(DATA.glob("*.npz"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_is_reproduced(path: Path) -> None:
    found = check(path)
    assert found is not None
    assert found.failures == []
    assert found.n_arrays > 0


def test_the_program_prints_a_line_for_each_file_and_fails_for_a_wrong_number(
    tmp_path: Path,
) -> None:
    for name in ("beam_search__weights__A_rnn.npz", "training_loss.npz"):
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    (tmp_path / "other.npz").write_bytes(b"")
    command = [sys.executable, "-m", "tests.parity.redrafter", str(tmp_path)]
    good = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stdout + good.stderr
    lines = good.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "skipped", "ok"]
    assert "worst difference" in lines[2]

    with np.load(DATA / "training_loss.npz") as arrays:
        changed = dict(arrays)
    changed["rnn__loss_per_next_n"] = changed["rnn__loss_per_next_n"] + 3e-6
    np.savez(tmp_path / "training_loss.npz", **changed)
    bad = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert "rnn losses differs by" in bad.stdout


def test_a_damaged_file_is_a_failure_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "tree_packing.npz").write_bytes(b"not an npz file")
    found = check(tmp_path / "tree_packing.npz")
    assert found is not None
    assert len(found.failures) == 1
