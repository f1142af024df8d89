"""Our results equal those of the projects whose checkpoints we read: see `data/README.md`."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mu_ref.golden.forward import forward_file

DATA = Path(__file__).parent / "data"
FOLDERS = sorted(path.parent.name for path in DATA.glob("*/config.json"))
RESULTS = ("encoder_output", "logits", "greedy_ids")

# (file, dtype, largest difference): `lifted` is float64 throughout, `expected` holds the float32
# noise of the original; the greedy ids of the two files are the same.
BOUNDS = [
    ("lifted", np.float64, 1e-12),
    ("expected", np.float64, 5e-6),
    ("lifted", np.float32, 1e-4),
    ("expected", np.float32, 1e-4),
]


def loaded(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def inputs_of(folder: str) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for path in sorted((DATA / folder).glob("*.npz")):
        arrays |= {n: a for n, a in loaded(path).items() if n not in RESULTS}
    return arrays


def valid_of(folder: str) -> np.ndarray:
    """Return where the encoder's output is defined."""
    arrays = inputs_of(folder)
    if "encoder_attention_mask" in arrays:
        return arrays["encoder_attention_mask"].astype(bool)
    config = json.loads((DATA / folder / "config.json").read_text())
    return arrays["encoder_input_ids"] != config["pad_token_id"]


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Results by (folder, dtype), computed when first asked for."""
    done: dict[tuple[str, type], dict[str, np.ndarray]] = {}

    def compute(folder: str, dtype: type) -> dict[str, np.ndarray]:
        if (folder, dtype) not in done:
            at = tmp_path_factory.mktemp("parity")
            np.savez(at / "in.npz", **inputs_of(folder))
            forward_file(DATA / folder, at / "in.npz", at / "out.npz", dtype, 12)
            done[folder, dtype] = loaded(at / "out.npz")
        return done[folder, dtype]

    return compute


def test_all_eight_checkpoints_are_here() -> None:
    assert len(FOLDERS) == 8
    assert all((DATA / folder / "lifted.npz").exists() for folder in FOLDERS)
    without = [f for f in FOLDERS if not (DATA / f / "expected.npz").exists()]
    assert without == ["t5gemma-unequal"]


@pytest.mark.parametrize(("file", "dtype", "bound"), BOUNDS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_our_results_equal_the_original_codes(computed, folder, file, dtype, bound) -> None:
    path = DATA / folder / f"{file}.npz"
    if not path.exists():
        assert (folder, file) == ("t5gemma-unequal", "expected")
        return
    theirs, ours, valid = loaded(path), computed(folder, dtype), valid_of(folder)
    assert ours["encoder_output"].dtype == ours["logits"].dtype == dtype
    assert ours["encoder_output"].shape == theirs["encoder_output"].shape
    assert ours["logits"].shape == theirs["logits"].shape
    difference = np.abs(ours["encoder_output"] - theirs["encoder_output"])[valid]
    assert difference.max() <= bound
    assert np.abs(ours["logits"] - theirs["logits"]).max() <= bound
    np.testing.assert_array_equal(ours["greedy_ids"], theirs["greedy_ids"])


def test_the_checkpoints_would_show_a_wrong_formula() -> None:
    """Logits are of ordinary size, and rows have padding: the bounds above mean something."""
    for folder in FOLDERS:
        assert np.abs(loaded(DATA / folder / "lifted.npz")["logits"]).max() > 0.1
    assert sum(not valid_of(folder).all() for folder in FOLDERS) >= 4


@pytest.mark.parametrize("folder", ["microsoft-mu-ntk", "t5gemma-unequal"])
def test_the_command_line_writes_the_same(computed, folder, tmp_path, monkeypatch, capsys) -> None:
    from mu_ref.cli.app import main

    np.savez(tmp_path / "in.npz", **inputs_of(folder))
    out = tmp_path / "out.npz"
    options = ["--inputs", str(tmp_path / "in.npz"), "--out", str(out), "--dtype", "float64"]
    argv = ["mu-ref", "forward", str(DATA / folder), *options, "--max-new-tokens", "12"]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit) as stop:
        main()
    assert (stop.value.code, capsys.readouterr().err) == (0, "")
    ours = loaded(out)
    assert set(ours) == set(RESULTS)
    for name, array in computed(folder, np.float64).items():
        np.testing.assert_array_equal(ours[name], array)
