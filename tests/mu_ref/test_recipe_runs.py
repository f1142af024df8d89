"""Runs of distillation and LoRA: their folders, what they refuse, and what `mu-ref` says."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_lines import Run
from faults.samples import QUERIES as SAMPLES
from faults.samples import small_model

from mu_ref.errors import InputError, WeightsError
from mu_ref.presets import tiny
from mu_ref.settings.catalog import load_catalog
from mu_ref.settings.queries.labelled import LabelledQuery
from mu_ref.settings.recipe.tasks import task_items
from mu_ref.training.datasets import Example
from mu_ref.training.distill import Distillation, Teacher
from mu_ref.training.lora import Adapter, LoraConfig, initial_lora, load_adapter, save_adapter
from mu_ref.training.run_folder import RunFolder
from mu_ref.training.trainer import TrainConfig, Trainer
from mu_ref.weights import initial_weights, load_weights, read_safetensors, save_weights

QUERIES = [(query, call) for query, call in SAMPLES if "page." not in call]  # not in the catalog
MODEL = tiny()
LORA = LoraConfig(rank=2, alpha=8.0, sites=("*.q", "*.mlp.up"))
RUN = TrainConfig(epochs=3, batch_size=2, checkpoint_steps=5, seed=4)  # 12 steps


def examples(rng: np.random.Generator) -> list[Example]:
    drawn = rng.integers(3, 61, (8, 2, 3)).tolist()
    return [Example(source, target) for source, target in drawn]


def trainer(kind: str, config: TrainConfig = RUN) -> Trainer:
    made = Trainer(MODEL, config, examples)
    if kind == "lora":
        made.adapt(LORA)
    if kind == "distilled":
        wide = tiny(d_model=24)
        wise = initial_weights(wide, np.random.default_rng(5), 0.3)
        made.learn_from(Teacher(wide, wise, Distillation(temperature=2.0, mix=0.7)))
    return made


def finish(run: RunFolder, made: Trainer) -> dict[str, bytes]:
    """Take the steps that are left; return the bytes of every file."""
    for _ in run.steps(made):
        pass
    whole = b"".join(weight.tobytes() for weight in made.weights.values())
    run.end(made, lambda place: place.write_bytes(whole))
    return {path.name: path.read_bytes() for path in run.folder.iterdir()}


@pytest.mark.parametrize("kind", ["lora", "distilled"])
def test_a_run_that_was_stopped_and_resumed_leaves_the_same_bytes(tmp_path: Path, kind) -> None:
    whole = RunFolder(tmp_path / "whole", "result")
    whole.begin(trainer(kind), resume=False)
    expected = finish(whole, trainer(kind))
    assert sorted(expected) == ["config.json", "loss.png", "metrics.csv", "result"]
    for stop in (7,) if kind == "distilled" else (10,):  # after a checkpoint, and at one
        run, first = RunFolder(tmp_path / f"{stop}", "result"), trainer(kind)
        run.check([], resume=False)
        run.begin(first, resume=False)
        for progress in run.steps(first):
            if progress.step == stop:
                break
        again = RunFolder(tmp_path / f"{stop}", "result")
        again.check([], resume=True)
        after = trainer(kind)
        assert again.begin(after, resume=True) == again.checkpoint
        assert after.step == stop // 5 * 5
        assert finish(again, after) == expected


def test_the_losses_of_a_run_are_those_of_its_steps(tmp_path: Path) -> None:
    run, made = RunFolder(tmp_path / "run", "result"), trainer("lora")
    run.begin(made, resume=False)
    seen = [(p.step, p.epoch, p.rate, p.loss) for p in run.steps(made)]
    run.end(made, lambda place: place.touch())
    with (tmp_path / "run/metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [tuple(float(x) for x in line.values()) for line in lines] == seen
    assert list(lines[0]) == ["step", "epoch", "rate", "loss"]
    assert len(seen) == 12
    written = json.loads((tmp_path / "run/config.json").read_text())
    assert (written["lora"]["rank"], written["train"]["epochs"]) == (2, 3)


def test_another_teacher_s_temperature_or_another_lora_is_another_run(tmp_path: Path) -> None:
    run, made = RunFolder(tmp_path / "run", "result"), trainer("lora")
    run.begin(made, resume=False)
    run.save(made)
    other = Trainer(MODEL, RUN, examples)
    other.adapt(replace(LORA, alpha=9.0))
    with pytest.raises(InputError, match=r"its lora differs: alpha 8.0 before, 9.0 now"):
        run.begin(other, resume=True)
    run, made = RunFolder(tmp_path / "distilled", "result"), trainer("distilled")
    run.begin(made, resume=False)
    run.save(made)
    made.learn_from(replace(made.teacher, how=Distillation(temperature=1.0, mix=0.7)))
    with pytest.raises(InputError, match=r"temperature 2.0 before, 1.0 now"):
        run.begin(made, resume=True)


def test_losses_that_do_not_reach_the_checkpoint_are_refused(tmp_path: Path) -> None:
    run, made = RunFolder(tmp_path / "run", "result"), trainer("lora")
    run.begin(made, resume=False)
    for progress in run.steps(made):
        if progress.step == 6:
            break
    table = tmp_path / "run/metrics.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text(
        "".join([*lines, "6,1,1,1\n", "7,1,1,1\n"])
    )  # what came after it is done again
    run.begin(trainer("lora"), resume=True)
    assert len(run.rows) == 5
    table.write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match="a line for each of the 5 steps"):
        run.begin(trainer("lora"), resume=True)


@pytest.mark.parametrize("saved", [False, True])
def test_a_disk_that_is_full_keeps_a_checkpoint_or_nothing(tmp_path: Path, saved: bool) -> None:
    run, made = RunFolder(tmp_path / "run", "result"), trainer("lora")

    def fail(place: Path) -> None:
        place.write_bytes(b"half")
        place.unlink()
        raise OSError(28, "No space left on device")

    if saved:
        run.save(made)
    with pytest.raises(OSError, match="No space left"):
        run.end(made, fail)
    left = sorted(path.name for path in tmp_path.rglob("*"))
    whole = ["checkpoint.safetensors", "config.json", "metrics.csv", "run"]
    assert left == (whole if saved else [])


def test_a_folder_of_somebody_else_is_refused_and_so_is_an_input_in_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", "result")
    run.check([tmp_path / "run/result"], resume=False)  # a new folder holds no input
    (tmp_path / "run").mkdir()
    (tmp_path / "run/result").write_text("a base")
    with pytest.raises(InputError, match="must not be a file that is read"):
        run.check([tmp_path / "run/result"], resume=False)
    (tmp_path / "run/thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"files of a run only, got .* with 'thesis.txt'"):
        run.check([], resume=False)
    with pytest.raises(InputError, match="--resume must find"):
        RunFolder(tmp_path / "new", "result").check([], resume=True)


# -- the file of a LoRA ---------------------------------------------------------------------------


def test_a_lora_is_read_as_it_was_written(tmp_path: Path) -> None:
    weights = initial_lora(MODEL, LORA, np.random.default_rng(0))
    made = Adapter(LORA, weights, "ab12", {"task": "uri"})
    save_adapter(tmp_path / "a.safetensors", MODEL, made)
    read = load_adapter(tmp_path / "a.safetensors", MODEL, "ab12")
    assert (read.lora, read.base, read.notes) == (LORA, "ab12", {"task": "uri"})
    assert all(np.array_equal(read.weights[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("model", "base", "told"),
    [
        (MODEL, "cd34", "it was trained on others"),
        (tiny(d_model=24), "ab12", "must have shape"),
        (tiny(n_layers=1, windowed_layers=(False,)), "ab12", "unknown"),
    ],
)
def test_a_lora_of_other_weights_is_refused(tmp_path: Path, model, base, told) -> None:
    weights = initial_lora(MODEL, LORA, np.random.default_rng(0))
    save_adapter(tmp_path / "a.safetensors", MODEL, Adapter(LORA, weights, "ab12", {}))
    with pytest.raises(WeightsError, match=told):
        load_adapter(tmp_path / "a.safetensors", model, base)


def test_a_file_that_is_no_lora_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, MODEL, initial_weights(MODEL, np.random.default_rng(0)))
    with pytest.raises(WeightsError, match="must be a LoRA"):
        load_adapter(path, MODEL, "")


# -- tasks ----------------------------------------------------------------------------------------


def test_the_address_of_a_page_follows_from_the_call() -> None:
    calls = ("set(wifi, off)", "open(network.proxy)", "none()")
    items = [LabelledQuery(query=f"query {n}", call=call) for n, call in enumerate(calls)]
    made = task_items("uri", items, load_catalog())
    assert [(item.query, item.call) for item in made] == [
        ("query 0", "ms-settings:network-wifi"), ("query 1", "ms-settings:network-proxy"),
        ("query 2", "none"),
    ]  # fmt: skip
    assert task_items("calls", items, load_catalog()) == items
    with pytest.raises(InputError, match="valid calls to start from"):
        task_items("uri", [LabelledQuery(query="x", call="set(moon, on)")], load_catalog())
    with pytest.raises(InputError, match="task must be one of uri, calls; got 'urls'"):
        task_items("urls", items, load_catalog())


# -- the command line -----------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A small base and eight queries."""
    model = small_model()
    weights = initial_weights(model, np.random.default_rng(0), 0.3)
    save_weights(tmp_path / "base.safetensors", model, weights)
    lines = [json.dumps({"query": query, "call": call}) + "\n" for query, call in QUERIES]
    (tmp_path / "queries.jsonl").write_text("".join(lines))
    return tmp_path


def tune(files: Path, name: str, *more: object) -> list[object]:
    queries = files / "queries.jsonl"
    return ["lora", "train", files / name, "--base", files / "base.safetensors", "--queries",
            queries, "--held-out", queries, "--batch-size", 4, *more]  # fmt: skip


def test_a_task_is_learnt_on_a_frozen_base_and_merged_into_it(mu_ref: Run, files: Path) -> None:
    learn = ("--epochs", 20, "--rate", 0.05, "--site", "*.mlp.*", "--rank", 3, "--alpha", 6)
    code, out, err = mu_ref(*tune(files, "run", *learn))
    assert code == 0, err
    # one layer in each stack, two matrices in each, from 16 to 32 or back
    n_parameters = sum(w.size for w in load_weights(files / "base.safetensors")[1].values())
    assert f"trained {4 * 3 * (16 + 32) / n_parameters:.2%} of the parameters" in out
    assert f"exact on {len(QUERIES)} held-out queries: 0.0000 before" in out
    with (files / "run/metrics.csv").open() as file:
        losses = [float(line["loss"]) for line in csv.DictReader(file)]
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    adapter, merged = files / "run/lora.safetensors", files / "merged.safetensors"
    code, out, err = mu_ref("lora", "merge", adapter, "--base", files / "base.safetensors",
                            "--out", merged)  # fmt: skip
    assert code == 0, err
    assert "4 sites changed" in out
    (_, before), (_, after) = (load_weights(files / f"{n}.safetensors") for n in ("base", "merged"))
    own, _ = read_safetensors(adapter)
    for name, weight in before.items():
        site = name.removesuffix(".weight")
        change = 0.0
        if site.endswith(("mlp.up", "mlp.down")) and name != site:
            a, b = (own[f"{site}.lora_{which}.weight"].astype(np.float64) for which in "ab")
            change = 2 * b @ a
            assert np.abs(change).max() > 1e-3
        np.testing.assert_array_equal(
            after[name], (weight + change).astype(np.float32).astype(np.float16)
        )
    _, notes = read_safetensors(merged)
    digest = hashlib.sha256((files / "base.safetensors").read_bytes()).hexdigest()
    assert (notes["task"], notes["lora_base"]) == ("uri", digest)


def test_a_base_of_other_tokens_is_refused(mu_ref: Run, files: Path) -> None:
    save_weights(
        files / "base.safetensors", MODEL, initial_weights(MODEL, np.random.default_rng(0))
    )
    code, _, err = mu_ref(*tune(files, "run"))
    assert code == 2
    assert "the tokenizer's 1536 tokens, got tiny with 61" in err


def test_all_weights_may_move_instead(mu_ref: Run, files: Path) -> None:
    code, out, err = mu_ref(*tune(files, "run", "--full", "--epochs", 1))
    assert code == 0, err
    assert "trained 100.00% of the parameters" in out
    model, weights = load_weights(files / "run/weights.safetensors")
    assert model == small_model()
    _, before = load_weights(files / "base.safetensors")
    assert all(not np.array_equal(weights[name], before[name]) for name in before)


def test_a_student_learns_from_a_teacher(mu_ref: Run, files: Path) -> None:
    fields = {"n_layers": 1, "d_model": 16, "d_ff": 32, "n_heads": 2, "n_kv_heads": 1, "d_head": 4}
    changes = [f"--set={stack}.{name}={value}"
               for stack in ("encoder", "decoder") for name, value in fields.items()]  # fmt: skip
    ask = ["distill", files / "run", "--teacher", files / "base.safetensors", "--queries",
           files / "queries.jsonl", "--epochs", 2, "--batch-size", 4, *changes]  # fmt: skip
    code, out, err = mu_ref(*ask, "--temperature", 2, "--mix", 0.3)
    assert code == 0, err
    assert "student.safetensors" in out
    model, _ = load_weights(files / "run/student.safetensors")
    _, notes = read_safetensors(files / "run/student.safetensors")
    assert model.encoder is not None
    assert model.encoder.n_heads == 2
    assert json.loads(notes["distillation"]) == {"temperature": 2.0, "mix": 0.3}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--full", "--rank", 3], "--rank must not be given with --full"),
        (["--task", "urls"], "task must be one of uri, calls"),
        (["--site", "*.query"], "must fit a linear layer"),
        (["--resume"], "--resume must find"),
        (["--rank", 0], "--rank must be a whole number from 1"),
    ],
)
def test_a_mistake_is_told_before_any_work(mu_ref: Run, files: Path, more, told) -> None:
    code, out, err = mu_ref(*tune(files, "run", *more))
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
    assert not (files / "run").exists()
