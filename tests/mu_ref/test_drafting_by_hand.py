"""Training a drafter restated from the formulas, its gradient by differences, rules by hand."""

from dataclasses import replace

import numpy as np
import pytest
from strategies import random_weights

from mu_ref.errors import ConfigError, InputError
from mu_ref.generate import stream
from mu_ref.model import mu
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.tape import Node, TapeOps
from mu_ref.presets import tiny
from mu_ref.redrafter import draw
from mu_ref.redrafter.apple import accept_apple, residual
from mu_ref.redrafter.beams import DEAD, Search, _first_beams, proposer, warp
from mu_ref.redrafter.beams import draft as drafted_by
from mu_ref.redrafter.config import DrafterConfig, drafter_shapes, initial_drafter
from mu_ref.redrafter.draw import tree_text
from mu_ref.redrafter.losses import _first, draft_losses, draft_scores, total, windows
from mu_ref.redrafter.steps import SpeculativeStep, Statistics
from mu_ref.redrafter.train import (
    Distilled,
    DrafterTraining,
    distill,
    first_state,
    train_drafter,
)
from mu_ref.redrafter.tree import pack
from mu_ref.redrafter.verify import Accepted, draft_limit

SMALL = DrafterConfig(d_model=3, vocab_size=7, d_exit=4, n_blocks=1, rnn=True)
# Not one value is the default, and the norm of a gradient (about 2) is clipped.
RUN = DrafterTraining(
    epochs=2, draft_len=3, batch_size=3, peak_rate=0.02, weight_decay=0.3, warmup_share=0.5,
    decay_share=0.5, clip_norm=0.7, seed=5,
)  # fmt: skip


def positions(n: int = 7) -> Distilled:
    rng = np.random.default_rng(1)
    hidden, following = rng.standard_normal((n, 3)), rng.integers(0, 7, (n, 4))
    return Distilled(hidden.astype(np.float32), following, np.array([1, 3, 2, 1, 3, 2, 1])[:n])


TABLE = np.random.default_rng(2).standard_normal((7, 3)).astype(np.float32)


# -- the loss and its gradient ---------------------------------------------------------------------


def loss_by_formula(w: dict[str, np.ndarray], data: Distilled, rows: np.ndarray) -> float:
    """Mean over the texts that go on so far, for each place ahead; added up."""

    def silu(x):
        return x / (1 + np.exp(-x))

    terms: dict[int, list[float]] = {}
    for row in rows:
        state = None
        for i in range(data.n_targets[row]):
            x = w["drafter.rnn_w.weight"] @ TABLE[data.following[row, i]] + w["drafter.rnn_w.bias"]
            state = silu(x if state is None else x + w["drafter.rnn_u.weight"] @ state)
            y = np.concatenate([data.hidden[row], state])
            y = w["drafter.input_proj.weight"] @ y + w["drafter.input_proj.bias"]
            y = y + silu(w["drafter.0.weight"] @ y + w["drafter.0.bias"])
            z = w["drafter.head.weight"] @ y
            terms.setdefault(i, []).append(np.log(np.exp(z).sum()) - z[data.following[row, i + 1]])
    return sum(float(np.mean(places)) for places in terms.values())


def differences(w, data: Distilled, rows: np.ndarray) -> dict[str, np.ndarray]:
    w = {name: array.astype(np.float64) for name, array in w.items()}
    found = {name: np.zeros_like(array) for name, array in w.items()}
    for name, array in w.items():
        for at in np.ndindex(array.shape):
            sides = []
            for change in (1e-5, -1e-5):
                moved = array.copy()
                moved[at] += change
                sides.append(loss_by_formula(w | {name: moved}, data, rows))
            found[name][at] = (sides[0] - sides[1]) / 2e-5
    return found


def test_training_restated_step_by_step() -> None:
    """AdamW with clipped gradients, another order in each epoch, rates that rise, stay and fall."""
    data, step = positions(), 0
    drawn = initial_drafter(SMALL, np.random.default_rng([5, 0]))
    weights = {name: w.astype(np.float64) for name, w in drawn.items()}
    # of four steps two warm up; then two decay: 1 - sqrt(1 - 2/2), 1 - sqrt(1 - 1/2)
    rates = [0.01, 0.02, 0.02, 0.02 * (1 - 0.5**0.5)]
    mean, square = dict.fromkeys(weights, 0.0), dict.fromkeys(weights, 0.0)
    run = train_drafter(SMALL, TABLE, data, RUN)
    for epoch in (0, 1):
        order = np.random.default_rng([5, 1, epoch]).permutation(7)
        for first in (0, 3):  # the seventh position waits for another epoch
            rows, rate = order[first : first + 3], rates[step]
            loss, grads = loss_by_formula(weights, data, rows), differences(weights, data, rows)
            norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
            assert norm > 0.7, "the test must clip"
            step += 1
            for name, w in weights.items():
                g = grads[name] * 0.7 / norm
                mean[name] = 0.9 * mean[name] + 0.1 * g
                square[name] = 0.98 * square[name] + 0.02 * g * g
                m, v = mean[name] / (1 - 0.9**step), square[name] / (1 - 0.98**step)
                shrunk = w * (1 - rate * 0.3) if w.ndim == 2 else w
                weights[name] = shrunk - rate * m / (np.sqrt(v) + 1e-8)
            got = next(run)
            assert (got.step, got.total_steps) == (step, 4)
            assert got.loss == pytest.approx(loss / data.n_targets[rows].max(), rel=1e-4)
            for name, w in weights.items():
                np.testing.assert_allclose(got.weights[name], w, rtol=1e-3, atol=1e-4)
    assert next(run, None) is None


def test_a_run_goes_on_inside_an_epoch() -> None:
    whole = [step.loss for step in train_drafter(SMALL, TABLE, positions(), RUN)]
    assert len(whole) == 4  # two epochs of two
    steps = train_drafter(SMALL, TABLE, positions(), RUN)
    state = [next(steps) for _ in range(3)][-1].state
    assert [step.loss for step in train_drafter(SMALL, TABLE, positions(), RUN, state)] == whole[3:]


def test_a_start_takes_the_place_of_random_weights_and_stays_as_it_is() -> None:
    start = initial_drafter(SMALL, np.random.default_rng(9))
    before = {name: w.copy() for name, w in start.items()}
    rows = np.random.default_rng([5, 1, 0]).permutation(7)[:3]
    expected = loss_by_formula(start, positions(), rows) / positions().n_targets[rows].max()
    assert next(
        train_drafter(SMALL, TABLE, positions(), RUN, first_state(SMALL, RUN, start))
    ).loss == pytest.approx(expected)
    for name, w in start.items():
        np.testing.assert_array_equal(w, before[name])


def test_what_is_left_out_of_later_places_gets_no_gradient_from_them() -> None:
    ops = TapeOps({"w": np.zeros(1)})
    x = Node(np.arange(6.0).reshape(3, 2))
    some = _first(ops, x, 2)
    assert some.value.tolist() == [[0, 1], [2, 3]]
    assert some.back(np.array([[1.0, 2], [3, 4]]))[0].tolist() == [[1, 2], [3, 4], [0, 0]]


def test_windows_begin_behind_each_token_and_wrap() -> None:
    tokens = np.array([[10, 11, 12, 13]])
    assert windows(tokens, 2).tolist() == [[[11, 12, 13], [12, 13, 10], [13, 10, 11], [10, 11, 12]]]


def test_positions_with_most_targets_come_first_in_their_order() -> None:
    data = positions().longest_first(np.array([0, 1, 2, 3, 4]))
    assert data.n_targets.tolist() == [3, 3, 2, 1, 1]
    np.testing.assert_array_equal(data.hidden, positions().hidden[[1, 4, 2, 0, 3]])


def test_losses_are_added_up_place_by_place() -> None:
    drawn = initial_drafter(SMALL, np.random.default_rng(0))
    weights = {name: w.astype(np.float64) for name, w in drawn.items()}
    data, rows = positions(), np.array([1, 2, 0])
    ops = TapeOps(weights)
    ahead = [rows, rows[:2], rows[:1]]
    logits = draft_scores(
        ops, SMALL, data.hidden[rows].astype(np.float64),
        [TABLE[data.following[r, i]].astype(np.float64) for i, r in enumerate(ahead)],
    )  # fmt: skip
    targets = [data.following[r, i + 1] for i, r in enumerate(ahead)]
    loss = total(ops, draft_losses(ops, logits, targets, [np.ones(len(r), bool) for r in ahead]))
    assert float(loss.value) == pytest.approx(loss_by_formula(weights, data, rows))
    got, expected = ops.backward(loss), differences(weights, data, rows)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-7)


# -- rules and counts ------------------------------------------------------------------------------


def test_what_apples_rule_leaves_of_p() -> None:
    p = np.log([[[[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]]]])
    q = np.log([[[[0.2, 0.6, 0.2], [0.1, 0.6, 0.3]]]])
    for kept, rest in ((0, [0.3, 0, 0]), (1, [0.1, 0.6, 0.3]), (2, [0.2, 0.2, 0.6])):
        accepted = Accepted(np.array([kept]), np.array([0]), np.array([0]))
        np.testing.assert_allclose(residual(p, q, accepted), [rest], atol=1e-12)


@pytest.mark.parametrize(("u", "kept"), [((0.1, 0.9), 2), ((0.4, 0.9), 0), ((0.3, 0.9), 2)])
def test_apples_rule_keeps_a_draft_where_u_is_below_p_over_q(u, kept) -> None:
    """p / q is 0.2 / 0.6 for the first drafted token and 1 for the second."""
    p = np.log([[[[0.5, 0.2, 0.3], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]]]])
    q = np.log([[[[0.2, 0.6, 0.2], [0.1, 0.6, 0.3]]]])
    uniform, rng = np.array([[u]]), np.random.default_rng(0)
    assert accept_apple(np.array([[[0, 1, 1]]]), p, q, uniform, rng).n_accepted[0] == kept


def test_rows_that_have_ended_are_not_counted() -> None:
    beams = np.array([[[1, 2, 3], [1, 2, 4]], [[5, 6, 7], [5, 8, 9]], [[1, 2, 3], [1, 2, 3]]])
    step = SpeculativeStep(np.zeros((3, 3), int), np.array([3, 0, 1]), None, np.zeros(3, bool))
    seen = Statistics(n_steps=1, n_tokens=2, accepted={2: 1}, nodes_before=6, nodes_after=3)
    tree = pack(beams)
    seen.count(step, np.array([2, 1, 0]), tree.unpacker[0].size, tree.n_nodes, (2.5, 0.5))
    # two rows of two beams of three tokens; four nodes and three
    assert seen == Statistics(
        n_steps=3, n_tokens=6, accepted={2: 2, 0: 1}, nodes_before=6 + 12, nodes_after=3 + 4 + 3,
        draft_s=2.5, verify_s=0.5,
    )  # fmt: skip
    assert (seen.mean_accepted, seen.tokens_per_step) == (pytest.approx(4 / 3), 2)


class _Lengths:
    """As much of a cache as the limit of drafts looks at: 3 and 5 tokens."""

    valid = np.arange(5) < np.array([[3], [5]])


@pytest.mark.parametrize(("length", "seen", "limit"), [("row", [5, 5], 3), ("padded", [6, 7], 1)])
def test_the_longest_row_ends_drafting(length, seen, limit) -> None:
    stack = tiny(rope_ntk_factor=2.0, rope_base_len=8, rope_length=length).stacks["decoder"]
    assert draft_limit(stack, _Lengths(), np.array(seen)) == limit  # type: ignore[arg-type]


def test_all_but_the_fifty_likeliest_are_masked_and_ties_survive() -> None:
    logits = np.arange(60.0)[None]
    assert (warp(logits) == -50000).sum() == 10
    logits[0, 9] = logits[0, 10]  # the 50th and its equal
    assert (warp(logits) == -50000).sum() == 9
    assert (warp(np.zeros((1, 5))) == 0).all()


def test_all_beams_but_the_first_begin_dead_where_one_has_too_few_continuations() -> None:
    tokens, log_p = _first_beams(np.array([7]), Search(beam_width=4, draft_len=2), 3)
    assert tokens.tolist() == [[[7]] * 4]
    assert log_p.tolist() == [[0, DEAD, DEAD, DEAD]]
    tokens, log_p = _first_beams(np.array([7]), Search(beam_width=4, draft_len=2), 5)
    assert (tokens.tolist(), log_p.tolist()) == ([[[7]]], [[0]])


@pytest.mark.parametrize(("asked", "longest", "n"), [(4, 2, 2), (2, 9, 2)])
def test_drafts_are_no_longer_than_they_can_be_of_use(asked, longest, n) -> None:
    model = replace(tiny(), eos_id=60)
    drafter = DrafterConfig(d_model=16, vocab_size=61, d_exit=16, n_blocks=0, rnn=True)
    own = initial_drafter(drafter, np.random.default_rng(0))
    table = np.random.default_rng(1).standard_normal((61, 16))
    ops = ReferenceOps(own | {"embedding.weight": table})
    drafts = proposer(ops, model, drafter, Search(beam_width=2, draft_len=asked))
    hidden = np.random.default_rng(2).standard_normal((1, 1, 16)).astype(np.float32)
    assert drafts(hidden, np.array([3]), longest).tokens.shape == (1, 2, n + 1)
    # behind the model's end nothing counts: as many tokens as the search without an end
    whole = drafted_by(
        ops, model, drafter, hidden, np.array([3]), Search(beam_width=2, draft_len=n)
    )
    end = int(whole.tokens[0, 0, 1])
    cut = proposer(ops, replace(model, eos_id=end), drafter, Search(beam_width=1, draft_len=n))
    assert cut(hidden, np.array([3]), 9).tokens.tolist() == [[[3, end]]]


# -- sizes -----------------------------------------------------------------------------------------


def test_a_projection_is_there_unless_blocks_are_twice_as_wide_as_the_model() -> None:
    def shapes(d_exit):
        return drafter_shapes(
            DrafterConfig(d_model=3, vocab_size=7, d_exit=d_exit, n_blocks=0, rnn=False)
        )

    assert shapes(6) == {"drafter.head.weight": (7, 6)}
    assert shapes(3) == {
        "drafter.input_proj.weight": (3, 6), "drafter.input_proj.bias": (3,),
        "drafter.head.weight": (7, 3),
    }  # fmt: skip


def test_first_weights_are_as_small_as_inputs_are_many() -> None:
    drafter = DrafterConfig(d_model=8, vocab_size=300, d_exit=50, n_blocks=1, rnn=True)
    weights = initial_drafter(drafter, np.random.default_rng(0))
    for name, d_in in (("input_proj", 16), ("0", 50), ("rnn_w", 8)):
        for kind in ("weight", "bias"):
            array = weights[f"drafter.{name}.{kind}"]
            assert abs(array).max() <= d_in**-0.5
            if array.size > 40:
                assert abs(array).max() > 0.85 * d_in**-0.5


@pytest.mark.parametrize("change", [{"d_model": 8, "d_exit": 16}, {"vocab_size": 60}])
def test_a_drafter_fits_width_and_tokens(change) -> None:
    fits = DrafterConfig(d_model=16, vocab_size=61, d_exit=32, n_blocks=0, rnn=False)
    fits.check_fits(tiny())
    with pytest.raises(ConfigError, match="must fit tiny"):
        replace(fits, **change).check_fits(tiny())


def test_a_tree_as_text() -> None:
    beams = np.array([[[1, 2, 3], [1, 2, 4], [1, 5, 6]]])
    text = tree_text(pack(beams), beams, [0, 1], str)
    assert [line.rstrip() for line in text.splitlines()] == [
        "  0  1 *", "  1  ├─ 2 *", "  2  │  ├─ 3", "  3  │  └─ 4", "  4  └─ 5", "  5     └─ 6",
    ]  # fmt: skip


def test_a_tree_as_a_picture(monkeypatch, tmp_path) -> None:
    figures = []
    monkeypatch.setattr(draw, "write_picture", lambda path, figure, dpi: figures.append(figure))
    beams = np.array([[[1, 2, 3], [1, 2, 4], [1, 5, 6]]])
    draw.plot_tree(pack(beams), beams, [0, 1], tmp_path / "t.png")
    axes, mask = figures[0].axes
    # from a node to each of its children: leaves on lines 0, 1 and 2, parents between them
    edges = [tuple(zip(*line.get_data(), strict=True)) for line in axes.lines]
    assert edges == [
        ((0, 1.25), (1, 0.5)), ((1, 0.5), (2, 0)), ((1, 0.5), (2, 1)), ((0, 1.25), (1, 2)),
        ((1, 2), (2, 2)),
    ]  # fmt: skip
    assert [text.get_text() for text in axes.texts] == [
        "0: 1", "1: 2", "2: 3", "3: 4", "4: 5", "5: 6",
    ]  # fmt: skip
    assert mask.images[0].get_array().astype(int).sum() == 1 + 2 + 3 + 3 + 2 + 3  # ancestors


def test_a_drafter_learns_from_whole_answers_their_end_included() -> None:
    """Every position with a token behind it; a text of n tokens, its end the last, has n - 1."""
    model = tiny()
    ops = ReferenceOps(random_weights(model, 3))
    source = np.array([[5, 6, 7], [8, 9, 3]])
    valid = np.ones(source.shape, bool)
    memory, start = mu.remember(ops, model, source, valid), np.full((2, 1), model.bos_id)
    steps = stream(ops, model, memory, start, np.ones((2, 1), bool), 9)
    first = [step.tokens for step in steps]
    ends = int(first[4][0])  # what the first row writes fifth
    model = replace(model, eos_id=ends)
    texts = [[int(step[row]) for step in first] for row in range(2)]
    lengths = [text.index(ends) + 1 if ends in text else 9 for text in texts]
    found = distill(ops, model, source, valid, 9, draft_len=3)
    expected = [min(n - 1 - at, 3) for n in lengths for at in range(n - 1)]
    assert found.n_targets.tolist() == expected
    # of the later positions those for which a number below the share is drawn
    draws = np.random.default_rng(4).random((2, max(lengths)))
    few = distill(ops, model, source, valid, 9, 3, later_share=0.7, rng=np.random.default_rng(4))
    kept = [at == 0 or draws[row, at] < 0.7 for row, n in enumerate(lengths) for at in range(n - 1)]
    assert few.n_targets.tolist() == np.array(expected)[kept].tolist()
    np.testing.assert_array_equal(few.hidden, found.hidden[kept])
    assert 2 < sum(kept) < len(kept)
    none = distill(ops, model, source, valid, 9, 3, later_share=0, rng=np.random.default_rng(4))
    assert none.n_targets.tolist() == [min(n - 1, 3) for n in lengths if n > 1]
    with pytest.raises(InputError, match="must be given a generator"):
        distill(ops, model, source, valid, 9, 3, later_share=0.5)
    assert min(lengths) <= 5
