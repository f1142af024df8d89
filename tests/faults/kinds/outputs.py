"""Outputs that would destroy something: inputs, other outputs, links, folders, devices."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.bases import BASES, base_of, with_value
from faults.case import DONE, REFUSED, SANE, Case, Outcome
from faults.commands import commands
from faults.files import Output, inputs, outputs

__all__ = ["cases"]

MAGIC = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


def cases(rng: random.Random) -> Iterator[Case]:
    """Yield the cases."""
    for output in outputs():
        if output.command == "npu-sim headline":
            continue  # its one output is that of the others, and its work takes half a minute
        yield from _on_inputs(output)
        yield from _on_each_other(output)
        if not output.folder:
            yield from _places(output)
            yield from _devices(output)
            yield from _pictures(output)
    yield from _sidecars()


def _case(output: Output, value: str, *more: str, **fields: object) -> Case:
    command = commands()[output.command]
    arguments = (*with_value(command, output.option, value), *more)
    writes = fields.pop("writes", None)
    if writes is None:
        writes = (*base_of(command).writes, value, f"{Path(value).stem}*")
    elif output.option not in base_of(command).arguments:
        writes = (*base_of(command).writes, *writes)  # the base's own output stays as it is
    return Case(kind="outputs", command=output.command, arguments=arguments, writes=writes,
                **fields)  # type: ignore[arg-type]  # fmt: skip


def _on_inputs(output: Output) -> Iterator[Case]:
    """The output is an input, by its name, another spelling, a link or a hard link."""
    for read in inputs():
        if read.command != output.command or output.folder:
            continue
        command, given = commands()[read.command], ()
        if command.find(read.option).is_option:
            given = (f"{read.option}={read.form.format(read.sample)}",)
        elif read.option not in ("file", "spec", "cases", "a", "drafter"):
            continue
        elif read.command == "npu-sim compare":
            continue  # its arguments are presets
        for name, prepare, note in (
            (read.sample, _nothing, ""),
            (f"./hf/../{read.sample}", _nothing, ""),
            ("other", _link(read.sample), f"other is a link to {read.sample}"),
            ("hard", _hard_link(read.sample), f"hard is a hard link to {read.sample}"),
        ):
            yield _case(output, name, *given, prepare=prepare, note=note, writes=())


def _on_each_other(output: Output) -> Iterator[Case]:
    for other in outputs():
        if other.command == output.command and other.option > output.option:
            yield _case(output, output.name, f"{other.option}={output.name}", writes=())
            yield _case(
                output, output.name, f"{other.option}=other", writes=(),
                prepare=_link(output.name), note=f"other is a link to {output.name}",
            )  # fmt: skip


def _places(output: Output) -> Iterator[Case]:
    ending = Path(output.name).suffix
    missing = SANE if output.makes_folders else REFUSED
    yield _case(output, f"nowhere/x{ending}", expect=missing, writes=("nowhere", "nowhere/*"))
    yield _case(output, f"two.jsonl/x{ending}")
    yield _case(output, "")
    yield _case(output, "hf")
    yield _case(output, "hf/")
    yield _case(output, f"{'x' * 300}{ending}")
    yield _case(output, f"loop{ending}", prepare=_link(f"loop{ending}", f"loop{ending}"),
                note="it is a link to itself")  # fmt: skip
    sidecar = ("other.json",) if output.command == "npu-sim sweep" and ending == ".csv" else ()
    yield _case(
        output, f"other{ending}", expect=DONE, writes=("hf/target", *sidecar),
        prepare=_link("hf/target", f"other{ending}"),
        note="it is a link to hf/target, which is not there",
    )  # fmt: skip

    def before(folder: Path) -> None:
        (folder / f"old{ending}").write_bytes(b"old")
        (folder / f"old{ending}").chmod(0o640)
        (folder / "name").symlink_to(f"old{ending}")

    def kept(folder: Path, _: Outcome) -> str:
        mode = (folder / f"old{ending}").stat().st_mode & 0o777
        same = (folder / f"old{ending}").read_bytes() == b"old"
        return f"mode 640 became {mode:o}" if mode != 0o640 else "not written" if same else ""

    for name in (f"old{ending}",):
        yield _case(output, name, expect=DONE, prepare=before, after=kept,
                    note="it is a file of mode 640")  # fmt: skip


def _devices(output: Output) -> Iterator[Case]:
    by_ending = output.name.endswith(".png") or output.option == "--encodings"
    for device in ("/dev/null", "/dev/stdout"):
        yield _case(output, device, expect=SANE if by_ending else DONE, writes=())
    yield _case(output, "/dev/full", leaves=("new*",), late=True)


def _pictures(output: Output) -> Iterator[Case]:
    if not output.name.endswith(".png"):
        return
    for ending, magic in MAGIC.items():

        def after(
            folder: Path, _: Outcome, name: str = f"new{ending}", magic: bytes = magic
        ) -> str:
            begins = (folder / name).read_bytes()[: len(magic)]
            return "" if begins == magic else f"{name} begins with {begins!r}"

        yield _case(output, f"new{ending}", expect=SANE, after=after)
    for name in ("new.xyz", "new", ".png", "new.PNG", "new.jpg"):
        expect = REFUSED if name == "new.xyz" else SANE
        yield _case(output, name, expect=expect)


def _sidecars() -> Iterator[Case]:
    sweep = ("sweep.toml", "--processes", "1", "--quiet")

    def case(prepare: Callable[[Path], None], note: str, *arguments: str, **more: object) -> Case:
        return Case(kind="outputs", command="npu-sim sweep", arguments=(*sweep, *arguments),
                    prepare=prepare, note=note, **more)  # type: ignore[arg-type]  # fmt: skip

    reads_models = _replace("sweep.toml", 'model = "tiny"', 'model_json = "models.json#small"')
    reads_npu = _replace("sweep.toml", '"teaching-npu"', '"npu.toml"')
    reads_hf = _replace("sweep.toml", 'model = "tiny"', 'hf_config = "hf/config.json"')
    yield case(reads_models, "the sweep reads models.json", "--out", "models.csv")
    yield case(reads_models, "the sweep reads models.json", "--out", "models.json")
    yield case(reads_npu, "the sweep reads npu.toml", "--out", "npu.toml")
    yield case(reads_npu, "the sweep reads npu.toml", "--plot", "npu.toml")
    yield case(reads_hf, "the sweep reads hf/config.json", "--out", "hf/config.csv")
    yield case(_nothing, "", "--out", "x.json")
    yield case(_nothing, "", "--out", "sweep.toml")
    yield case(_nothing, "", "--out", "x.csv", "--plot", "x.json")
    yield case(_nothing, "", "--out", "x.csv", "--plot", "x.csv")
    yield case(_nothing, "models.json is somebody's", "--out", "models.csv", expect=SANE,
               writes=("models.csv",))  # fmt: skip
    inside = ("precious.txt", "sweep.json", "lock", "000000000.csv")
    for name in ("new.csv.parts", *(f"new.csv.parts/{name}" for name in inside)):
        yield case(_file(name), f"{name} is somebody's", "--out", "new.csv", expect=SANE,
                   writes=("new.csv", "new.json"))  # fmt: skip
    train = BASES["mu-ref train"].arguments
    for name in ("new.checkpoint.safetensors", "new.checkpoint"):
        yield Case(kind="outputs", command="mu-ref train", prepare=_copied("two.jsonl", name),
                   arguments=(*train, f"--queries={name}"), note=f"{name} is a copy of two.jsonl",
                   expect=SANE, writes=("new.safetensors",))  # fmt: skip
        yield Case(kind="outputs", command="mu-ref train", prepare=_file(name), arguments=train,
                   note=f"{name} is somebody's", expect=SANE,
                   writes=("new.safetensors",))  # fmt: skip
    for scenario in ("npu-sim sensitivity", "npu-sim solve"):
        target = ("--target-latency-ms", "1") if scenario.endswith("solve") else ()
        yield Case(kind="outputs", command=scenario, prepare=_replace(
            "scenario.toml", '"teaching-npu"', '"npu.toml"'),
            arguments=("scenario.toml", *target, "--plot", "npu.toml"),
            note="the scenario reads npu.toml")  # fmt: skip
    for name in ("mu/config.json", "mu/model.safetensors", "mu"):
        yield Case(kind="outputs", command="mu-ref forward",
                   arguments=("mu", "--inputs", "ids.npz", "--out", name))  # fmt: skip


def _nothing(folder: Path) -> None:
    pass


def _link(target: str, name: str = "other") -> Callable[[Path], None]:
    return lambda folder: os.symlink(target, folder / name)


def _hard_link(target: str) -> Callable[[Path], None]:
    return lambda folder: os.link(folder / target, folder / "hard")


def _copied(source: str, name: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / name).write_bytes((folder / source).read_bytes())

    return prepare


def _file(name: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("precious")

    return prepare


def _replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return prepare
