"""Integer files have an encoding for every site that is computed, and for no other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import model_configs, random_weights

from mu_ref.config import ModelConfig
from mu_ref.errors import WeightsError
from mu_ref.executors import shipped_drafter, shipped_weights
from mu_ref.integers.encodings import Encoding
from mu_ref.integers.store import activation_sites, load_integers, save_integers
from mu_ref.quantize.observe import observe
from mu_ref.redrafter.store import load_integer_drafter, save_integer_drafter


@settings(max_examples=25)
@given(model_configs())
def test_the_sites_of_a_model_are_those_that_a_forward_pass_computes(model: ModelConfig) -> None:
    source = None if model.encoder is None else np.array([1])
    if model.decoder is None:  # a forward pass ends in a head
        assert not any(site.startswith("decoder") for site in activation_sites(model))
        return
    seen = observe(model, random_weights(model, 0), [(source, np.array([1]))])
    assert activation_sites(model) == set(seen.ranges)


def test_a_missing_and_an_unknown_site_are_named(tmp_path: Path) -> None:
    whole = load_integers(shipped_weights("w8a16"))
    few = {site: e for site, e in whole.activations.items() if site != "head"}
    path = tmp_path / "f.safetensors"
    save_integers(path, replace(whole, activations={**few, "zebra": Encoding(8, 1.0)}))
    with pytest.raises(WeightsError, match=r"missing \['head'\] \(1 in all\), unknown \['zebra'\]"):
        load_integers(path)


def test_a_drafter_cannot_replace_the_scales_of_its_model(tmp_path: Path) -> None:
    whole = load_integer_drafter(shipped_drafter("w8a16"))
    path = tmp_path / "f.safetensors"
    changed = {**whole.activations, "decoder.final_norm": Encoding(8, 1.0)}
    save_integer_drafter(path, replace(whole, activations=changed))
    with pytest.raises(WeightsError, match=r"unknown \['decoder.final_norm'\]"):
        load_integer_drafter(path)
    few = {site: e for site, e in whole.activations.items() if site != "drafter.state"}
    save_integer_drafter(path, replace(whole, activations=few))
    with pytest.raises(WeightsError, match=r"missing \['drafter.state'\]"):
        load_integer_drafter(path)
    # drafts of one token never come to the cell's second step
    later = ("drafter.rnn_u", "drafter.rnn_sum")
    one = {site: e for site, e in whole.activations.items() if site not in later}
    save_integer_drafter(path, replace(whole, activations=one))
    assert load_integer_drafter(path).activations == one


def test_a_drafter_of_other_numbers_or_scheme_is_refused(tmp_path: Path) -> None:
    whole = load_integer_drafter(shipped_drafter("w8a16"))
    path = tmp_path / "f.safetensors"
    name = "drafter.head.weight"
    for change, rule in (
        ({name: whole.tensors[name].astype(np.int16)}, "head.weight must be int8, got int16"),
        ({f"{name}_scale": -whole.tensors[f"{name}_scale"]}, "must hold positive scales"),
    ):
        save_integer_drafter(path, replace(whole, tensors={**whole.tensors, **change}))
        with pytest.raises(WeightsError, match=rule):
            load_integer_drafter(path)
    save_integer_drafter(path, replace(whole, scheme="w1a1"))
    with pytest.raises(WeightsError, match="scheme must be one of w8a16, w8a8; got 'w1a1'"):
        load_integer_drafter(path)
