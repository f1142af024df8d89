"""The golden folders that ship are what this code computes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import __main__ as recipes
from golden import tiny

from mu_ref.errors import InputError
from mu_ref.golden.check import compare, read_port
from mu_ref.golden.folder import read_golden
from mu_ref.integers.store import load_integers
from mu_ref.weights import load_weights

FOLDERS = sorted(recipes.RECIPES)
INTEGERS = [name for name in FOLDERS if "float" not in name]


def manifest(folder: Path) -> dict[str, Any]:
    """Without the versions that wrote it."""
    read = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {key: value for key, value in read.items() if key not in ("mu_ref", "numpy")}


@pytest.mark.parametrize("name", INTEGERS)
def test_the_same_bytes_are_written_again(name: str, tmp_path: Path) -> None:
    """Integers do not depend on the processor."""
    shipped, again = recipes.HERE / name, tmp_path / name
    recipes.write(name, again)
    for file in ("tensors.safetensors", "constants.safetensors"):
        assert (again / file).read_bytes() == (shipped / file).read_bytes(), file
    assert manifest(again) == manifest(shipped)


def test_floats_agree_within_their_tolerance(tmp_path: Path) -> None:
    """Exponentials may differ by a bit from one processor to another."""
    recipes.write("tiny-float32", tmp_path / "again")
    found = compare(read_golden(recipes.HERE / "tiny-float32"), read_port(tmp_path / "again", {}))
    assert (found.differences, found.missing) == ((), ())


def test_they_are_all_there_and_small() -> None:
    folders = {path.parent.name for path in recipes.HERE.glob("*/manifest.json")}
    assert folders == set(FOLDERS)
    files = [path for path in recipes.HERE.rglob("*") if path.suffix in (".json", ".safetensors")]
    assert sum(path.stat().st_size for path in files) <= 4_000_000


def test_the_tiny_model_is_made_of_its_seeds(tmp_path: Path, monkeypatch: Any) -> None:
    shipped = {scheme: tiny.model_file(scheme) for scheme in ("float32", "w8a16", "w8a8")}
    monkeypatch.setattr(tiny, "MODELS", tmp_path / "models")
    tiny.write_models()
    weights, again = (
        load_weights(shipped["float32"])[1],
        load_weights(tiny.model_file("float32"))[1],
    )
    for name, array in weights.items():
        np.testing.assert_array_equal(again[name], array)
    for scheme in ("w8a16", "w8a8"):
        old, new = load_integers(shipped[scheme]), load_integers(tiny.model_file(scheme))
        assert new.model == old.model
        for site, encoding in old.activations.items():
            assert new.activations[site].bits == encoding.bits
            assert new.activations[site].scale == pytest.approx(encoding.scale, rel=1e-5), site


def test_the_tiny_model_shows_what_the_shipped_one_cannot() -> None:
    """Switches that a port can get wrong are on in one of its stacks."""
    encoder, decoder = tiny.ENCODER, tiny.DECODER
    assert {encoder.kv_head_map, decoder.kv_head_map} == {"blocked", "cyclic"}
    assert {encoder.norm_kind, decoder.norm_kind} == {"layer", "rms_plus_one"}
    assert {encoder.norm_placement, decoder.norm_placement} == {"pre", "dual"}
    assert {encoder.gated, decoder.gated} == {True, False}
    assert decoder.attention_softcap is not None
    run = read_golden(recipes.HERE / "tiny-w8a16")
    tensors = run.tensors
    assert len({float(tensors[k][0]) for k in tensors if k.endswith("/theta")}) >= 4  # NTK
    assert not tensors["encode/valid"].all()  # padding
    assert not tensors["decode/7/self_attention.mask"].all()  # a window, and a pad that was written
    for n in range(7):  # a tie for the best logit at every step, won by the lower token
        logits = tensors[f"decode/{n}/head.softcap"][0, -1]
        best = np.flatnonzero(logits == logits.max())
        assert len(best) >= 2
        assert tensors[f"decode/{n}/next_tokens"][0] == best[0]
    drafts = read_golden(recipes.HERE / "tiny-drafts-w8a16").tensors
    written = [drafts[k].shape[1] for k in drafts if k.startswith("verify/") and "written" in k]
    assert max(written) > 1  # a draft was kept
    assert min(written) == 1  # and one was dropped


def test_a_port_that_writes_other_tokens_is_told_where_it_left() -> None:
    """What it does not reach then, or does in excess, is no mistake of its own."""
    golden = read_golden(recipes.HERE / "tiny-w8a16")
    wrong = {key: x for key, x in golden.tensors.items() if not key.startswith("decode/7")}
    wrong["decode/2/head"] = wrong["decode/2/head"] + 1
    wrong["decode/8/head"] = wrong["decode/2/head"]
    found = compare(golden, wrong)
    assert found.differences[0].key == "decode/2/head"
    assert found.missing[0].startswith("decode/7")
    del wrong["decode/1/head"]  # but what is missing before the first difference is
    with pytest.raises(InputError, match="golden folder only, got decode/8/head"):
        compare(golden, wrong)
    del wrong["decode/8/head"]
    with pytest.raises(InputError, match="missing, first decode/1/head"):
        compare(golden, wrong)
