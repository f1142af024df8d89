"""Named model configurations: `presets.toml` holds each value beside where it comes from.

The sources are in `docs/mu_facts.md`. Chapter: `docs/08_mu.md`.
"""

import tomllib
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import ConfigError, check_choice

__all__ = ["PRESETS", "field_origins", "preset", "tiny"]

PRESETS = ("mu-330m", "decoder-only-330m", "microsoft-mu-text2text", "mu-nano", "tiny")
STACKS = ("encoder", "decoder")


def preset(name: str) -> ModelConfig:
    """Return a named configuration.

        >>> import mu_ref
        >>> model = mu_ref.preset("mu-330m")
        >>> model.encoder.n_layers, model.decoder.n_layers, model.decoder.d_model
        (32, 12, 768)

    Args:
        name: one of `PRESETS`.

    Returns:
        The configuration.

    Raises:
        ConfigError: no such preset; the message lists those that exist.
    """
    check_choice("preset", name, PRESETS, ConfigError)
    values = {field: value for field, (value, _) in _entries(name).items()}
    stacks = {stack: _stack(values, stack) for stack in STACKS}
    whole = {field: value for field, value in values.items() if "." not in field}
    return ModelConfig(name=name, **whole | stacks)


def tiny(**changes: Any) -> ModelConfig:
    """Return the model for tests and docs, changed.

    Args:
        **changes: StackConfig fields to change in both stacks.

    Returns:
        The configuration.
    """
    model = preset("tiny")
    stacks: dict[str, Any] = {n: replace(stack, **changes) for n, stack in model.stacks.items()}
    return replace(model, **stacks)


def field_origins(name: str) -> dict[str, str]:
    """Say of each field of a preset where its value comes from.

    Args:
        name: one of `PRESETS`.

    Returns:
        {field: origin}; an origin starts with "fact", "assumed" or "ours".

    Raises:
        ConfigError: no such preset.
    """
    check_choice("preset", name, PRESETS, ConfigError)
    entries = {field.partition(".")[2] or field: origin
               for field, (_, origin) in _entries(name).items()}  # fmt: skip
    # windows are given by their width alone
    entries |= {"name": "ours", "windowed_layers": entries["window"]}
    known = [field.name for kind in (StackConfig, ModelConfig) for field in fields(kind)]
    # fields that only checkpoints of others need have their defaults
    return {field: entries[field] for field in known if field in entries}


@cache
def _read() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def _entries(name: str) -> dict[str, tuple[Any, str]]:
    """{field, or stack.field: (value, origin)}, those of the preset that it is like included."""
    data = dict(_read()[name])
    found = _entries(data.pop("like")) if "like" in data else {}
    common = data.pop("origin", None)
    if common is not None:
        found = {field: (value, common) for field, (value, _) in found.items()}
    for field, entry in data.items():
        if field == "both" or (field in STACKS and entry != "none"):
            for stack in STACKS if field == "both" else (field,):
                found |= {f"{stack}.{key}": _pair(e, common) for key, e in entry.items()}
        elif field in STACKS:
            found = {key: pair for key, pair in found.items() if not key.startswith(f"{field}.")}
        else:
            found[field] = _pair(entry, common)
    return found


def _pair(entry: Any, origin: str | None) -> tuple[Any, str]:
    if not isinstance(entry, dict):
        assert origin is not None
        return entry, origin
    return None if entry["value"] == "none" else entry["value"], entry["origin"]


def _stack(values: dict[str, Any], stack: str) -> StackConfig | None:
    own = {key.partition(".")[2]: x for key, x in values.items() if key.startswith(f"{stack}.")}
    return StackConfig(windowed_layers=(False,) * own["n_layers"], **own) if own else None
