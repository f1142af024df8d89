"""The base of a what-if from the tables of a file or the options of a command.

Chapter: `docs/whatif.md`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from mu_ref.border.reading import read_toml
from mu_ref.border.text import short
from mu_ref.errors import check_choice
from npu_sim.errors import SweepError
from npu_sim.hardware.presets import npu, quoted
from npu_sim.models.find import read_description
from npu_sim.program.precision import Precision
from npu_sim.program.request import input_tokens
from npu_sim.report.fidelity import FIDELITIES
from npu_sim.speculate.drafter import Drafter
from npu_sim.whatif.scenario import Scenario, Workload, with_set

__all__ = [
    "BASE_KEYS", "DEFAULT_NPU", "MODEL_KEYS", "base_files", "base_scenario", "check_drafter",
    "read_tables", "table_of", "to_toml",
]  # fmt: skip


DEFAULT_NPU = "hexagon-x-elite"
MODEL_KEYS = ("model", "model_json", "hf_config")
BASE_KEYS = (*MODEL_KEYS, "npu", "workload", "precision", "drafter", "set")


def base_scenario(data: Mapping[str, Any], *, varied: Iterable[str] = ()) -> Scenario:
    """Build the scenario that a file (or a command line) describes.

        >>> import npu_sim
        >>> found = npu_sim.base_scenario({"model": "mu-330m", "workload": {"n_input": 128}})
        >>> found.npu.name, found.workload.n_input, found.workload.n_output
        ('hexagon-x-elite', 128, 32)

    Args:
        data: model, npu, workload, precision, drafter, and in `set` any field by its path, as a
            person writes it: {"npu.dma.bytes_per_s": "100 GB/s"}.
        varied: paths that will be changed.

    Returns:
        The scenario.

    Raises:
        NpuSimError: a key that is wrong, or of a drafter that is not there; names it.
    """
    for key in data:
        check_choice("key", key, BASE_KEYS, SweepError)
    chip = data.get("npu", DEFAULT_NPU)
    if not isinstance(chip, str):
        raise SweepError(f"npu must be a text, got {short(chip)}")
    parts: dict[str, Any] = {}
    for name, kind in (("workload", Workload), ("precision", Precision), ("drafter", Drafter)):
        table = _today(table_of(data, name))
        known = [field.name for field in fields(kind)]
        for key in table:
            check_choice(f"key of [{name}]", key, known, SweepError)
        parts[name] = kind(**table)
    base = Scenario(description=read_description(data), npu=npu(chip), **parts)
    if "n_input" not in table_of(data, "workload"):  # an input of a fixed length is read whole
        n_input = input_tokens(base.description, None, base.workload.context)
        base = replace(base, workload=replace(base.workload, n_input=n_input))
    changes = table_of(data, "set")
    if changes:
        base = with_set(base, changes)
    drafting = [name.removeprefix("drafter.") for name in changes if name.startswith("drafter.")]
    check_drafter([*table_of(data, "drafter"), *drafting], base.drafter.beam_width, varied)
    return base


def _today(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fields of a table by their names of today."""
    return {"context" if key == "static_context" else key: value for key, value in table.items()}


def check_drafter(fields_given: Iterable[str], beam_width: int, varied: Iterable[str]) -> None:
    """Refuse fields of a drafter where there is none: they would change nothing.

    Args:
        fields_given: names of fields.
        beam_width: of the base; 0 means no drafter.
        varied: paths that will be changed.

    Raises:
        SweepError: a field without beams.
    """
    idle = [name for name in fields_given if name != "beam_width"]
    if idle and not beam_width and "drafter.beam_width" not in varied:
        raise SweepError(
            f"drafter.{idle[0]} must come with drafter.beam_width of at least 1, got 0: no drafter"
        )


def read_tables(path: Path) -> dict[str, Any]:
    """Read the tables of a scenario file: the base of a sweep, without what is varied.

    Args:
        path: the file.

    Returns:
        What `base_scenario` takes; and `fidelity`, if the file names one.

    Raises:
        NpuSimError: no such file, not TOML, or a key that is wrong; names it.
    """
    data = read_toml(path, "a TOML file of a scenario", SweepError)
    for key in data:
        check_choice(f"key of {path}", key, (*BASE_KEYS, "fidelity"), SweepError)
    check_choice(f"fidelity of {path}", data.get("fidelity", "tile"), FIDELITIES, SweepError)
    return data


def base_files(data: Mapping[str, Any]) -> tuple[Path, ...]:
    """List the files that `base_scenario` reads.

    Args:
        data: what it has taken.

    Returns:
        The file of the NPU and of the model, where they are no presets.
    """
    found = []
    if str(data.get("npu", "")).endswith(".toml"):
        found.append(Path(data["npu"]))
    if "model_json" in data:
        found.append(Path(data["model_json"].partition("#")[0]))
    if "hf_config" in data:
        config = Path(data["hf_config"])
        found.append(config / "config.json" if config.is_dir() else config)
    return tuple(found)


def table_of(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a table of a file; empty if it is not there."""
    table = data.get(name, {})
    if not isinstance(table, dict):
        raise SweepError(f"{name} must be a table, got {short(table)}")
    return table


def to_toml(data: Mapping[str, Any]) -> str:
    """Write what was read from TOML as TOML again.

    >>> from npu_sim.whatif.scenario_toml import to_toml
    >>> print(to_toml({"model": "tiny", "vary": {"n_input": [4, 8]}}), end="")
    "model" = "tiny"
    "vary" = {"n_input" = [4, 8]}
    """
    return "".join(f"{quoted(key)} = {_literal(value)}\n" for key, value in data.items())


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(k)} = {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return repr(value)
