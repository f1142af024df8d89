"""Distillation and LoRA by hand, by finite differences, and by what must not change a bit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import model_configs, random_weights, seeds

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError
from mu_ref.generate import greedy
from mu_ref.model import mu
from mu_ref.ops.lora import LoraOps
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.tape import TapeOps
from mu_ref.presets import tiny
from mu_ref.training.datasets import Batch, Example, make_batch
from mu_ref.training.distill import Distillation, Teacher
from mu_ref.training.lora import (
    Adapter,
    LoraConfig,
    initial_lora,
    lora_ops,
    lora_shapes,
    lora_sites,
    merged,
    trained_share,
)
from mu_ref.training.losses import cross_entropy, forward_kl, mixed
from mu_ref.training.trainer import TrainConfig, Trainer
from mu_ref.weights import count_parameters, initial_weights, weight_shapes

Arrays = dict[str, np.ndarray]
LORA = LoraConfig(rank=2, alpha=3.0, sites=("*.q", "*cross_attention.v", "encoder.*.mlp.down"))


# -- the loss of a student, by hand ---------------------------------------------------------------


def kl_of(student: list[float], teacher: list[float], temperature: float) -> float:
    """Divergence of one counted position; a second one that is padding would make it larger."""
    scores = np.log(np.array([[student, [1.0, 1.0, 1.0]]]))
    tape = TapeOps({"z": scores})
    wise = np.log(np.array([[teacher, [1.0, 9.0, 90.0]]]))
    seen = np.array([[True, False]])
    return float(forward_kl(tape, tape.weights["z"], wise, seen, temperature).value)


def test_the_divergence_of_a_student_by_hand() -> None:
    # from p = 1/8 1/4 5/8 to q = 1/4 1/4 1/2: 1/4 ln 2 + 0 + 1/2 ln 4/5
    expected = np.log(2) / 4 + np.log(4 / 5) / 2
    assert kl_of([1, 2, 5], [1, 1, 2], 1.0) == pytest.approx(expected, rel=1e-13)


def test_temperature_takes_roots_of_the_probabilities_and_its_square_keeps_the_size() -> None:
    # roots: student 1 2 4 of 7, teacher 1 3 1 of 5
    kl = 0.2 * np.log(7 / 5) + 0.6 * np.log(3 / 5 * 7 / 2) + 0.2 * np.log(7 / 20)
    assert kl_of([1, 4, 16], [1, 9, 1], 2.0) == pytest.approx(4 * kl, rel=1e-13)


def test_a_mix_weighs_labels_and_teacher() -> None:
    tape = TapeOps({"a": np.array([3.0]), "b": np.array([10.0])})
    loss = mixed(tape, tape.weights["a"], tape.weights["b"], 0.25)
    assert loss.value == pytest.approx(3 * 0.75 + 10 * 0.25)
    assert {n: g.tolist() for n, g in tape.backward(loss).items()} == {"a": [0.75], "b": [0.25]}


@settings(max_examples=25)
@given(st.floats(0.3, 5), st.floats(0, 1), st.floats(0, 0.5), seeds)
def test_the_gradient_of_a_student_s_loss_is_its_slope(tau, mix, smoothing, seed) -> None:
    rng = np.random.default_rng(seed)
    z, wise = rng.normal(size=(2, 2, 3, 5)) * 3
    labels, seen = rng.integers(0, 5, (2, 3)), np.array([[True, True, False], [True, False, True]])

    def loss_of(scores: np.ndarray):
        tape = TapeOps({"z": scores})
        node = tape.weights["z"]
        hard = cross_entropy(tape, node, labels, seen, smoothing)
        return tape, mixed(tape, hard, forward_kl(tape, node, wise, seen, tau), mix)

    tape, loss = loss_of(z)
    gradient, way = tape.backward(loss)["z"], rng.normal(size=z.shape)
    step = 1e-5
    slope = (loss_of(z + step * way)[1].value - loss_of(z - step * way)[1].value) / (2 * step)
    assert float((gradient * way).sum()) == pytest.approx(float(slope), rel=1e-6, abs=1e-8)
    assert not gradient[~seen].any()


def test_a_student_that_scores_as_its_teacher_has_nothing_to_learn_from_it() -> None:
    z = np.random.default_rng(0).normal(size=(2, 3, 7))
    tape = TapeOps({"z": z})
    loss = forward_kl(tape, tape.weights["z"], z + 5.0, np.ones((2, 3), bool), 1.7)
    assert abs(float(loss.value)) < 1e-14
    assert np.abs(tape.backward(loss)["z"]).max() < 1e-15


# -- a step of distillation -----------------------------------------------------------------------


def batch_of(model: ModelConfig, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    high = min(model.vocab_size, model.encoder_vocab_size)
    lengths = ((3, 2), (5, 4), (1, 1))
    pairs = [Example(*(rng.integers(3, high, n).tolist() for n in pair)) for pair in lengths]
    return make_batch(pairs, model)


def taught(mix: float, batch: Batch) -> Arrays:
    """Weights after one step of a tiny student, from a wider teacher."""
    model, wide = tiny(), tiny(d_model=24)
    trainer = Trainer(model, TrainConfig(label_smoothing=0.0, seed=3), lambda _: [])
    wise = initial_weights(wide, np.random.default_rng(5), 0.3)
    trainer.learn_from(Teacher(wide, wise, Distillation(temperature=2.0, mix=mix)))
    trainer.train_step(batch, 0.01)
    return trainer.weights


def test_a_teacher_alone_hears_no_labels_and_labels_alone_no_teacher() -> None:
    model = tiny()
    batch = batch_of(model)
    others = replace(batch, labels=(batch.labels + 1) % model.vocab_size)
    plain = Trainer(model, TrainConfig(label_smoothing=0.0, seed=3), lambda _: [])
    plain.train_step(batch, 0.01)
    for name, weight in taught(0.0, batch).items():
        assert np.array_equal(weight, plain.weights[name])
    alone, with_others = taught(1.0, batch), taught(1.0, others)
    assert all(np.array_equal(alone[name], with_others[name]) for name in alone)
    assert any(not np.array_equal(alone[n], plain.weights[n]) for n in alone)
    assert any(not np.array_equal(taught(0.5, batch)[n], taught(0.5, others)[n]) for n in alone)


def test_a_teacher_speaks_at_its_temperature() -> None:
    model, batch = tiny(), batch_of(tiny())
    teacher = Teacher(model, initial_weights(model, np.random.default_rng(5), 0.3),
                      Distillation(temperature=2.0, mix=1.0))  # fmt: skip
    z = np.random.default_rng(1).normal(size=(*batch.labels.shape, model.vocab_size))
    tape = TapeOps({"z": z})
    found = teacher.taught(tape, tape.weights["z"], tape.weights["z"], batch)
    by_hand = forward_kl(tape, tape.weights["z"], teacher.scores(batch), batch.counted, 2.0)
    np.testing.assert_allclose(np.squeeze(found.value), np.squeeze(by_hand.value), rtol=1e-12)


def test_a_teacher_scores_what_the_forward_pass_scores() -> None:
    model = tiny()
    weights = initial_weights(model, np.random.default_rng(5), 0.3, np.float64)
    batch = batch_of(model)
    expected = mu.forward(
        ReferenceOps(weights, np.float64), model, batch.source, batch.source_valid, batch.inputs,
        batch.counted,
    )  # fmt: skip
    scores = Teacher(model, weights, Distillation()).scores(batch)
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-9)


def test_a_teacher_of_other_tokens_is_refused() -> None:
    small = replace(tiny(), vocab_size=50, encoder_vocab_size=50)
    trainer = Trainer(tiny(), TrainConfig(), lambda _: [])
    with pytest.raises(InputError, match="61 tokens, got tiny with 50"):
        trainer.learn_from(Teacher(small, {}, Distillation()))


# -- LoRA -----------------------------------------------------------------------------------------


def scores(ops, model: ModelConfig, batch: Batch) -> np.ndarray:
    source = batch.source, batch.source_valid
    return ops.read(mu.forward(ops, model, *source, batch.inputs, batch.counted))


def adapter_of(weights: Arrays, lora: LoraConfig = LORA) -> Adapter:
    return Adapter(lora, weights, "", {})


def full(model: ModelConfig, seed: int, lora: LoraConfig = LORA) -> Arrays:
    """Matrices of a LoRA that has learnt something: B is not 0."""
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=shape) for n, shape in lora_shapes(model, lora).items()}


@settings(max_examples=12)
@given(st.data(), seeds)
def test_before_the_first_step_a_lora_is_the_base_bit_for_bit(data, seed: int) -> None:
    model = data.draw(model_configs(("encoder-decoder",)))
    base = random_weights(model, seed)
    base = {name: weight.astype(np.float32) for name, weight in base.items()}
    lora = LoraConfig(rank=3, alpha=7.0, sites=("*.q", "*.mlp.up"))
    start = initial_lora(model, lora, np.random.default_rng(seed))
    batch = batch_of(replace(model, pad_id=0, bos_id=1, eos_id=2))
    expected = scores(ReferenceOps(base), model, batch)
    assert np.array_equal(scores(lora_ops(base, adapter_of(start, lora)), model, batch), expected)


@given(
    st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.sampled_from([0.25, 1, 2]), seeds
)
def test_merged_weights_compute_the_same_exactly_where_nothing_is_rounded(
    m: int, n: int, rank: int, factor: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    drawn = lambda *shape: rng.integers(-9, 10, shape).astype(np.float64)  # noqa: E731
    base = {"l.weight": drawn(n, m), "l.bias": drawn(n)}
    own = {"l.lora_a.weight": drawn(rank, m), "l.lora_b.weight": drawn(n, rank)}
    lora = LoraConfig(rank=rank, alpha=factor * rank, sites=("l",))
    x = drawn(4, m)
    apart = lora_ops(base, adapter_of(own, lora), np.float64).linear(x, "l")
    assert np.array_equal(ReferenceOps(merged(base, lora, own), np.float64).linear(x, "l"), apart)


@settings(max_examples=12)
@given(seeds)
def test_a_merged_model_scores_what_base_and_lora_score_together(seed: int) -> None:
    model = tiny()
    base = random_weights(model, seed)
    own = full(model, seed)
    batch = batch_of(model, seed)
    apart = scores(lora_ops(base, adapter_of(own), np.float64), model, batch)
    whole = merged(base, LORA, own)
    together = scores(ReferenceOps(whole, np.float64), model, batch)
    np.testing.assert_allclose(together, apart, rtol=1e-8, atol=1e-8)
    assert not np.allclose(scores(ReferenceOps(base, np.float64), model, batch), apart, atol=1e-3)
    changed = {n.removesuffix(".weight") for n in base if whole[n] is not base[n]}
    assert changed == set(lora_sites(model, LORA))


def test_the_gradient_of_a_lora_is_its_slope_and_the_base_gets_none() -> None:
    model = replace(tiny(), dropout=0.0)
    base, own = random_weights(model, 1), full(model, 2)
    batch = batch_of(model)

    def loss_of(own: Arrays):
        tape = TapeOps(own, frozen=base)
        ops = LoraOps(tape, dict.fromkeys(lora_sites(model, LORA), LORA.factor))
        source = batch.source, batch.source_valid
        z = mu.forward(ops, model, *source, batch.inputs, batch.counted)
        return tape, cross_entropy(tape, z, batch.labels, batch.counted)

    tape, loss = loss_of(own)
    grads = tape.backward(loss)
    assert grads.keys() == own.keys()
    rng = np.random.default_rng(3)
    for name in list(own)[:2] + list(own)[-2:]:
        way = rng.normal(size=own[name].shape)
        around = [loss_of({**own, name: own[name] + s * way})[1].value for s in (1e-6, -1e-6)]
        slope = (around[0] - around[1]) / 2e-6
        assert float((grads[name] * way).sum()) == pytest.approx(float(slope), rel=1e-4, abs=1e-7)


def test_a_step_of_a_lora_moves_its_matrices_and_nothing_else() -> None:
    model = tiny()
    trainer = Trainer(model, TrainConfig(), lambda _: [])
    before = {name: weight.copy() for name, weight in trainer.weights.items()}
    trainer.adapt(LORA)
    start = {name: weight.copy() for name, weight in trainer.weights.items()}
    trainer.train_step(batch_of(model), 0.01)
    trainer.train_step(batch_of(model), 0.01)  # at the first one A has no slope: B is 0
    assert all(np.array_equal(before[name], trainer.frozen[name]) for name in before)
    assert trainer.weights.keys() == lora_shapes(model, LORA).keys()
    assert all(not np.array_equal(start[n], trainer.weights[n]) for n in start)
    assert all(set(kept) == {"mean", "square"} for kept in trainer.state.values())  # AdamW


def test_tasks_are_switched_by_another_executor_and_leave_no_trace() -> None:
    model = tiny()
    base = {n: w.astype(np.float32) for n, w in random_weights(model, 1).items()}
    one, two = (adapter_of(full(model, seed)) for seed in (2, 3))
    batch = batch_of(model)
    runs = [scores(lora_ops(base, task), model, batch) for task in (None, one, two, one, None)]
    assert np.array_equal(runs[0], runs[4])
    assert np.array_equal(runs[1], runs[3])
    assert not np.allclose(runs[0], runs[1])
    assert not np.allclose(runs[1], runs[2])


def test_rows_of_a_lora_keep_their_bits_whatever_stands_beside_them() -> None:
    model = tiny()
    base = {n: w.astype(np.float32) for n, w in random_weights(model, 1).items()}
    ops = lora_ops(base, adapter_of(full(model, 2)))
    batch = batch_of(model)
    whole = scores(ops, model, batch)
    for row in range(len(whole)):
        alone = mu.forward(
            ops, model, batch.source[[row]], batch.source_valid[[row]], batch.inputs[[row]],
            batch.counted[[row]],
        )  # fmt: skip
        seen = batch.counted[row]
        assert np.array_equal(ops.read(alone)[0][seen], whole[row][seen])


def test_which_layers_change_and_what_they_weigh() -> None:
    model = tiny()
    assert lora_sites(model, LoraConfig(sites=("decoder.1.*.q", "encoder.0.mlp.*"))) == [
        "encoder.0.mlp.up", "encoder.0.mlp.down", "decoder.1.self_attention.q",
        "decoder.1.cross_attention.q",
    ]  # fmt: skip
    # width 16: a query of 16 has 2 x (16 + 16), a value of 8 has 2 x (16 + 8)
    lora = LoraConfig(rank=2, sites=("encoder.0.self_attention.q", "encoder.0.self_attention.v"))
    assert trained_share(model, lora) == (64 + 48) / count_parameters(model)
    with pytest.raises(InputError, match=r"must fit a linear layer of tiny, got '\*.query'"):
        lora_sites(model, LoraConfig(sites=("*.q", "*.query")))
    assert not any("embedding" in site for site in lora_sites(model, LoraConfig(sites=("*",))))
    n_matrices = sum(len(shape) == 2 for shape in weight_shapes(model).values())
    assert len(lora_sites(model, LoraConfig(sites=("*",)))) == n_matrices - 1


# -- what counts as exact -------------------------------------------------------------------------


def test_the_share_of_exact_targets_is_that_of_greedy_decoding() -> None:
    model = replace(tiny(), tied_head=False, head_bias=True)
    trainer = Trainer(model, TrainConfig(batch_size=3), lambda _: [])
    trainer.weights = initial_weights(model, np.random.default_rng(4), 0.5)
    trainer.weights["head.bias"][model.end_token] = 3.5  # texts end
    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(12):
        source = rng.integers(3, 61, rng.integers(1, 6)).tolist()
        row = np.array([[*source, model.end_token]])
        ops = ReferenceOps(trainer.weights)
        written = greedy(ops, model, row, np.ones(row.shape, bool), 8)[0]
        if len(written) < 8:
            pairs.append(Example(source, written))
    assert len({len(pair.target) for pair in pairs}) >= 2
    assert trainer.exact_share(pairs) == 1.0
    longer = replace(pairs[0], target=[*pairs[0].target, 5])
    others = [replace(pair, source=[*pair.source, 9, 9, 9]) for pair in pairs[1:]]
    right = sum(
        greedy(ReferenceOps(trainer.weights), model, row := np.array([[*o.source, 2]]), row > 0, 8)
        == [o.target] for o in others
    )  # fmt: skip
    assert trainer.exact_share([longer, *others]) == right / len(pairs)
    assert right < len(others)
