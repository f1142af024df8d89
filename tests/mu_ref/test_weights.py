"""Weight files: there and back, and a clear error for every way in which one can be wrong."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from safetensors import safe_open
from safetensors.numpy import save_file
from strategies import model_configs, random_weights, seeds

from mu_ref.config import ModelConfig
from mu_ref.errors import WeightsError
from mu_ref.presets import tiny
from mu_ref.weights import (
    initial_weights,
    load_weights,
    read_safetensors,
    save_weights,
    weight_shapes,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_weights(path, tiny(), random_weights(tiny(), 0, np.float32))
    return path


def with_tensors(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    save_file(tensors, path, {"config": tiny().to_json()})
    return path


@settings(max_examples=20)
@given(model_configs(), seeds)
def test_what_is_saved_is_loaded(tmp_path_factory, model: ModelConfig, seed: int) -> None:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    weights = random_weights(model, seed, np.float32)
    save_weights(path, model, weights)
    loaded_model, loaded = load_weights(path)
    assert loaded_model == model
    assert loaded.keys() == weights.keys()
    for name, array in weights.items():
        assert loaded[name].dtype == np.float32
        np.testing.assert_array_equal(loaded[name], array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_stored_dtype_stays(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, tiny(), random_weights(tiny(), 0, dtype))
    assert {array.dtype.type for array in load_weights(path)[1].values()} == {dtype}


def test_a_transposed_view_is_written_as_it_reads(tmp_path: Path) -> None:
    weights = random_weights(tiny(), 0, np.float32)
    name = "encoder.0.mlp.up.weight"
    view = np.ascontiguousarray(weights[name].T).T
    save_weights(tmp_path / "w.safetensors", tiny(), weights | {name: view})
    np.testing.assert_array_equal(load_weights(tmp_path / "w.safetensors")[1][name], weights[name])


def test_anyone_can_read_the_configuration_in_the_metadata(saved: Path) -> None:
    with safe_open(saved, framework="np") as file:
        config = json.loads(file.metadata()["config"])
    assert config["name"] == "tiny"
    assert config["decoder"]["norm_placement"] == "dual"


# -- files that are wrong --------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"tiny\.safetensors.*whole safetensors"):
        load_weights(saved)


def test_a_text_file_is_refused(saved: Path) -> None:
    saved.write_text("once upon a time\n" * 20)
    with pytest.raises(WeightsError, match=r"tiny\.safetensors.*whole safetensors"):
        load_weights(saved)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.safetensors.*no such file"):
        load_weights(tmp_path / "nothing.safetensors")
    with pytest.raises(WeightsError):
        load_weights(tmp_path)


def test_a_foreign_file_is_refused(saved: Path) -> None:
    save_file({"model.embed_tokens.weight": np.zeros((2, 2), np.float32)}, saved)
    with pytest.raises(WeightsError, match="configuration in its metadata; it has none"):
        load_weights(saved)


@pytest.mark.parametrize("config", ["{", "[]", '{"name": "tiny"}'])
def test_a_damaged_configuration_is_refused(saved: Path, config: str) -> None:
    save_file(random_weights(tiny(), 0, np.float32), saved, {"config": config})
    with pytest.raises(ValueError, match="must"):
        load_weights(saved)


def test_a_missing_tensor_is_named(saved: Path) -> None:
    weights = random_weights(tiny(), 0, np.float32)
    del weights["decoder.1.mlp.down.bias"]
    with pytest.raises(WeightsError, match=r"missing \['decoder\.1\.mlp\.down\.bias'\]"):
        load_weights(with_tensors(saved, weights))


def test_an_extra_tensor_is_named(saved: Path) -> None:
    weights = random_weights(tiny(), 0, np.float32) | {"medusa": np.zeros(2, np.float32)}
    with pytest.raises(WeightsError, match=r"unknown \['medusa'\]"):
        load_weights(with_tensors(saved, weights))


def test_a_wrong_shape_is_named_with_both_shapes(saved: Path) -> None:
    weights = random_weights(tiny(), 0, np.float32)
    weights["encoder.0.mlp.up.weight"] = np.zeros((16, 32), np.float32)  # transposed
    message = r"encoder\.0\.mlp\.up\.weight must have shape \(32, 16\), got \(16, 32\)"
    with pytest.raises(WeightsError, match=message):
        load_weights(with_tensors(saved, weights))


def test_wrong_tensors_are_not_even_written(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="missing"):
        save_weights(tmp_path / "w.safetensors", tiny(), {})
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file_and_no_other(saved: Path, monkeypatch) -> None:
    before = saved.read_bytes()

    def half(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.numpy.save_file", half)
    with pytest.raises(KeyboardInterrupt):
        save_weights(saved, tiny(), random_weights(tiny(), 1, np.float32))
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


# -- other number formats --------------------------------------------------------------------------


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path: Path) -> None:
    # sign, 8 bits of exponent, 7 of mantissa; 0x7f61 is (1 + 97 / 128) * 2 ** 127
    bits = [0x3F80, 0xC020, 0x3E20, 0x7F61, 0x0000, 0x8000]
    values = [1.0, -2.5, 0.15625, 225.0 * 2.0**120, 0.0, -0.0]
    half = np.array([1.5, 2.5], np.float16)
    header = {
        "__metadata__": {"who": "by hand"},
        "b": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
        "h": {"dtype": "F16", "shape": [2], "data_offsets": [12, 16]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "bf16.safetensors"
    path.write_bytes(
        struct.pack("<Q", len(text)) + text + np.array(bits, "<u2").tobytes() + half.tobytes()
    )
    arrays, metadata = read_safetensors(path)
    assert metadata == {"who": "by hand"}
    assert arrays["b"].dtype == np.float32
    np.testing.assert_array_equal(arrays["b"], np.array(values).reshape(2, 3))
    assert np.signbit(arrays["b"][1, 2])
    np.testing.assert_array_equal(arrays["h"], half)


# -- initial weights -------------------------------------------------------------------------------


def test_initial_weights_have_the_asked_spread_and_gains_that_do_nothing() -> None:
    for kind, gain in (("rms", 1), ("layer", 1), ("rms_plus_one", 0)):
        model = tiny(norm_kind=kind)
        weights = initial_weights(model, np.random.default_rng(0), 0.05)
        assert {n: w.shape for n, w in weights.items()} == weight_shapes(model)
        matrices = np.concatenate([w.ravel() for w in weights.values() if w.ndim == 2])
        assert matrices.std() == pytest.approx(0.05, rel=0.05)
        assert {float(w) for n in weights for w in weights[n].ravel() if "norm.weight" in n} == {
            gain
        }
        assert not any(w.any() for n, w in weights.items() if n.endswith("bias"))
