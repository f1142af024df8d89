"""Losses, optimizers, schedule and batches by hand; a resumed run equals an uninterrupted one."""

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError, WeightsError
from mu_ref.model import mu
from mu_ref.ops.tape import TapeOps
from mu_ref.presets import preset, tiny
from mu_ref.training.datasets import Example, batches, make_batch
from mu_ref.training.losses import cross_entropy
from mu_ref.training.optimizers import AdamW, Muon, clip_gradients, is_muon_weight, orthogonalize
from mu_ref.training.schedule import WarmupStableDecay
from mu_ref.training.trainer import TrainConfig, Trainer
from mu_ref.weights import initial_weights, save_weights, weight_shapes

# -- loss ------------------------------------------------------------------------------------------

LOGITS = np.log(np.array([[[1.0, 2.0, 5.0], [2.0, 2.0, 4.0]]]))  # p = 1/8 1/4 5/8, 1/4 1/4 1/2


def loss_of(targets: list[int], counted: list[bool], smoothing: float = 0.0) -> float:
    ops = TapeOps({"x": LOGITS})
    marks = np.array([counted])
    return float(cross_entropy(ops, ops.weights["x"], np.array([targets]), marks, smoothing).value)


def test_loss_is_the_mean_negative_log_of_the_targets_probability() -> None:
    # -(ln 1/4 + ln 1/2) / 2 = (3 ln 2) / 2
    assert loss_of([1, 2], [True, True]) == pytest.approx(1.5 * np.log(2), rel=1e-14)


def test_loss_counts_no_padding() -> None:
    assert loss_of([0, 2], [True, False]) == pytest.approx(3 * np.log(2), rel=1e-14)


def test_label_smoothing_spreads_its_share_over_the_vocabulary() -> None:
    # epsilon 0.3: 0.1 to each token, 0.7 more to the target.
    first = 0.7 * np.log(1 / 4) + 0.1 * (np.log(1 / 8) + np.log(1 / 4) + np.log(5 / 8))
    second = 0.7 * np.log(1 / 2) + 0.1 * (2 * np.log(1 / 4) + np.log(1 / 2))
    expected = -(first + second) / 2
    assert loss_of([1, 2], [True, True], 0.3) == pytest.approx(expected, rel=1e-14)


def test_the_gradient_of_the_loss_is_p_minus_q_over_n() -> None:
    ops = TapeOps({"x": LOGITS})
    marks = np.array([[True, True]])
    loss = cross_entropy(ops, ops.weights["x"], np.array([[1, 2]]), marks)
    grad = ops.backward(loss)["x"]
    expected = [[[1 / 16, -3 / 8, 5 / 16], [1 / 8, 1 / 8, -1 / 4]]]
    np.testing.assert_allclose(grad, expected, rtol=1e-14)


# -- optimizers ------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(1, 24), st.integers(1, 24), seeds)
def test_orthogonalize_brings_singular_values_near_one(m: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # A random matrix with singular values in [0.2, 1]: five steps cannot lift one from near 0.
    u, _, v = np.linalg.svd(rng.normal(size=(m, n)), full_matrices=False)
    s = rng.uniform(0.2, 1.0, min(m, n))
    for gradient in ((u * s) @ v, 1e3 * (u * s) @ v):
        result = orthogonalize(gradient)
        assert result.shape == (m, n)
        values = np.linalg.svd(result, compute_uv=False)
        assert 0.6 < values.min() <= values.max() < 1.3
        turned = u.T @ result @ v.T  # the singular vectors stay
        np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-8)


def test_orthogonalize_of_a_transpose_is_the_transpose() -> None:
    gradient = np.random.default_rng(0).normal(size=(3, 7))
    np.testing.assert_allclose(orthogonalize(gradient.T), orthogonalize(gradient).T, atol=1e-12)


def test_orthogonalize_of_zeros_is_zero() -> None:
    assert not orthogonalize(np.zeros((3, 2))).any()


def test_the_first_step_of_adamw_by_hand() -> None:
    # m_hat = g and v_hat = g², so the step is rate * sign(g); decay shrinks a matrix first:
    # 2 * (1 - 0.1 * 0.5) = 1.9
    adam = AdamW(beta1=0.9, beta2=0.99, eps=0.0, weight_decay=0.5)
    matrix, gain = np.array([[2.0, 2.0]]), np.array([2.0, 2.0])
    for weight in (matrix, gain):
        adam.update(weight, np.array(np.broadcast_to([4.0, -0.25], weight.shape)), {}, 0.1, 1)
    np.testing.assert_allclose(matrix, [[1.8, 2.0]], rtol=1e-14)
    np.testing.assert_allclose(gain, [1.9, 2.1], rtol=1e-14)


def test_the_second_step_of_adamw_by_hand() -> None:
    adam = AdamW(beta1=0.5, beta2=0.75, eps=0.0, weight_decay=0.0)
    weight, state = np.array([0.0]), {}
    adam.update(weight, np.array([1.0]), state, 1.0, 1)  # to -1
    adam.update(weight, np.array([3.0]), state, 1.0, 2)
    # m: 0.5, 1.75, hat 1.75 / 0.75 = 7/3; v: 0.25, 2.4375, hat 2.4375 / 0.4375 = 39/7
    np.testing.assert_allclose(weight, [-1 - (7 / 3) / (39 / 7) ** 0.5], rtol=1e-14)


def test_a_step_of_muon_has_its_size_whatever_the_gradients() -> None:
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))
    for size in (1e-3, 1.0, 1e3):
        weight = np.zeros((16, 16))
        Muon(weight_decay=0.0).update(weight, q * size, {}, 0.1)
        # 0.1 * 0.2 * sqrt(16) = 0.08 times a matrix close to q
        np.testing.assert_allclose(weight, -0.08 * q, atol=0.08 * 0.3)


def test_muon_decays_and_remembers() -> None:
    weight, state = np.full((2, 2), 10.0), {}
    Muon(momentum=0.5, weight_decay=0.5).update(weight, np.zeros((2, 2)), state, 0.1)
    np.testing.assert_allclose(weight, 9.5)
    muon = Muon(momentum=0.5, weight_decay=0.0)
    muon.update(weight, np.ones((2, 2)), state, 0.1)
    muon.update(weight, np.ones((2, 2)), state, 0.1)
    np.testing.assert_allclose(state["momentum"], 1.5)


def test_muon_trains_the_matrices_of_layers_only() -> None:
    config = replace(tiny(), shared_embedding=False, tied_head=False, head_bias=True)
    chosen = {n for n, s in weight_shapes(config).items() if is_muon_weight(n, np.empty(s))}
    rest = weight_shapes(config).keys() - chosen
    assert "decoder.1.cross_attention.q.weight" in chosen
    assert {n for n in rest if n.endswith("weight") and "norm" not in n} == {
        "encoder.embedding.weight", "decoder.embedding.weight", "head.weight",
    }  # fmt: skip
    assert not {n for n in chosen if "norm" in n or n.endswith("bias")}


def test_clipping_scales_all_gradients_together() -> None:
    grads = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}  # norm 5
    clipped, norm = clip_gradients(grads, 1.0)
    assert norm == 5.0
    np.testing.assert_allclose(clipped["a"], [0.6, 0.0])
    np.testing.assert_allclose(clipped["b"], [[0.8]])
    untouched, _ = clip_gradients(grads, 6.0)
    assert untouched["a"].tolist() == [3.0, 0.0]


# -- schedule --------------------------------------------------------------------------------------


def test_the_rate_warms_up_stays_and_decays() -> None:
    schedule = WarmupStableDecay(peak=8.0, warmup_steps=4, decay_steps=4, total_steps=12)
    rates = [schedule.rate(step) for step in range(12)]
    assert rates[:8] == [2.0, 4.0, 6.0, 8.0, 8.0, 8.0, 8.0, 8.0]
    # 4, 3, 2, 1 of 4 steps left: 1 - sqrt(0, 1/4, 1/2, 3/4)
    expected = [8.0, 4.0, 8 * (1 - 0.5**0.5), 8 * (1 - 0.75**0.5)]
    np.testing.assert_allclose(rates[8:], expected, rtol=1e-14)
    assert min(rates) > 0


# -- batches ---------------------------------------------------------------------------------------


def test_a_batch_by_hand() -> None:
    batch = make_batch([Example([7, 8], [9]), Example([], [5, 6])], tiny())  # pad 0, bos 1, eos 2
    assert batch.source.tolist() == [[7, 8, 2], [2, 0, 0]]
    assert batch.source_valid.tolist() == [[True] * 3, [True, False, False]]
    assert batch.inputs.tolist() == [[1, 9, 0], [1, 5, 6]]
    assert batch.labels.tolist() == [[9, 2, 0], [5, 6, 2]]
    assert batch.counted.tolist() == [[True, True, False], [True] * 3]


@given(st.integers(0, 30), st.integers(1, 8), seeds)
def test_every_example_comes_once_but_for_an_incomplete_batch(n: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    examples = [Example([3 + i] * int(rng.integers(1, 6)), [3 + i]) for i in range(n)]
    made = list(batches(examples, size, tiny(), rng))
    assert len(made) == n // size
    seen = Counter(int(row[1]) - 3 for batch in made for row in batch.inputs)
    assert set(seen.values()) <= {1}
    assert len(seen) == n // size * size
    for batch in made:
        assert batch.source.shape[0] == batch.inputs.shape[0] == size
        for row, valid in zip(batch.source, batch.source_valid, strict=True):
            example = examples[int(row[0]) - 3]
            assert row[valid].tolist() == [*example.source, 2]
            assert (row[~valid] == 0).all()


def test_batches_are_of_similar_length_and_shuffled() -> None:
    examples = [Example([3] * (i % 4 + 1), [4]) for i in range(32)]
    made = list(batches(examples, 8, tiny(), np.random.default_rng(1)))
    assert all(batch.source_valid.all() for batch in made)  # 8 of each length: nothing to pad
    orders = {
        tuple(b.source.shape[1] for b in batches(examples, 8, tiny(), np.random.default_rng(seed)))
        for seed in range(8)
    }
    assert len(orders) > 1


# -- trainer ---------------------------------------------------------------------------------------

MODEL = replace(tiny(), dropout=0.2)
RUN = TrainConfig(epochs=3, batch_size=4, checkpoint_steps=100, seed=5)


def random_epoch(rng: np.random.Generator) -> list[Example]:
    """Make 17 examples, so that an epoch is 4 batches and a rest; each epoch has others."""
    return [
        Example(
            rng.integers(3, 61, rng.integers(1, 6)).tolist(),
            rng.integers(3, 61, rng.integers(1, 4)).tolist(),
        )
        for _ in range(17)
    ]


def trainer(model: ModelConfig = MODEL, config: TrainConfig = RUN) -> Trainer:
    return Trainer(model, config, random_epoch)


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[Trainer, list[float]]:
    whole = trainer()
    losses = [p.loss for p in whole.run()]
    assert len(losses) == whole.step == 12
    return whole, losses


@pytest.mark.parametrize("stop", [1, 3, 4, 6, 11, 12])  # epochs end at 4, 8 and 12
def test_a_resumed_run_equals_an_uninterrupted_one(uninterrupted, tmp_path, stop) -> None:
    whole, losses = uninterrupted
    before = trainer()
    first = [p.loss for p in itertools.islice(before.run(), stop)]
    before.save(tmp_path / "run.safetensors")
    after = trainer()
    after.resume(tmp_path / "run.safetensors")
    assert after.step == stop
    assert first + [p.loss for p in after.run()] == losses
    assert after.weights.keys() == whole.weights.keys()
    for name, weight in whole.weights.items():
        np.testing.assert_array_equal(after.weights[name], weight, err_msg=name)
    for name, state in whole.state.items():
        assert after.state[name].keys() == state.keys()
        for kind, array in state.items():
            np.testing.assert_array_equal(after.state[name][kind], array)


def test_the_run_writes_checkpoints_that_continue_it(uninterrupted, tmp_path) -> None:
    whole, losses = uninterrupted
    path = tmp_path / "run.safetensors"
    config = replace(RUN, checkpoint_steps=5)
    first = [p.loss for p in itertools.islice(trainer(config=config).run(path), 7)]
    assert first == losses[:7]
    after = trainer(config=config)
    after.resume(path)
    assert after.step == 5  # of steps 6 and 7 nothing was written
    assert [p.loss for p in after.run(path)] == losses[5:]
    for name, weight in whole.weights.items():
        np.testing.assert_array_equal(after.weights[name], weight)
    ended = trainer(config=config)
    ended.resume(path)
    assert (ended.step, list(ended.run(path))) == (12, [])


def test_two_steps_by_hand() -> None:
    """Options that are not the defaults, and a Muon matrix that is not square."""
    options = {"seed": 9, "label_smoothing": 0.3, "clip_norm": 0.05, "adam_rate_share": 0.25}
    decays = {"muon_weight_decay": 0.3, "adam_weight_decay": 0.2}
    run = trainer(config=replace(RUN, **options, **decays))
    weights = {name: array.copy() for name, array in run.weights.items()}
    state: dict[str, dict[str, np.ndarray]] = {name: {} for name in weights}
    muon, adam = Muon(weight_decay=0.3), AdamW(weight_decay=0.2)
    batch = make_batch(random_epoch(np.random.default_rng(1)), MODEL)
    for step, rate in enumerate((0.01, 0.02)):
        ops = TapeOps(weights, 0.2, np.random.default_rng([9, 2, step]))
        arrays = (batch.source, batch.source_valid, batch.inputs, batch.counted)
        scores = mu.forward(ops, MODEL, *arrays)
        loss = cross_entropy(ops, scores, batch.labels, batch.counted, 0.3)
        grads, norm = clip_gradients(ops.backward(loss), 0.05)
        assert norm > 0.05
        for name, grad in grads.items():
            if is_muon_weight(name, weights[name]):
                muon.update(weights[name], grad, state[name], rate)
            else:
                adam.update(weights[name], grad, state[name], rate * 0.25, step + 1)
        assert run.train_step(batch, rate) == float(loss.value)
    assert (
        weights["encoder.0.mlp.up.weight"].shape[0] != weights["encoder.0.mlp.up.weight"].shape[1]
    )
    for name, weight in weights.items():
        np.testing.assert_array_equal(run.weights[name], weight, err_msg=name)


def test_elements_drop_behind_each_embedding_and_each_sub_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sites: list[str] = []

    def dropout(x, site):
        sites.append(site)
        return x

    ops = TapeOps(initial_weights(MODEL, np.random.default_rng(0)))
    monkeypatch.setattr(ops, "dropout", dropout)
    tokens = np.array([[1, 5, 9]])
    mu.forward(ops, MODEL, tokens, tokens > 0, tokens)
    expected = ["encoder.embed_dropout"]
    for layer in range(MODEL.stacks["encoder"].n_layers):
        expected += [f"encoder.{layer}.{part}.dropout" for part in ("self_attention", "mlp")]
    expected.append("decoder.embed_dropout")
    for layer in range(MODEL.stacks["decoder"].n_layers):
        parts = ("self_attention", "cross_attention", "mlp")
        expected += [f"decoder.{layer}.{part}.dropout" for part in parts]
    assert sites == expected


def test_another_seed_gives_another_run(uninterrupted) -> None:
    other = trainer(config=replace(RUN, seed=6))
    assert next(iter(other.run())).loss != uninterrupted[1][0]


@pytest.mark.parametrize(
    ("model", "config", "what"),
    [
        (MODEL, replace(RUN, peak_rate=1e-3), "train"),
        (MODEL, replace(RUN, seed=6), "train"),
        (replace(MODEL, dropout=0.0), RUN, "config"),
        (tiny(norm_placement="pre"), RUN, "config"),
    ],
)
def test_resuming_another_run_is_refused(tmp_path, model, config, what) -> None:
    trainer().save(tmp_path / "run.safetensors")
    with pytest.raises(InputError, match=f"checkpoint of this run; its {what} differs"):
        trainer(model, config).resume(tmp_path / "run.safetensors")


def test_a_run_starts_from_the_weights_of_a_file_or_refuses_another_model(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    weights = initial_weights(MODEL, np.random.default_rng(7))
    save_weights(path, MODEL, weights, {"steps": "3"})
    run = trainer()
    assert run.start_from(path)["steps"] == "3"
    np.testing.assert_array_equal(
        run.weights["encoder.0.mlp.up.weight"], weights["encoder.0.mlp.up.weight"]
    )
    with pytest.raises(WeightsError, match=r"weights\.safetensors"):
        trainer(preset("mu-nano")).start_from(path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    trainer().save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError):
        trainer().resume(path)


def test_too_few_examples_for_a_batch_are_refused() -> None:
    few = Trainer(MODEL, RUN, lambda rng: random_epoch(rng)[:3])
    with pytest.raises(InputError, match="fill a batch of 4"):
        next(iter(few.run()))


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("batch_size", 0), ("checkpoint_steps", 0), ("peak_rate", 0.0)],
)
def test_contradictory_options_are_refused_by_name(field, value) -> None:
    with pytest.raises(InputError, match=field):
        replace(RUN, **{field: value})


def test_a_small_model_learns_eight_examples_by_heart() -> None:
    examples = random_epoch(np.random.default_rng(3))[:8]
    config = TrainConfig(
        epochs=120, batch_size=8, peak_rate=1e-2, label_smoothing=0.0, checkpoint_steps=1000
    )
    run = Trainer(replace(MODEL, dropout=0.0), config, lambda rng: examples)
    losses = [p.loss for p in run.run()]
    assert losses[0] == pytest.approx(np.log(61), abs=0.3)  # a guess among 61 tokens
    assert losses[-1] < 0.2
