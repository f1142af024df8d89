"""`python -m tests.parity.hf_counts FOLDER [--record FILE]`: our counts beside transformers'.

FOLDER holds models' `config.json`, in folders of their own or as NAME.json. transformers builds
each on torch's meta device, which stores no numbers, and counts its parameters and the
multiply-accumulates of all matrices that a token passes; of a model that also sees pictures, those
of its text part. Needs the extra [peers]. `--record` writes what transformers counted, with the
file as it is and as transformers 5 saves it, one model a line: the data of
`tests/npu_sim/test_families.py`.
"""

import argparse
import json
import sys
from math import prod
from pathlib import Path
from typing import Any

from npu_sim.errors import NpuSimError
from npu_sim.models.hf_config import describe_fields
from npu_sim.program.counts import macs_per_token

ENCODERS = ("bert", "clip_text_model", "distilbert", "electra", "modernbert", "roberta", "vit",
            "xlm-roberta")  # fmt: skip
NOT_TEXT = ("vision_tower", "vision_model", "multi_modal_projector")
ONCE = ("encoder_attn.k_proj", "encoder_attn.v_proj", "EncDecAttention.k", "EncDecAttention.v",
        "cross_attn.k_proj", "cross_attn.v_proj", "pooler")  # fmt: skip


def config_files(folder: Path) -> dict[str, Path]:
    """Find the files by the name of their model."""
    files = sorted(folder.rglob("*.json"))
    return {f.parent.name if f.name == "config.json" else f.stem: f for f in files}


def our_counts(fields: dict[str, Any], name: str) -> tuple[int, int] | str:
    """Count parameters and MACs as `npu_sim` does; what it says where it refuses."""
    try:
        description = describe_fields(fields, name)
        return description.n_parameters, macs_per_token(description)
    except NpuSimError as error:
        return str(error)


def their_counts(fields: dict[str, Any]) -> tuple[int, int, dict[str, Any]]:
    """Count parameters and MACs as transformers does; also its form of the file."""
    config, model = _built(fields)
    parameters = {
        name: parameter
        for name, parameter in model.named_parameters()
        if not any(part in name for part in NOT_TEXT)
    }
    n_parameters = sum(parameter.numel() for parameter in parameters.values())
    return n_parameters, _macs(config, model), json.loads(config.to_json_string())


def _built(fields: dict[str, Any]) -> tuple[Any, Any]:
    import torch
    from transformers import CONFIG_MAPPING, logging
    from transformers.models.auto import modeling_auto as auto

    logging.set_verbosity(logging.CRITICAL)
    kind = fields["model_type"]
    config = CONFIG_MAPPING[kind](**{k: v for k, v in fields.items() if k != "model_type"})
    loader = auto.AutoModel if kind in ENCODERS else auto.AutoModelForCausalLM
    if type(config) in auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING:
        loader = auto.AutoModelForSpeechSeq2Seq
    elif type(config) in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        loader = auto.AutoModelForSeq2SeqLM
    with torch.device("meta"):
        return config, loader.from_config(config)


def _macs(config: Any, model: Any) -> int:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    text = config.get_text_config()
    passed_over = [*NOT_TEXT, *ONCE]
    if config.is_encoder_decoder:
        passed_over += ["encoder."]
    count = 0
    for name, module in model.named_modules():
        at = f"{name}."
        if any(f".{part}" in f".{at}" for part in passed_over):
            continue
        weights = [w for _, w in module.named_parameters(recurse=False) if w.dim() > 1]
        if isinstance(module, nn.Linear | Conv1D | nn.Conv1d | nn.Conv2d):
            count += prod(module.weight.shape)
        elif name.endswith("experts"):  # all of a layer in one weight
            shares = [prod(w.shape) // w.shape[0] for w in weights if w.dim() == 3]
            count += sum(shares) * text.num_experts_per_tok
        elif name.endswith((".router", "mlp.gate", ".gate")):
            count += sum(prod(w.shape) for w in weights)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        print(f"error: hf_counts must have torch and transformers, {error}; "
              "pip install -e '.[peers]'", file=sys.stderr)  # fmt: skip
        return 2
    print(f"transformers {transformers.__version__}")
    columns = "model", "type", "ours", "transformers", "difference", "MACs: difference"
    print(f"{columns[0]:28} {columns[1]:16} {columns[2]:>15} {columns[3]:>15} "
          f"{columns[4]:>12} {columns[5]:>12}")  # fmt: skip
    lines, differing = [], 0
    for name, file in config_files(arguments.folder).items():
        fields = json.loads(file.read_text(encoding="utf-8"))
        kind = fields.get("model_type")
        ours = our_counts(fields, name)
        try:
            n, macs, saved = their_counts(fields)
        except Exception as error:  # whatever another project's code says of a file
            print(f"{name:28} {kind!s:16} transformers: {str(error).splitlines()[0][:90]}")
            continue
        lines.append({"name": name, "n_parameters": n, "macs_per_token": macs,
                      "sparse": fields, "saved": saved})  # fmt: skip
        if isinstance(ours, str):
            print(f"{name:28} {kind!s:16} {'refused':>15} {n:15,}")
            continue
        differing += ours != (n, macs)
        print(f"{name:28} {kind!s:16} {ours[0]:15,} {n:15,} {ours[0] - n:12,} {ours[1] - macs:12,}")
    print(f"{len(lines)} models, {differing} accepted ones differ")
    if arguments.record is not None:
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        arguments.record.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
