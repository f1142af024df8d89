"""A resumed run is the same run: same bytes, or refused; a damaged checkpoint costs an interval."""

import hashlib
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mu_ref.config import ModelConfig
from mu_ref.errors import InputError, WeightsError
from mu_ref.ops.reference import ReferenceOps
from mu_ref.presets import tiny
from mu_ref.redrafter.config import DrafterConfig
from mu_ref.redrafter.train import DrafterTraining
from mu_ref.settings import train as train_module
from mu_ref.settings import training_run
from mu_ref.settings.agent import Agent
from mu_ref.settings.catalog import DATA, load_catalog
from mu_ref.settings.train import train_agent
from mu_ref.settings.train_drafter import train_agent_drafter
from mu_ref.tokenizer import Tokenizer
from mu_ref.training import checkpoint, trainer
from mu_ref.training.checkpoint import (
    State,
    identity_of,
    read_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from mu_ref.training.trainer import TrainConfig, Trainer
from mu_ref.weights import initial_weights, read_safetensors

SHAPES = {"a.weight": (64, 64), "a.bias": (64,)}


def state(step: int) -> State:
    rng = np.random.default_rng(step)
    weights = {name: rng.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
    moments = {name: {"mean": weight + 1} for name, weight in weights.items()}
    return State(weights, moments, step, 1 / (1 + step))


def run(**decided: object) -> dict[str, object]:
    return dict(identity_of({}, **{"train": {"epochs": 3}, **decided}))


def assert_state(found: State, step: int) -> None:
    expected = state(step)
    assert (found.step, found.mean_loss) == (step, expected.mean_loss)
    for name, weight in expected.weights.items():
        np.testing.assert_array_equal(found.weights[name], weight)
        np.testing.assert_array_equal(found.moments[name]["mean"], weight + 1)


# -- two checkpoints -------------------------------------------------------------------------------


def test_the_two_newest_are_kept_and_both_are_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.checkpoint.safetensors"
    for step in (5, 10, 15):
        write_checkpoint(path, run(), state(step))
    names = ["x.checkpoint.1.safetensors", "x.checkpoint.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    found, place = read_checkpoint(path, run(), SHAPES)
    assert_state(found, 15)
    assert place == path
    remove_checkpoints(path)
    assert list(tmp_path.iterdir()) == []


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "emptied":
        data = bytearray()
    elif how == "cut":
        del data[len(data) // 2 :]
    elif how == "one byte short":
        del data[-1:]
    elif how == "random":
        data = bytearray(np.random.default_rng(0).bytes(len(data)))
    elif how == "a bit of a weight":
        data[-9] ^= 1
    elif how == "a digit of the step":
        at = data.index(b'"step":"10"')
        data[at + 8 : at + 10] = b"12"
    else:
        data[:8] = b"\xff" * 8
    path.write_bytes(data)


DAMAGES = ["emptied", "cut", "one byte short", "random", "a bit of a weight",
           "a digit of the step", "the length of its header"]  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, how: str) -> None:
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, run(), state(5))
    write_checkpoint(path, run(), state(10))
    damage(path, how)
    found, place = read_checkpoint(path, run(), SHAPES)
    assert_state(found, 5)
    assert place.name == "x.1.safetensors"
    write_checkpoint(path, run(), state(6))  # the whole one stays as the one before
    damage(path, "emptied")
    assert_state(read_checkpoint(path, run(), SHAPES)[0], 5)


@pytest.mark.parametrize("how", DAMAGES)
def test_without_a_whole_one_it_is_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, run(), state(10))
    damage(path, how)
    with pytest.raises(WeightsError, match=r"x\.safetensors"):
        read_checkpoint(path, run(), SHAPES)
    assert path.exists()
    path.unlink()
    with pytest.raises(InputError, match="there is none"):
        read_checkpoint(path, run(), SHAPES)


def test_a_kill_between_two_checkpoints_leaves_one(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, run(), state(10))
    path.replace(tmp_path / "x.1.safetensors")  # the first half of writing the next one
    assert_state(read_checkpoint(path, run(), SHAPES)[0], 10)


# -- the same run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"train": {"epochs": 4}}, "its train differs: epochs 3 before, 4 now"),
        ({"train": {"epochs": 3, "seed": 1}}, "its train differs: seed None before, 1 now"),
        ({"version": "9.9"}, "its version differs: 9.9 before, "),
    ],
)
def test_what_has_changed_is_named(tmp_path: Path, change, text: str, monkeypatch) -> None:
    path = tmp_path / "x.safetensors"
    if "version" in change:
        monkeypatch.setattr(checkpoint, "__version__", change["version"])
        write_checkpoint(path, run(), state(1))
        monkeypatch.undo()
        change = {}
    else:
        write_checkpoint(path, run(), state(1))
    with pytest.raises(InputError, match=text):
        read_checkpoint(path, run(**change), SHAPES)


def test_the_content_of_an_input_counts_not_its_place(tmp_path: Path) -> None:
    path, a, b = tmp_path / "x.safetensors", tmp_path / "a", tmp_path / "b"
    a.write_text("queries")
    b.write_text("queries")
    write_checkpoint(path, identity_of({"--queries": a, "--start": None}), state(1))
    read_checkpoint(path, identity_of({"--queries": b, "--start": None}), SHAPES)
    digest = hashlib.sha256(b"queries").hexdigest()
    assert identity_of({"--queries": a})["input"] == {"--queries": digest}
    b.write_text("Queries")
    with pytest.raises(InputError, match="its input differs: --queries, --start had another"):
        read_checkpoint(path, identity_of({"--queries": b, "--start": a}), SHAPES)
    with pytest.raises(InputError, match="must be a file that can be read"):
        identity_of({"--queries": tmp_path})


# -- the trainers of the agent ---------------------------------------------------------------------


QUIET = Console(file=StringIO())
RUN = TrainConfig(epochs=3, batch_size=8, checkpoint_steps=2, seed=3)
DRAFTER_RUN = DrafterTraining(epochs=3, draft_len=2, batch_size=8, seed=3)


def small_model() -> ModelConfig:
    n = Tokenizer.load().vocab_size
    return replace(tiny(), name="small", vocab_size=n, encoder_vocab_size=n, max_len=64)


@pytest.fixture
def queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(train_module, "preset", lambda name: small_model())
    path = tmp_path / "q.jsonl"
    lines = (DATA / "train.jsonl").read_text(encoding="utf-8").splitlines()[:24]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


Make = Callable[..., None]


@pytest.fixture(params=["train", "train-drafter"])
def make(request: pytest.FixtureRequest, queries: Path) -> Make:
    """Run one of both trainers."""

    def train(out: Path, *, resume: bool = False, every: int = 2, console=QUIET) -> None:
        config = replace(RUN, checkpoint_steps=every)
        train_agent("small", queries, config, out, resume=resume, console=console)

    def train_drafter(out: Path, *, resume: bool = False, every: int = 2, console=QUIET) -> None:
        model = small_model()
        ops = ReferenceOps(initial_weights(model, np.random.default_rng(1), 0.2))
        agent = Agent(model, ops, Tokenizer.load(), load_catalog())
        d_model = model.stacks["decoder"].d_model
        drafter = DrafterConfig(
            d_model=d_model, vocab_size=model.vocab_size, d_exit=4, n_blocks=1, rnn=True
        )
        texts = [f"louder by {n}" for n in range(4)]
        train_agent_drafter(
            agent, drafter, texts, DRAFTER_RUN, out, inputs={"--queries": queries}, start=None,
            resume=resume, checkpoint_steps=every, console=console,
        )  # fmt: skip

    return {"train": train, "train-drafter": train_drafter}[request.param]


class Killed(Exception):
    """Stands for SIGKILL: nothing is saved after it."""


def killed_after(n_writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let writing the checkpoint after the n-th kill the run, half-way."""
    left = [n_writes]
    real = checkpoint.write_safetensors

    def write(*given: object) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "write_safetensors", write)


@pytest.mark.parametrize("n_writes", [1, 2, 3])
def test_killed_and_resumed_runs_write_the_same_bytes(
    make, tmp_path, monkeypatch, n_writes
) -> None:
    whole, out = tmp_path / "whole.safetensors", tmp_path / "out.safetensors"
    make(whole)
    with monkeypatch.context() as patch:
        killed_after(n_writes, patch)
        with pytest.raises(Killed):
            make(out)
    assert not out.exists()
    said = StringIO()
    make(out, resume=True, every=3, console=Console(file=said, width=500))
    assert "goes on after step" in said.getvalue()
    assert out.read_bytes() == whole.read_bytes()
    assert "loss" in read_safetensors(out)[1]
    names = ["out.safetensors", "q.jsonl", "whole.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_run_says_that_its_newest_checkpoint_was_damaged(make, tmp_path, monkeypatch) -> None:
    whole, out = tmp_path / "whole.safetensors", tmp_path / "out.safetensors"
    make(whole)
    with monkeypatch.context() as patch:
        killed_after(2, patch)
        with pytest.raises(Killed):
            make(out)
    # killed before the third was written: the second is the one before it
    newest = tmp_path / "out.checkpoint.safetensors"
    assert not newest.exists()
    newest.write_bytes(b"")
    said = StringIO()
    make(out, resume=True, console=Console(file=said, width=500))
    assert "goes on after step 4, from" in said.getvalue()
    assert "out.checkpoint.1.safetensors; out.checkpoint.safetensors was not" in said.getvalue()
    assert out.read_bytes() == whole.read_bytes()


def test_an_interrupt_saves_and_says_how_to_go_on(make, tmp_path, monkeypatch) -> None:
    whole, out = tmp_path / "whole.safetensors", tmp_path / "out.safetensors"
    make(whole)
    said = StringIO()
    real = training_run.Progress.update

    def update(self, task, **fields) -> None:
        real(self, task, **fields)
        if fields["completed"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(training_run.Progress, "update", update)
        with pytest.raises(KeyboardInterrupt):
            make(out, every=100, console=Console(file=said, width=500))
    text = said.getvalue()
    assert "after step 3" in text or "after step 4" in text
    assert "--resume goes on from" in text
    make(out, resume=True)
    assert out.read_bytes() == whole.read_bytes()


def test_a_changed_input_is_refused_by_its_name(make, tmp_path, monkeypatch, queries) -> None:
    out = tmp_path / "out.safetensors"
    with monkeypatch.context() as patch:
        killed_after(1, patch)
        with pytest.raises(Killed):
            make(out)
    kept = queries.read_text(encoding="utf-8")
    queries.write_text(kept.replace("\n", "\n\n", 1), encoding="utf-8")
    with pytest.raises(InputError, match="its input differs: --queries had another content"):
        make(out, resume=True)
    queries.write_text(kept, encoding="utf-8")
    with pytest.raises(InputError, match="exists; give --resume to go on, or delete it"):
        make(out)
    make(out, resume=True)


def test_a_device_gets_the_result_and_no_checkpoint(make, tmp_path: Path) -> None:
    before = sorted(os.listdir("/dev"))
    make(Path("/dev/null"))
    assert sorted(os.listdir("/dev")) == before
    with pytest.raises(InputError, match="--resume must have a file"):
        make(Path("/dev/null"), resume=True)


# -- numbers that are none -------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_run_whose_loss_is_no_number_stops_and_writes_nothing(
    make, tmp_path, monkeypatch, queries, loss
) -> None:
    monkeypatch.setattr(trainer.Trainer, "train_step", lambda *_: loss)
    monkeypatch.setattr("mu_ref.redrafter.train._train_step", lambda *_: loss)
    with pytest.raises(InputError, match=r"the loss must stay a number, got (nan|inf) at step"):
        make(tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"]


def test_weights_that_are_no_numbers_are_never_written(tmp_path: Path) -> None:
    broken = state(3)
    broken.weights["a.bias"][5] = np.inf
    with pytest.raises(InputError, match="the loss must stay a number"):
        write_checkpoint(tmp_path / "x.safetensors", run(), broken)
    assert list(tmp_path.iterdir()) == []
    for value in (np.nan, 70_000.0, -1e30):
        weights = {"head.weight": np.array([[0.5, value]], np.float32)}
        with pytest.raises(InputError, match=r"head\.weight must hold numbers that fit float16"):
            training_run.halves_of(weights)
    fits = training_run.halves_of({"w": np.array([65_504.0, -0.5], np.float32)})["w"]
    assert fits.tolist() == [65_504.0, -0.5]


@pytest.mark.parametrize(
    "change",
    [{"epochs": 10**12}, {"peak_rate": float("inf")}, {"clip_norm": 0.0}, {"seed": -1},
     {"warmup_share": float("nan")}, {"label_smoothing": 1.5}, {"init_std": -1.0},
     {"muon_weight_decay": float("nan")}, {"batch_size": True}, {"checkpoint_steps": 2.5}],
)  # fmt: skip
def test_every_number_of_a_run_has_a_range(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(change))} must be a"):
        replace(RUN, **change)  # type: ignore[arg-type]
    if hasattr(DRAFTER_RUN, name := next(iter(change))):  # the drafter's trainer, too
        with pytest.raises(InputError, match=f"{name} must be a"):
            replace(DRAFTER_RUN, **change)  # type: ignore[arg-type]


def test_how_often_a_checkpoint_is_written_is_not_part_of_a_run() -> None:
    deciding = RUN.deciding()
    assert "checkpoint_steps" not in deciding
    assert deciding["seed"] == 3
    assert len(deciding) == 15
    examples = Trainer(tiny(), RUN, lambda rng: []).identity
    assert examples == Trainer(tiny(), replace(RUN, checkpoint_steps=9), lambda rng: []).identity
