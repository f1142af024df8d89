"""Find the model that a user names: a preset, FILE#name, or a config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mu_ref.border.text import short
from mu_ref.errors import MuRefError
from mu_ref.presets import preset
from npu_sim.errors import SweepError
from npu_sim.models.hf_config import read_hf_config
from npu_sim.models.neutral_json import read_model
from npu_sim.program.description import Description, describe

__all__ = ["named_description", "read_description"]


def named_description(
    model: str | None, model_json: str | None, hf_config: str | None
) -> Description:
    """Read the model of a command.

    Args:
        model: a preset.
        model_json: "FILE#name".
        hf_config: a config.json.

    Returns:
        Its description.

    Raises:
        NpuSimError: none or several are given, or one that does not exist or is wrong.
        ConfigError: no such preset.
    """
    given = {"model": model, "model_json": model_json, "hf_config": hf_config}
    named = {key: value for key, value in given.items() if value is not None}
    if set(named) == {"model"}:
        return describe(preset(named["model"]))
    return read_description(named)


def read_description(data: Mapping[str, Any]) -> Description:
    """Read the model that `model`, `model_json` or `hf_config` names.

    Args:
        data: holds exactly one of them, a text.

    Returns:
        Its description.

    Raises:
        NpuSimError: none or several, or one that does not exist or is wrong.
    """
    given = [key for key in ("model", "model_json", "hf_config") if key in data]
    if len(given) != 1:
        raise SweepError(f"one of model, model_json and hf_config must be given, got {given}")
    value = data[given[0]]
    if not isinstance(value, str):
        raise SweepError(f"{given[0]} must be a text, got {short(value)}")
    if given[0] == "model_json":
        return read_model(value)
    if given[0] == "hf_config":
        return read_hf_config(Path(value))
    try:
        return describe(preset(value))
    except MuRefError as error:
        raise SweepError(f"model: {error}") from error
