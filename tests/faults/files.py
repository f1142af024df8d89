"""Which options of which commands name files: what is read, and what is written."""

from dataclasses import dataclass

__all__ = ["INPUTS", "OUTPUTS", "Input", "inputs", "outputs"]


@dataclass(frozen=True, slots=True)
class Input:
    """An option or argument that names a file to read."""

    command: str
    option: str
    sample: str  # file of the samples, as it is when it is right
    form: str = "{}"  # what stands on the command line


@dataclass(frozen=True, slots=True)
class Output:
    """An option that names a file to write."""

    command: str
    option: str
    name: str  # a new name with the right ending
    makes_folders: bool = False  # a folder that is not there is made
    folder: bool = False  # it is a folder of files


_NPU = {"--npu": "npu.toml"}
_ASKED = {"--npu": "npu.toml", "--model-json": "models.json", "--hf-config": "hf/config.json"}

INPUTS: dict[str, dict[str, str]] = {
    "mu-ref quantize": {"--calibration": "queries.jsonl", "--weights": "nano.safetensors",
                        "--check": "two.jsonl"},
    "mu-ref generate": {"--weights": "nano.safetensors", "--drafter": "drafter.safetensors"},
    "mu-ref train-drafter": {"--weights": "nano.safetensors", "--queries": "queries.jsonl",
                             "--start": "drafter.safetensors"},
    "mu-ref quantize-drafter": {"drafter": "drafter.safetensors", "--weights": "nano.safetensors",
                                "--integers": "nano-w8a16.safetensors"},
    "mu-ref draft-sweep": {"file": "queries.jsonl", "--drafter": "drafter.safetensors",
                           "--weights": "nano.safetensors"},
    "mu-ref ask": {"--weights": "nano.safetensors", "--drafter": "drafter.safetensors", **_NPU},
    "mu-ref forward": {"--inputs": "ids.npz"},
    "mu-ref golden write": {"--model": "nano-w8a16.safetensors", "--tokens": "ids.npz",
                            "--drafter": "drafter-w8a16.safetensors"},
    "mu-ref golden check": {"--names": "names.toml"},
    "mu-ref export onnx": {"--model": "nano.safetensors", "--drafter": "drafter.safetensors"},
    "mu-ref train": {"--queries": "two.jsonl", "--start": "nano.safetensors"},
    "mu-ref distill": {"--teacher": "nano.safetensors", "--queries": "two.jsonl",
                       "--start": "nano.safetensors"},
    "mu-ref lora train": {"--base": "nano.safetensors", "--queries": "two.jsonl",
                          "--held-out": "two.jsonl"},
    "mu-ref lora merge": {"adapter": "lora.safetensors", "--base": "nano.safetensors"},
    "mu-ref settings eval": {
        "file": "two.jsonl", "--weights": "nano.safetensors", "--drafter": "drafter.safetensors",
    },
    "mu-ref settings baseline": {
        "file": "two.jsonl", "--queries": "queries.jsonl", "--weights": "nano.safetensors",
    },
    "mu-ref settings train-rank": {
        "--queries": "queries.jsonl", "--weights": "nano.safetensors",
        "--start": "rank.safetensors",
    },
    "npu-sim explain": _ASKED,
    "npu-sim check-trace": {"file": "trace.json"},
    "npu-sim speculate": {"--acceptance": "acceptance.jsonl", **_ASKED},
    "npu-sim systolic": {"--csv": "products.csv"},
    "npu-sim sweep": {"spec": "sweep.toml", **_ASKED},
    "npu-sim sensitivity": {"base": "scenario.toml", **_ASKED},
    "npu-sim compare": {"a": "npu.toml", "b": "scenario.toml", **_ASKED},
    "npu-sim solve": {"base": "scenario.toml", **_ASKED},
    "npu-sim validate": {"cases": "cases.csv", "--models": "models.json", **_NPU},
    "npu-sim run": _ASKED,
    "npu-sim hardware show": {"name": "npu.toml"},
    "npu-sim hardware compare": {"a": "npu.toml", "b": "npu.toml"},
}  # fmt: skip

OUTPUTS: dict[str, dict[str, str]] = {
    "mu-ref quantize": {"--out": "new.safetensors", "--observed": "new.json", "--plot": "new.png",
                        "--encodings": "new.json"},
    "mu-ref generate": {"--tree": "new.png"},
    "mu-ref train-drafter": {"--out": "new.safetensors"},
    "mu-ref quantize-drafter": {"--out": "new.safetensors"},
    "mu-ref draft-sweep": {"--plot": "new.png"},
    "mu-ref forward": {"--out": "new.npz"},
    "mu-ref golden write": {"folder": "new"},
    "mu-ref export onnx": {"folder": "new"},
    "mu-ref train": {"--out": "new.safetensors"},
    "mu-ref distill": {"folder": "new"},
    "mu-ref lora train": {"folder": "new"},
    "mu-ref lora merge": {"--out": "new.safetensors"},
    "mu-ref settings eval": {"--plot": "new.png"},
    "mu-ref settings train-rank": {"--out": "new.safetensors"},
    "npu-sim systolic": {"--out": "new.csv"},
    "npu-sim sweep": {"--out": "new.csv", "--plot": "new.png"},
    "npu-sim sensitivity": {"--plot": "new.png"},
    "npu-sim compare": {"--plot": "new.png"},
    "npu-sim solve": {"--plot": "new.png"},
    "npu-sim validate": {"--csv": "new.csv", "--plot": "new.png"},
    "npu-sim calibrate": {"--out": "new", "--plot": "new.png"},
    "npu-sim headline": {"--plot": "new.png"},
    "npu-sim run": {"--trace": "new.json", "--gantt": "new.png", "--csv": "new.csv",
                    "--plot-roofline": "new.png", "--plot-breakdown": "new.png"},
}  # fmt: skip

OTHER = {
    "mu-ref forward": {"folder"},
    "mu-ref golden check": {"folder", "port"},
}  # paths that are neither

_FORMS = {"models.json": "{}#small"}
MAKES_FOLDERS = ("mu-ref quantize", "mu-ref train", "mu-ref train-drafter",
                 "mu-ref quantize-drafter", "mu-ref lora merge", "npu-sim calibrate")  # fmt: skip


def inputs() -> list[Input]:
    """Return every option that names a file to read."""
    return [
        Input(command, option, sample, _form(option, sample))
        for command, options in INPUTS.items()
        for option, sample in options.items()
    ]


def _form(option: str, sample: str) -> str:
    return _FORMS.get(sample, "{}") if option == "--model-json" else "{}"


def outputs() -> list[Output]:
    """Return every option that names a file to write."""
    return [
        Output(command, option, name,
               makes_folders=command in MAKES_FOLDERS and option == "--out",
               folder=option == "folder" or (command, option) == ("npu-sim calibrate", "--out"))
        for command, options in OUTPUTS.items()
        for option, name in options.items()
    ]  # fmt: skip
