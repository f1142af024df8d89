"""Fields that a user sets by name: `--set decoder.n_layers=4`, for a model or anything else.

A field of a model has the path that `docs/whatif.md` gives it, with or without "model." in front:
`decoder.n_layers`, `vocab_size`. Not here: fields of an NPU, which have units
(`npu_sim/hardware/units.py`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from mu_ref.border.text import short
from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import InputError, MuRefError, check_choice

__all__ = [
    "NUMBER", "assignments", "kind_of_field", "model_fields", "plain_value", "with_model_fields",
]  # fmt: skip

NUMBER = r"[+-]?(?:\d[\d_]*)?\.?\d[\d_]*(?:[eE][+-]?\d{1,3})?"
LONGEST = 40  # characters of a number
WORDS = {"true": True, "false": False, "none": None}
NOT_SET = ("name", "encoder", "decoder", "windowed_layers")


def assignments(texts: Iterable[str], option: str = "--set") -> dict[str, str]:
    """Read texts such as "decoder.n_layers=4".

        >>> from mu_ref.overrides import assignments
        >>> assignments(["decoder.n_layers=4", "npu.dma.bytes_per_s = 100 GB/s"])
        {'decoder.n_layers': '4', 'npu.dma.bytes_per_s': '100 GB/s'}

    Args:
        texts: from the command line.
        option: they were given by.

    Returns:
        {field: value}, both as texts.

    Raises:
        InputError: not of that form, or a field stands twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise InputError(
                f"{option} must have the form FIELD=VALUE, got {short(text)}; for example "
                "decoder.n_layers=4"
            )
        if name in found:
            raise InputError(f"{option} must set each field once, got {short(name)} twice")
        found[name] = value
    return found


def plain_value(text: str) -> Any:
    """Return what a text means: true, false, none, a number, or itself.

    >>> from mu_ref.overrides import plain_value
    >>> [plain_value(text) for text in ("8", "1_000", "4e-3", "true", "none", "relu")]
    [8, 1000, 0.004, True, None, 'relu']
    """
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if len(text) > LONGEST or not re.fullmatch(NUMBER, text, re.ASCII):
        return text
    try:
        return float(text) if set(text) & set(".eE") else int(text)
    except ValueError:  # two underscores beside each other
        return text


def kind_of_field(value: Any, now: Any) -> Any:
    """Return a value in the kind that a field has now: 100e9 is whole where a whole number is.

    >>> from mu_ref.overrides import kind_of_field
    >>> kind_of_field("100e9", 8), kind_of_field("none", 3), kind_of_field("relu", "gelu")
    (100000000000, None, 'relu')
    """
    if isinstance(value, str):
        value = plain_value(value)
    whole = isinstance(value, float) and value.is_integer() and not isinstance(now, float)
    return int(value) if whole else value


def model_fields(model: ModelConfig) -> dict[str, Any]:
    """Return {path: value} of every field of a model that can be set.

    >>> import mu_ref
    >>> from mu_ref.overrides import model_fields
    >>> model_fields(mu_ref.preset("mu-nano"))["decoder.activation"]
    'gelu_tanh'
    """
    found = {
        f"{stack_name}.{field.name}": getattr(stack, field.name)
        for stack_name, stack in model.stacks.items()
        for field in fields(stack)
        if field.name not in NOT_SET
    }
    own = {field.name: getattr(model, field.name) for field in fields(model)}
    return found | {name: value for name, value in own.items() if name not in NOT_SET}


def with_model_fields(
    model: ModelConfig, changes: Mapping[str, Any], error: type[MuRefError] = InputError
) -> ModelConfig:
    """Return a model with some fields changed, together.

        >>> import mu_ref
        >>> from mu_ref.overrides import with_model_fields
        >>> with_model_fields(mu_ref.preset("mu-nano"), {"decoder.n_layers": 2}).decoder.n_layers
        2

    Args:
        model: the configuration.
        changes: {path: value}; paths are those of `model_fields`, texts are read.
        error: class to raise for a path that there is not.

    Returns:
        The changed configuration. A window that no layer had is then every layer's.

    Raises:
        MuRefError: no such field, a value that is not allowed, or fields that do not fit together.
    """
    now = model_fields(model)
    stacks: dict[str, dict[str, Any]] = {name: {} for name in model.stacks}
    own: dict[str, Any] = {}
    for path, given in changes.items():
        check_choice("field of a model", path, now, error)
        part, _, name = path.rpartition(".")
        (stacks[part] if part else own)[name] = kind_of_field(given, now[path])
    if "vocab_size" in own and model.shared_embedding:
        own.setdefault("encoder_vocab_size", own["vocab_size"])
    own |= {name: _stack(model.stacks[name], more) for name, more in stacks.items() if more}
    return replace(model, **own)


def _stack(stack: StackConfig, changes: dict[str, Any]) -> StackConfig:
    """Windows follow: which layers have one is said once for each layer."""
    windowed, n_layers = stack.windowed_layers, changes.get("n_layers", stack.n_layers)
    if isinstance(n_layers, int) and 0 < n_layers <= 2**16 and n_layers != len(windowed):
        windowed = (windowed * n_layers)[:n_layers]
    if "window" in changes and (changes["window"] is None or not any(windowed)):
        windowed = (changes["window"] is not None,) * len(windowed)
    return replace(stack, **changes, windowed_layers=windowed)
