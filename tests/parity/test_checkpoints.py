"""Checkpoints that were once read wrongly: right to 1e-9, or refused by name; see `data/`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mu_ref.errors import ConfigError
from mu_ref.executors import float_executor
from mu_ref.generate import generate
from mu_ref.golden.forward import forward_file
from mu_ref.model import mu
from mu_ref.readers import read_checkpoint
from mu_ref.redrafter.beams import Search, proposer
from mu_ref.redrafter.config import DrafterConfig, initial_drafter
from mu_ref.redrafter.generate import speculate

CASES = Path(__file__).parent / "data" / "checkpoints"
RIGHT = [  # (case, file, array there)
    ("mu_decoder_starts_with_pad", "original_expected", "logits"),
    ("t5gemma_attention_mask_ignored", "hf_expected", "logits"),
    ("t5gemma_no_mask_cross_attention", "hf_expected", "logits"),
    ("t5gemma_window_of_transformers_4", "hf_expected", "logits_5_24"),
    ("t5gemma_old_rope_scaling", "lifted", "logits"),
    ("t5gemma_sharded", "lifted", "logits"),
    ("t5gemma_pad_null", "lifted", "logits"),
    ("t5gemma_bos_null", "lifted", "logits"),
    ("t5gemma_eos_list", "lifted", "logits"),
]


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def forward(folder: Path, tmp_path: Path, n: int = 6, **options) -> dict[str, np.ndarray]:
    out = tmp_path / "out.npz"
    forward_file(folder, folder / "in.npz", out, np.float64, n, **options)
    return arrays_of(out)


def test_every_case_is_tried() -> None:
    named = {case for case, _, _ in RIGHT} | {"mu_pad_is_bos", "t5gemma2_tiny"}
    assert named == {path.name for path in CASES.iterdir() if path.is_dir()}


@pytest.mark.parametrize(("case", "file", "name"), RIGHT)
def test_a_case_is_right(tmp_path: Path, case: str, file: str, name: str) -> None:
    expected = arrays_of(CASES / case / f"{file}.npz")[name]
    found = forward(CASES / case, tmp_path, 1)["logits"]
    assert np.abs(expected).max() > 0.1
    assert np.abs(found - expected).max() <= 1e-9


def test_linear_rope_as_it_is_has_the_noise_of_float32(tmp_path: Path) -> None:
    case = CASES / "t5gemma_old_rope_scaling"
    expected = arrays_of(case / "hf_expected.npz")["logits"]
    assert np.abs(forward(case, tmp_path, 1)["logits"] - expected).max() <= 5e-5


def test_a_file_of_transformers_4_has_its_windows(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CASES / "t5gemma_window_of_transformers_4", tmp_path / "case"))
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "transformers_version": "4.57.1"}))
    expected = arrays_of(folder / "hf_expected.npz")
    found = forward(folder, tmp_path, 1)["logits"]
    assert np.abs(found - expected["logits_rule_of_4"]).max() <= 1e-9
    assert np.abs(found - expected["logits_5_24"]).max() > 1


def test_a_text_that_starts_with_a_pad(tmp_path: Path) -> None:
    case = CASES / "mu_pad_is_bos"
    expected = arrays_of(case / "original_expected.npz")["greedy_ids"]
    np.testing.assert_array_equal(forward(case, tmp_path)["greedy_ids"], expected)
    model, weights = read_checkpoint(case)
    source = np.array([[5, 6, 7, 8]])
    ops = float_executor(weights, dtype=np.float64)
    assert generate(ops, model, source, source > 0, 6) == [expected[0, 1:].tolist()]


def test_greedy_ids_go_on_from_a_prompt(tmp_path: Path) -> None:
    """As if they had been written: what follows the first three tokens is the same."""
    case = Path(shutil.copytree(CASES / "mu_pad_is_bos", tmp_path / "case"))
    whole = arrays_of(case / "original_expected.npz")["greedy_ids"]
    ids = {"encoder_input_ids": [[5, 6, 7, 8]], "decoder_input_ids": whole[:, :3]}
    (case / "in.npz").chmod(0o644)
    np.savez(case / "in.npz", **ids)
    found = forward(case, tmp_path, 4, from_prompt=True)["greedy_ids"]
    np.testing.assert_array_equal(found, whole)


def test_t5gemma_2_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="T5Gemma 2 is not supported"):
        forward(CASES / "t5gemma2_tiny", tmp_path)


@pytest.mark.parametrize("executor", ["reference", "fast"])
@pytest.mark.parametrize("drafted", [False, True])
@pytest.mark.parametrize("case", ["t5gemma_eos_list", "t5gemma_sharded"])
def test_a_text_ends_at_each_end_token(case: str, executor: str, drafted: bool) -> None:
    """What transformers' `generate` writes, on every executor, with drafts and without."""
    model, weights = read_checkpoint(CASES / case)
    if case == "t5gemma_eos_list":
        assert model.eos_ids == (1, 22)
    drafter = DrafterConfig(
        d_model=model.decoder.d_model, vocab_size=model.vocab_size, d_exit=8, n_blocks=1, rnn=True
    )
    own = initial_drafter(drafter, np.random.default_rng(0))
    weights = {name: w.astype(np.float32) for name, w in (weights | own).items()}
    ops = float_executor(weights, executor)
    source = arrays_of(CASES / case / "in.npz")["encoder_input_ids"]
    valid, read = mu.source_valid(model, source)
    memory = mu.remember(ops, model, source, valid, read)
    expected = [
        row[1 : next(i for i, t in enumerate(row) if t in model.eos_ids) + 1]
        for row in arrays_of(CASES / case / "lifted.npz")["text"].tolist()
    ]
    if drafted:
        drafts = proposer(ops, model, drafter, Search(beam_width=2, draft_len=3))
        texts: list[list[int]] = [[] for _ in source]
        start = mu.start(model, len(source))
        for step in speculate(ops, model, drafts, memory, *start, 8):
            for text, tokens, n in zip(texts, step.tokens, step.n_tokens, strict=True):
                text.extend(tokens[:n].tolist())
        assert texts == expected
    else:
        texts = generate(ops, model, source, valid, 8, source_read=read)
        assert texts == [row[:-1] for row in expected]
