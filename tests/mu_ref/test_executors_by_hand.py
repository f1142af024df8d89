"""Which executor computes with which weights, and what `mu-ref forward` writes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from strategies import quantized, random_weights

from mu_ref import executors
from mu_ref.border.arrays import read_npz
from mu_ref.errors import InputError
from mu_ref.executors import float_executor, load_model, shipped_drafter, shipped_weights
from mu_ref.golden import forward as golden
from mu_ref.integers.int4 import dequantize_weights_int4, quantize_weights_int4
from mu_ref.integers.int4_store import save_int4
from mu_ref.integers.store import save_integers
from mu_ref.model import mu
from mu_ref.ops.fast.floats import FastOps
from mu_ref.ops.fast.integers import FastIntegerOps
from mu_ref.ops.fast.stretches.drafting import DraftingOps
from mu_ref.ops.integer import IntegerOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.presets import tiny
from mu_ref.redrafter.config import DrafterConfig, initial_drafter
from mu_ref.redrafter.quantize import quantize_drafter
from mu_ref.redrafter.store import save_drafter, save_integer_drafter
from mu_ref.weights import save_weights

MODEL = tiny()
DRAFTER = DrafterConfig(d_model=16, vocab_size=61, d_exit=16, n_blocks=0, rnn=True)


@pytest.fixture
def files(tmp_path: Path, monkeypatch) -> Path:
    """Every kind of weight file, and drafters in floats and in integers."""
    monkeypatch.setattr(executors, "compile_once", lambda console, kind, n_bytes: 0.0)
    weights = random_weights(MODEL, 0, np.float32)
    save_weights(tmp_path / "float32", MODEL, weights)
    integers = quantized(MODEL, weights, 0, scheme="w8a16")
    save_integers(tmp_path / "w8a16", integers)
    packed = quantize_weights_int4(MODEL, weights, 128, clip_search=False)
    save_int4(tmp_path / "w4a16", MODEL, packed, 128)
    own = initial_drafter(DRAFTER, np.random.default_rng(1))
    save_drafter(tmp_path / "drafter", DRAFTER, own, {})
    rng = np.random.default_rng(2)
    made = quantize_drafter(
        MODEL, weights, DRAFTER, own, integers, [rng.standard_normal((9, 16))],
        [rng.integers(3, 61, 9)], 2,
    )  # fmt: skip
    save_integer_drafter(tmp_path / "drafter-w8a16", made)
    return tmp_path


def test_names_of_what_ships() -> None:
    names = [shipped_weights(scheme).name for scheme in ("float32", "w8a16", "w8a8")]
    assert names == [f"mu-nano{end}.safetensors" for end in ("", "-w8a16", "-w8a8")]
    drafters = [shipped_drafter(scheme).name for scheme in ("float32", "w8a8", "w4a16")]
    assert drafters == [f"mu-nano-drafter{end}.safetensors" for end in ("", "-w8a8", "")]


@pytest.mark.parametrize(
    ("scheme", "executor", "kind"),
    [
        ("float32", "reference", ReferenceOps), ("float32", "fast", FastOps),
        ("w8a16", "reference", IntegerOps), ("w8a16", "fast", FastIntegerOps),
        ("w4a16", "reference", ReferenceOps), ("w4a16", "fast", FastOps),
    ],
)  # fmt: skip
def test_scheme_and_speed_decide_who_computes(files, scheme, executor, kind) -> None:
    loaded = load_model(files / scheme, scheme, executor)
    assert type(loaded.ops) is kind
    assert (loaded.model, loaded.drafter) == (MODEL, None)


def test_a_file_is_read_and_not_what_ships(files) -> None:
    loaded = load_model(files / "float32")
    table = random_weights(MODEL, 0, np.float32)["embedding.weight"]
    np.testing.assert_array_equal(loaded.ops.weights["embedding.weight"], table)


def test_the_executor_holds_the_weights_of_the_drafter_too(files) -> None:
    own = initial_drafter(DRAFTER, np.random.default_rng(1))
    for scheme in ("float32", "w4a16"):
        loaded = load_model(files / scheme, scheme, "reference", files / "drafter")
        assert loaded.drafter == DRAFTER
        np.testing.assert_allclose(
            loaded.ops.weights["drafter.head.weight"], own["drafter.head.weight"], atol=1e-3
        )
    loaded = load_model(files / "w8a16", "w8a16", "reference", files / "drafter-w8a16")
    assert loaded.drafter == DRAFTER
    assert loaded.ops.model.tensors["drafter.head.weight"].shape == (61, 16)
    assert loaded.ops.model.encoding("drafter.head").bits == 16


def test_a_float_drafter_runs_with_fast_floats_and_with_fast_int4(files) -> None:
    for scheme in ("float32", "w4a16"):
        fast = load_model(files / scheme, scheme, "fast", files / "drafter")
        assert fast.drafter == DRAFTER


def test_int4_weights_are_the_floats_that_they_stand_for(files) -> None:
    weights = random_weights(MODEL, 0, np.float32)
    packed = quantize_weights_int4(MODEL, weights, 128, clip_search=False)
    loaded = load_model(files / "w4a16", "w4a16")
    for name, w in dequantize_weights_int4(MODEL, packed, 128).items():
        np.testing.assert_array_equal(loaded.ops.weights[name], w)


def test_a_file_of_another_scheme_is_refused(files) -> None:
    with pytest.raises(InputError, match="must hold w8a8 weights, it holds w8a16"):
        load_model(files / "w8a16", "w8a8")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_have_the_width_that_is_asked_for(dtype) -> None:
    assert float_executor(random_weights(MODEL, 0), dtype=dtype).dtype is dtype


# -- mu-ref forward --------------------------------------------------------------------------------


@pytest.fixture
def forward(tmp_path, monkeypatch):
    """Run `forward_file` on arrays; return what it writes."""

    def run(dtype=np.float64, n=3, model=MODEL, **arrays):
        monkeypatch.setattr(
            golden, "read_checkpoint", lambda folder: (model, random_weights(model, 0))
        )
        np.savez(tmp_path / "in.npz", **arrays)
        shapes = golden.forward_file(tmp_path, tmp_path / "in.npz", tmp_path / "out.npz", dtype, n)
        found = read_npz(tmp_path / "out.npz")
        assert shapes == {name: array.shape for name, array in found.items()}
        return found

    return run


SOURCE, TARGET = np.array([[5, 9, 2, 7], [8, 4, 0, 0]]), np.array([[1, 8], [1, 0]])


def test_without_a_mask_pad_ids_are_masked_and_eos_is_not(forward) -> None:
    found = forward(encoder_input_ids=SOURCE, decoder_input_ids=TARGET)
    ops = ReferenceOps(random_weights(MODEL, 0), np.float64)
    expected = mu.forward(ops, MODEL, SOURCE, SOURCE > 0, TARGET)
    np.testing.assert_array_equal(found["logits"], expected)
    assert found["logits"].dtype == np.float64
    mask = np.array([[1, 1, 0, 1], [1, 1, 1, 0]])
    masked = forward(
        encoder_input_ids=SOURCE, decoder_input_ids=TARGET, encoder_attention_mask=mask
    )
    expected = mu.forward(ops, MODEL, SOURCE, mask > 0, TARGET)
    np.testing.assert_array_equal(masked["logits"], expected)
    single = forward(np.float32, encoder_input_ids=SOURCE, decoder_input_ids=TARGET)
    assert single["encoder_output"].dtype == np.float32


def test_greedy_ids_go_on_behind_the_end(forward) -> None:
    given = {"encoder_input_ids": SOURCE[:1], "decoder_input_ids": TARGET[:1]}
    ids = forward(n=4, **given)["greedy_ids"]
    assert ids.shape == (1, 5)
    ending = replace(MODEL, eos_id=int(ids[0, 1]))
    np.testing.assert_array_equal(forward(n=4, model=ending, **given)["greedy_ids"], ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_input_ids": np.array([[61]])}, r"must lie in \[0, 61\), got 61 to 61"),
        ({"encoder_input_ids": np.array([[-1]])}, r"must lie in \[0, 61\), got -1"),
        ({"encoder_input_ids": np.array([[0, 0], [3, 3]])}, "every row must hold a token"),
        ({"decoder_input_ids": TARGET[:1]}, "the same number of rows, got 2 and 1"),
        ({"encoder_attention_mask": np.ones((2, 3), int)}, "must be 0 and 1 in the shape of"),
        ({"encoder_attention_mask": np.full((2, 4), 2)}, "must be 0 and 1 in the shape of"),
        ({"encoder_input_ids": SOURCE.astype(float)}, "must be integers"),
        ({"encoder_input_ids": SOURCE[0]}, "must be integers"),
    ],
)
def test_arrays_that_cannot_be_are_refused(forward, change, message) -> None:
    given = {"encoder_input_ids": SOURCE, "decoder_input_ids": TARGET} | change
    if len(given["encoder_input_ids"]) == 1:
        given["decoder_input_ids"] = TARGET[:1]
    with pytest.raises(InputError, match=message):
        forward(**given)


def test_the_ends_of_the_vocabulary_are_in_it(forward) -> None:
    edges = np.array([[60, 3, 0]])
    assert forward(encoder_input_ids=edges, decoder_input_ids=edges)["logits"].shape == (1, 3, 61)


def test_each_stack_has_a_vocabulary_of_its_own(forward) -> None:
    two = replace(MODEL, shared_embedding=False, encoder_vocab_size=40)
    low, high = np.array([[39, 3]]), np.array([[60, 3]])
    found = forward(model=two, encoder_input_ids=low, decoder_input_ids=high)
    assert found["logits"].shape == (1, 2, 61)
    with pytest.raises(InputError, match=r"encoder_input_ids must lie in \[0, 40\), got 3 to 60"):
        forward(model=two, encoder_input_ids=high, decoder_input_ids=low)


@pytest.mark.parametrize("make", [executors._tiny_floats, executors._tiny_integers])
def test_compiling_once_compiles_the_passes_of_drafts_too(make, monkeypatch) -> None:
    called = []
    begin = DraftingOps._begin
    monkeypatch.setattr(
        DraftingOps, "_begin", lambda ops, run, *rest: called.append(run) or begin(ops, run, *rest)
    )
    executors._run_tiny_model(make)
    assert {run.__name__ for run in called} == {"run_greedy", "run_drafted"}


def test_a_folder_with_a_broken_link_has_the_size_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    assert executors._size_of(tmp_path) == executors._size_of(tmp_path / "a") == 5
