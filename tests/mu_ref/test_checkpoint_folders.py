"""Checkpoints of others at the command line, and what their models compute, by hand."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file
from strategies import quantized, random_weights

from mu_ref.border.arrays import read_npz
from mu_ref.config import ModelConfig
from mu_ref.errors import ConfigError, InputError, QuantizationError
from mu_ref.executors import float_executor, integer_executor
from mu_ref.generate import generate
from mu_ref.integers.tables import turn_steps
from mu_ref.model import mu
from mu_ref.model.attention import attention_mask, level_mask
from mu_ref.model.cache import Cache
from mu_ref.model.decoder import place
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.rotation import Rotation
from mu_ref.presets import preset, tiny
from mu_ref.readers import config_from_fields, read_checkpoint

CASES = Path(__file__).parents[1] / "parity" / "data" / "checkpoints"
EOS, PAD_STARTS = CASES / "t5gemma_eos_list", CASES / "mu_pad_is_bos"
SOURCE = "20 15 13 8 9 3 4 3 6"  # the first row of its in.npz


# -- the configuration -----------------------------------------------------------------------------


def test_what_has_its_default_is_not_written_and_need_not_be_there() -> None:
    data = json.loads(tiny().to_json())
    new = {"more_eos_ids", "encoder_pad_id", "mask_cross_pads", "unseeing"}
    assert not new & set(data)
    assert not {"rope_factor", "window_inclusive"} & set(data["encoder"])
    changed = replace(
        tiny(rope_factor=3.0, window_inclusive=False), more_eos_ids=(4, 5), encoder_pad_id=-1,
        mask_cross_pads=False, unseeing="mean",
    )  # fmt: skip
    data = json.loads(changed.to_json())
    assert new < set(data)
    assert ModelConfig.from_json(json.dumps(data)) == changed
    assert changed.eos_ids == (2, 4, 5)
    assert replace(changed, eos_id=None).eos_ids == (4, 5)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"more_eos_ids": (61,)}, "more_eos_ids must be a whole number from 0 to 60, got 61"),
        ({"more_eos_ids": [3]}, "more_eos_ids must be a list"),
        ({"encoder_pad_id": 61}, "encoder_pad_id must be a whole number from -1 to 60"),
        ({"encoder_pad_id": -2}, "encoder_pad_id must be"),
        ({"unseeing": "all"}, "unseeing must be one of zero, mean"),
        ({"mask_cross_pads": 1}, "mask_cross_pads must be true or false"),
    ],
)
def test_fields_of_others_are_checked(fields, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        replace(tiny(), **fields)


def test_a_pad_of_the_encoders_own_need_not_be_a_token_of_the_decoder() -> None:
    two = {"shared_embedding": False, "encoder_vocab_size": 80}
    model = replace(tiny(), **two, encoder_pad_id=70)
    assert (model.pad_id, model.source_pad) == (0, 70)
    assert replace(model, encoder_pad_id=-1).source_pad == 0
    assert replace(model, encoder_vocab_size=5, encoder_pad_id=4, pad_id=50).pad_id == 50
    with pytest.raises(ConfigError, match=r"pad_id must be .* 0 to 4"):
        replace(tiny(), **two | {"encoder_vocab_size": 5}, pad_id=50)


# -- masks -----------------------------------------------------------------------------------------


def test_without_a_mask_pads_hide_as_far_as_the_model_says() -> None:
    source = np.array([[3, 0, 5], [0, 7, 7]])
    model = replace(tiny(), encoder_pad_id=5)
    valid, read = mu.source_valid(model, source)
    assert valid.tolist() == read.tolist() == [[True, True, False], [True] * 3]
    valid, read = mu.source_valid(replace(tiny(), mask_cross_pads=False), source)
    assert valid.tolist() == [[True, False, True], [False, True, True]]
    assert read.all()
    with pytest.raises(InputError, match="tiny must be given encoder_attention_mask"):
        mu.source_valid(replace(tiny(), encoder_pad_id=-1), source)


def test_what_the_decoder_reads_is_given_apart_from_what_the_encoder_reads() -> None:
    ops = ReferenceOps(random_weights(tiny(), 0), np.float64)
    source, valid = np.array([[3, 4, 0]]), np.array([[True, True, False]])
    memory = mu.remember(ops, tiny(), source, valid, np.ones((1, 3), bool))
    np.testing.assert_array_equal(memory.hidden, mu.remember(ops, tiny(), source, valid).hidden)
    assert memory.mask.all()
    start = np.array([[1]])
    texts = [
        generate(ops, tiny(), source, valid, 6, prompt=start, source_read=read)
        for read in (None, valid, np.array([[True, False, False]]))
    ]
    assert texts[0] == texts[1] != texts[2]


def test_a_window_of_transformers_4_reaches_one_token_less() -> None:
    at, seen = np.arange(4)[None], np.ones((1, 4), bool)
    new, old = (attention_mask(at, at, seen, causal=False, window=2, inclusive=i)
                for i in (True, False))  # fmt: skip
    assert new[0, 0, :2].astype(int).tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert old[0, 0, :2].astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    np.testing.assert_array_equal(old, old[:, :, ::-1, ::-1])
    causal = [attention_mask(at, at, seen, causal=True, window=2, inclusive=i)
              for i in (True, False)]  # fmt: skip
    np.testing.assert_array_equal(*causal)


def test_tokens_that_see_none_are_found_where_the_model_cares() -> None:
    mask = np.array([[[[False, False], [True, False]]]])
    assert level_mask(tiny(), mask) is None
    mean = replace(tiny(), unseeing="mean")
    assert level_mask(mean, mask).tolist() == [[[[True, True], [False, False]]]]
    assert level_mask(mean, ~mask[:, :, :1]) is None


def test_a_second_token_that_sees_none_has_all_computed_again() -> None:
    """Its neighbour read one token when it was computed, and would read two now."""
    model = replace(tiny(rope_length="padded"), unseeing="mean", mask_decoder_pads=True)
    cache, pad = Cache.empty(1, 2), np.array([[0]])
    first = place(model, pad, pad > 0, cache)
    assert (first.tokens.tolist(), [m.all() for m in first.levels.values()]) == ([[0]], [True])
    second = place(model, pad, pad > 0, cache)
    assert (second.tokens.tolist(), second.n_new) == ([[0, 0]], 1)
    third = place(model, pad + 5, pad == 0, cache)
    assert (third.tokens.tolist(), third.levels) == ([[5]], {})
    plain = place(replace(model, unseeing="zero"), pad, pad > 0, Cache.empty(1, 2))
    assert plain.levels == {}


def test_a_start_that_nobody_may_read_starts_a_text_all_the_same() -> None:
    pads = {"pad_id": 1, "mask_decoder_pads": True}
    tokens, valid = mu.start(replace(tiny(), **pads), 2)
    assert (tokens.tolist(), valid.all()) == ([[1], [1]], True)
    model = replace(tiny(), **pads, unseeing="mean")
    assert not mu.start(model, 2)[1].any()
    ops = ReferenceOps(random_weights(model, 0), np.float64)
    assert len(generate(ops, model, np.array([[3]]), np.array([[True]]), 3)[0]) <= 3
    with pytest.raises(InputError, match="every prompt must hold at least one token"):
        generate(ops, replace(model, unseeing="zero"), np.array([[3]]), np.array([[True]]), 3,
                 prompt=tokens[:1], prompt_valid=valid[:1] & False)  # fmt: skip


@pytest.mark.parametrize("executor", ["reference", "fast"])
def test_integers_say_that_they_cannot_weigh_all_alike(executor: str) -> None:
    model = replace(tiny(rope_length="padded"), unseeing="mean", mask_decoder_pads=True)
    ops = integer_executor(quantized(model, random_weights(model, 0, np.float32), 0), executor)
    target = np.array([[0, 5]])
    source = np.array([[3, 4]])
    with pytest.raises(QuantizationError, match=r"level_scores.* weighs all alike, which only"):
        ops.read(mu.forward(ops, model, source, source > 0, target))
    assert ops.read(mu.forward(ops, model, source, source > 0, target + 5)).shape == (1, 2, 61)


# -- linear RoPE -----------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2.0, 8.0, 2.5])
def test_linear_scaling_reads_positions_closer_together(factor: float) -> None:
    theta = np.array([100.0])
    near = Rotation(np.array([[2, 4, -10]]), theta, 6)
    far = Rotation((np.array([[2, 4, -10]]) * factor).astype(int), theta, 6, factor)
    np.testing.assert_allclose(far.angles, near.angles, rtol=1e-15)
    # in turns of (5.7) a position is a factor shorter, up to both roundings
    for whole, part in zip(turn_steps(100.0, 6), turn_steps(100.0, 6, factor), strict=True):
        assert abs(Fraction(int(part)) * Fraction(factor) - int(whole)) <= (1 + factor) / 2


def test_linear_scaling_acts_on_a_whole_model_in_floats_and_integers() -> None:
    model = tiny(rope_factor=4.0)
    weights = random_weights(model, 3, np.float32)
    tokens = np.array([[5, 6, 7, 8, 9, 10]])
    ops = float_executor(weights)
    plain = mu.forward(ops, tiny(), tokens, tokens > 0, tokens)
    scaled = mu.forward(ops, model, tokens, tokens > 0, tokens)
    assert np.abs(plain - scaled).max() > 1e-3
    integers = integer_executor(quantized(model, weights, 0, scheme="w8a16"))
    near, far = (np.abs(integers.read(mu.forward(integers, model, tokens, tokens > 0, tokens)) - x)
                 .mean() for x in (scaled, plain))  # fmt: skip
    assert near < far / 3


# -- the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["reference", "fast"])
def test_generate_reads_and_writes_token_ids(mu_ref, executor: str) -> None:
    """transformers writes 2 7 3 22: the start and the end token 22 are left out."""
    run = ("generate", SOURCE, "--ids", "--weights", EOS, "--executor", executor)
    code, out, err = mu_ref(*map(str, run))
    assert (code, out.splitlines(), err) == (0, ["7 3", "  3 tokens in 3 passes"], "")


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("wifi on", "QUERY must be token ids with blanks between"), ("", "QUERY must be token ids"),
        ("-1", "QUERY must be token ids"), ("1.5", "QUERY must be token ids"),
        ("٣", "QUERY must be token ids"), ("9" * 30, "QUERY must be token ids"),
        ("23", r"a query must lie in \[0, 23\), got 23 to 23"),
        ("1 " * 8193, "a query must be at most 8192 tokens long, got 8193"),
    ],
)  # fmt: skip
def test_ids_that_are_none_are_refused(mu_ref, query: str, rule: str) -> None:
    run = ("generate", "--ids", "--weights", str(EOS), "--executor", "reference", "--", query)
    code, out, err = mu_ref(*run)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    with pytest.raises(InputError, match=rule):
        raise InputError(err)


def test_without_ids_a_model_of_another_tokenizer_is_refused(mu_ref) -> None:
    code, _, err = mu_ref("generate", "wifi on", "--weights", str(EOS), "--executor", "reference")
    assert code == 2
    assert "`mu-ref generate --ids` reads and writes token ids" in err


def test_a_folder_is_quantized_on_token_ids(mu_ref, tmp_path: Path) -> None:
    out = tmp_path / "new.safetensors"
    run = ("quantize", EOS, "--calibration", EOS / "in.npz", "--worst", 2, "--out", out)
    code, text, _ = mu_ref(*map(str, run))
    assert code == 0
    assert "2 of 112 sites, worst first" in text
    assert "of 10 next tokens stay the same (in the rows that were calibrated on" in text
    run = ("generate", SOURCE, "--ids", "--weights", out, "--scheme", "w8a16")
    assert mu_ref(*map(str, run), "--executor", "reference")[1].splitlines()[0] == "7 3"
    ids = {name: a[[0, 1, 0]] for name, a in read_npz(EOS / "in.npz").items()}
    np.savez(tmp_path / "three.npz", **ids)
    run = ("quantize", EOS, "--calibration", tmp_path / "three.npz", "--examples", 1)
    text = mu_ref(*map(str, run), "--scheme", "w8a8")[1]
    assert "of 10 next tokens stay the same (rows that were not calibrated on: 2)" in text


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ((), "--calibration must be an npz file of token ids"),
        (("--calibration", "queries.jsonl"), "--calibration must be an npz file of token ids"),
        (("--check", "x.jsonl"), "--check must not be given with a folder"),
        (("--weights", "x"), "--weights must not be given with a folder"),
        (("--json",), "--json must not be given with a folder"),
        (
            ("--plot", "x.png", "--aimet", "1.0.0"),
            "--plot, --aimet must not be given with a folder",
        ),
        (("--scheme", "w4a16"), "--scheme of a folder must be one of w8a16, w8a8"),
        (("--calibration", "none.npz"), "none.npz must be a whole npz file; there is no such file"),
    ],
)
def test_a_folder_takes_no_option_that_needs_queries(mu_ref, tmp_path, options, rule) -> None:
    out = tmp_path / "new.safetensors"
    code, text, err = mu_ref("quantize", str(EOS), "--out", str(out), *options)
    assert (code, text) == (2, "")
    assert rule in err
    assert not out.exists()


def test_a_preset_comes_before_a_folder_of_its_name(mu_ref, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EOS, tmp_path / "tiny")
    assert "tiny must be given --weights" in mu_ref("quantize", "tiny")[2]
    assert preset("tiny").name == "tiny"


def test_greedy_ids_go_on_from_a_prompt_at_the_command_line(mu_ref, tmp_path: Path) -> None:
    ids = np.array([[5, 6, 7, 8]])
    prompt = np.array([[0, 0, 9], [9, 3, 4]])
    mask = np.array([[0, 1, 1], [1, 1, 1]])
    np.savez(tmp_path / "in.npz", encoder_input_ids=ids.repeat(2, 0), decoder_input_ids=prompt,
             decoder_attention_mask=mask)  # fmt: skip
    run = ["forward", str(EOS), "--inputs", str(tmp_path / "in.npz"), "--out",
           str(tmp_path / "out.npz"), "--max-new-tokens", "2"]  # fmt: skip
    assert mu_ref(*run, "--prompt")[0] == 0
    found = read_npz(tmp_path / "out.npz")["greedy_ids"]
    assert found.shape == (2, 5)
    np.testing.assert_array_equal(found[:, :3], prompt)
    assert mu_ref(*run)[0] == 0
    without = read_npz(tmp_path / "out.npz")["greedy_ids"]
    assert without[:, 0].tolist() == [2, 2]
    np.savez(tmp_path / "in.npz", encoder_input_ids=ids, decoder_input_ids=prompt[:1],
             decoder_attention_mask=mask[:1, ::-1])  # fmt: skip
    code, _, err = mu_ref(*run, "--prompt")
    assert (code, err.count("\n")) == (2, 1)
    assert "every prompt must end with a token that is not masked" in err


def test_forward_does_not_write_over_a_part_of_the_checkpoint(mu_ref, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CASES / "t5gemma_sharded", tmp_path / "case"))
    for name in ("model-00003-of-00009.safetensors", "generation_config.json", "config.json",
                 "model.safetensors.index.json"):  # fmt: skip
        before = (folder / name).read_bytes()
        run = ("forward", folder, "--inputs", folder / "in.npz", "--out", folder / name)
        code, _, err = mu_ref(*map(str, run))
        assert (code, "--out" in err) == (2, True)
        assert (folder / name).read_bytes() == before


# -- the recipe for pickles ------------------------------------------------------------------------


class Tensor:
    """What the recipe asks of a tensor of PyTorch."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def float(self) -> "Tensor":
        return Tensor(self.array.astype(np.float32))

    def numpy(self) -> np.ndarray:
        return self.array


def test_the_recipe_of_the_docs_makes_a_folder_that_is_read(tmp_path, monkeypatch) -> None:
    """PyTorch is no dependency: where it is not installed, a stand-in loads the file."""
    page = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text()
    block = page.split("### From model.pt")[1].split("\n\n")[1]
    lines = [line.removeprefix("    ") for line in block.splitlines()]
    assert lines[0] == "import pathlib, torch"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    before = load_file(PAD_STARTS / "model.safetensors")
    state = {"model_state_dict": {f"module.{name}": Tensor(a) for name, a in before.items()}}
    torch = SimpleNamespace(load=lambda path, **_: state if path == "model.pt" else None)
    exec("\n".join(["import pathlib", *lines[1:]]), {"torch": torch})
    fields = json.loads(Path("FOLDER/config.json").read_text())
    assert config_from_fields(fields).name == "microsoft-mu"
    shutil.copy(PAD_STARTS / "config.json", "FOLDER/config.json")
    weights = read_checkpoint(Path("FOLDER"))[1]
    for name, array in read_checkpoint(PAD_STARTS)[1].items():
        np.testing.assert_array_equal(weights[name], array.astype(np.float32))
