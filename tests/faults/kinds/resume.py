"""Runs that were killed and go on: the same bytes, or a refusal that says what is another run."""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from faults.boxes import ended, started
from faults.case import DONE, REFUSED, SANE, Case, Outcome

__all__ = ["RUNS", "Run", "begun", "cases", "equal_to_uninterrupted", "kills"]

NANO = "--weights nano.safetensors"
SWEEP = """\
model_json = "models.json#small"
npu = "npu.toml"
fidelity = "roofline"

[workload]
n_input = 4
n_output = 2

[vary]
"npu.dma.bytes_per_s" = { log = [20, 200], n = 600, unit = "GB/s" }
"precision.weight_bits" = [4, 8]
"""


_QUERIES = (
    ("queries.jsonl", b"brightness, 20", b"brightness, 30"),
    ("queries.jsonl", b"less bright", b"more bright"),
    (
        "queries.jsonl",
        b'{"query": "mute"',
        b'{"query": "be quiet", "call": "none()"}\n{"query": "mute"',
    ),
)
CHANGED = {  # what belongs to a run: (file, what stands in it, what stands there then)
    "train": _QUERIES, "train-drafter": (*_QUERIES, ("nano.safetensors", b"random", b"RANDOM")),
    "sweep": (
        ("npu.toml", b"overhead_cycles = { value = 1_000", b"overhead_cycles = { value = 2_000"),
        ("models.json", b'"d_ff": 32', b'"d_ff": 64'), ("sweep.toml", b"n = 600", b"n = 599"),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """A command that can be killed and goes on."""

    command: str
    arguments: str
    resume: str  # what is added to go on; "" if the same command goes on
    state: str  # pattern of what it leaves while it runs
    out: str

    def case(self, kind: str, *more: str, resumed: bool = True, **fields: object) -> Case:
        words = self.arguments.split()
        if resumed:
            words += self.resume.split()
        return Case(kind=kind, command=self.command, arguments=(*words, *more), seconds=30.0,
                    removes=("new.csv.parts", "new.csv.parts/*", "new.*checkpoint*", ".new*.part"),
                    **fields)  # type: ignore[arg-type]  # fmt: skip


RUNS = {
    "train": Run(
        "mu-ref train", "mu-nano --queries queries.jsonl --epochs 1 --batch-size 2 "
        "--checkpoint-steps 1 --out new.safetensors", "--resume", "*new*checkpoint*",
        "new.safetensors",
    ),
    "train-drafter": Run(
        "mu-ref train-drafter", f"mu-nano {NANO} --queries queries.jsonl --epochs 30 --draft-len 2 "
        "--batch-size 16 --checkpoint-steps 1 --out new.safetensors", "--resume",
        "*new*checkpoint*", "new.safetensors",
    ),
    "quantize": Run(
        "mu-ref quantize", f"mu-nano {NANO} --calibration queries.jsonl --examples 8 "
        "--out new.safetensors", "", "nothing", "new.safetensors",
    ),
    "sweep": Run(
        "npu-sim sweep", "sweep.toml --processes 1 --quiet --checkpoint-points 30 --out new.csv",
        "", "new.csv.parts/0*", "new.csv",
    ),
}  # fmt: skip


def _spec(folder: Path) -> None:
    (folder / "sweep.toml").write_text(SWEEP)


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield the cases."""
    for name in ("train", "train-drafter", "sweep"):
        run = RUNS[name]
        yield _resumed(run)
        for file, old, new in CHANGED[name]:
            note = f"{file} changed"
            yield _resumed(run, partial(_changed, file, old, new), note, REFUSED)
        for note, mangle in _mangled(run.state):
            yield _resumed(run, mangle, note, SANE)
    for name, more in (
        ("train", ("--epochs=2",)), ("train", ("--rate=0.001",)), ("train", ("--seed=7",)),
        ("train", ("--batch-size=4",)), ("train", ("--queries=two.jsonl",)),
        ("train-drafter", ("--epochs=31",)), ("train-drafter", ("--rate=0.001",)),
        ("train-drafter", ("--seed=7",)), ("train-drafter", ("--batch-size=8",)),
        ("train-drafter", ("--draft-len=3",)), ("train-drafter", ("--blocks=2",)),
        ("train-drafter", ("--no-rnn",)), ("train-drafter", ("--limit=4",)),
        ("train-drafter", ("--rewordings=1",)), ("train-drafter", ("--later-share=0.5",)),
        ("train-drafter", ("--start=drafter.safetensors",)),
    ):  # fmt: skip
        yield _resumed(RUNS[name], more=more, expect=REFUSED)
    for name in ("train", "train-drafter"):
        yield _resumed(RUNS[name], resumed=False, expect=REFUSED)
    yield _resumed(RUNS["sweep"], more=("--processes=2",))


def _resumed(
    run: Run,
    change: Callable[[Path], None] | None = None,
    note: str = "",
    expect: str = DONE,
    more: tuple[str, ...] = (),
    resumed: bool = True,
) -> Case:
    def prepare(folder: Path) -> None:
        begun(run, folder)
        if change is not None:
            change(folder)

    return run.case(
        "resume", *more, resumed=resumed, prepare=prepare, expect=expect,
        note=f"the run was killed half-way{'; then ' if note else ''}{note}",
        writes=("new*", "new*/*"), after=partial(equal_to_uninterrupted, run),
    )  # fmt: skip


def _changed(name: str, old: bytes, new: bytes, folder: Path) -> None:
    data = (folder / name).read_bytes()
    assert old in data
    (folder / name).write_bytes(data.replace(old, new))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


# What a crash of the machine, or a curious user, may have done to the newest file of a run.
MANGLED: Mapping[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "a line shorter": lambda path: path.write_bytes(path.read_bytes().rsplit(b"\n", 2)[0] + b"\n"),
    "random": lambda path: path.write_bytes(os.urandom(1000)),
    "a byte otherwise": _flip,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def _mangled(state: str) -> Iterator[tuple[str, Callable[[Path], None]]]:
    for note, change in MANGLED.items():
        yield f"the newest file is {note}", partial(_each, change, state, newest=True)
    yield "all files are random", partial(_each, MANGLED["random"], state)
    yield "no file is left", partial(_each, Path.unlink, state)
    if "parts" in state:
        for note in ("empty", "a line shorter", "random", "a folder"):
            yield f"sweep.json is {note}", partial(_each, MANGLED[note], "new.csv.parts/sweep.json")


def _each(
    change: Callable[[Path], object], state: str, folder: Path, *, newest: bool = False
) -> None:
    files = sorted(_left(folder, state), key=lambda path: path.stat().st_mtime_ns)
    for path in files[-1:] if newest else files:
        change(path)


def _left(folder: Path, state: str) -> list[Path]:
    return [path for path in folder.glob(state) if path.is_file() and path.suffix != ".part"]


def begun(run: Run, folder: Path, *, resumed: bool = False, seconds: float | None = None) -> bool:
    """Begin a run and kill it: once it has left something, or after so many seconds.

    Returns:
        Whether it was killed before its end.
    """
    if run.command.endswith("sweep"):
        _spec(folder)
    logs = folder.parent / "before"
    process = started(run.case("before", resumed=resumed), folder, logs)
    ends = time.monotonic() + (120 if seconds is None else seconds)
    while time.monotonic() < ends:
        if seconds is None and len(_left(folder, run.state)) > 0:
            break
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(0.002)
    return ended(process, kill=True) < 0


@cache
def uninterrupted(run: Run, samples: Path) -> tuple[bytes, float]:
    """What the run writes if nobody kills it, and how long that takes."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "work"
        shutil.copytree(samples, folder, symlinks=True)
        if run.command.endswith("sweep"):
            _spec(folder)
        begin = time.monotonic()
        code = ended(started(run.case("whole", resumed=False), folder, Path(place) / "logs"))
        seconds = time.monotonic() - begin
        if code != 0:
            return b"", seconds
        return (folder / run.out).read_bytes(), seconds


def samples_of(folder: Path) -> Path:
    """The samples, from the folder of a case: `Boxes` puts a link beside it."""
    return (folder.parent / "samples").resolve()


def equal_to_uninterrupted(run: Run, folder: Path, _: Outcome) -> str:
    """Complain if a run that was resumed wrote something else, or left something."""
    left = [path.name for path in folder.glob("*new*") if path.name not in (run.out, "new.json")]
    if left:
        return f"left {', '.join(sorted(left))}"
    wanted, _seconds = uninterrupted(run, samples_of(folder))
    return "" if (folder / run.out).read_bytes() == wanted else "other bytes than uninterrupted"


def kills(rng: random.Random, n: int = 20) -> Iterator[Case]:
    """Yield runs that were killed at random moments, twice where they resume."""
    for run in RUNS.values():
        for i in range(n):
            yield run.case(
                "kills", resumed=True, expect=DONE, writes=("new*", "new*/*"),
                prepare=partial(_killed, run, rng.random(), rng.random()),
                note=f"the run was killed at a random moment ({i})",
                after=partial(equal_to_uninterrupted, run),
            )  # fmt: skip


def _killed(run: Run, first: float, second: float, folder: Path) -> None:
    """Kill a run; again until there is something to resume; then resume it and kill it again."""
    if run.command.endswith("sweep"):
        _spec(folder)
    _, whole = uninterrupted(run, samples_of(folder))
    for i in range(20):
        killed = begun(run, folder, seconds=whole * first * (0.9 + 0.05 * i))
        if not killed:
            _clear(folder)
            first *= 0.7
        elif not run.resume or _left(folder, run.state):
            break
    if run.resume and second < 0.5:
        begun(run, folder, resumed=True, seconds=whole * second)
    for _ in range(20):
        if not run.resume or _left(folder, run.state):
            return
        _clear(folder)  # killed before its first checkpoint, or done: begin again
        begun(run, folder)


def _clear(folder: Path) -> None:
    for path in folder.glob("*new*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
