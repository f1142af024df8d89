"""For every option of every command a value that changes something; `test_options_act.py` tries it.

`{option: value}`, or `{option: (value, more)}` where the option acts only beside other arguments,
which both runs get. A flag has the value "".
"""

from faults.bases import BASES

__all__ = ["CHANGES", "INVISIBLE", "MORE"]

# What cannot be seen in what a command prints or writes, and why.
INVISIBLE = {
    ("npu-sim sweep", "--processes"): "the same points, whoever computes them",
    ("npu-sim systolic", "--seed"): "counts do not depend on the values; equality is checked",
    ("mu-ref golden check", "--partial"): "acts where a port lacks tensors: tests/test_golden.py",
    ("mu-ref generate", "--executor"): "both executors give the same tokens",
    ("mu-ref settings eval", "--executor"): "both executors give the same answers",
}

MORE = {  # what both runs of a command get, to have something to look at
    "mu-ref ask": ("--json",), "mu-ref draft-sweep": ("--json",),
    "mu-ref quantize": ("--out", "new.safetensors"), "npu-sim solve": ("--json",),
    "npu-sim validate": ("--json",), "npu-sim sensitivity": ("--json",),
    "npu-sim speculate": ("--json",), "npu-sim run": ("--json",),
}  # fmt: skip

_DRAFTS = "--drafter drafter.safetensors"
_INTEGER_DRAFTS = "--drafter drafter-w8a16.safetensors"
_WIDTHS = {"--weight-bits": "16", "--activation-bits": "8", "--kv-bits": "8",
           "--head-weight-bits": "16"}  # fmt: skip
_PLOT = {"--plot": "new.png"}
_JSON = {"--json": ""}
_ASKED = {
    "--npu": "teaching-npu", "--input": "9", "--output": "5", "--batch": "2", "--context": "32",
    "--filled": ("9", "--context 32 --npu hexagon-x-elite"), "--runtime": "geniex", **_WIDTHS,
    "--fidelity": "roofline",
    "--set": "npu.clock_hz=100 MHz", **_JSON,
}  # fmt: skip
_MODELS = {"--model-json": "models.json#small", "--hf-config": "hf"}

CHANGES: dict[str, dict[str, str | tuple[str, str]]] = {
    "mu-ref quantize": {
        "name": "tiny", "--scheme": "w8a8", "--calibration": "two.jsonl",
        "--weights": "mu/model.safetensors", "--out": "new-2.safetensors", "--examples": "1",
        "--observer": "percentile", "--rounding": "half_even", "--clip-weights": "",
        "--smooth": "0.5", "--bits": "*mlp*=8", "--check": "two.jsonl", "--observed": "new.json",
        "--plot": "new.png", "--encodings": "new.csv",
        "--aimet": ("2.0.0", "--encodings new.json"), "--worst": "3", "--json": "",
    },
    "mu-ref generate": {
        "query": "wifi on please", "--drafter": "drafter.safetensors",
        "--beam-width": ("2", _DRAFTS), "--draft-len": ("1", _DRAFTS),
        "--weights": "nano-w8a16.safetensors", "--scheme": "w8a16",
        "--tree": ("new.png", _DRAFTS), "--json": "", "--ids": "", "--max-new-tokens": "2",
    },
    "mu-ref train-drafter": {
        "name": "tiny", "--out": "new-2.safetensors", "--weights": "nano-w8a16.safetensors",
        "--queries": "two.jsonl", "--limit": "2", "--rewordings": "1",
        "--later-share": "0", "--epochs": "2", "--draft-len": "3", "--d-exit": "8",
        "--blocks": "2", "--rnn": "--no-rnn", "--batch-size": "8", "--rate": "0.1", "--seed": "5",
        "--start": "drafter.safetensors", "--resume": "", "--checkpoint-steps": "0",
    },
    "mu-ref quantize-drafter": {
        "drafter": "drafter-w8a16.safetensors", "--scheme": "w8a8", "--out": "new-2.safetensors",
        "--weights": "nano-w8a16.safetensors", "--integers": "nano-w8a8.safetensors",
        "--examples": "1", "--draft-len": "6",
    },
    "mu-ref draft-sweep": {
        "file": "nano.safetensors", "--drafter": "nano.safetensors", "--beam-width": "2",
        "--draft-len": "3", "--weights": "nano-w8a16.safetensors", "--scheme": "w8a16",
        "--executor": "nobody", "--limit": "2", "--plot": "new.png", "--json": "",
    },
    "mu-ref ask": {
        "query": "???", "--npu": "teaching-npu", "--npu-model": ("tiny", "--npu teaching-npu"),
        "--budget-ms": ("0.001", "--npu teaching-npu"),
        "--execute": ("", "--npu teaching-npu --scheme w8a16 --weights=nano-w8a16.safetensors"),
        "--weights": "nano-w8a16.safetensors", "--scheme": "w8a16", "--executor": "nobody",
        "--drafter": "nano.safetensors", "--beam-width": "2", "--draft-len": "3", "--json": "",
        "--decode": "greedy", "--candidates": "1", "--rank": "linear",
    },
    "mu-ref info": {"name": "mu-nano", "--set": "decoder.n_layers=1", **_JSON},
    "mu-ref forward": {
        "folder": "t5gemma", "--inputs": "missing.npz", "--out": "new-2.npz", "--dtype": "float64",
        "--max-new-tokens": "2", "--prompt": "",
    },
    "mu-ref train": {
        "name": "tiny", "--out": "new-2.safetensors", "--queries": "queries.jsonl",
        "--epochs": "2", "--batch-size": "1", "--rate": "0.1", "--seed": "5",
        "--start": "nano.safetensors", "--resume": "", "--checkpoint-steps": "0",
        "--set": "clip_norm=0.001",
    },
    "mu-ref distill": {
        "folder": "new-2", "--teacher": "nano-w8a16.safetensors", "--student": "tiny",
        "--temperature": "3", "--mix": "0.9", "--queries": "queries.jsonl", "--epochs": "2",
        "--batch-size": "1", "--rate": "0.1", "--seed": "5", "--start": "nano.safetensors",
        "--resume": "", "--checkpoint-steps": "0", "--set": "clip_norm=0.001",
    },
    "mu-ref lora train": {
        "folder": "new-2", "--task": "calls", "--base": "nano-w8a16.safetensors", "--full": "",
        "--rank": "2", "--alpha": "3", "--site": "*.k", "--queries": "queries.jsonl",
        "--held-out": "queries.jsonl", "--limit": "1", "--epochs": "2", "--batch-size": "1",
        "--rate": "0.1", "--seed": "5", "--resume": "", "--checkpoint-steps": "0",
    },
    "mu-ref lora merge": {
        "adapter": "nano.safetensors", "--base": "nano-w8a16.safetensors",
        "--out": "new-2.safetensors",
    },
    "mu-ref warm-up": {},
    "mu-ref golden write": {
        "folder": "new-2", "--model": "nano-w8a8.safetensors", "--query": "wifi on",
        "--tokens": "ids.npz", "--scheme": "w8a8",
        "--depth": "layers", "--drafter": "drafter-w8a16.safetensors",
        "--beam-width": ("2", _INTEGER_DRAFTS), "--draft-len": ("1", _INTEGER_DRAFTS),
        "--max-new-tokens": "1", "--seed": "5",
    },
    "mu-ref golden check": {
        "folder": "port", "port": "golden-2", "--names": "names.toml", **_JSON,
    },
    "mu-ref export onnx": {
        "folder": "new-2", "--model": "nano-w8a16.safetensors", "--scheme": "w8a16",
        "--drafter": "drafter.safetensors",
    },
    "mu-ref settings eval": {
        "file": "queries.jsonl", "--weights": "nano-w8a16.safetensors", "--scheme": "w8a16",
        "--worst": "0", "--drafter": "nobody.safetensors", "--decode": "greedy",
        "--candidates": "1", "--rank": "linear", "--ways": "", "--plot": "new.png", **_JSON,
    },
    "mu-ref settings baseline": {
        "file": "queries.jsonl", "--queries": "two.jsonl", "--weights": "nano-w8a16.safetensors",
        "--executor": "nobody", **_JSON,
    },
    "mu-ref settings train-rank": {
        "--out": "new-2.safetensors", "--queries": "two.jsonl", "--epochs": "2",
        "--seed": "5", "--limit": "4", "--start": "nano.safetensors",
        "--weights": "nano-w8a16.safetensors", "--executor": "nobody",
    },
    "npu-sim explain": {
        **_ASKED, **_MODELS, "model": "mu-nano", "--site": "decoder.0.mlp.down",
        "--input": ("9", "--site=encoder.1.mlp.up"), "--call": "1",
    },
    "npu-sim explore": {},  # it serves until it is stopped: see test_explore.py
    "npu-sim check-trace": {"file": "models.json"},
    "npu-sim speculate": {
        **_ASKED, **_MODELS, "model": "mu-nano", "--beam-width": "2", "--draft-len": "2",
        "--accept-rate": "0.2", "--acceptance": "acceptance.jsonl", "--nodes-saved": "0.5",
        "--exit-dim": "8", "--blocks": "1", "--rnn": "--no-rnn", "--input": "20",
        "--context": "40", "--host-us": "5",
    },
    "npu-sim systolic": {
        "--m": "5", "--n": "5", "--k": "5", "--rows": "3", "--cols": "3", "--dataflow": "ws",
        "--fidelity": "cycle", "--csv": "products.csv", "--out": "new.csv", **_JSON,
    },
    "npu-sim sweep": {
        **_ASKED, **_MODELS, "spec": "scenario.toml", "--out": "new-2.csv", "--dask": "nobody",
        "--plot": "new.png", "--quiet": "", "--checkpoint-points": "0", "--npu": "h100",
        "--x": ("weight_bits", "--plot new.png"), "--y": ("dram_bytes", "--plot new.png"),
        "--colour": ("bytes_per_s", "--plot new.png"),
        "--panels": ("weight_bits", "--plot new.png"), "--fidelity": "tile",
    },
    "npu-sim sensitivity": {
        **_ASKED, **_MODELS, "base": "scenario.toml", "--metric": "ttft_ms", "--share": "0.3",
        **_PLOT,
    },
    "npu-sim compare": {
        **_ASKED, **_MODELS, "a": "npu.toml", "b": "h100", "--model": "mu-nano", **_PLOT,
        "--filled": ("9", "--context 32"),
    },
    "npu-sim solve": {
        **_ASKED, **_MODELS, "base": "scenario.toml", "--vary": "clock", "--target-tok-s": "5",
        "--target-ttft-ms": "5", "--target-latency-ms": "0.5", **_PLOT,
    },
    "npu-sim validate": {
        "cases": "products.csv", "--models": "hf/config.json", "--npu": "teaching-npu",
        "--csv": "new.csv", **_PLOT, **_JSON,
    },
    "npu-sim calibrate": {
        "what": "tpu-v6e", "--out": "new", "--by": "model", "--release": "2026-08",
        "--structure": "", **_PLOT, **_JSON,
    },
    "npu-sim headline": {},  # half a minute: see test_headline.py
    "npu-sim run": {
        **_ASKED, **_MODELS, "model": "mu-nano", "--budget-ms": "0.001", "--budget-mb": "0.001",
        "--phase-budget": "decode=5", "--strict": ("", "--budget-ms 0.001"),
        "--trace": "new.json", "--gantt": "new.png", "--csv": "new.csv",
        "--plot-roofline": "new.png", "--plot-breakdown": "new.png", "--by": "layer",
    },
    "npu-sim hardware list": _JSON,
    "npu-sim hardware show": {"name": "h100", "--json": "", "--toml": ""},
    "npu-sim hardware compare": {"a": "h100", "b": "npu.toml", **_JSON},
}  # fmt: skip

assert set(CHANGES) == set(BASES)
