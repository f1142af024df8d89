"""Small files that are right, of every format that the programs read; cases get copies of them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from faults.boxes import Boxes
from faults.case import DONE, Case

if TYPE_CHECKING:
    from mu_ref.config import ModelConfig
    from mu_ref.redrafter.config import DrafterConfig

__all__ = ["PARITY", "make_samples", "small_drafter", "small_model"]

PARITY = Path(__file__).resolve().parents[1] / "parity/data"

QUERIES = (
    ("turn bluetooth off", "set(bluetooth, off)"), ("wifi on", "set(wifi, on)"),
    ("show me sounds", "open(page.sound)"), ("what is the time in Rome", "none()"),
    ("night light on", "set(display.night_light, on)"), ("no airplane", "set(airplane_mode, off)"),
    ("less bright", "set(display.brightness, 20)"), ("mute", "set(sound.mute, on)"),
)  # fmt: skip

SCENARIO = """\
model = "tiny"
npu = "teaching-npu"

[workload]
n_input = 4
n_output = 2

[precision]
weight_bits = 8
"""

SWEEP = """\
model = "tiny"
npu = "teaching-npu"
fidelity = "roofline"

[workload]
n_input = 4
n_output = 2

[vary]
"npu.dma.bytes_per_s" = { log = [20, 200], n = 3, unit = "GB/s" }
"precision.weight_bits" = [4, 8]
"""

MODELS = {
    "small": {
        "family": "decoder", "n_enc_layers": 0, "n_dec_layers": 2, "d_model": 16, "d_ff": 32,
        "gated": True, "n_heads": 4, "n_kv_heads": 2, "d_head": 4, "vocab_size": 61, "tied": True,
        "lm_head": "last", "note": "made up",
    }
}  # fmt: skip

LLAMA = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 61,
    "hidden_act": "silu", "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
    "max_position_embeddings": 64,
}  # fmt: skip

CASES = """\
case,npu,model,phase,n_tokens,n_context,n_memory,weight_bits,activation_bits,kv_bits,\
head_weight_bits,runtime,measured_us,source
one,teaching-npu,small,prefill,4,4,0,8,16,16,8,qnn,120.5,made up
two,hexagon-x-elite,small,decode,1,5,0,8,16,16,8,qnn,99,made up
"""

PRODUCTS = """\
array_rows,array_cols,dataflow,M,N,K
2,2,os,4,4,4
4,2,ws,3,5,7
"""

ACCEPTANCE = '{"n_accepted": 2, "nodes": 9}\n{"n_accepted": 0, "nodes": 9}\n'


def make_samples(folder: Path) -> Path:
    """Fill a folder; takes some seconds."""
    folder.mkdir(parents=True)
    lines = [json.dumps({"query": q, "call": c}) + "\n" for q, c in QUERIES]
    texts = {
        "queries.jsonl": "".join(lines), "two.jsonl": "".join(lines[:2]),
        "scenario.toml": SCENARIO, "sixteen.toml": SCENARIO.replace("= 8", "= 16"),
        "sweep.toml": SWEEP, "models.json": json.dumps(MODELS, indent=1),
        "cases.csv": CASES, "products.csv": PRODUCTS, "acceptance.jsonl": ACCEPTANCE,
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "hf").mkdir()
    (folder / "hf/config.json").write_text(json.dumps(LLAMA, indent=1))
    _checkpoints(folder)
    _small_models(folder)
    boxes = Boxes(folder, fast=False)
    try:
        _made_by_commands(boxes, folder)
    finally:
        boxes.close()
    _ports(folder)
    return folder


def _checkpoints(folder: Path) -> None:
    for name, source in (("mu", "microsoft-mu-mha"), ("t5gemma", "t5gemma-plain")):
        (folder / name).mkdir()
        for file in ("config.json", "model.safetensors"):
            shutil.copyfile(PARITY / source / file, folder / name / file)
    np.savez(
        folder / "ids.npz", encoder_input_ids=np.array([[5, 6, 7]]),
        decoder_input_ids=np.array([[1, 3]]), encoder_attention_mask=np.array([[1, 1, 0]]),
    )  # fmt: skip


def small_model() -> "ModelConfig":
    """A model with the name and the vocabulary of the one that ships, and little else."""
    from mu_ref.presets import preset, tiny

    small = tiny(n_layers=1, windowed_layers=(False,))
    return replace(preset("mu-nano"), encoder=small.encoder, decoder=small.decoder)


def small_drafter() -> "DrafterConfig":
    """A drafter for it."""
    from mu_ref.redrafter.config import DrafterConfig

    vocab_size = small_model().vocab_size
    return DrafterConfig(d_model=16, vocab_size=vocab_size, d_exit=16, n_blocks=1, rnn=True)


def _small_models(folder: Path) -> None:
    from mu_ref.redrafter.config import initial_drafter
    from mu_ref.redrafter.store import save_drafter
    from mu_ref.weights import initial_weights, save_weights

    model, drafter, rng = small_model(), small_drafter(), np.random.default_rng(0)
    weights = initial_weights(model, rng, 0.3)
    halves = {name: array.astype(np.float16) for name, array in weights.items()}
    save_weights(folder / "nano.safetensors", model, halves, {"made": "random"})
    save_drafter(folder / "drafter.safetensors", drafter, initial_drafter(drafter, rng), {})


def _ports(folder: Path) -> None:
    """Tensors of two ports, of which one is right."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "golden/tensors.safetensors")
    for name in ("port", "golden-2"):
        (folder / name).mkdir()
        save_file(tensors, folder / name / "port.safetensors")
        tensors = {key: array + array.dtype.type(1) for key, array in tensors.items()}
    (folder / "names.toml").write_text('[names]\n"encode/{site}" = "encoder/{site}"\n')


def _made_by_commands(boxes: Boxes, folder: Path) -> None:
    from faults.bases import BASES

    quantize = BASES["mu-ref quantize"].arguments
    w8a16, w8a8, w4a16 = (
        (*quantize, "--scheme", scheme, "--out", f"nano-{scheme}.safetensors", *more)
        for scheme, more in (("w8a16", ("--observed", "ranges.json")), ("w8a8", ()), ("w4a16", ()))
    )
    w4a16 = ("mu-nano", "--weights", "nano.safetensors", *w4a16[-4:])
    drafter = BASES["mu-ref quantize-drafter"].arguments
    rank = (*BASES["mu-ref settings train-rank"].arguments[:-1], "rank.safetensors")
    golden = ("golden", *BASES["mu-ref golden write"].arguments[1:])
    for command, arguments, made in (
        ("mu-ref quantize", w8a16, ("nano-w8a16.safetensors", "ranges.json")),
        ("mu-ref quantize", w8a8, ("nano-w8a8.safetensors",)),
        ("mu-ref quantize", w4a16, ("nano-w4a16.safetensors",)),
        ("mu-ref quantize-drafter", drafter, ("new.safetensors",)),
        ("mu-ref settings train-rank", rank, ("rank.safetensors",)),
        (
            "npu-sim run",
            (*BASES["npu-sim run"].arguments, "--trace", "trace.json"),
            ("trace.json",),
        ),
        ("npu-sim hardware show", ("teaching-npu", "--toml"), ("npu.toml",)),
        ("mu-ref golden write", golden, ("golden",)),
        ("mu-ref lora train", BASES["mu-ref lora train"].arguments, ("new",)),
    ):

        def keep(work: Path, outcome: object, made: tuple[str, ...] = made) -> str:
            for name in made:
                if (work / name).is_dir():
                    shutil.copytree(work / name, folder / name)
                elif (work / name).exists():
                    shutil.copyfile(work / name, folder / name)
            return ""

        case = Case(kind="samples", command=command, arguments=arguments, expect=DONE, after=keep)
        outcome = boxes.one(case)
        if outcome.code != 0:
            raise RuntimeError(f"no samples: {case.line()}: {outcome.err}")
        if "--toml" in arguments:
            (folder / "npu.toml").write_text(outcome.out)
    (folder / "new.safetensors").rename(folder / "drafter-w8a16.safetensors")
    shutil.copyfile(folder / "new/lora.safetensors", folder / "lora.safetensors")
    shutil.rmtree(folder / "new")
