"""int4 files: there and back, and a clear error for every way in which one can be wrong."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from strategies import model_configs, random_weights, seeds

from mu_ref.errors import ConfigError, WeightsError
from mu_ref.integers.int4 import quantize_weights_int4
from mu_ref.integers.int4_store import load_int4, save_int4
from mu_ref.presets import tiny
from mu_ref.weights import Weights, load_weights, read_safetensors, save_weights

UP = "encoder.0.mlp.up.weight"


def tensors_of(group: int = 8) -> Weights:
    return quantize_weights_int4(tiny(), random_weights(tiny(), 0), group)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_int4(path, tiny(), tensors_of(), 8, {"made": "by a test"})
    return path


def rewritten(path: Path, tensors: Weights, **metadata: str) -> Path:
    save_file(tensors, path, {"config": tiny().to_json(), "int4_group": "8"} | metadata)
    return path


@settings(max_examples=20)
@given(model_configs(), seeds, st.integers(1, 13))
def test_what_is_saved_is_loaded(tmp_path_factory, model, seed: int, group: int) -> None:
    path = tmp_path_factory.mktemp("int4") / "w.safetensors"
    tensors = quantize_weights_int4(model, random_weights(model, seed), group)
    save_int4(path, model, tensors, group)
    loaded_model, loaded, loaded_group = load_int4(path)
    assert (loaded_model, loaded_group) == (model, group)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        np.testing.assert_array_equal(loaded[name], tensor)


def test_the_metadata_says_what_the_file_is(saved: Path) -> None:
    metadata = read_safetensors(saved)[1]
    assert metadata["int4_group"] == "8"
    assert metadata["made"] == "by a test"


# -- files that are wrong --------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"tiny\.safetensors.*whole safetensors"):
        load_int4(saved)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        load_int4(tmp_path / "nothing.safetensors")


def test_int4_and_float_files_are_not_taken_for_each_other(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="unknown"):
        load_weights(saved)
    path = tmp_path / "float.safetensors"
    save_weights(path, tiny(), random_weights(tiny(), 0))
    with pytest.raises(WeightsError, match=r"int4 weight file .* lacks 'int4_group'"):
        load_int4(path)


def test_a_file_without_a_configuration_is_refused(saved: Path) -> None:
    save_file(tensors_of(), saved, {"int4_group": "8"})
    with pytest.raises(WeightsError, match="lacks 'config'"):
        load_int4(saved)


@pytest.mark.parametrize("group", ["", "0", "-8", "8.0", "eight", "\N{FULLWIDTH DIGIT EIGHT}"])
def test_a_group_that_is_no_number_is_refused(saved: Path, group: str) -> None:
    with pytest.raises(WeightsError, match=f"int4_group must be a positive integer, got '{group}'"):
        load_int4(rewritten(saved, tensors_of(), int4_group=group))


def test_a_damaged_configuration_is_refused(saved: Path) -> None:
    with pytest.raises(ConfigError, match="must"):
        load_int4(rewritten(saved, tensors_of(), config="{"))


def test_another_group_than_the_scales_were_made_for_is_refused(saved: Path) -> None:
    with pytest.raises(WeightsError, match=r"weight_scale must have shape \(\d+, 4\), got"):
        load_int4(rewritten(saved, tensors_of(), int4_group="4"))


def test_a_missing_scale_and_an_extra_tensor_are_named(saved: Path) -> None:
    tensors = tensors_of()
    del tensors[f"{UP}_scale"]
    with pytest.raises(WeightsError, match=r"missing \['encoder\.0\.mlp\.up\.weight_scale'\]"):
        load_int4(rewritten(saved, tensors))
    with pytest.raises(WeightsError, match=r"unknown \['medusa'\]"):
        load_int4(rewritten(saved, tensors_of() | {"medusa": np.zeros(2, np.float16)}))


@pytest.mark.parametrize(
    ("name", "dtype", "wanted"),
    [
        (UP, np.int8, "uint8"),
        (f"{UP}_scale", np.float32, "float16"),
        ("encoder.0.mlp.up.bias", np.float32, "float16"),
    ],
)
def test_a_tensor_of_another_type_is_named(saved: Path, name: str, dtype, wanted: str) -> None:
    tensors = tensors_of()
    wrong = tensors | {name: tensors[name].astype(dtype)}
    message = rf"{name} must be {wanted}, got {np.dtype(dtype)}"
    with pytest.raises(WeightsError, match=message):
        load_int4(rewritten(saved, wrong))
    with pytest.raises(WeightsError, match=message):
        save_int4(saved, tiny(), wrong, 8)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_that_is_not_positive_is_refused(saved: Path, bad: float) -> None:
    tensors = tensors_of()
    tensors[f"{UP}_scale"].flat[3] = bad
    with pytest.raises(WeightsError, match=f"{UP}_scale must hold (positive scales|finite)"):
        load_int4(rewritten(saved, tensors))


def test_wrong_tensors_are_not_even_written(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="missing"):
        save_int4(tmp_path / "w.safetensors", tiny(), {}, 8)
    with pytest.raises(WeightsError, match="must have shape"):
        save_int4(tmp_path / "w.safetensors", tiny(), tensors_of(8), 4)
    assert list(tmp_path.iterdir()) == []
