"""Two training steps restated from the formulas, and what decides a run: rates, orders, masks.

The trainer is never compared with itself here. The forward pass and its gradient have tests of
their own (`properties/test_tape.py`); the loss, the clipping, the schedule, the optimizers and the
random numbers of a step are written anew below.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from mu_ref.errors import InputError, WeightsError
from mu_ref.model import mu
from mu_ref.ops.tape import Node, TapeOps
from mu_ref.presets import tiny
from mu_ref.training.checkpoint import running_mean
from mu_ref.training.datasets import Batch, Example, batches, pad
from mu_ref.training.losses import cross_entropy
from mu_ref.training.optimizers import AdamW, Muon, clip_gradients, orthogonalize
from mu_ref.training.schedule import WarmupStableDecay
from mu_ref.training.trainer import TrainConfig, Trainer
from mu_ref.weights import load_weights, read_safetensors, save_weights, write_safetensors

Arrays = dict[str, np.ndarray]
# The length of a row turns its tokens (NTK), so that padding counted as tokens would be noticed.
MODEL = replace(tiny(rope_ntk_factor=2.0, rope_base_len=2), dropout=0.25)
# Not one value is the default, and the norm of a first gradient (about 3) is clipped.
RUN = TrainConfig(
    epochs=3, batch_size=4, peak_rate=0.01, adam_rate_share=0.7, warmup_share=0.23,
    decay_share=0.47, label_smoothing=0.2, clip_norm=0.5, muon_weight_decay=0.3,
    adam_weight_decay=0.05, init_std=0.03, embedding_std=0.2, post_norm_gain=0.5,
    checkpoint_steps=5, seed=7,
)  # fmt: skip


def examples(rng: np.random.Generator) -> list[Example]:
    """Make 17 examples: four batches of four, and one that waits for another epoch."""
    return [
        Example(
            rng.integers(3, 61, rng.integers(1, 6)).tolist(),
            rng.integers(3, 61, rng.integers(1, 4)).tolist(),
        )
        for _ in range(17)
    ]


def trainer(run: TrainConfig = RUN, data=examples) -> Trainer:
    return Trainer(MODEL, run, data)


def forward(ops: TapeOps, batch: Batch) -> Node:
    return mu.forward(ops, MODEL, batch.source, batch.source_valid, batch.inputs, batch.counted)


# -- one step and a second one, restated -----------------------------------------------------------


def gradients_by_formula(weights: Arrays, batch: Batch, run: TrainConfig, step: int) -> Arrays:
    """Gradients of the smoothed loss, (p - q) / N at the logits, with the masks of one step."""
    ops = TapeOps(weights, MODEL.dropout, np.random.default_rng([run.seed, 2, step]))
    logits = forward(ops, batch)
    p = np.exp(logits.value)
    p /= p.sum(axis=-1, keepdims=True)
    share = run.label_smoothing / MODEL.vocab_size
    hit = batch.labels[..., None] == np.arange(MODEL.vocab_size)
    q = np.where(hit, 1 - run.label_smoothing + share, share)
    counted = batch.counted[..., None]
    slope = np.where(counted, p - q, 0) / batch.counted.sum()
    loss = -(np.where(counted, q * np.log(p), 0)).sum() / batch.counted.sum()
    return ops.backward(ops.record(np.asarray(loss), (logits,), lambda _: (slope,)))


def newton_schulz(x: np.ndarray) -> np.ndarray:
    """Five steps of Jordan's iteration, always on the taller side: (X X^T) X = X (X^T X)."""
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(5):
        inner = x.T @ x
        x = 3.4445 * x - 4.7750 * x @ inner + 2.0315 * x @ inner @ inner
    return x


def stepped_by_formula(
    weights: Arrays, memory: Arrays, batch: Batch, run: TrainConfig, step: int, rate: float
) -> Arrays:
    """Return the weights after a step; `memory` holds the optimizers' running means."""
    grads = gradients_by_formula(weights, batch, run, step)
    norm = sum((g**2).sum() for g in grads.values()) ** 0.5
    assert norm > run.clip_norm, "the test must clip"
    after = {}
    for name, w in weights.items():
        g = grads[name] * run.clip_norm / norm
        if w.ndim == 2 and name != "embedding.weight":  # Muon, with Nesterov's momentum
            m = memory[name] = 0.95 * memory.get(name, 0) + g
            update = 0.2 * max(w.shape) ** 0.5 * newton_schulz(g + 0.95 * m)
            after[name] = w * (1 - rate * run.muon_weight_decay) - rate * update
            continue
        m = memory[name] = 0.9 * memory.get(name, 0) + 0.1 * g
        v = memory[f"{name} v"] = 0.98 * memory.get(f"{name} v", 0) + 0.02 * g**2
        update = (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.98 ** (step + 1))) ** 0.5 + 1e-8)
        slow, decay = rate * run.adam_rate_share, run.adam_weight_decay * (w.ndim == 2)
        after[name] = w * (1 - slow * decay) - slow * update
    return after


@pytest.fixture(scope="module")
def two_steps() -> tuple[list[Arrays], list[Batch], list[float]]:
    """Train two steps in float64; return the weights before, between and after."""
    run = trainer()
    run.weights = {name: w.astype(np.float64) for name, w in run.weights.items()}
    made = list(batches(examples(np.random.default_rng(3)), 4, MODEL, np.random.default_rng(4)))
    seen, losses = [{n: w.copy() for n, w in run.weights.items()}], []
    for batch, rate in zip(made[:2], (0.02, 0.01), strict=True):
        losses.append(run.train_step(batch, rate))
        seen.append({n: w.copy() for n, w in run.weights.items()})
    assert run.step == 2
    return seen, made[:2], losses


def test_two_steps_are_those_of_the_formulas(two_steps) -> None:
    seen, made, _ = two_steps
    memory: Arrays = {}
    for step, rate in enumerate((0.02, 0.01)):
        expected = stepped_by_formula(seen[step], memory, made[step], RUN, step, rate)
        assert expected.keys() == seen[step + 1].keys()
        for name, weight in expected.items():
            assert not np.array_equal(weight, seen[step][name]), name
            np.testing.assert_allclose(
                seen[step + 1][name], weight, rtol=1e-9, atol=1e-12, err_msg=name
            )


def test_the_loss_of_a_step_is_that_before_it(two_steps) -> None:
    seen, made, losses = two_steps
    for step, loss in enumerate(losses):
        ops = TapeOps(seen[step], MODEL.dropout, np.random.default_rng([7, 2, step]))
        batch = made[step]
        z = forward(ops, batch).value
        log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
        terms = [
            0.8 * log_p[row, t, batch.labels[row, t]] + 0.2 * log_p[row, t].mean()
            for row, t in zip(*np.nonzero(batch.counted), strict=True)
        ]
        assert loss == pytest.approx(-np.mean(terms), rel=1e-12)


def test_every_sublayer_and_both_embeddings_drop_at_the_model_s_rate(monkeypatch) -> None:
    """Two encoder layers of two sub-layers, two decoder layers of three: 10 sites, and 2 more."""
    seen: list[tuple[str, float]] = []
    real = TapeOps.dropout

    def watched(self, x, site):
        seen.append((site, self.dropout_rate))
        return real(self, x, site)

    monkeypatch.setattr(TapeOps, "dropout", watched)
    run = trainer()
    run.train_step(next(batches(examples(np.random.default_rng(0)), 4, MODEL, rng())), 0.01)
    assert len({site for site, _ in seen}) == len(seen) == 12
    assert {rate for _, rate in seen} == {0.25}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- a run: which batches, at which rates ----------------------------------------------------------


@pytest.fixture
def taken(monkeypatch) -> list[tuple[int, Batch, float]]:
    """Replace the step by a note of what it was given, so that a run takes no time."""
    notes: list[tuple[int, Batch, float]] = []

    def note(self, batch, rate):
        notes.append((self.step, batch, rate))
        self.step += 1
        return 10.0 + self.step

    monkeypatch.setattr(Trainer, "train_step", note)
    return notes


def test_the_rates_of_a_run_are_those_of_its_shares(taken) -> None:
    """Of 12 steps 2.76, so 3, warm up and 5.64, so 6, decay by 1 - sqrt(1 - left / 6)."""
    list(trainer().run())
    rates = [1 / 3, 2 / 3, 1, 1, 1, 1, *(1 - (1 - left / 6) ** 0.5 for left in range(6, 0, -1))]
    np.testing.assert_allclose([rate for *_, rate in taken], 0.01 * np.array(rates), rtol=1e-12)


@pytest.mark.parametrize("share", ["warmup_share", "decay_share"])
def test_a_share_of_less_than_one_step_is_one_step(taken, share: str) -> None:
    run = replace(RUN, **{"warmup_share": 1 / 12, "decay_share": 1 / 12, share: 0.001})
    list(trainer(run).run())
    assert [rate for *_, rate in taken] == [0.01] * 12  # 1 of 1 to warm up, 1 of 1 left


def test_each_epoch_has_data_and_an_order_of_its_own(taken) -> None:
    drawn = []

    def data(generator: np.random.Generator) -> list[Example]:
        drawn.append(generator.bit_generator.state)
        return examples(generator)

    list(trainer(data=data).run())
    assert drawn[0] == drawn[1]  # the first is drawn once more, to count its batches
    for epoch, state in enumerate(drawn[1:]):
        generator = np.random.default_rng([7, 1, epoch])
        assert state == generator.bit_generator.state
        expected = list(batches(examples(generator), 4, MODEL, generator))
        for (step, batch, _), wanted in zip(taken[4 * epoch :], expected, strict=False):
            assert step // 4 == epoch
            np.testing.assert_array_equal(batch.source, wanted.source)
            np.testing.assert_array_equal(batch.labels, wanted.labels)
    orders = {tuple(batch.source.ravel().tolist()) for _, batch, _ in taken}
    assert len(orders) == 12


def test_progress_says_what_a_step_did(taken) -> None:
    seen = list(trainer().run())
    assert [p.step for p in seen] == list(range(1, 13))
    assert {p.total_steps for p in seen} == {12}
    assert [p.epoch for p in seen] == [0] * 4 + [1] * 4 + [2] * 4
    assert [p.loss for p in seen] == [10.0 + step for step in range(1, 13)]
    assert [p.rate for p in seen] == [rate for *_, rate in taken]
    assert all(0 <= p.step_s < 5 for p in seen)


def test_checkpoints_are_written_every_few_steps_and_at_the_end(taken, monkeypatch) -> None:
    saved = []
    monkeypatch.setattr(Trainer, "save", lambda self, path: saved.append((self.step, path)))
    list(trainer().run(Path("a")))
    assert saved == [(5, Path("a")), (10, Path("a")), (12, Path("a"))]
    list(trainer().run())
    assert len(saved) == 3


def test_a_run_goes_on_in_the_middle_of_an_epoch(taken) -> None:
    list(trainer().run())
    whole = [(step, batch.source.tolist(), rate) for step, batch, rate in taken]
    taken.clear()
    rest = trainer()
    rest.step = 6
    list(rest.run())
    assert [(step, batch.source.tolist(), rate) for step, batch, rate in taken] == whole[6:]


def test_the_smallest_allowed_numbers_are_allowed() -> None:
    run = replace(RUN, epochs=1, batch_size=1, checkpoint_steps=1, peak_rate=1e-9)
    assert run.epochs == run.batch_size == run.checkpoint_steps == 1
    with pytest.raises(InputError, match="peak_rate must be a number above 0 and at most"):
        replace(RUN, peak_rate=-1.0)


# -- where a run starts ----------------------------------------------------------------------------


def test_initial_weights_have_the_spreads_and_gains_of_the_run() -> None:
    weights = trainer().weights
    assert weights["embedding.weight"].std() == pytest.approx(0.2, rel=0.1)
    matrices = [w.ravel() for n, w in weights.items() if w.ndim == 2 and n != "embedding.weight"]
    assert np.concatenate(matrices).std() == pytest.approx(0.03, rel=0.05)
    gains = {n: set(w.tolist()) for n, w in weights.items() if n.endswith("norm.weight")}
    assert all(g == ({0.5} if n.endswith("post_norm.weight") else {1.0}) for n, g in gains.items())
    assert sum(n.endswith("post_norm.weight") for n in gains) == 10
    again, other = trainer().weights, trainer(replace(RUN, seed=8)).weights
    np.testing.assert_array_equal(again["embedding.weight"], weights["embedding.weight"])
    assert not np.array_equal(other["embedding.weight"], weights["embedding.weight"])


def test_the_first_numbers_drawn_are_the_embedding_s() -> None:
    drawn = np.random.default_rng([7, 0, 0]).standard_normal((61, 16)) * 0.2
    np.testing.assert_allclose(trainer().weights["embedding.weight"], drawn, rtol=1e-6)


def test_a_run_starts_from_halves_in_single_precision(tmp_path: Path) -> None:
    halves = {name: (w + 0.25).astype(np.float16) for name, w in trainer().weights.items()}
    path = tmp_path / "w.safetensors"
    save_weights(path, MODEL, halves, {"steps": "3", "loss": "1.5"})
    run = trainer()
    assert run.start_from(path) == {"steps": "3", "loss": "1.5"}
    assert list(run.weights) == list(trainer().weights)
    for name, half in halves.items():
        assert run.weights[name].dtype == np.float32
        np.testing.assert_array_equal(run.weights[name], half.astype(np.float32))
    assert load_weights(path)[0] == MODEL


def test_a_checkpoint_holds_weights_state_and_step_by_name(tmp_path: Path) -> None:
    run = trainer()
    batch = next(batches(examples(rng()), 4, MODEL, rng()))
    for _ in range(2):
        run.train_step(batch, 0.01)
    run.save(tmp_path / "c.safetensors")
    tensors, metadata = read_safetensors(tmp_path / "c.safetensors")
    assert metadata["step"] == "2"
    assert json.loads(metadata["train"])["clip_norm"] == 0.5
    matrices = {n for n, w in run.weights.items() if w.ndim == 2 and n != "embedding.weight"}
    kinds = {name: {"momentum"} if name in matrices else {"mean", "square"} for name in run.weights}
    assert tensors.keys() == {*run.weights} | {f"{n}:{k}" for n in kinds for k in kinds[n]}
    for name, weight in run.weights.items():
        np.testing.assert_array_equal(tensors[name], weight)
        for kind in kinds[name]:
            np.testing.assert_array_equal(tensors[f"{name}:{kind}"], run.state[name][kind])


def test_a_checkpoint_without_one_of_its_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    trainer().save(path)
    tensors, metadata = read_safetensors(path)
    del tensors["decoder.1.mlp.up.bias"]
    write_safetensors(path, tensors, metadata)
    with pytest.raises(WeightsError, match=r"missing \['decoder\.1\.mlp\.up\.bias'\]"):
        trainer().resume(path)


# -- optimizers with their published numbers -------------------------------------------------------


def polynomial(s: float) -> float:
    """Five steps of Jordan's quintic on one singular value."""
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (2, 2)])
def test_orthogonalize_maps_singular_values_by_the_published_quintic(shape) -> None:
    # norm 5: the singular values 3 and 4 become 0.6 and 0.8
    matrix = np.zeros(shape)
    matrix[0, 0], matrix[1, 1] = 3.0, -4.0
    expected = np.zeros(shape)
    expected[0, 0], expected[1, 1] = polynomial(0.6), -polynomial(0.8)
    np.testing.assert_allclose(orthogonalize(matrix), expected, rtol=1e-6)


def test_a_gradient_near_zero_is_not_blown_up() -> None:
    # 1e-7 is added to the norm, so a matrix of norm 1e-7 starts at one half
    small = orthogonalize(np.array([[1e-7, 0.0]]))
    np.testing.assert_allclose(small, [[polynomial(0.5), 0.0]], rtol=1e-9, atol=1e-12)


def test_muon_by_hand_on_a_row() -> None:
    """A row has one singular value, 1 after division by its norm; sqrt(max(1, 3)) scales it."""
    weight, state = np.array([[10.0, 20.0, 30.0]]), {}
    for grad in ([3.0, 0.0, 4.0], [0.0, 5.0, 0.0]):
        Muon().update(weight, np.array([grad]), state, 0.1)
    first = np.array([3.0, 0.0, 4.0]) / 5
    second = np.array([0.0, 5.0, 0.0]) + 0.95 * np.array([0.95 * 3, 5.0, 0.95 * 4])
    second /= np.linalg.norm(second)
    size = 0.1 * 0.2 * 3**0.5 * polynomial(1.0)
    expected = (np.array([10.0, 20.0, 30.0]) * 0.99 - size * first) * 0.99 - size * second
    np.testing.assert_allclose(weight, [expected], rtol=1e-7)
    np.testing.assert_allclose(state["momentum"], [[2.85, 5.0, 3.8]], rtol=1e-12)


def test_adamw_by_hand_with_its_defaults_and_an_eps_outside_the_root() -> None:
    matrix, state = np.array([[1.0]]), {}
    for step, grad in enumerate((2.0, -1.0), start=1):
        AdamW().update(matrix, np.array([[grad]]), state, 0.1, step)
    m, v = 0.9 * 0.2 - 0.1, 0.98 * 0.08 + 0.02
    first = 1 * (1 - 0.1 * 0.01) - 0.1  # the first step is rate times the sign
    second = (m / (1 - 0.81)) / (v / (1 - 0.98**2)) ** 0.5
    np.testing.assert_allclose(matrix, [[first * 0.999 - 0.1 * second]], rtol=1e-7)
    gain = np.array([1.0])
    AdamW(eps=3.0).update(gain, np.array([1.0]), {}, 0.1, 1)
    np.testing.assert_allclose(gain, [1 - 0.1 * 1 / (1 + 3)], rtol=1e-12)
    with np.errstate(all="raise"):  # the default eps keeps a gradient of 0 from dividing 0 by 0
        AdamW().update(gain, np.array([0.0]), {}, 0.1, 1)
    assert gain == pytest.approx(0.975)


def test_clipping_leaves_zeros_and_single_precision_alone() -> None:
    clipped, norm = clip_gradients({"a": np.zeros(2, np.float32)}, 1.0)
    assert (norm, clipped["a"].tolist(), clipped["a"].dtype) == (0.0, [0.0, 0.0], np.float32)


# -- loss, schedule and batches, restated ----------------------------------------------------------


def test_the_loss_of_huge_logits_is_their_difference() -> None:
    """exp(1000) is no number, and exp(-3000) is 0: each row is taken from its own largest."""
    ops = TapeOps({"x": np.array([[[1000.0, 990.0, -1000.0], [-3000.0, -2000.0, -2000.0]]])})
    both = np.array([[True, True]])
    loss = cross_entropy(ops, ops.weights["x"], np.array([[1, 2]]), both)
    expected = (10 + np.log1p(np.exp(-10)) + np.log(2)) / 2
    assert float(loss.value) == pytest.approx(expected, rel=1e-12)
    assert loss.value.dtype == np.float64
    single = TapeOps({"x": np.zeros((1, 1, 3), np.float32)})
    loss = cross_entropy(single, single.weights["x"], np.array([[1]]), np.array([[True]]), 0.1)
    assert loss.value.dtype == np.float32


def test_padding_of_empty_rows_and_of_no_rows() -> None:
    for rows, shape in (([], (0, 0)), ([[], []], (2, 0)), ([[], [8]], (2, 1))):
        tokens, valid = pad(rows, 9)
        assert tokens.shape == valid.shape == shape
        assert tokens.dtype == np.int64
    assert (tokens.tolist(), valid.tolist()) == ([[9], [8]], [[False], [True]])


def test_a_schedule_without_a_stable_part_and_its_ends() -> None:
    schedule = WarmupStableDecay(peak=6.0, warmup_steps=2, decay_steps=3, total_steps=5)
    rates = [schedule.rate(step) for step in range(6)]
    root = 3**0.5
    expected = [3.0, 6.0, 6.0, 6 * (1 - 1 / root), 6 * (1 - 2**0.5 / root), 0.0]
    np.testing.assert_allclose(rates, expected, rtol=1e-12, atol=1e-12)


def test_batches_are_sorted_by_source_then_target_and_come_in_drawn_order() -> None:
    made = [Example([3] * (1 + i % 3), [4 + i] * (1 + i * 7 % 5)) for i in range(20)]
    generator = rng(5)
    order = generator.permutation(20).tolist()
    order.sort(key=lambda i: (len(made[i].source), len(made[i].target)))  # Python's sort is stable
    starts = generator.permutation([0, 4, 8, 12, 16])
    expected = [[made[i].target[0] for i in order[s : s + 4]] for s in starts]
    found = [batch.inputs[:, 1].tolist() for batch in batches(made, 4, MODEL, rng(5))]
    assert found == expected


def test_the_recipe_of_the_shipped_model() -> None:
    assert asdict(TrainConfig()) == {
        "epochs": 18, "batch_size": 128, "peak_rate": 0.004, "adam_rate_share": 0.4,
        "warmup_share": 0.03, "decay_share": 0.4, "matrix_optimizer": "muon",
        "label_smoothing": 0.1, "clip_norm": 1.0,
        "muon_weight_decay": 0.1, "adam_weight_decay": 0.01, "init_std": 0.02,
        "embedding_std": round(192**-0.5, 3), "post_norm_gain": 0.25, "checkpoint_steps": 200,
        "seed": 0,
    }  # fmt: skip


def test_the_mean_of_the_loss_moves_a_twentieth_of_the_way() -> None:
    assert running_mean(float("nan"), 3.0) == 3.0
    assert running_mean(4.0, 2.0) == pytest.approx(3.9)
