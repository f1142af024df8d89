"""Runs that were killed and go on: the same bytes, or a refusal that says what is another run."""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from ..boxes import ended, started
from ..case import DONE, REFUSED, SANE, Case, Outcome
from .damaged import rewritten

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
        "npu-sim sweep", "sweep.toml --processes 1 --quiet --out new.csv", "", "new.csv.parts/0*",
        "new.csv",
    ),
}  # fmt: skip


def _spec(folder: Path) -> None:
    (folder / "sweep.toml").write_text(SWEEP)


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield the cases."""
    for name in ("train", "train-drafter", "sweep"):
        run = RUNS[name]
        yield _resumed(run)
        for note, change, expect in _changes(name):
            yield _resumed(run, change, note, expect)
        for note, mangle in _mangled(run.state):
            yield _resumed(run, mangle, note, SANE)
    for name, more in (
        ("train", ("--epochs=2",)), ("train", ("--rate=0.001",)), ("train", ("--seed=7",)),
        ("train", ("--batch-size=4",)), ("train", ("--queries=two.jsonl",)),
        ("train-drafter", ("--epochs=31",)), ("train-drafter", ("--rate=0.001",)),
        ("train-drafter", ("--seed=7",)), ("train-drafter", ("--batch-size=8",)),
        ("train-drafter", ("--draft-len=3",)), ("train-drafter", ("--blocks=2",)),
        ("train-drafter", ("--no-rnn",)), ("train-drafter", ("--limit=4",)),
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


def _changes(name: str) -> Iterator[tuple[str, Callable[[Path], None], str]]:
    """What belongs to the run and has changed."""
    more_query = b'{"query": "sound off", "call": "set(sound.mute, on)"}\n'
    if name == "sweep":
        yield "npu.toml", rewritten("npu.toml", _bandwidth), REFUSED
        yield "models.json", rewritten("models.json", lambda d: d.replace(b'"d_ff": 32', b'"d_ff": 64')), REFUSED
        yield "the spec", rewritten("sweep.toml", lambda d: d.replace(b"n = 600", b"n = 599")), REFUSED
        yield "a comment in the spec", rewritten("sweep.toml", lambda d: d + b"# x\n"), SANE
        return
    yield "queries.jsonl", rewritten("queries.jsonl", lambda d: d + more_query), REFUSED
    yield "a call in queries.jsonl", rewritten(
        "queries.jsonl", lambda d: d.replace(b"brightness, 20", b"brightness, 30")), REFUSED  # fmt: skip
    yield "a query in queries.jsonl", rewritten(
        "queries.jsonl", lambda d: d.replace(b"less bright", b"more bright")), REFUSED  # fmt: skip
    if name == "train-drafter":
        yield "nano.safetensors", rewritten("nano.safetensors", lambda d: d[:-1] + b"\x01"), REFUSED


def _bandwidth(data: bytes) -> bytes:
    old = b"per_op_overhead_cycles = { value = 1_000"
    assert old in data
    return data.replace(old, b"per_op_overhead_cycles = { value = 2_000")


def _mangled(state: str) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """What a crash of the machine, or a curious user, may have done to what was left."""

    def newest(folder: Path) -> Path:
        return max(_left(folder, state), key=lambda path: path.stat().st_mtime_ns)

    def each(change: Callable[[Path], object]) -> Callable[[Path], None]:
        return lambda folder: change(newest(folder)) and None

    yield "the newest file is empty", each(lambda path: path.write_bytes(b""))
    yield "the newest file is cut", each(lambda path: path.write_bytes(path.read_bytes()[:-100]))
    yield "the newest file is cut at a line", each(
        lambda path: path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:-2]) + b"\n"))  # fmt: skip
    yield "the newest file is random", each(lambda path: path.write_bytes(os.urandom(1000)))
    yield "a byte of the newest file is changed", each(_flip)
    yield "all is random", lambda folder: [p.write_bytes(b"x" * 50) for p in _left(folder, state)] and None
    if "parts" in state:
        mark = "new.csv.parts/sweep.json"
        yield "sweep.json is empty", lambda folder: (folder / mark).write_text("") and None
        yield "sweep.json is a list", lambda folder: (folder / mark).write_text("[]") and None
        yield "sweep.json is not there", lambda folder: (folder / mark).unlink()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


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
            for path in folder.glob("*new*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            first *= 0.7
        elif not run.resume or _left(folder, run.state):
            break
    if run.resume and second < 0.5:
        begun(run, folder, resumed=True, seconds=whole * second)
        if not _left(folder, run.state):  # it was done: begin again
            for path in folder.glob("*new*"):
                path.unlink()
            begun(run, folder)
