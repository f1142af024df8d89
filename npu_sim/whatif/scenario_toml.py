"""The base of a what-if from the tables of a file or the options of a command.

Chapter: `docs/whatif.md`.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from mu_ref.border.reading import read_toml
from mu_ref.errors import check_choice
from npu_sim.errors import SweepError
from npu_sim.hardware.presets import npu
from npu_sim.models.find import read_description
from npu_sim.program.precision import Precision
from npu_sim.speculate.drafter import Drafter
from npu_sim.whatif.scenario import Scenario, Workload

__all__ = ["BASE_KEYS", "base_scenario", "read_scenario", "table_of"]


BASE_KEYS = ("model", "model_json", "hf_config", "npu", "fidelity", "workload", "precision",
             "drafter")  # fmt: skip


def base_scenario(data: Mapping[str, Any]) -> Scenario:
    """Build the scenario that a file (or a command line) describes.

        >>> import npu_sim
        >>> found = npu_sim.base_scenario({"model": "mu-330m", "workload": {"n_input": 128}})
        >>> found.npu.name, found.workload.n_input, found.workload.n_output
        ('hexagon-x-elite', 128, 32)

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
        description=read_description(data), npu=npu(data.get("npu", "hexagon-x-elite")), **parts
    )


def read_scenario(path: Path) -> Scenario:
    """Read a scenario from a TOML file: the base of a sweep, without what is varied.

    Args:
        path: the file.

    Returns:
        The scenario.

    Raises:
        NpuSimError: no such file, not TOML, or a key that is wrong; names it.
    """
    data = read_toml(path, "a TOML file of a scenario", SweepError)
    for key in data:
        check_choice(f"key of {path}", key, BASE_KEYS, SweepError)
    return base_scenario(data)


def table_of(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a table of a file; empty if it is not there."""
    table = data.get(name, {})
    if not isinstance(table, dict):
        raise SweepError(f"{name} must be a table, got {table!r}")
    return table
