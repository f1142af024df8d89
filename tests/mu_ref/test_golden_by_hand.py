"""Golden folders and their comparison by hand: what differs first, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_lines import Run
from safetensors.numpy import save_file
from strategies import random_weights

from mu_ref.border.text import json_text
from mu_ref.errors import InputError
from mu_ref.golden import check
from mu_ref.golden import folder as golden_folder
from mu_ref.golden.check import Outcome, compare, read_names, read_port
from mu_ref.golden.folder import read_golden, write_golden
from mu_ref.golden.record import Entry
from mu_ref.golden.write import Tokens, write_run
from mu_ref.presets import tiny
from mu_ref.weights import save_weights, write_safetensors

ENTRIES = {
    "encode/tokens": Entry(np.array([[3, 4]], np.int32), "input"),
    "encode/a": Entry(np.array([[1, -2, 3]], np.int16), "linear", ("encode/tokens",)),
    "encode/b": Entry(np.array([4.0, -100.0], np.float32), "norm", ("encode/a",)),
    "decode/0/c": Entry(np.array([7, 8], np.int8), "add", ("encode/a", "encode/b")),
}


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    constants = {"x.output.multiplier": np.array([5], np.int32)}
    write_golden(tmp_path / "golden", ENTRIES, constants, {"depth": "model"})
    return tmp_path / "golden"


def port(**changed: Any) -> dict[str, np.ndarray]:
    """A port's tensors, without what calls are given; None leaves one out."""
    right = {key: entry.array for key, entry in ENTRIES.items() if entry.op != "input"}
    found = right | {key.replace("_", "/"): array for key, array in changed.items()}
    return {key: np.asarray(array) for key, array in found.items() if array is not None}


def compared(golden: Path, *, partial: bool = False, **changed: Any) -> Outcome:
    return compare(read_golden(golden), port(**changed), partial=partial)


def test_equal_tensors_agree_and_inputs_need_not_come_back(golden: Path) -> None:
    found = compared(golden)
    assert (found.differences, found.missing, found.n_compared) == ((), (), 3)


def test_the_first_difference_has_a_place_values_and_steps(golden: Path) -> None:
    found = compared(golden, encode_a=np.array([[1, -3, 9]], np.int16))
    (first,) = found.differences
    assert (first.key, first.op, first.index, first.unit) == ("encode/a", "linear", (0, 1), "steps")
    assert (first.golden, first.port, first.distance) == (-2, -3, 1)  # not the largest, the first
    assert (first.n_wrong, first.n) == (2, 3)
    assert found.inputs_agree is None  # the port gives no tokens


def test_an_operation_is_wrong_if_all_that_it_reads_agrees(golden: Path) -> None:
    wrong = np.array([7, 9], np.int8)
    assert compared(golden, decode_0_c=wrong).inputs_agree is True
    read_too = np.array([4.0, -90.0], np.float32)
    found = compared(golden, encode_b=read_too, decode_0_c=wrong)
    assert [d.key for d in found.differences] == ["encode/b", "decode/0/c"]
    assert found.inputs_agree is True  # encode/a, which encode/b reads


@pytest.mark.parametrize(("off", "differs"), [(0.009, False), (0.011, True)])
def test_floats_may_be_off_by_a_share_of_the_largest(
    golden: Path, off: float, differs: bool
) -> None:
    found = compared(golden, encode_b=np.array([4.0 + off, -100.0], np.float32))  # 1e-4 of 100
    assert bool(found.differences) is differs
    if differs:
        ulp = float(np.spacing(np.float32(4.0)))
        assert found.differences[0].unit == "ulp"
        assert found.differences[0].distance == pytest.approx(off / ulp, rel=1e-3)


def test_another_shape_is_all_wrong(golden: Path) -> None:
    (first,) = compared(golden, encode_a=np.array([1, -2, 3], np.int16)).differences
    assert (first.shape, first.n_wrong) == ((3,), 3)
    assert json.loads(json_text(first.to_json()))["distance"] is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encode_a": np.ones((1, 3), np.float32)}, "encode/a must hold integers"),
        ({"encode_b": np.ones(2, np.int8)}, "encode/b must hold floats"),
        ({"encode_b": np.array([4.0, np.nan], np.float32)}, "must hold finite numbers"),
        ({"encode_zebra": np.ones(2)}, "tensors of the golden folder only, got encode/zebra"),
        ({"encode_b": None}, "1 of 3 are missing, first encode/b; give --partial"),
    ],
)
def test_what_no_port_may_give(golden: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compared(golden, **changed)


def test_part_of_a_port_is_compared_if_asked_for(golden: Path) -> None:
    found = compared(golden, partial=True, encode_b=None)
    assert (found.n_compared, found.missing) == (2, ("encode/b",))
    with pytest.raises(InputError, match="3 of 3 are missing"):
        compared(golden, partial=True, encode_a=None, encode_b=None, decode_0_c=None)


# -- folders ---------------------------------------------------------------------------------------


def test_equal_content_gives_equal_bytes(golden: Path, tmp_path: Path) -> None:
    write_golden(tmp_path / "again", ENTRIES, {"x.output.multiplier": np.array([5], np.int32)},
                 {"depth": "model"})  # fmt: skip
    for path in golden.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    assert list(read_golden(golden).tensors) == list(ENTRIES)


def test_a_folder_with_golden_files_is_written_again_and_another_is_not(golden: Path) -> None:
    write_golden(golden, ENTRIES, {"x.output.multiplier": np.array([6], np.int32)}, {})
    assert read_golden(golden).constants["x.output.multiplier"] == 6
    (golden / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"hold golden files only, got .* with 'mine\.txt'"):
        write_golden(golden, ENTRIES, {}, {})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", '{"name": "a web page"}'),
        ("manifest.json", '{"schema": "of another project"}'),
        ("manifest.json", "[1]"),
        ("manifest.json", ""),
        ("tensors.safetensors", "years of training"),
        ("constants.safetensors", "years of training"),
    ],
)
def test_files_of_somebody_else_are_left_as_they_are(
    tmp_path: Path, name: str, content: str
) -> None:
    """A file may have the name of a golden one and be somebody's."""
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=f"hold golden files only, got .* with '{name}'"):
        write_golden(tmp_path, ENTRIES, {}, {})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: content}


@pytest.mark.parametrize("n_written", [0, 1])
def test_what_a_killed_run_leaves_is_written_over(
    tmp_path: Path, n_written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose a folder is stands in it before anything else."""
    written: list[Path] = []

    def killed(path: Path, *rest: Any) -> None:
        if len(written) == n_written:
            raise KeyboardInterrupt
        written.append(path)
        write_safetensors(path, *rest)

    constants = {"x.output.multiplier": np.array([5], np.int32)}
    with monkeypatch.context() as patch:
        patch.setattr(golden_folder, "write_safetensors", killed)
        with pytest.raises(KeyboardInterrupt):
            write_golden(tmp_path / "g", ENTRIES, constants, {})
    with pytest.raises(InputError, match="must be whole"):
        read_golden(tmp_path / "g")
    write_golden(tmp_path / "g", ENTRIES, constants, {})
    assert list(read_golden(tmp_path / "g").tensors) == list(ENTRIES)


def test_a_damaged_or_foreign_folder_is_refused(golden: Path, tmp_path: Path) -> None:
    tensors, manifest = golden / "tensors.safetensors", golden / "manifest.json"
    data, text = tensors.read_bytes(), manifest.read_text()
    tensors.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match="must be as its manifest says"):
        read_golden(golden)
    tensors.write_bytes(data)
    manifest.write_text(text.replace("mu-ref golden 1", "mu-ref golden 9"))
    with pytest.raises(InputError, match="must have the schema"):
        read_golden(golden)
    manifest.write_text(text.replace('"encode/a"', '"encode/z"', 1))
    with pytest.raises(InputError, match="must be whole"):
        read_golden(golden)
    with pytest.raises(InputError, match=r"there is no manifest\.json"):
        read_golden(tmp_path)


# -- a port's folder -------------------------------------------------------------------------------


def test_names_of_a_port_are_mapped_by_patterns(tmp_path: Path) -> None:
    (tmp_path / "n.toml").write_text('[names]\n"decode/{n}/layer.{i}" = "step{n}.blk{i}"\n')
    save_file({"step3.blk0": np.ones(1), "step3.a/b": np.ones(1)}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "b.npz", **{"step4.blk1": np.zeros(1)})
    save_file({"x": np.ones(1)}, tmp_path / "constants.safetensors")  # those of the golden folder
    found = read_port(tmp_path, read_names(tmp_path / "n.toml"))
    assert sorted(found) == ["decode/3/layer.0", "decode/4/layer.1", "step3.a/b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[names]\n"a/{n}" = "b"\n', "same {fields}"),
        ('[names]\n"a" = 3\n', "same {fields}"),
        ('[other]\n"a" = "b"\n', r"one table \[names\], got other"),
    ],
)
def test_patterns_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "n.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_names(tmp_path / "n.toml")


def test_folders_that_are_no_ports(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a folder"):
        read_port(tmp_path / "nowhere", {})
    with pytest.raises(InputError, match=r"must hold \.safetensors or \.npz files"):
        read_port(tmp_path, {})
    save_file({"x": np.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="which no tensor has"):
        read_port(tmp_path, {"y": "z"})
    save_file({"x": np.ones(1)}, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="name each tensor once, got x again"):
        read_port(tmp_path, {})


def test_float64_is_computed_in_float64(tmp_path: Path) -> None:
    read = Tokens(np.array([[9, 2]]), np.ones((1, 2), bool), np.array([[1]]))
    write_run(tmp_path / "g", None, "float64", read, 1)
    tensors = read_golden(tmp_path / "g").tensors
    assert {a.dtype for a in tensors.values() if a.dtype.kind == "f"} == {np.dtype(np.float64)}


def test_tokens_of_a_file_mean_what_they_mean_to_forward(tmp_path: Path, mu_ref: Run) -> None:
    """T5Gemma without a mask: the decoder reads the encoder's pads."""
    case = Path(__file__).parents[1] / "parity/data/checkpoints/t5gemma_no_mask_cross_attention"
    code, _, err = mu_ref("golden", "write", tmp_path / "g", "--model", case, "--scheme", "float64",
                          "--tokens", case / "in.npz", "--max-new-tokens", 1)  # fmt: skip
    assert (code, err) == (0, "")
    assert mu_ref("forward", case, "--inputs", case / "in.npz", "--out", tmp_path / "f.npz",
                  "--dtype", "float64")[0] == 0  # fmt: skip
    logits = np.load(tmp_path / "f.npz")["logits"][:, -1]
    found = read_golden(tmp_path / "g").tensors["decode/0/head.softcap"][:, 0]
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-12)


def test_a_model_without_an_encoder_reads_no_source(tmp_path: Path, mu_ref: Run) -> None:
    model = replace(tiny(), encoder=None, name="alone", shared_embedding=False)
    save_weights(tmp_path / "w.safetensors", model, random_weights(model, 0, np.float32), {})
    given = ("golden", "write", tmp_path / "g", "--model", tmp_path / "w.safetensors",
             "--scheme", "float32", "--tokens", tmp_path / "t.npz")  # fmt: skip
    ids = np.array([[1, 2]])
    np.savez(tmp_path / "t.npz", decoder_input_ids=ids, encoder_input_ids=ids)
    code, _, err = mu_ref(*given)
    assert code == 2
    assert "must hold decoder_input_ids alone for alone" in err
    np.savez(tmp_path / "t.npz", decoder_input_ids=ids)
    assert mu_ref(*given)[0] == 0
    assert "encode/valid" not in read_golden(tmp_path / "g").tensors


def test_a_golden_folder_that_cannot_be_written_whole_is_left_without_files(monkeypatch, tmp_path):
    def full(*_given: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("mu_ref.golden.folder.write_safetensors", full)
    with pytest.raises(OSError, match="no space"):
        write_golden(tmp_path / "new", {}, {}, {})
    assert list((tmp_path / "new").iterdir()) == []


def test_a_part_of_a_port_s_name_holds_no_slash() -> None:
    names = {"g.{n}": "p.{n}.w"}
    assert check._golden_key("p.3.w", names) == ("g.{n}", "g.3")
    assert check._golden_key("p.a/b.w", names) == ("", "p.a/b.w")
