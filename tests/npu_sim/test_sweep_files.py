"""Files of a sweep: nothing is replaced that it has not written, and a resumed run is the same."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu_ref.errors import MuRefError
from npu_sim.errors import SweepError
from npu_sim.hardware.presets import npu, npu_to_toml
from npu_sim.whatif.resume.outputs import check_sweep_outputs
from npu_sim.whatif.resume.parts import input_digests, opened_parts, sweep_identity
from npu_sim.whatif.sweep import evaluate_chunk, local_executor, run_sweep
from npu_sim.whatif.varied.sweep_toml import read_spec, spec_from

ROOT = Path(__file__).parents[2]
VARY = "[vary]\nn_input = { range = [4, 15], n = 12 }\n"
SPEC = 'model = "tiny"\nnpu = "teaching-npu"\n' + VARY
NEUTRAL = {"family": "decoder", "n_enc_layers": 0, "n_dec_layers": 1, "d_model": 8, "d_ff": 16,
           "n_heads": 2, "n_kv_heads": 2, "d_head": 4, "vocab_size": 11, "gated": True,
           "tied": True, "lm_head": "last"}  # fmt: skip
CONFIG = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 8, "vocab_size": 11,
          "intermediate_size": 16, "num_attention_heads": 2}  # fmt: skip


class StoppedError(Exception):
    pass


def stop_after(points):
    def stop(done, _total):
        if done >= points:
            raise StoppedError

    return stop


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a sweep of files that the user has; it is the current one."""
    monkeypatch.chdir(tmp_path)
    Path("models.json").write_text(json.dumps({"m": NEUTRAL}))
    Path("config.json").write_text(json.dumps(CONFIG))
    Path("chip.toml").write_text(npu_to_toml(npu("teaching-npu")))
    Path("s.toml").write_text('model_json = "models.json#m"\nnpu = "chip.toml"\n' + VARY)
    Path("h.toml").write_text('hf_config = "config.json"\nnpu = "chip.toml"\n' + VARY)
    return tmp_path


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -- outputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "out", "plot", "message"),
    [
        ("s.toml", "models.csv", None, r"\(models.json\) must not be a file that is read"),
        ("h.toml", "config.csv", None, r"\(config.json\) must not be a file that is read"),
        ("s.toml", "s.toml", None, "--out must not be a file that is read, got s.toml"),
        ("s.toml", "chip.toml", None, "--out must not be a file that is read, got chip.toml"),
        ("s.toml", "models.json", None, "must not be a file that is read"),
        ("s.toml", "link.csv", None, "--out must not be a file that is read, got link.csv"),
        ("s.toml", "x.json", None, "must be two files, got x.json for both"),
        ("s.toml", "x.csv", "x.csv", "--plot and --out must be two files"),
        ("s.toml", "x.csv", "x.json", "--plot and the JSON file beside --out"),
        ("s.toml", "x.csv", "chip.toml", "--plot must not be a file that is read"),
        ("s.toml", "notes.csv", None, "must not replace a file that no sweep of this name"),
        ("s.toml", "list.csv", None, "must not replace a file that no sweep of this name"),
        ("s.toml", "broken.csv", None, "must not replace a file that no sweep of this name"),
        ("s.toml", "absent/x.csv", None, "--out must lie in a folder that exists"),
        ("s.toml", ".", None, "--out must be a file, got the folder"),
        ("s.toml", "sub.csv", None, r"\(sub.json\) must be a file, got the folder"),
        ("s.toml", "taken.csv", None, "must hold nothing but the parts of a sweep, got 'thesis'"),
        ("s.toml", "linked.csv", None, "must be a folder for the parts of a sweep"),
        ("s.toml", "filed.csv", None, "must be a folder for the parts of a sweep"),
        ("in.csv.parts/s.toml", "in.csv", None, "is removed when a sweep ends, so it must not"),
    ],
)
def test_an_output_that_would_destroy_something_is_refused(folder, spec, out, plot, message):
    Path("link.csv").symlink_to("chip.toml")
    Path("notes.json").write_text('{"simulated": true}')
    Path("list.json").write_text("[1]")
    Path("broken.json").write_bytes(b"\xff{")
    Path("sub.json").mkdir()
    Path("taken.csv.parts").mkdir()
    Path("taken.csv.parts/thesis").write_text("years of work")
    Path("elsewhere").mkdir()
    Path("linked.csv.parts").symlink_to("elsewhere")
    Path("filed.csv.parts").write_text("mine")
    Path("in.csv.parts").mkdir()
    shutil.copy("s.toml", "in.csv.parts/s.toml")
    before = contents(folder)

    def run():
        read = read_spec(Path(spec))
        check_sweep_outputs(read, Path(out), plot and Path(plot))
        run_sweep(read, Path(out))

    with pytest.raises(MuRefError, match=message):
        run()
    assert contents(folder) == before


def test_a_sidecar_of_the_same_sweep_is_replaced_and_that_of_another_ending_is_not(folder):
    run_sweep(spec_from(SPEC), Path("x.csv"))
    run_sweep(spec_from(SPEC.replace("12", "3")), Path("x.csv"))
    assert json.loads(Path("x.json").read_text())["n_points"] == 3
    with pytest.raises(SweepError, match="no sweep of this name"):
        run_sweep(spec_from(SPEC), Path("x.txt"))
    assert not Path("x.txt").exists()
    run_sweep(spec_from(SPEC), Path("y.txt"))
    run_sweep(spec_from(SPEC), Path("y.txt"))


def test_a_table_may_go_to_a_device_and_leaves_nothing_beside_it(folder):
    fifo = folder / "pipe"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", str(fifo)], stdout=subprocess.PIPE) as reader:
        assert run_sweep(spec_from(SPEC), fifo) == 12
        assert reader.stdout.read().count(b"\n") == 13
    assert fifo.is_fifo()
    assert not [name for name in os.listdir() if name.startswith("pipe.")]


@pytest.mark.parametrize("place", ["x.json", "x.csv.parts/sweep.json", "x.csv.parts/000000002.csv"])
def test_a_file_of_a_sweep_that_became_an_endless_device_is_not_read(folder, place):
    interrupted(spec_from(SPEC), Path("x.csv"))
    Path(place).unlink(missing_ok=True)
    Path(place).symlink_to("/dev/zero")
    if place == "x.json":
        with pytest.raises(SweepError, match="no sweep of this name"):
            run_sweep(spec_from(SPEC), Path("x.csv"))
    else:
        assert run_sweep(spec_from(SPEC), Path("x.csv"), chunk=2) == 12


# -- resume ----------------------------------------------------------------------------------------


def interrupted(spec, out, points=6, chunk=2):
    with pytest.raises(StoppedError):
        run_sweep(spec, out, progress=stop_after(points), chunk=chunk)


@pytest.mark.parametrize(
    ("spec", "file", "change"),
    [
        ("s.toml", "chip.toml", lambda text: text.replace("1_000_000_000", "2_000_000_000", 1)),
        ("s.toml", "chip.toml", lambda text: text + "\n# another remark\n"),
        ("s.toml", "models.json", lambda text: text.replace('"d_ff": 16', '"d_ff": 32')),
        (
            "h.toml",
            "config.json",
            lambda text: text.replace('"hidden_size": 8', '"hidden_size":16'),
        ),
        ("s.toml", "s.toml", lambda text: text + "\n# another remark\n"),
    ],
)
def test_a_changed_input_is_refused_by_its_name(folder, spec, file, change):
    interrupted(read_spec(Path(spec)), Path("x.csv"))
    changed = change(Path(file).read_text())
    assert changed != Path(file).read_text()
    Path(file).write_text(changed)
    named = "specification" if file == spec else file
    with pytest.raises(SweepError, match=f"got another .*{named}; put it back, delete the folder"):
        run_sweep(read_spec(Path(spec)), Path("x.csv"), chunk=2)


def test_a_touched_input_is_the_same(folder):
    interrupted(read_spec(Path("s.toml")), Path("x.csv"))
    for name in ("s.toml", "chip.toml", "models.json"):
        os.utime(name, (1, 1))
    seen = []
    run_sweep(read_spec(Path("s.toml")), Path("x.csv"), None, lambda *p: seen.append(p), 2)
    assert seen[0] == (6, 12)


def test_a_preset_that_another_version_has_changed_is_named(folder, monkeypatch):
    interrupted(spec_from(SPEC), Path("x.csv"))
    spec = spec_from(SPEC)
    other = spec.base.with_fields({"npu.dma.setup_cycles": 7})
    object.__setattr__(spec, "base", other)
    with pytest.raises(SweepError, match="got another NPU teaching-npu;"):
        run_sweep(spec, Path("x.csv"), chunk=2)


def test_an_input_that_changes_while_a_sweep_runs_is_noticed(folder):
    text = Path("s.toml").read_text()
    digests = input_digests(spec_from(text))
    assert evaluate_chunk(text, 0, 1, digests) == evaluate_chunk(text, 0, 1)
    Path("chip.toml").write_text(Path("chip.toml").read_text() + "\n")
    with pytest.raises(SweepError, match=r"chip\.toml must stay as it is while a sweep runs"):
        evaluate_chunk(text, 0, 1, digests)
    Path("models.json").unlink()
    with pytest.raises(MuRefError, match=r"models\.json"):
        evaluate_chunk(text, 0, 1, digests)


def emptied(path):
    path.write_bytes(b"")


def truncated(path):
    path.write_bytes(path.read_bytes()[:-5])


def one_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def random_bytes(path):
    path.write_bytes(os.urandom(200))


def a_folder(path):
    path.unlink()
    (path / "deep").mkdir(parents=True)
    (path / "deep/file").write_text("x")


def gone(path):
    path.unlink()


def unreadable(path):
    path.unlink()
    path.symlink_to("nowhere")


DAMAGES = (emptied, truncated, one_bit, random_bytes, a_folder, gone, unreadable)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["000000002.csv", "sweep.json"])
def test_a_damaged_part_is_computed_again_and_the_bytes_are_the_same(folder, damage, name):
    spec = read_spec(Path("s.toml"))
    run_sweep(spec, Path("whole.csv"), chunk=2)
    interrupted(spec, Path("x.csv"))
    damage(Path("x.csv.parts") / name)
    seen = []
    run_sweep(spec, Path("x.csv"), None, lambda *p: seen.append(p), 2)
    assert seen[0] == ((6, 12) if name == "sweep.json" else (4, 12))
    assert Path("x.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert Path("x.json").read_bytes() == Path("whole.json").read_bytes()
    assert [n for n in os.listdir() if n.startswith(("x.", ".x."))] in (
        ["x.csv", "x.json"], ["x.json", "x.csv"],
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_bytes_in_a_part_leave_the_result_as_it_is(tmp_path_factory, data):
    out = tmp_path_factory.mktemp("sweep") / "x.csv"
    spec = spec_from('model = "tiny"\nnpu = "teaching-npu"\n[vary]\nbatch = [1, 2]\n')
    identity = sweep_identity(spec, 1)
    with opened_parts(out, identity) as parts:
        parts.write(0, "0,1\n")
        whole = parts.path(0).read_bytes()
        mangled = data.draw(
            st.binary(max_size=90) | st.integers(0, len(whole)).map(lambda n: whole[:n])
        )
        parts.path(0).write_bytes(mangled)
        assert parts.read(0) == (b"0,1\n" if mangled == whole else None)


def test_parts_of_another_sweep_under_a_lost_mark_are_not_taken(folder):
    interrupted(spec_from(SPEC), Path("x.csv"))
    Path("x.csv.parts/sweep.json").unlink()
    other = spec_from(SPEC.replace("[4, 15]", "[5, 16]"))
    run_sweep(other, Path("x.csv"), chunk=2)
    run_sweep(other, Path("whole.csv"))
    assert Path("x.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_a_mark_of_somebody_else_without_parts_is_left_alone(folder):
    Path("x.csv.parts").mkdir()
    Path("x.csv.parts/sweep.json").write_text("mine")
    with pytest.raises(SweepError, match=r"sweep\.json must be what a sweep has written"):
        run_sweep(spec_from(SPEC), Path("x.csv"), chunk=2)
    assert Path("x.csv.parts/sweep.json").read_text() == "mine"
    assert not Path("x.csv").exists()


SEALED = "0" * 64 + "\n0,1\n"


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("sweep.json", "mine", "sweep.json"),
        ("sweep.json", '{"identity": {}, "checksum": "mine"}', "sweep.json"),
        ("sweep.json/mine", "mine", "sweep.json"),
        ("000000000.csv", "a,b\n1,2\n", "000000000.csv"),
        ("000000000.csv", SEALED[1:], "000000000.csv"),
        ("000000000.csv", "12\n", "000000000.csv"),
        ("000000000.csv/mine", "mine", "000000000.csv"),
        ("lock", "mine", "lock"),
        ("lock/mine", "mine", "lock"),
    ],
)
def test_a_folder_of_somebody_else_is_left_as_it_is(folder, name, content, named):
    file = Path("x.csv.parts") / name
    file.parent.mkdir(parents=True)
    file.write_text(content)
    before = contents(folder), sorted(Path().rglob("*"))
    with pytest.raises(SweepError, match=rf"csv\.parts/{named} must be what a sweep has"):
        run_sweep(spec_from(SPEC), Path("x.csv"), chunk=2)
    assert (contents(folder), sorted(Path().rglob("*"))) == before


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("elsewhere", path)])
def test_what_is_no_file_in_the_place_of_the_lock_is_not_opened(folder, make):
    Path("x.csv.parts").mkdir()
    make("x.csv.parts/lock")
    with pytest.raises(SweepError, match="lock must be what a sweep has written"):
        run_sweep(spec_from(SPEC), Path("x.csv"), chunk=2)
    assert os.listdir("x.csv.parts") == ["lock"]


@pytest.mark.parametrize("left", [{}, {"lock": ""}, {"000000000.csv": SEALED}])
def test_what_a_killed_sweep_leaves_is_taken_over(folder, left):
    Path("x.csv.parts").mkdir()
    for name, content in left.items():
        Path("x.csv.parts", name).write_text(content)
    run_sweep(spec_from(SPEC), Path("x.csv"), chunk=2)
    assert Path("x.csv").exists()
    assert not Path("x.csv.parts").exists()


def test_a_part_that_is_damaged_while_the_table_is_put_together(folder, monkeypatch):
    spec = spec_from(SPEC)
    run_sweep(spec, Path("whole.csv"))

    def damage(done, total):
        if done == total:
            emptied(Path("x.csv.parts/000000004.csv"))

    run_sweep(spec, Path("x.csv"), None, damage, chunk=2)
    assert Path("x.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_two_sweeps_with_one_table_do_not_mix(folder):
    spec, refused = spec_from(SPEC), []

    def start_another(done, _total):
        if done == 4:
            with pytest.raises(SweepError, match="by one sweep at a time") as found:
                run_sweep(spec, Path("x.csv"), chunk=2)
            refused.append(found)

    run_sweep(spec, Path("x.csv"), None, start_another, chunk=2)
    assert refused
    run_sweep(spec, Path("x.csv"))  # the lock is given back


def test_a_full_disk_is_one_line(folder, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            run_sweep(spec_from(SPEC), Path("x.csv"), chunk=2)
    run_sweep(spec_from(SPEC), Path("x.csv"), chunk=2)


# -- processes -------------------------------------------------------------------------------------

# A shell lets what it starts in the background ignore Ctrl-C, and so would its children.
LISTENING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
COMMAND = [sys.executable, "-c", f"{LISTENING}; from npu_sim.cli import main; main()", "sweep",
           "long.toml", "--out", "x.csv", "--checkpoint-points", "2", "--quiet"]  # fmt: skip


def start(folder, *more):
    (folder / "long.toml").write_text(SPEC.replace("[4, 15], n = 12", "[4, 103], n = 100"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*COMMAND, *more], cwd=folder, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for_parts(folder, n):
    parts = folder / "x.csv.parts"
    for _ in range(6000):
        if parts.is_dir() and len(list(parts.glob("[0-9]*.csv"))) >= n:
            return
        time.sleep(0.01)
    raise AssertionError("no parts within a minute")


def members(group):
    """Processes of a group that run; those that have ended may wait to be collected."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = entry.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state not in "ZX":
            found.append(entry)
    return found


def wait_for_end(group):
    for _ in range(1000):
        if not members(group):
            return
        time.sleep(0.01)
    raise AssertionError(f"processes outlive the sweep: {members(group)}")


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGKILL", -9), ("SIGTERM", -15)])
def test_a_sweep_that_is_stopped_goes_on_and_leaves_no_process(folder, sent, code):
    run_sweep(spec_from(SPEC.replace("[4, 15], n = 12", "[4, 103], n = 100")), Path("whole.csv"),
              chunk=2)  # fmt: skip
    process = start(folder, "--processes", "2")
    wait_for_parts(folder, 3)
    (os.killpg if sent == "SIGINT" else os.kill)(process.pid, signal.Signals[sent])
    out, err = process.communicate(timeout=60)
    wait_for_end(process.pid)
    assert (process.returncode, out) == (code, "")
    if sent == "SIGINT":
        assert "of 100 points are kept; the same command goes on from there" in err
        assert err.endswith("error: interrupted\n")
        assert "Traceback" not in err
    kept = len(list(Path("x.csv.parts").glob("[0-9]*.csv")))
    assert kept >= 3
    seen = []
    run_sweep(read_spec(Path("long.toml")), Path("x.csv"), None, lambda *p: seen.append(p), 2)
    assert seen[0][0] == 2 * kept
    assert Path("x.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert Path("x.json").read_bytes() == Path("whole.json").read_bytes()
    assert not [name for name in os.listdir() if "parts" in name or name.endswith(".part")]


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_line():
    def lose_a_worker():
        with local_executor(1) as pool:
            pool.submit(os.getpid).result()
            for child in multiprocessing.active_children():
                child.kill()
            pool.submit(os.getpid).result(timeout=60)

    with pytest.raises(SweepError, match="a process of the sweep was killed"):
        lose_a_worker()
