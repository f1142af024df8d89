"""Descriptions from the `config.json` of Hugging Face models.

`families.py` says what each family is made of and what a missing field means; here its parts are
put together. Not here: what a field means for the cost (`npu_sim/program/`). Chapter:
`docs/families.md`.
"""

from collections.abc import Mapping
from dataclasses import fields as fields_of
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mu_ref.border.ranges import HEADS, SIZE, TOKENS
from mu_ref.border.reading import read_json
from mu_ref.border.text import short, warn
from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import MuRefError, check_choice
from npu_sim.errors import WorkloadError
from npu_sim.models.families import FAMILIES
from npu_sim.models.family import Family
from npu_sim.models.hf_fields import check_kinds, unread_fields
from npu_sim.models.parts import Fields, Shapes
from npu_sim.models.shorthand import ACTIVATIONS, model_of, stack_of
from npu_sim.program.description import Description

__all__ = ["describe_fields", "read_hf_config"]

_STACK = frozenset(field.name for field in fields_of(StackConfig))
_MODEL = frozenset(field.name for field in fields_of(ModelConfig))
_OWN = frozenset(field.name for field in fields_of(Description))

# families that are not supported, and what resembles them where no part of the name says it
_RELATIVES: Mapping[str, str] = MappingProxyType({
    "bloom": "gpt2", "codegen": "gpt_neox", "cohere2": "llama",
    "deepseek_v2": "mixtral", "deepseek_v3": "mixtral", "deit": "vit", "dinov2": "vit",
    "glm": "llama", "glm4": "llama", "gpt_neo": "gpt2", "gptj": "gpt_neox",
    "lfm2": "llama", "llama4": "mixtral", "longformer": "roberta",
    "mpnet": "roberta", "pegasus": "bart", "qwen2_moe": "qwen3_moe", "qwen3_next": "qwen3_moe",
    "siglip_text_model": "clip_text_model", "switch_transformers": "t5",
})  # fmt: skip


def read_hf_config(path: Path) -> Description:
    """Read the description of a model from its `config.json`.

    Args:
        path: the file, or the folder that holds it.

    Returns:
        The description, named after the folder, or after a file with a name of its own.

    Raises:
        WorkloadError: no such file, not JSON, an unknown family, or a field that is wrong.
    """
    file = path / "config.json" if path.is_dir() else path
    fields = read_json(file, "a config.json", WorkloadError)
    name = file.absolute().parent.name if file.name == "config.json" else file.stem
    try:
        found = describe_fields(fields, name or "model")
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from error
    unread = unread_fields(fields)
    if unread:
        warn(f"{file}: not read, may change costs: {', '.join(unread)[:200]}")
    return found


def describe_fields(fields: Any, name: str) -> Description:
    """Translate the fields of a `config.json`.

    Args:
        fields: the JSON object; what it leaves out is as in transformers.
        name: of the model.

    Returns:
        The description.

    Raises:
        WorkloadError: an unknown family, or a field that is wrong.
    """
    if not isinstance(fields, dict):
        raise WorkloadError(f"config.json must hold an object, got {type(fields).__name__}")
    check_kinds(fields)
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise WorkloadError(_refusal(kind))
    try:
        return _described(FAMILIES[kind], fields, name)
    except (MuRefError, TypeError, ArithmeticError, AttributeError, ValueError) as error:
        raise WorkloadError(f"config.json of {name} must be consistent: {error}") from error


def _refusal(kind: Any) -> str:
    like = ""
    if isinstance(kind, str):
        known = [_RELATIVES[kind]] if kind in _RELATIVES else []
        within = sorted((name for name in FAMILIES if name in kind), key=len, reverse=True)
        near = [*known, *within, *get_close_matches(kind, FAMILIES, 1, 0.75)]
        like = f"; the nearest to it is {near[0]}" if near else ""
    return (
        f"model_type of config.json must be one of {', '.join(FAMILIES)}; got {short(kind)}{like}; "
        "give other models with --model-json"
    )


def _described(family: Family, fields: Fields, name: str) -> Description:
    """Put the parts of a family together."""
    stacks: dict[str, StackConfig] = {}
    own_weights: Shapes = {}
    for side in family.sides:
        f = _fields_of(family, fields, side)
        parts = {key: part(f) if callable(part) else part for key, part in family.parts.items()
                 if key != "weights"}  # fmt: skip
        _check(parts)
        stack = stack_of(**{key: value for key, value in parts.items() if key in _STACK})
        stacks[side] = stack
        for weights in family.parts.get("weights", ()):
            own_weights |= weights(f, stack)
    # parts of the whole are those of the last stack, which writes the tokens
    whole = {"tied_head": True} | {key: value for key, value in parts.items() if key in _MODEL}
    model = model_of(name, stacks.get("encoder"), stacks.get("decoder"), **whole)
    own = {key: value for key, value in parts.items() if key in _OWN}
    return Description(model=model, own_weights=tuple(own_weights.items()), **own)


def _fields_of(family: Family, fields: Fields, side: str) -> Mapping[str, Any]:
    """Collect what a file says of a stack, over the defaults; what neither says is null."""
    table = fields
    for key in family.tables.get(side, ()):
        table = table.get(key, {})
    said = {family.aliases.get(key, key): value for key, value in table.items()}
    return _OrNull({**family.defaults, **said, "side": side, "model_type": fields["model_type"]})


class _OrNull(dict[str, Any]):
    """Fields, of which a missing one is null."""

    def __missing__(self, key: str) -> None:
        return None


def _check(parts: dict[str, Any]) -> None:
    """Check what is computed from several fields, and translate the names of functions."""
    check_choice("activation", parts["activation"], ACTIVATIONS, WorkloadError)
    parts["activation"] = ACTIVATIONS[parts["activation"]]
    ranges = {"max_len": TOKENS, "input_slots": TOKENS, "input_features": SIZE, "n_heads": HEADS}
    for key, allowed in ranges.items():
        if parts.get(key) is not None:
            allowed.check(key, parts[key], WorkloadError)
