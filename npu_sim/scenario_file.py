"""The base of a what-if from the tables of a file or the options of a command.

Chapter: `docs/whatif.md`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from mu_ref.errors import MuRefError
from mu_ref.presets import preset
from npu_sim.described import Description, describe
from npu_sim.errors import SweepError, check_choice
from npu_sim.hardware import npu
from npu_sim.hf_configs import read_hf_config
from npu_sim.model_json import read_model
from npu_sim.program import Precision
from npu_sim.scenario import Drafter, Scenario, Workload

__all__ = [
    "BASE_KEYS",
    "base_scenario",
    "named_description",
    "read_description",
    "read_scenario",
    "table_of",
]

BASE_KEYS = ("model", "model_json", "hf_config", "npu", "fidelity", "workload", "precision",
             "drafter")  # fmt: skip


def base_scenario(data: Mapping[str, Any]) -> Scenario:
    """Build the scenario that a file (or a command line) describes.

    Args:
        data: see the module; model, npu, workload, precision, drafter.

    Returns:
        The scenario.

    Raises:
        NpuSimError: a key that is wrong; names it.
    """
    parts: dict[str, Any] = {}
    for name, kind in (("workload", Workload), ("precision", Precision), ("drafter", Drafter)):
        table = table_of(data, name)
        known = [field.name for field in fields(kind)]
        for key in table:
            check_choice(f"key of [{name}]", key, known, SweepError)
        parts[name] = kind(**table)
    return Scenario(
        model=read_description(data), npu=npu(data.get("npu", "hexagon-x-elite")), **parts
    )


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


def read_scenario(path: Path) -> Scenario:
    """Read a scenario from a TOML file: the base of a sweep, without what is varied.

    Args:
        path: the file.

    Returns:
        The scenario.

    Raises:
        NpuSimError: no such file, not TOML, or a key that is wrong; names it.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SweepError(f"{path} must be a TOML file of a scenario; cannot read it") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SweepError(f"{path} must be TOML, got something else ({error})") from error
    for key in data:
        check_choice(f"key of {path}", key, BASE_KEYS, SweepError)
    return base_scenario(data)


def table_of(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a table of a file; empty if it is not there."""
    table = data.get(name, {})
    if not isinstance(table, dict):
        raise SweepError(f"{name} must be a table, got {table!r}")
    return table


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
        raise SweepError(f"{given[0]} must be a text, got {value!r}")
    if given[0] == "model_json":
        return read_model(value)
    if given[0] == "hf_config":
        return read_hf_config(Path(value))
    try:
        return describe(preset(value))
    except MuRefError as error:
        raise SweepError(f"model: {error}") from error
