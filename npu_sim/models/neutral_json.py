"""Descriptions from a neutral JSON file: {"name": {"family": ..., "n_enc_layers": ...}, ...}.

The format of the measured cases' models. It says widths and counts, not what kind of norm or
positions a family has; those are the usual ones of its family (`_FAMILIES`). An encoder may be
wider or narrower than its decoder, which `d_memory` says.
Chapter: `docs/validation.md`.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mu_ref.border import ranges
from mu_ref.border.ranges import LAYERS, SIZE, Range
from mu_ref.border.reading import read_json
from mu_ref.border.text import short
from mu_ref.errors import MuRefError, check_choice
from npu_sim.errors import WorkloadError
from npu_sim.models.hf_fields import HEAD_WIDTH
from npu_sim.models.shorthand import model_of, stack_of
from npu_sim.program.description import HEADS, Description

__all__ = ["description_of", "read_model", "read_models"]

_NO_OR_LAYERS = Range(low=0, high=LAYERS.high, why=LAYERS.why)
_COUNTS: Mapping[str, Range] = MappingProxyType({
    "n_enc_layers": _NO_OR_LAYERS, "n_dec_layers": _NO_OR_LAYERS, "d_model": SIZE, "d_ff": SIZE,
    "n_heads": ranges.HEADS, "n_kv_heads": ranges.HEADS, "d_head": HEAD_WIDTH,
    "vocab_size": Range(low=0, high=SIZE.high, why=SIZE.why),
})  # fmt: skip
_OPTIONAL = {"d_memory": SIZE}  # width of the encoder's output, which the decoder reads
_REMARKS = ("name", "source", "note", "notes", "comment")  # allowed, not read
_FIELDS = ("family", *_COUNTS, "gated", "tied", "lm_head")
# family: (positions, stack fields that JSON does not give)
_FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType({
    "encoder": ("table", {"embed_norm": True}),  # BERT and its children
    "encoder-decoder": ("table", {}),  # Marian, Whisper
    "decoder": (
        "rope",
        {"norm_kind": "rms", "activation": "silu", "attention_bias": False, "mlp_bias": False},
    ),  # LLaMA, Qwen
})  # fmt: skip


def read_models(path: Path) -> dict[str, Description]:
    """Read all models of a file.

    Args:
        path: the JSON file.

    Returns:
        {name: description}.

    Raises:
        WorkloadError: no such file, not JSON, or a model with a missing, unknown or wrong field.
    """
    data = read_json(path, "a JSON file of models", WorkloadError)
    if not isinstance(data, dict) or not data:
        raise WorkloadError(f"{path} must hold a JSON object of models by name, got {short(data)}")
    try:
        return {name: description_of(name, fields) for name, fields in data.items()}
    except WorkloadError as error:
        raise WorkloadError(f"{path}: {error}") from error


def read_model(address: str) -> Description:
    """Read one model of a file.

    Args:
        address: "FILE#name"; the name may be left out where the file has one model.

    Returns:
        The description.

    Raises:
        WorkloadError: as `read_models`, or no such name.
    """
    file, _, name = address.partition("#")
    models = read_models(Path(file))
    if not name and len(models) == 1:
        return next(iter(models.values()))
    check_choice(f"model of {file} (FILE#name)", name, models, WorkloadError)
    return models[name]


def description_of(name: str, fields: Any) -> Description:
    """Translate the fields of one model.

    Args:
        name: of the model.
        fields: its JSON object.

    Returns:
        The description.

    Raises:
        WorkloadError: a field is missing, unknown or of a wrong kind.
    """
    if not isinstance(fields, dict):
        raise WorkloadError(f"model {name} must be a JSON object, got {type(fields).__name__}")
    missing, unknown = set(_FIELDS) - set(fields), set(fields) - {*_FIELDS, *_OPTIONAL, *_REMARKS}
    if missing or unknown:
        raise WorkloadError(
            f"model {name} must have the fields {', '.join(_FIELDS)}, and may have "
            f"{', '.join(_OPTIONAL)}; "
            f"missing {sorted(missing)}, unknown {sorted(unknown)[:9]}"
        )
    for key, allowed in _COUNTS.items():
        allowed.check(f"{key} of {name}", fields[key], WorkloadError)
    for key, allowed in _OPTIONAL.items():
        if key in fields:
            allowed.check(f"{key} of {name}", fields[key], WorkloadError)
    for key in ("gated", "tied"):
        if not isinstance(fields[key], bool):  # 1 equals True, and is none
            got = short(fields[key])
            raise WorkloadError(f"{key} of {name} must be one of True, False; got {got}")
    check_choice(f"family of {name}", fields["family"], _FAMILIES, WorkloadError)
    check_choice(f"lm_head of {name}", fields["lm_head"], HEADS, WorkloadError)
    return _described(name, fields)


def _described(name: str, fields: Mapping[str, Any]) -> Description:
    positions, more = _FAMILIES[fields["family"]]
    widths = {"n_kv_heads": fields["n_kv_heads"], "d_head": fields["d_head"]}
    d_model = fields["d_model"]
    d_memory = fields.get("d_memory", d_model)
    if d_memory != d_model and fields["family"] != "encoder-decoder":
        raise WorkloadError(
            f"d_memory of {name} must be left out where no decoder reads an encoder, got {d_memory}"
        )
    try:
        encoder, decoder = (
            stack_of(n, width, fields["d_ff"], fields["n_heads"], **widths,
                     gated=fields["gated"], **more) if n else None
            for n, width in ((fields["n_enc_layers"], d_memory), (fields["n_dec_layers"], d_model))
        )  # fmt: skip
        model = model_of(
            name, encoder, decoder, fields["vocab_size"], tied_head=fields["tied"],
            shared_embedding=d_memory == d_model,
        )  # fmt: skip
    except MuRefError as error:
        raise WorkloadError(f"model {name}: {error}") from error
    if ("encoder" in fields["family"]) != (encoder is not None) or (
        "decoder" in fields["family"].split("-")
    ) != (decoder is not None):
        raise WorkloadError(
            f"n_enc_layers and n_dec_layers of {name} must suit family {fields['family']}, got "
            f"{fields['n_enc_layers']} and {fields['n_dec_layers']}"
        )
    return Description(
        model=model,
        lm_head=fields["lm_head"],
        positions=positions,  # type: ignore[arg-type]
    )
