"""The folder of another project's checkpoint: which files it has, and the tensors in them."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from mu_ref.border.arrays import check_floats, read_safetensors
from mu_ref.border.reading import read_json
from mu_ref.border.text import short
from mu_ref.errors import ConfigError, WeightsError

__all__ = ["files_of", "read_fields", "read_tensors"]

CONFIG, GENERATION = "config.json", "generation_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("model.pt", "model.pth", "pytorch_model.bin", "pytorch_model.bin.index.json")
RECIPE = "the few lines under 'From model.pt' in docs/checkpoints.md"
# What a model computes anew when it starts: speeds of RoPE, under the names that they had.
BUFFERS = re.compile(r"(.*\.)?(rotary_emb(\..*)?|(original_)?inv_freq)")

Parts = dict[Path, set[str] | None]
"""{file: names of the tensors that an index expects there; None without an index}."""


def files_of(folder: Path) -> list[Path]:
    """Return the files that a checkpoint is read from, whether they exist or not."""
    named = [folder / name for name in (CONFIG, GENERATION, WEIGHTS, INDEX)]
    return [*named, *sorted(set(folder.glob("*.safetensors")) - set(named))]


def read_fields(folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Read the configuration of a checkpoint.

    Args:
        folder: holds `config.json` and perhaps `generation_config.json`.

    Returns:
        The fields of both; None if there is no second file.

    Raises:
        ConfigError: a file is not there, or is no JSON object.
        WeightsError: the folder holds weights as a pickle, which is not read.
    """
    _refuse_pickles(folder)
    second = folder / GENERATION
    return _object(folder / CONFIG), _object(second) if second.exists() else None


def _object(path: Path) -> dict[str, Any]:
    fields = read_json(path, "a JSON file", ConfigError)
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} must hold a JSON object, got {type(fields).__name__}")
    return fields


def _refuse_pickles(folder: Path) -> None:
    """Refuse a folder whose only weights are a pickle, and say what to do with it."""
    if any((folder / name).exists() for name in (WEIGHTS, INDEX)):
        return
    found = [name for name in PICKLES if (folder / name).exists()]
    if found:
        raise WeightsError(
            f"{folder} must hold {WEIGHTS}, got {found[0]}, which runs code when it is read; "
            f"convert it once with {RECIPE}"
        )


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Read all tensors of a checkpoint but buffers, which are computed from its configuration.

    Args:
        folder: holds `model.safetensors`, or its parts and `model.safetensors.index.json`. Where
            both are there the first is read, as transformers does.

    Returns:
        {the project's name: array}.

    Raises:
        WeightsError: a file is missing or damaged, a part does not hold what the index says, or a
            tensor holds something else than finite floats.
    """
    whole, index = folder / WEIGHTS, folder / INDEX
    alone = whole.exists() or not index.exists()
    parts: Parts = {whole: None} if alone else _parts(index)
    tensors: dict[str, np.ndarray] = {}
    for path, names in parts.items():
        found = read_safetensors(path)[0]
        if names is not None:
            _check_part(path, names, set(found))
        wanted = {name: a for name, a in found.items() if not BUFFERS.fullmatch(name)}
        check_floats(str(path), wanted)
        tensors |= wanted
    return tensors


def _parts(index: Path) -> Parts:
    """Read an index: which tensors it expects in which file."""
    data = read_json(index, "an index of tensors", WeightsError)
    named = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(named, dict) or not named:
        raise WeightsError(f"{index} must hold an object weight_map, {{tensor: file}}; it has none")
    parts: dict[Path, set[str]] = {}
    for tensor, file in named.items():
        where = f"{index}: weight_map: {short(tensor)}"
        is_plain = isinstance(file, str) and file not in ("", ".", "..") and "\0" not in file
        if not is_plain or Path(file).name != file or "\\" in file:
            raise WeightsError(f"{where} must name a file in the same folder, got {short(file)}")
        parts.setdefault(index.parent / file, set()).add(tensor)
    for path, names in parts.items():
        if not path.exists():
            raise WeightsError(f"{path} must exist, since {index.name} places {len(names)} "
                               "tensors there; it does not; copy it again")  # fmt: skip
    return dict(parts)


def _check_part(path: Path, named: set[str], found: set[str]) -> None:
    """Check that a part holds what the index places there, and nothing else."""
    for wrong, rule in ((named - found, "hold"), (found - named, "not hold")):
        if wrong:
            raise WeightsError(
                f"{path} must {rule} {short(min(wrong))}, as {INDEX} says ({len(wrong)} tensors "
                "are so); one of them belongs to another checkpoint; copy both again"
            )
