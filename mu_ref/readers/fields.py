"""Fields of another project's `config.json`: each is understood, or the user hears of it."""

from collections.abc import Collection, Mapping
from typing import Any

from mu_ref.border.ranges import Range
from mu_ref.border.text import short, warn
from mu_ref.errors import ConfigError

__all__ = [
    "ACTIVATIONS",
    "NOTES",
    "Fields",
    "check_flag",
    "check_numbers",
    "check_text",
    "warn_of_unknown",
]

Fields = Mapping[str, Any]

# What every configuration of Hugging Face may say, and what changes nothing without training.
NOTES = frozenset(
    ("_name_or_path", "architectures", "attention_dropout", "chunk_size_feed_forward",
     "classifier_dropout_rate", "dropout_rate", "dtype", "id2label", "initializer_range",
     "is_decoder", "is_encoder_decoder", "label2id", "model_type", "output_attentions",
     "output_hidden_states", "problem_type", "return_dict", "tie_word_embeddings", "torch_dtype",
     "transformers_version", "use_cache")
)  # fmt: skip

ACTIVATIONS = {
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu": "gelu", "silu": "silu",
    "swish": "silu", "relu": "relu",
}  # fmt: skip


def check_numbers(
    f: Fields, ranges: Mapping[str, Range], where: str, optional: Collection[str] = ()
) -> None:
    """Check numbers by their names in the file.

    Args:
        f: the fields.
        ranges: {field: what it may be}.
        where: stands before the field in messages.
        optional: fields that may be null.

    Raises:
        ConfigError: a number is something else, or out of its range.
    """
    for name, allowed in ranges.items():
        if f[name] is not None or name not in optional:
            allowed.check(f"{where}{name}", f[name], ConfigError)


def check_flag(f: Fields, name: str, where: str) -> bool:
    """Return a field that must be true or false."""
    if not isinstance(f[name], bool):
        raise ConfigError(f"{where}{name} must be true or false, got {short(f[name])}")
    return f[name]


def check_text(f: Fields, name: str, where: str, default: str) -> str:
    """Return a field that must be a text; `default` if it is missing, null or empty."""
    value = f.get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{where}{name} must be a text, got {short(value)}")
    return value or default


def warn_of_unknown(f: Fields, known: Collection[str], where: str) -> None:
    """Tell the user of fields that nothing here reads."""
    unknown = sorted(set(f) - set(known))
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        warn(f"{where.rstrip(': .')}: these fields are not known and change nothing: {shown}")
